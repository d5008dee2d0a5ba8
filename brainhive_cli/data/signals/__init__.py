"""Signals: trials of a subject, their sensors or voxels, and steps on them."""
