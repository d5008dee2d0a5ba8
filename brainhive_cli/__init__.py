"""Brainhive: decode images from brain recordings, with a command for each step."""

__version__ = "0.1.0"
