"""Tests of the runs and cells that an evaluation measures and compares."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.evaluation.retrieval import baseline, job as jobs
from brainhive_cli.evaluation.retrieval.baseline import write_ridge
from brainhive_cli.evaluation.retrieval.job import Job, find_runs, group_cells
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment import FROM_MEAN, Cell, Recipe as AlignRecipe

CPU = torch.device("cpu")


def recipe(*arguments):
    return Recipe.resolve("eval-retrieval", None, {}, arguments)


class Run:
    """Run of cells."""

    def __init__(self, name, people="12", **facts):
        self.name, self.reference = name, f"ref {name}"
        self.folder = SimpleNamespace(path=name, duration_s=10.0)
        self.dataset = SimpleNamespace(name="made", splits=("train", "test"))
        self.recipe = None
        self.origin = None
        # cells of the second person come first
        self.cells = [
            Cell(f"sub-{person}_seed-{seed}", (int(person),), (int(person),), seed)
            for person in reversed(people)
            for seed in (1, 2)
        ]
        vars(self).update(facts)


@pytest.fixture
def runs(monkeypatch):
    """Runs by name, which jobs open."""
    made = {
        "one": Run("one"),
        "two": Run("two"),
        "elsewhere": Run("elsewhere", dataset=SimpleNamespace(name="other")),
    }
    monkeypatch.setattr(
        jobs, "open_model", lambda name, paths, **_: made[name or "one"]
    )

    def require(dataset, split, key):
        if split not in dataset.splits:
            raise RecipeError(split)

    monkeypatch.setattr(jobs, "require_split", require)
    return made


def test_runs_to_compare_with_are_measured_in_the_same_way(runs):
    job = Job.resolve(
        recipe(
            "run=one",
            "against=two",
            "subsets=4",
            "repetitions=all",
            "seed=3",
            "corrections=csls",
            "baseline=ridge",
        )
    )

    (other,) = job.against
    assert job.recipe.align_run == ["ref one"]
    assert job.recipe.against == ["ref two"]
    assert other.recipe.align_run == ["ref two"]
    assert other.recipe.seed == 3
    spared = other.recipe
    assert spared.subsets is spared.repetitions is spared.against is None
    assert (spared.corrections, spared.baseline) == ([], "none")
    assert job.recipe.subsets == 4
    # the newest run, where none is named
    assert Job.resolve(recipe()).runs == [runs["one"]]
    assert Job.resolve(recipe()).recipe.against is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("run=one,elsewhere",),
        ("run=one", "gallery=train+more"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(runs, arguments):
    with pytest.raises(BrainhiveError):
        Job.resolve(recipe(*arguments))


def test_several_runs_are_found_by_their_names(runs):
    assert find_runs(recipe("run=one,two")) == [runs["one"], runs["two"]]


def test_cells_are_matched_by_the_people_they_are_tested_on():
    single_run, other_run, fewer = (
        Run("one"),
        Run("two", people="21"),
        Run("few", people="13"),
    )
    matched = group_cells([single_run, other_run])  # type: ignore[list-item]
    assert [[cell.name for cell in group] for group in matched] == [
        [f"sub-{person}_seed-{seed}"] * 2 for person in (2, 1) for seed in (1, 2)
    ]
    with pytest.raises(BrainhiveError):
        group_cells([single_run, fewer])  # type: ignore[list-item]


def test_work_counts_subjects_of_cells(runs):
    kinds = []
    for arguments in ((), ("repetitions=all",)):
        work = Job.resolve(recipe("run=one", *arguments)).count_work()
        assert (work.count, work.cells) == (4, 4)
        kinds.append(work.kind)
    # curves take longer
    assert kinds[0] != kinds[1]
    assert all("made, test" in kind for kind in kinds)


def test_whitening_comes_first_and_a_control_leaves_no_ridge():
    assert len(recipe("corrections=whitening,csls").corrections) == 2
    for arguments in (
        ("corrections=csls,whitening",),
        ("control=shuffled", "baseline=ridge"),
    ):
        with pytest.raises(BrainhiveError):
            recipe(*arguments)
    assert recipe("gallery=train+test").splits == ["train", "test"]
    assert recipe("gallery=train+test").split == "test"


def job_of(*arguments, training=(), **facts):
    """Make a job of a run on the demo, which compares one of two encoders."""
    finished_run = Run("one", **facts)
    keys = ["dataset=demo", "encoders=[lite0,pixels]", "seeds=3,4"] + list(training)
    finished_run.recipe = AlignRecipe.resolve("train-align", None, {}, keys)
    names = [config.name for config in finished_run.recipe.encoders]
    spec = SignalSpec(("a", "b"), 10, (1,), (2,), 100.0)
    layout = SimpleNamespace(
        encoders={name: f"key {name}" for name in names},
        compared_keys={f"key {names[1]}"},
        spec=spec,
    )
    model = SimpleNamespace(layout=layout)
    stored = SimpleNamespace(signal=np.empty((20000, 2, 10)), counts=np.full(5000, 4))
    finished_run.dataset.holdout = SimpleNamespace(
        divides_train=facts.get("trials", False)
    )
    recordings = SimpleNamespace(open_store=lambda person: {"train": stored})
    vars(finished_run)["recordings"] = recordings
    stores = {name: SimpleNamespace(shape=(30, 10)) for name in names}
    return SimpleNamespace(
        runs=[finished_run],
        tests=SimpleNamespace(open_stores=lambda split: stores),
        recipe=recipe(*arguments),
        groups=[(finished_run.cells[0],)],
        open_models=lambda group, device: [model],
    )


def test_a_ridge_has_the_signals_and_targets_of_the_run(tmp_path):
    job = job_of(training=("signal.repetitions=random", "signal.window_ms=[0, 400]"))
    ridge = write_ridge(job, tmp_path)
    trained = job.runs[0].recipe
    assert ridge.encoders == trained.encoders[1:]
    assert ridge.seeds == [3]
    assert ridge.backbone.kind == "ridge"
    assert ridge.train.validation == 0
    assert ridge.signal.repetitions == "average"
    assert ridge.signal.window_ms == trained.signal.window_ms
    assert ridge.dataset == trained.dataset
    (file,) = tmp_path.iterdir()
    assert "ridge" in file.read_text()


def test_seconds_of_a_ridge_are_its_multiplications():
    spec = SignalSpec(("a", "b"), 10, (1,), (2,), 100.0)
    # 5,000 signals of 20 numbers, 300 targets; four cells of two seeds
    one = 2 * 5000 * 20 * (20 + 300) + 10 * 20**3
    expected = 2 * one / baseline.OPERATIONS_PER_S
    assert baseline._estimate_ridge_s(job_of(), spec, [False, True]) == pytest.approx(
        expected
    )
    both = 2 * (2 * 5000 * 20 * (20 + 600) + 10 * 20**3) / baseline.OPERATIONS_PER_S
    assert baseline._estimate_ridge_s(job_of(), spec, [True, True]) == pytest.approx(
        both
    )
    trials = 2 * (2 * 20000 * 20 * (20 + 300) + 10 * 20**3) / baseline.OPERATIONS_PER_S
    ridge_s = baseline._estimate_ridge_s(job_of(trials=True), spec, [False, True])
    assert ridge_s == pytest.approx(trials)


def test_a_ridge_longer_than_the_training_must_be_requested(monkeypatch, tmp_path):
    for seconds, took, is_written in ((59, 1, True), (61, 1, False), (99, 100, True)):
        monkeypatch.setattr(
            baseline, "_estimate_ridge_s", lambda *_, seconds=seconds: seconds
        )
        job = job_of(folder=SimpleNamespace(path="one", duration_s=took))
        if is_written:
            write_ridge(job, tmp_path)
        else:
            with pytest.raises(BrainhiveError):
                write_ridge(job, tmp_path)
            job.recipe = recipe("baseline=ridge")
            write_ridge(job, tmp_path)


@pytest.mark.parametrize(
    ("training", "facts"),
    [
        (("backbone=ridge", f"similarity={FROM_MEAN}"), {}),
        (("train.shuffled_labels=true",), {}),
        ((), {"origin": "another data set"}),
    ],
)
def test_a_ridge_is_no_baseline_of_other_trainings(tmp_path, training, facts):
    with pytest.raises(BrainhiveError):
        write_ridge(job_of(training=training, **facts), tmp_path)
    several_job = job_of()
    several_job.runs *= 2
    with pytest.raises(BrainhiveError):
        write_ridge(several_job, tmp_path)
    folder = job_of()
    folder.runs[0].recipe = None
    with pytest.raises(BrainhiveError):
        write_ridge(folder, tmp_path)
