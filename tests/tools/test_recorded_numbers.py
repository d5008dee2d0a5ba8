"""Recorded numbers notice changes, and not how another machine rounds."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.recorded_numbers import (
    FLOAT32,
    LONGEST,
    MOST_SHOWN,
    Recorded,
    extract_numbers,
    list_differences,
)

TESTS = Path(__file__).parents[1]

ROWS: dict[str, Any] = {
    "metrics": {"all, auc": "0.7891, 64, 2, 0.5, None", "all, map": "0.9062, 64"},
    "answers": [{"p": 0.0004, "n": 64, "test": "5,000", "is_better": True}],
    "sums": "60, -1.05e-08, 0.0375",
}


def change(name: str, old_text: str, new_text: str) -> list[str]:
    """Change a text, and give the differences that are noticed."""
    text = yaml.safe_dump(ROWS)
    assert text.count(old_text) == 1
    changed = yaml.safe_load(text.replace(old_text, new_text))
    lines = list(list_differences(ROWS, changed, 2e-3, 0))
    assert all(line.startswith(name) for line in lines)
    return lines


@pytest.mark.parametrize(
    ("text", "old_text", "new_text"),
    [
        ("metrics / all, auc", "0.7891", "0.7970"),
        ("metrics / all, auc", "0.7891", "0.7852"),
        ("metrics / all, auc", "0.5", "-0.5"),
        ("metrics / all, auc", "0.5", "1"),
        ("metrics / all, auc", "None", "0.0"),
        ("metrics / all, map", "0.9062, 64", "0.9062, 65"),
        ("metrics / all, map", "0.9062, 64", "0.9062"),
        ("metrics / all, map", "0.9062, 64", "0.9062, 64, 0.1"),
        ("answers[0] / n", "n: 64", "n: 65"),
        ("answers[0] / n", "n: 64", "n: 64.0"),
        ("answers[0] / is_better", "true", "1"),
        ("answers[0] / p", "0.0004", "0.000404"),
        ("answers[0] / test", "5,000", "5,001"),
        ("sums", "-1.05e-08", "-6.87e-09"),
    ],
)
def test_a_change_of_a_value_is_noticed(text, old_text, new_text):
    assert len(change(text, old_text, new_text)) == 1


def test_a_change_of_a_name_or_a_number_of_rows_is_noticed():
    assert change("metrics / all, m", "all, map", "all, mrr") == [
        "metrics / all, map: is missing, 0.9062, 64 was recorded",
        "metrics / all, mrr: 0.9062, 64 is new",
    ]
    fewer_rows = {**ROWS, "answers": []}
    assert len(list(list_differences(ROWS, fewer_rows, 2e-3, 0))) == 1


@pytest.mark.parametrize(
    ("old_text", "new_text"),
    [("0.7891", "0.7892"), ("0.0375", "0.03751"), ("0.0004", "0.00040001")],
)
def test_another_last_digit_is_rounding(old_text, new_text):
    assert change("", old_text, new_text) == []


def test_sums_may_be_0_but_for_rounding():
    sums = ["60, -1.05e-08, 0.0375", "60, 0.0, 0.0375"]
    assert list(list_differences(*sums, 2e-3, FLOAT32)) == []
    assert list(list_differences(*sums, 2e-3, 0)) == [
        ": -1.05e-08 was recorded, 0.0 is found (0)"
    ]
    assert list(list_differences(float("nan"), float("nan"), 2e-3, 0)) == []
    assert list(list_differences(float("nan"), 0.0, 2e-3, 0))


def test_the_message_lists_what_differs(tmp_path):
    path = tmp_path / "test_values.yml"
    values = {f"value {number}": 0.5 for number in range(MOST_SHOWN + 2)}
    Recorded(path, "test_many", rewrite=True)(**values)

    with pytest.raises(AssertionError, match="and 2 more") as caught:
        Recorded(path, "test_many")()

    assert "value 0: is missing, 0.5 was recorded" in str(caught.value)


def test_more_digits_are_compared_more_exactly(tmp_path):
    path = tmp_path / "test_values.yml"
    path.write_text("test_other: {value: 1}\ntest_of_a_value: {value: 0.1234567}\n")
    recorded = Recorded(path, "test_of_a_value")

    recorded(digits=7, value=0.1234568)
    recorded(digits=4, value=0.12346)
    recorded(digits=7, rounding=1e-5, value=0.12346)

    message = "value: 0.1234567 was recorded, 0.12346 is found"
    with pytest.raises(AssertionError, match=message):
        recorded(digits=7, value=0.12346)


def test_a_test_that_is_rewritten_leaves_others_alone(tmp_path):
    path = tmp_path / "test_values.yml"
    Recorded(path, "test_a", rewrite=True)(value=0.5)
    Recorded(path, "test_b", rewrite=True)(value=0.25)

    Recorded(path, "test_a")(value=0.5)
    Recorded(path, "test_b")(value=0.25)
    with pytest.raises(AssertionError, match="is new"):
        Recorded(path, "test_c")(value=0.5)


def test_long_rows_are_recorded_by_their_means():
    numbers = [float(number) for number in range(LONGEST + 1)]
    mean = f"{LONGEST + 1}, {sum(numbers) / len(numbers)}, "
    assert extract_numbers({"row": numbers}, 4)["row"].startswith(mean)
    # a text or a missing value is no number
    assert extract_numbers({"row": numbers + [None]}, 4)["row"].endswith("12.0, None")


def test_what_is_recorded_belongs_to_a_test():
    for path in TESTS.rglob("test_*.yml"):
        functions = path.with_suffix(".py").read_text()
        for name in yaml.safe_load(path.read_text("utf-8")):
            function = name.partition("[")[0]
            assert f"def {function}(" in functions, f"remove {name} from {path}"
