"""train-prior: what learns, what stays, and what an interruption costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brainhive_cli.commands import train_prior
from brainhive_cli.commands.train_prior import Recipe
from brainhive_cli.core.command import describe_missing
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.jobs import list_inputs
from brainhive_cli.models.generators import sdxl
from brainhive_cli.models.generators.sdxl import SDXL
from brainhive_cli.models.priors import fusion_prior
from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from brainhive_cli.models.priors._fusion_network import FusionPrior
from brainhive_cli.training.prior.run import PriorRun


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {part: load_file(folder / part / WEIGHTS) for part in CLASSES}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    assert before.keys() == after.keys()
    return any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.nightly
def test_the_validation_loss_falls(go, settings):
    result = go("train-prior", *settings, "train.steps=24", "train.lr=1e-2")

    start, end = (
        result.metrics.overall[name]
        for name in ("validation_loss_at_start", "validation_loss")
    )
    assert end.value < start.value
    assert (end.n, end.split, end.seeds) == (2, "validation", (0,))


def test_every_part_learns_and_the_saved_prior_loads(go, settings, prior):
    result = go(
        "train-prior", *settings, "prior=fusion_prior", f"continue_from={prior}"
    )

    before, after = weights(prior), weights(result.folder / "model")
    assert all(moved(before[part], after[part]) for part in CLASSES)
    loaded = FusionPrior.load(result.folder / "model")
    embeddings = {"brainhive_cli-models-encoders-python-example": torch.rand(2, 12)}
    assert loaded(embeddings).shape == (2, 4, 16)
    assert result.files["samples"].is_file()
    colours = "python:brainhive_cli.models.encoders.python:example"
    assert result.hint == (
        f"brainhive train-align --encoders {colours} --prior {result.folder / 'model'}"
    )


def test_frozen_parts_stay_bit_for_bit(go, settings, prior):
    frozen = ["proj", "attn_adapter"]
    start = ("prior=fusion_prior", f"continue_from={prior}")
    run = go("train-prior", *settings, *start, f"freeze=[{', '.join(frozen)}]").folder

    before, after = weights(prior), weights(run / "model")
    assert {part for part in CLASSES if not moved(before[part], after[part])} == set(
        frozen
    )


def test_a_training_that_diverges_stops_and_keeps_the_checkpoint_from_before(
    go, settings, home, monkeypatch
):
    loss = SDXL.loss

    def spoilt(generator: SDXL, *given: object, **knobs: object) -> torch.Tensor:
        found = loss(generator, *given, **knobs)
        if torch.is_grad_enabled():
            seen.append(found)
            if len(seen) == 4:  # its gradient is not finite
                return found.square().sub(found.detach() ** 2).sqrt()
        return found

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(SDXL, "loss", spoilt)
    with pytest.raises(
        BrainhiveError, match="the training has diverged by step 4"
    ) as caught:
        go("train-prior", *settings, "train.checkpoint_steps=2")
    assert "train.lr" in caught.value.hint
    (kept,) = home.rglob("last.pt")
    saved = torch.load(kept, weights_only=True)
    assert saved["step"] == 2 and all(
        weight.isfinite().all() for weight in saved["prior"].values()
    )
    assert not list(home.rglob("runs/**/metrics.json"))


def test_a_number_out_of_range_is_refused_with_its_key():
    for override in ("train.lr=.inf", "seed=-1", "prior.hidden_size=0"):
        with pytest.raises(
            RecipeError, match=rf"{override.partition('=')[0]}\b.*: Input should"
        ):
            Recipe.resolve("train-prior", None, {}, [override])


@pytest.mark.nightly
def test_what_the_training_would_refuse_is_missing_in_a_check(settings, go, home):
    for override, told in (
        ("resolution_px=33", "resolution_px is 33 (give a multiple of 8)"),
        (
            "freeze=[fusion_encoder, proj, attn_adapter]",
            "leaves nothing known to train",
        ),
        ("sampler=no/such", "no folder 'no/such'"),
        ("prior=identity", "a prior of kind identity cannot be trained"),
    ):
        overrides = (*settings, "prior=fusion_prior", override)
        listed = list_inputs(
            train_prior, Recipe.resolve("train-prior", None, {}, overrides)
        )
        assert told in " ".join(describe_missing(listed))
        with pytest.raises(BrainhiveError) as caught:
            go("train-prior", *overrides)
        assert told in caught.value.in_one_line and not list(home.rglob("log.jsonl"))


@pytest.fixture
def refused(settings: tuple[str, ...]) -> Callable[..., BrainhiveError]:
    """The error of a check, with further overrides."""

    def check(*overrides: str) -> BrainhiveError:
        lines = (*settings, "prior=fusion_prior", *overrides)
        recipe = Recipe.resolve("train-prior", None, {}, lines)
        with pytest.raises(BrainhiveError) as caught:
            PriorRun.resolve(recipe).check()
        return caught.value

    return check


def test_a_prior_goes_on_with_embeddings_of_its_width(settings, tmp_path) -> None:
    folder = tmp_path / "other"
    key = "brainhive_cli-models-encoders-python-example"
    fusion_prior.TINY.build({key: 7}, sdxl.TINY.build()).save(folder)
    lines = (*settings, f"continue_from={folder}")
    lines = tuple(line for line in lines if not line.startswith("prior"))
    run = PriorRun.resolve(Recipe.resolve("train-prior", None, {}, lines))
    with pytest.raises(BrainhiveError, match=r"\(7\), not for .* \(12\)"):
        run.check()


def test_a_prior_fuses_vectors_alone(refused) -> None:
    tokens = "{kind: timm, source: random, architecture: test_vit, output: tokens}"
    error = refused(f"encoders=[{tokens}]", "embed_missing=true")
    assert "[101, 64]" in error.message


def test_a_prior_starts_from_weights_of_its_sizes(refused, tmp_path) -> None:
    file = tmp_path / "odd.safetensors"
    save_file({"image_proj.proj.weight": torch.zeros(2)}, file)
    assert "odd.safetensors" in refused(f"prior.start_from={file}").message


@pytest.mark.parametrize("key", ["similarity=[concepts]", "fid_features=concepts"])
def test_samples_are_compared_by_encoders_of_pictures(key: str) -> None:
    with pytest.raises(RecipeError, match="reads labels"):
        Recipe.resolve("train-prior", None, {}, [key, "fid_items=20"])


def test_a_check_does_without_distances_of_few_pictures(settings) -> None:
    lines = (*settings, "fid_items=1")
    listed = list_inputs(train_prior, Recipe.resolve("train-prior", None, {}, lines))
    (distances,) = (one for one in listed if one.name == "FID and KID")
    assert distances.is_optional and "of 1 pictures" in distances.error.message
    assert not describe_missing(listed)
