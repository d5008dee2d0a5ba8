"""Data set whose signals are simulated from stored embeddings of its pictures."""

from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Float32
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets.demo import SPACE, SUBJECTS, Space, simulate_trials
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.stores import target_store
from brainhive_cli.demo import simulation, voxels


class Simulated(parts.Config):
    """Pictures of another data set, with simulated EEG or fMRI.

    The forward models of the demo simulate the signals.
    """

    images: Any = parts.part_field(
        "datasets", "image-folder", "data set of the pictures"
    )
    meaning: str = Field(
        "clip-h14", description="encoder whose stored embeddings stand for meaning"
    )
    subjects: int = SUBJECTS
    noise: float = Field(
        1.0,
        ge=0,
        description="size of the noise; 1 is calibrated on the demo's pictures",
    )
    space: Space = SPACE

    def build(self, paths: Paths) -> datasets.Dataset:
        """Build the data set. It shares the name and embeddings of the pictures."""
        source = self.images.build(paths)
        # signals are named by their settings, as a picture set may have several
        recordings = f"{source.name}-simulated-{self.meaning}-noise-{self.noise:g}"
        if self.space != "sensors":
            recordings += f"-{self.space}"

        def simulate(subject: int, split: str) -> Trials:
            low_level, semantic = _measure_stored(self, paths, source, split)
            ids = list(source.images(split).image_ids)
            return simulate_trials(
                self.space, low_level, semantic, subject, split, self.noise, ids
            )

        return datasets.Dataset(
            source.name,
            source.splits,
            source.images,
            recorded_as=recordings,
            pictured_as=source.pictured_as,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
            alike_by=source.alike_by,
        )


def _measure_stored(
    config: Simulated, paths: Paths, source: datasets.Dataset, split: str
) -> tuple[Float32, Float32]:
    """Measure the features of pictures that determine their signals.

    Returns:
        Low-level features [N, F], and stored embeddings [N, D] in units of the training
        embeddings.
    """
    root = paths.under_home("embeddings")
    stores = {}
    for name in dict.fromkeys(("train", split)):
        opened_stores = target_store.open_stores(
            root, source.name, name, [config.meaning]
        )
        stores[name] = opened_stores[config.meaning]

    images = source.images(split)
    measure_looks = simulation.measure_looks
    if config.space == "voxels":
        measure_looks = voxels.measure_looks
    low_level = [measure_looks(images.open(row)) for row in range(len(images))]
    store = stores[split]
    semantic = np.asarray(store.embedding[store.find_rows(images.image_ids)])
    training_semantic = np.asarray(stores["train"].embedding)
    # 1e-6 is for dimensions that never vary
    spread = training_semantic.std(0) + 1e-6
    semantic = simulation.standardise(semantic, training_semantic.mean(0), spread)
    return np.stack(low_level), semantic
