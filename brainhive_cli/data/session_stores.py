"""The sessions of a subject, each a signal store of single trials, joined into one by stimulus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.seeds import shuffled
from brainhive_cli.data.preparations import Trials
from brainhive_cli.data.stores import mapping
from brainhive_cli.data.stores.checksums import StoredRows
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.recordings import Recording, SignalStore, difference_of
from brainhive_cli.data.stores.sliced import grouped

DType = Literal["float32", "float16"]


@dataclass(frozen=True)
class Cast:
    """A signal in another dtype; it is cast where it is sliced.

    Attributes:
        signal: [N, R, C, T].
        dtype: float16 or float32.
    """

    signal: Any
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """N, R, C, T."""
        return tuple(self.signal.shape)

    def __len__(self) -> int:
        """N."""
        return len(self.signal)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Cast some of the N.

        Raises:
            BrainhiveError: if values are too large for the dtype; or all too small, as volts are for float16.
        """
        values, limits = np.asarray(self.signal[rows]), np.finfo(self.dtype)
        most = max(float(values.max(initial=0)), -float(values.min(initial=0)))
        fits = not (float(limits.max) < most < np.inf or 0 < most < float(limits.tiny))
        if values.dtype != self.dtype and not fits:
            raise BrainhiveError(f"signals of up to {most:g} do not fit {self.dtype}", "dtype=float32")
        found = values.astype(self.dtype, copy=False)
        mapping.release(self.signal)
        return found


@dataclass(frozen=True)
class Joined:
    """The trials of several sessions by stimulus; gathered where they are sliced.

    Attributes:
        signals: Those of each session, [n, 1, C, T].
        sessions: [N, R] the session of each repetition, -1 where there is none.
        rows: [N, R] its place in the session.
    """

    signals: Sequence[StoredRows]
    sessions: NDArray[np.int8]
    rows: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the sessions."""
        return self.signals[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """N, R, C, T."""
        return (*self.sessions.shape, *self.signals[0].shape[2:])

    def __len__(self) -> int:
        """N."""
        return len(self.sessions)

    def __getitem__(self, stimuli: slice) -> NDArray[Any]:
        """Gather the repetitions of some of the N stimuli; zeros where there is none."""
        sessions, rows = self.sessions[stimuli], self.rows[stimuli]
        found = np.zeros((*sessions.shape, *self.shape[2:]), self.dtype)
        for session, signal in enumerate(self.signals):
            found[sessions == session] = signal.read(rows[sessions == session])[:, 0]
        return found


@dataclass(frozen=True)
class Kept:
    """Where the sessions of a subject are kept until they are joined.

    Attributes:
        folder: That of all subjects' sessions.
        digest: Of all that a session depends on: settings, files, versions.
    """

    folder: Path
    subject: int
    digest: str = ""

    @property
    def claim(self) -> Path:
        """The file that is locked while the subject is prepared."""
        return self.folder / f".sub-{self.subject:02d}.claim"

    def path(self, session: int) -> Path:
        """Return where a session is kept."""
        return self.folder / f"sub-{self.subject:02d}_ses-{session:02d}_{self.digest}.h5"

    @property
    def size(self) -> int:
        """Bytes of all sessions of the subject, of whatever digest."""
        return sum(path.stat().st_size for path in self._all)

    def clear(self) -> int:
        """Delete all sessions of the subject, and return the bytes of those with another digest."""
        others = sum(path.stat().st_size for path in self._all if self.digest not in path.name)
        for path in self._all:
            path.unlink()
        return others

    @property
    def _all(self) -> list[Path]:
        """Files, and the hidden claims of processes that were killed."""
        pattern = f"sub-{self.subject:02d}_ses-*.h5*"
        return [*self.folder.glob(pattern), *self.folder.glob(f".{pattern}")]


def write_session(path: Path, session: int, trials: Mapping[str, Trials], dtype: DType) -> None:
    """Write the trials of one session, by split; the final name appears when all is there."""
    SignalStore.write(
        path,
        {
            split: Recording(
                signal=Cast(each.signal[:, None], np.dtype(dtype)),
                image_ids=each.image_ids,
                space=each.space,
                times_s=each.times_s,
                rate_hz=each.rate_hz,
                unit=each.unit,
                provenance={
                    "session": session,
                    "trials": len(each.image_ids),
                    "dropped": dict(each.dropped),
                    **each.provenance,
                },
                whiteners=None if each.whitener is None else each.whitener[None],
            )
            for split, each in trials.items()
        },
    )


def join(
    stores: Sequence[SignalStore], order_seed: int | None, provenance: Mapping[str, Any]
) -> dict[str, Recording]:
    """Join the sessions of a subject by split: stimuli by id, their repetitions by session and time.

    Args:
        stores: The sessions, in their order.
        order_seed: Shuffles the repetitions of each stimulus in the end; None leaves them.
        provenance: Of all sessions; that of each is added.

    Raises:
        BrainhiveError: if sessions differ in channels, times, rate or unit.
    """
    splits = list(dict.fromkeys(split for store in stores for split in store.splits))
    return {
        split: _joined([s[split] for s in stores if split in s.splits], order_seed, provenance)
        for split in splits
    }


def _joined(
    recordings: Sequence[Recording], order_seed: int | None, provenance: Mapping[str, Any]
) -> Recording:
    first = recordings[0]
    for other in recordings[1:]:
        if difference := difference_of(first, other):
            names = [f"session {each.provenance['session']}" for each in (first, other)]
            raise BrainhiveError(f"{' and '.join(names)} differ in their {difference}")
    ids = np.concatenate([Names.of(each.image_ids).packed for each in recordings])
    stimuli, trials, counts = grouped(ids)
    if order_seed is not None:
        for row, count in zip(trials, counts.tolist(), strict=True):
            row[:count] = row[shuffled(count, order_seed)]
    starts = np.cumsum([0, *(len(each.image_ids) for each in recordings)])
    sessions = (np.searchsorted(starts, trials, "right") - 1).astype(np.int8)  # -1 where there is no trial
    whiteners = [each.whiteners for each in recordings if each.whiteners is not None]
    return Recording(
        signal=Joined([each.signal for each in recordings], sessions, trials - starts[sessions]),
        image_ids=Names(stimuli),
        space=first.space,
        times_s=first.times_s,
        rate_hz=first.rate_hz,
        unit=first.unit,
        provenance={**provenance, "sessions": [each.provenance for each in recordings]},
        repetitions=counts,
        sessions=sessions,
        whiteners=np.concatenate(whiteners) if len(whiteners) == len(recordings) else None,
    )
