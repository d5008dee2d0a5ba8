"""The driver makes a run once, whatever interrupts it, and refuses before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from brainhive_cli.core.base import BrainhiveError, MissingData, Table, Unfinished
from brainhive_cli.core.files.inputs import Input
from brainhive_cli.core.recipes.recipe import Recipe
from brainhive_cli.core.results import Facts, Measurements, Metric
from brainhive_cli.core.runs import (
    READ_ONLY,
    CellStage,
    Launch,
    OpenRun,
    Result,
    RunJob,
    Summary,
    Work,
    driver,
)

ALONE = Launch(0, 1, "cpu")


class TrackedRecipe(Recipe):
    """Recipe of a command that logs to trackers."""

    is_tracked = True


@dataclass(frozen=True)
class Counting(RunJob):
    """A job that notes which of its methods are called."""

    recipe: Recipe
    cells: Sequence[str] = ("a", "b")
    stores: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    error: MissingData | None = None
    others: Sequence[RunJob] = ()
    parts: Mapping[str, RunJob] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)
    command: str = "embed"
    tracker_name = "counting"

    @property
    def short_name(self):
        return "tiny"

    @property
    def compared_jobs(self):
        return self.others

    def inputs(self):
        digest = self.stores.get("signals", "")
        return [Input("signals", digest=digest), Input("pictures", error=self.error)]

    def check(self):
        self.steps.append("check")

    def prepare(self, launch):
        self.steps.append("prepare")
        self.stores.setdefault("signals", "1")

    def make_parts(self, open_run, again):
        return driver.run_each(self.parts, open_run.launch, again)

    def is_outdated(self, open_run):
        return bool(self.lacks)

    def count_work(self):
        return Work("tiny", len(self.cells), "cells")

    def stages(self, open_run):
        def compute(name, launch):
            self.steps.append(name)
            if name == "broken":
                raise BrainhiveError("broken", "mend it")
            return {"name": name}

        files = {name: f"{name}.safetensors" for name in self.cells}
        yield CellStage("counting", files, compute)
        self.steps.append("after the cells")

    def summarise(self, open_run):
        self.steps.append(
            f"summarise {len(open_run.compared_results)} {len(open_run.parts)}"
        )
        fromkeys = dict.fromkeys(("pool", "chance", "low", "high"))
        context = {**fromkeys, "seeds": (1,), "protocol": "", "split": "test"}
        metric = Metric("top1", 0.5, 2, interval="", **context)
        metrics = {"all": {"top1": metric}}
        measurements = Measurements(metrics, facts=Facts(caveats=["simulated"]))
        return Summary(measurements, [Table("Cells", ("cell",), [])])

    def describe(self, open_run):
        return Result(open_run.folder.path, metrics=open_run.folder.measurements())

    def choose_logged_metrics(self, measurements):
        return measurements.scopes


@pytest.fixture
def job(home):
    """A job with two cells, whose signals are not there yet."""
    return Counting(Recipe())


def test_a_run_is_checked_made_and_found(job):
    first_result = driver.run(job, ALONE)
    # what was made is checked, too
    assert job.steps == [
        "check",
        "prepare",
        "check",
        "a",
        "b",
        "after the cells",
        "summarise 0 0",
    ]
    assert first_result.work == Work("tiny", 2, "cells")
    assert (first_result.folder / "a.safetensors").is_file()
    assert first_result.metrics.scopes["all"]["top1"].value == 0.5

    # a finished run is only read
    job.steps.clear()
    second_result = driver.run(job, ALONE)
    assert (second_result.folder, job.steps, second_result.work) == (
        first_result.folder,
        [],
        None,
    )
    assert driver.run(job, READ_ONLY).folder == first_result.folder
    assert driver.run(job, ALONE, force=True).folder != first_result.folder


def test_cells_of_several_runs_are_one_queue(home, capsys):
    steps = []
    first_counting = Counting(Recipe(), stores={"signals": "1"}, steps=steps)
    second = Counting(Recipe(), ("b", "c"), {"signals": "2"}, steps)
    third = Counting(Recipe(), ("d",), {"signals": "3"}, steps)
    third_result = driver.run(third, ALONE)
    steps.clear()

    results = driver.run_together({"x": first_counting, "y": second, "z": third}, ALONE)

    # no run is finished before the cells of all
    assert [step for step in steps if step not in ("check", "prepare")] == [
        "a",
        "b",
        "b",
        "c",
        "after the cells",
        "after the cells",
        "summarise 0 0",
        "summarise 0 0",
    ]
    assert results["z"].folder == third_result.folder
    for name, cells in (("x", "ab"), ("y", "bc")):
        files = results[name].folder.glob("?.safetensors")
        assert sorted(file.stem for file in files) == list(cells)
    assert "found finished runs, 1: " in capsys.readouterr().err
    with pytest.raises(Unfinished):
        driver.run_together(
            {"x": replace(first_counting, stores={"signals": "4"})}, READ_ONLY
        )


def test_what_is_missing_ends_it_before_anything_is_made(job, home):
    absent = replace(job, error=MissingData("no pictures", "fetch"))
    with pytest.raises(MissingData, match="no pictures"):
        driver.run(absent, ALONE)
    with pytest.raises(Unfinished):
        driver.run(absent, READ_ONLY)
    assert job.steps == []
    assert not (home / "runs").exists()
    assert [
        input_row.name for input_row in absent.list_inputs() if input_row.is_missing
    ] == ["pictures"]

    # a finished run needs none of it
    assert not job.is_finished
    result = driver.run(job, ALONE)
    assert driver.run(absent, ALONE).folder == result.folder
    assert job.is_finished
    assert absent.is_finished
    assert not replace(job, command="train-align").is_finished


def test_an_interrupted_run_goes_on(job):
    broken = replace(job, cells=("a", "broken", "b"))
    with pytest.raises(BrainhiveError, match="broken"):
        driver.run(broken, ALONE)
    job.steps.clear()
    resumed = driver.run(job, ALONE)
    assert job.steps[1:3] == ["prepare", "b"]
    # the time of a part is no pace of all
    assert resumed.work is None


def test_a_finished_run_is_made_up_for_what_it_lacks(job):
    result = driver.run(job, ALONE)
    job.steps.clear()
    outdated = replace(job, lacks=["a metric"])
    with pytest.raises(Unfinished):
        driver.run(outdated, READ_ONLY)
    assert driver.run(outdated, ALONE).folder == result.folder
    assert job.steps == ["after the cells", "summarise 0 0"]


def test_runs_that_a_run_needs_are_made_first(job, capsys):
    other_counting = Counting(Recipe(), cells=["c"], stores={"signals": "2"})
    counting = Counting(Recipe(), cells=["d"], stores={"signals": "3"})
    job_of_all = replace(job, others=[other_counting], parts={"part": counting})
    result = driver.run(job_of_all, ALONE)
    assert "summarise 1 1" in job.steps
    # its time is not that of its own cells
    assert result.work is None
    for steps in other_counting.steps, counting.steps:
        assert steps[-1] == "summarise 0 0"

    # a line says that they are finished, whoever asks
    capsys.readouterr()
    driver.run(replace(job_of_all, stores={"signals": "4"}), ALONE)
    assert capsys.readouterr().err.count("found finished runs") == 2


def test_trackers_get_the_metrics_of_a_finished_run(job, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    opened_trackers, events = list[Any](), list[Any]()

    class Tracker:
        def log(self, curves, step):
            events.append((curves, step))

        def finish(self):
            events.append("finished")

    def open_tracker(*arguments):
        opened_trackers.append(arguments[2])
        return Tracker()

    monkeypatch.setattr("brainhive_cli.core.runs.trackers._open", open_tracker)
    changed_recipe = job.recipe.run.model_copy(update={"trackers": ["wandb"]})
    driver.run(replace(job, recipe=TrackedRecipe(run=changed_recipe)), ALONE)
    assert opened_trackers[0].startswith("counting")
    assert "simulated" in opened_trackers[0]
    assert events == [({"all/top1": 0.5}, 0), "finished"]


def test_cells_are_shared_where_there_are_fewer_than_processes(job, monkeypatch):
    launch = Launch(0, 2, "cpu")
    monkeypatch.setattr(Launch, "barrier", lambda launch: None)
    monkeypatch.setattr(
        Launch, "gather", lambda launch, item: [item] * launch.processes
    )
    shared = list[int]()
    folder = driver.start_run(job, ALONE)
    open_run = OpenRun(folder, launch)

    def compute(name, worker):
        shared.append(worker.processes)
        return {}

    for sharing, names in (
        ("either", "a"),
        ("either", "bc"),
        ("alone", "d"),
        (
            "together",
            "ef",
        ),
    ):
        files = {name: f"{name}.safetensors" for name in names}
        driver.compute_stages(
            [(open_run, CellStage("counting", files, compute, sharing))]
        )  # type: ignore[arg-type]
    assert shared == [2, 1, 1, 1, 2, 2]


def test_the_pace_counts_only_cells_trained_from_the_beginning(
    job,
):
    folder = driver.start_run(job, ALONE)
    resumed = folder.checkpoint_path("a")
    resumed.parent.mkdir()
    resumed.touch()

    def count_work(names):
        return Work("tiny", len(names), "cells")

    files = {name: f"{name}.safetensors" for name in "ab"}
    stage = CellStage("counting", files, lambda *arguments: {}, count_work=count_work)
    is_alone, work = driver.compute_stages([(OpenRun(folder, ALONE), stage)])
    assert is_alone
    assert work is not None
    assert work.count == 1
    assert work.seconds is not None


def test_a_check_lists_what_does_not_fit_and_what_is_compared(job):
    @dataclass(frozen=True)
    class Misfit(Counting):
        def check(self):
            raise BrainhiveError("rates differ", "resample")

    for checked in Misfit(Recipe()), replace(job, others=[Misfit(Recipe())]):
        inputs = checked.list_inputs()
        assert [input_row.name for input_row in inputs if input_row.is_missing] == [
            "rates differ"
        ]
    with pytest.raises(BrainhiveError, match="rates differ"):
        driver.run(Misfit(Recipe()), ALONE)


def test_versions_of_inputs_name_the_run(job):
    @dataclass(frozen=True)
    class Pinned(Counting):
        version: str = "1"

        def pin_versions(self):
            return self, {"hub:a/b": self.version}

    jobs = [Pinned(Recipe(), version=version) for version in ("1", "2", "1")]
    for pinned in jobs:
        pinned.stores["signals"] = "1"
    folders = {driver.run(pinned, ALONE).folder for pinned in jobs}
    assert len(folders) == 2
    # the first is found again, and is not checked
    assert jobs[-1].steps == []


def test_cells_of_another_worker_leave_no_pace(job):
    @dataclass(frozen=True)
    class Helped(Counting):
        def stages(self, open_run):
            def compute(name, launch):
                open_run.folder.write_text("b.safetensors", "by another worker")
                return {"name": name}

            files = {name: f"{name}.safetensors" for name in "ab"}
            yield CellStage("counting", files, compute)

    assert driver.run(Helped(Recipe()), ALONE).work is None


def test_one_process_summarises_and_no_checkpoint_is_left(job, monkeypatch):
    @dataclass(frozen=True)
    class Trained(Counting):
        def summarise(self, open_run):
            self.steps.append(f"{open_run.launch.processes} process")
            checkpoint = open_run.folder.checkpoint_path("last")
            checkpoint.parent.mkdir()
            checkpoint.touch()
            return super().summarise(open_run)

    monkeypatch.setattr(Launch, "barrier", lambda launch: None)
    monkeypatch.setattr(
        Launch, "gather", lambda launch, item: [item] * launch.processes
    )
    trained = Trained(Recipe())
    result = driver.run(trained, Launch(0, 2, "cpu"))
    assert "1 process" in trained.steps
    assert not list(result.folder.glob("checkpoints/*"))


class LabelledRecipe(Recipe):
    """Recipe of a command that writes a run."""

    writes_run = True


def label_job(job, label):
    """Return the job with a label in its recipe."""
    return replace(job, recipe=LabelledRecipe(run={"label": label}))


def test_another_label_relabels_the_finished_run(job, capsys):
    first_result = driver.run(label_job(job, "ridge [bold]"), ALONE)
    job.steps.clear()
    second = driver.run(label_job(job, "<b>Übung</b>"), ALONE)
    assert (first_result.label, second.label) == ("ridge [bold]", "<b>Übung</b>")
    assert second.folder == first_result.folder
    assert job.steps == []
    assert "ridge [bold]" in capsys.readouterr().err
    assert "label" not in (first_result.folder / "recipe.yaml").read_text()

    # without the flag the label stays, and an empty text removes it
    assert driver.run(label_job(job, None), ALONE).label == "<b>Übung</b>"
    assert driver.run(label_job(job, ""), ALONE).label == ""


def test_runs_that_a_run_needs_get_no_label(job):
    compared = replace(label_job(job, "main"), cells=("c",), stores={"signals": "2"})
    labelled = replace(label_job(job, "main"), others=[compared])
    result = driver.run(labelled, ALONE)
    labels = []
    for path in result.folder.parent.iterdir():
        labels.append(driver.RunFolder(path).label)
    assert sorted(labels) == ["", "main"]
