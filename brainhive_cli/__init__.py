"""Brainhive: decode images from brain recordings, one command a step."""

__version__ = "0.1.0"
