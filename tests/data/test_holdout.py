"""What a fold holds out: pictures, trials, runs or sessions, and what must not have
been fitted to them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.measurements import NORMALISED_BY_TESTED, SEEN_PICTURES
from brainhive_cli.data.holdout import Holdout, read_split
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials


def record(
    runs: Any = None, sessions: Any = None, repetitions: Any = None, **steps: Any
) -> Trials:
    """Three stimuli in four trials each; a trial's value is its number."""
    signal = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)
    arrays = {
        "runs": None if runs is None else np.array(runs, np.int16),
        "sessions": None if sessions is None else np.array(sessions, np.int8),
        "repetitions": None if repetitions is None else np.array(repetitions),
    }
    about = {"preparation": steps} if steps else {}
    return Trials(
        signal,
        ["a", "b", "c"],
        Sensors(["Oz"]),
        np.zeros(1),
        None,
        "µV",
        about,
        **arrays,
    )


IN_FOUR_RUNS = [[0, 1, 2, 3]] * 3


def test_every_trial_is_tested_in_one_fold_and_runs_are_not_divided() -> None:
    recording, holdout = record(IN_FOUR_RUNS), Holdout(by="runs", folds=4)

    masks = [
        holdout.hold_out_trials(recording, fold, "here")
        for fold in holdout.fold_numbers
    ]

    assert (np.sum(masks, 0) == 1).all()
    assert [np.unique(np.array(IN_FOUR_RUNS)[mask]).tolist() for mask in masks] == [
        [0],
        [1],
        [2],
        [3],
    ]


def test_trials_of_a_stimulus_are_dealt_to_folds_and_a_single_one_is_never_tested() -> (
    None
):
    runs = [[0, 0, 0, 0], [0, 0, 0, 0], [0, -1, -1, -1]]
    recording, holdout = (
        record(runs, repetitions=[4, 4, 1]),
        Holdout(by="trials", folds=4),
    )

    masks = [
        holdout.hold_out_trials(recording, fold, "here")
        for fold in holdout.fold_numbers
    ]

    assert [mask.sum() for mask in masks] == [2, 2, 2, 2] and not np.any(masks, 0)[
        2
    ].any()
    assert (np.sum(masks, 0)[:2] == 1).all()


def test_pictures_are_dealt_by_concept_and_every_fold_has_as_many() -> None:
    ids, concepts = [f"p{row}" for row in range(23)], ["six"] * 11 + ["nine"] * 12
    holdout = Holdout(by="pictures", folds=5)

    masks = [
        holdout.hold_out_pictures(ids, concepts, fold) for fold in holdout.fold_numbers
    ]

    assert [mask.sum() for mask in masks] == [4] * 5 and (np.sum(masks, 0) <= 1).all()
    # three are never tested, so that chance is the same in all folds
    assert np.sum(masks, 0).sum() == 20
    assert all(1 <= mask[:11].sum() <= 3 for mask in masks)


def test_listed_pictures_are_tested_and_unknown_ones_refused() -> None:
    ids, concepts = ["a/1", "a/2", "b/1"], ["a", "a", "b"]

    assert Holdout(by="pictures", test=["a/2"]).hold_out_pictures(
        ids, concepts, 1
    ).tolist() == [
        False,
        True,
        False,
    ]
    for names in (["a/9"], ["*"]):
        with pytest.raises(RecipeError, match=r"names (a/9, 0|[*], 3) of 3"):
            Holdout(by="pictures", test=names).hold_out_pictures(ids, concepts, 1)
    folder = Holdout(by="pictures", test=["a/*"])
    assert folder.hold_out_pictures(ids, concepts, 1).tolist() == [True, True, False]


def test_chosen_trials_are_rows_whose_values_and_runs_are_those_of_the_file() -> None:
    recording = record(IN_FOUR_RUNS)
    is_tested = Holdout(by="runs", test=[2, 4]).hold_out_trials(recording, 1, "here")

    chosen = recording.hold_out(is_tested, "test")

    assert list(chosen.image_ids) == ["a", "a", "b", "b", "c", "c"]
    assert chosen.signal[0:6].ravel().tolist() == [1, 3, 5, 7, 9, 11]
    assert chosen.signal[2:4, :, :, slice(0, 1)].ravel().tolist() == [5, 7]
    assert chosen.runs is not None and chosen.runs.ravel().tolist() == [1, 3] * 3


def test_a_run_that_was_z_scored_by_its_own_trials_is_tested_and_stamped() -> None:
    recording, holdout = record(IN_FOUR_RUNS, zscore="run"), Holdout(by="runs", folds=2)

    assert holdout.hold_out_trials(recording, 1, "here").any()
    assert holdout.caveats(recording) == [SEEN_PICTURES, NORMALISED_BY_TESTED]
    assert Holdout(by="pictures", folds=2).caveats(record(IN_FOUR_RUNS)) == []


def test_unknown_runs_and_more_folds_than_runs_are_refused() -> None:
    with pytest.raises(
        BrainhiveError, match="nothing says which trial is of which run"
    ):
        Holdout(by="runs", folds=2).hold_out_trials(record(), 1, "here")
    with pytest.raises(RecipeError, match="here has 4 runs"):
        Holdout(by="runs", folds=5).hold_out_trials(record(IN_FOUR_RUNS), 5, "here")
    with pytest.raises(RecipeError, match="names run 7: here has 4"):
        Holdout(by="runs", test=[7]).hold_out_trials(record(IN_FOUR_RUNS), 1, "here")


def test_signals_that_were_fitted_to_held_out_trials_are_refused_with_the_line() -> (
    None
):
    for steps in ({"zscore": "session"}, {"whiten": "epochs"}, {"max_voxels": 100}):
        with pytest.raises(BrainhiveError, match="was fitted to all trials") as error:
            Holdout(by="runs", folds=2).hold_out_trials(
                record(IN_FOUR_RUNS, **steps), 1, "here"
            )
        assert f"preparation.{next(iter(steps))}=" in error.value.hint


def test_a_holdout_says_once_how_much_and_run_1_of_two_sessions_is_two() -> None:
    recording = record([[0, 1, 0, 1]] * 3, [[0, 0, 1, 1]] * 3)
    third = Holdout(by="runs", test=[3]).hold_out_trials(recording, 1, "here")
    second = Holdout(by="sessions", test=[2]).hold_out_trials(recording, 1, "here")
    assert third[0].tolist() == [False, False, True, False]
    assert second[0].tolist() == [False, False, True, True]
    last = Holdout(by="sessions", test=[-1]).hold_out_trials(recording, 1, "here")
    assert (last == second).all()
    for fields in ({}, {"folds": 2, "share": 0.5}, {"split": "a.json"}):
        with pytest.raises(RecipeError):
            Holdout.model_validate({"by": "runs", **fields})


def test_a_split_of_more_variants_than_models_can_be_trained_is_refused(
    tmp_path: Path,
) -> None:
    variant = {"train_ids": ["a"], "test_ids": ["b"]}
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"variants": [variant] * 1000}))
    assert len(read_split(path)) == 1000
    path.write_text(json.dumps({"variants": [variant] * 1001}))
    with pytest.raises(BrainhiveError, match=r"split\.json.*1,001"):
        read_split(path)
