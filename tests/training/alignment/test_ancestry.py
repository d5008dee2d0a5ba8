"""Four ways to a wrong number without a word, each refused or stamped; and what must raise no alarm."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SELECTED_ON_TEST, SIMULATED, UNKNOWN_HISTORY
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.learned import FILE

THREE = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"
WEIGHTS = "model.safetensors"


@pytest.fixture
def here(world: Path, tmp_path: Path) -> tuple[str, ...]:
    """Overrides that give this test runs of its own, of short trainings."""
    return f"paths.runs={tmp_path / 'runs'}", "train.epochs=1"


@pytest.fixture
def own_signals(tmp_path: Path, world: Path) -> str:
    """An override that gives this test a copy of the signals, which it may replace."""
    shutil.copytree(world / "signals", tmp_path / "signals")
    return f"paths.signals={tmp_path / 'signals'}"


def model_in(run: Path, cell: str) -> Path:
    return run / "cells" / cell / "model"


def replace_signals(signals: Path, subject: int, **changes: object) -> Path:
    """Write a subject's store again, its recordings changed as `dataclasses.replace` does."""
    (path,) = signals.glob(f"demo-noise-0.3-40-concepts/default/sub-{subject:02d}.h5")
    recordings = {
        split: replace(recording, signal=np.array(recording.signal), **changes)
        for split, recording in SignalStore.open(path).splits.items()
    }
    path.unlink()
    SignalStore.write(path, recordings)
    return path


def test_a_subject_whom_a_start_was_trained_on_is_no_new_one_by_whatever_way_the_start_is_named(
    go, small, here, tmp_path
):
    joint = go("train-align", *small, THREE, *here, "mode=joint", "subjects=1,2").folder
    folder = model_in(joint, "all_seed-1")
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in (WEIGHTS, FILE):
        shutil.copy(folder / name, copied / name)
    inter = ("train-align", *small, THREE, *here, "mode=inter", "subjects=1,3", "trained_on=2,3")

    ways = {
        "run": joint.name,
        "model folder": folder,
        "part": f"{{backbone: {joint.name}}}",
        "weight file": f"{{backbone: {folder / WEIGHTS}}}",
        "copied file": f"{{backbone: {copied / WEIGHTS}}}",
    }
    for way in ways.values():
        with pytest.raises(
            BrainhiveError, match=r"sub-01_seed-1.* tested on new subjects.* subject 1 of demo"
        ):
            go(*inter, f"train.start_from={way}")
    staged = [override for override in inter if not override.startswith(("train.lr", "train.epochs"))]
    stages = f"[{{epochs: 1, lr: 2e-3}}, {{epochs: 1, lr: 2e-3, start_from: {joint.name}}}]"
    with pytest.raises(BrainhiveError, match="new subjects"):
        go(*staged, f"train.stages={stages}")


def test_a_start_of_other_subjects_and_a_fresh_training_raise_no_alarm(go, small, here):
    alone = go("train-align", *small, THREE, *here, "mode=intra", "subjects=3").folder
    started = ("mode=inter", "subjects=1,2", "trained_on=1,2", f"train.start_from={alone.name}")

    inter = go("train-align", *small, THREE, *here, *started)
    evaluated = go("eval-retrieval", f"run={inter.folder}", here[0], "sheet_rows=0").metrics

    assert evaluated.caveats == [SIMULATED]
    learned = aligners.learned_in(model_in(inter.folder, "sub-01_seed-1"))
    assert learned.people == {"demo-noise-0.3-40-concepts": (2, 3)} and set(learned.signals) == {
        f"signals demo-noise-0.3-40-concepts/default/sub-0{subject}" for subject in (2, 3)
    }


def test_a_model_that_was_tuned_to_a_subject_by_an_ancestor_is_refused_where_it_is_opened(
    go, small, here, tmp_path
):
    inter = go("train-align", *small, THREE, *here, "mode=inter", "subjects=1", "trained_on=2,3").folder
    folder = model_in(inter, "sub-01_seed-1")
    model = aligners.load(folder)
    model.learned = replace(model.learned, people={"demo-noise-0.3-40-concepts": (1, 2, 3)})
    model.save(folder)  # as by a version that did not compare
    (inter / "SHA256SUMS").unlink()

    with pytest.raises(
        BrainhiveError, match=r"is to be tested on new subjects.* subject 1 of demo-noise-0.3-40-concepts"
    ):
        go("eval-retrieval", f"run={inter}", here[0], "sheet_rows=0")


def test_weights_selected_on_test_keep_that_when_they_are_copied_and_lose_it_only_for_history_unknown(
    go, small, here, tmp_path
):
    on_test = go("train-align", *small, *here, "mode=joint", "train.selection=test", "train.validation=0")
    folder, copied = model_in(on_test.folder, "all_seed-1"), tmp_path / "copied"
    copied.mkdir()
    shutil.copy(folder / WEIGHTS, copied / "weights.safetensors")
    start = ("mode=joint", f"train.start_from={{backbone: {copied / 'weights.safetensors'}}}")

    unknown = go("train-align", *small, *here, *start)
    shutil.copy(folder / FILE, copied)
    known = go("train-align", *small, *here, *start, "seeds=2")

    for made, caveat in ((unknown, UNKNOWN_HISTORY), (known, SELECTED_ON_TEST)):
        assert caveat in made.metrics.caveats
        evaluated = go("eval-retrieval", f"run={made.folder}", here[0], "sheet_rows=0").metrics
        assert all(caveat in metric.caveats for metric in evaluated.overall.values())
        assert caveat not in evaluated.scopes["ceiling · all"]["top1"].caveats  # which no model has a part in
    assert UNKNOWN_HISTORY not in known.metrics.caveats


def test_other_signals_under_the_same_name_make_another_run_and_the_same_ones_find_it_again(
    go, small, here, own_signals, tmp_path
):
    training = ("train-align", *small, *here, own_signals, "mode=intra", "subjects=1")
    first = go(*training)
    evaluation = ("eval-retrieval", f"run={first.folder}", here[0], own_signals, "sheet_rows=0")
    tested = go(*evaluation)
    path = replace_signals(tmp_path / "signals", 1)  # the same again
    assert go(*training).folder == first.folder and go(*evaluation).folder == tested.folder
    identity = SignalStore.open(path).identity
    assert identity in (first.folder / "recipe.yaml").read_text()
    assert identity in (tested.folder / "recipe.yaml").read_text()
    assert identity in (model_in(first.folder, "sub-01_seed-1") / "config.json").read_text()

    stored = SignalStore.open(path).splits
    shifted = {split: replace(one, signal=np.array(one.signal) + 1) for split, one in stored.items()}
    path.unlink()
    SignalStore.write(path, shifted)

    changed = go(*evaluation)
    assert changed.folder != tested.folder and not tested.metrics.facts.warnings
    line, *_ = changed.metrics.facts.warnings
    assert (
        line
        == "signals demo-noise-0.3-40-concepts/default/sub-01 has changed since models were trained on it"
    )
    assert go(*training).folder != first.folder


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"unit": "V"}, "unit V, not uV"),
        ({"provenance": {}}, "signals recorded, not simulated"),
        (
            {"provenance": {"simulated": "so", "preparation": {"kind": "recording", "band_hz": [1, 40]}}},
            "unlike",
        ),
    ],
)
def test_a_model_is_not_tested_on_signals_that_were_made_in_another_way(
    go, small, here, own_signals, tmp_path, changes, difference
):
    run = go("train-align", *small, *here, own_signals, "mode=intra", "subjects=1").folder
    replace_signals(tmp_path / "signals", 1, **changes)
    evaluation = ("eval-retrieval", f"run={run}", here[0], own_signals, "sheet_rows=0")

    if difference == "unlike":  # nothing is known of the preparation of one side
        go(*evaluation)
        return
    with pytest.raises(BrainhiveError, match=rf"was made in another way .*: {difference}"):
        go(*evaluation)
