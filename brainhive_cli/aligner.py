"""The public name of trained brain models: `brainhive_cli.aligner.load(path)`."""

from brainhive_cli.alignment.model import Aligner, Layout, load

__all__ = ["Aligner", "Layout", "load"]
