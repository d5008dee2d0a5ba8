"""Image sets and the recordings made with them."""
