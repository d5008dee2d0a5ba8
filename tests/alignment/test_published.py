"""Published numbers: beside what is measured in the same set-up; else the differences are said."""

import pytest

SAME = (
    "published.source=a paper",
    "published.top1=0.5",
    "published.dataset=demo-noise-0.3",
    "published.mode=intra",
    "published.subjects=1",
    "published.encoders=['python:brainhive_cli.encoders.python:example']",
    "published.backbone=brain_mlp",
    "published.epochs=1",
    "published.selection=best",
    "published.pool=100",
)


@pytest.fixture
def train(go, small, world, tmp_path):
    """Train one cell for an epoch, with what was published of exactly that."""

    def train(*overrides: str):
        few = (f"paths.runs={tmp_path}", "subjects=1", "train.epochs=1")
        return go("train-align", *small, *few, *SAME, *overrides)

    return train


def test_a_training_says_whether_what_was_published_is_of_its_set_up(train):
    same, other = train().tables[-1], train("train.epochs=2").tables[-1]
    assert same.title.startswith("Published, on the test pictures: a paper")
    assert same.rows == ((0.5, "–", "this set-up"),)
    assert other.rows == ((0.5, "–", "another set-up: epochs 2, not 1"),)


def test_it_stands_beside_retrieval_of_the_same_set_up_only(train, go, tmp_path):
    train()

    def evaluated(*overrides: str):
        return go("eval-retrieval", f"paths.runs={tmp_path}", "sheet_rows=0", *overrides)

    same, larger = evaluated(), evaluated("gallery=train+test")
    assert "published" in same.tables[1].columns and same.metrics.notes["published"]["differs"] == []
    assert "published" not in larger.tables[1].columns
    assert larger.tables[-1].rows == ((0.5, "–", "another set-up: pool 1060, not 100"),)
    assert larger.metrics.notes["published"]["differs"] == ["pool 1060, not 100"]
    assert evaluated("control=shuffled").metrics.notes["published"] == {}


def test_what_the_source_does_not_state_is_a_difference(train):
    result = train("published={source: a paper, top1: 0.5, mode: intra}")
    assert result.metrics.notes["published"]["differs"][0] == "dataset not stated"
