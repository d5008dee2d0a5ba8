"""Facts of runs: answers, differences, and set-ups that are joined and compared."""

import pytest

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.results.facts import (
    PACKAGE,
    ROOMS,
    SIGNIFICANCE_LEVEL,
    Answer,
    Difference,
    Facts,
    cite,
    describe_signals,
    find_model,
    flatten,
    format_setting,
    list_differences,
    merge_set_ups,
)
from brainhive_cli.evaluation.calibration.facts import CalibrationFacts
from brainhive_cli.evaluation.explanation.facts import AxisClaim
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts


def answer(better, worse, **further_fields):
    """An answer of 40 items."""
    fields = {"least_p": 0.001, "n": 40, "pool": 8, "test": "permutation"}
    return Answer("which picture", better, worse, **{**fields, **further_fields})


@pytest.mark.parametrize(
    ("better", "worse", "least_p", "p", "text"),
    [
        (0.01, 0.995, 0.001, 0.02, "above chance"),
        (0.025, 0.98, 0.05, 0.05, "above chance"),
        (0.026, 0.98, 0.05, 0.052, "at chance"),
        (0.98, 0.025, 0.001, 0.05, "below chance"),
        (0.98, 0.026, 0.001, 0.052, "at chance"),
        (0.6, 0.7, 0.001, 1.0, "at chance"),
        (0.01, 0.995, 0.051, 0.02, "not testable"),
        (None, 0.01, 0.001, None, "not testable"),
        (0.01, None, 0.001, None, "not testable"),
    ],
)
def test_an_answer_is_two_sided_at_five_percent(better, worse, least_p, p, text):
    compared_answer = answer(better, worse, least_p=least_p)
    assert compared_answer.p == (p if p is None else pytest.approx(p))
    assert compared_answer.side == text
    assert Facts(answers=[compared_answer]).verdict == compared_answer.words
    assert Facts().verdict == ""


@pytest.mark.parametrize(
    ("p_better", "p_worse", "side", "words"),
    [
        (0.01, 0.995, "conditional", "above chance"),
        (0.98, 0.02, "conditional", "below chance"),
        (0.6, 0.7, "at chance", "at chance"),
        (None, None, "not testable", "not testable"),
    ],
)
def test_a_significant_answer_under_a_condition_is_conditional(
    p_better, p_worse, side, words
):
    """Its words say what holds if the condition does."""
    conditional = answer(p_better, p_worse, condition="labels are exchangeable")
    assert conditional.side == side
    assert conditional.words.startswith(words)


def test_an_answer_says_scope_condition_and_wider_claim():
    answer_text = answer(0.01, 0.99)
    assert answer_text.words == "above chance"
    whole_answer = answer(
        0.01, 0.99, scope="2 concepts", condition="so", wider="no more"
    )
    assert whole_answer.words == "above chance for 2 concepts, if so"
    assert whole_answer.sentence.startswith(
        "which picture: above chance for 2 concepts"
    )
    assert whole_answer.sentence.endswith("; no more")
    assert not answer_text.sentence.endswith("; ")
    for number in ("0.02", "40", "8"):
        assert number in answer_text.sentence
    # without a test only its absence is said
    untested = answer(None, None, scope="2 concepts", wider="no more", test="few")
    assert untested.words == "not testable: few"
    assert untested.sentence == "the picture could not be tested, because few"


def difference(**further_fields):
    """A difference of .1 between two runs."""
    fields = {"difference": 0.1, "low": 0.0, "high": 0.2, "interval": "t", "n": 9}
    fields |= {"subjects": 2, "p_value": 0.03, "test": "t", "least_p": 0.01}
    return Difference(**{**fields, "cohens_dz": None, **further_fields})


def test_a_difference_among_others_has_the_adjusted_p():
    single_difference = difference(p_adjusted=0.06)
    assert single_difference.p == 0.03
    assert single_difference.is_significant
    several_difference = difference(p_adjusted=0.06, tests=2)
    assert several_difference.p == 0.06
    assert not several_difference.is_significant
    assert difference(p_value=SIGNIFICANCE_LEVEL).is_significant
    assert not difference(p_value=None).is_significant


@pytest.mark.parametrize(
    ("value", "lower_is_better", "better"),
    [
        (0.1, False, True),
        (-0.1, False, False),
        (0.1, True, False),
        (-0.1, True, True),
        (0.0, False, False),
    ],
)
def test_less_is_better_where_the_metric_says_so(value, lower_is_better, better):
    signed_difference = difference(difference=value, lower_is_better=lower_is_better)
    assert signed_difference.is_better is better


def test_a_claim_holds_below_five_percent():
    assert AxisClaim(axis="time", place="100 ms", p=0.049).is_significant
    assert not AxisClaim(axis="time", place="100 ms", p=0.05).is_significant


def test_each_command_has_its_own_facts():
    assert find_model("eval-retrieval") is RetrievalFacts
    assert find_model("calibrate") is CalibrationFacts
    assert find_model("demo") is find_model("workflow") is WorkflowFacts
    assert find_model("embed") is find_model("../../etc") is Facts


def test_every_room_of_facts_has_a_command():
    folders = {path.parent for path in PACKAGE.glob("*/**/facts.py")}
    assert folders - {PACKAGE / room for room in ROOMS.values()} == {
        PACKAGE / "core/results"
    }


def test_nested_values_get_dotted_keys():
    nested = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": 2}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [], "e": {}, "f": 2}
    assert cite(data=["x", "y", "x"], model=[]) == {"cites.data": ["x", "y"]}


def test_set_ups_are_joined_by_what_all_know():
    first_facts = {"rate_hz": 100.0, "unit": "µV", "cites.data": ["x", "y"], "extra": 1}
    second = {"rate_hz": 250.0, "unit": "µV", "cites.data": ["y", "z"]}
    assert merge_set_ups([first_facts, second]) == {
        "rate_hz": "100 Hz or 250 Hz",
        "unit": "µV",
        "cites.data": ["x", "y", "z"],
    }
    assert merge_set_ups([first_facts]) == first_facts
    assert merge_set_ups([]) == {}
    # three of which two are equal
    assert (
        merge_set_ups([first_facts, second, first_facts])["rate_hz"]
        == "100 Hz or 250 Hz"
    )


@pytest.mark.parametrize(
    ("fields", "other_fields", "differences"),
    [
        ({"train.lr": 1.0}, {"train.lr": 0.5}, ["train.lr 1, not 0.5"]),
        ({"train.lr": 1.0}, {"train.lr": 1.0}, []),
        # a section that only one knows
        ({"train.lr": 1.0}, {"signal.scale": 1.0}, []),
        (
            {"train.lr": 1.0, "train.ema": 2.0},
            {"train.lr": 1.0},
            ["train.ema 2, not none"],
        ),
        ({"cites.data": ["x"]}, {"cites.data": ["y"]}, []),
        (
            {"window_ms": [0.0, 100.0]},
            {"window_ms": [0.0, 50.0]},
            ["window 0 to 100 ms, not 0 to 50 ms"],
        ),
        ({"rate_hz": 100.0}, {"rate_hz": 50.0}, ["rate 100 Hz, not 50 Hz"]),
        # knobs of another kind do not count
        (
            {"backbone.kind": "a", "backbone.x": 1, "train.lr": 1.0, "train.ema": 2.0},
            {"backbone.kind": "b", "backbone.y": 1, "train.lr": 0.5},
            ["backbone a, not b", "train.lr 1, not 0.5"],
        ),
        # but of the same kind they do
        (
            {"backbone.kind": "a", "backbone.x": 1},
            {"backbone.kind": "a", "backbone.x": 2},
            ["backbone.x 1, not 2"],
        ),
        (
            {"fuser.kind": "a", "train.ema": 2.0, "train.lr": 1},
            {"fuser.kind": "b", "train.lr": 1},
            ["fuser a, not b", "train.ema 2, not none"],
        ),
        # long values that look the same
        (
            {"channels": ["a"] * 9},
            {"channels": ["a"] + list("bcdefgh") + ["a"]},
            ["channels of other values"],
        ),
        ({"x": None}, {"x": []}, []),
    ],
)
def test_set_ups_differ_in_what_both_know(fields, other_fields, differences):
    assert list_differences(fields, other_fields) == differences


def test_only_the_named_keys_of_set_ups_are_compared():
    left_facts, right_facts = {"a.x": 1, "b.x": 1, "c": 2}, {"a.x": 2, "b.x": 2, "c": 3}
    assert list_differences(left_facts, right_facts, ["a", "c"]) == [
        "a.x 1, not 2",
        "c 2, not 3",
    ]
    assert list_differences(left_facts, right_facts, []) == []


SIGNALS = {
    "channels": ["O1", "Oz"],
    "window_ms": [-50.0, 600.0],
    "rate_hz": 250.0,
    "repetitions": (4, 4),
    "unit": "µV",
}


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, ["O1, Oz", "-50 to 600 ms", "250 Hz", "4 repetitions averaged", "µV"]),
        ({"repetitions": (1, 1)}, ["1 repetition averaged"]),
        ({"repetitions": (1, 3)}, ["1 to 3 repetitions averaged"]),
        ({"channels": list("abcdef")}, ["a, b, c, d, e, f"]),
        ({"channels": list("abcdefg")}, ["7 channels"]),
        ({"channels": "all of them"}, ["all of them"]),
        ({"channel_mapping": "mapped"}, ["mapped"]),
        ({"preparation.kind": "mne"}, ["prepared by mne"]),
        ({"signal.normalise.kind": "channel"}, ["normalised by channel"]),
        ({"signal.normalise": "whiten"}, ["normalised by whiten"]),
        ({"signal.normalise": "none"}, []),
    ],
)
def test_signals_are_described_by_what_is_known(changes, arguments):
    known_facts = changes or SIGNALS
    assert describe_signals(known_facts) == arguments


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("", "word", "word"),
        ("", None, "none"),
        ("", [], "none"),
        ("", {}, "none"),
        ("", 0, "0"),
        ("", 0.25, "0.25"),
        ("", True, "True"),
        ("rate_hz", 99.5, "99.5 Hz"),
        ("repetitions", (2, 2), "2"),
        ("repetitions", (2, 5), "2 to 5"),
        ("", [1, 2.5, None], "1, 2.5, none"),
        ("", list(range(6)), "0, 1, 2, 3, 4, 5"),
        ("", list(range(7)), "7: 0 … 6"),
        ("", ["x" * 80], "x" * 80),
        ("", ["x" * 81], "x" * 79 + "…"),
    ],
)
def test_values_are_said_by_their_key(key, value, text):
    assert format_setting(key, value) == text
