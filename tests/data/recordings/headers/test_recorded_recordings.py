"""Channels, codes and names of recordings, compared with recorded values."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.files.bids_labels import (
    find_pattern,
    get_session_numbers,
    natural_key,
    number_session,
    number_sessions,
    number_subjects,
    read_label,
    read_session,
)
from brainhive_cli.data.preparations.recording import choose_trials
from brainhive_cli.data.recordings import (
    Header,
    compare_rates_and_references,
    compare_subjects,
    describe_channels,
    group_by_entry,
    keep_channels,
    list_unusual_channels,
)
from brainhive_cli.data.recordings.channels import describe_size
from brainhive_cli.data.recordings.stim_channels import (
    _combine_lines,
    _round_codes,
    drop_repeats,
    find_code_changes,
)
from brainhive_cli.data.signals import Cutting, Sensors, Steps, Trials
from brainhive_cli.data.stores.session_store import (
    cast_signal,
    complete_session,
    join_sessions,
)
from brainhive_cli.data.stores.signal_store import (
    SignalStore,
    count_bytes,
    describe_difference,
    list_store_subjects,
)

NAMES = ("Fp1", "FC5.", "Oz", "HEOG", "X7", "TRIG", "M1")
TYPES = ("eeg", "eeg", "eeg", "eeg", "eeg", "stim", "mag")


def header(**changes):
    """Make the header of a recording with EEG, trigger and MEG channels."""
    values = {
        "ch_names": NAMES,
        "ch_types": TYPES,
        "bads": ("X7",),
        "positions": np.full((7, 3), np.nan),
        "rate_hz": 500.0,
        "filtered_hz": (0.1, 100.0),
        "n_times": 9000,
        "events": tuple((300 + 611 * row, "abc"[row % 3]) for row in range(15)),
        "bad_spans": ((1500, 1600, "BAD"), (4000, 4000, "boundary")),
        "event_source": "annotations",
        "variances": np.array([100, 90, 0, 2e4, 80, 1, 1e-6]) * 1e-12,
        "events_without_onset": ("a", "z"),
        "reference": "as recorded",
        "compensation_grade": None,
        "warnings": (),
    }
    return Header(**{**values, **changes})


PATHS = [Path(f"sub-{number:02d}.fif") for number in range(1, 5)]


def test_channels(recorded):
    first_header = header()
    second = header(bads=("Fp1",), rate_hz=512.0, reference="average")
    selections = {
        "default": keep_channels({PATHS[0]: first_header}, None, (), (), False),
        "two files": keep_channels(
            {PATHS[0]: first_header, PATHS[1]: second}, None, (), ("Oz",), False
        ),
        "by name": keep_channels(
            {PATHS[0]: first_header}, None, ("X7", "Oz", "Fp1"), ("Oz",), False
        ),
    }
    rows = {}
    for name, channels in selections.items():
        unusual = list(list_unusual_channels(channels))
        rows[name] = {
            "names": [NAMES.index(channel) for channel in channels.ch_names],
            "variances": channels.measure_variances(PATHS[0]),
            "described": describe_channels(channels),
            "unusual": [[text, len(names)] for text, names in unusual],
        }
    other_channels = keep_channels({PATHS[1]: second}, None, (), (), False)
    turned = keep_channels(
        {PATHS[2]: first_header},
        None,
        list(selections["default"].ch_names[::-1]),
        (),
        False,
    )
    subjects = {1: selections["default"], 3: other_channels, 4: selections["default"]}
    found_subjects = [
        compare_subjects(subjects_compared, suspects, ["EOG9"])
        for subjects_compared in (
            subjects,
            {1: selections["default"], 2: turned},
            {5: other_channels},
        )
        for suspects in ((), ("HEOG",))
    ]
    recorded(
        digits=5,
        rows=rows,
        compared=[
            ([len(lines)] + list(lines) + [difference])
            for lines, difference in found_subjects
        ],
        facts=list(compare_rates_and_references(subjects, None))
        + list(compare_rates_and_references(subjects, 250)),
        sizes=[
            describe_size(kind, spread)
            for kind, spread in (
                ("eeg", 1e-5),
                ("eeg", 20.0),
                ("eeg", 1e-9),
                ("mag", 1e-13),
                ("mag", 1.0),
                ("grad", 1e-12),
                ("ecog", 1e9),
                ("eeg", 0.0),
            )
        ],
        grouped=group_by_entry({1: [(1, 2)], 2: [(1, 2), (3, 4)], 4: [(3, 4)]}),
    )


def test_channels_of_two_types_keep_their_positions():
    positions = np.arange(21.0).reshape(7, 3)
    headers = {PATHS[0]: header(positions=positions)}
    channels = keep_channels(headers, ["mag", "eeg"], (), (), True)
    assert channels.ch_names == ("Fp1", "FC5.", "Oz", "HEOG", "M1")
    np.testing.assert_array_equal(channels.space.positions, positions[[0, 1, 2, 3, 6]])
    assert not len(channels.names_without_position)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate_hz": 500.01},
        {"ch_names": tuple(NAMES[:2]) + ("O9",) + tuple(NAMES[3:])},
        {"compensation_grade": 1},
    ],
)
def test_recordings_that_differ_from_the_first_are_refused(
    changes,
):
    alike = header(
        rate_hz=500.004,
        variances=header().variances * 9e3,
        bads=(),
    )
    headers = dict(zip(PATHS, (header(), alike, header(**changes)), strict=False))
    channels = keep_channels(headers, None, (), (), False)
    channels.require_consistent(PATHS[1])
    with pytest.raises(BrainhiveError):
        channels.require_consistent(PATHS[2])


def test_spans_of_headers():
    complete_header = header()
    spans = [
        complete_header.find_bad_span(onset, (-100, 200))
        for onset in (1299, 1300, 1700, 1701, 4100, 4101)
    ]
    assert spans == ["", "BAD", "BAD", "", "boundary", ""]
    assert complete_header.breaks == [(4000, 4000)]


def test_trials_are_chosen(recorded):
    events = list(header().events) + [(911, "b"), (4577, "unknown"), (5188, "unknown")]
    events += [(8990, "c"), (50, "a"), (300, "a")]
    headers = {
        PATHS[0]: header(events=tuple(sorted(events))),
        PATHS[1]: header(n_times=2000, events_without_onset=()),
    }
    rows = {"a": 0, "b": 1, "c": 2}
    names = SimpleNamespace(
        match=lambda headers: (rows, {"events that the table does not have": ["z"]}),
        require_match=lambda *arguments: None,
    )
    splits = {"train": np.array([0, 2]), "test": np.array([1])}
    is_chosen, dropped = choose_trials(headers, names, splits, Cutting(Steps(), 500))
    recorded(
        chosen=[pairs.ravel().tolist() for pairs in is_chosen.values()],
        dropped={split: dict(counts) for split, counts in dropped.items()},
    )


def codes_of(*spans):
    """Return codes from pairs of a code and its number of samples."""
    return np.repeat(*np.transpose(spans))


def test_codes(recorded):
    pulses = codes_of(
        (0, 90),
        (5, 20),
        (0, 30),
        (7, 1),
        (5, 20),
        (0, 30),
        (9, 1),
        (0, 60),
        (5, 30),
        (0, 4),
        (5, 30),
        (12, 30),
        (0, 50),
        (3, 20),
    )
    high = pulses + 1024
    negative = np.where(pulses == 0, -4, pulses)
    short_codes = codes_of((0, 50), (6, 1), (0, 50), (7, 1), (0, 50), (6, 2), (0, 9))
    code_changes_by_name = {
        name: find_code_changes(codes, rate_hz, lambda events: {"9", "6"} & set(events))
        for name, codes, rate_hz in (
            ("pulses", pulses, 1000.0),
            ("slow", pulses, 5000.0),
            ("high", high, 1000.0),
            ("negative", negative, 1000.0),
            ("short", short_codes, 1000.0),
            ("constant", np.full(60, 3), 1000.0),
            ("empty", np.zeros(9, np.int64), 1000.0),
            # the last span may go on, and no level is at rest
            ("ends", codes_of((0, 9), (5, 20), (0, 9), (5, 20), (7, 1)), 1000.0),
            ("restless", np.repeat([300, 301, 300, 302, 303, 304], 9), 1000.0),
        )
    }
    lines = {"STI003": pulses > 6, "STI001": pulses % 2, "STI002": pulses > 0}
    names = ["STI001", "STI002", "STI003", "STI004"]
    combined = _combine_lines({n: np.asarray(v) for n, v in lines.items()}, names)[1]
    of_zero = _combine_lines({"D0": pulses % 2, "D5": pulses > 6}, ["D0", "D5"])[1]
    doubled = drop_repeats(
        [(0, "a"), (9, "a"), (18, "a"), (31, "a"), (31, "b"), (40, "b"), (5, "b")], 1000
    )
    rounded = _round_codes(np.array([0, 0, 0.1, 4.2, 7.9, 3.74, 8, 8, 8, 8.0]), "STI")
    recorded(
        found={
            name: [table_codes, [[onset, code] for onset, code in events], doubts]
            for name, (table_codes, events, doubts) in code_changes_by_name.items()
        },
        combined=np.unique(combined, return_counts=True),
        of_zero=np.unique(of_zero, return_counts=True),
        doubled=[[list(event) for event in doubled[0]], doubled[1]],
        rounded=rounded,
    )
    with pytest.raises(BrainhiveError):
        _round_codes(np.array([0, 0, 0, 1.3, 2.4, 8.0]), "STI")


def test_labels_of_subjects_and_sessions():
    root = Path("/data/sub-99")
    labels = [
        read_label(root / name, root)
        for name in ("sub-01/ses-02/x.fif", "Subject_07A.fif", "sub-pilot.fif")
    ]
    labels.append(read_label(root / "sub-01/sub-02_run-1.fif", root))
    assert labels == ["sub-01", "sub-07A", "sub-pilot", "sub-02"]
    sessions = [
        read_session(root / name, root)
        for name in ("ses-01/a_ses-03.fif", "session2.fif", "ses-pre.fif", "x.fif")
    ]
    assert sessions == ["03", "2", "pre", ""]
    with pytest.raises(BrainhiveError):
        read_label(root / "subset.fif", root)

    paths = {label: Path(label) for label in ("sub-07A", "sub-12", "sub-x")}
    numbers = number_subjects(paths, {"sub-x": 3, "sub-12": 4})
    assert numbers == {"sub-07A": 7, "sub-12": 4, "sub-x": 3}
    assert number_subjects(paths, {"sub-x": 3, "sub-12": 3})["sub-12"] == 3
    for wrong in ({}, {"sub-x": 7}):
        with pytest.raises(BrainhiveError):
            number_subjects(paths, wrong)

    assert [number_session(label) for label in ("01", "test12b3", "pre", "")] == [
        1,
        12,
        1,
        1,
    ]
    order = [3, "ses-pre", "test*"]
    patterns = [find_pattern(label, order) for label in ("03", "pre", "test3", "4")]
    assert patterns == [3, "ses-pre", 3, None]
    assert get_session_numbers([1, 2]) == [1, 2]
    assert get_session_numbers([1, "a"]) == []
    assert get_session_numbers(None) == []
    assert get_session_numbers({"a": "train"}) == []
    known = ["1", "2", "10", "post", "pre", "test10", "test9"]
    assert number_sessions(known, None) is None
    assert number_sessions(known[:3], [10, 2]) == {"10": 10, "2": 2}
    assert number_sessions(known[3:5], ["pre", "post"]) == {"pre": 1, "post": 2}
    assert number_sessions(known[5:], ["test*"]) == {"test9": 9, "test10": 10}
    with pytest.raises(BrainhiveError):
        number_sessions(known, ["absent*"])
    assert sorted(["a10", "a9", "a"], key=natural_key) == ["a", "a9", "a10"]


def session(number, dtype="float32"):
    """Make the trials of a session, some of which show the same picture."""
    random = np.random.default_rng(number)
    count = 5 + number
    return Trials.from_repetitions(
        random.normal(size=(count, 1, 2, 3)).astype(dtype),
        [f"p{row}" for row in random.integers(0, 4, count)],
        Sensors(("Cz", "Oz"), np.eye(3)[:2]),
        np.arange(3) / 10,
        10.0,
        "µV",
        {"dropped": {"flat": number}},
        whiteners=random.normal(size=(1, 2, 2)),
        runs=(np.arange(count)[:, None] // 3).astype(np.int16),
        onset_s=np.arange(count)[:, None] * 1.5,
    )


def test_sessions_are_joined(recorded, tmp_path):
    sessions = []
    for number in (1, 2, 3):
        path = tmp_path / f"sub-{number:02d}_ses-01.h5"
        trials = session(number)
        splits = {"train": trials, "test": trials.take(np.arange(2))}
        splits = splits if number > 1 else {"train": trials}
        SignalStore.write(path, complete_session(number, splits, "float32"))
        sessions.append(SignalStore.open(path))
    first, second = sessions[:2]
    without_times = replace(second["train"], onset_s=None, runs=None)
    second_without_times = SignalStore(second.path, {"train": without_times})
    untimed = join_sessions([first, second_without_times], None, {})
    assert untimed["train"].runs is None

    # a seed shuffles the repetitions of each stimulus
    for seed in (None, 4):
        joined = join_sessions(sessions, seed, {"subject": 1})
        assert [len(trials.signal) for trials in joined.values()] == [21, 4]
        assert joined["test"].sessions.tolist() == [0, 1, 1, 0]
        assert [
            session["dropped"]["flat"]
            for session in joined["train"].provenance["sessions"]
        ] == [1, 2, 3]
    recorded(
        digits=5,
        signal=joined["train"].signal[:],
        averages=joined["train"].averages,
        sessions=joined["train"].sessions,
        runs=joined["train"].runs,
        onset_s=joined["train"].onset_s,
        whiteners=joined["train"].whiteners,
    )


def test_bytes_of_a_session_are_counted_in_two_precisions():
    sizes = [count_bytes(session(1, kind)) for kind in ("float16", "float32")]
    assert sizes == [6 * 2 * 3 * 2, 6 * 2 * 3 * 4]
    # signals of double precision are stored in single precision
    assert count_bytes(session(1, "float64")) == 144


def test_subjects_of_stores_are_listed_by_number(tmp_path):
    for name in ("a b/sub-3.h5", "a b/sub-012.h5", "a b/sub-x.h5", "c/sub-5.h5"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list_store_subjects(tmp_path, "set", None) == (3, 5, 12)
    assert list_store_subjects(tmp_path, "set", "a b") == (3, 12)
    assert list_store_subjects(tmp_path, "set", "d") == ()


def test_the_first_difference_of_two_sessions_is_named():
    changes = {
        "channels": {"space": Sensors(("Cz", "O1"), np.eye(3)[:2])},
        "positions": {"space": Sensors(("Cz", "Oz"), np.eye(3)[1:])},
        "space": {"space": Sensors(("Cz", "Oz"))},
        "times": {"times_s": np.arange(3) / 10 + 0.1},
        "rate_hz": {"rate_hz": 10.01},
        "unit": {"unit": "V"},
        "": {"provenance": {}},
    }
    for name, change in changes.items():
        assert describe_difference(session(1), replace(session(1), **change)) == name


@pytest.mark.parametrize(
    ("maximum", "is_cast"),
    [(65_504.0, True), (65_505.0, False), (6.2e-5, True), (6e-5, False), (0, True)],
)
def test_signals_are_cast_where_they_fit(maximum, is_cast):
    values = np.full((2, 1, 1, 1), -maximum, np.float32)
    cast = cast_signal(values, np.dtype("float16"))
    if is_cast:
        np.testing.assert_allclose(cast[0:2], values, rtol=1e-3)
    else:
        with pytest.raises(BrainhiveError):
            cast[0:2]
    infinite = np.array([np.inf, 1e-9]).reshape(2, 1, 1, 1)
    assert np.isinf(cast_signal(infinite, np.dtype("float16"))[0:1]).all()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_value_that_is_not_finite_hides_no_overflow(value):
    values = np.array([value, 1e6]).reshape(2, 1, 1, 1)
    with pytest.raises(BrainhiveError) as caught:
        cast_signal(values, np.dtype("float16"))[0:2]
    assert "1e+06" in caught.value.message
