"""Known folder layouts, each turned into a manifest; one file a layout."""
