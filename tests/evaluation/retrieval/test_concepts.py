"""Concepts and confusions, counted by hand."""

import pytest

from brainhive_cli.evaluation.retrieval.concepts import by_concept, list_confusions


def test_concepts_are_listed_from_the_best_found_to_the_worst():
    table = by_concept({"cat": [1, 8], "dog": [2, 3], "cow": [1, 1]})

    assert list(table) == ["cow", "cat", "dog"]
    assert table["cat"] == {"top1": 0.5, "top5": 0.5, "mean_rank": 4.5, "n": 2}


def test_confusions_count_what_was_taken_for_what():
    counts = {("cat", "dog"): 2, ("cat", "cat"): 1, ("dog", "cow"): 1}

    found = list_confusions(counts)

    assert [(each["seen"], each["taken_for"], each["count"]) for each in found] == [
        ("cat", "dog", 2),
        ("dog", "cow", 1),
    ]
    assert found[0]["share"] == pytest.approx(2 / 3)
