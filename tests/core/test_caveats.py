"""Caveats are said once, wherever a number is shown."""

from brainhive_cli.core.caveats import (
    SELECTED_ON_TEST,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    in_protocol,
    in_tables,
    in_title,
    said_in,
    together,
)
from brainhive_cli.core.console import Table


def test_a_title_and_a_protocol_say_each_caveat_once() -> None:
    both = [SELECTED_ON_TEST, SIMULATED]

    assert in_title("Retrieval", both) == "Retrieval (simulated, selected on test)"
    assert in_protocol("intra", both) == "intra, simulated, selected on test"
    for say in (in_title, in_protocol):
        assert say(say("Retrieval", both), both) == say("Retrieval", both)
    assert in_title("Retrieval", []) == in_protocol("Retrieval", []) == "Retrieval"


def test_a_data_set_that_is_called_simulated_says_nothing() -> None:
    assert said_in("intra, simulated-faces, faces_simulated") == []
    assert said_in("intra, faces, simulated, selected on test") == [SIMULATED, SELECTED_ON_TEST]
    assert said_in("faces: simulated") == [SIMULATED]


def test_any_of_several_runs_taints_all() -> None:
    assert together([], [SELECTED_ON_TEST], []) == [SELECTED_ON_TEST]
    assert together([TRAINED_ON_SIMULATED], [SIMULATED]) == [SIMULATED]


def test_every_table_gets_them() -> None:
    tables = in_tables([Table("one", (), ()), Table("two, simulated", (), ())], [SIMULATED])

    assert [table.title for table in tables] == ["one (simulated)", "two, simulated"]
