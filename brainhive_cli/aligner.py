"""Public module of trained brain models: `brainhive_cli.aligner.load(path)`."""

from brainhive_cli.training.alignment import Aligner, Layout, load

__all__ = ["Aligner", "Layout", "load"]
