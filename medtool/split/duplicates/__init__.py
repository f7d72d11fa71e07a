"""Finding images that show the same picture: the same bytes, the same pixels, or a copy that was altered."""
