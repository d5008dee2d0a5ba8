"""Diffusion models that a prior conditions."""
