"""The embedded world: drawn pictures and films, and EEG or fMRI that is simulated of
pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import stimuli
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.demo import films, pictures, simulation, voxels

SPLITS = ("train", "test")
# of the simulated signals: trials of each picture, and the seed of a split's noise
REPETITIONS = {"train": 4, "test": 16}
SEEDS = {"train": 1, "test": 2}
Space = Literal["sensors", "voxels"]
CONCEPTS = Field(
    pictures.TRAIN_CONCEPTS,
    gt=1,
    le=pictures.TRAIN_CONCEPTS,
    description="training concepts, each in six pictures or films",
)
SUBJECTS = Field(4, gt=0, le=999, description="simulated subjects")
SPACE: Any = Field(
    "sensors",
    description="sensors: EEG; voxels: fMRI, each subject with other numbers of voxels",
)


class Config(parts.Config):
    """Drawn pictures with captions, and simulated EEG or fMRI of them; nothing is
    downloaded.
    """

    subjects: int = SUBJECTS
    noise: float = Field(
        1.0,
        ge=0,
        description="size of the noise; 1 as calibrated: the one knob of difficulty",
    )
    space: Space = SPACE
    concepts: int = CONCEPTS

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set; pictures and signals are made on demand."""
        # settings that differ from the defaults have stores of their own
        name = "demo" if self.noise == 1.0 else f"demo-noise-{self.noise:g}"
        if self.concepts != pictures.TRAIN_CONCEPTS:
            name += f"-{self.concepts}-concepts"
        read_scenes = partial(_list_scenes, self.concepts)  # [N] of a split

        def simulate(subject: int, split: str) -> Trials:
            scenes = read_scenes(split)
            features = measure_features(scenes, self.space)
            ids = [scene.image_id for scene in scenes]
            return simulated(self.space, *features, subject, split, self.noise, ids)

        return datasets.Dataset(
            name,
            SPLITS,
            partial(list_images, name, read_scenes),
            # the pictures' embeddings serve both spaces
            recorded_as=name if self.space == "sensors" else f"{name}-{self.space}",
            pictured_as=name,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
        )


TINY = Config(subjects=1)


class Films(parts.Config):
    """Drawn films with captions, masks and labels, and simulated fMRI of them."""

    subjects: int = Field(2, gt=0, le=999, description="simulated subjects")
    concepts: int = CONCEPTS
    test_films: int = Field(
        pictures.TEST_CONCEPTS,
        gt=1,
        le=pictures.TEST_CONCEPTS,
        description="test films, each of a new concept",
    )

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set; films and signals are made on demand."""
        # settings that differ from the defaults have stores of their own
        name = "demo-films"
        if self.concepts != pictures.TRAIN_CONCEPTS:
            name += f"-{self.concepts}-concepts"
        if self.test_films != pictures.TEST_CONCEPTS:
            name += f"-{self.test_films}-tested"
        counts = {
            "train": self.concepts * films.TRAIN_FILMS_PER_CONCEPT,
            "test": self.test_films,
        }

        def simulate(subject: int, split: str) -> Trials:
            shown = _list_films(counts, split)
            # repetitions; seed and size of the noise
            knobs = REPETITIONS[split], SEEDS[split], 1.0
            ids = [film.scene.image_id for film in shown]
            return simulate_voxels(
                _measure_films(shown), subject, *knobs, ids, voxels.FILMS
            )

        return datasets.Dataset(
            name,
            SPLITS,
            partial(_list_clips, name, counts),
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
        )


def _list_scenes(concepts: int, split: str) -> tuple[pictures.Scene, ...]:
    scenes = pictures.scenes(split)  # type: ignore[arg-type]
    most = concepts * pictures.TRAIN_PICTURES_PER_CONCEPT
    return tuple(scenes[:most] if split == "train" else scenes)


def list_images(
    name: str, read_scenes: Callable[[str], tuple[pictures.Scene, ...]], split: str
) -> stimuli.StimulusSet:
    """List the scenes of a split; a picture is drawn when it is opened."""
    scenes = read_scenes(split)
    ids, concepts = (
        Names.of(getattr(scene, key) for scene in scenes)
        for key in ("image_id", "concept")
    )
    read = partial(_draw, scenes), partial(_describe, scenes)
    return stimuli.StimulusSet(
        name, split, ids, concepts, *read, pictures.CAPTIONS_EACH
    )


def _draw(scenes: Sequence[pictures.Scene], index: int) -> Image.Image:
    return pictures.draw(scenes[index])


def _describe(scenes: Sequence[pictures.Scene], index: int) -> list[str]:
    return pictures.captions(scenes[index])


def _list_films(counts: Mapping[str, int], split: str) -> tuple[films.Film, ...]:
    # fewer films are the first of the same list
    return tuple(films.films(split)[: counts[split]])  # type: ignore[arg-type]


def _list_clips(
    name: str, counts: Mapping[str, int], split: str
) -> stimuli.StimulusSet:
    """List the films of a split; clips, captions, masks and labels are made when they
    are read.
    """
    shown = _list_films(counts, split)
    ids, concepts = (
        Names.of(getattr(film.scene, key) for film in shown)
        for key in ("image_id", "concept")
    )
    return stimuli.StimulusSet(
        name,
        split,
        ids,
        concepts,
        partial(_read_film, shown, "clip"),
        captions=partial(_read_film, shown, "captions"),
        captions_each=pictures.CAPTIONS_EACH,
        frames=films.FRAMES,
        masks=partial(_read_film, shown, "masks"),
        labels=partial(_read_film, shown, "labels"),
        label_names=films.LABELS,
        # the key object is the thing that moves
        objects=Names.of(film.scene.shape for film in shown),
        object_names=pictures.SHAPES,
    )


def _read_film(shown: Sequence[films.Film], content: str, index: int) -> Any:
    """Give the clip, captions, masks or labels of a film."""
    film = shown[index]
    if content == "clip":
        return stimuli.Clip(film.frames(), films.RATE_HZ)
    if content == "captions":
        return pictures.captions(film.scene)
    return film.masks() if content == "masks" else film.labels()


@lru_cache
def measure_features(
    scenes: tuple[pictures.Scene, ...], space: Space
) -> tuple[simulation.Floats, simulation.Floats]:
    """Measure the features of scenes that drive EEG or voxels: low-level [N, F] and
    semantic ones [N, G].
    """
    measures: Any = simulation.low_level, simulation.semantic
    if space == "voxels":
        measures = voxels.measure_looks, voxels.measure_meaning
    low_level, semantic = measures
    drawn = map(pictures.draw, scenes)
    return np.stack([*map(low_level, drawn)]), np.stack([*map(semantic, scenes)])


@lru_cache
def _measure_films(shown: tuple[films.Film, ...]) -> dict[str, simulation.Floats]:
    """Measure the features that drive voxels: looks, averaged over frames as a slow
    response does; the rest.

    Returns:
        [N, F] by name.
    """
    # one row of features for each film
    steps = {
        name: np.array(step, np.float32) for name, step in films.DIRECTIONS.items()
    }
    rows = [
        {
            "looks": np.mean(
                [
                    simulation.low_level(Image.fromarray(frame))
                    for frame in film.frames()
                ],
                0,
            ),
            "motion": steps[film.direction],  # [2]
            "object": simulation.semantic(
                film.scene, ("category", "shape", "colour", "texture")
            ),
            "place": simulation.semantic(film.scene, ("background",)),
        }
        for film in shown
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


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
    repetitions, seed = (
        values.get(split, values["test"]) for values in (REPETITIONS, SEEDS)
    )
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
    """Simulate fMRI of features [N, F] by name, and label it as such; arguments as
    `voxels.simulate`.
    """
    # pictures are shown less often than `repetitions` to some subjects; the rest is
    # zero
    shown = voxels.repetitions(subject, len(image_ids), repetitions, seed)  # [N]
    is_there = np.arange(repetitions) < shown[:, None]
    # [N, R, V, 1]
    signal = voxels.simulate(features, subject, repetitions, seed, noise, cortex=cortex)
    signal[~is_there] = 0

    return Trials(
        signal,
        image_ids,
        Voxels(voxels.regions(subject, cortex)),
        np.zeros(1),
        None,
        voxels.UNIT,
        {"simulated": voxels.PROVENANCE},
        shown,
    )
