"""Commands of a line share their work: cell by cell, also where one of them is killed
or stopped.
"""

import json
import signal
import time
from collections import Counter

import pytest
from safetensors.torch import load_file

from brainhive_cli.core.runs.run_folder import RunFolder

pytestmark = pytest.mark.nightly


MEASURED = {"took", "run", "runs", "variants"}
"""Facts of a run that say how long it took and where it lies."""


def results_of(run_folder):
    """Read weights and metrics of a run: all that must not depend on who computed
    it.
    """
    results = {}
    for path in sorted(run_folder.rglob("*.safetensors")):
        results[path.relative_to(run_folder).as_posix()] = {
            name: value.tolist() for name, value in load_file(path).items()
        }
    for path in sorted(run_folder.rglob("metrics.json")):
        document = json.loads(path.read_text())
        facts = {
            name: value
            for name, value in document["facts"].items()
            if name not in MEASURED
        }
        for cell in facts["cells"].values():
            cell.pop("took")
        results[path.relative_to(run_folder).as_posix()] = {**document, "facts": facts}
    return results


def wait_for(is_there, *processes):
    """Wait until something is there, as long as one of the processes lives."""
    deadline_s = time.monotonic() + 90
    while not is_there():
        assert time.monotonic() < deadline_s
        assert any(process.poll() is None for process in processes)
        time.sleep(0.02)


def epochs_of(run_folder):
    """Count how often each epoch of each cell stands in the log."""
    return Counter(
        (event["cell"], event["epoch"])
        for event in RunFolder(run_folder).events()
        if "epoch" in event
    )


def test_workers_repeat_only_the_cells_of_killed_workers(
    world, align_overrides, run_command, tmp_path, brainhive
):
    line = ["train-align"] + list(align_overrides) + ["seeds=1,2", "train.epochs=16"]
    first_run_folder = run_command(*line, f"paths.runs={tmp_path / 'alone'}").folder

    shared = list(line) + [f"paths.runs={tmp_path / 'shared'}"]
    workers = [brainhive(*shared, wait=False) for _ in range(2)]
    run_folder = tmp_path / "shared/train-align" / first_run_folder.name
    wait_for(lambda: len(epochs_of(run_folder)) > 10, *workers)
    workers[0].send_signal(signal.SIGKILL)
    ends = [worker.communicate(timeout=120) for worker in workers]

    assert workers[1].returncode == 0, ends
    assert results_of(run_folder) == results_of(first_run_folder)
    counts, cells = (
        epochs_of(run_folder),
        {event["cell"] for event in RunFolder(run_folder).events() if "by" in event},
    )
    assert len(cells) <= 1
    assert {cell for (cell, _), count in counts.items() if count > 1} <= cells
    assert len(counts) == 4 * 16
    assert not (list(run_folder.rglob(".*.cell")) + list(run_folder.rglob(".*part*")))


def test_a_stopped_worker_leaves_a_checkpoint_for_the_next(
    world, align_overrides, run_command, tmp_path, brainhive
):
    line = ["train-align"] + list(align_overrides) + ["subjects=1", "train.epochs=40"]
    first_run_folder = run_command(*line, f"paths.runs={tmp_path / 'alone'}").folder

    shared = list(line) + [f"paths.runs={tmp_path / 'shared'}"]
    run_folder = tmp_path / "shared/train-align" / first_run_folder.name
    worker = brainhive(*shared, wait=False)
    wait_for(lambda: len(epochs_of(run_folder)) > 3, worker)
    worker.send_signal(signal.SIGUSR1)
    _, errors = worker.communicate(timeout=60)

    assert worker.returncode == 75
    assert "try: " in errors
    assert list(run_folder.glob("checkpoints/*.pt"))
    assert not list(run_folder.rglob(".*.cell"))
    begun = len(epochs_of(run_folder))
    assert begun < 40
    assert run_command(*shared).folder == run_folder
    assert results_of(run_folder) == results_of(first_run_folder)
    assert set(epochs_of(run_folder).values()) == {1}


def test_retrieval_takes_the_cells_that_others_have_measured(
    world, trained_run, run_command, tmp_path
):
    line = [
        "eval-retrieval",
        f"run={trained_run}",
        "sheet_rows=0",
        f"paths.runs={tmp_path}",
    ]
    run_folder = run_command(*line).folder
    document = json.loads((run_folder / "metrics.json").read_text())
    parts = {
        path: path.stat().st_mtime_ns for path in run_folder.glob("parts/*.safetensors")
    }
    (run_folder / "metrics.json").unlink()
    next(iter(parts)).unlink()

    assert run_command(*line).folder == run_folder
    assert json.loads((run_folder / "metrics.json").read_text()) == document
    assert len(parts) == 2
    assert [path.stat().st_mtime_ns == changed for path, changed in parts.items()] == [
        False,
        True,
    ]
