"""Data set whose signals are simulated from stored embeddings of its pictures."""

from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets.demo import SPACE, SUBJECTS, Space, simulate_trials
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import target_store
from brainhive_cli.demo import simulation, voxels


class Simulated(parts.Config):
    """Pictures of another data set, with EEG or fMRI that the demo's forward models
    simulate of them.
    """

    images: Any = parts.part_field("datasets", "image-folder", "whose pictures")
    meaning: str = Field(
        "clip-h14", description="encoder whose stored embeddings stand for meaning"
    )
    subjects: int = SUBJECTS
    noise: float = Field(
        1.0,
        ge=0,
        description="size of the noise; 1 as calibrated on the demo's pictures",
    )
    space: Space = SPACE

    def build(self, paths: Paths) -> datasets.Dataset:
        """Take the pictures of the data set; their embeddings serve both."""
        source = self.images.build(paths)
        recordings = f"{source.name}-simulated-{self.meaning}-noise-{self.noise:g}"

        def simulate(subject: int, split: str) -> Trials:
            features = _measure_stored(self, paths, source, split)
            ids = list(source.images(split).image_ids)
            return simulate_trials(
                self.space, *features, subject, split, self.noise, ids
            )

        return datasets.Dataset(
            source.name,
            source.splits,
            source.images,
            # what signals depend on: the same pictures may be simulated in several ways
            recorded_as=recordings
            if self.space == "sensors"
            else f"{recordings}-{self.space}",
            pictured_as=source.pictured_as,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
            alike_by=source.alike_by,
        )


def _measure_stored(
    config: Simulated, paths: Paths, source: datasets.Dataset, split: str
) -> tuple[simulation.Floats, simulation.Floats]:
    """Measure low-level features [N, F] of pictures, and take their meaning [N, D] from
    stored embeddings.
    """
    # stored embeddings of the training pictures and of the split
    root = paths.under_home("embeddings")
    stores = {}
    for name in {"train": None, split: None}:  # once if the split is train
        stores[name] = target_store.open_stores(
            root, source.name, name, [config.meaning]
        )[config.meaning]

    # low-level features, and meaning in units of the training embeddings
    images = source.images(split)
    measure = voxels.measure_looks if config.space == "voxels" else simulation.low_level
    low = np.stack([measure(images.open(index)) for index in range(len(images))])
    meaning = np.asarray(
        stores[split].embedding[stores[split].find_rows(images.image_ids)]
    )
    learned = np.asarray(stores["train"].embedding)
    # 1e-6: a dimension that never varies
    return low, simulation.standardise(meaning, learned.mean(0), learned.std(0) + 1e-6)
