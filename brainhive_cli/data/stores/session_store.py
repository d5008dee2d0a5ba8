"""The sessions of a subject, each a signal store of single trials, joined into one by
stimulus.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from brainhive_cli.core.arrays import Array
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import make_portable, read_regular, require_content
from brainhive_cli.core.seeds import shuffle_range
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.signals.trials import PADDING_VALUES, Trials, group_trials
from brainhive_cli.data.stores.signal_store import SignalStore, describe_difference

DType = Literal["float32", "float16"]
FileFacts = Mapping[str, Mapping[str, Any]]
"""Name of a file to its bytes, and of tables and small files the SHA-256, too."""
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
MAX_HASHED_BYTES = 2**20
"""Bytes of a file below which it is known by its content, as tables are; others are
known by their size.
"""


def cast_signal(signal: Any, dtype: np.dtype[Any]) -> LazyRows:
    """Give a signal [N, R, C, T] in another dtype, float16 or float32; it is cast where
    it is sliced.

    Slicing raises BrainhiveError if values are too large for the dtype; or all too
    small, as volts are for float16.
    """
    limits = np.finfo(dtype)

    def read(rows: slice) -> Array:
        values = np.asarray(signal[rows])
        most = float(np.abs(values).max(initial=0))
        # too large, or all so small that precision is lost; infinite values stay
        fits = not (float(limits.max) < most < np.inf or 0 < most < float(limits.tiny))
        if values.dtype != dtype and not fits:
            raise BrainhiveError(
                f"signals of up to {most:g} do not fit {dtype}", "dtype=float32"
            )
        cast = values.astype(dtype, copy=False)
        hdf5.release_pages(signal)
        return cast

    return LazyRows(tuple(signal.shape), dtype, read)


def list_sessions(folder: Path, subject: int) -> list[Path]:
    """List the sessions of a subject that are not yet joined, and those that were not
    finished.
    """
    pattern = f"sub-{subject:02d}_ses-*.h5*"
    return [*folder.glob(pattern), *folder.glob(f".{pattern}")]


def write_session(
    path: Path, session: int, recordings: Mapping[str, Trials], dtype: DType
) -> None:
    """Write the trials of one session, by split; the final name appears when all is
    there.
    """
    stored = {}
    for split, trials in recordings.items():
        # facts of the session, which the preparation may override
        about = {
            "session": session,
            "trials": len(trials.image_ids),
            "dropped": {},
            **trials.provenance,
        }
        stored[split] = replace(
            trials, signal=cast_signal(trials.signal, np.dtype(dtype)), provenance=about
        )
    SignalStore.write(path, stored)


def join_sessions(
    stores: Sequence[SignalStore], order_seed: int | None, provenance: Mapping[str, Any]
) -> dict[str, Trials]:
    """Join the sessions of a subject by split: stimuli by id, their repetitions by
    session and time.

    Args:
        stores: The sessions, in their order.
        order_seed: Shuffles the repetitions of each stimulus in the end; None leaves
            them.
        provenance: Of all sessions; that of each is added.

    Raises:
        BrainhiveError: if sessions differ in channels, times, rate or unit.
    """
    # recordings by split, in the order of sessions
    trials_of_split: dict[str, list[Trials]] = {}
    for store in stores:
        for split, recording in store.splits.items():
            trials_of_split.setdefault(split, []).append(recording)
    spaces = [next(iter(store.splits.values())).space for store in stores]
    space = spaces[0]
    if isinstance(space, Voxels):  # whose maps are those of the mean session
        maps = {
            name: np.mean(
                [other.maps[name] for other in spaces if isinstance(other, Voxels)], 0
            )
            for name in space.maps
        }
        space = replace(space, maps=maps)
    return {
        split: replace(_join_split(recordings, order_seed, provenance), space=space)
        for split, recordings in trials_of_split.items()
    }


def _join_split(
    recordings: Sequence[Trials], order_seed: int | None, provenance: Mapping[str, Any]
) -> Trials:
    # sessions have the same axes
    first = recordings[0]
    for other in recordings[1:]:
        if difference := describe_difference(first, other):
            names = [
                f"session {recording.provenance.get('session')}"
                for recording in (first, other)
            ]
            raise BrainhiveError(f"{' and '.join(names)} differ in their {difference}")

    # trials of each stimulus over all sessions: [N, R] rows, -1 where there is none
    ids = np.concatenate(
        [Names.of(recording.image_ids).packed for recording in recordings]
    )
    stimuli, trials, counts = group_trials(ids)
    if order_seed is not None:
        for row, count in zip(trials, counts.tolist(), strict=True):
            row[:count] = row[shuffle_range(count, order_seed)]

    # session, run and onset of each trial
    starts = np.cumsum([0, *(len(recording.image_ids) for recording in recordings)])
    # -1 where there is no trial
    sessions = (np.searchsorted(starts, trials, "right") - 1).astype(np.int8)
    known: dict[str, Any] = {}
    for name in ("runs", "onset_s", "trial_numbers"):
        known[name] = _concatenate(getattr(recording, name) for recording in recordings)
        values = known[name]
        if values is not None:
            known[name] = np.where(
                trials < 0, PADDING_VALUES[name], values[:, 0][trials]
            ).astype(values.dtype)

    # signals stay in the files of their sessions until they are read
    # [n, 1, C, T]
    signals: list[LazyRows] = [recording.signal for recording in recordings]
    rows = trials - starts[sessions]
    trial_shape = signals[0].shape[2:]

    def read(part: slice) -> Array:
        """Gather the repetitions of some of the N stimuli; zeros where there is
        none.
        """
        # [n, R, C, T]
        gathered = np.zeros((*sessions[part].shape, *trial_shape), signals[0].dtype)
        for session, signal in enumerate(signals):
            is_of_session = sessions[part] == session
            gathered[is_of_session] = signal[rows[part][is_of_session], 0]
            hdf5.release_pages(signal.read(...))
        return gathered

    # whiteners are stacked in the order of sessions: [S, C, C]
    return replace(
        first,
        known_digests=None,
        signal=LazyRows((*sessions.shape, *trial_shape), signals[0].dtype, read),
        image_ids=Names(stimuli),
        provenance={
            **provenance,
            "sessions": [recording.provenance for recording in recordings],
        },
        repetitions=counts,
        sessions=sessions,
        whiteners=_concatenate(recording.whiteners for recording in recordings),
        **known,
    )


def _concatenate(values: Iterable[Array | None]) -> Array | None:
    """Concatenate what is known of each session; None unless all sessions have it."""
    listed = [*values]
    known = [array for array in listed if array is not None]
    return np.concatenate(known) if len(known) == len(listed) else None


def collect_file_facts(paths: Iterable[Path]) -> FileFacts:
    """Say by what the files that a store is made from are known: size, and digest where
    that is cheap.
    """
    known: dict[str, dict[str, Any]] = {}
    for path in paths:
        require_content(path)
        size = path.stat().st_size
        known[make_portable(str(path))] = {"bytes": size}
        # large files are known by their size, as a digest would read all of them
        if path.suffix.lower() in TABLE_SUFFIXES or size < MAX_HASHED_BYTES:
            known[make_portable(str(path))]["sha256"] = hashlib.sha256(
                read_regular(path)
            ).hexdigest()
    return known


def describe_file_difference(old: FileFacts, new: FileFacts) -> str:
    """Name the first file by which a store's files differ from others; empty if they do
    not.
    """
    old = _name_below_shared_folder(old)
    new = _name_below_shared_folder(new)
    names = (name for name in {**old, **new} if old.get(name) != new.get(name))
    return next((f"from other files than now, such as {name}" for name in names), "")


def _name_below_shared_folder(files: FileFacts) -> FileFacts:
    """Name files from the folder that holds all, as raw data may be moved."""
    parts_of = {PurePath(name).parts: known for name, known in files.items()}
    # folders that all names share are left out
    folders = zip(*(names[:-1] for names in parts_of), strict=False)
    shared = len([*takewhile(lambda names: len({*names}) == 1, folders)])
    return {"/".join(names[shared:]): known for names, known in parts_of.items()}
