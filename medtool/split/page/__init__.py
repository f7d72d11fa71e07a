"""The audit as one HTML file: the verdict, every finding, duplicates side by side."""
