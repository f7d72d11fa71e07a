"""A backbone and a segmenter that medtool does not have; nothing is imported until one is used."""
