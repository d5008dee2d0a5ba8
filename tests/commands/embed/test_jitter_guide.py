"""Tests of the guide to several embeddings of a picture, with a small encoder."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.models.encoders import resolve

pytestmark = pytest.mark.nightly


GUIDE = Path(__file__).parents[3] / "docs" / "training.md"
SMALL = (
    "--subjects",
    "1",
    "--seeds",
    "1",
    "dim=32",
    "fuser.intermediate_size=32",
    "train.epochs=1",
)


@pytest.fixture
def blocks():
    """Module in the guide, and the arguments of its command lines."""
    text = GUIDE.read_text().partition("## Several embeddings")[2].partition("\n## ")[0]
    text = text.replace("clip-b32", "demo-clip")
    (module,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return module, re.findall(
        r"brainhive ((?:embed|train-align|import-embeddings) [^`\n]*)", text
    )


def test_mirrored_pictures_are_embedded_and_drawn_from(
    things_home, blocks, monkeypatch
):
    module, (embed, train) = blocks
    (things_home / "mirrored.py").write_text(module)
    monkeypatch.syspath_prepend(things_home)

    for line in (embed, shlex.join(list(shlex.split(train)) + list(SMALL))):
        ended = CliRunner().invoke(app, shlex.split(line))
        assert ended.exit_code == 0, ended.stderr

    plain_picture, mirrored = (
        TargetStore.open(
            build_store_path(things_home / "embeddings", "things-eeg", "train", name)
        )
        for name in ("demo-clip", "mirrored-clip")
    )
    encoder = resolve("demo-clip").build()
    first_picture = Image.open(
        things_home / "data/things-eeg" / f"{plain_picture.image_ids[0]}.png"
    ).convert("RGB")
    with torch.no_grad():
        expected = encoder.module(
            encoder.preprocess(ImageOps.mirror(first_picture))[None]
        )[0]
    assert np.allclose(mirrored.embedding[0], expected, atol=1e-4)
    assert not np.allclose(plain_picture.embedding[0], expected, atol=1e-2)
