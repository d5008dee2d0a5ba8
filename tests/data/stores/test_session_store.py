"""Sessions as stores of single trials, and their union by stimulus."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.session_store import join_sessions, write_session
from brainhive_cli.data.stores.signal_store import SignalStore

C, T = 3, 5


def trials(ids, first, **fields):
    """Trials whose values are first, first + 1, …"""
    values = np.arange(first, first + len(ids), dtype=np.float32)
    made = {
        "signal": np.broadcast_to(
            values[:, None, None, None], (len(ids), 1, C, T)
        ).copy(),
        "image_ids": ids,
        "space": Sensors(("O1", "Oz", "O2")),
        "times_s": np.arange(T) / 250,
        "rate_hz": 250.0,
        "unit": "whitened",
        "whiteners": np.eye(C)[None] * (first + 1),
        "provenance": {"dropped": {"target": 1}},
    }
    return Trials(**{**made, **fields})


def stores(tmp_path, *sessions, dtype="float32"):
    for number, session in enumerate(sessions, 1):
        write_session(tmp_path / f"{number}.h5", number, {"train": session}, dtype)
    return [
        SignalStore.open(tmp_path / f"{number}.h5")
        for number in range(1, len(sessions) + 1)
    ]


def test_repetitions_come_by_session_and_time_with_ragged_counts(tmp_path):
    found = stores(tmp_path, trials(["b", "a", "b"], 0), trials(["c", "b"], 10))

    made = join_sessions(found, None, {"subject": 7})["train"]

    assert list(made.image_ids) == ["a", "b", "c"] and made.repetitions.tolist() == [
        1,
        3,
        1,
    ]
    assert made.sessions.tolist() == [[0, -1, -1], [0, 0, 1], [1, -1, -1]]
    assert made.signal[0:3][:, :, 0, 0].tolist() == [[1, 0, 0], [0, 2, 11], [10, 0, 0]]
    assert made.signal[1:2].shape == (1, 3, C, T) and made.signal.shape == (3, 3, C, T)
    np.testing.assert_array_equal(made.whiteners, [np.eye(C), 11 * np.eye(C)])
    assert made.provenance["subject"] == 7
    assert [each["trials"] for each in made.provenance["sessions"]] == [3, 2]
    SignalStore.write(tmp_path / "whole.h5", {"train": made})
    again = SignalStore.open(tmp_path / "whole.h5")["train"]
    np.testing.assert_array_equal(again.signal, made.signal[0:3])


def test_onsets_of_trials_are_kept_where_every_session_knows_them(tmp_path):
    timed = [
        trials(["b", "a", "b"], 0, onset_s=np.array([[0.5], [1], [1.5]])),
        trials(["c", "b"], 10, onset_s=np.array([[0.25], [2]])),
    ]
    made = join_sessions(stores(tmp_path, *timed), None, {})["train"]
    SignalStore.write(tmp_path / "whole.h5", {"train": made})
    again = SignalStore.open(tmp_path / "whole.h5")
    nan = np.nan
    np.testing.assert_array_equal(
        again["train"].onset_s, [[1, nan, nan], [0.5, 1.5, 2], [0.25, nan, nan]]
    )
    chosen = again["train"].hold_out(
        np.array([[True, False, False], [False, True, True], [False] * 3]), "test"
    )
    assert chosen.onset_s.ravel().tolist() == [1, 1.5, 2]

    assert (
        join_sessions(stores(tmp_path, timed[0], trials(["b"], 10)), None, {})[
            "train"
        ].onset_s
        is None
    )
    with pytest.raises(BrainhiveError, match="onsets"):
        trials(["b", "a"], 0, onset_s=np.array([[0.5], [nan]]))


def test_sessions_of_other_channels_are_refused(tmp_path):
    found = stores(
        tmp_path, trials(["a"], 0), trials(["a"], 0, space=Sensors(("O1", "Oz", "Pz")))
    )
    with pytest.raises(
        BrainhiveError, match="session 1 and session 2 differ in their channels"
    ):
        join_sessions(found, None, {})


def test_float16_is_kept_and_what_does_not_fit_it_is_refused(tmp_path):
    (found,) = stores(tmp_path, trials(["a", "b"], 0), dtype="float16")
    assert found["train"].signal.dtype == np.float16
    assert join_sessions([found], None, {})["train"].signal.dtype == np.float16
    with pytest.raises(
        BrainhiveError, match="signals of up to 70001 do not fit float16"
    ):
        stores(tmp_path, trials(["a", "b"], 70_000), dtype="float16")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == [
        "1.h5"
    ]
