"""Tests of the choice of model, person and names of events."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.evaluation.live import job as jobs
from brainhive_cli.evaluation.live.job import Job, describe_table
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.training.alignment.cells import Cell


def recipe(*arguments):
    return Recipe.resolve("live", None, {}, ("source.kind=mock",) + tuple(arguments))


def cells_of(*people):
    return [
        Cell(f"cell {row}", (9,), tested, 1, fold=row + 1)
        for row, tested in enumerate(people)
    ]


@pytest.fixture
def opened(monkeypatch):
    """Stand-in for `open_model`, which notes its arguments and returns these cells."""
    asked = {"cells": cells_of((1,))}

    def open_model(name, paths, dataset, subjects, *more):
        asked["subjects"] = subjects
        return jobs_run(asked["cells"])

    monkeypatch.setattr(jobs, "open_model", open_model)
    monkeypatch.setattr(jobs, "require_split", lambda *_: None)
    monkeypatch.setattr(jobs, "replace", change)
    return asked


def jobs_run(cells):
    return SimpleNamespace(name="a run", cells=cells, dataset=None)


def change(thing, **changes):
    """Replace fields of a dataclass or of a stand-in."""
    if isinstance(thing, SimpleNamespace):
        return SimpleNamespace(**{**vars(thing), **changes})
    return replace(thing, **changes)


def test_the_only_person_is_decoded_by_the_first_model(opened):
    job = Job.resolve(recipe())
    assert (job.subject, job.cell.name, job.cell.tested_on) == (1, "cell 0", (1,))
    assert job.align.cells == [job.cell]
    assert opened["subjects"] is None


def test_of_several_people_one_is_named(opened):
    opened["cells"] = cells_of((1, 2), (2, 3), (3,))
    with pytest.raises(RecipeError) as caught:
        Job.resolve(recipe())
    assert "1" in caught.value.hint.split()
    for subject, name in ((2, "cell 0"), (3, "cell 1"), (8, "cell 0")):
        job = Job.resolve(recipe(f"subject={subject}"))
        assert (job.cell.name, job.cell.tested_on) == (name, (subject,))
    Job.resolve(recipe("subject=2", "dataset=demo"))
    assert opened["subjects"] == [2]
    Job.resolve(recipe("subject=2"))
    assert opened["subjects"] is None


PERSON = SimpleNamespace(
    recordings=SimpleNamespace(build_path=lambda subject: Path("nowhere"))
)
"""Person without a store of signals."""


def session(
    tmp_path,
    *arguments,
    has_markers=True,
    train_ids=("a/p1", "a/q0"),
):
    """Make a job whose folder of recordings is in this folder."""

    def open_pictures(split):
        if not train_ids:
            raise MissingData("no embeddings")
        return SimpleNamespace(image_ids=train_ids)

    paths = SimpleNamespace(under_home=lambda name: tmp_path / name)
    source = SimpleNamespace(has_markers=has_markers, has_windows=False, is_file=False)
    spec = recipe(*arguments)
    stand_in = SimpleNamespace(
        events=spec.events, source=source, paths=paths, gallery="test"
    )
    dataset = SimpleNamespace(are_categories=False, name="made")
    align = SimpleNamespace(dataset=dataset)
    job = Job(stand_in, align, Cell("a", (1,), (1,), 1), 1)  # type: ignore[arg-type]
    vars(job)["tests"] = SimpleNamespace(open_pictures=open_pictures)
    return job


def test_events_are_called_by_their_pictures_or_a_table(tmp_path):
    gallery = ["a/p0", "a/p1"]
    names, further = session(tmp_path).read_event_names(PERSON, gallery)
    assert names.table is None
    assert names.image_ids == gallery
    # pictures of the gallery are not listed twice
    assert further.image_ids == ["a/q0"]
    unknown = session(tmp_path, train_ids=())
    assert unknown.read_event_names(PERSON, gallery)[1].image_ids == []

    # a table where prepare finds it, unless it names nothing or has no markers
    table = tmp_path / "data/recordings/events.csv"
    table.parent.mkdir(parents=True)
    table.write_text("event,picture\n7,strange\n")
    assert session(tmp_path).read_event_names(PERSON, gallery)[0].table is None
    table.write_text("event,picture\n7,q0\n")
    names, further = session(tmp_path).read_event_names(PERSON, gallery)
    assert names.path == table
    assert further.find_row("7") == 0
    silent = session(tmp_path, has_markers=False)
    assert silent.read_event_names(PERSON, gallery)[0].table is None
    table.write_text("no,columns\n1,2\n")
    assert session(tmp_path).read_event_names(PERSON, gallery)[0].table is None

    # the recipe's table has to name pictures of the gallery
    own = tmp_path / "own.csv"
    own.write_text("event,picture\n3,p1\n")
    selected_session = session(tmp_path, f"events={own}")
    assert selected_session.read_event_names(PERSON, gallery)[0].find_row("3") == 1
    own.write_text("event,picture\n3,strange\n")
    with pytest.raises(BrainhiveError):
        selected_session.read_event_names(PERSON, gallery)
    own.unlink()
    with pytest.raises(MissingData):
        selected_session.read_event_names(PERSON, gallery)
    assert describe_table(own).error is not None
    assert describe_table(table).error is None


@pytest.mark.parametrize(
    "arguments", [("page=false", "port=80"), ("page=false", "host=a")]
)
def test_keys_of_the_page_need_a_page(arguments):
    with pytest.raises(RecipeError):
        recipe(*arguments)


@pytest.mark.parametrize("arguments", [("events=a.csv",), ("whiten_trials=30",)])
def test_prepared_windows_have_no_events_or_whitening(
    arguments,
):
    assert recipe(*arguments)
    with pytest.raises(RecipeError):
        Recipe.resolve("live", None, {}, ("source.kind=signals",) + tuple(arguments))
