"""The line of the README, literally: a prior and a generator from a hub, and a run
trained for that prior.

The hub is on this machine and its repositories have the real names and files at tiny
widths. Nothing beyond this machine is asked: other addresses go to a proxy that does
not exist.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from typer.testing import CliRunner, Result

from brainhive_cli.app import app
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.target_store import path_of
from brainhive_cli.data.stores.target_writer import Blank, TargetWriter
from brainhive_cli.evaluation.reconstruction.generation import decode_signals, seed_of
from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.training.alignment.trained.run import TrainedRun
from tests.repositories.hub_repositories import (
    PRIOR,
    STORES,
    TURBO,
    USED,
    write_prior_and_turbo,
)
from tests.tools.hub_server import Hub, serving

LINE = ("reconstruct", "--prior", "hub:Fusion-Prior-SynCLR_B32_VAE")
SCORED = {"pixcorr": 2, "ssim": 2}
"""Metrics that need no network, and how many items they are of."""
UNSCORED = {"alexnet2", "alexnet5", "inception", "clip", "effnet", "swav"}
"""Those whose networks the hub here does not have."""
SUBJECT = ("subjects=1", "seeds=1", "train.epochs=2", "train.precision=fp32")
"""What the training is cut down to here."""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prior and sdxl-turbo with all the kinds of files that the real ones hold."""
    return write_prior_and_turbo(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def hub(
    repositories: Path, image_networks_absent: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """That hub; beyond it nothing answers."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(repositories) as hub:
        hub.lead(monkeypatch)
        yield hub


@pytest.fixture
def embedded(things: Path) -> Path:
    """A small things-eeg whose pictures were embedded by the encoders of the prior."""
    root, random = things / "data/things-eeg", np.random.default_rng(0)
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        files = [
            file.relative_to(root).with_suffix("")
            for file in sorted((root / folder).rglob("*.png"))
        ]
        for encoder, dim in STORES.items():
            path = path_of(things / "embeddings", "things-eeg", split, encoder)
            ids, concepts = (
                [file.as_posix() for file in files],
                [file.parent.name for file in files],
            )
            told = {"encoder": encoder, "dataset": "things-eeg", "split": split}
            Blank(path, ids, concepts, (dim,), "float32", told).create()
            writer = TargetWriter(path)
            writer.write(
                np.arange(len(ids)), random.standard_normal((len(ids), dim), np.float32)
            )
            writer.close()
            writer.finish()
    return things


def brainhive(*argv: str) -> Result:
    return CliRunner().invoke(app, argv)


@pytest.mark.parametrize("things", [2], indirect=True)
def test_the_line_of_the_readme_asks_for_a_run_then_draws_and_measures(hub, embedded):
    refused = brainhive(*LINE)
    assert refused.exit_code == MissingData.exit_code
    training, again = re.findall(
        r"brainhive ([^&]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    assert (training, again) == (f"train-align {' '.join(LINE[1:])}", " ".join(LINE))

    trained = brainhive(*training.split(), *SUBJECT)
    ended = brainhive(*LINE, "repeats=1", "--json")

    assert trained.exit_code == ended.exit_code == 0, trained.stderr + ended.stderr
    (run,) = (embedded / "runs/train-align").iterdir()
    # libraries' own bars
    assert f"align run {run.name}, finished" in ended.stderr and not any(
        bar in ended.stderr for bar in ("Loading", "Fetching")
    )
    result = json.loads(ended.stdout)
    assert {
        name: metric["n"] for name, metric in result["metrics"]["scopes"]["all"].items()
    } == SCORED
    assert set(result["metrics"]["missing"]) == UNSCORED
    weights = [path for path in hub.fetched if path.endswith(".safetensors")]
    parts = [f"{PRIOR}/{part}/{WEIGHTS}" for part in CLASSES]
    assert sorted(weights) == sorted(
        [*parts, *(f"{TURBO}/{stem}.safetensors" for stem in USED)]
    )

    folder = Path(result["folder"])
    assert len(list(folder.glob("samples/**/*.png"))) == 2
    (cell,) = (folder / "samples").glob("*/sub-01")
    expected = directly(hub.root, run)
    for image_id, picture in expected.items():
        found = np.asarray(Image.open(cell / image_id / "00.png"), np.int16)
        # rounding to bytes
        assert found.shape == (512, 512, 3) and np.abs(found - picture).max() <= 1
    one, other = expected.values()
    assert np.abs(one - other).max() > 10


def directly(root: Path, run: Path) -> dict[str, np.ndarray]:
    """Draw the first repeat of each test picture by the whole pipeline of diffusers,
    with text encoders.
    """
    align = TrainedRun(RunFolder(run))
    prior = FusionPrior.load(root / PRIOR)
    (decoded_set,) = (
        decode_signals(model, model.cell.tested_on[0], "test") for model in align.models
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        root / TURBO, add_watermarker=False
    )
    prior.attach(pipeline.unet)
    drawn = {}
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
                generator=torch.Generator().manual_seed(seed_of(0, image_id, 0)),
                cross_attention_kwargs={"ip_hidden_states": prior.tokens(token[None])},
            ).images[0]
        drawn[image_id] = np.asarray(picture, np.int16)
    return drawn
