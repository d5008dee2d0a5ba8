"""Keys of a training's recipe: lengths of stages, terms, starts, and what has no
effect.
"""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.models.heads import FUSED
from brainhive_cli.training.alignment.recipe import (
    Cell,
    Recipe,
    Stage,
    Term,
    Train,
    check_active,
    list_subjects,
    mixing_of,
    ridge_keys,
    scale_stages,
)


def resolve(*overrides: str) -> Recipe:
    return Recipe.resolve("train-align", None, {}, ["dataset=demo", *overrides])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 60))
def test_stages_keep_their_proportions_and_an_epoch_each(
    lengths: list[int], epochs: int
) -> None:
    if epochs < len(lengths):
        with pytest.raises(RecipeError):
            scale_stages(lengths, epochs)
        return
    found = scale_stages(lengths, epochs)
    assert sum(found) == epochs and min(found) >= 1 and len(found) == len(lengths)
    assert scale_stages(lengths, sum(lengths)) == lengths
    # ends are rounded, unless a stage would be empty
    exact, end = Fraction(0), 0
    if all(length * epochs >= sum(lengths) for length in lengths):
        for length, scaled in zip(lengths, found, strict=True):
            exact += Fraction(length * epochs, sum(lengths))
            end += scaled
            assert abs(end - exact) <= 1


@pytest.mark.parametrize(
    ("lengths", "epochs", "scaled"),
    [([1, 1, 98], 10, [1, 1, 8]), ([98, 1, 1], 10, [8, 1, 1]), ([3, 1], 8, [6, 2]),
     ([1, 100, 1], 3, [1, 1, 1]), ([5], 2, [2])],
)  # fmt: skip
def test_no_stage_is_empty(lengths: list[int], epochs: int, scaled: list[int]) -> None:
    assert scale_stages(lengths, epochs) == scaled


STAGES = [{"epochs": 2, "lr": 0.1}, {"epochs": 6, "lr": 0.2, "freeze": ["fuser"]}]


def test_a_training_has_the_epochs_of_its_stages() -> None:
    train = Train(stages=STAGES)  # type: ignore[arg-type]
    assert train.epochs == 8 and [stage.epochs for stage in train.stages] == [2, 6]
    assert train.span(None) == (0, 8)
    assert [train.span(0), train.span(1)] == [(0, 2), (2, 6)]
    assert train.all_stages(5) == train.stages
    scaled = Train(stages=STAGES, epochs=4)  # type: ignore[arg-type]
    assert [stage.epochs for stage in scaled.stages] == [1, 3] and scaled.epochs == 4
    assert [stage.freeze for stage in scaled.stages] == [[], ["fuser"]]
    for number in (2, 3):
        with pytest.raises(RecipeError):
            train.span(number)


def test_a_training_without_stages_is_one() -> None:
    train = Train(epochs=4, lr=0.25, warmup_steps=6)
    assert train.span(0) == (0, 4) == train.span(None)
    with pytest.raises(RecipeError):
        train.span(1)
    assert train.all_stages(4) == [Stage(epochs=4, lr=0.25, warmup_epochs=1.5)]
    # the warm-up may take all steps
    assert Train(epochs=2, warmup_steps=6).all_stages(3)[0].warmup == 2
    with pytest.raises(RecipeError):
        Train(epochs=2, warmup_steps=7).all_stages(3)


def test_a_warmup_counts_in_epochs_or_in_shares_of_its_stage() -> None:
    assert Stage(epochs=10).warmup == 0
    assert Stage(epochs=10, warmup_epochs=0.5).warmup == 0.5
    assert Stage(epochs=10, warmup_epochs="1/4").warmup == 2.5  # type: ignore[arg-type]
    assert Stage(epochs=2, warmup_epochs=2).warmup == 2
    for fields in ({"warmup_epochs": 2.5}, {"final_div": 3.0}):
        with pytest.raises((RecipeError, ValueError)):
            Stage(epochs=2, **fields)  # type: ignore[arg-type]
    assert Stage(epochs=2, schedule="one_cycle", final_div=3.0).final_div == 3


def test_each_stage_starts_from_its_own_weights() -> None:
    stages: Any = [{"epochs": 1}, {"epochs": 1, "start_from": {"fuser": "b"}}]
    train = Train(stages=stages, start_from="a")
    assert train.starts == [{"": "a"}, {"fuser": "b"}]
    assert Train(start_from={"backbone": "c"}).starts == [{"backbone": "c"}]
    assert Train().starts == [{}] and Train(stages=stages).starts[0] == {}
    own: Any = [{"epochs": 1, "start_from": "d"}]
    assert Train(stages=own).starts == [{"": "d"}]
    with pytest.raises(ValueError):
        Train(stages=own, start_from="a")
    pinned = train.pin_starts({"a": "a@1", "b": "b@2", "c": "x"})
    assert pinned.starts == [{"": "a@1"}, {"fuser": "b@2"}]
    assert train.pin_starts({"x": "y"}) == train


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": STAGES, "lr": 0.3},
        {"stages": STAGES, "warmup_steps": 3},
        {"stages": STAGES, "patience": 2},
        {"validation": 0, "validation_by": "pictures"},
        {"gallery_level": 1},
        {"epoch_trials": 30, "last_batch": "drop"},
        {"selection": "recordings"},
        {"validation_recordings": {1: [1]}},
        {"validation": 0, "patience": 2},
        {"lora": {"rank": 4}},
    ],
    ids=str,
)
def test_keys_of_a_training_without_an_effect_are_refused(
    fields: dict[str, Any],
) -> None:
    with pytest.raises((RecipeError, ValueError)):
        Train(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": STAGES[:1], "patience": 2},
        {"validation_by": "pictures"},
        {"alternatives": "uncertainty", "gallery_level": 1},
        {"epoch_trials": 30},
        {"selection": "recordings", "validation_recordings": {1: [1]}},
        {
            "selection": "recordings",
            "validation_recordings": {1: [1]},
            "validation": 0,
            "patience": 2,
        },
        {"lora": {"encoders": ["a"], "rank": 4}},
    ],
    ids=str,
)
def test_keys_of_a_training_with_an_effect_are_taken(fields: dict[str, Any]) -> None:
    assert Train(**fields).epochs > 0


def term(**fields: Any) -> Term:
    return Term.model_validate({"prediction": "a", **fields})


def part(first: str, second: str) -> Term:
    """A term of a part of one epoch, as shares."""
    return term(epochs=[0 if first == "0" else first, second]).in_stage(0, 1)


def test_a_term_is_active_from_its_first_epoch_up_to_its_last() -> None:
    active = term(epochs=[1, 3], weight=2.0)
    moments = (0.99, 1, 2.99, 3)
    assert [active.weight_at(moment) for moment in moments] == [0, 2, 2, 0]
    assert term().weight_at(99) == 1
    assert term().of == "a" and term(target="b").of == "b"


def test_shares_and_epochs_of_a_term_are_those_of_its_stage() -> None:
    shared = term(epochs=["1/2", "1/1"]).in_stage(4, 6)
    assert shared.epochs == (7, 10)
    counted = term(epochs=[1, 2], stage=1).in_stage(4, 6)
    assert counted.epochs == (5, 6) and counted.stage is None
    whole = term(stage=1).in_stage(4, 6)
    assert whole.epochs == (4, 10)
    everywhere = term()
    assert everywhere.in_stage(0, 6) == everywhere
    course = {"from": 0.0, "to": 1.0}
    varied = term(weight=course, stage=1).in_stage(4, 6)
    # the last epoch has the last value
    found = [varied.weight_at(moment) for moment in (3, 4, 7, 9)]
    assert found == pytest.approx([0, 0, 0.6, 1])


@pytest.mark.parametrize(
    ("terms", "epochs"),
    [
        # an earlier term that has a loss of its own
        ([term(loss_of=0)], 2),
        ([term(), term(loss_of=2), term()], 2),
        ([term(), term(loss_of=0), term(loss_of=1)], 2),
        # never, or not always active
        ([term(), term(epochs=[2, 3])], 2),
        ([term(epochs=[0, 1])], 2),
        ([part("0", "1/2"), part("3/4", "1/1")], 1),
        # two ways of mixing
        ([term(loss="mixco"), term(loss={"kind": "mixco", "mix_alpha": 0.3})], 2),
    ],
    ids=range(7),
)
def test_terms_that_do_not_go_together_are_refused(
    terms: list[Term], epochs: int
) -> None:
    with pytest.raises(RecipeError):
        check_active(terms, epochs)


def test_terms_that_go_together_are_taken() -> None:
    check_active([term(), term(loss_of=0)], 2)
    check_active([part("0", "1/2"), part("1/2", "1/1")], 1)
    check_active([term(epochs=[0, 1]), term(epochs=[1, 9])], 2)
    mixed = [term(loss="mixco"), term(loss_of=0), term()]
    assert mixing_of(mixed, 0) == (0.15, 1) and mixing_of(mixed[2:], 0) == (0.0, 1.0)
    assert mixing_of([term(loss="mixco", epochs=[1, 2])], 0) == (0.0, 1.0)
    with pytest.raises((RecipeError, ValueError)):
        term(loss="mixco", loss_of=0)


def test_a_ridge_is_exact_with_as_many_components_as_signals() -> None:
    own = ridge_keys("intra", 30)["backbone"]
    assert own == {
        "kind": "ridge",
        "alpha": "auto",
        "standardise": False,
        "components": 30,
    }
    assert ridge_keys("inter", 30)["backbone"] == {"kind": "shared-ridge"}
    assert ridge_keys("inter", 30)["similarity"] == "cosine_from_mean"


def test_a_cell_without_its_fold_has_the_name_of_all_folds() -> None:
    cell = Cell("lr=1/sub-01_fold-12_seed-7", (1,), (1, 4), 7)
    assert cell.name_over_folds == "lr=1/sub-01_seed-7"
    assert Cell("a_fold-1", (3,), (), 7).name_over_folds == "a_fold-1"
    cells = [cell, Cell("b", (3, 1), (2,), 7)]
    assert list_subjects(cells) == [1, 2, 3, 4]
    assert list_subjects(cells, with_tested=False) == [1, 3]


COLOURS = "python:brainhive_cli.models.encoders.python:example"
TWO = f"heads={{a: fused, b: {COLOURS!r}}}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["head=c"],
        ["fuser=heads", "head=token"],
        [TWO, "fuser=heads"],
        ["heads={a: clip-h14}", "dim=8"],
        ["heads={a: clip-h14}", "fuser={kind: fusion_encoder, dropout: 0.5}"],
        ["terms=[{prediction: token}]", "loss=mse"],
        ["terms=[{prediction: token}, {prediction: b}]"],
        ["terms=[{prediction: token, target: b}]"],
        [TWO, "terms=[{prediction: a}]"],
        ["targets={x: clip-h14}"],
        ["similarity=cosine_from_mean"],
        ["backbone=ridge", "terms=[{prediction: clip-h14}]"],
        ["backbone=ridge", "loss=mse"],
        ["backbone=ridge", "signal.repetitions=single"],
        ["backbone=ridge", "train.epochs=3"],
        ["backbone=ridge", "fuser={kind: fusion_encoder, dropout: 0.5}"],
        ["train.lora.encoders=[absent]"],
        ["train.lora.encoders=[clip-h14]", "encoders=[clip-h14]", "train.ema=0.9"],
        ["mode=finetune", "train.start_from=x"],
        ["mode=finetune", "train.init=reference"],
        ["finetune.share=0.5"],
        ["trained_on=1"],
        ["train.start_pull=0.1"],
        ["train.prior_dropout=0.2"],
        ["sweep={mode: [intra, finetune]}"],
        ["mode=finetune", "sweep={mode: [intra, joint]}"],
    ],
    ids=str,
)
def test_recipes_that_contradict_themselves_are_refused(overrides: list[str]) -> None:
    with pytest.raises(RecipeError):
        resolve(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["head=token"],
        [TWO, "head=b"],
        [TWO, "terms=[{prediction: a}, {prediction: b}]"],
        ["targets={x: clip-h14}", "terms=[{prediction: token, target: x}]",
         "encoders=[vae]"],
        ["backbone=ridge", "similarity=cosine_from_mean"],
        ["backbone=ridge", "train.validation=0.2", "train.shuffled_labels=true"],
        ["train.start_pull=0.1", "train.start_from=x"],
        ["mode=inter", "trained_on=1"],
        ["mode=finetune", "finetune.share=0.5"],
        ["train.lora.encoders=[clip-h14]", "encoders=[clip-h14]"],
        ["sweep={mode: [intra, inter]}"],
    ],
    ids=str,
)  # fmt: skip
def test_recipes_without_a_contradiction_are_taken(overrides: list[str]) -> None:
    assert resolve(*overrides).train.epochs > 0


def test_heads_decide_targets_encoders_and_terms() -> None:
    both = resolve(TWO, "encoders=[clip-h14]")
    assert both.is_fused and both.head_targets["a"] == FUSED
    assert [config.name for config in both.fused_encoders] == ["clip-h14"]
    (other,) = [config.name for config in both.encoders if config.name != "clip-h14"]
    assert both.head_targets["b"].name == other
    weights = [each.weight for each in both.loss_terms]
    assert weights == [0.5, 0.5]
    ridge = resolve("backbone=ridge", "encoders=[clip-h14, vae]")
    assert not ridge.is_fused and [*ridge.head_targets] == ["clip-h14", "vae"]
    more = resolve(
        "targets={x: clip-h14}", "terms=[{prediction: token, target: x}]",
        "encoders=[vae]",
    )  # fmt: skip
    assert [config.name for config in more.stored_encoders] == ["vae", "clip-h14"]
    label = resolve("sweep.train.lr=[1, 2]").run_label(Paths())
    assert label.endswith("-intra-sweep")
    assert ridge.run_label(Paths()).endswith("-intra-ridge")


def test_stages_of_a_recipe_replace_their_short_form() -> None:
    made = resolve("train.lr=0.3", "train.epochs=9", "train.stages=[{epochs: 2}]")
    assert made.train.epochs == 2 and made.train.all_stages(1)[0].lr == 5e-4
    later = resolve("train.stages=[{epochs: 2}, {epochs: 4}]", "train.epochs=3")
    assert [stage.epochs for stage in later.train.stages] == [1, 2]
