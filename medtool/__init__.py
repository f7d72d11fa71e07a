"""From a folder of medical images to numbers that can be trusted."""

__version__ = "0.1.0"
