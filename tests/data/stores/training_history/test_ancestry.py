"""Histories of models that start from other models or from changed signals."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import (
    SELECTED_ON_TEST,
    SIMULATED,
    UNKNOWN_HISTORY,
)
from brainhive_cli.data.stores import ARRAYS_FILE, SignalStore, TrainingHistory
from brainhive_cli.training.alignment import model as aligners

THREE = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"
QUICK = ("sheet_rows=0", "ceiling_splits=0")
WEIGHTS = "model.safetensors"
DATASET = "demo-noise-0.3-40-concepts"


@pytest.fixture
def home_overrides(world, tmp_path):
    """Return overrides for short trainings in a folder of this test."""
    return f"paths.runs={tmp_path / 'runs'}", "train.epochs=1"


@pytest.fixture
def own_signals(tmp_path, world):
    """Copy the signals for this test, and return the override that selects them."""
    shutil.copytree(world / "signals", tmp_path / "signals")
    return f"paths.signals={tmp_path / 'signals'}"


def build_model_path(run_folder, cell):
    return run_folder / "cells" / cell / "model"


def replace_signals(signals, subject, **changes):
    """Write the store of a subject again, with changed fields of its recordings."""
    (path,) = signals.glob(f"{DATASET}/default/sub-{subject:02d}.h5")
    recordings = {
        split: replace(recording, signal=np.array(recording.signal), **changes)
        for split, recording in SignalStore.open(path).splits.items()
    }
    path.unlink()
    SignalStore.write(path, recordings)
    return path


def test_a_subject_of_the_start_is_not_new_under_any_name(
    run_command, align_overrides, home_overrides, tmp_path
):
    joint = run_command(
        "train-align",
        *align_overrides,
        THREE,
        *home_overrides,
        "mode=joint",
        "subjects=1,2",
    ).folder
    folder = build_model_path(joint, "all_seed-1")
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in (WEIGHTS, ARRAYS_FILE):
        shutil.copy(folder / name, copied / name)

    for start in (
        joint.name,
        folder,
        f"{{backbone: {joint.name}}}",
        f"{{backbone: {copied / WEIGHTS}}}",
    ):
        with pytest.raises(
            BrainhiveError,
            match=r"sub-01_seed-1.* subject 1 of demo",
        ):
            run_command(
                "train-align",
                *align_overrides,
                THREE,
                *home_overrides,
                "mode=inter",
                "subjects=1,3",
                "trained_on=2,3",
                f"train.start_from={start}",
            )


@pytest.mark.nightly
def test_a_start_may_know_other_subjects_but_not_the_tested_one(
    run_command, align_overrides, home_overrides
):
    first_run_folder = run_command(
        "train-align",
        *align_overrides,
        THREE,
        *home_overrides,
        "mode=intra",
        "subjects=3",
    ).folder

    inter = run_command(
        "train-align",
        *align_overrides,
        THREE,
        *home_overrides,
        "mode=inter",
        "subjects=1",
        "trained_on=2",
        f"train.start_from={first_run_folder.name}",
    ).folder
    evaluation = ("eval-retrieval", f"run={inter}", home_overrides[0]) + tuple(QUICK)

    assert run_command(*evaluation).metrics.caveats == [SIMULATED]
    folder = build_model_path(inter, "sub-01_seed-1")
    model = aligners.load(folder)
    assert model.learned.people == {DATASET: (2, 3)}
    assert set(model.learned.signals) == {
        f"signals {DATASET}/default/sub-0{subject}" for subject in (2, 3)
    }

    model.learned = replace(model.learned, people={DATASET: (1, 2, 3)})
    model.save(folder)  # as by a version that did not compare
    (inter / "SHA256SUMS").unlink()
    with pytest.raises(
        BrainhiveError,
        match=rf"subject 1 of {DATASET}",
    ):
        run_command(*evaluation, again=True)


@pytest.mark.nightly
def test_copied_weights_keep_the_caveat_of_selection_on_test(
    run_command, align_overrides, home_overrides, tmp_path
):
    single_training = (
        ["train-align"]
        + list(align_overrides)
        + list(home_overrides)
        + ["mode=joint", "subjects=1"]
    )
    on_test = run_command(
        *single_training, "train.selection=test", "train.validation=0"
    ).folder
    folder, copied = build_model_path(on_test, "all_seed-1"), tmp_path / "copied"
    copied.mkdir()
    shutil.copy(folder / WEIGHTS, copied / "weights.safetensors")
    start = f"train.start_from={{backbone: {copied / 'weights.safetensors'}}}"

    unknown = run_command(*single_training, start).metrics
    shutil.copy(folder / ARRAYS_FILE, copied)
    result = run_command(*single_training, start, "seeds=2")

    assert UNKNOWN_HISTORY in unknown.caveats
    assert UNKNOWN_HISTORY not in result.metrics.caveats
    assert SELECTED_ON_TEST in result.metrics.caveats
    evaluated = run_command(
        "eval-retrieval", f"run={result.folder}", home_overrides[0], "sheet_rows=0"
    ).metrics
    for metric in evaluated.overall.values():
        assert SELECTED_ON_TEST in metric.caveats
    ceiling = evaluated.scopes["ceiling · all"]["top1"]
    assert SELECTED_ON_TEST not in ceiling.caveats  # it does not depend on a model


@pytest.mark.nightly
def test_other_signals_under_the_same_name_make_another_run(
    run_command, align_overrides, home_overrides, own_signals, tmp_path
):
    training = (
        ("train-align",)
        + align_overrides
        + tuple(home_overrides)
        + (own_signals, "mode=intra", "subjects=1")
    )
    first_result = run_command(*training)
    evaluation = (
        "eval-retrieval",
        f"run={first_result.folder}",
        home_overrides[0],
        own_signals,
    ) + tuple(QUICK)
    result = run_command(*evaluation)
    # the same signals, written again
    path = replace_signals(tmp_path / "signals", 1)
    assert run_command(*training).folder == first_result.folder
    assert run_command(*evaluation).folder == result.folder
    identity = SignalStore.open(path).identity
    for file in (first_result.folder / "recipe.yaml", result.folder / "recipe.yaml"):
        assert identity in file.read_text()
    model = build_model_path(first_result.folder, "sub-01_seed-1")
    assert identity in TrainingHistory.read(model).signals.values()

    stored = SignalStore.open(path).splits
    shifted = {
        split: replace(recording, signal=np.array(recording.signal) + 1)
        for split, recording in stored.items()
    }
    path.unlink()
    SignalStore.write(path, shifted)

    changed = run_command(*evaluation)
    assert changed.folder != result.folder
    assert not result.metrics.facts.warnings
    line, *_ = changed.metrics.facts.warnings
    assert line.startswith(f"signals {DATASET}/default/sub-01 has changed")
    assert run_command(*training).folder != first_result.folder

    for changes, difference in (
        ({"unit": "V"}, "unit V, not uV"),
        ({"unit": "uV", "provenance": {}}, "signals recorded, not simulated"),
    ):
        replace_signals(tmp_path / "signals", 1, **changes)
        with pytest.raises(
            BrainhiveError, match=rf"was made in another way .*: {difference}"
        ):
            run_command(*evaluation)
