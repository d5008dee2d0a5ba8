"""Variants of a sweep: their labels, their recipes and what they measured together."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from brainhive_cli.core.command import Result
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import Facts, Variant
from brainhive_cli.core.measurements import (
    SIMULATED,
    TRAINED_ON_SIMULATED,
    Measurements,
)
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sections import Section
from brainhive_cli.core.sweep import (
    SweptRecipe,
    collect_variants,
    flatten_changes,
    make_variants,
    read_sweep,
    read_sweep_run,
    select_variant,
)
from brainhive_cli.training.alignment.facts import TrainingFacts


class Training(Section):
    """Keys of a section."""

    lr: float = 0.1
    is_slow: bool = False


class Own(SweptRecipe):
    """A recipe whose keys are swept."""

    train: Training = Training()
    sizes: list[int] = Field([1])
    name: str = "a"
    choice: dict[str, Any] | str = "x"


def test_nested_sweeps_are_read_as_dotted_keys() -> None:
    assert read_sweep({"train": {"lr": "1,2"}, "a": 3, "b": {}}) == {
        "train.lr": ["1", "2"],
        "a": [3],
    }
    assert read_sweep(3) == 3
    assert (
        flatten_changes({"a": {"b": 0}}) == {"a.b": 0} and flatten_changes("x") == "x"
    )


def test_a_recipe_without_a_sweep_is_its_only_variant() -> None:
    recipe = Own(sizes=[3])
    assert not recipe.is_swept and make_variants(recipe) == {"": recipe}


@pytest.mark.parametrize(
    ("key", "values", "labels"),
    [
        ("train.lr", [0.5, 2], ["lr=0.5", "lr=2"]),
        ("train.is_slow", [True, False], ["is_slow=true", "is_slow=false"]),
        ("sizes", [[1], [2, 3]], ["sizes=1", "sizes=2+3"]),
        ("name", ["b c/d", "none?"], ["b-c-d", "none"]),
        ("name", ["-x.", "2x"], ["x", "name=2x"]),
        ("name", ["?", "b"], ["none", "b"]),
        ("choice", [{"kind": "net", "width": 3}, "y"], ["net,width=3", "y"]),
        ("choice", [{"width": 3}, {"width": None}], ["width=3", "width=none"]),
    ],
)
def test_variants_are_labelled_by_their_values(
    key: str, values: list[Any], labels: list[str]
) -> None:
    found = make_variants(Own(sweep={key: values}))
    assert [*found] == labels
    assert not any(recipe.is_swept for recipe in found.values())


def test_combinations_differ_in_all_keys() -> None:
    recipe = Own(sweep={"train.lr": [1, 2], "sizes": [[1], [2]]}, name="z")
    found = make_variants(recipe)
    assert [(each.train.lr, each.sizes) for each in found.values()] == [
        (1, [1]), (1, [2]), (2, [1]), (2, [2]),
    ]  # fmt: skip
    assert [*found][1] == "lr=1,sizes=2" and {each.name for each in found.values()} == {
        "z"
    }


def test_ablations_stand_beside_the_full_recipe() -> None:
    found = make_variants(Own(ablations={"slow": {"train": {"is_slow": True}}}))
    assert {label: each.train.is_slow for label, each in found.items()} == {
        "full": False,
        "slow": True,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"sweep": {"name": ["a b", "a-b"]}},
        {"ablations": {"full": {"name": "b"}}},
        {"sweep": {"paths.runs": ["a", "b"]}},
        {"sweep": {"run": [{}, {"workers": 2}]}},
        {"sweep": {"absent": [1]}},
        {"sweep": {"train.lr": ["x"]}},
        {"ablations": {"../x": {"name": "b"}}},
    ],
    ids=str,
)
def test_variants_that_do_not_hold_are_refused(fields: dict[str, Any]) -> None:
    recipe = Own(**fields)
    with pytest.raises(RecipeError):
        make_variants(recipe)


def test_a_sweep_has_a_thousand_variants_at_most() -> None:
    assert Own(sweep={"sizes": [[n] for n in range(1000)]}).is_swept
    for fields in (
        {"sweep": {"sizes": [[n] for n in range(1001)]}},
        {"sweep": {"train.lr": [*range(1, 32)], "sizes": [[n] for n in range(33)]}},
        {"sweep": {"train.lr": [1]}, "ablations": {"a": {"name": "b"}}},
    ):
        with pytest.raises((RecipeError, ValueError)):
            Own(**fields)


def test_a_variant_is_named() -> None:
    found = make_variants(Own(sweep={"train.lr": [1, 2]}))
    assert select_variant(found, "lr=2", "run") is found["lr=2"]
    for variant in ("", "lr=3"):
        with pytest.raises(RecipeError) as caught:
            select_variant(found, variant, "run")
        assert caught.value.hint == "run:lr=1 or run:lr=2"
    single = make_variants(Own())
    assert select_variant(single, "", "run") is single[""]
    with pytest.raises(RecipeError) as caught:
        select_variant(single, "x", "run")
    assert ":" not in caught.value.hint


def test_measurements_of_variants_are_collected(home: Path) -> None:
    def result(name: str, **facts: Any) -> Result:
        measured = Measurements(
            {"all": {}, name: {}}, {"fid": name, name: "x"}, TrainingFacts(**facts)
        )
        return Result(Path("runs") / name, metrics=measured)

    results = {
        "lr=1": result("a", caveats=[SIMULATED], scope="s", set_up={"rate_hz": 1.0}),
        "lr=2": result(
            "b",
            caveats=[TRAINED_ON_SIMULATED],
            scope="s",
            set_up={"rate_hz": 2.0, "x": 1},
            validation={"v": 1},
            sources=["all"],
        ),
        "lr=3": result("c", scope="t", set_up={"rate_hz": 1.0}),
        "lr=4": result("d"),
    }
    found = collect_variants(results)
    assert [*found.scopes][:4] == ["lr=1 · all", "lr=1 · a", "lr=2 · all", "lr=2 · b"]
    assert found.missing == {"fid": "d", "a": "x", "b": "x", "c": "x", "d": "x"}
    facts = found.facts
    assert type(facts) is TrainingFacts and facts.caveats == [SIMULATED]
    assert facts.scope == "s, t" and facts.set_up == {}
    assert facts.variants["lr=2"] == Variant(
        run="b", validation={"v": 1}, sources=["all"]
    )
    assert [*facts.variants] == [*results]
    both = collect_variants({label: results[label] for label in ("lr=1", "lr=2")})
    assert both.facts.set_up == {"rate_hz": "1 Hz or 2 Hz"}


def test_variants_that_were_not_compared_are_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(home / "runs/reconstruct/a")
    made = Measurements(facts=Facts(not_compared=["lr=1 has no test"]))
    run.write_json("metrics.json", made.as_dict())
    assert read_sweep_run(run) == made
    assert "lr=1 has no test" in capsys.readouterr().err
