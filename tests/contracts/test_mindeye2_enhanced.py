"""Tests of MindEye2's refined pictures and their mix with blurry pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from brainhive_cli.commands import reconstruct
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.results.measurements import (
    MIXED_WITH_BLURRY,
    SIMULATED,
    list_footnotes,
)
from brainhive_cli.core.runs import RunFolder, artifacts, list_inputs
from brainhive_cli.models.generators import sdxl, sdxl_unclip
from brainhive_cli.reports.sentences.sentences import MEANINGS
from tests.repositories import git_captioner_repository, text_encoders
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly


DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 1}"
LATENT, TOKENS = (
    f"python:tests.worlds.parts.targets:{name}" for name in ("latent", "tokens")
)
SMALL_PICTURES = (
    "resolution_px=32",
    "repeats=1",
    "items=2",
    "metrics=[pixcorr,ssim]",
    "protocol=mindeye2",
    "sheet_rows=2",
)
MIX = "generator.low_level_mix={autoencoder: sdxl/vae}"
RunCommand = Callable[..., Any]


def make_generator_override():
    """Return the recipe's two-stage generator with tiny networks."""
    path = (
        Path(__file__).parents[2] / "recipes/papers/mindeye2-enhanced/reconstruct.yaml"
    )
    generator = yaml.safe_load(path.read_text())["generator"]
    low_stage, refining_stage = generator["stages"]
    low_stage |= {
        "generator": sdxl_unclip.TINY.model_dump(mode="json"),
        "resolution_px": 32,
        "steps": 2,
    }
    refining_stage |= {
        "generator": {**refining_stage["generator"], "source": "sdxl"},
        "resolution_px": 32,
    }
    refining_stage["caption"] |= {
        "model": git_captioner_repository.NAME,
        "converter": git_captioner_repository.CONVERTER,
    }
    text = yaml.safe_dump(generator, default_flow_style=True, width=10**6).strip()
    return f"generator={text}"


@pytest.fixture(scope="module")
def align_run(tmp_path_factory, run_command):
    """Align run for both heads, in a home with their targets and tiny networks."""
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


def make_overrides(align_run, *overrides):
    """Add overrides of reconstruct to those of small refined pictures."""
    generator = make_generator_override()
    return (
        (f"align_run={align_run}", "prior=identity", generator)
        + tuple(SMALL_PICTURES)
        + tuple(overrides)
    )


def read_pixels(folder):
    """Read the generated pictures of a run, [N, H, W, 3]."""
    files = sorted((folder / "samples").glob("**/sub-01*/**/*.png"))
    return np.stack([np.asarray(Image.open(file), np.float64) for file in files])


def test_every_number_and_sheet_of_mixed_pictures_says_so(align_run, run_command):
    recipe = reconstruct.Recipe.resolve(
        "reconstruct", None, {}, make_overrides(align_run, MIX)
    )
    inputs = list_inputs(reconstruct, recipe)
    mixed_run = run_command(
        "reconstruct", *make_overrides(align_run, MIX, "sources=brain,images")
    )
    refined_run = run_command(
        "reconstruct", *make_overrides(align_run, "sources=brain")
    )
    blurry_only = MIX.replace("{", "{share: 1, ")
    blurry_run = run_command(
        "reconstruct", *make_overrides(align_run, blurry_only, "sources=brain")
    )

    assert not describe_missing(inputs)
    states = {item.name: item.state for item in inputs}
    assert states["sdxl/vae"] == "here"
    text_encoder_states = {
        state for name, state in states.items() if name.startswith("sdxl/text_encoder")
    }
    assert text_encoder_states == {"here"}
    for result, caveats in (
        (mixed_run, [SIMULATED, MIXED_WITH_BLURRY]),
        (refined_run, [SIMULATED]),
    ):
        assert result.metrics.caveats == caveats
        for metrics in result.metrics.scopes.values():
            for metric in metrics.values():
                assert list(metric.caveats) == caveats
                assert metric.protocol.endswith(", ".join(caveats))
        assert any(result.metrics.scopes.values())
        for table in result.tables:
            assert list_footnotes(caveats) in table.note
        sheets = [
            artifact
            for artifact in artifacts.read(RunFolder(result.folder))
            if artifact.kind == "sheet"
        ]
        assert sheets
        for sheet in sheets:
            assert ", ".join(caveats) in sheet.note
    run_command("report", f"runs={mixed_run.folder}", "to=page.html")
    assert MEANINGS[MIXED_WITH_BLURRY] in Path("page.html").read_text()

    mixed = read_pixels(mixed_run.folder)
    blurry = read_pixels(blurry_run.folder)
    refined = read_pixels(refined_run.folder)
    assert mixed.shape[1:] == (256, 256, 3)
    assert refined.shape[1:] == (32, 32, 3)
    enlarged_pictures = []
    for pixels in refined:
        picture = Image.fromarray(pixels.astype(np.uint8))
        enlarged_pictures.append(
            np.asarray(picture.resize((256, 256), Image.Resampling.BILINEAR))
        )
    enlarged = np.stack(enlarged_pictures)
    assert np.abs(mixed - (0.75 * enlarged + 0.25 * blurry)).mean() < 1
    assert np.abs(blurry - enlarged).mean() > 10
    with pytest.raises(
        BrainhiveError, match="the head low, and there is no such head"
    ) as caught:
        run_command(
            "reconstruct",
            *make_overrides(
                align_run, MIX.replace("{", "{head: low, "), "sources=brain"
            ),
        )
    assert "papers/mindeye2-blurry" in caught.value.hint
