"""How far a set of images is from real images."""
