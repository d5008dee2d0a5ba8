"""The line of the README, literally: encoders from a hub, pictures of THINGS-EEG, and what comes of it.

The hub is on this machine and its repositories have the real names, files and configs at tiny widths; the
client is the hub's own, led there by its own setting (HF_ENDPOINT).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_repositories import H14, SDXL, write_encoders
from hub_server import Hub, serving
from huggingface_hub import constants
from PIL import Image
from torchvision.transforms import v2
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import embed
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.inputs import Input, describe_missing
from brainhive_cli.data.stores.target_store import TargetStore

LINE = ("embed", "--encoders", "clip-h14,vae", "--dataset", "things-eeg")
VAE = f"{SDXL}/vae/diffusion_pytorch_model.safetensors"
PICTURES = {
    "training_images": [
        "00001_aardvark/aardvark_01b",
        "00001_aardvark/aardvark_02s",
        "00002_abacus/abacus_01b",
    ],
    "test_images": ["00001_aircraft_carrier/aircraft_carrier_06s", "00002_antelope/antelope_01b"],
}
ROUNDING = 1e-5
"""Of the embeddings' spread; batches of other sizes round differently in float32."""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two repositories with all the kinds of files that the real ones hold."""
    return write_encoders(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    with serving(repositories) as hub:
        yield hub


@pytest.fixture
def pictures(home: Path) -> Path:
    """A few pictures in the layout of THINGS-EEG."""
    root, random = home / "data" / "things-eeg" / "Image_set", np.random.default_rng(0)
    for folder, names in PICTURES.items():
        for name in names:
            file = root / folder / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
            coarse.resize((500, 500), Image.Resampling.BICUBIC).save(file)
    return root


def test_the_line_of_the_readme_fetches_each_weight_once_and_embeds(
    hub, home, pictures, brainhive, monkeypatch
):
    for name, value in {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home / "hf"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    hub.lead(monkeypatch)

    planned = CliRunner().invoke(app, [*LINE, "--check", "--json"])
    weights = [H14 + "/model.safetensors", SDXL + "/vae/diffusion_pytorch_model.safetensors"]
    assert planned.exit_code == 0, planned.stderr
    assert not hub.fetched and not list(home.rglob("*.h5*"))
    document = json.loads(planned.stdout)
    listed = {one["what"]: one for one in document["inputs"]}
    for name, weight in zip((H14, VAE), weights, strict=True):
        size = (hub.root / weight).stat().st_size
        assert listed[name]["state"] == "to download" and "hf download" in listed[name]["line"]
        assert listed[name]["bytes"] == pytest.approx(size, abs=5e4)  # the configs count too
    (stores,) = [table["rows"] for table in document["tables"] if table["title"] == "Stores"]
    assert {row["stimuli"] for row in stores if "/train/" in row["store"]} == {3}

    ended = brainhive(*LINE)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path for path in hub.fetched if path.endswith((".safetensors", ".bin"))) == weights
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        views = [Image.open(pictures / folder / f"{name}.jpg").convert("RGB") for name in PICTURES[folder]]
        for encoder, direct in directly(hub.root, views).items():
            found = TargetStore.open(home / "embeddings" / "things-eeg" / split / f"{encoder}.h5")
            assert found.image_ids == [f"{folder}/{name}" for name in PICTURES[folder]]
            assert np.abs(found.embedding - direct).max() <= ROUNDING * direct.std()
            assert found.attributes["weights"]["revision"]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # what is here is enough, though the hub has more
    planned = CliRunner().invoke(
        app, ["embed", f"encoders=[clip-h14, vae, 'hub:{H14}']", "--check", "--json"]
    )
    document = json.loads(planned.stdout)
    assert planned.exit_code == 0 and "missing" not in planned.stderr, planned.stderr
    states = {one["what"]: one["state"] for one in document["inputs"]}
    assert states[H14] == states[VAE] == "here"
    (stores,) = [table["rows"] for table in document["tables"] if table["title"] == "Stores"]
    done = [row["state"] for row in stores if row["store"].endswith(("clip-h14.h5", "vae.h5"))]
    assert done == ["done"] * 4


def directly(root: Path, pictures: list[Any]) -> dict[str, np.ndarray]:
    """Embed with transformers and diffusers alone."""
    from diffusers import AutoencoderKL
    from transformers import CLIPImageProcessor, CLIPModel

    clip, processor = (kind.from_pretrained(root / H14) for kind in (CLIPModel, CLIPImageProcessor))
    vae = AutoencoderKL.from_pretrained(root / SDXL / "vae")
    crop = v2.Compose([v2.Resize(128), v2.CenterCrop(128), v2.PILToTensor()])
    with torch.inference_mode():
        vision = clip.vision_model(processor(images=pictures, return_tensors="pt")["pixel_values"])
        meaning = clip.visual_projection(vision.pooler_output)
        latent = vae.encode(
            torch.stack([crop(picture) / 127.5 - 1 for picture in pictures])
        ).latent_dist.mode()
    return {"clip-h14": meaning.numpy(), "vae": (0.13025 * latent).flatten(1).numpy()}


def inputs(*overrides: str) -> list[Input]:
    return embed.inputs(embed.Recipe.resolve("embed", None, {}, overrides))


def test_without_a_network_it_is_said_by_which_line_weights_are_had(home, pictures, hub_cache):
    encoders = "encoders=clip-h14,vae,dinov2-b14,dinov2-b14:mean"
    listed = inputs(encoders)

    missing = describe_missing(listed)
    assert [one.name for one in listed if one.is_missing] == [H14, VAE, "facebook/dinov2-base"]
    for line, repository in zip(missing, (H14, SDXL, "facebook/dinov2-base"), strict=True):
        told = f"{repository} is not in the hub's cache and the hub cannot be reached"
        assert line.startswith(f"{told} (on a machine with a network: hf download {repository} ")
    files = "vae/config.json vae/diffusion_pytorch_model.safetensors"
    assert missing[1].endswith(f"hf download {SDXL} {files})")
    (table,) = embed.preview(embed.Recipe.resolve("embed", None, {}, [encoders]))
    stores = [state for store, _, state in table.rows if store.endswith("train/vae.h5")]
    assert stores == ["to do, 12.3 kB to write"]


def test_a_hub_that_answers_nobody_is_told_from_one_without_the_repository(
    hub, home, pictures, hub_cache, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert "the hub cannot be reached" in describe_missing(inputs("encoders=clip-h14"))[0]

    hub.lead(monkeypatch)
    (told,) = describe_missing(inputs("encoders=dinov2-b14"))
    assert told.startswith("no such repository on the hub: facebook/dinov2-base (check the name")


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "RepoNotFound", "no such repository on the hub: facebook/dinov2-bsae"),
        (401, "RepoNotFound", "no such repository on the hub: facebook/dinov2-bsae"),
        (403, "GatedRepo", "facebook/dinov2-bsae is for those who accepted its terms"),
        (500, "", "facebook/dinov2-bsae is not in the hub's cache and the hub cannot be reached"),
    ],
)
def test_a_mistyped_name_is_told_from_other_refusals(
    hub, home, pictures, hub_cache, monkeypatch, go, status, code, told
):
    hub.lead(monkeypatch)
    hub.absent = status, {"X-Error-Code": code}
    mistyped = "encoders=hub:facebook/dinov2-bsae"

    with pytest.raises(MissingData, match=told):
        go("embed", mistyped)

    assert told in " ".join(describe_missing(inputs(mistyped)))
