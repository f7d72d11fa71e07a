"""How good heatmaps are: whether they lie on what is marked, and whether the network needs what they point at."""
