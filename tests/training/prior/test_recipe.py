"""Keys of train-prior that contradict each other."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.training.prior.loop import DTYPES, freeze_modules, load_generator
from brainhive_cli.training.prior.recipe import INCEPTION, Recipe


def resolve(*overrides):
    return Recipe.resolve("train-prior", None, {}, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["continue_from=x", "prior.hidden_size=8"],
        ["train.weights=bf16", "train.precision=fp32"],
        ["sample_items=0", "sample_every=3"],
        ["fid_features=clip-h14"],
        ["cache_latents=true", "posterior=sample"],
        ["fid_items=50", "fid_features=absent"],
        ["sampler.kind=absent"],
        ["encoders=[]"],
    ],
    ids=str,
)
def test_keys_that_contradict_each_other_are_refused(overrides):
    with pytest.raises(RecipeError):
        resolve(*overrides)


def test_keys_that_go_together_are_taken():
    assert resolve("continue_from=x").continue_from == "x"
    assert resolve("train.weights=bf16").train.precision == "bf16"
    assert resolve("sample_items=0").sample_items == 0
    own_recipe = resolve("fid_items=50", "fid_features=clip-h14")
    assert own_recipe.fid_features == "clip-h14"
    assert resolve().fid_features == INCEPTION
    assert resolve("cache_latents=true").posterior == "mode"
    assert resolve("posterior=sample").posterior == "sample"


def test_a_sampler_is_a_kind_or_a_source():
    assert resolve().sampler is None
    by_source = resolve("sampler=hub:owner/fast").sampler
    kind = resolve().generator.kind
    assert (by_source.kind, by_source.source) == (kind, "hub:owner/fast")


def test_some_known_part_of_a_prior_remains_to_be_trained():
    prior = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 3)})
    assert len(freeze_modules(prior, [])) == 4
    frozen_parameters = freeze_modules(prior, ["a"])
    assert [tuple(parameter.shape) for parameter in frozen_parameters] == [
        (3, 2),
        (3,),
    ]
    assert not prior["a"].weight.requires_grad
    for frozen in (["a", "b"], ["c"], ["a", "c"]):
        with pytest.raises(BrainhiveError):
            freeze_modules(prior, frozen)


def test_a_generator_without_a_training_is_refused():
    calls = list[Any]()
    stand_in = SimpleNamespace(
        check_size=calls.append, use_float32_autoencoder=lambda: calls.append("fp32")
    )
    config = SimpleNamespace(
        build=lambda *arguments: calls.append(arguments) or stand_in
    )
    recipe = resolve("resolution_px=96", "train.precision=fp32")
    with pytest.raises(RecipeError):
        load_generator(config, recipe, "cpu")
    stand_in.prepare_training = None
    calls.clear()
    assert load_generator(config, recipe, "meta") is stand_in
    assert calls == [("meta", DTYPES["fp32"]), 96, "fp32"]
