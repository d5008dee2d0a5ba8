"""Sessions of a subject: signal stores of single trials, which are joined."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, shuffle_range
from brainhive_cli.core.files import make_portable, read_regular, require_content
from brainhive_cli.data.files import LazyRows, Names, hdf5
from brainhive_cli.data.signals import COLUMNS, Trials, group_trials, index_optional
from brainhive_cli.data.stores.signal_store import SignalStore, describe_difference

DType = Literal["float32", "float16"]
FileFacts = Mapping[str, Mapping[str, Any]]
"""Facts by file name: `bytes`, and `sha256` of tables and small files, or of pieces."""
MAX_HASHED_BYTES = 2**20
"""Size from which only pieces of other files are digested, because more takes long."""
N_PIECES = 16
"""Number of evenly spaced pieces of a large file."""


def list_sessions(folder: Path, subject: int) -> list[Path]:
    """List the session files of a subject, with unfinished files and claims."""
    pattern = f"sub-{subject:02d}_ses-*.h5*"
    # claims are hidden files
    return list(folder.glob(pattern)) + list(folder.glob(f".{pattern}"))


def complete_session(
    session: Any, recordings: Mapping[str, Trials], dtype: DType
) -> dict[str, Trials]:
    """Complete the trials of a session, so that they can be stored and joined.

    Args:
        session: Number or label of the session.
        recordings: Trials by split.
        dtype: Dtype of the stored signals.
    """
    stored = {}
    for split, trials in recordings.items():
        # the preparation may override these facts
        provenance = {
            "session": session,
            "trials": len(trials.image_ids),
            "dropped": {},
            **trials.provenance,
        }
        signal = cast_signal(trials.signal, np.dtype(dtype))
        stored[split] = replace(trials, signal=signal, provenance=provenance)
    return stored


def cast_signal(signal: Any, dtype: np.dtype[Any]) -> LazyRows:
    """Cast a signal [n, C, T] to float16 or float32. Rows are cast when sliced.

    Slicing raises a BrainhiveError if finite values are too large for the dtype, or all
    too small, such as volts in float16.
    """
    limits = np.finfo(dtype)
    max_value = float(limits.max)
    min_normal_value = float(limits.tiny)

    def read(rows: slice) -> Array:
        values = np.asarray(signal[rows])
        if values.dtype != dtype:
            # infinite values stay infinite, and NaN stays NaN
            is_finite = np.isfinite(values)
            largest = float(np.abs(values).max(initial=0, where=is_finite))
            if largest > max_value or 0 < largest < min_normal_value:
                raise BrainhiveError(
                    f"signals of up to {largest:g} do not fit {dtype}", "dtype=float32"
                )
        cast = values.astype(dtype, copy=False)
        hdf5.release_pages(signal)
        return cast

    return LazyRows(tuple(signal.shape), dtype, read)


def join_sessions(
    stores: Sequence[SignalStore], order_seed: int | None, provenance: Mapping[str, Any]
) -> dict[str, Trials]:
    """Join the sessions of a subject. Signals stay on disk.

    Args:
        stores: Sessions, in their order.
        order_seed: Seed that shuffles the repetitions of each stimulus, or None for
            the order of sessions and times.
        provenance: Provenance of all sessions. The facts of each session are added.

    Returns:
        Trials by split. Stimuli are sorted by id.

    Raises:
        BrainhiveError: if sessions differ in channels, times, rate or unit.
    """
    recordings_of_split: dict[str, list[Trials]] = {}
    for store in stores:
        for split, recording in store.splits.items():
            recordings_of_split.setdefault(split, []).append(recording)

    # maps of voxels are averaged over sessions
    spaces = [next(iter(store.splits.values())).space for store in stores]
    space = spaces[0]
    maps = {}
    for name in space.maps:
        maps[name] = np.mean([other.maps[name] for other in spaces], 0)
    space = space.replace_maps(maps)

    joined = {}
    for split, recordings in recordings_of_split.items():
        trials = _join_split(recordings, order_seed, provenance)
        joined[split] = replace(trials, space=space)
    return joined


def _join_split(
    recordings: Sequence[Trials], order_seed: int | None, provenance: Mapping[str, Any]
) -> Trials:
    """Join the recordings of a split, see `join_sessions`."""
    _require_same_axes(recordings)

    # order [n] of the trials of all sessions: by picture, then by time
    names = np.concatenate([Names.of(item.image_ids).packed for item in recordings])
    order, counts = group_trials(names)
    if order_seed is not None:
        for trials in np.split(order, np.cumsum(counts)[:-1]):
            trials[:] = trials[shuffle_range(len(trials), order_seed)]

    columns: dict[str, Any] = {}
    for name in COLUMNS:
        values = _concatenate_known([getattr(item, name) for item in recordings])
        columns[name] = index_optional(values, order)

    # session, and row within it, of each trial
    trial_counts = [len(item.image_ids) for item in recordings]
    sessions = np.repeat(np.arange(len(recordings)), trial_counts)[order]
    rows = np.concatenate([np.arange(count) for count in trial_counts])[order]
    columns["sessions"] = sessions.astype(np.int8)

    signals: list[LazyRows] = [recording.signal for recording in recordings]
    trial_shape = signals[0].shape[1:]
    dtype = signals[0].dtype

    def read(trials: Any) -> Array:
        """Read trials [m, C, T], session by session."""
        values = np.empty((len(rows[trials]), *trial_shape), dtype)
        for session, signal in enumerate(signals):
            is_of_session = sessions[trials] == session
            values[is_of_session] = signal[rows[trials][is_of_session]]
            hdf5.release_pages(signal.read(...))
        return values

    session_facts = [recording.provenance for recording in recordings]
    return replace(
        recordings[0],
        signal=LazyRows((len(order), *trial_shape), dtype, read),
        image_ids=Names(names[order]),
        repetitions=counts,
        provenance={**provenance, "sessions": session_facts},
        whiteners=_concatenate_known([recording.whiteners for recording in recordings]),
        **columns,
    )


def _require_same_axes(recordings: Sequence[Trials]) -> None:
    """Raise an error if a session has other axes than the first session."""
    first_recording = recordings[0]
    for other in recordings[1:]:
        difference = describe_difference(first_recording, other)
        if difference:
            raise BrainhiveError(
                f"session {first_recording.provenance.get('session')} and session "
                f"{other.provenance.get('session')} differ in their {difference}"
            )


def _concatenate_known(arrays: Sequence[Array | None]) -> Array | None:
    """Concatenate the arrays of all sessions, or return None if a session has none."""
    known_arrays = [array for array in arrays if array is not None]
    if len(known_arrays) < len(arrays):
        return None
    return np.concatenate(known_arrays)


def collect_file_facts(paths: Iterable[Path]) -> FileFacts:
    """Collect the sizes and digests of source files.

    Large files other than tables have a digest of evenly spaced pieces, which changes
    if all of their signals change.
    """
    facts: dict[str, dict[str, Any]] = {}
    for path in paths:
        require_content(path)
        size = path.stat().st_size
        file_facts: dict[str, Any] = {"bytes": size}
        # Suffixes of tables, which are always digested.
        if path.suffix.lower() in (".csv", ".tsv", ".txt") or size < MAX_HASHED_BYTES:
            file_facts["sha256"] = hashlib.sha256(read_regular(path)).hexdigest()
        else:
            file_facts["sha256_of_pieces"] = _digest_pieces(path, size)
        facts[make_portable(str(path))] = file_facts
    return facts


def _digest_pieces(path: Path, size: int) -> str:
    """Digest `N_PIECES` pieces of a file, together of `MAX_HASHED_BYTES`."""
    piece_bytes = MAX_HASHED_BYTES // N_PIECES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in np.linspace(0, size - piece_bytes, N_PIECES).astype(int).tolist():
            file.seek(start)
            digest.update(file.read(piece_bytes))
    return digest.hexdigest()


def describe_file_difference(old_facts: FileFacts, new_facts: FileFacts) -> str:
    """Describe the first file that was added, removed or changed. Empty if none was.

    Folders that all files share are ignored, because raw data may be moved.
    """
    old_files = _name_below_shared_folder(old_facts)
    new_files = _name_below_shared_folder(new_facts)
    for name in {**old_files, **new_files}:
        if old_files.get(name) != new_files.get(name):
            return f"from other files than now, such as {name}"
    return ""


def _name_below_shared_folder(files: FileFacts) -> FileFacts:
    """Remove the folders that all file names share from the names."""
    paths = [PurePath(name) for name in files]
    n_shared = 0
    for folders in zip(*(path.parts[:-1] for path in paths), strict=False):
        if len(set(folders)) > 1:
            break
        n_shared += 1
    return {
        "/".join(path.parts[n_shared:]): facts
        for path, facts in zip(paths, files.values(), strict=True)
    }
