"""The three lines that users run, literally, in their order, on files as the
publishers' scripts write them.

Cut down are the sizes: two subjects, a few pictures and samples, encoders and generator
of tiny widths from a hub on this machine.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner, Result

from brainhive_cli import aligner
from brainhive_cli.app import app
from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.published import things_eeg
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.models.encoders.synclr_b16 import FILE, PREFIX
from tests.publishers import things_files
from tests.repositories.hub_repositories import (
    CLIP_CONFIG,
    H14,
    PREPROCESSOR,
    SDXL,
    write_encoders,
    write_prior_and_turbo,
)
from tests.tools.hub_server import Hub, serving

LINES = (
    "embed --encoders clip-h14,vae --dataset things-eeg",
    "train-align --mode inter",
    "reconstruct --prior hub:Fusion-Prior-SynCLR_B32_VAE",
)
B32, SYNCLR = (
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "paulgavrikov/synclr-vit-base-patch16-224",
)
COLOURS = "python:brainhive_cli.models.encoders.python:example"
SUBJECTS = (1, 2)
PICTURES = {"training_images": (2, 2), "test_images": (1, 1)}
"""Concepts, and pictures of each."""
IMAGES = ("Image_set", "Image_set_Resize")
REPETITIONS = {"training_images": 4, "test_images": 80}
SAMPLES = 10


@pytest.fixture
def hub(
    tmp_path: Path, image_networks_absent: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """All encoders, the prior and the generator; beyond this hub nothing answers."""
    root = write_prior_and_turbo(write_encoders(tmp_path / "repositories"))
    write_clip_b32(root / B32)
    write_synclr(root / SYNCLR)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(root) as hub:
        hub.lead(monkeypatch)
        yield hub


def write_clip_b32(folder: Path) -> None:
    tower = {**CLIP_CONFIG["vision_config"], "patch_size": 32}
    config = {**CLIP_CONFIG, "projection_dim": 512, "vision_config": tower}
    CLIPModel(CLIPConfig(**config)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def write_synclr(folder: Path) -> None:
    """Write the real architecture; all weights are parts of one array, which is kept
    once.
    """
    with torch.device("meta"):
        shapes = {
            k: v.shape
            for k, v in timm.create_model("vit_base_patch16_224", num_classes=0)
            .state_dict()
            .items()
        }
    pool = 0.02 * torch.randn(max(shape.numel() for shape in shapes.values()))
    weights = {
        PREFIX + name: pool[: shape.numel()].view(shape)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True)
    torch.save({"model": weights}, folder / FILE)


def paint(
    root: Path, folder: str, images: str = "Image_set", side: int = 500
) -> list[str]:
    """Draw the pictures of a split below `root / images`, and name them as the files of
    signals do.
    """
    (concepts, each), random = (
        PICTURES[folder],
        np.random.default_rng(list(folder.encode())),
    )
    numbers = [
        (concept, number)
        for concept in range(1, concepts + 1)
        for number in range(each)
    ]
    names = [
        f"{folder}/{c:05d}_thing{c}/thing{c}_{number:02d}b.jpg" for c, number in numbers
    ]
    for name in names:
        file = root / images / name.replace("training_images", "train_images")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
        picture.resize((side, side), Image.Resampling.BICUBIC).save(file)
    return names


@pytest.fixture
def things(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """THINGS-EEG as published, of two subjects; originals beside resized pictures."""
    monkeypatch.setattr(things_eeg.Distributed, "subjects", SUBJECTS)
    root, random = home / "data/things-eeg", np.random.default_rng(0)
    for folder, split in (("training_images", "train"), ("test_images", "test")):
        paint(root, folder, IMAGES[1], 224)
        names = paint(root, folder, IMAGES[0])
        for subject in SUBJECTS:
            signal = random.normal(size=(len(names), REPETITIONS[folder], 63, SAMPLES))
            things_files.save_eeg(
                root, subject, split, things_files.eeg_content(signal, names)
            )
    return home


def brainhive(line: str, *more: str) -> Result:
    return CliRunner().invoke(app, [*line.split(), *more])


def test_two_lines_finish_and_the_third_lacks_nothing_after_the_lines_it_prints(
    hub, things
):
    planned = brainhive(LINES[0], "--check", "--json")
    listed = {one["what"]: one for one in json.loads(planned.stdout)["inputs"]}
    assert planned.exit_code == 0 and listed[H14]["state"] == "to download", (
        planned.stderr
    )
    assert not hub.fetched and not list(things.rglob("*.h5*"))

    embedded = brainhive(LINES[0])
    weights = [
        H14 + "/model.safetensors",
        SDXL + "/vae/diffusion_pytorch_model.safetensors",
    ]
    assert (
        sorted(path for path in hub.fetched if path.endswith((".safetensors", ".bin")))
        == weights
    )
    trained, refused = map(brainhive, LINES[1:])
    assert embedded.exit_code == trained.exit_code == 0, (
        embedded.stderr + trained.stderr
    )
    assert refused.exit_code == MissingData.exit_code
    printed = re.findall(
        r"brainhive ([^&]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    assert [line.split()[0] for line in printed] == [
        "embed",
        "train-align",
        "reconstruct",
    ]
    assert printed[-1] == LINES[-1]

    # which test_reconstruct_from_the_hub draws
    for line in (*printed[:-1], f"{LINES[-1]} --check"):
        ended = brainhive(
            line,
            *(["seeds=1", "train.epochs=1"] if line.startswith("train-align") else []),
        )
        assert ended.exit_code == 0, ended.stderr


def test_atm_s_goes_from_its_files_to_retrieval_and_tests_without_captions(hub, home):
    root, random = home / "data/things-eeg", np.random.default_rng(0)
    for folder, split in (("training_images", "train"), ("test_images", "test")):
        names = paint(root, folder, side=32)
        signal = random.normal(size=(len(names), REPETITIONS[folder], 63, 80))
        things_files.save_eeg(root, 1, split, things_files.eeg_content(signal, names))
    small = ("subjects=1", "train.epochs=2", "train.batch_size=4")

    refused = brainhive("train-align --recipe papers/atm-s", *small)
    lines = re.findall(
        r"brainhive ([^&\n]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    assert (
        refused.exit_code == MissingData.exit_code
        and "clip-h14,clip-h14-text" in lines[0]
    )
    for line in (
        "embed --encoders clip-h14",
        "embed --encoders clip-h14-text splits=train",
    ):
        ended = brainhive(line)
        assert ended.exit_code == 0, ended.stderr
    trained = brainhive("train-align --recipe papers/atm-s --json", *small)
    assert trained.exit_code == 0, trained.stderr
    tested = brainhive("eval-retrieval --json sheet_rows=0")
    assert tested.exit_code == 0, tested.stderr

    folder = next((home / "runs/train-align").glob("*/cells/*/model"))
    model = aligner.load(folder)
    assert model.layout.encoders == {"clip-h14": "clip-h14"} and [
        *model.layout.heads
    ] == ["token"]
    first, second = (model.losses[f"{number}.logit_scale"] for number in (0, 1))
    assert first == second != torch.tensor(2.65926)  # learned, by both


def test_meg_goes_from_its_files_to_retrieval(home, go):
    root, random = home / "data/things-meg", np.random.default_rng(0)
    for folder, split, repetitions in (
        ("training_images", "train", 1),
        ("test_images", "test", 12),
    ):
        names = paint(root, folder, side=16)
        signal = random.normal(size=(len(names), repetitions, 271, 201))
        things_files.save_meg(root, 1, split, things_files.meg_content(signal, names))
    meg = ("dataset=things-meg", f"encoders=[{COLOURS!r}]")
    small = (
        "dim=16",
        "fuser.intermediate_size=16",
        "train.epochs=1",
        "train.precision=fp32",
    )
    go("embed", *meg)
    run = go("train-align", *meg, *small, "subjects=1", "seeds=1").folder
    assert go("eval-retrieval", f"run={run}").folder.is_dir()
    stored = SignalStore.open(home / "signals/things-meg/default/sub-01.h5")["test"]
    assert stored.signal.dtype == np.float16 and stored.signal.shape == (
        1,
        12,
        271,
        201,
    )
    assert (stored.unit, stored.rate_hz, stored.times_s[-1]) == ("z-score", 200, 1.0)
