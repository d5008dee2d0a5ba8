"""Sweeps of trainings, whose cells are a single queue."""

from pathlib import Path

import pytest

from brainhive_cli.training.alignment.training import cell_folder, training_data

SWEEP = ("subjects=1,2", "train.epochs=1", "sweep.train.lr=[1e-3,2e-3]")


def test_a_sweep_is_one_queue_and_goes_on_where_it_stopped(
    run_command, align_overrides, world, tmp_path, monkeypatch
):
    runs_override, trained = f"paths.runs={tmp_path / 'runs'}", []
    train_cell = cell_folder.train_cell

    def stop_at_the_third(name, *arguments):
        trained.append(name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        train_cell(name, *arguments)

    monkeypatch.setattr(cell_folder, "train_cell", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_command("train-align", *align_overrides, runs_override, *SWEEP)

    result = run_command("train-align", *align_overrides, runs_override, *SWEEP)

    first_cells = ["sub-01_seed-1", "sub-02_seed-1"]
    assert trained == list(first_cells) + ["sub-01_seed-1"] + list(first_cells)
    step_runs = result.metrics.facts.step_runs
    assert list(step_runs) == ["train-align · lr=1e-3", "train-align · lr=2e-3"]
    for step_run in step_runs.values():
        files = (tmp_path / "runs" / step_run).glob("cells/*/metrics.json")
        assert sorted(file.parent.name for file in files) == first_cells
    (table,) = result.printed_tables
    assert [row[1] for row in table.rows] == ["lr=1e-3", "lr=2e-3"]


def test_runs_of_a_sweep_read_their_common_inputs_once(
    run_command, align_overrides, world, tmp_path, monkeypatch
):
    opened_stores = []
    read_training = training_data.read_training

    def count(signals, subject, *arguments):
        opened_stores.append(subject)
        return read_training(signals, subject, *arguments)

    monkeypatch.setattr(training_data, "read_training", count)
    runs_override = f"paths.runs={tmp_path / 'runs'}"

    swept = run_command("train-align", *align_overrides, runs_override, *SWEEP)
    n_swept = len(opened_stores)
    first_result = run_command(
        "train-align", *align_overrides, runs_override, *SWEEP[:2], "train.lr=2e-3"
    )

    # each person once, after the rehearsal of each run
    assert opened_stores.count(1) == opened_stores.count(2) == n_swept / 2
    assert (
        f"train-align/{first_result.folder.name}"
        in swept.metrics.facts.step_runs.values()
    )


def test_a_sweep_of_inputs_trains_with_its_own_inputs(
    run_command, align_overrides, world, tmp_path
):
    runs_override = f"paths.runs={tmp_path / 'swept'}"
    plain_runs_override = f"paths.runs={tmp_path / 'plain'}"
    window = "signal.window_ms=[0, 400]"
    keys = ["subjects=1", "train.epochs=1"]

    swept = run_command(
        "train-align",
        *align_overrides,
        runs_override,
        *keys,
        "sweep={signal.window_ms: [[400, 1000], [0, 400]]}",
    )
    first_run_folder = run_command(
        "train-align", *align_overrides, plain_runs_override, *keys, window
    ).folder

    step_run = swept.metrics.facts.step_runs["train-align · window_ms=0+400"]
    weights = Path("cells/sub-01_seed-1/model/model.safetensors")
    assert step_run == f"train-align/{first_run_folder.name}"
    trained = (tmp_path / "swept" / step_run / weights).read_bytes()
    assert trained == (first_run_folder / weights).read_bytes()
