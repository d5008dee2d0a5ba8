"""Tests of the new persons of a calibration, and of their recordings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.evaluation.calibration import job as jobs
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.recipe import Recipe
from brainhive_cli.training.alignment import Cell, Recipe as Training
from tests.worlds.array_trials import make_trials


def recipe(*arguments):
    return Recipe.resolve("calibrate", None, {}, arguments)


class Run:
    """Run of two models, of people 1 and 2 and of people 2 and 3. 4 is new to both."""

    def __init__(self, *keys, **facts):
        self.name, self.reference = "a run", "ref"
        self.folder = SimpleNamespace(path="a run")
        self.recipe = Training.resolve(
            "train-align", None, {}, ["dataset=demo"] + list(keys)
        )
        self.dataset = SimpleNamespace(holdout=SimpleNamespace(divides_train=False))
        self.tests_new_subjects = False
        people = [(2, 3), (1, 2)]
        source = SimpleNamespace(list_subjects=lambda chosen: chosen or [1, 3, 4, 5])
        self.recordings = source
        self.cells = [
            Cell(f"cell {row}", trained, (1,), row)
            for row, trained in enumerate(people)
        ]
        vars(self).update(facts)

    def open(self, cell):
        """Open the model of a cell. The first went on from a model of person 5."""
        subjects = (5,) if cell.seed == 0 else cell.trained_on
        return SimpleNamespace(
            cell=cell,
            history=SimpleNamespace(subjects=subjects),
            layout=SimpleNamespace(encoders={}),
        )


def resolve(monkeypatch, finished_run, *arguments):
    def change(thing, **changes):
        return thing if isinstance(thing, Run) else replace(thing, **changes)

    monkeypatch.setattr(jobs, "open_model", lambda *_, **__: finished_run)
    monkeypatch.setattr(jobs, "replace", change)
    return Job.resolve(recipe(*arguments))


def test_each_model_is_tested_on_whom_it_has_not_learned_from(
    monkeypatch,
):
    job = resolve(monkeypatch, Run())
    tested = [(cell.name, cell.tested_on[0]) for cell in job.cells]
    assert tested == [
        ("cell 0", 1),
        ("cell 1", 3),
        ("cell 0", 4),
        ("cell 1", 4),
        ("cell 1", 5),
    ]
    assert job.recipe.align_run == "ref"
    assert job.unit == "pictures"
    assert (job.draws, job.needs_trials) == (3, False)
    assert job.epochs == job.training.train.epochs
    recipe = resolve(monkeypatch, Run(), "subjects=3")
    assert [(cell.name, cell.tested_on) for cell in recipe.cells] == [("cell 1", (3,))]
    # people of another data set are all new
    other_recipe = resolve(monkeypatch, Run(tests_new_subjects=True))
    assert len(other_recipe.cells) == 2 * 4


def test_units_and_orders_decide_what_is_read(monkeypatch):
    finished_run = Run("backbone=ridge")
    recipe = resolve(monkeypatch, finished_run, "trials=4,9", "draws=5")
    assert (recipe.unit, recipe.draws, recipe.needs_trials) == ("trials", 5, True)
    assert recipe.epochs is None
    ordered = resolve(monkeypatch, finished_run, "order=recording")
    assert (ordered.unit, ordered.draws, ordered.needs_trials) == ("pictures", 1, True)


@pytest.mark.parametrize(
    ("finished_run", "arguments"),
    [
        (Run(recipe=None), ()),
        (Run(dataset=SimpleNamespace(holdout=SimpleNamespace(divides_train=True))), ()),
        (Run(cells=[]), ()),
        (Run(), ("subjects=2",)),
        (Run(), ("subjects=2,4",)),
    ],
    ids=["model folder", "held-out trials", "nobody", "known", "one known"],
)
def test_what_cannot_be_calibrated_is_refused(monkeypatch, finished_run, arguments):
    with pytest.raises(BrainhiveError):
        resolve(monkeypatch, finished_run, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("pictures=3", "trials=4"),
        ("order=recording", "draws=2"),
        ("arms=zero-shot", "transfer.draws=3"),
        ("alignments=nothing",),
    ],
)
def test_keys_without_an_effect_are_refused(arguments):
    with pytest.raises(RecipeError):
        recipe(*arguments)
    assert recipe("arms=permuted-transfer", "transfer.draws=3")


@pytest.mark.parametrize("tested_copies", [(), (2, 5)])
def test_tested_pictures_are_not_learned_from(monkeypatch, tested_copies):
    job = resolve(monkeypatch, Run(), "subjects=3")
    signal = np.random.default_rng(0).normal(size=(8, 2, 3)).astype(np.float32)
    shown = {"train": np.arange(1, 9), "test": np.array([0, 2, 3, 4, 6, 7, 8, 9])}
    asked = {}

    def find_members(name, ids, pixels, confirm):
        return np.isin(np.arange(10), tested_copies)

    def pictures_of(name, ids, pixels):
        asked["ids"] = list(ids)
        return SimpleNamespace(find_members=find_members)

    rows = np.array([2, 3, 6])

    def read(split):
        return make_trials(3, signal, shown[split], ("a", "b"))

    vars(job)["tests"] = SimpleNamespace(
        dataset=SimpleNamespace(pictured_as="made"),
        find_rows=lambda split: rows,
        open_stores=lambda split: split,
        make_comparison=lambda *splits: None,
        open_person=lambda model, subject: SimpleNamespace(
            read=read, raw_trials=read("test")
        ),
    )
    store = SimpleNamespace(image_ids=np.array([f"p{row}" for row in range(10)]))
    gather = SimpleNamespace(gather=lambda rows: {"one": rows})
    monkeypatch.setattr(jobs, "get_stimuli_and_pixels", lambda store_of: (store, None))
    monkeypatch.setattr(
        jobs, "LearnedPictures", SimpleNamespace(from_image_ids=pictures_of)
    )
    monkeypatch.setattr(jobs, "Targets", SimpleNamespace(from_stores=lambda *_: gather))

    person = job.people[3]

    left_rows = [row for row in range(1, 9) if row not in tested_copies]
    assert person.trials.stimulus.tolist() == left_rows
    assert person.dropped == len(tested_copies)
    assert person.tested.stimulus.tolist() == [2, 3, 6]
    assert asked["ids"] == ["p2", "p3", "p6"]
    assert person.rows.tolist() == [2, 3, 6]


def test_models_that_went_on_from_another_leave_nobody_out(
    monkeypatch,
):
    asked = ["transfer.pulls=1,0.1", "arms=permuted-transfer"]
    job = resolve(monkeypatch, Run(), *asked)
    assert not job.has_start()
    assert job.count_choosers(job.cells[0]) == 2
    started = job.training.model_copy(update={"mode": "finetune"})
    finished_run = Run(recipe=started)
    recipe = resolve(monkeypatch, finished_run, *asked)
    assert recipe.has_start()
    assert recipe.count_choosers(recipe.cells[0]) == 0
