"""my_parts/warmth.py: how similar the red of two pictures is."""

from torch import Tensor

from brainhive_cli import api


def features(pictures: Tensor) -> Tensor:
    """Average the red of pictures [B, 3, H, W] in 0..1 to [B]."""
    return pictures[:, 0].mean((1, 2)).double()


def compare(seen: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compare B generated pictures with the seen ones: [B], more is better."""
    return 1 - (seen[rows] - generated).abs()


PART = api.MetricPart(features, compare)
