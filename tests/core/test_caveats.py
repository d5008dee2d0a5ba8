"""Caveats are said once, wherever a number is shown."""

import json
from pathlib import Path

from brainhive_cli.core.measurements import (
    CAVEATS,
    SEEN_CONCEPTS,
    SEEN_COPIES,
    SELECTED_ON_TEST,
    SHORT,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    Measurements,
    Metric,
    explain_stamps,
    extend_protocol,
    extend_tables,
    extend_title,
    find_caveats,
    merge_caveats,
    stamp,
)
from brainhive_cli.core.results import Result
from brainhive_cli.core.tables import Table


def test_a_title_and_a_protocol_say_each_caveat_once() -> None:
    both = [SELECTED_ON_TEST, SIMULATED]

    assert extend_title("Retrieval", both) == "Retrieval (simulated, selected on test)"
    assert extend_protocol("intra", both) == "intra, simulated, selected on test"
    for say in (extend_title, extend_protocol):
        assert say(say("Retrieval", both), both) == say("Retrieval", both)
    assert extend_title("Retrieval", []) == extend_protocol("Retrieval", []) == "Retrieval"


def test_a_data_set_that_is_called_simulated_says_nothing() -> None:
    assert find_caveats("intra, simulated-faces, faces_simulated") == []
    assert find_caveats("intra, faces, simulated, selected on test") == [SIMULATED, SELECTED_ON_TEST]
    assert find_caveats("faces: simulated") == [SIMULATED]


def test_any_of_several_runs_taints_all() -> None:
    assert merge_caveats([], [SELECTED_ON_TEST], []) == [SELECTED_ON_TEST]
    assert merge_caveats([TRAINED_ON_SIMULATED], [SIMULATED]) == [SIMULATED]


def test_every_table_gets_them() -> None:
    tables = extend_tables([Table("one", (), ()), Table("two, simulated", (), ())], [SIMULATED])

    assert [table.title for table in tables] == ["one (simulated)", "two, simulated"]


def test_a_caveat_is_not_found_in_the_words_of_a_longer_one() -> None:
    assert find_caveats("held out, trained on simulated signals") == [TRAINED_ON_SIMULATED]
    assert find_caveats("trained on simulated signals, simulated") == [SIMULATED, TRAINED_ON_SIMULATED]


def test_a_metric_holds_the_caveats_of_its_protocol_whoever_makes_it() -> None:
    plain = ("top1", 0.5, 10, 5, 0.2, None, None, (1,))
    metric = Metric(*plain, "intra, simulated", "test", "none", selected=True, caveats=(UNKNOWN_HISTORY,))

    assert metric.caveats == (SIMULATED, UNKNOWN_HISTORY, SELECTED_ON_TEST)
    assert metric.as_dict()["caveats"] == [*metric.caveats]
    read = Measurements.read(
        json.loads(json.dumps(Measurements({"all": {"top1": metric}}).as_dict())), "here"
    )
    assert read.overall["top1"] == metric


def test_a_stamp_says_in_short_what_a_legend_explains() -> None:
    assert stamp("top-1", [SELECTED_ON_TEST], [SIMULATED]) == "top-1 [sim, test-sel]"
    assert stamp("top-1") == "top-1" and stamp("", [SEEN_COPIES, SEEN_CONCEPTS]) == "[seen]"
    assert explain_stamps([SIMULATED, SELECTED_ON_TEST]) == "sim: simulated; test-sel: selected on test"
    assert {*SHORT} == {*CAVEATS}


def test_the_result_of_a_command_shows_caveats_whatever_tables_it_has() -> None:
    measured = Measurements(notes={"caveats": [SIMULATED]})
    result = Result(
        Path(), (Table("Retrieval", ("a",), ((1,),)), Table("x, simulated", ("a",), ())), measured
    )
    assert [table.title for table in result.tables] == ["Retrieval (simulated)", "x, simulated"]
