"""Published numbers: shown with what is measured, never as those of an equal set-up."""

import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.reports.tables import PUBLISHED

PAPER = ("published.source=a paper", "published.values.top1=0.5")
DIFFERS = "published.differs=[of the last epoch, its seeds are not stated]"


@pytest.fixture
def train(go, small, world, tmp_path):
    """Train one cell for an epoch, with what was published."""
    few = (*small, "subjects=1", "train.epochs=1")
    return lambda *overrides: go("train-align", *few, f"paths.runs={tmp_path}", *PAPER, *overrides)


def test_a_training_shows_what_was_published_and_that_nobody_checked_its_set_up(train):
    plain, stated = train().tables[-1], train("train.epochs=2", DIFFERS).tables[-1]
    assert plain.title.startswith(f"{PUBLISHED}: a paper") and "not checked by Brainhive" in PUBLISHED
    assert plain.columns == ["top-1", "differs, as its recipe says"]
    assert plain.rows == ((0.5, "–"),)
    assert stated.rows == ((0.5, "of the last epoch; its seeds are not stated"),)


def test_retrieval_shows_it_in_a_table_of_its_own_but_not_beside_a_control(train, go, tmp_path):
    train(DIFFERS)

    def evaluate(*overrides: str):
        return go("eval-retrieval", f"paths.runs={tmp_path}", "sheet_rows=0", *overrides)

    result, control = evaluate(), evaluate("control=shuffled")
    published = {"source": "a paper", "top1": 0.5}
    published["differs"] = ["of the last epoch", "its seeds are not stated"]
    assert result.metrics.facts.published == published
    (table,) = (table for table in result.tables if table.title.startswith(PUBLISHED))
    assert table.rows == ((0.5, "of the last epoch; its seeds are not stated"),)
    assert control.metrics.facts.published == {}
    assert not any(PUBLISHED in table.title for table in control.tables)


@pytest.mark.parametrize("key", ["dataset=demo", "recipe=papers/ubp", "pool=200", "took=1 h"])
def test_the_set_up_of_a_paper_is_no_key_of_a_recipe(train, key):
    with pytest.raises(RecipeError, match=f"published.{key.partition('=')[0]}"):
        train(f"published.{key}")
