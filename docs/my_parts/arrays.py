"""my_parts/arrays.py: trials that another program cut: an array and a list of stimulus
ids for each split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli import api


class Config(api.Config):
    """Files sub-01_train.npy [N, R, C, T] in microvolts, and sub-01_train.txt with a
    stimulus id in each of N lines.
    """

    root: str = Field(
        "", description="the folder; default: shapes-arrays below paths.data"
    )
    rate_hz: float = Field(100, gt=0, description="sampling rate")

    def build(self, paths: api.Paths) -> "Arrays":
        """Locate the files without reading them."""
        return Arrays(paths.dataset("shapes-arrays", self.root), self.rate_hz)


TINY = Config()


@dataclass(frozen=True)
class Arrays(api.MergedPreparation):
    """Recordings with all repetitions of a stimulus; a preparation of sessions is an
    `api.Preparation`.
    """

    root: Path
    rate_hz: float
    dataset: str = "shapes"  # of its stimuli
    splits: tuple[str, ...] = ("train", "test")

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects whose files exist."""
        return tuple(
            sorted(int(path.name[4:6]) for path in self.root.glob("sub-??_train.npy"))
        )

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of a subject."""
        names = [f"sub-{subject:02d}_{split}" for split in self.splits]
        return [
            self.root / f"{name}{end}" for name in names for end in (".npy", ".txt")
        ]

    def recording(self, subject: int, split: str) -> api.Trials:
        """Open a recording without reading its signal."""
        path = self.root / f"sub-{subject:02d}_{split}.npy"
        signal = np.load(path, mmap_mode="r")
        return api.Trials.from_repetitions(
            signal,
            image_ids=path.with_suffix(".txt").read_text().splitlines(),
            space=api.Sensors([f"E{i}" for i in range(signal.shape[2])]),
            times_s=np.arange(signal.shape[3]) / self.rate_hz,
            rate_hz=self.rate_hz,
            unit="uV",
        )
