"""Caveats are said once, wherever a number is shown."""

from brainhive_cli.core.measurements import (
    SELECTED_ON_TEST,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    extend_protocol,
    extend_tables,
    extend_title,
    find_caveats,
    merge_caveats,
)
from brainhive_cli.core.tables import Table


def test_a_title_and_a_protocol_say_each_caveat_once() -> None:
    both = [SELECTED_ON_TEST, SIMULATED]

    assert extend_title("Retrieval", both) == "Retrieval (simulated, selected on test)"
    assert extend_protocol("intra", both) == "intra, simulated, selected on test"
    for say in (extend_title, extend_protocol):
        assert say(say("Retrieval", both), both) == say("Retrieval", both)
    assert extend_title("Retrieval", []) == extend_protocol("Retrieval", []) == "Retrieval"


def test_a_data_set_that_is_called_simulated_says_nothing() -> None:
    assert find_caveats("intra, simulated-faces, faces_simulated") == ()
    assert find_caveats("intra, faces, simulated, selected on test") == (SIMULATED, SELECTED_ON_TEST)
    assert find_caveats("faces: simulated") == (SIMULATED,)


def test_any_of_several_runs_taints_all() -> None:
    assert merge_caveats([], [SELECTED_ON_TEST], []) == [SELECTED_ON_TEST]
    assert merge_caveats([TRAINED_ON_SIMULATED], [SIMULATED]) == [SIMULATED]


def test_every_table_gets_them() -> None:
    tables = extend_tables([Table("one", (), ()), Table("two, simulated", (), ())], [SIMULATED])

    assert [table.title for table in tables] == ["one (simulated)", "two, simulated"]
