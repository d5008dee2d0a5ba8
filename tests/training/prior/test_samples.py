"""Samples and metrics of a prior's training."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from brainhive_cli.commands import train_prior
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from tests.tools.joined_processes import run_in_processes

EXAMPLE = "similarity_brainhive_cli-models-encoders-python-example"


@pytest.mark.nightly
def test_samples_are_drawn_every_few_steps_of_the_same_pictures(
    prior_overrides, run_command
):
    result = run_command(
        "train-prior", *prior_overrides, "sample_every=2", "train.lr=1e-2"
    )

    samples = result.folder / "samples"
    assert sorted(path.name for path in samples.iterdir()) == [
        "last.png",
        "step-000000.png",
        "step-000002.png",
        "step-000004.png",
    ]
    early, late = (
        np.asarray(Image.open(samples / name))
        for name in ("step-000002.png", "last.png")
    )
    middle = early.shape[1] // 2
    # what was seen, and its labels
    assert np.array_equal(early[:, :middle], late[:, :middle])
    assert not np.array_equal(early[:, middle:], late[:, middle:])
    logged = [
        json.loads(line)
        for line in (result.folder / "log.jsonl").read_text().splitlines()
    ]
    assert [
        (event["step"], list(event["samples"]))
        for event in logged
        if "samples" in event
    ] == [
        (2, [EXAMPLE]),
        (4, [EXAMPLE]),
    ]
    similarity = result.metrics.overall[EXAMPLE]
    assert similarity.n == 2
    assert -1 <= similarity.value <= 1


@pytest.mark.nightly
def test_drawing_does_not_change_what_is_learned(prior_overrides, run_command):
    runs = [
        run_command(
            "train-prior", *prior_overrides, f"sample_every={steps}", "train.steps=2"
        ).folder
        for steps in (1, 0)
    ]

    for part_name in CLASSES:
        drawn_weights, not_drawn = (
            load_file(finished_run / "model" / part_name / WEIGHTS)
            for finished_run in runs
        )
        assert all(
            torch.equal(drawn_weights[name], not_drawn[name]) for name in not_drawn
        )


def test_missing_metrics_are_reported_before_the_first_step(
    prior_overrides, run_command, capsys, image_networks_absent
):

    result = run_command(
        "train-prior",
        *prior_overrides,
        "similarity=[clip-l14]",
        "lpips=true",
        "fid_items=2",
        "train.steps=1",
    )

    warnings = capsys.readouterr().err
    for name, cause in (
        ("lpips", "AlexNet"),
        ("similarity_clip-l14", "openai/clip-vit-large-patch14"),
        ("fid", "20 pictures, not 2"),
    ):
        assert any(name in line and cause in line for line in warnings.splitlines()), (
            name
        )
    assert {
        "lpips",
        "similarity_clip-l14",
        "fid",
        "kid",
    } <= result.metrics.missing.keys()
    assert result.metrics.overall["validation_loss"].n == 2


def test_a_wrong_name_of_a_metric_is_refused_before_training(
    prior_overrides, run_command, home
):
    for override, message in (
        ("fid_features=incepton", "fid_features: no encoder called 'incepton'"),
        (
            "similarity=['python:brainhive_cli.models.encoders.python:exampel']",
            "no attribute 'exampel'",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            run_command("train-prior", *prior_overrides, override)
    assert not list(home.rglob("log.jsonl"))


@pytest.fixture
def make_examples(tmp_path):
    """Make a hundred pictures, of which twenty may be held out."""
    from tests.worlds.command_fixtures import paint_pictures

    return paint_pictures(tmp_path / "many", concepts=10, pictures_per_concept=10)


def _train(launch, overrides):
    recipe = train_prior.Recipe.resolve(
        "train-prior", None, {}, tuple(overrides) + ("paths.runs=two",)
    )
    train_prior.run(recipe, launch)


def test_two_processes_draw_and_measure_as_one(
    prior_overrides, run_command, make_examples, home, generator
):
    colours = "python:brainhive_cli.models.encoders.python:example"
    metric_overrides = [
        f"dataset={{kind: image-folder, root: {make_examples}}}",
        f"sampler={{kind: sdxl, source: {generator}}}",
        f"fid_features={colours}",
        "fid_items=20",
        "embed_missing=true",
        "cache_latents=true",
        "sample_every=1",
        "train.steps=2",
    ]

    run_in_processes(
        _train, prior_overrides + tuple(metric_overrides) + ("train.batch_size=2",)
    )
    single_overall = run_command(
        "train-prior", *prior_overrides, *metric_overrides, "train.batch_size=4"
    ).metrics.overall

    (two,) = (
        RunFolder(path.parent).measurements().overall
        for path in (home / "two").rglob("metrics.json")
    )
    assert two.keys() == single_overall.keys()
    for name, metric in single_overall.items():
        assert two[name].value == pytest.approx(metric.value, rel=0.02), name
        assert two[name].n == metric.n
    fid, kid = single_overall["fid"], single_overall["kid"]
    assert fid.n == kid.n == 20
    assert fid.value > 0
    assert fid.low < fid.value < fid.high
    assert colours in fid.protocol
    assert "1 steps" in fid.protocol
