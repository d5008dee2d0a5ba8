"""Tests that every result of a model has the caveats of its training."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.documents import SHA256SUMS
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results.measurements import (
    CALIBRATED,
    CAVEATS,
    NORMALISED_BY_TESTED,
    SELECTED_ON_TEST,
    SIMULATED,
    UNKNOWN_HISTORY,
    WHITENED_BY_TESTED,
)
from brainhive_cli.data.stores import SignalStore, TrainingHistory
from brainhive_cli.reports.sentences.sentences import MEANINGS, explain_caveats
from brainhive_cli.training.alignment.recipe import Recipe
from tests.tools.changed_stores import resealed
from tests.worlds.command_fixtures import paint_pictures

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
THREE = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"
QUICK = ("sheet_rows=0", "baseline=none", "ceiling_splits=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def selected_on_test(run_command, align_overrides, home, shared_world):
    """Joint run of subjects 1 and 2, with the epoch selected on the test set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(shared_world))
        return run_command(
            "train-align",
            *align_overrides,
            THREE,
            "mode=joint",
            "subjects=1,2",
            "train.epochs=2",
            "train.selection=test",
            f"paths.runs={home}",
        )


@pytest.fixture
def own_home(world, home, selected_on_test):
    """Override that gives this module a folder of runs of its own."""
    return f"paths.runs={home}"


def has_caveat(result, caveat):
    """Return True if the finding and every table of a result have a caveat."""
    explanations = " ".join(explain_caveats(result.metrics))
    if MEANINGS[caveat] not in explanations:
        return False
    return all(caveat in f"{table.title} {table.note}" for table in result.tables)


def assert_caveats(result, *caveats):
    """Assert that a result and all its numbers have these caveats and no others."""
    assert set(result.metrics.caveats) == set(caveats)
    for caveat in caveats:
        assert has_caveat(result, caveat)
    rows = str(result.tables[0].rows)
    assert {caveat for caveat, sign in CAVEATS.items() if sign in rows} == set(caveats)

    # a ceiling does not depend on a model
    for scope, metrics in result.metrics.scopes.items():
        if not scope.startswith("ceiling"):
            for metric in metrics.values():
                assert all(caveat in metric.protocol for caveat in caveats)


def test_fine_tuning_keeps_the_caveat_of_selection_on_test(
    run_command, align_overrides, own_home, selected_on_test
):
    result = run_command(
        "train-align",
        *align_overrides,
        own_home,
        "mode=finetune",
        "train.epochs=1",
        "train.lr=1e-7",
        f"finetune.run={selected_on_test.folder.name}",
    )

    assert has_caveat(result, SELECTED_ON_TEST)
    assert result.metrics.facts.cells["sub-03_seed-1"].selected_on == "test"
    learned = TrainingHistory.read(result.folder / "cells/sub-03_seed-1/model")
    assert learned.selection == "test"
    assert learned.people == {"demo-noise-0.3-40-concepts": (1, 2, 3)}
    evaluated = run_command("eval-retrieval", own_home, f"run={result.folder}", *QUICK)
    assert_caveats(evaluated, SIMULATED, SELECTED_ON_TEST)


def test_a_model_folder_keeps_caveats_or_says_they_are_unknown(
    run_command, own_home, selected_on_test
):
    model = selected_on_test.folder / "cells/all_seed-1/model"
    evaluation = ("eval-retrieval", f"run={model}", own_home, THREE) + tuple(QUICK)
    evaluated = run_command(*evaluation, "subjects=1")
    assert_caveats(evaluated, SIMULATED, SELECTED_ON_TEST)

    # the protocol says which test subjects the model does not know
    protocol = run_command(*evaluation, "subjects=1,3").metrics.facts.protocol
    assert "trained on subject 1" in protocol
    assert "new subject 3" in protocol

    # a model without a record of its training
    config = model / "config.json"
    text = config.read_text()
    fields = json.loads(text)
    del fields["learned"]
    (selected_on_test.folder / SHA256SUMS).unlink(missing_ok=True)
    config.write_text(json.dumps(fields))
    try:
        evaluated = run_command(*evaluation, "subjects=1", again=True)
        assert_caveats(evaluated, SIMULATED, UNKNOWN_HISTORY)
    finally:
        config.write_text(text)


@pytest.mark.nightly
def test_a_caveat_of_one_run_spreads_to_ensemble_and_comparison(
    run_command, align_overrides, own_home, selected_on_test
):
    clean = run_command(
        "train-align",
        *align_overrides,
        THREE,
        own_home,
        "mode=joint",
        "subjects=1,2",
        "train.epochs=2",
    )
    assert not has_caveat(clean, SELECTED_ON_TEST)

    both_result = run_command(
        "eval-retrieval",
        own_home,
        f"run={clean.folder.name},{selected_on_test.folder.name}",
        *QUICK,
    )
    assert_caveats(both_result, SIMULATED, SELECTED_ON_TEST)

    compared = run_command(
        "eval-retrieval",
        own_home,
        f"run={clean.folder.name}",
        f"against={selected_on_test.folder.name}",
        *QUICK,
    )
    assert compared.metrics.caveats == [SIMULATED]
    (difference,) = compared.metrics.facts.against
    assert SELECTED_ON_TEST in difference.caveats


@pytest.fixture
def signals(world, tmp_path):
    """Override that gives this test copies of the signal stores."""
    shutil.copytree(world / "signals", tmp_path / "signals")
    return f"paths.signals={tmp_path / 'signals'}"


@pytest.mark.nightly
def test_a_person_with_two_numbers_or_data_sets_is_refused(
    run_command, align_overrides, own_home, signals, tmp_path
):
    """A model would be tested on a person on whom it was trained."""
    stores = tmp_path / "signals/demo-noise-0.3-40-concepts/default"
    other_stores = tmp_path / "signals/demo-noise-0.4-40-concepts/default"
    run_folder = run_command(
        "train-align",
        *align_overrides,
        own_home,
        signals,
        "mode=joint",
        "subjects=1",
        "train.epochs=1",
    ).folder
    shutil.copy(stores / "sub-01.h5", stores / "sub-02.h5")
    shutil.copytree(stores, other_stores)

    # two numbers in a data set
    facts = "subject 2: 960 of 960 .* subject 1.* training_images"
    with pytest.raises(BrainhiveError, match=facts):
        run_command(
            "train-align",
            *align_overrides,
            own_home,
            signals,
            "mode=joint",
            "subjects=1,2",
        )
    (stores / "sub-01.h5").unlink()
    model = f"run={run_folder}/cells/all_seed-1/model"
    # another number, or another data set, than in the training
    other_dataset = "dataset={kind: demo, noise: 0.4, subjects: 2, concepts: 40}"
    run_command("embed", other_dataset, COLOURS)
    for overrides in (
        (model, align_overrides[0], "subjects=2"),
        (f"run={run_folder}", other_dataset, "subjects=1"),
    ):
        with pytest.raises(BrainhiveError, match=r"\d+ of \d+ .*cop"):
            run_command("eval-retrieval", own_home, signals, *overrides, *QUICK)


@pytest.mark.nightly
def test_normalisation_is_fitted_to_the_other_subjects(
    run_command, align_overrides, own_home, signals, tmp_path
):
    run_folder = run_command(
        "train-align",
        *align_overrides,
        THREE,
        own_home,
        signals,
        "mode=inter",
        "train.epochs=1",
        "signal.normalise=channel",
        "signal.normalise_by=training_subjects",
    ).folder
    stores = tmp_path / "signals/demo-noise-0.3-40-concepts/default"
    means, variances = [], []
    for subject in (2, 3):
        with h5py.File(stores / f"sub-{subject:02d}.h5") as file:
            trials = np.asarray(file["train/signal"], np.float64)  # [n, C, T]
            repetitions = trials.reshape(
                len(file["train/repetitions"]), -1, *trials.shape[1:]
            )
            average = 0.2 * repetitions.mean(1)
        means.append(average.mean((0, 2)))
        variances.append(average.var((0, 2)))
    normaliser = aligner.load(
        run_folder / "cells/sub-01_seed-1/model"
    ).learned.normaliser
    np.testing.assert_allclose(
        normaliser.mean[:, 0], np.mean(means, 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        normaliser.matrix[:, 0], np.mean(variances, 0) ** -0.5, rtol=1e-4
    )

    # the training signals of the test subject do not change its ranks
    evaluation = (
        "eval-retrieval",
        own_home,
        signals,
        f"run={run_folder}",
        "subjects=1",
    ) + tuple(QUICK)
    initial_result = run_command(*evaluation)
    with resealed(stores / "sub-01.h5") as file:
        file["train/signal"][:, ::2] *= 5
    final_result = run_command(*evaluation, again=True)
    assert_caveats(initial_result, SIMULATED)
    assert read_ranks(initial_result) == read_ranks(final_result)
    assert "channel" in initial_result.metrics.facts.protocol


def read_ranks(result):
    """Read the ranks of subject 1."""
    ranks = result.metrics.items["sub-01_seed-1 · sub-01"]["ranks"]
    return ranks


@pytest.mark.parametrize(
    ("normalise_by", "caveat"),
    [("subject", CALIBRATED), ("tested_trials", NORMALISED_BY_TESTED)],
)
def test_normalisation_by_the_left_out_subject_is_a_caveat(
    run_command, align_overrides, own_home, signals, normalise_by, caveat
):
    run_folder = run_command(
        "train-align",
        *align_overrides,
        own_home,
        signals,
        "mode=inter",
        "train.epochs=1",
        "signal.normalise=channel",
        f"signal.normalise_by={normalise_by}",
    ).folder
    evaluated = run_command(
        "eval-retrieval", own_home, signals, f"run={run_folder}", "subjects=1", *QUICK
    )
    assert_caveats(evaluated, SIMULATED, caveat)
    assert (
        aligner.load(run_folder / "cells/sub-01_seed-1/model").learned.normaliser
        is None
    )


def test_a_rank_does_not_depend_on_other_test_signals(
    run_command, align_overrides, own_home, signals, tmp_path
):
    """If statistics of the test signals leaked, all ranks would change."""
    run_folder = run_command(
        "train-align",
        *align_overrides,
        own_home,
        signals,
        "subjects=1",
        "train.epochs=1",
        "signal.normalise=template",
    ).folder
    evaluation = ("eval-retrieval", own_home, signals, f"run={run_folder}") + tuple(
        QUICK
    )

    initial_ranks = read_ranks(run_command(*evaluation))
    store = tmp_path / "signals/demo-noise-0.3-40-concepts/default/sub-01.h5"
    with resealed(store) as file:
        signal = file["test/signal"]  # [n, C, T]
        signal[800:] = 5 * signal[800:][::-1] + 20
    final_ranks = read_ranks(run_command(*evaluation, again=True))

    assert initial_ranks[:50] == final_ranks[:50]
    assert initial_ranks[50:] != final_ranks[50:]


@pytest.fixture
def real_recordings(signals, runs, run_command, tmp_path):
    """Overrides for embedded real pictures, with signals copied from the demo."""
    root = paint_pictures(tmp_path / "real", concepts=8, pictures_per_concept=6)
    overrides = [
        f"dataset={{kind: image-folder, root: {root}, test_share: 0.25}}",
        f"paths.embeddings={tmp_path / 'embeddings'}",
    ]
    dataset = Recipe.resolve("train-align", None, {}, overrides).dataset.build(Paths())
    store = tmp_path / "signals/demo-noise-0.3-40-concepts/default/sub-01.h5"
    copies = {}
    for split, recording in SignalStore.open(store).splits.items():
        ids = list(dataset.images(split).image_ids)
        selected = recording.take(np.arange(len(ids)))
        new_ids = np.repeat(ids, selected.counts).tolist()
        copies[split] = replace(selected, image_ids=new_ids, index=None)
    SignalStore.write(tmp_path / "signals/real/default/sub-01.h5", copies)
    run_command("embed", *overrides, COLOURS)
    return tuple(overrides) + (signals, runs)


def train_and_evaluate(run_command, align_overrides, real_recordings):
    """Train on the real pictures, and evaluate the model."""
    result = run_command(
        "train-align",
        *align_overrides,
        *real_recordings,
        "train.epochs=1",
        "subjects=1",
    )
    return result, run_command(
        "eval-retrieval", *real_recordings[1:], f"run={result.folder}", *QUICK
    )


def test_whitening_by_test_trials_is_a_caveat_everywhere(
    run_command, align_overrides, real_recordings, tmp_path
):
    preparation = {"kind": "things-eeg", "whiten": "epochs", "whiten_by": "both"}
    provenance = {"preparation": preparation}
    with resealed(tmp_path / "signals/real/default/sub-01.h5") as store:
        provenance_of = {"train": provenance, "test": provenance}
        store.attrs["provenance"] = json.dumps(provenance_of)
    trained, evaluated = train_and_evaluate(
        run_command, align_overrides, real_recordings
    )
    assert trained.metrics.caveats == [WHITENED_BY_TESTED]
    assert has_caveat(trained, WHITENED_BY_TESTED)
    assert_caveats(evaluated, WHITENED_BY_TESTED)
