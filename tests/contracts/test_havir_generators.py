"""HAVIR from voxels to pictures by the published files of Versatile Diffusion."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import versatile_repository
import yaml
from worlds import at_home

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.inputs import describe_missing
from brainhive_cli.models.backbones import havir

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 1}"
LATENT = "{kind: vd-vae, source: vd/vae, resolution_px: 16}"
IMAGE = "{kind: vd-image, source: vd}"
TINY = havir.TINY.model_copy(update={"decoder_channels": (16, 16), "head_rank": None})
SMALL = ("resolution_px=16", "steps=4", "guidance=2.0", "repeats=1", "items=3", "metrics=[pixcorr]")
VERSATILE = "generator={kind: versatile_diffusion, source: vd}"
OTHER = "generator={kind: sdxl, source: demo:generator}"
Go = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Iterator[Path]:
    """A home with both published folders, the targets of the first, and a model trained on them."""
    home = tmp_path_factory.mktemp("havir_generators")
    versatile_repository.write(home / "vd")
    with at_home(home):
        go("embed", DATASET, f"encoders=[{LATENT}, {IMAGE}]")
        backbone = yaml.safe_dump(TINY.model_dump(mode="json"), default_flow_style=True, width=10**6)
        yield go(
            "train-align",
            DATASET,
            f"heads={{latent: {LATENT}, image: {IMAGE}}}",
            "terms=[{prediction: latent, loss: mse}, {prediction: image, loss: mse}]",
            "head=image",
            f"backbone={backbone.strip()}",
            "signal.region_split={spatial: early, semantic: higher}",
            "seeds=1",
            "train.epochs=2",
            "train.precision=fp32",
        ).folder


def test_pictures_are_made_from_the_decoded_latent_and_tokens(run: Path, go: Go) -> None:
    given = (f"align_run={run}", "prior=identity", VERSATILE, *SMALL, "scheduler=ddim")

    listed = reconstruct.inputs(reconstruct.Recipe.resolve("reconstruct", None, {}, given))
    result = go("reconstruct", *given, "sources=brain,images")
    start = go("reconstruct", *given, "sources=brain", "strength=0")

    weights = {one.name: one.state for one in listed if one.name.startswith("vd/")}
    assert len(weights) == 5 and {*weights.values()} == {"here"} and not describe_missing(listed)
    assert {name: scope["pixcorr"].n for name, scope in result.metrics.scopes.items() if "·" not in name} == {
        "all": 3,
        "brain": 3,
        "images": 3,
    }
    pictures = [path for each in (result, start) for path in (each.folder / "samples").rglob("*.png")]
    assert len({path.read_bytes() for path in pictures}) == len(pictures) == 9


def test_a_latent_of_another_autoencoder_is_refused_in_one_line(run: Path, go: Go) -> None:
    with pytest.raises(
        BrainhiveError,
        match=r"the head latent predicts local--vae-\w+ of latents:\w+, the generator is of latents:",
    ) as caught:
        go("reconstruct", f"align_run={run}", "prior=identity", OTHER, *SMALL)
    assert "\n" not in caught.value.message and "autoencoder" in caught.value.hint


def test_the_component_that_a_generator_lacks_is_named(run: Path, go: Go) -> None:
    file = Path("vd/text_unet/diffusion_pytorch_model.bin")
    weights = file.read_bytes()
    file.unlink()
    try:
        given = (f"align_run={run}", "prior=identity", VERSATILE, *SMALL)
        listed = reconstruct.inputs(reconstruct.Recipe.resolve("reconstruct", None, {}, given))
    finally:
        file.write_bytes(weights)
    assert [
        line for line in describe_missing(listed) if "has no text_unet/diffusion_pytorch_model.bin" in line
    ]
