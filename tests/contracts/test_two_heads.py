"""A model of two heads on voxels of two widths goes through every command that a model
goes through.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.demo import voxels
from brainhive_cli.models.generators import sdxl
from tests.worlds.command_fixtures import use_home

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 2}"
LATENT, TOKENS = (
    f"python:tests.worlds.parts.targets:{name}" for name in ("latent", "tokens")
)
TINY = sdxl.TINY.model_dump(mode="json")
GENERATOR = "generator=" + yaml.safe_dump(TINY, default_flow_style=True, width=10**6)
ALIGN = (
    DATASET,
    f"heads={{latent: '{LATENT}', tokens: '{TOKENS}'}}",
    (
        "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: {kind: "
        "clip, cosine_weight: 1.0}}]"
    ),
    "head=tokens",
    "backbone.kind=tests.worlds.parts.two_heads",
    "mode=joint",
    "seeds=1",
    "train.epochs=16",
    "train.batch_size=256",
    "train.lr=0.005",
    "train.precision=fp32",
    "train.selection=last",
)
SMALL = ("resolution_px=32", "steps=2", "repeats=1", "items=4", "metrics=[pixcorr]")
NARROW = (
    "dim=16",
    "fuser={kind: fusion_encoder, intermediate_size: 16}",
    "train.epochs=8",
)
RunCommand = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, run_command: RunCommand) -> Any:
    """A home with the targets of both heads embedded and the model trained."""
    home = tmp_path_factory.mktemp("two_heads")
    with use_home(home):
        run_command("embed", DATASET, f"encoders=['{LATENT}', '{TOKENS}']")
        yield home, run_command("train-align", *ALIGN).folder


def model_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / "all_seed-1" / "model" / "model.safetensors")


@pytest.mark.nightly
def test_both_heads_retrieve_above_chance(world: Any, run_command: RunCommand) -> None:
    _, run = world
    config = json.loads(
        (run / "cells" / "all_seed-1" / "model" / "config.json").read_text()
    )
    shapes = {name: head["shape"] for name, head in config["heads"].items()}
    assert shapes == {"latent": [4, 8, 8], "tokens": [4, 16]}
    early = [
        np.flatnonzero(voxels.make_region_masks(subject)["early"]).tolist()
        for subject in (1, 2)
    ]
    assert config["spec"]["regions"]["early"] == early and config["spec"]["names"] == []

    for head in ("tokens", "latent"):
        scopes = run_command(
            "eval-retrieval", f"align_run={run}", f"head={head}", "sheet_rows=0"
        ).metrics.scopes
        for subject in ("sub-01", "sub-02"):
            top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
            assert top5.low > top5.chance


@pytest.mark.nightly
def test_pictures_are_generated_from_both_heads(
    world: Any, run_command: RunCommand
) -> None:
    _, run = world
    result = run_command(
        "reconstruct",
        f"align_run={run}",
        "prior=identity",
        GENERATOR,
        *SMALL,
        "best_of=2",
    )

    pixcorr = result.metrics.scopes["brain"]["pixcorr"]
    assert (pixcorr.n, pixcorr.split) == (
        8,
        "test",
    ) and "best of 2 by its decoded head" in pixcorr.protocol
    other = "generator.architecture.vae.scaling_factor=0.5"
    with pytest.raises(
        BrainhiveError, match=r"latent predicts .*, the generator is of latents:"
    ) as caught:
        run_command(
            "reconstruct",
            f"align_run={run}",
            "prior=identity",
            GENERATOR,
            other,
            *SMALL,
        )
    assert "autoencoder" in caught.value.hint


def test_tokens_alone_are_one_head_and_latents_cannot_be_fused(
    world: Any, run_command: RunCommand
) -> None:
    short = (
        DATASET,
        *ALIGN[4:],
        "backbone={kind: voxel_ridge, hidden: 32}",
        "head=null",
        *NARROW,
    )

    run = run_command("train-align", *short, f"encoders=['{TOKENS}']").folder
    scopes = run_command(
        "eval-retrieval", f"align_run={run}", "sheet_rows=0"
    ).metrics.scopes

    config = json.loads((run / "cells/all_seed-1/model/config.json").read_text())
    assert config["heads"]["token"]["shape"] == [4, 16]
    top5 = scopes["all_seed-1 · sub-01"]["top5"]
    assert top5.low > top5.chance
    with pytest.raises(
        RecipeError, match=r"latent \[4, 8, 8\], .* cannot be fused"
    ) as caught:
        run_command("train-align", *short, f"encoders=['{LATENT}', '{TOKENS}']")
    assert "head of its own" in caught.value.hint


@pytest.mark.nightly
def test_a_diffusion_prior_trains_with_its_model_and_then_alone(
    world: Any, run_command: RunCommand, tmp_path: Path
) -> None:
    prior = (
        "prior: {kind: mindeye1, head: tokens, depth: 1, heads: 2, dim_head: 8, "
        "timesteps: 4}"
    )
    given = (
        *(
            DATASET,
            ALIGN[1],
            *ALIGN[5:7],
            "mode=joint",
            "train.batch_size=256",
            "train.precision=fp32",
        ),
        *("train.selection=last", "train.epochs=1", "head=tokens"),
        "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: clip}, "
        "{prediction: denoised, loss: mse, weight: 30}]",
        (
            "backbone={kind: with_prior, backbone: {kind: "
            f"tests.worlds.parts.two_heads}}, {prior}}}"
        ),
        "seeds=1",
    )
    together = run_command("train-align", *given).folder
    start = together / "cells/all_seed-1/model"
    stages = (
        f"train.stages=[{{epochs: 1, freeze: [backbone.brain], start_from: {start}}}]"
    )
    alone = run_command("train-align", *given, stages).folder
    result = run_command(
        "reconstruct", f"align_run={alone}", "prior=identity", GENERATOR, *SMALL
    )

    before, after = model_of(together), model_of(alone)
    of_backbone = [name for name in after if name.startswith("backbone.")]
    has_changed = [
        name for name in of_backbone if not torch.equal(before[name], after[name])
    ]
    assert has_changed and all(
        name.startswith("backbone.prior.") for name in has_changed
    )
    assert result.metrics.scopes["brain"]["pixcorr"].n == 8
