"""Tests of embed, train-align and reconstruct with files as publishers write them.

The data are small: two subjects, a few pictures and samples. Tiny encoders and a tiny
generator come from a hub on this machine.
"""

import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner

from brainhive_cli import aligner
from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
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
from tests.tools.hub_server import serving

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
"""Number of concepts, and of pictures per concept, by folder."""
IMAGES = ("Image_set", "Image_set_Resize")
REPETITIONS = {"training_images": 4, "test_images": 80}
SAMPLES = 10


@pytest.fixture
def hub(tmp_path, image_networks_absent, monkeypatch):
    """Hub with all encoders, the prior and the generator. No other address answers."""
    root = write_prior_and_turbo(write_encoders(tmp_path / "repositories"))
    write_clip_b32(root / B32)
    write_synclr(root / SYNCLR)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(root) as hub:
        hub.redirect_client(monkeypatch)
        yield hub


def write_clip_b32(folder):
    tower = {**CLIP_CONFIG["vision_config"], "patch_size": 32}
    config = {**CLIP_CONFIG, "projection_dim": 512, "vision_config": tower}
    CLIPModel(CLIPConfig(**config)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def write_synclr(folder):
    """Write weights of the real architecture.

    All weights are views of a common array, so the file is small.
    """
    with torch.device("meta"):
        network = timm.create_model("vit_base_patch16_224", num_classes=0)
    shapes = {name: weight.shape for name, weight in network.state_dict().items()}
    pool = 0.02 * torch.randn(max(shape.numel() for shape in shapes.values()))
    weights = {
        PREFIX + name: pool[: shape.numel()].view(shape)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True)
    torch.save({"model": weights}, folder / FILE)


def paint(root, folder, images="Image_set", side_px=500):
    """Draw the pictures of a split.

    Args:
        root: Folder of the data set.
        folder: Folder of the split, as in the files of signals.
        images: Folder of the pictures below `root`.
        side: Height and width of the pictures in pixels.

    Returns:
        Names of the pictures, as in the files of signals.
    """
    n_concepts, pictures_per_concept = PICTURES[folder]
    random = np.random.default_rng(list(folder.encode()))
    names = []
    for concept in range(1, n_concepts + 1):
        for number in range(pictures_per_concept):
            file_name = f"thing{concept}_{number:02d}b.jpg"
            names.append(f"{folder}/{concept:05d}_thing{concept}/{file_name}")
    for name in names:
        file = root / images / name.replace("training_images", "train_images")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
        picture.resize((side_px, side_px), Image.Resampling.BICUBIC).save(file)
    return names


@pytest.fixture
def things_folder(home, monkeypatch):
    """Home with two subjects of THINGS-EEG, original pictures and resized pictures."""
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


def brainhive(line, *arguments):
    """Run a command line with further arguments in this process."""
    return CliRunner().invoke(app, list(line.split()) + list(arguments))


def test_the_printed_lines_make_the_missing_inputs(hub, things_folder):
    checked = brainhive(LINES[0], "--check", "--json")
    assert checked.exit_code == 0, checked.stderr
    inputs = {item["what"]: item for item in json.loads(checked.stdout)["inputs"]}
    assert inputs[H14]["state"] == "to download"
    assert not hub.fetched
    assert not list(things_folder.rglob("*.h5*"))

    embedded = brainhive(LINES[0])
    weights = [
        H14 + "/model.safetensors",
        SDXL + "/vae/diffusion_pytorch_model.safetensors",
    ]
    fetched = [path for path in hub.fetched if path.endswith((".safetensors", ".bin"))]
    assert sorted(fetched) == weights
    trained = brainhive(LINES[1])
    refused = brainhive(LINES[2])
    assert embedded.exit_code == 0, embedded.stderr
    assert trained.exit_code == 0, trained.stderr
    assert refused.exit_code == MissingData.exit_code
    hint_lines = re.findall(
        r"brainhive ([^&]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    commands = [line.split()[0] for line in hint_lines]
    assert commands == ["embed", "train-align", "reconstruct"]
    assert hint_lines[-1] == LINES[-1]

    # test_reconstruct_from_the_hub draws pictures, so a check is enough here
    embed_line, train_line, reconstruct_line = hint_lines
    for ended in (
        brainhive(embed_line),
        brainhive(train_line, "seeds=1", "train.epochs=1"),
        brainhive(reconstruct_line, "--check"),
    ):
        assert ended.exit_code == 0, ended.stderr


def test_atm_s_leads_from_its_files_to_retrieval(hub, home):
    root, random = home / "data/things-eeg", np.random.default_rng(0)
    for folder, split in (("training_images", "train"), ("test_images", "test")):
        names = paint(root, folder, side_px=32)
        signal = random.normal(size=(len(names), REPETITIONS[folder], 63, 80))
        things_files.save_eeg(root, 1, split, things_files.eeg_content(signal, names))
    small = ["subjects=1", "train.epochs=2", "train.batch_size=4"]

    refused = brainhive("train-align --recipe papers/atm-s", *small)
    assert refused.exit_code == MissingData.exit_code
    hint_lines = re.findall(
        r"brainhive ([^&\n]+?)(?: &&|$)", refused.stderr.splitlines()[-1]
    )
    assert "clip-h14,clip-h14-text" in hint_lines[0]
    for line in (
        "embed --encoders clip-h14",
        "embed --encoders clip-h14-text splits=train",
    ):
        ended = brainhive(line)
        assert ended.exit_code == 0, ended.stderr
    trained = brainhive("train-align --recipe papers/atm-s --json", *small)
    assert trained.exit_code == 0, trained.stderr
    process = brainhive("eval-retrieval --json sheet_rows=0")
    assert process.exit_code == 0, process.stderr

    folder = next((home / "runs/train-align").glob("*/cells/*/model"))
    model = aligner.load(folder)
    assert model.layout.encoders == {"clip-h14": "clip-h14"}
    assert list(model.layout.heads) == ["token"]
    # both losses share the logit scale, which training has changed
    scale = model.losses["0.logit_scale"]
    assert scale == model.losses["1.logit_scale"]
    assert scale != torch.tensor(2.65926)


def test_meg_goes_from_its_files_to_retrieval(home, run_command):
    root, random = home / "data/things-meg", np.random.default_rng(0)
    for folder, split, repetitions in (
        ("training_images", "train", 1),
        ("test_images", "test", 12),
    ):
        names = paint(root, folder, side_px=16)
        signal = random.normal(size=(len(names), repetitions, 271, 201))
        things_files.save_meg(root, 1, split, things_files.meg_content(signal, names))
    meg = ["dataset=things-meg", f"encoders=[{COLOURS!r}]"]
    run_command("embed", *meg)
    run_folder = run_command(
        "train-align",
        *meg,
        "dim=16",
        "fuser.intermediate_size=16",
        "train.epochs=1",
        "train.precision=fp32",
        "subjects=1",
        "seeds=1",
    ).folder
    assert run_command("eval-retrieval", f"run={run_folder}").folder.is_dir()
    stored = SignalStore.open(home / "signals/things-meg/default/sub-01.h5")["test"]
    assert stored.signal.dtype == np.float16
    assert stored.signal.shape == (12, 271, 201)
    assert (stored.unit, stored.rate_hz, stored.times_s[-1]) == ("z-score", 200, 1.0)
