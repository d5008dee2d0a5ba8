"""Tests of embed: the contents of its stores."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.stores import TargetStore, target_store
from brainhive_cli.models import encoders

COLOURS = "python:brainhive_cli.models.encoders.python:example"
TIMM = {"kind": "timm", "source": "random", "architecture": "test_vit"}
ROUNDING = 1e-5
"""Tolerance of embeddings, because float32 rounds differently in other batch sizes."""


@pytest.fixture
def folder(home, pictures):
    """Override that makes the folder of pictures the data set, in an empty home."""
    return (f"dataset={{kind: image-folder, root: {pictures}}}",)


def store_of(home, encoder="brainhive_cli-models-encoders-python-example"):
    return target_store.build_store_path(
        home / "embeddings", "pictures", "train", encoder
    )


def embed_directly(reference, pictures):
    """Embed all pictures of a folder in a single batch, without the command."""
    encoder = encoders.resolve(reference).build()
    inputs = [
        encoder.preprocess(Image.open(file).convert("RGB"))
        for file in sorted(pictures.rglob("*.png"))
    ]
    with torch.inference_mode():
        return encoder.module.eval()(torch.stack(inputs)).numpy()


def test_two_encoders_in_one_pass_give_what_each_gives_directly(
    run_command, home, pictures, folder
):
    run_command("embed", *folder, f"encoders=[{COLOURS!r}, {TIMM}]", "batch_size=5")

    for reference in (COLOURS, TIMM):
        store = TargetStore.open(store_of(home, encoders.resolve(reference).name))
        expected = embed_directly(reference, pictures)
        assert np.allclose(store.embedding, expected, atol=ROUNDING)
        assert store.image_ids[:2] == ["concept_0/0", "concept_0/1"]
        assert store.concepts[-1] == "concept_3"
        assert store.done.all()


def test_every_store_has_pixel_digests_even_after_resuming(
    run_command, home, pictures, folder
):
    # the last picture is a copy of the second
    Image.open(pictures / "concept_0/1.png").save(pictures / "concept_3/2.png")
    run_command("embed", *folder, f"encoders=[{COLOURS!r}]", "batch_size=5")
    run_command(
        "embed",
        *folder,
        f"encoders=[{COLOURS!r}, {TIMM}]",
        "batch_size=4",
        "run.workers=2",
    )

    first_store, second = (
        TargetStore.open(store_of(home, encoders.resolve(name).name)).pixels
        for name in (COLOURS, TIMM)
    )

    expected = [
        describe_pixels(Image.open(file)).tolist()
        for file in sorted(pictures.rglob("*.png"))
    ]
    assert first_store.tolist() == second.tolist() == expected
    assert (first_store[1] == first_store[-1]).all()
    assert len(set(map(tuple, expected))) == len(expected) - 1
