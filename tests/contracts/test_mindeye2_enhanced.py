"""MindEye2 from voxels to refined pictures: blurry branch, captions, refinement by
SDXL, and the mix.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from brainhive_cli.commands import reconstruct
from brainhive_cli.core import artifacts
from brainhive_cli.core.command import describe_missing
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.jobs import list_inputs
from brainhive_cli.core.measurements import MIXED_WITH_BLURRY, SIMULATED, find_caveats
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.models.generators import sdxl, sdxl_unclip
from tests.repositories import git_captioner_repository, text_encoders
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly


DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 1}"
LATENT, TOKENS = (
    f"python:tests.worlds.parts.targets:{name}" for name in ("latent", "tokens")
)
SMALL = (
    "resolution_px=32",
    "repeats=1",
    "items=2",
    "metrics=[pixcorr,ssim]",
    "protocol=mindeye2",
)
SMALL += ("sheet_rows=2",)
MIX = "generator.low_level_mix={autoencoder: sdxl/vae}"
RunCommand = Callable[..., Any]


def flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()


def chain() -> str:
    """The recipe's two stages with tiny networks."""
    path = (
        Path(__file__).parents[2] / "recipes/papers/mindeye2-enhanced/reconstruct.yaml"
    )
    generator = yaml.safe_load(path.read_text())["generator"]
    first, second = generator["stages"]
    first |= {
        "generator": sdxl_unclip.TINY.model_dump(mode="json"),
        "resolution_px": 32,
        "steps": 2,
    }
    second |= {
        "generator": {**second["generator"], "source": "sdxl"},
        "resolution_px": 32,
    }
    second["caption"] |= {
        "model": git_captioner_repository.NAME,
        "converter": git_captioner_repository.CONVERTER,
    }
    return f"generator={flow(generator)}"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, run_command: RunCommand
) -> Iterator[Path]:
    """A home with the tiny networks, the targets of both heads, and a model trained on
    them.
    """
    home = tmp_path_factory.mktemp("enhanced")
    generator = sdxl.TINY.build()
    for name in ("unet", "vae", "scheduler"):
        getattr(generator.pipeline, name).save_pretrained(home / "sdxl" / name)
    text_encoders.write(home / "sdxl")
    git_captioner_repository.write(home, 4, 16)
    with use_home(home):
        run_command("embed", DATASET, f"encoders=['{LATENT}', '{TOKENS}']")
        yield run_command(
            "train-align",
            DATASET,
            f"heads={{image: '{TOKENS}', blurry: '{LATENT}'}}",
            "terms=[{prediction: denoised, loss: mse, weight: 30}, {prediction: image, "
            "loss: mse}, {prediction: blurry, loss: l1, weight: 0.5}]",
            "head=image",
            "backbone={kind: with-prior, backbone: {kind: mindeye2, hidden: 32}, "
            "condition: voxel_tokens, prior: {kind: mindeye1, depth: 1, heads: 1, "
            "dim_head: 4, timesteps: 3}}",
            "seeds=1",
            "train.epochs=2",
            "train.precision=fp32",
        ).folder


def given(run: Path, *more: str) -> tuple[str, ...]:
    return (f"align_run={run}", "prior=identity", chain(), *SMALL, *more)


def pixels(folder: Path) -> np.ndarray:
    files = sorted((folder / "samples").glob("**/sub-01*/**/*.png"))
    return np.stack([np.asarray(Image.open(file), np.float64) for file in files])


def test_every_number_and_sheet_of_mixed_pictures_says_so(
    run: Path, run_command: RunCommand
) -> None:
    listed = list_inputs(
        reconstruct,
        reconstruct.Recipe.resolve("reconstruct", None, {}, given(run, MIX)),
    )
    mixed = run_command("reconstruct", *given(run, MIX, "sources=brain,images"))
    plain = run_command("reconstruct", *given(run, "sources=brain"))
    alone = run_command(
        "reconstruct", *given(run, MIX.replace("{", "{share: 1, "), "sources=brain")
    )

    states = {one.name: one.state for one in listed}
    texts = [name for name in states if name.startswith("sdxl/text_encoder")]
    assert (
        not describe_missing(listed)
        and texts
        and {states[name] for name in texts} == {"here"}
    )
    assert states["sdxl/vae"] == "here"
    for result, caveats in (
        (mixed, [SIMULATED, MIXED_WITH_BLURRY]),
        (plain, [SIMULATED]),
    ):
        assert result.metrics.caveats == caveats
        numbers = [
            each for scope in result.metrics.scopes.values() for each in scope.values()
        ]
        assert numbers and all(
            find_caveats(each.protocol) == caveats for each in numbers
        )
        assert all(find_caveats(table.note) == caveats for table in result.tables)
        shown = artifacts.read(RunFolder(result.folder))
        assert "sheet" in {each.kind for each in shown}
        assert all(
            find_caveats(each.note) == caveats for each in shown if each.kind == "sheet"
        )
    run_command("report", f"runs={mixed.folder}", "to=page.html")
    page = Path("page.html").read_text()
    assert "which low-level metrics favour by construction" in page

    quarter, blurry, refined = (pixels(each.folder) for each in (mixed, alone, plain))
    assert quarter.shape[1:] == (256, 256, 3) and refined.shape[1:] == (32, 32, 3)
    pictures = [Image.fromarray(each.astype(np.uint8)) for each in refined]
    sized = np.stack(
        [
            np.asarray(each.resize((256, 256), Image.Resampling.BILINEAR))
            for each in pictures
        ]
    )
    assert np.abs(quarter - (0.75 * sized + 0.25 * blurry)).mean() < 1
    assert np.abs(blurry - sized).mean() > 10
    with pytest.raises(
        BrainhiveError, match="the head low, and there is no such head"
    ) as caught:
        run_command(
            "reconstruct",
            *given(run, MIX.replace("{", "{head: low, "), "sources=brain"),
        )
    assert "papers/mindeye2-blurry" in caught.value.hint
