"""Tests of the run of design: recommendations, costs, and the sentence."""

from dataclasses import replace

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.evaluation.planning.designs import (
    Design,
    Prediction,
    Question,
    Range,
)
from brainhive_cli.evaluation.planning.order import draw_order, measure_minutes
from brainhive_cli.evaluation.planning.recipe import Recipe
from brainhive_cli.evaluation.planning.run import (
    DesignRun,
    recommend,
    write_sentence,
)
from tests.worlds.own_recordings import write_pictures


def make_prediction(power=(0.9, 0.85, 1.0), people=10):
    """Make a prediction with a power and its range."""
    top1 = Range(0.12, 0.08, 0.17)
    return Prediction(
        design=Design(people, 1, 60, 1, 200, 2, 100, 4),
        power=Range(*power),
        half_power=Range(0.5, 0.3, 0.7),
        top1=top1,
        chance=0.01,
        smallest=0.1,
        n_studies=240,
        is_extrapolated=False,
    )


UNLIKELY = (0.3, 0.1, 0.4)
CLOSE = (0.7, 0.5, 0.85)
LIKELY = (0.85, 0.6, 0.95)
SURE = (0.95, 0.85, 1.0)


@pytest.mark.parametrize(
    ("powers", "recommended"),
    [
        ((LIKELY, SURE, SURE), 2),
        ((UNLIKELY, LIKELY, LIKELY), 2),
        ((UNLIKELY, CLOSE, UNLIKELY), 2),
        ((SURE, LIKELY, SURE), 1),
        ((LIKELY, (0.9, 0.7, 0.99)), 2),
    ],
)
def test_the_cheapest_design_that_suffices_is_recommended(powers, recommended):
    predictions = {}
    for number, power in enumerate(powers, 1):
        predictions[number] = make_prediction(power)
    assert recommend(predictions) == recommended


def test_the_cheaper_of_two_sufficient_designs_is_recommended():
    cheap = make_prediction(LIKELY)
    expensive = make_prediction((0.9, 0.7, 0.99))
    design = replace(expensive.design, people=2 * cheap.design.people)
    assert recommend({1: replace(expensive, design=design), 2: cheap}) == 2


def test_the_sentence_has_value_range_chance_and_people():
    design_run = resolve(
        "people=10", "train_pictures=200", "train_repetitions=2", "test_pictures=100"
    )
    (planned,) = design_run.plan_designs({1: make_prediction()})
    sentence = write_sentence(planned, Question(), "EEG")
    for fact in ("EEG", "first of 100", "12 %", "8 to 17 %", "1 %", "10 people"):
        assert fact in sentence.replace("\u00a0", " "), sentence
    # the interval of the study will be narrower or wider
    assert "CI" not in sentence
    assert "range over studies" in sentence


def test_a_difference_has_the_sentence_of_compare():
    (planned,) = resolve(
        "people=10", "train_pictures=200", "train_repetitions=1", "test_pictures=100"
    ).plan_designs({})
    sentence = write_sentence(planned, Question("difference", 0.02), "EEG")
    for fact in ("better", "top-1", "+2", "1,000 items"):
        assert fact in sentence.replace("\u00a0", " "), sentence


def resolve(*overrides):
    """Resolve the run of a command line."""
    return DesignRun.resolve(Recipe.resolve("design", None, {}, overrides))


def test_an_expected_result_has_people():
    amounts = "train_pictures: 9, train_repetitions: 1, test_pictures: 9, "
    expected = f"top1: 0.2, low: 0.1, high: 0.3, {amounts} test_repetitions: 1"
    assert resolve(f"expected={{{expected}}}").published.people == 1
    assert resolve(f"expected={{{expected}, people: 7}}").published.people == 7


def test_a_folder_of_pictures_is_tested_with_new_concepts(home, monkeypatch):
    def show_arguments(reference, paths, encoder, new_concepts):
        raise MissingData(f"{reference} {new_concepts}", "record it")

    write_pictures(home / "pictures")
    name = "brainhive_cli.evaluation.planning.run.read_pilot"
    monkeypatch.setattr(name, show_arguments)
    with pytest.raises(MissingData, match="mine True"):
        resolve("pilot=mine", "pictures=pictures", "encoder=gabor")
    with pytest.raises(MissingData, match="mine False"):
        resolve("pilot=mine")


def test_a_price_and_hours_are_of_all_people_and_sessions():
    design_run = resolve(
        "people=5", "sessions=2", "session_minutes=30", "price_per_hour=80"
    )
    for planned in design_run.plan_designs({}):
        assert planned.hours == 5
        assert planned.price == 400
    assert resolve("people=5").plan_designs({})[0].price is None


def test_designs_that_do_not_fit_keep_their_number():
    design_run = resolve("sessions=1", "session_minutes=30")
    unfit = [
        number for number, design in enumerate(design_run.designs, 1) if not design.fits
    ]
    assert unfit
    assert not design_run.fitting.keys() & set(unfit)
    assert len(design_run.fitting) + len(unfit) == len(design_run.designs)


def test_a_study_takes_the_minutes_of_its_design(home):
    write_pictures(home / "pictures")
    keys = ["train_repetitions=40", "test_repetitions=30", "people=1", "order.runs=3"]
    keys += ("session_minutes=5", "order.catch_share=0.2", "order.break_s=24")
    design_run = resolve("pictures=pictures", "encoder=gabor", *keys)
    for design in design_run.fitting.values():
        plan = design_run.plan_study(design)
        run_minutes = measure_minutes(plan, draw_order(plan))
        breaks = design.sessions * (plan.runs - 1) * plan.break_s / 60
        measured_minutes = run_minutes.sum() + breaks
        planned = design.minutes + design.sessions * design.pause_minutes
        assert measured_minutes == pytest.approx(planned, abs=run_minutes.size / 60)
        assert 60 * design.hours >= planned


def test_more_pictures_than_codes_are_refused_early(home):
    write_pictures(home / "pictures")
    (first_picture, *_) = (home / "pictures").rglob("*.png")
    for number in range(300):
        folder = home / f"pictures/train/concept_{number % 50}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(first_picture.read_bytes())
    keys = ["train_pictures=250", "test_pictures=6", "onset_interval_s=0.09"]
    keys += ("order.stimulus_ms=50",)
    with pytest.raises(BrainhiveError, match=r"two trigger codes.*0\.09 s"):
        resolve("pictures=pictures", "encoder=gabor", *keys).check()


def test_a_plan_without_a_fitting_design_is_refused():
    with pytest.raises(RecipeError) as caught:
        resolve("sessions=1", "session_minutes=12")
    assert "at least 2" in caught.value.message
