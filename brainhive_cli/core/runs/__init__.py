"""Run folders, and the driver that computes them."""
