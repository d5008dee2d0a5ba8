"""Tests of the README's reconstruction with a prior and a generator from the hub.

The hub is on this machine. Its repositories have the names and files of the real
repositories, with tiny networks. Requests to other addresses go to a proxy that does
not exist.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from brainhive_cli.evaluation.reconstruction.generation import (
    decode_signals,
    derive_noise_seed,
)
from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.training.alignment.trained.run import TrainedRun
from brainhive_cli.training.alignment.trained.test_set import open_test_set
from tests.repositories.hub_repositories import (
    PRIOR,
    STORES,
    TURBO,
    TURBO_WEIGHTS,
    write_prior_and_turbo,
)
from tests.tools.hub_server import serving

LINE = ("reconstruct", "--prior", "hub:Fusion-Prior-SynCLR_B32_VAE")
SCORED = {"pixcorr": 2, "ssim": 2}
"""Number of items of each metric that needs no network."""
UNSCORED = {"alexnet2", "alexnet5", "inception", "clip", "effnet", "swav"}
"""Metrics whose networks are not on the hub of the test."""
SUBJECT = ("subjects=1", "seeds=1", "train.epochs=2", "train.precision=fp32")
"""Overrides that make the training fast."""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Repositories of the prior and of sdxl-turbo, with all kinds of files."""
    return write_prior_and_turbo(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def hub(repositories, image_networks_absent, monkeypatch):
    """Hub with these repositories. No other address answers."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(repositories) as hub:
        hub.redirect_client(monkeypatch)
        yield hub


@pytest.fixture
def embedded(things_home):
    """Home with a small things-eeg and embeddings by the encoders of the prior."""
    root, random = things_home / "data/things-eeg", np.random.default_rng(0)
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        files = [
            file.relative_to(root).with_suffix("")
            for file in sorted((root / folder).rglob("*.png"))
        ]
        for encoder, dim in STORES.items():
            path = build_store_path(
                things_home / "embeddings", "things-eeg", split, encoder
            )
            ids = [file.as_posix() for file in files]
            concepts = [file.parent.name for file in files]
            attributes = {"encoder": encoder, "dataset": "things-eeg", "split": split}
            StorePlan(path, ids, concepts, (dim,), "float32", attributes).create()
            writer = TargetWriter(path)
            embedding = random.standard_normal((len(ids), dim), np.float32)
            writer.write(np.arange(len(ids)), embedding)
            writer.close()
            writer.finish()
    return things_home


def brainhive(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("things_home", [2], indirect=True)
def test_the_command_of_the_readme_generates_and_measures(hub, embedded):
    refused = brainhive(*LINE)
    assert refused.exit_code == MissingData.exit_code
    training, reconstruction = re.findall(
        r"brainhive ([^&]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    assert training == f"train-align {' '.join(LINE[1:])}"
    assert reconstruction == " ".join(LINE)

    trained = brainhive(*training.split(), *SUBJECT)
    ended = brainhive(*LINE, "repeats=1", "--json")

    assert trained.exit_code == ended.exit_code == 0, trained.stderr + ended.stderr
    (run_folder,) = (embedded / "runs/train-align").iterdir()
    assert run_folder.name in ended.stderr
    # progress bars of libraries are hidden
    assert "Loading" not in ended.stderr
    assert "Fetching" not in ended.stderr
    result = json.loads(ended.stdout)
    metrics = result["metrics"]["scopes"]["all"]
    assert {name: metric["n"] for name, metric in metrics.items()} == SCORED
    assert set(result["metrics"]["missing"]) == UNSCORED
    weights = [path for path in hub.fetched if path.endswith(".safetensors")]
    prior_weights = [f"{PRIOR}/{module}/{WEIGHTS}" for module in CLASSES]
    turbo_weights = [f"{TURBO}/{stem}.safetensors" for stem in TURBO_WEIGHTS]
    assert sorted(weights) == sorted(prior_weights + turbo_weights)

    folder = Path(result["folder"])
    assert len(list(folder.glob("samples/**/*.png"))) == 2
    (cell,) = (folder / "samples").glob("*/sub-01")
    expected_pictures = reconstruct_directly(hub.root, run_folder)
    for image_id, expected in expected_pictures.items():
        picture = np.asarray(Image.open(cell / image_id / "00.png"), np.int16)
        assert picture.shape == (512, 512, 3)
        # values are rounded to bytes
        assert np.abs(picture - expected).max() <= 1
    first_picture, second = expected_pictures.values()
    assert np.abs(first_picture - second).max() > 10


def reconstruct_directly(root, run_folder):
    """Reconstruct each test picture once by the pipeline of diffusers.

    Args:
        root: Folder of the hub.
        run: Run of train-align.

    Returns:
        Pictures [H, W, 3], keyed by image id.
    """
    align = TrainedRun.read(RunFolder(run_folder))
    prior = FusionPrior.load(root / PRIOR)
    (cell,) = align.cells
    tests = open_test_set(align, "test")
    decoded_set = decode_signals(tests, align.open(cell), cell.tested_on[0])
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        root / TURBO, add_watermarker=False
    )
    prior.attach(pipeline.unet)
    pictures = {}
    for image_id, token in zip(
        decoded_set.image_ids, decoded_set.decoded.tensors["token"], strict=True
    ):
        with torch.inference_mode():
            picture = pipeline(
                "",
                num_inference_steps=4,
                guidance_scale=0.0,
                height=512,
                width=512,
                generator=torch.Generator().manual_seed(
                    derive_noise_seed(0, image_id, 0)
                ),
                cross_attention_kwargs={"ip_hidden_states": prior.project(token[None])},
            ).images[0]
        pictures[image_id] = np.asarray(picture, np.int16)
    return pictures
