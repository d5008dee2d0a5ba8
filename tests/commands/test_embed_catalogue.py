"""The list of encoders: each with what is known of it, and whether it is on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainhive_cli.commands.embed import list_encoders
from brainhive_cli.core import parts
from brainhive_cli.models import encoders


def rows() -> dict[str, dict[str, Any]]:
    (table,) = list_encoders().tables
    return {row["encoder"]: row for row in table.as_dict()["rows"]}


def test_every_encoder_is_listed_by_a_name_that_embed_takes(hub_cache: Callable[[str], Path]) -> None:
    listed = rows()
    kinds = {encoders.resolve(name).kind for name in listed}
    assert kinds == set(parts.kinds("encoders"))
    assert all(encoders.resolve(name).name == name for name in listed)
    named = [row for row in listed.values() if row["weights"].startswith("hub:")]
    assert all(row["D"] and row["px"] and len(row["licence"]) > 2 and row["here"] == "no" for row in named)
    assert listed["dinov2-giant"] == {
        "encoder": "dinov2-giant",
        "D": 1536,
        "px": 224,
        "weights": "hub:facebook/dinov2-giant",
        "licence": "Apache-2.0",
        "here": "no",
    }
    assert listed["siglip2"]["weights"] == "hub:google/siglip2-base-patch16-224"
    assert listed["demo-clip"]["here"] == "yes" and listed["timm"]["here"] == "–"


@pytest.mark.parametrize(
    ("name", "repository", "files"),
    [
        (
            "dinov3",
            "facebook/dinov3-vitb16-pretrain-lvd1689m",
            ["config.json", "preprocessor_config.json", "model.safetensors"],
        ),
        (
            "vae",
            "stabilityai/stable-diffusion-xl-base-1.0",
            ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"],
        ),
        ("synclr-b16", "paulgavrikov/synclr-vit-base-patch16-224", ["synclr_vit_b_16.pth"]),
    ],
)
def test_an_encoder_is_here_once_all_its_files_are(
    hub_cache: Callable[[str], Path], name: str, repository: str, files: list[str]
) -> None:
    snapshot = hub_cache(repository)
    for file in files:
        assert rows()[name]["here"] == "no"
        (snapshot / file).parent.mkdir(exist_ok=True)
        (snapshot / file).touch()
    assert rows()[name]["here"] == "yes"
    assert [row["encoder"] for row in rows().values() if row["here"] == "yes"].count(name) == 1


@pytest.mark.parametrize(
    ("reference", "dim"),
    [
        ("siglip2", 768),
        ("clip-l14+glocal", 768),
        ("vae", 1024),
        ({"kind": "vae", "resolution_px": 256}, None),
        ({"kind": "clip-b32", "source": "elsewhere"}, None),
        ("dinov2-b14:mean", None),
        ("timm", None),
    ],
)
def test_a_width_is_known_beforehand_where_nothing_was_changed(reference: Any, dim: int | None) -> None:
    shape = encoders.resolve(reference).known_shape
    assert (shape[-1] if shape else None) == dim


@pytest.mark.parametrize("name", ["clip-h14", "demo-clip", "demo-vae"])
def test_the_list_says_what_an_encoder_gives(name: str) -> None:
    import torch
    from PIL import Image

    config = encoders.resolve(name)
    if not config.is_here:
        pytest.skip(f"the weights of {name} are not on this machine")
    encoder = config.build()
    view = encoder.preprocess(Image.new("RGB", (300, 200), "red"))
    with torch.inference_mode():
        assert (encoder.module(view[None]).shape[1], view.shape[-1]) == (config.dim, config.image_px)
