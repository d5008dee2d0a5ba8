"""Pictures of another data set, with EEG or fMRI that the demo's forward models simulate of them."""

from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.lines import Line
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets.demo import SPACE, SUBJECTS, Space, simulated
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.trials import Trials
from brainhive_cli.demo import simulation, voxels


class Config(parts.Config):
    """Real pictures, simulated signals; always labelled as simulated."""

    images: Annotated[Any, parts.part("datasets", "image-folder")] = Field(
        "image-folder", validate_default=True, description="whose pictures"
    )
    meaning: str = Field("clip-h14", description="encoder whose stored embeddings stand for meaning")
    subjects: int = SUBJECTS
    noise: float = Field(1.0, ge=0, description="size of the noise; 1 as calibrated on the demo's pictures")
    space: Space = SPACE

    def build(self, paths: Paths) -> datasets.Dataset:
        """Take the pictures of the data set; their embeddings serve both."""
        source = self.images.build(paths)
        recordings = f"{source.name}-simulated-{self.meaning}-noise-{self.noise:g}"
        return datasets.Dataset(
            source.name,
            source.splits,
            source.images,
            # what signals depend on: the same pictures may be simulated in several ways
            recordings=recordings if self.space == "sensors" else f"{recordings}-{self.space}",
            pictures=source.pictured_as,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=partial(_simulate, self, paths, source),
            is_simulated=True,
            alike_by=source.alike_by,
        )


TINY = Config(images={"kind": "demo"}, subjects=1)


def _simulate(config: Config, paths: Paths, source: datasets.Dataset, subject: int, split: str) -> Trials:
    """Simulate a recording of low-level features and of embeddings, scaled by the training ones alone."""
    # stored embeddings of the training pictures and of the split
    root, stores = paths.under_home("embeddings"), {}
    for name in {"train": None, split: None}:  # once if the split is train
        stores[name] = target_store.open_all(root, source.name, name, [config.meaning])[config.meaning]
        stores[name].refuse_other_pictures(
            source.images(name).image_ids,
            Line("embed", ("dataset", source.name), ("encoders", [config.meaning])),
        )

    # low-level features [N, F], and meaning [N, D] in units of the training embeddings
    images = source.images(split)
    measure = voxels.measure_looks if config.space == "voxels" else simulation.low_level
    low = np.stack([measure(images.open(index)) for index in range(len(images))])
    meaning = np.asarray(stores[split].embedding[stores[split].rows(images.image_ids)])
    learned = np.asarray(stores["train"].embedding)
    # 1e-6: a dimension that never varies
    semantic = simulation.standardise(meaning, learned.mean(0), learned.std(0) + 1e-6)
    return simulated(config.space, low, semantic, subject, split, config.noise, list(images.image_ids))
