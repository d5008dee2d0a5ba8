"""The embedded world: drawn pictures with captions, simulated EEG or fMRI; nothing is downloaded."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.trials import Trials
from brainhive_cli.demo import pictures, simulation, voxels

SPLITS = ("train", "test")
# of the simulated signals: trials of each picture, and the seed of a split's noise
REPETITIONS = {"train": 4, "test": 16}
SEEDS = {"train": 1, "test": 2}
Space = Literal["sensors", "voxels"]
SUBJECTS = Field(4, gt=0, le=999, description="simulated subjects")
SPACE: Any = Field(
    "sensors", description="sensors: EEG; voxels: fMRI, each subject with other numbers of voxels"
)


class Config(parts.Config):
    """Pictures with known factors, and signals simulated from them."""

    subjects: int = SUBJECTS
    noise: float = Field(
        1.0, ge=0, description="size of the noise; 1 as calibrated: the one knob of difficulty"
    )
    space: Space = SPACE
    concepts: int = Field(
        pictures.TRAIN_CONCEPTS,
        gt=1,
        le=pictures.TRAIN_CONCEPTS,
        description="training concepts, each in six pictures",
    )

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set; pictures and signals are made on demand."""
        # settings that differ from the defaults have stores of their own
        name = "demo" if self.noise == 1.0 else f"demo-noise-{self.noise:g}"
        name += "" if self.concepts == pictures.TRAIN_CONCEPTS else f"-{self.concepts}-concepts"
        read_scenes = partial(_list_scenes, name, self.concepts)  # [N] of a split

        def simulate(subject: int, split: str) -> Trials:
            scenes = read_scenes(split)
            image_ids = [scene.image_id for scene in scenes]
            features = measure_features(scenes, self.space)
            return simulated(self.space, *features, subject, split, self.noise, image_ids)

        return datasets.Dataset(
            name,
            SPLITS,
            partial(list_images, name, read_scenes),
            # the pictures' embeddings serve both spaces
            recordings=name if self.space == "sensors" else f"{name}-{self.space}",
            pictures=name,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
        )


TINY = Config(subjects=1)


def _list_scenes(name: str, concepts: int, split: str) -> tuple[pictures.Scene, ...]:
    datasets.check_split(name, split, SPLITS)
    scenes = pictures.scenes(split)  # type: ignore[arg-type]
    most = concepts * pictures.TRAIN_PICTURES_PER_CONCEPT
    return tuple(scenes[:most] if split == "train" else scenes)


def list_images(
    name: str, read_scenes: Callable[[str], tuple[pictures.Scene, ...]], split: str
) -> datasets.StimulusSet:
    """List the scenes of a split; a picture is drawn when it is opened."""
    scenes = read_scenes(split)
    ids, concepts = (Names.of(getattr(scene, key) for scene in scenes) for key in ("image_id", "concept"))
    read = partial(_draw, scenes), partial(_describe, scenes)
    return datasets.StimulusSet(name, split, ids, concepts, *read, pictures.CAPTIONS_EACH)


@lru_cache
def measure_features(
    scenes: tuple[pictures.Scene, ...], space: Space
) -> tuple[simulation.Floats, simulation.Floats]:
    """Measure the features of scenes that drive EEG or voxels: low-level [N, F] and semantic ones [N, G]."""
    drawn = map(pictures.draw, scenes)
    if space == "voxels":
        return np.stack([*map(voxels.measure_looks, drawn)]), np.stack([*map(voxels.measure_meaning, scenes)])
    return np.stack([*map(simulation.low_level, drawn)]), np.stack([*map(simulation.semantic, scenes)])


def _draw(scenes: Sequence[pictures.Scene], index: int) -> Image.Image:
    return pictures.draw(scenes[index])


def _describe(scenes: Sequence[pictures.Scene], index: int) -> list[str]:
    return pictures.captions(scenes[index])


def simulated(
    space: Space,
    low: simulation.Floats,
    semantic: simulation.Floats,
    subject: int,
    split: str,
    noise: float,
    image_ids: list[str],
) -> Trials:
    """Simulate a recording of features [N, F] and [N, G], and label it as such."""
    # splits of other data sets than the demo are simulated as its test
    repetitions, seed = (values.get(split, values["test"]) for values in (REPETITIONS, SEEDS))
    knobs = (subject, repetitions, seed, noise)
    if space == "voxels":
        return simulate_voxels({"looks": low, "meaning": semantic}, *knobs, image_ids)

    signal = simulation.simulate(low, semantic, *knobs)  # [N, R, C, T]
    return Trials(
        signal,
        image_ids,
        space=Sensors(tuple(simulation.CHANNELS)),
        times_s=np.arange(signal.shape[-1]) / simulation.RATE_HZ,
        rate_hz=simulation.RATE_HZ,
        unit=simulation.UNIT,
        provenance={"simulated": simulation.PROVENANCE},
    )


def simulate_voxels(
    features: Mapping[str, simulation.Floats],
    subject: int,
    repetitions: int,
    seed: int,
    noise: float,
    image_ids: list[str],
    cortex: voxels.Cortex = voxels.PICTURES,
) -> Trials:
    """Simulate fMRI of features [N, F] by name, and label it as such; arguments as `voxels.simulate`."""
    # pictures are shown less often than `repetitions` to some subjects; the rest is zero
    shown = voxels.repetitions(subject, len(image_ids), repetitions, seed)  # [N]
    is_there = np.arange(repetitions) < shown[:, None]
    signal = voxels.simulate(features, subject, repetitions, seed, noise, cortex=cortex)  # [N, R, V, 1]
    signal[~is_there] = 0

    space = Voxels(voxels.regions(subject, cortex))
    provenance = {"simulated": voxels.PROVENANCE}
    return Trials(signal, image_ids, space, np.zeros(1), None, voxels.UNIT, provenance, repetitions=shown)
