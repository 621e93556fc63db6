"""Networks that turn images into feature vectors, and exactly how the images reach them."""
