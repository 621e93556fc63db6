"""Whether samples repeat training images."""
