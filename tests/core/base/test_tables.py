"""Tables as data, and how their numbers are written."""

import pytest

from brainhive_cli.core.base.tables import (
    Table,
    TableCell,
    bind_numbers,
    fill_lines,
    format_mean_sd,
    format_number,
    format_p,
    format_tick,
    measure_table_width,
    tabulate_subjects,
    write_as_list,
    write_csv,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("text", "text"),
        (True, "True"),
        (0, "0"),
        (9_999, "9999"),
        (10_000, "10,000"),
        (-10_000, "-10,000"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.0005, "0.001"),
        (0.00049, "4.9e-04"),
        (-0.00049, "-4.9e-04"),
        (9.9994, "9.999"),
        (10.0, "10.0"),
        (-10.04, "-10.0"),
        (999.9, "999.9"),
        (1000.0, "1,000"),
        (1234.6, "1,235"),
    ],
)
def test_a_number_has_the_digits_of_its_size(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.005, "0.005"), (0.12345, "0.123"), (999.0, "999"), (1000.0, "1,000"),
     (-1234.5, "-1,234"), (2.0, "2")],
)  # fmt: skip
def test_a_tick_has_no_trailing_zeros(value, text):
    assert format_tick(value) == text


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("75 %¶ (95 % CI 63 to 84 %)", "75_%¶ (95_%_CI 63 to 84_%)"),
        ("p = 0.0004, n = 5", "p_=_0.0004, n_=_5"),
        ("p &lt; .05", "p_&lt;_.05"),
        ("0 to 1000 ms, 250 Hz, 12 s", "0 to 1000_ms, 250_Hz, 12_s"),
        ("4 people, 2 minutes, step = 3", "4 people, 2 minutes, step = 3"),
    ],
)
def test_numbers_and_units_are_bound(text, bound):
    assert bind_numbers(text, "_") == bound


def test_no_line_ends_between_a_number_and_its_unit():
    text = "the seen picture ranked first in 12.5 % (95 % CI 9 to 16 %; p = 0.0004)"
    for width in range(12, 60):
        lines = fill_lines(text, width).splitlines()
        assert " ".join(lines) == text
        for partial_text in ("12.5 %", "95 % CI", "16 %", "p = 0.0004"):
            assert any(partial_text in line for line in lines)


def test_p_and_mean_are_a_dash_where_there_are_none():
    assert [format_p(p) for p in (None, 0.0, 0.0123, 1.0)] == ["–", "0", "0.012", "1"]
    assert format_mean_sd([]) == "–"
    assert format_mean_sd([0.5]) == "0.500"
    assert format_mean_sd(iter([1.0, 3.0])) == "2.000 ± 1.414"
    assert format_mean_sd([1.0, 2.0, 6.0]) == "3.000 ± 2.646"


def test_subjects_and_seeds_have_their_means():
    scores = {
        "subject 1": {"seed 1": 2.0, "seed 2": 4.0},
        "subject 2": {"seed 2": 6.0},
    }
    seeds = ["seed 1", "seed 2"]
    table = tabulate_subjects("Top-1", seeds, scores, "a note", has_spread=True)
    assert table.columns == ["subject", "seed 1", "seed 2", "mean ± sd"]
    assert table.rows == (
        ("subject 1", 2.0, 4.0, "3.000 ± 1.414"),
        ("subject 2", None, 6.0, "6.000"),
        ("mean ± sd", "2.000", "5.000 ± 1.414", "4.500 ± 2.121"),
    )
    assert (table.title, table.note) == ("Top-1", "a note")

    # runs have no spread of their own, and a single subject has no mean
    table = tabulate_subjects("Top-1", seeds, {"subject 1": scores["subject 1"]})
    assert table.rows == (("subject 1", 2.0, 4.0),)


def test_programs_read_values_and_people_texts():
    best = TableCell("0.50", small="0.4–0.6", value=0.5, is_best=True, mark="†")
    sign = TableCell("none", mark="*")
    assert str(best) == "0.50†"
    table = Table("T", ("a", "b", "c"), [[best, sign, 1.0], ["x", None, True]])
    assert table.as_dict() == {
        "title": "T",
        "rows": [
            {"a": 0.5, "b": "none*", "c": 1.0},
            {"a": "x", "b": None, "c": True},
        ],
        "note": "",
    }
    assert TableCell.from_value(best) is best
    assert TableCell.from_value(2) == TableCell("2", value=2.0)
    assert TableCell.from_value(True) == TableCell("True")
    assert TableCell.from_value(None) == TableCell("–")


def test_a_row_of_another_length_is_refused():
    for row in (["x"], ["x", 1, 2]):
        with pytest.raises(ValueError, match="T"):
            Table("T", ("a", "b"), [["y", 1], row])


def test_absent_values_of_a_csv_are_empty():
    rows = [{"a": 1, "b": "=1"}, {"b": None}]
    assert write_csv(["a", "b"], rows) == "a,b\n1,'=1\n,\n"


def test_rows_as_a_list_leave_out_what_says_nothing():
    small = TableCell("0.5", small="0.4–0.6")
    rows = [["first", 0.25, None, small], ["second", "", 0.123456, "–"]]
    table = Table("T", ("name", "a", "b", "c"), rows, note="a note")
    assert write_as_list(table, 60).split("\n") == [
        "T",
        "first",
        "    a 0.25 · c 0.5 (0.4–0.6)",
        "second",
        "    b 0.1235",
        "a note",
        "",
        "",
    ]
    listed_table = Table("T", ("name", "a"), [["first", "one two"]], is_list=True)
    assert write_as_list(listed_table, 8).split("\n")[2:] == [
        "    one",
        "    two",
        "",
        "",
    ]


def test_the_width_of_a_table_has_its_gaps():
    table = Table("A long title", ("name", "b"), [["ab", 0.123456], ["abcdef", None]])
    assert measure_table_width(table) == 6 + 3 + 6
    assert measure_table_width(Table("T", ("abc",), [])) == 3
