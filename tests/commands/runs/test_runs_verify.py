"""The command `runs verify`: a cell that is trained again, and its differences."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli import aligner
from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import COLOURS, use_home


def list_files(home):
    """Size and time of change of every file."""
    files = (path for path in home.rglob("*") if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.mark.nightly
def test_a_cell_is_trained_again_and_nothing_is_written(
    world, trained_run, evaluation_result, run_command
):
    initial_files = list_files(world)

    # with other threads than the run had, whose number is taken from it
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    of_training = run_command("runs", f"words=[verify,{trained_run.name}]")
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    of_evaluation = run_command(
        "runs", f"words=[verify,{evaluation_result.folder.name},sub-02_seed-1]"
    )

    assert list_files(world) == initial_files
    for result, subject in ((of_training, 1), (of_evaluation, 2)):
        details = result.details
        assert result.exit_code == 0
        assert details["equal"]
        assert not details["differs_in"]
        assert details["cell"] == f"sub-0{subject}_seed-1"
        ((name, different),) = details["ranks"].items()
        assert different == 0
        assert name.startswith(f"{evaluation_result.folder.name}, subject ")
        assert int(name.split()[-2]) > 20


@pytest.mark.nightly
def test_verify_reports_changed_weights_versions_and_inputs(
    world,
    trained_run,
    evaluation_result,
    tmp_path,
    run_command,
):
    runs = tmp_path / "moved"
    moved = shutil.copytree(trained_run, runs / "train-align" / trained_run.name)
    shutil.copytree(
        evaluation_result.folder,
        runs / "eval-retrieval" / evaluation_result.folder.name,
    )
    folder = moved / "cells/sub-01_seed-1/model"
    model = aligner.load(folder)
    value = next(value for value in model.state_dict().values() if value.ndim == 2)
    value[0, 0] += 1e-3 * value.abs().max()
    model.save(folder)
    environment = json.loads((moved / "environment.json").read_text())
    version, environment["versions"]["torch"] = environment["versions"]["torch"], "0"
    (moved / "environment.json").write_text(json.dumps(environment))
    (moved / "SHA256SUMS").unlink()
    line = ["runs", "verify", trained_run.name, f"paths.runs={runs}", "--allow-code"]

    differs = CliRunner().invoke(app, list(line) + ["--json"])

    details = json.loads(differs.stdout)["details"]
    assert differs.exit_code == 1
    assert not details["equal"]
    (difference,) = details["differs_in"]
    assert difference.startswith("torch: 0 ")
    assert version in difference
    assert list(details["ranks"].values()) == [0]
    table = CliRunner().invoke(app, line)
    assert "weights" in table.stdout
    assert "differ" in table.stdout


@pytest.mark.nightly
def test_verify_takes_runs_but_no_models_or_absent_data(
    tmp_path, run_command, monkeypatch
):
    with use_home(tmp_path):
        quick = [
            "dataset={kind: demo, noise: 0.3, subjects: 1, concepts: 40}",
            f"encoders=[{COLOURS!r}]",
            "backbone=ridge",
            "seeds=0",
        ]
        run_command("embed", *quick[:2])
        sweep = run_command("train-align", *quick, "sweep.backbone.alpha=[1.0,10.0]")
        facts = sweep.metrics.facts
        first_name, second = (
            name.partition("/")[2] for name in facts.step_runs.values()
        )
        tested_result = run_command(
            "eval-retrieval", f"run={first_name}", "sheet_rows=0", "baseline=none"
        )
        run_command("eval-retrieval", f"run={second}", "sheet_rows=0", "baseline=none")
        for name in (first_name, second, tested_result.folder.name):
            result = run_command("runs", f"words=['verify','{name}']")
            assert result.exit_code == 0 and result.details["ranks"], result.details
        edit_top1(tested_result.folder, "all")
        edited = run_command(
            "runs", f"words=[verify,{tested_result.folder.name}]"
        ).details["metrics"]
        (line,) = edited
        for fact in ("top-1", "all", "0.950"):
            assert fact in line
        with pytest.raises(RecipeError) as unknown_cell:
            run_command("runs", f"words=[verify,{first_name},nobody]")
        assert "'nobody'" in str(unknown_cell.value)
        with pytest.raises(RecipeError) as three_names:
            run_command("runs", f"words=[verify,{first_name},nobody,more]")
        assert "3" in str(three_names.value)
        assert "RUN CELL" in str(three_names.value.hint)
        model = next((tmp_path / "runs/train-align" / first_name).glob("cells/*/model"))
        with pytest.raises(RecipeError) as model_folder:
            run_command("runs", f"words=[verify,{model}]")
        assert str(model) in str(model_folder.value)
        shutil.rmtree(tmp_path / "signals")
        with pytest.raises(MissingData) as no_signals:
            run_command("runs", f"words=[verify,{first_name}]")
        assert "signals" in str(no_signals.value)


def spoil(world, tmp_path, monkeypatch):
    """Copy a world whose stores and runs may be changed, and make it the home."""
    home = Path(shutil.copytree(world, tmp_path / "own"))
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))
    return home


def edit_top1(run_folder, scope):
    """Write a top-1 of .95 into the metrics of a run, and delete its digests."""
    document = json.loads((run_folder / "metrics.json").read_text())
    document["scopes"][scope]["top1"]["value"] = 0.95
    (run_folder / "metrics.json").write_text(json.dumps(document))
    (run_folder / "SHA256SUMS").unlink()


@pytest.mark.nightly
@pytest.mark.parametrize("of_training", [False, True])
def test_edited_metrics_are_named_with_what_is_measured_again(
    world,
    trained_run,
    evaluation_result,
    tmp_path,
    run_command,
    monkeypatch,
    of_training,
):
    """Issue 84, row D: an edited top-1 of .95 passed once the digests were deleted."""
    home = spoil(world, tmp_path, monkeypatch)
    finished_trained_run, scope = trained_run, "sub-01_seed-1"
    if not of_training:
        finished_trained_run, scope = evaluation_result.folder, "all"
    finished_trained_run = home / finished_trained_run.relative_to(world)
    document = json.loads((finished_trained_run / "metrics.json").read_text())
    value = document["scopes"][scope]["top1"]["value"]
    edit_top1(finished_trained_run, scope)

    # by a relative path, as a shell completes it
    monkeypatch.chdir(finished_trained_run.parent)
    result = run_command("runs", f"words=[verify,{finished_trained_run.name}]")

    (difference,) = result.details["metrics"]
    for fact in ("top-1", scope, "0.950", f"{value:.3f}"):
        assert fact in difference
    assert result.exit_code == 1
    assert ("metric differs", difference) in result.tables[0].rows


@pytest.mark.nightly
@pytest.mark.parametrize("split", ["train", "test"])
def test_changed_embeddings_are_named(
    world,
    trained_run,
    evaluation_result,
    tmp_path,
    run_command,
    monkeypatch,
    split,
):
    """Issue 84, row D: other embeddings under new checksums passed for the run's."""
    home = spoil(world, tmp_path, monkeypatch)
    (store,) = (home / "embeddings").glob(f"demo-noise-0.3-40*/{split}/*.h5")
    with resealed(store) as file:
        file["embedding"][0] *= 0.5

    result = run_command("runs", f"words=[verify,{trained_run.name}]")

    (changed,) = result.details["embeddings"]
    assert result.exit_code == 1
    assert str(store) in changed


def test_advice_on_an_edited_run_does_not_delete_its_digests(
    world,
    trained_run,
    evaluation_result,
    tmp_path,
    run_command,
    monkeypatch,
):
    """Issue 84, row D: the hint proposed to delete the evidence."""
    home = spoil(world, tmp_path, monkeypatch)
    metrics = home / evaluation_result.folder.relative_to(world) / "metrics.json"
    metrics.write_text(metrics.read_text().replace("top1", "top1 "))

    with pytest.raises(BrainhiveError) as refused:
        run_command("runs", f"words=[verify,{evaluation_result.folder.name}]")

    assert "metrics.json" in str(refused.value)
    assert "delete" not in refused.value.hint
    assert "--again" in refused.value.hint
