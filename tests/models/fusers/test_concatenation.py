"""Embeddings as targets, concatenated or as separate heads."""

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models.fusers import TINY

DIMS = {"vae": 4, "clip-b32": 6}


def test_other_encoders_are_refused():
    with pytest.raises(
        BrainhiveError, match=r"made for .*vae \(4\), not for vae \(4\)"
    ):
        TINY["concatenation"].build(DIMS, 10)({"vae": torch.zeros(1, 4)})
