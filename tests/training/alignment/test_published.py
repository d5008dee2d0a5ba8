"""Published numbers: beside what is measured in the same set-up; else the differences are said."""

import pytest

from brainhive_cli.training.alignment.recipe import Recipe

SAME = (
    "published.source=a paper",
    "published.top1=0.5",
    "published.dataset=demo-noise-0.3",
    "published.mode=intra",
    "published.subjects=1",
    "published.encoders=['python:brainhive_cli.models.encoders.python:example']",
    "published.backbone=brain_mlp",
    "published.epochs=1",
    "published.selection=best",
    "published.pool=100",
    "published.rate_hz=250",
    "published.repetitions=16",
    "published.unit=uV",
)


@pytest.fixture
def train(go, small, world, tmp_path):
    """Train one cell for an epoch, with what was published of exactly that."""
    few = (*small, "subjects=1", "train.epochs=1")
    paper = tmp_path / "paper.yaml"
    paper.write_text(Recipe.resolve("train-align", None, {}, few).to_yaml())

    def train(*overrides: str):
        here = (f"paths.runs={tmp_path}", *SAME, f"published.recipe={paper}")
        return go("train-align", *few, *here, *overrides)

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


def differs(result) -> list[str]:
    return result.metrics.notes["published"]["differs"]


def test_every_setting_that_decides_the_result_is_compared(train, go, tmp_path):
    train("signal.window_ms=[0,100]", "signal.channels=Oz", "train.lr=1", "seeds=7")

    result = go("eval-retrieval", f"paths.runs={tmp_path}", "sheet_rows=0")

    assert differs(result) == [
        "seeds 7, not 1",
        "train.lr 1, not 0.002",
        "channels Oz, not 17: P7 … O2",
        "window 0 to 100 ms, not 0 to 1000 ms",
    ]


def test_signals_of_another_rate_unit_or_number_of_repetitions_are_another_set_up(train):
    other = train("published.rate_hz=100", "published.repetitions=80", "published.unit=whitened")

    assert differs(other) == [
        "rate 250 Hz, not 100 Hz",
        "repetitions 16, not 80",
        "unit uV, not whitened",
    ]


def test_a_recipe_of_the_paper_that_is_not_there_is_said(train):
    assert differs(train("published.recipe=gone"))[0].startswith("gone: no recipe 'gone'")
