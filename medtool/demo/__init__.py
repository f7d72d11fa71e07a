"""A small data set, ready for use: the real pictures of scikit-image's wheel, and phantoms drawn from a seed."""
