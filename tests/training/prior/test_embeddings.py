"""Embeddings that a prior learns from: of stores, or made as they are needed."""

import json

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.targets.targets import OnlineTargets, StoreTargets
from brainhive_cli.models.encoders import timm
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.training.prior.examples import batches
from brainhive_cli.training.prior.loop import Training

TIMM = "{kind: timm, source: random, architecture: test_vit}"
COLOURS = "python:brainhive_cli.models.encoders.python:example"
BOTH = f"encoders=['{COLOURS}', {TIMM}]"
ROUNDING = 1e-5
"""Batches of other sizes round differently in float32."""


def embeddings(training: Training) -> dict[str, torch.Tensor]:
    batch = next(batches(training.pictures, range(1), 4, 1, 0, 0, training.launch))
    return training.embeddings(batch)


def test_what_no_store_holds_is_refused_with_both_ways_to_get_it(settings, begun):
    with pytest.raises(MissingData, match="no train embeddings of local--random") as caught:
        begun(*settings, BOTH)
    assert "brainhive embed" in caught.value.hint and "--embed-missing" in caught.value.hint


def test_clips_are_refused(settings, begun, monkeypatch):
    monkeypatch.setattr(StimulusSet, "__post_init__", lambda stimuli: vars(stimuli).update(medium="clip"))

    with pytest.raises(RecipeError, match="and the stimuli of pictures are clips"):
        begun(*settings)


def test_computed_embeddings_are_those_that_a_store_would_hold(settings, begun, go):
    dataset = settings[0]
    missing = begun(*settings, BOTH, "embed_missing=true")  # one is stored, the other is not
    computed = embeddings(missing)
    none_stored = embeddings(begun(*settings, f"encoders=[{TIMM}]", "embed_missing=true"))

    go("embed", dataset, BOTH)
    stored = embeddings(begun(*settings, BOTH))

    assert [type(source) for source in missing.pictures.targets.sources.values()] == [
        StoreTargets,
        OnlineTargets,
    ]
    assert computed.keys() == stored.keys() and len(stored) == 2
    for name, values in stored.items():
        assert torch.allclose(values, computed[name], atol=ROUNDING), name
    assert all(torch.allclose(values, stored[name], atol=ROUNDING) for name, values in none_stored.items())


def test_a_check_lists_what_is_computed_and_loads_no_network(settings, monkeypatch):
    monkeypatch.setattr(timm.Config, "build", None)
    words = ["train-prior", *settings, BOTH, "--embed-missing", "--check", "--json"]

    ended = CliRunner().invoke(app, words)

    document = json.loads(ended.stdout)
    assert ended.exit_code == 0, ended.stderr
    assert document["missing"] == [] and {one["state"] for one in document["inputs"]} == {"here"}


def test_a_prior_learns_from_computed_embeddings_beside_kept_latents(settings, go):
    result = go(
        "train-prior",
        *settings,
        BOTH,
        "embed_missing=true",
        "cache_latents=true",
        "train.steps=2",
        "run.workers=1",
    )

    metrics = result.metrics.overall
    assert metrics["validation_loss"].value != metrics["validation_loss_at_start"].value


def test_a_prior_for_other_encoders_is_refused_naming_both(settings, begun, prior, go):
    go("embed", settings[0], f"encoders=[{TIMM}]")

    with pytest.raises(BrainhiveError, match=r"takes the encoders brainhive_cli-\S+, not \{kind: timm"):
        begun(*settings, f"encoders=[{TIMM}]", "prior=fusion_prior", f"continue_from={prior}")


def test_a_prior_for_embeddings_of_another_width_is_refused_before_the_first_step(settings, begun, tmp_path):
    name = "brainhive_cli-models-encoders-python-example"
    fusion_prior.TINY.build({name: 7}, sdxl.TINY.build()).save(tmp_path / "other")

    with pytest.raises(BrainhiveError, match=f"takes {name} of width 7, not 12"):
        begun(*settings, "prior=fusion_prior", f"continue_from={tmp_path / 'other'}")
