"""Tests that the variables of the hub's client lead every download to a mirror.

The mirror is a server on this machine. A proxy that does not answer stands for all
other addresses.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import transformers
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.downloads.sources import SOURCES
from tests.repositories.hub_repositories import VAE_CONFIG
from tests.tools.hub_server import serving

pytestmark = pytest.mark.nightly

WEIGHTS = {
    "open_clip": "lab/clip/open_clip_model.safetensors",
    "timm": "lab/timm/model.safetensors",
    "transformers": "lab/vit/model.safetensors",
    "diffusers": "lab/vae/diffusion_pytorch_model.safetensors",
}
"""File of weights on the mirror, by the library that loads it."""
EMBED = ("embed", "--dataset", "image-folder", "--encoders")
ENCODERS = ",".join(f"hub:{Path(file).parent}" for file in WEIGHTS.values())


def write_open_clip(folder):
    """Write a tiny CLIP and its config in the layout of open_clip."""
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1}
    vision["head_width"] = 16
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2}
    model = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {**text, "layers": 1}}
    folder.mkdir(parents=True)
    save_file(
        open_clip.CLIP(**model).state_dict(), folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": model, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def write_timm(folder):
    """Write the test network of timm and its config."""
    model = timm.create_model("test_vit", num_classes=10)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_vit",
        "num_classes": 10,
        "num_features": model.num_features,
        "pretrained_cfg": model.pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_transformers(folder):
    """Write a tiny vision transformer with its processor."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=32, image_size=32, patch_size=16
    )
    transformers.ViTModel(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)


@pytest.fixture
def mirror(tmp_path):
    """Mirror with weights for each library, and a data set of the hub."""
    root = tmp_path / "mirror"
    write_open_clip(root / "lab/clip")
    write_timm(root / "lab/timm")
    write_transformers(root / "lab/vit")
    vae = AutoencoderKL.from_config({**VAE_CONFIG, "sample_size": 32})
    vae.save_pretrained(root / "lab/vae")
    (location,) = SOURCES["things-eeg"].hosts
    data_set = root / location.removeprefix("hub:datasets/")
    data_set.mkdir(parents=True)
    (data_set / "README.md").write_text("THINGS-EEG")
    with serving(root) as hub:
        yield hub


def run_brainhive(home, *arguments, **variables):
    """Run Brainhive in a process that reads the variables at its start."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_")
    }
    environment["HTTPS_PROXY"] = "http://127.0.0.1:9"
    environment["NO_PROXY"] = "127.0.0.1"
    return subprocess.run(
        [sys.executable, "-m", "brainhive_cli"] + list(arguments),
        cwd=home,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def write_pictures(home):
    """Write two pictures for training and two for test."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for concept in ("cat", "dog"):
            file = home / "data/image-folder" / split / concept / f"{concept}_1.png"
            file.parent.mkdir(parents=True)
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(file)


def test_all_libraries_load_weights_from_the_mirror(home, mirror):
    write_pictures(home)
    cache = {"HF_HOME": str(home / "cache")}
    ended = run_brainhive(home, *EMBED, ENCODERS, HF_ENDPOINT=mirror.endpoint, **cache)
    assert ended.returncode == 0, ended.stderr
    assert set(WEIGHTS.values()) <= set(mirror.fetched)
    assert len(list(home.glob("embeddings/image-folder/test/*.h5"))) == len(WEIGHTS)

    # a node without a network reads the cache
    mirror.fetched.clear()
    offline = run_brainhive(
        home, *EMBED, ENCODERS, "--again", HF_HUB_OFFLINE="1", **cache
    )
    assert offline.returncode == 0, offline.stderr
    assert mirror.fetched == []


def test_data_sets_of_the_hub_are_fetched_from_the_mirror(home, mirror):
    cache = {"HF_HOME": str(home / "cache")}
    run_brainhive(home, "fetch", "things-eeg", HF_ENDPOINT=mirror.endpoint, **cache)
    assert [Path(name).name for name in mirror.fetched] == ["README.md"]


def test_without_a_mirror_the_weights_are_missing(home):
    write_pictures(home)
    ended = run_brainhive(home, *EMBED, ENCODERS, HF_HOME=str(home / "cache"))
    assert ended.returncode == MissingData.exit_code
    assert "hf download lab/clip" in " ".join(ended.stderr.split())
