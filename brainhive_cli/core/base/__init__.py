"""Errors, the terminal, and what every room uses."""
