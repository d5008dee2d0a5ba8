"""Tests of the tables and figures of planned designs."""

from brainhive_cli.evaluation.planning.facts import (
    DesignFacts,
    PlannedDesign,
    PredictedRange,
)
from brainhive_cli.evaluation.planning.tables import (
    draw_powers,
    tabulate_background,
    tabulate_designs,
)


def make_design(number, power=None, **fields):
    """Make a design, with a prediction if its power is not None."""
    predicted = {}
    if power is not None:
        interval = PredictedRange(value=power, low=power - 0.1, high=power + 0.1)
        names = ("power", "half_power", "top1")
        predicted = dict.fromkeys(names, interval)
    amounts = {"people": 5, "train_pictures": 100, "train_repetitions": 1} | fields
    return PlannedDesign(
        number=number,
        sessions=1,
        session_minutes=60,
        onset_interval_s=1,
        test_pictures=50,
        test_repetitions=1,
        minutes=amounts["train_pictures"] / 10,
        hours=1,
        least_sessions=2,
        **amounts,
        **predicted,
    )


def test_a_cell_shows_the_most_powerful_of_several_designs():
    designs = [
        make_design(1, 0.3, people=5, train_pictures=100),
        make_design(2, 0.5, people=5, train_pictures=100),
        make_design(3, 0.6, people=5, train_pictures=200),
        make_design(4, 0.7, people=10, train_pictures=200),
        make_design(5, people=10, train_pictures=100),
    ]
    (figure,) = draw_powers(DesignFacts(designs=designs))
    assert figure.rows == ["10", "5"]
    assert figure.columns == ["10", "20"]
    assert figure.values == [[None, 0.7], [0.5, 0.6]]
    assert figure.texts[1][0].splitlines() == ["50 %", "40 to 60 %"]


def test_designs_that_differ_in_one_way_have_no_figure():
    designs = [make_design(1, 0.3, people=5), make_design(2, 0.5, people=10)]
    assert draw_powers(DesignFacts(designs=designs)) == []


def test_designs_that_do_not_fit_have_a_table_of_their_own():
    designs = [make_design(1, 0.3), make_design(2)]
    fitting, _, unfit = tabulate_designs(DesignFacts(designs=designs))
    assert len(fitting.rows) == len(unfit.rows) == 1
    assert unfit.rows[0][0] == "design 2"
    assert unfit.rows[0][-1] == 2


def test_extrapolation_is_named_with_its_designs():
    designs = [make_design(1, 0.3), make_design(2, 0.5)]
    extrapolated = designs[1].model_copy(update={"is_extrapolated": True})
    for planned, has_row in ((designs, False), ([designs[0], extrapolated], True)):
        table = tabulate_background(DesignFacts(designs=planned, source="NAME"))
        rows = dict(table.rows)
        assert rows["assumptions"] == "NAME"
        assert ("extrapolation" in rows) == has_row
