"""How likely images are under a run."""
