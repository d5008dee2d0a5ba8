"""Which events of a session become trials, and why others do not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._recording_mne import Header
from brainhive_cli.data.preparations._recording_pictures import EventNames
from brainhive_cli.data.preparations._steps import Cutting


@dataclass(frozen=True)
class Chosen:
    """The trials of one recording.

    Attributes:
        onsets: [n] samples.
        rows: [n] of their pictures among all.
    """

    path: Path
    onsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> "Chosen":
        """Keep the trials of some pictures."""
        kept = np.isin(self.rows, rows)
        return Chosen(self.path, self.onsets[kept], self.rows[kept])


def choose(
    headers: Mapping[Path, Header],
    names: EventNames,
    by_split: Mapping[str, NDArray[np.int64]],
    cutting: Cutting,
) -> tuple[list[Chosen], dict[str, Counter[str]]]:
    """Choose the events of pictures whose trials lie in the recording, outside of BAD spans, one at a time.

    Args:
        headers: Of the recordings of one session.
        names: What events stand for.
        by_split: The rows of each split among all pictures.
        cutting: How trials are cut.

    Returns:
        The trials of each recording, and by split how many others there are, by reason. Events without a
        picture count as those of the first split.

    Raises:
        BrainhiveError: if nothing is left.
    """
    first, header = next(iter(headers.items()))
    matched = names.match_all(headers.values())
    names.refuse_none(matched, first, header.events_from)
    split_of = {row: split for split, rows in by_split.items() for row in rows.tolist()}
    dropped: dict[str, Counter[str]] = {split: Counter() for split in by_split}
    for reason, events in (
        ("not in the table", matched.unnamed),
        ("no such picture", matched.without_picture),
    ):
        if events:
            next(iter(dropped.values()))[reason] = sum(events.values())
    chosen = []
    for path, header in headers.items():
        pairs = sorted({(at, matched.rows[name]) for at, name in header.events if name in matched.rows})
        onsets, rows = np.array(pairs, np.int64).reshape(-1, 2).T
        reasons = _reasons(header, cutting, onsets)
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            if reason:
                dropped[split_of[row]][reason] += 1
        is_kept = np.array([not reason for reason in reasons], bool)
        chosen.append(Chosen(path, onsets[is_kept], rows[is_kept]))
    if not sum(len(each.onsets) for each in chosen):
        reasons = [f"{count} {reason}" for each in dropped.values() for reason, count in each.items()]
        raise BrainhiveError(
            f"{first} has no whole trial: {', '.join(reasons)}", "preparation.epoch_ms=[start, stop]"
        )
    return chosen, dropped


def _reasons(header: Header, cutting: Cutting, onsets: NDArray[np.int64]) -> Sequence[str]:
    """Say why each trial is dropped; empty where it is not."""
    start, stop = cutting.span
    at_once = np.isin(onsets, onsets[1:][np.diff(onsets) == 0])

    def reason(onset: int, is_whole: bool, is_at_once: bool) -> str:
        if is_at_once:
            return "two pictures at once"
        if not is_whole:
            return "beyond the recording"
        spans = ((low - stop, high - start, text) for low, high, text in header.bad_spans)
        return next((text for low, high, text in spans if low <= onset <= high), "")

    return [*map(reason, onsets.tolist(), cutting.fits(onsets, header.samples).tolist(), at_once.tolist())]
