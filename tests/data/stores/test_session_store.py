"""Sessions as stores of single trials, joined by stimulus."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.session_store import complete_session, join_sessions
from brainhive_cli.data.stores.signal_store import SignalStore

C, T = 3, 5


def make_trials(ids, first_number, **fields):
    """Make trials with the values first, first + 1, …"""
    values = np.arange(first_number, first_number + len(ids), dtype=np.float32)
    signal = np.broadcast_to(values[:, None, None, None], (len(ids), 1, C, T))
    defaults = {
        "signal": signal.copy(),
        "image_ids": ids,
        "space": Sensors(("O1", "Oz", "O2")),
        "times_s": np.arange(T) / 250,
        "rate_hz": 250.0,
        "unit": "whitened",
        "whiteners": np.eye(C)[None] * (first_number + 1),
        "provenance": {"dropped": {"target": 1}},
    }
    return Trials.from_repetitions(**{**defaults, **fields})


def write_sessions(tmp_path, *sessions, dtype="float32"):
    """Write sessions, and open their stores."""
    for number, session in enumerate(sessions, 1):
        stored = complete_session(number, {"train": session}, dtype)
        SignalStore.write(tmp_path / f"{number}.h5", stored)
    return [
        SignalStore.open(tmp_path / f"{number}.h5")
        for number in range(1, len(sessions) + 1)
    ]


def test_repetitions_come_by_session_and_time_with_ragged_counts(tmp_path):
    written_sessions = write_sessions(
        tmp_path, make_trials(["b", "a", "b"], 0), make_trials(["c", "b"], 10)
    )

    joined = join_sessions(written_sessions, None, {"subject": 7})["train"]

    assert list(joined.image_ids) == ["a", "b", "b", "b", "c"]
    assert joined.repetitions.tolist() == [1, 3, 1]
    assert joined.sessions.tolist() == [0, 0, 0, 1, 1]
    assert joined.signal[0:5][:, 0, 0].tolist() == [1, 0, 2, 11, 10]
    assert joined.signal[1:2].shape == (1, C, T)
    assert joined.signal.shape == (5, C, T)
    assert joined.signal[[4, 0]][:, 0, 0].tolist() == [10, 1]
    np.testing.assert_array_equal(joined.whiteners, [np.eye(C), 11 * np.eye(C)])
    assert joined.provenance["subject"] == 7
    sessions = joined.provenance["sessions"]
    assert [session["trials"] for session in sessions] == [3, 2]
    SignalStore.write(tmp_path / "whole.h5", {"train": joined})
    second_train = SignalStore.open(tmp_path / "whole.h5")["train"]
    np.testing.assert_array_equal(second_train.signal, joined.signal[0:5])


def test_onsets_are_kept_if_every_session_has_them(tmp_path):
    timed = [
        make_trials(["b", "a", "b"], 0, onset_s=np.array([[0.5], [1], [1.5]])),
        make_trials(["c", "b"], 10, onset_s=np.array([[0.25], [2]])),
    ]
    joined = join_sessions(write_sessions(tmp_path, *timed), None, {})["train"]
    SignalStore.write(tmp_path / "whole.h5", {"train": joined})
    second_signal_store = SignalStore.open(tmp_path / "whole.h5")
    np.testing.assert_array_equal(
        second_signal_store["train"].onset_s, [1, 0.5, 1.5, 2, 0.25]
    )
    is_tested = np.array([True, False, True, True, False])
    selected_out = second_signal_store["train"].hold_out(is_tested, "test")
    assert selected_out.onset_s.tolist() == [1, 1.5, 2]

    partly_timed = write_sessions(tmp_path, timed[0], make_trials(["b"], 10))
    assert join_sessions(partly_timed, None, {})["train"].onset_s is None
    with pytest.raises(BrainhiveError, match="onsets"):
        make_trials(["b", "a"], 0, onset_s=np.array([[0.5], [np.nan]]))


def test_sessions_of_other_channels_are_refused(tmp_path):
    sessions = write_sessions(
        tmp_path,
        make_trials(["a"], 0),
        make_trials(["a"], 0, space=Sensors(("O1", "Oz", "Pz"))),
    )
    with pytest.raises(BrainhiveError, match=r"session 1 .*session 2 .*channels"):
        join_sessions(sessions, None, {})


def test_float16_is_kept_and_larger_values_are_refused(tmp_path):
    (written_trials,) = write_sessions(
        tmp_path, make_trials(["a", "b"], 0), dtype="float16"
    )
    assert written_trials["train"].signal.dtype == np.float16
    assert join_sessions([written_trials], None, {})["train"].signal.dtype == np.float16
    with pytest.raises(BrainhiveError, match=r"70001 .*float16"):
        write_sessions(tmp_path, make_trials(["a", "b"], 70_000), dtype="float16")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == [
        "1.h5"
    ]
