"""Comparison of pinned results: code, libraries, intervals, missing numbers."""

import pytest

from tools import pinned
from tools.pinned import PinnedNumber, PinnedResults, compare, find_nearest

LIBRARIES = {"python": "3.11.7", "torch": "2.14.1", "CPU": "GenuineIntel AVX512"}
OTHER_TORCH = LIBRARIES | {"torch": "2.11.0"}
ACCURACY = {
    "value": 0.75,
    "low": 0.633,
    "high": 0.839,
    "chance": 0.125,
    "n": 96,
    "candidates": 8,
}
NO_INTERVAL = ACCURACY | {"low": None, "high": None}


def results(environment: dict[str, str], p: float = 0.0004, **numbers) -> PinnedResults:
    rows = {name: PinnedNumber(**row) for name, row in numbers.items()}
    return PinnedResults(
        release="0.1.0", environment=environment, numbers=rows, p_values={"which": p}
    )


def test_equal_numbers_are_no_change():
    pair = [results(LIBRARIES, accuracy=ACCURACY) for _ in range(2)]
    comparison = compare(*pair)
    assert not comparison.failures
    assert not comparison.changes
    assert "4 digits" in comparison.explain("demo-real")


def test_the_code_is_blamed_if_no_library_moved():
    changed_results = results(LIBRARIES, accuracy=ACCURACY | {"value": 0.7501})

    comparison = compare(results(LIBRARIES, accuracy=ACCURACY), changed_results)

    (line,) = comparison.failures
    assert "accuracy" in line
    assert "0.75 " in line
    assert "0.7501" in line
    text = comparison.explain("demo-real")
    assert "code" in text
    assert "tools.pin demo-real --write" in text


def test_a_moved_library_explains_a_change_within_the_interval():
    moved = ACCURACY | {"value": 0.70, "low": 0.58, "high": 0.80}

    comparison = compare(
        results(LIBRARIES, accuracy=ACCURACY),
        results(OTHER_TORCH, p=0.0006, accuracy=moved),
    )

    assert comparison.failures == []
    assert comparison.libraries == ["torch 2.14.1 → 2.11.0"]
    assert len(comparison.changes) == 2
    text = comparison.explain("demo-real")
    assert "0.75" in text
    assert "0.7 " in text
    assert "torch 2.14.1 → 2.11.0" in text


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.60, "low": 0.50, "high": 0.80},
        {"value": 0.70, "low": 0.66, "high": 0.74},
        {"low": None, "high": None},
        {"n": 95},
        {"candidates": 7},
        {"chance": 0.143},
    ],
)
def test_libraries_explain_nothing_beyond_the_interval(change):
    comparison = compare(
        results(LIBRARIES, accuracy=ACCURACY),
        results(OTHER_TORCH, accuracy=ACCURACY | change),
    )
    assert len(comparison.failures) == 1
    assert comparison.changes == []
    assert "torch 2.14.1 → 2.11.0" in comparison.explain("demo-real")


@pytest.mark.parametrize(("value", "failures"), [(0.65, 0), (0.55, 1)])
def test_a_number_without_interval_moves_by_a_fifth(value, failures):
    comparison = compare(
        results(LIBRARIES, loss=NO_INTERVAL),
        results(OTHER_TORCH, loss=NO_INTERVAL | {"value": value}),
    )
    assert len(comparison.failures) == failures


def test_a_p_value_may_not_cross_the_level():
    comparison = compare(results(LIBRARIES), results(OTHER_TORCH, p=0.06))
    assert len(comparison.failures) == 1


@pytest.mark.parametrize("environment", [LIBRARIES, OTHER_TORCH])
def test_a_missing_number_fails_with_any_libraries(environment):
    pair = results(LIBRARIES, accuracy=ACCURACY, auc=ACCURACY)
    comparison = compare(pair, results(environment, accuracy=ACCURACY))
    (line,) = comparison.failures
    assert "auc" in line
    assert "missing" in line


def test_a_new_number_must_be_pinned_with_the_same_libraries():
    old_results = results(LIBRARIES, accuracy=ACCURACY)
    new_numbers = {"accuracy": ACCURACY, "auc": ACCURACY}
    assert len(compare(old_results, results(LIBRARIES, **new_numbers)).failures) == 1
    assert compare(old_results, results(OTHER_TORCH, **new_numbers)).failures == []


def test_results_are_compared_with_the_nearest_environment():
    older = results(LIBRARIES | {"python": "3.12.1"}, accuracy=ACCURACY)
    pinned_results = [older, results(OTHER_TORCH | {"python": "3.13.0"})]
    assert find_nearest(pinned_results, LIBRARIES) is older


def test_files_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pinned, "FOLDER", tmp_path)
    first_results = results(LIBRARIES, accuracy=ACCURACY, loss=NO_INTERVAL)
    second = results(OTHER_TORCH, accuracy=ACCURACY)
    assert pinned.read("demo") == []
    pinned.write("demo", [first_results, second])
    assert pinned.read("demo") == [first_results, second]

    # a second measurement of an environment replaces the first
    second_results = results(LIBRARIES, accuracy=ACCURACY | {"value": 0.76})
    pinned.write("demo", pinned.add(pinned.read("demo"), second_results))
    assert pinned.read("demo") == [second, second_results]
