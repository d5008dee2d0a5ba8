"""Concepts, categories and confusions, counted by hand."""

from pathlib import Path

import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.evaluation.retrieval.concepts import by_category, by_concept, confusions, read_categories


def test_concepts_are_listed_from_the_best_found_to_the_worst():
    table = by_concept({"cat": [1, 8], "dog": [2, 3], "cow": [1, 1]})

    assert list(table) == ["cow", "cat", "dog"]
    assert table["cat"] == {"top1": 0.5, "top5": 0.5, "mean_rank": 4.5, "n": 2}


def test_categories_join_the_signals_of_their_concepts_whatever_number_stands_before_them(tmp_path: Path):
    (tmp_path / "animals.tsv").write_text("cat\tanimal\nDog\tanimal\ntable\tfurniture\n")
    categories = read_categories(str(tmp_path / "animals.tsv"))

    table = by_category({"00001_cat": [1], "dog": [2, 3], "00007_table": [9], "unheard_of": [1]}, categories)

    assert {name: row["n"] for name, row in table.items()} == {"animal": 3, "furniture": 1}
    assert table["animal"]["top1"] == pytest.approx(1 / 3)


def test_confusions_count_what_was_taken_for_what():
    similarities = {("cat", "dog"): [0.9, 0.8], ("cat", "cat"): [1.0], ("dog", "cow"): [0.1]}

    found = confusions(similarities)

    assert [(each["seen"], each["taken_for"], each["count"]) for each in found] == [
        ("cat", "dog", 2),
        ("dog", "cow", 1),
    ]
    assert found[0]["share"] == pytest.approx(2 / 3) and found[0]["similarity"] == pytest.approx(0.85)


def test_a_table_of_categories_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "short.csv").write_text("cat,animal\ndog\n")

    with pytest.raises(BrainhiveError, match=r"short.csv line 2 has no category"):
        read_categories(str(tmp_path / "short.csv"))
    with pytest.raises(MissingData, match=r"no file nowhere.tsv"):
        read_categories("nowhere.tsv")
