"""Mean images transported to the distribution of real images, component by component of the mixture."""
