"""Tests of train-prior: trained and frozen modules, divergence, refused recipes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from brainhive_cli.commands import train_prior
from brainhive_cli.commands.train_prior import Recipe
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.runs.jobs import list_inputs
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.training.prior.run import PriorRun


def load_weights(folder):
    """Load the weights of a prior, keyed by module."""
    return {module: load_file(folder / module / WEIGHTS) for module in CLASSES}


def has_changed(start_weights, end_weights):
    assert start_weights.keys() == end_weights.keys()
    return any(
        not torch.equal(start_weights[key], end_weights[key]) for key in start_weights
    )


@pytest.mark.nightly
def test_the_validation_loss_falls(run_command, prior_overrides):
    result = run_command(
        "train-prior", *prior_overrides, "train.steps=24", "train.lr=1e-2"
    )

    start, end = (
        result.metrics.overall[name]
        for name in ("validation_loss_at_start", "validation_loss")
    )
    assert end.value < start.value
    assert (end.n, end.split, end.seeds) == (2, "validation", (0,))


def test_every_part_learns_and_the_saved_prior_loads(
    run_command, prior_overrides, prior
):
    result = run_command(
        "train-prior", *prior_overrides, "prior=fusion_prior", f"continue_from={prior}"
    )

    initial_weights, final_weights = (
        load_weights(prior),
        load_weights(result.folder / "model"),
    )
    for module in CLASSES:
        assert has_changed(initial_weights[module], final_weights[module])
    loaded = FusionPrior.load(result.folder / "model")
    embeddings = {"brainhive_cli-models-encoders-python-example": torch.rand(2, 12)}
    assert loaded(embeddings).shape == (2, 4, 16)
    assert result.files["samples"].is_file()
    colours = "python:brainhive_cli.models.encoders.python:example"
    assert result.hint == (
        f"brainhive train-align --encoders {colours} --prior {result.folder / 'model'}"
    )


def test_frozen_parts_stay_bit_for_bit(run_command, prior_overrides, prior):
    run_folder = run_command(
        "train-prior",
        *prior_overrides,
        "prior=fusion_prior",
        f"continue_from={prior}",
        "freeze=[proj, attn_adapter]",
    ).folder

    initial_weights, final_weights = (
        load_weights(prior),
        load_weights(run_folder / "model"),
    )
    for module in CLASSES:
        is_frozen = module in ("proj", "attn_adapter")
        assert has_changed(initial_weights[module], final_weights[module]) != is_frozen


def test_a_diverging_training_stops_and_keeps_its_checkpoint(
    run_command, prior_overrides, home, monkeypatch
):
    compute_loss = SDXL.loss
    losses = []

    def diverge_at_step_4(generator, *arguments, **options):
        loss = compute_loss(generator, *arguments, **options)
        if torch.is_grad_enabled():
            losses.append(loss)
            if len(losses) == 4:
                # the value is 0, and its gradient is not finite
                return loss.square().sub(loss.detach() ** 2).sqrt()
        return loss

    monkeypatch.setattr(SDXL, "loss", diverge_at_step_4)
    with pytest.raises(BrainhiveError, match="step 4") as caught:
        run_command("train-prior", *prior_overrides, "train.checkpoint_steps=2")
    assert "train.lr" in caught.value.hint
    (file,) = home.rglob("last.pt")
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["step"] == 2
    for weight in checkpoint["prior"].values():
        assert weight.isfinite().all()
    assert not list(home.rglob("runs/**/metrics.json"))


def test_a_number_out_of_range_is_refused_with_its_key():
    for override in ("train.lr=.inf", "seed=-1", "prior.hidden_size=0"):
        key, _, _ = override.partition("=")
        with pytest.raises(RecipeError, match=rf"{key}\b"):
            Recipe.resolve("train-prior", None, {}, [override])


@pytest.mark.nightly
def test_what_the_training_would_refuse_is_missing_in_a_check(
    prior_overrides, run_command, home
):
    for override, facts in (
        ("resolution_px=33", ("resolution_px", "33", "8")),
        ("freeze=[fusion_encoder, proj, attn_adapter]", ("freeze",)),
        ("sampler=no/such", ("no/such",)),
        ("prior=identity", ("identity",)),
    ):
        overrides = prior_overrides + ("prior=fusion_prior", override)
        recipe = Recipe.resolve("train-prior", None, {}, overrides)
        check_message = " ".join(describe_missing(list_inputs(train_prior, recipe)))
        with pytest.raises(BrainhiveError) as caught:
            run_command("train-prior", *overrides)
        for fact in facts:
            assert fact in check_message
            assert fact in caught.value.in_one_line
        assert not list(home.rglob("log.jsonl"))


@pytest.fixture
def refuse(prior_overrides):
    """Function that returns the error of a check with further overrides."""

    def check(*overrides):
        lines = prior_overrides + ("prior=fusion_prior",) + tuple(overrides)
        recipe = Recipe.resolve("train-prior", None, {}, lines)
        with pytest.raises(BrainhiveError) as caught:
            PriorRun.resolve(recipe).check()
        return caught.value

    return check


def test_a_prior_goes_on_with_embeddings_of_its_width(prior_overrides, tmp_path):
    folder = tmp_path / "other"
    encoder = "brainhive_cli-models-encoders-python-example"
    fusion_prior.TINY.build({encoder: 7}, sdxl.TINY.build()).save(folder)
    overrides = [line for line in prior_overrides if not line.startswith("prior")]
    overrides.append(f"continue_from={folder}")
    prior_run = PriorRun.resolve(Recipe.resolve("train-prior", None, {}, overrides))
    with pytest.raises(BrainhiveError, match=r"\(7\).*\(12\)"):
        prior_run.check()


def test_a_prior_fuses_vectors_alone(refuse):
    tokens = "{kind: timm, source: random, architecture: test_vit, output: tokens}"
    error = refuse(f"encoders=[{tokens}]", "embed_missing=true")
    assert "[101, 64]" in error.message


def test_a_prior_starts_from_weights_of_its_sizes(refuse, tmp_path):
    file = tmp_path / "other_size.safetensors"
    save_file({"image_proj.proj.weight": torch.zeros(2)}, file)
    assert file.name in refuse(f"prior.start_from={file}").message


@pytest.mark.parametrize("key", ["similarity=[concepts]", "fid_features=concepts"])
def test_samples_are_compared_by_encoders_of_pictures(key):
    with pytest.raises(RecipeError, match="concepts"):
        Recipe.resolve("train-prior", None, {}, [key, "fid_items=20"])


def test_a_check_does_without_distances_of_few_pictures(prior_overrides):
    recipe = Recipe.resolve("train-prior", None, {}, prior_overrides + ("fid_items=1",))
    inputs = list_inputs(train_prior, recipe)
    (distances,) = (item for item in inputs if item.name == "FID and KID")
    assert distances.is_optional
    assert "not 1" in distances.error.message
    assert not describe_missing(inputs)
