"""Pauses between the records of EDF+ and BDF+ files (EDF+D), by the time that each record has."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainhive_cli.core.arrays import Float64

PAUSE_S = 1e-3
"""Seconds by which a record may begin after the end of the one before; times are written with few digits."""
TIME = re.compile(rb"([+-]\d+(?:\.\d*)?)[\x14\x15]")
"""Time of a record, which begins its first list of annotations."""


@dataclass(frozen=True)
class Pauses:
    """Pauses of a recording, whose samples are stored without them.

    Attributes:
        starts_s: [n] end of the samples before each pause, in seconds of samples.
        lengths_s: [n] length of each.
    """

    starts_s: Float64
    lengths_s: Float64

    def __len__(self) -> int:
        """Count them."""
        return len(self.starts_s)

    def leave_out(self, times_s: Float64) -> Float64:
        """Turn times [n] since the start into seconds of samples; a time in a pause becomes its end."""
        # when each pause begins, in seconds since the start
        begins_s = self.starts_s + np.cumsum(self.lengths_s) - self.lengths_s
        # less all pauses before each time, and the part of one that it lies in
        return times_s - np.clip(times_s[:, None] - begins_s, 0, self.lengths_s).sum(1)


def read_pauses(path: Path) -> Pauses:
    """Read the pauses of a recording; none of a file that is not EDF+D or BDF+D.

    Raises:
        ValueError: if its records do not say their times.
    """
    none = Pauses(np.empty(0), np.empty(0))
    if path.suffix.lower() not in (".edf", ".bdf"):
        return none
    with path.open("rb") as file:
        head = file.read(256)
        if head[192:197] not in (b"EDF+D", b"BDF+D"):
            return none

        # the layout of a record: [signals] labels, and samples of each
        header_bytes, length_s, count = int(head[184:192]), float(head[244:252]), int(head[252:256])
        fields = file.read(256 * count)
        labels = [fields[16 * index : 16 * index + 16].strip() for index in range(count)]
        sizes = [int(fields[216 * count + 8 * index :][:8]) for index in range(count)]
        width = 3 if path.suffix.lower() == ".bdf" else 2  # bytes a sample
        lists = [index for index, label in enumerate(labels) if label.endswith(b"Annotations")]
        if not lists:
            raise ValueError("its records do not say their times")
        offset, record_bytes = width * sum(sizes[: lists[0]]), width * sum(sizes)

    # the time of each record
    content = np.memmap(path, np.uint8, "r", header_bytes)
    # complete records alone, as a file may end early
    records = content[: len(content) // record_bytes * record_bytes].reshape(-1, record_bytes)
    times_s = np.empty(len(records))
    for index, record in enumerate(records[:, offset : offset + width * sizes[lists[0]]]):
        if not (match := TIME.match(record.tobytes())):
            raise ValueError(f"its record {index + 1} does not say its time")
        times_s[index] = float(match[1])

    # records that begin late
    lengths_s = np.diff(times_s) - length_s
    late = np.flatnonzero(lengths_s > PAUSE_S)
    return Pauses((late + 1.0) * np.float64(length_s), lengths_s[late])
