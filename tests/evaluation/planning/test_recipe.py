"""Tests of the recipe of design: candidates, defaults and refused keys."""

from typing import get_args

import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.evaluation.planning.assumptions import list_devices
from brainhive_cli.evaluation.planning.recipe import MAX_CANDIDATES, Recipe

EXPECTED = (
    "expected={top1: 0.1, low: 0.05, high: 0.2, train_pictures: 100, "
    "train_repetitions: 1, test_pictures: 20, test_repetitions: 1}"
)


def resolve(*overrides):
    """Resolve the recipe of a command line."""
    return Recipe.resolve("design", None, {}, overrides)


def test_the_candidates_are_the_product_of_the_lists():
    recipe = resolve("people=5,10", "train_pictures=100,200,400", "test_pictures=50")
    designs = recipe.list_designs()
    assert len(designs) == 2 * 3 * len(recipe.train_repetitions)
    assert {design.people for design in designs} == {5, 10}
    assert {design.train_pictures for design in designs} == {100, 200, 400}
    hours = [design.hours for design in designs]
    assert hours == sorted(hours)


def test_a_person_has_as_many_sessions_as_the_trials_need():
    keys = ["session_minutes=10", "train_pictures=300", "train_repetitions=4"]
    for design in resolve(*keys).list_designs():
        assert design.sessions == design.least_sessions > 1
    for design in resolve(*keys, "sessions=1").list_designs():
        assert design.sessions == 1
        assert not design.fits


@pytest.mark.parametrize(
    ("overrides", "interval_s"),
    [
        ((), 1.0),
        (("device=meg",), 1.0),
        (("device=7t",), 4.0),
        (("device=7t", "onset_interval_s=2"), 2.0),
    ],
)
def test_pictures_follow_each_other_as_usual_with_the_device(overrides, interval_s):
    designs = resolve(*overrides).list_designs()
    assert {design.onset_interval_s for design in designs} == {interval_s}


def test_the_interval_of_the_pilot_is_the_default():
    for overrides, interval_s in (((), 0.3), (("onset_interval_s=2",), 2.0)):
        designs = resolve("pilot=NAME", *overrides).list_designs(pilot_interval_s=0.3)
        assert {design.onset_interval_s for design in designs} == {interval_s}


@pytest.mark.parametrize("n_pictures", [8, 60, 5000])
def test_default_designs_fit_the_folder(n_pictures):
    designs = resolve().list_designs(n_pictures)
    assert designs
    for design in designs:
        assert design.train_pictures + design.test_pictures <= n_pictures
        assert 2 <= design.test_pictures <= 50


@pytest.mark.parametrize(
    "overrides",
    [
        ("question=top1",),
        ("size=0.1",),
        ("write=2",),
        ("order.stimulus_ms=300",),
        ("order.runs=11", "order.break_s=360"),
        ("encoder=gabor",),
        ("pilot=NAME", "device=eeg"),
        ("device=eeg", EXPECTED),
        (EXPECTED.replace("low: 0.05", "low: 0.15"),),
        ("people=0",),
        ("test_pictures=1,50",),
        ("people=[]",),
    ],
)
def test_keys_without_an_effect_are_refused(overrides):
    with pytest.raises(RecipeError):
        resolve(*overrides)


def test_an_unknown_device_is_refused_with_all_names():
    with pytest.raises(RecipeError) as caught:
        resolve("device=ecog")
    for name in list_devices():
        assert name in caught.value.message + caught.value.hint


def test_too_many_candidates_are_refused():
    people = ",".join(map(str, range(1, MAX_CANDIDATES + 2)))
    with pytest.raises(RecipeError) as caught:
        resolve(f"people={people}").list_designs()
    assert str(MAX_CANDIDATES) in caught.value.message


def test_more_pictures_than_the_folder_has_are_refused():
    with pytest.raises(RecipeError) as caught:
        resolve("train_pictures=100", "test_pictures=20").list_designs(110)
    assert "110" in caught.value.message
    assert "120" in caught.value.message


def test_each_published_device_can_be_planned_from():
    for name in list_devices():
        assert resolve(f"device={name}").device_name == name
    key = Recipe.model_fields["device"].annotation
    (names, _) = get_args(key)
    assert set(get_args(names)) == set(list_devices())
