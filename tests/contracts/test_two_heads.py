"""Tests of a user's model with two heads, for subjects with unequal voxel counts."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.demo import voxels
from brainhive_cli.models.generators import sdxl
from tests.worlds.command_fixtures import use_home

DATASET = "dataset={kind: demo, noise: 0.1, space: voxels, subjects: 2}"
LATENT, TOKENS = (
    f"python:tests.worlds.parts.targets:{name}" for name in ("latent", "tokens")
)
TINY_SDXL = sdxl.TINY.model_dump(mode="json")
GENERATOR = "generator=" + yaml.safe_dump(
    TINY_SDXL, default_flow_style=True, width=10**6
)
BACKBONE = "tests.worlds.parts.two_heads"
HEADS = f"heads={{latent: '{LATENT}', tokens: '{TOKENS}'}}"
TRAINING = (
    "mode=joint",
    "seeds=1",
    "train.epochs=16",
    "train.batch_size=256",
    "train.lr=0.005",
    "train.precision=fp32",
    "train.selection=last",
)
ALIGN = (
    DATASET,
    HEADS,
    (
        "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: {kind: "
        "clip, cosine_weight: 1.0}}]"
    ),
    "head=tokens",
    f"backbone.kind={BACKBONE}",
) + tuple(TRAINING)
SMALL_PICTURES = (
    "resolution_px=32",
    "steps=2",
    "repeats=1",
    "items=4",
    "metrics=[pixcorr]",
)
RunCommand = Callable[..., Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory, run_command):
    """A home with the targets of both heads, and the folder of an align run."""
    home = tmp_path_factory.mktemp("two_heads")
    with use_home(home):
        run_command("embed", DATASET, f"encoders=['{LATENT}', '{TOKENS}']")
        yield home, run_command("train-align", *ALIGN).folder


def load_weights(align_run):
    return load_file(align_run / "cells" / "all_seed-1" / "model" / "model.safetensors")


@pytest.mark.nightly
def test_both_heads_retrieve_above_chance(world, run_command):
    _, align_run = world
    config = json.loads(
        (align_run / "cells" / "all_seed-1" / "model" / "config.json").read_text()
    )
    shapes = {name: head["shape"] for name, head in config["heads"].items()}
    assert shapes == {"latent": [4, 8, 8], "tokens": [4, 16]}
    early_voxels = [
        np.flatnonzero(voxels.make_region_masks(subject)["early"]).tolist()
        for subject in (1, 2)
    ]
    assert config["spec"]["regions"]["early"] == early_voxels
    assert config["spec"]["names"] == []

    for head in ("tokens", "latent"):
        scopes = run_command(
            "eval-retrieval", f"align_run={align_run}", f"head={head}", "sheet_rows=0"
        ).metrics.scopes
        for subject in ("sub-01", "sub-02"):
            top5 = scopes[f"all_seed-1 · {subject}"]["top5"]
            assert top5.low > top5.chance


@pytest.mark.nightly
def test_pictures_are_generated_from_both_heads(world, run_command):
    _, align_run = world
    result = run_command(
        "reconstruct",
        f"align_run={align_run}",
        "prior=identity",
        GENERATOR,
        *SMALL_PICTURES,
        "best_of=2",
    )

    pixcorr = result.metrics.scopes["brain"]["pixcorr"]
    assert (pixcorr.n, pixcorr.split) == (8, "test")
    assert "best of 2 by its decoded head" in pixcorr.protocol
    other_latents = "generator.architecture.vae.scaling_factor=0.5"
    with pytest.raises(
        BrainhiveError, match=r"latent predicts .*, the generator is of latents:"
    ) as caught:
        run_command(
            "reconstruct",
            f"align_run={align_run}",
            "prior=identity",
            GENERATOR,
            other_latents,
            *SMALL_PICTURES,
        )
    assert "autoencoder" in caught.value.hint


def test_tokens_alone_are_one_head_and_latents_cannot_be_fused(world, run_command):
    overrides = (
        (DATASET, f"backbone.kind={BACKBONE}")
        + tuple(TRAINING)
        + (
            "backbone={kind: voxel_ridge, hidden: 32}",
            "head=null",
            "dim=16",
            "fuser={kind: fusion_encoder, intermediate_size: 16}",
            "train.epochs=8",
        )
    )

    align_run = run_command("train-align", *overrides, f"encoders=['{TOKENS}']").folder
    scopes = run_command(
        "eval-retrieval", f"align_run={align_run}", "sheet_rows=0"
    ).metrics.scopes

    config = json.loads((align_run / "cells/all_seed-1/model/config.json").read_text())
    assert config["heads"]["token"]["shape"] == [4, 16]
    top5 = scopes["all_seed-1 · sub-01"]["top5"]
    assert top5.low > top5.chance
    with pytest.raises(
        RecipeError, match=r"latent \[4, 8, 8\], .* cannot be fused"
    ) as caught:
        run_command("train-align", *overrides, f"encoders=['{LATENT}', '{TOKENS}']")
    assert "head of its own" in caught.value.hint


@pytest.mark.nightly
def test_a_diffusion_prior_trains_with_its_model_and_then_alone(
    world, run_command, tmp_path
):
    prior = (
        "prior: {kind: mindeye1, head: tokens, depth: 1, heads: 2, dim_head: 8, "
        "timesteps: 4}"
    )
    overrides = [
        DATASET,
        HEADS,
        "mode=joint",
        "seeds=1",
        "train.batch_size=256",
        "train.precision=fp32",
        "train.selection=last",
        "train.epochs=1",
        "head=tokens",
        "terms=[{prediction: latent, loss: mse}, {prediction: tokens, loss: clip}, "
        "{prediction: denoised, loss: mse, weight: 30}]",
        (f"backbone={{kind: with_prior, backbone: {{kind: {BACKBONE}}}, {prior}}}"),
    ]
    joint_run = run_command("train-align", *overrides).folder
    model = joint_run / "cells/all_seed-1/model"
    stages = (
        f"train.stages=[{{epochs: 1, freeze: [backbone.brain], start_from: {model}}}]"
    )
    prior_run = run_command("train-align", *overrides, stages).folder
    result = run_command(
        "reconstruct",
        f"align_run={prior_run}",
        "prior=identity",
        GENERATOR,
        *SMALL_PICTURES,
    )

    joint_weights, prior_weights = load_weights(joint_run), load_weights(prior_run)
    changed_names = [
        name
        for name, weight in prior_weights.items()
        if name.startswith("backbone.") and not torch.equal(joint_weights[name], weight)
    ]
    assert changed_names
    assert all(name.startswith("backbone.prior.") for name in changed_names)
    assert result.metrics.scopes["brain"]["pixcorr"].n == 8
