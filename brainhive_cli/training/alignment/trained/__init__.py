"""Trained brain models: opened, applied to new trials, exported and shared."""
