"""Public module of trained brain models: `brainhive_cli.aligner.load(path)`."""

from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner, load

__all__ = ["Aligner", "Layout", "load"]
