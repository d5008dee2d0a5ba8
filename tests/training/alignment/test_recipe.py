"""Recipe of train-align: stages, terms, defaults and keys without an effect."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.training.alignment.cells import Cell, list_cells, list_subjects
from brainhive_cli.training.alignment.recipe import (
    Recipe,
    add_usual_backbone,
    make_ridge_keys,
)
from brainhive_cli.training.alignment.stages import (
    LoraSection,
    Stage,
    Train,
    scale_stages,
)
from brainhive_cli.training.alignment.terms import Term, check_active, find_mixing

TWO_STAGES = [{"epochs": 4, "start_from": "a"}, {"epochs": 6, "lr": 1e-3}]


def resolve(*overrides):
    demo = ("dataset={kind: demo, subjects: 3}", "seeds=7")
    return Recipe.resolve("train-align", None, {}, list(demo) + list(overrides))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 60))
def test_stages_keep_their_proportions_and_an_epoch_each(lengths, epochs):
    if epochs < len(lengths):
        with pytest.raises(RecipeError):
            scale_stages(lengths, epochs)
        return
    scaled_lengths = scale_stages(lengths, epochs)
    assert sum(scaled_lengths) == epochs
    assert min(scaled_lengths) >= 1
    assert len(scaled_lengths) == len(lengths)
    assert scale_stages(lengths, sum(lengths)) == lengths
    # ends are rounded, unless a stage would be empty
    exact, end = Fraction(0), 0
    if all(length * epochs >= sum(lengths) for length in lengths):
        for length, scaled in zip(lengths, scaled_lengths, strict=True):
            exact += Fraction(length * epochs, sum(lengths))
            end += scaled
            assert abs(end - exact) <= 1


@pytest.mark.parametrize(
    ("lengths", "epochs", "expected"),
    [
        ([4, 6], 10, [4, 6]),
        ([4, 6], 5, [2, 3]),
        ([1, 1, 1], 10, [3, 4, 3]),
        ([100, 1, 1], 3, [1, 1, 1]),
        ([1, 1, 100], 4, [1, 1, 2]),
        ([1, 100, 1], 7, [1, 5, 1]),
        ([3], 8, [8]),
    ],
)
def test_stages_keep_their_proportions_and_none_is_empty(lengths, epochs, expected):
    assert scale_stages(lengths, epochs) == expected
    with pytest.raises(RecipeError):
        scale_stages(lengths, len(lengths) - 1)


def test_epochs_scale_the_stages_of_a_training():
    assert Train(stages=TWO_STAGES).epochs == 10
    shorter = Train(stages=TWO_STAGES, epochs=5)
    assert [stage.epochs for stage in shorter.stages] == [2, 3]
    assert shorter.span(None) == (0, 5)
    assert [shorter.span(stage) for stage in (0, 1)] == [(0, 2), (2, 3)]
    with pytest.raises(RecipeError):
        shorter.span(2)
    assert Train(epochs=7).span(0) == (0, 7)
    with pytest.raises(RecipeError):
        Train(epochs=7).span(1)


def test_the_start_of_a_training_is_that_of_its_first_stage():
    later_stages = [{"epochs": 1}, {"epochs": 1, "start_from": {"backbone": "b"}}]
    for train, expected in (
        (Train(), [{}]),
        (Train(start_from="a"), [{"": "a"}]),
        (Train(stages=TWO_STAGES), [{"": "a"}, {}]),
        (Train(stages=later_stages, start_from="a"), [{"": "a"}, {"backbone": "b"}]),
    ):
        assert train.starts == expected
    with pytest.raises(ValidationError):
        Train(stages=TWO_STAGES, start_from="b")
    pinned = Train(stages=later_stages, start_from="a").pin_starts({"a": "A", "b": "B"})
    assert pinned.starts == [{"": "A"}, {"backbone": "B"}]
    assert Train(start_from="a").pin_starts({"b": "B"}).starts == [{"": "a"}]
    assert Train().pin_starts({"b": "B"}).starts == [{}]


def test_a_training_without_stages_is_one():
    single_stages = Train(epochs=3, lr=0.1, warmup_steps=10).list_stages(20)
    assert single_stages == [Stage(epochs=3, lr=0.1, warmup_epochs=0.5)]
    assert single_stages[0].warmup == 0.5
    assert Train(epochs=3, warmup_steps=60).list_stages(20)[0].warmup == 3
    with pytest.raises(RecipeError):
        Train(epochs=3, warmup_steps=61).list_stages(20)
    assert Train(epochs=3).list_stages(0)[0].warmup == 0
    stages = Train(stages=TWO_STAGES).stages
    assert Train(stages=TWO_STAGES).list_stages(9) == stages


def test_a_warm_up_is_in_epochs_or_a_share_of_its_stage():
    for epochs, expected in ((None, 0), (0.5, 0.5), (4, 4), ("1/4", 2)):
        stage = Stage(epochs=8, schedule="one_cycle", warmup_epochs=epochs)
        assert stage.warmup == expected
    Stage(epochs=2, warmup_epochs=2)
    with pytest.raises(ValidationError):
        Stage(epochs=2, warmup_epochs=2.1)
    assert isinstance(Stage(epochs=2, warmup_epochs="1/2").warmup_epochs, Fraction)


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": TWO_STAGES, "lr": 1e-3},
        {"stages": TWO_STAGES, "warmup_steps": 3},
        {"stages": TWO_STAGES, "patience": 3},
        {"validation": 0, "validation_by": "pictures"},
        {"validation": 0, "patience": 3},
        {"gallery_level": 1},
        {"epoch_trials": 8, "last_batch": "drop"},
        {"selection": "recordings"},
        {"validation_recordings": {1: [0]}},
        {"stages": [{"epochs": 2, "final_div": 10}]},
        {"lora": {"rank": 4}},
        {"lora": {"alpha": 4}},
        {"lora": {"modules": ["q_proj"]}},
    ],
)
def test_keys_without_an_effect_are_refused(fields):
    with pytest.raises((RecipeError, ValidationError)):
        Train(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": TWO_STAGES[:1], "patience": 3},
        {"validation_by": "pictures"},
        {"gallery_level": 2, "alternatives": "uncertainty"},
        {"epoch_trials": 8},
        {"last_batch": "drop"},
        {
            "selection": "recordings",
            "validation_recordings": {1: [0]},
            "validation": 0,
            "patience": 2,
        },
        {"stages": [{"epochs": 2, "schedule": "one_cycle", "final_div": 10}]},
        {"lora": {"encoders": ["a"], "rank": 4}},
    ],
)
def test_keys_with_an_effect_are_taken(fields):
    Train(**fields)


def test_limits_of_a_lora_are_above_nothing():
    assert LoraSection(encoders=["a"], rank=1).rank == 1
    with pytest.raises(ValidationError):
        LoraSection(encoders=["a"], rank=0)


def test_a_prior_alone_has_dropout():
    Train(prior_dropout=0.1).check_prior("demo:prior")
    Train().check_prior(None)
    with pytest.raises(RecipeError):
        Train(prior_dropout=0.1).check_prior(None)


def test_a_ridge_is_the_usual_model_of_few_pictures():
    own_ridge_keys = make_ridge_keys("joint", 9)
    assert own_ridge_keys["backbone"] == {
        "kind": "ridge",
        "alpha": "auto",
        "standardise": False,
        "components": 9,
    }
    shared = make_ridge_keys("inter", 9)
    assert shared["backbone"] == {"kind": "shared-ridge"}
    assert own_ridge_keys["similarity"] == shared["similarity"] == "cosine_from_mean"


def test_a_recipe_that_says_how_to_train_keeps_its_way(home):
    few_fields = {"dataset": {"kind": "categories", "names": ["cat", "dog"]}}
    for fields in (
        few_fields | {"backbone": "nice"},
        few_fields | {"mode": "finetune"},
        few_fields | {"train": {"epochs": 3}},
        {"dataset": "demo"},
        {"dataset": "no such"},
        ["no mapping"],
    ):
        assert add_usual_backbone(fields) == fields


def term(loss="clip", **fields):
    return Term(prediction="token", loss=loss, **fields)


def mixing(alpha, share=1.0):
    return {"kind": "mixco", "mix_alpha": alpha, "mix_share": share}


def test_terms_share_the_losses_of_earlier_ones():
    check_active([term(), term(loss_of=0)], 2)
    for terms in (
        [term(loss_of=0)],
        [term(loss_of=1), term()],
        [term(), term(loss_of=0), term(loss_of=1)],
    ):
        with pytest.raises(RecipeError):
            check_active(terms, 2)
    with pytest.raises(ValidationError):
        term("mse", loss_of=0)


def test_every_term_and_every_epoch_is_active():
    check_active([term(epochs=[0, 1]), term(epochs=[1, 3])], 3)
    check_active([term(epochs=[0, 2]), term(epochs=[2, 3])], 3)
    for terms in (
        [term(epochs=[0, 1]), term(epochs=[2, 3])],
        [term(epochs=[1, 3])],
        [term(), term(epochs=[3, 4])],
        [term(epochs=[0, 2])],
    ):
        with pytest.raises(RecipeError):
            check_active(terms, 3)


def test_a_term_weighs_nothing_outside_its_epochs():
    single_term = term(epochs=[1, 3], weight=0.5)
    assert [single_term.weight_at(value) for value in (0.9, 1, 2.9, 3)] == [
        0,
        0.5,
        0.5,
        0,
    ]
    assert term(weight=0.5).weight_at(99) == 0.5
    moved = single_term.in_stage(4, 6)
    assert moved.epochs == (5, 7)
    assert moved.stage is None
    share = term(epochs=["1/3", "2/3"], stage=1).in_stage(4, 6)
    assert [share.weight_at(value) for value in (5.9, 6, 7.9, 8)] == [0, 1, 1, 0]
    assert term().target_name == "token"
    assert term(target="clip").target_name == "clip"


def test_shares_and_epochs_of_a_term_are_those_of_its_stage():
    shared = term(epochs=["1/2", "1/1"]).in_stage(4, 6)
    assert shared.epochs == (7, 10)
    in_stage = term(epochs=[1, 2], stage=1).in_stage(4, 6)
    assert in_stage.epochs == (5, 6)
    assert in_stage.stage is None
    whole_in_stage = term(stage=1).in_stage(4, 6)
    assert whole_in_stage.epochs == (4, 10)
    everywhere = term()
    assert everywhere.in_stage(0, 6) == everywhere
    course = {"from": 0.0, "to": 1.0}
    varied = term(weight=course, stage=1).in_stage(4, 6)
    # the last epoch has the last value
    weights = [varied.weight_at(moment) for moment in (3, 4, 7, 9)]
    assert weights == pytest.approx([0, 0, 0.6, 1])


def test_signals_are_mixed_in_one_way_at_a_moment():
    terms = [
        term(mixing(0.2, 0.5), epochs=[0, 2]),
        term(),
        term(mixing(0.3), epochs=[2, 4]),
    ]
    assert find_mixing(terms, 1) == (0.2, 0.5)
    assert find_mixing(terms, 2) == (0.3, 1.0)
    assert find_mixing(terms, 5) == (0.0, 1.0)
    assert find_mixing([terms[2], term(loss_of=0)], 0) == (0.3, 1.0)
    for other_mixing in (mixing(0.3), mixing(0.2, 0.6)):
        with pytest.raises(RecipeError):
            find_mixing([terms[0], term(other_mixing)], 1)


CAPTIONED = "terms=[{prediction: token}, {prediction: token, target: captions}]"
HEADS = "heads={meaning: clip-h14, latent: vae}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["prior=demo:prior", "fuser.kind=heads"],
        ["mode=inter", "finetune.share=0.5"],
        ["train.start_pull=0.1"],
        ["trained_on=1", "mode=joint"],
        ["mode=finetune", "train.start_from=x"],
        ["mode=finetune", "train.init=reference"],
        [HEADS, "dim=8"],
        [HEADS, "fuser.intermediate_size=8"],
        ["heads={token: fused}", "fuser.kind=heads"],
        ["head=depth"],
        ["terms=[{prediction: token}]", "loss.kind=mse"],
        ["train.lora.encoders=[no such]"],
        ["train.lora.encoders=[clip-h14]", "encoders=[clip-h14]", "train.ema=0.9"],
        ["targets={captions: clip-b32}"],
        [
            "targets={token: clip-b32}",
            "terms=[{prediction: token, target: token}]",
        ],
        ["terms=[{prediction: depth}]"],
        ["terms=[{prediction: token}, {prediction: token, target: depth}]"],
        ["similarity=cosine_from_mean"],
        ["backbone.kind=ridge", "train.epochs=3"],
        ["backbone.kind=ridge", "terms=[{prediction: clip-h14}]"],
        ["backbone.kind=ridge", "loss.kind=mse"],
        ["backbone.kind=ridge", "signal.repetitions=single"],
        ["backbone.kind=ridge", "heads={token: fused}"],
        [HEADS, "terms=[{prediction: meaning}]"],
        ["train.prior_dropout=0.2"],
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides):
    with pytest.raises(BrainhiveError):
        resolve(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.start_from=x", "train.start_pull=0.1"],
        ["mode=finetune", "train.start_pull=0.1", "finetune.share=0.5"],
        ["mode=finetune", "head=depth"],
        ["targets={captions: clip-b32}", CAPTIONED],
        ["backbone.kind=ridge", "train.validation=0"],
        ["backbone.kind=ridge", "train.shuffled_labels=true"],
        ["heads={token: fused}", "dim=8"],
        ["mode=inter", "trained_on=1"],
        ["sweep={mode: [intra, inter]}"],
        ["sweep={mode: [intra, finetune]}"],
    ],
)
def test_settings_that_go_together_are_taken(overrides):
    resolve(*overrides)


def test_defaults_of_heads_and_terms_are_recorded(recorded):
    recipes = {
        "fused": resolve(),
        "heads": resolve(HEADS),
        "both": resolve("heads={token: fused, latent: vae}", "encoders=[clip-h14]"),
        "ridge": resolve("backbone.kind=ridge"),
        "staged": resolve(
            "train.stages=[{epochs: 2}, {epochs: 4}]",
            "terms=[{prediction: token}, {prediction: token, stage: 1}]",
        ),
    }
    facts = {}
    for name, recipe in recipes.items():
        facts[name] = {
            "terms": [
                [term.prediction, term.weight_at(3.5), str(term.epochs)]
                for term in recipe.loss_terms
            ],
            "counts": [
                len(recipe.head_targets),
                len(recipe.fused_encoders),
                len(recipe.stored_encoders),
                recipe.is_fused,
            ],
        }
    recorded(**facts)


def test_folds_make_cells_of_their_own(home):
    dataset = {"kind": "categories", "names": ["cat", "dog"]}
    axes = {"channels": ("A", "B"), "times_s": np.arange(5) / 100, "unit": "µV"}
    # the second person has no third run
    for subject, runs in ((1, 3), (2, 2)):
        signal = np.random.default_rng(subject).normal(size=(4 * runs, 2, 5))
        picture_names = ["cat", "dog"] * (2 * runs)
        run_numbers = np.arange(len(signal)) // 4
        api.store_trials(
            signal, picture_names, dataset, subject, run=run_numbers, **axes
        )
    dataset["holdout"] = {"by": "runs", "folds": 3}
    own_fields = {"dataset": dataset, "seeds": [1, 2]}

    def cells(mode):
        recipe = Recipe.resolve("train-align", None, own_fields | {"mode": mode}, [])
        return list_cells(recipe, recipe.dataset.build(recipe.paths))

    joint = cells("joint")
    assert [cell.name for cell in joint] == [
        f"all_fold-0{fold}_seed-{seed}" for fold in (1, 2, 3) for seed in (1, 2)
    ]
    assert [cell.fold for cell in joint] == [1, 1, 2, 2, 3, 3]
    people = [(cell.trained_on, cell.tested_on) for cell in joint[::2]]
    assert people == [((1, 2),) * 2, ((1, 2),) * 2, ((1,),) * 2]
    assert {cell.name_without_fold for cell in joint} == {
        f"all_seed-{seed}" for seed in (1, 2)
    }
    assert len(cells("intra")) == 2 * 5
    with pytest.raises(RecipeError):
        cells("inter")
    own_fields["train"] = {"selection": "test"}
    with pytest.raises(RecipeError):
        cells("joint")


def test_people_of_cells_are_listed_once():
    cells = [Cell("a", (3, 1), (2,), 1), Cell("b", (1,), (5,), 1)]
    assert list_subjects(cells) == [1, 2, 3, 5]
    assert list_subjects(cells, with_tested=False) == [1, 3]
