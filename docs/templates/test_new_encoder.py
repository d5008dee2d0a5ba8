"""Tests of NEW ENCODER."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.models.encoders import new_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of small weights, written as the publisher's script does."""
    torch.manual_seed(1)
    save_file(
        new_encoder.NewEncoderNetwork(8).state_dict(), tmp_path / new_encoder.FILE
    )
    return tmp_path


def test_embeddings_equal_a_direct_call_of_the_network(folder: Path) -> None:
    """Source: the publisher's example of use, with the values of its transforms."""
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    encoder = new_encoder.Config(source=str(folder), width=8).build()

    embedding = encoder.module(encoder.preprocess(Image.fromarray(pixels))[None])

    torch.manual_seed(1)
    network = new_encoder.NewEncoderNetwork(8).eval()
    values = (pixels / 255 - new_encoder.MEAN) / new_encoder.STD  # [H, W, 3]
    expected = network(torch.from_numpy(values).float().permute(2, 0, 1)[None])
    torch.testing.assert_close(embedding, expected.detach())


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=new_encoder.FILE):
        new_encoder.Config(source=str(tmp_path), width=8).build()
