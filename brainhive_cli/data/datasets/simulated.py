"""Pictures of another data set, with EEG or fMRI that the demo's forward models simulate of them."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets.demo import SPACE, SUBJECTS, Space, simulated
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.units import AlikeBy


class Config(parts.Config):
    """Real pictures, simulated signals; always labelled as simulated."""

    images: Annotated[Any, parts.part("datasets", "image-folder")] = Field(
        "image-folder", validate_default=True, description="whose pictures"
    )
    meaning: str = Field("clip-h14", description="encoder whose stored embeddings stand for meaning")
    subjects: int = SUBJECTS
    noise: float = Field(1.0, ge=0, description="size of the noise; 1 as calibrated on the demo's pictures")
    space: Space = SPACE

    def build(self, paths: Paths) -> "Simulated":
        """Wrap the data set of the pictures."""
        subjects = tuple(range(1, self.subjects + 1))
        return Simulated(
            self.images.build(paths), paths, self.meaning, subjects, self.noise, space=self.space
        )


TINY = Config(images={"kind": "demo"}, subjects=1)


@dataclass(frozen=True)
class Simulated:
    """Pictures of `source`, with signals simulated of their low-level features and of their embeddings."""

    source: datasets.Dataset
    paths: Paths
    meaning: str
    subjects: tuple[int, ...]
    noise: float
    channels: tuple[str, ...] | None = None
    is_simulated: bool = True
    space: Space = "sensors"

    @property
    def name(self) -> str:
        """The pictures' name: their embeddings serve both data sets."""
        return self.source.name

    @property
    def pictured_as(self) -> str:
        """The name of the pictures, whichever of them these are."""
        return self.source.pictured_as

    @property
    def recorded_as(self) -> str:
        """What its signals depend on: the same pictures may be simulated in several ways."""
        name = f"{self.name}-simulated-{self.meaning}-noise-{self.noise:g}"
        return name if self.space == "sensors" else f"{name}-{self.space}"

    @property
    def alike_by(self) -> AlikeBy:
        """What the pictures are alike by."""
        return self.source.alike_by

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the pictures."""
        return self.source.splits

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split."""
        return self.source.images(split)

    def require(self, subject: int) -> None:
        """Do nothing: recordings are simulated."""

    def recording(self, subject: int, split: str) -> Recording:
        """Simulate one subject's recording; meaning is scaled by the training embeddings alone."""
        images = self.images(split)
        train, own = (self._embedded(name) for name in ("train", split))
        low = np.stack([simulation.low_level(images.open(index)) for index in range(len(images))])
        meaning = np.asarray(own.embedding[own.rows(images.image_ids)])
        learned = np.asarray(train.embedding)
        semantic = simulation.standardise(meaning, learned.mean(axis=0), learned.std(axis=0) + 1e-6)
        return simulated(self.space, low, semantic, subject, split, self.noise, list(images.image_ids))

    def _embedded(self, split: str) -> target_store.TargetStore:
        root = self.paths.under_home("embeddings")
        found = target_store.open_all(root, self.name, split, [self.meaning])[self.meaning]
        found.refuse_other_pictures(
            self.images(split).image_ids, f"brainhive embed dataset=… --encoders {self.meaning}"
        )
        return found
