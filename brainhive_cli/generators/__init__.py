"""Diffusion models that a prior conditions."""

from brainhive_cli.generators._schedulers import SCHEDULERS, known

__all__ = ["SCHEDULERS", "known"]
