"""Files that the training of a cell writes."""

from typing import Any

import numpy as np
import pytest

from brainhive_cli.core.base import console
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training import cell_folder
from brainhive_cli.training.alignment.training.cell_folder import CellFolder, train_cell
from tests.worlds.alignment_cells import (
    CPU_LAUNCH,
    PICTURES,
    make_cell_data,
    make_layout,
)


@pytest.mark.parametrize(
    ("passed_s", "is_stopped", "is_saved"),
    [(30, False, False), (61, False, True), (0, True, True)],
)
def test_a_checkpoint_is_written_each_minute_and_before_a_stop(
    tmp_path,
    monkeypatch,
    passed_s,
    is_stopped,
    is_saved,
):
    clock_s, stopped = [100.0], list[int]()
    monkeypatch.setattr(cell_folder.time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(cell_folder, "is_asked_to_stop", lambda: is_stopped)
    monkeypatch.setattr(
        cell_folder, "raise_if_asked_to_stop", lambda: stopped.append(1)
    )
    bar = console.Bar("training", 3)
    cell = CellFolder("a", RunFolder(tmp_path), CPU_LAUNCH, None, bar)
    written_steps = list[int]()

    def content():
        written_steps.append(1)
        return {"step": len(written_steps)}

    cell.at_start(2)
    for _ in range(2):
        clock_s[0] += passed_s
        cell.after_step(content)
    assert len(written_steps) == 2 * is_saved
    assert len(stopped) == 2
    assert bar.items == 2
    assert bar.total == 5
    assert (tmp_path / "checkpoints/a.pt").exists() is is_saved
    # an epoch is told with and without validation
    for top1 in (None, 0.25):
        event = {"epoch": 1, "epochs": 3, "loss": 0.5, "validation_top1": top1}
        cell.after_epoch(event)
        assert "2/3" in cell.description
        assert "0.500" in cell.description
        assert ("0.250" in cell.description) is (top1 is not None)
    assert [event["cell"] for event in RunFolder(tmp_path).events()] == ["a", "a"]


@pytest.mark.parametrize(
    ("kind", "with_callbacks"),
    [("brain_mlp", [True, False]), ("ridge", [True])],
)
def test_one_process_writes_and_a_closed_form_needs_no_other(
    tmp_path,
    monkeypatch,
    kind,
    with_callbacks,
):
    data = make_cell_data(np.zeros((PICTURES, 8), np.float32))
    layout = make_layout(data, kind)
    calls = list[dict[str, Any]]()
    monkeypatch.setattr(cell_folder, "fit", lambda *_, **options: calls.append(options))

    for rank in (0, 1):
        launch = Launch(rank, 2, "cpu")
        train_cell("a", 1, layout, data, [], Train(), RunFolder(tmp_path), launch)

    assert [call["callbacks"] is not None for call in calls] == with_callbacks
    # each process continues from the same checkpoint
    paths = [call["checkpoint"].path for call in calls]
    assert paths == [tmp_path / "checkpoints/a.pt"] * len(calls)
