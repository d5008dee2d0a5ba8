"""Trackers get what the log gets, as a run a cell."""

import importlib.util
import json

import pytest

from brainhive_cli.core.base.errors import MissingExtra

ABSENT = [
    name
    for name in ("trackio", "wandb", "swanlab")
    if importlib.util.find_spec(name) is None
]


def test_tensorboard_gets_the_log_a_run_for_each_cell(
    run_command, align_overrides, world, tmp_path
):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    result = run_command(
        "train-align",
        *align_overrides,
        f"paths.runs={tmp_path}",
        "train.epochs=3",
        "run.trackers=tensorboard",
    )

    log = [
        json.loads(line)
        for line in (result.folder / "log.jsonl").read_text().splitlines()
    ]
    for cell in ("sub-01_seed-1", "sub-02_seed-1"):
        log_folder = (
            result.folder / "tensorboard" / f"{cell} (trained on simulated signals)"
        )
        curves = accumulator.EventAccumulator(str(log_folder)).Reload()
        for name in ("loss", "validation_top1"):
            logged = [(row["epoch"], row[name]) for row in log if row["cell"] == cell]
            points = [(point.step, point.value) for point in curves.Scalars(name)]
            assert len(logged) == 3
            assert points == [(epoch, pytest.approx(value)) for epoch, value in logged]
    assert "epoch" not in curves.Tags()["scalars"]


@pytest.mark.skipif(not ABSENT, reason="all trackers are installed")
def test_a_tracker_that_is_not_installed_is_reported_first(
    run_command, align_overrides, world, tmp_path
):
    with pytest.raises(MissingExtra) as caught:
        run_command(
            "train-align",
            *align_overrides,
            f"paths.runs={tmp_path}",
            f"run.trackers={ABSENT[0]}",
        )
    assert ABSENT[0] in caught.value.message
    assert caught.value.hint == f"pip install {ABSENT[0]}"
    assert not list(tmp_path.iterdir())
