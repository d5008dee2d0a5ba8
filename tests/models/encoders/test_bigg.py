"""Tokens and texts of OpenCLIP bigG, on a tiny model, as in MindEye2 and NEURONS."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")

from brainhive_cli.models import encoders  # noqa: E402

SIDE = 28
MEAN = [0.48, 0.45, 0.41]
STD = [0.27, 0.26, 0.28]
MODEL = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": SIDE,
        "patch_size": 7,
        "width": 16,
        "layers": 2,
        "head_width": 8,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}
SAME = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bigg")
    torch.manual_seed(0)
    network = open_clip.CLIP(**MODEL)
    for weight in network.parameters():  # or a norm that is left out would not be seen
        weight.data.add_(0.1 * torch.randn_like(weight))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return open_clip.create_model(f"local-dir:{folder}").eval()


@pytest.mark.parametrize("mode", ["published", "right"])
def test_tokens_are_normed_and_pictures_scaled_as_in_mindeye2(folder, model, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    encoder = encoders.resolve(
        {"kind": "clip-bigg-tokens", "source": str(folder), "mode": mode}
    ).build()

    embedding = encoder.module(encoder.preprocess(Image.fromarray(pixels))[None])

    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    ranged = (picture + 1) / 2 if mode == "published" else picture
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    model.visual.output_tokens = True
    with torch.no_grad():
        _, tokens = model.visual((ranged - mean) / std)
    model.visual.output_tokens = False
    assert embedding.shape == (1, 16, 16)
    assert torch.allclose(embedding, tokens, atol=SAME)
    assert encoder.preprocessing.endswith("half way to white") == (mode == "published")


def test_texts_are_the_projected_end_token_not_normalised(folder, model):
    texts = ["A dog runs, across the grass", "", "x " * 90]
    encoder = encoders.resolve(
        {"kind": "clip-bigg-text", "source": str(folder)}
    ).build()

    embeddings = encoder.module(
        torch.stack([encoder.preprocess(text) for text in texts])
    )

    with torch.no_grad():
        expected = model.encode_text(open_clip.tokenize(texts))
    assert encoder.reads == "captions"
    assert torch.allclose(embeddings, expected, atol=SAME)
    assert (embeddings.norm(dim=-1) - 1).abs().min() > 0.01
    # no image tower
    assert (
        sum(weight.numel() for weight in encoder.module.parameters()) < 16 * 49408 * 1.1
    )
