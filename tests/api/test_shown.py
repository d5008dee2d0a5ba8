"""How objects of the API look in a notebook: short texts, findings and cards."""

import pydoc
from html import unescape

import numpy as np
import pytest

from brainhive_cli import api

MAX_REPR = 400
"""Largest number of characters of the text of an object."""
MAX_HELP_LINES = 150


@pytest.fixture
def ranks():
    """Three signals and two pictures, of which each signal has seen one."""
    similarity = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.6]], np.float32)
    return api.Ranks(
        image_ids=["cat", "cat", "dog"],
        ranks=np.array([1, 2, 1]),
        gallery=["cat", "dog"],
        similarity=similarity,
        caveats=["simulated"],
        index=np.array([0, 4, 5]),
    )


def test_ranks_are_printed_by_signal(ranks):
    rows = ranks.rows()
    assert [row["index"] for row in rows] == [0, 4, 5]
    assert [row["rank"] for row in rows] == [1, 2, 1]
    assert [row["best"] for row in rows] == ["cat", "dog", "dog"]
    assert {row["candidates"] for row in rows} == {2}

    line = str(ranks).splitlines()[1]
    for fact in ("4", "cat", "rank 2 of 2", "dog"):
        assert fact in line
    assert "simulated" in str(ranks)
    assert "simulated" in ranks._repr_html_()
    assert "3 signals" in repr(ranks)
    assert len(repr(ranks)) < MAX_REPR


def test_ranks_of_unknown_pictures_name_the_best_alone(ranks):
    unknown = api.Ranks([], np.zeros(0, np.int64), ranks.gallery, ranks.similarity)
    assert [row["rank"] for row in unknown.rows()] == [None] * 3
    assert "rank" not in str(unknown)
    assert "dog" in str(unknown)
    assert unknown._repr_html_()


def test_opened_objects_have_short_texts_and_cards(trained_run, evaluation_result):
    trained = api.open_run(trained_run)
    cell = trained.cells[0]
    dataset = "demo-noise-0.3-40-concepts"
    signals = api.open_signals(dataset, cell.tested_on[0])
    evaluated = api.open_run(evaluation_result.folder)
    cards = {
        trained: trained.name,
        evaluated: evaluated.name,
        trained.member(cell.name): cell.name,
    }
    for shown_name, name in cards.items():
        assert name in unescape(shown_name._repr_html_())
        assert name in repr(shown_name)
        assert len(repr(shown_name)) < MAX_REPR

    # data say their sizes, and do not read the signals
    trials = signals["test"]
    sizes = (len(trials.pictures), trials.max_repetitions) + tuple(
        trials.signal.shape[1:]
    )
    for size in sizes:
        assert str(size) in repr(trials)
        assert str(size) in repr(signals)
    for shown_name in (
        trials,
        signals,
        trials.signal,
        trials.space,
        evaluated.measurements,
    ):
        assert len(repr(shown_name)) < MAX_REPR
    assert "test" in signals._repr_html_()
    assert trials._repr_html_()
    for artifact in evaluated.artifacts():
        assert artifact.title in repr(artifact)
        assert len(repr(artifact)) < MAX_REPR


def test_the_help_is_short_and_names_every_public_name():
    text = pydoc.plain(pydoc.render_doc(api))
    assert len(text.splitlines()) < MAX_HELP_LINES
    arguments = {argument.strip("(),.`") for argument in text.split()}
    assert set(dir(api)) <= arguments

    # the table has the summary of each function
    lines = {" ".join(line.split()) for line in text.splitlines()}
    for name in set(api.NAMES) | {"model_input"}:
        public = getattr(api, name)
        if not isinstance(public, type):
            assert f"{name} {public.__doc__.splitlines()[0]}" in lines
