"""Frozen vision encoders: picture to embedding."""
