"""Demo data sets: drawn pictures and films with simulated EEG or fMRI."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core.base import Float32
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data import datasets
from brainhive_cli.data.files import Names
from brainhive_cli.data.media import stimuli
from brainhive_cli.data.signals import Sensors, Trials, Voxels
from brainhive_cli.demo import films, pictures, simulation, voxels

SPLITS = ("train", "test")
REPETITIONS = {"train": 4, "test": 16}
"""Simulated trials of each picture, by split. Other splits are simulated as "test"."""
SEEDS = {"train": 1, "test": 2}
"""Seed of the noise, by split."""
Space = Literal["sensors", "voxels"]
CONCEPTS = Field(
    pictures.N_TRAIN_CONCEPTS,
    gt=1,
    le=pictures.N_TRAIN_CONCEPTS,
    description="training concepts, each in six pictures or films",
)
SUBJECTS = Field(4, gt=0, le=999, description="simulated subjects")
SPACE: Any = Field(
    "sensors",
    description="sensors: EEG; voxels: fMRI, with a number of voxels for each subject",
)


class Config(parts.Config):
    """Drawn pictures with captions, and simulated EEG or fMRI. Needs no download."""

    subjects: int = SUBJECTS
    noise: float = Field(
        1.0,
        ge=0,
        description="size of the noise: 1 is calibrated, more is harder to decode",
    )
    space: Space = SPACE
    concepts: int = CONCEPTS

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set, whose pictures and signals are made on demand."""
        # stores of other settings than the defaults have other names
        name = "demo" if self.noise == 1.0 else f"demo-noise-{self.noise:g}"
        if self.concepts != pictures.N_TRAIN_CONCEPTS:
            name += f"-{self.concepts}-concepts"

        list_scenes = partial(_list_scenes, self.concepts)

        def open_recording(subject: int, split: str) -> Trials:
            scenes = list_scenes(split)
            low_level, semantic = measure_features(scenes, self.space)
            return simulate_trials(
                self.space,
                low_level,
                semantic,
                subject,
                split,
                self.noise,
                [scene.image_id for scene in scenes],
            )

        return datasets.Dataset(
            name,
            SPLITS,
            partial(list_images, name, list_scenes),
            recorded_as=name if self.space == "sensors" else f"{name}-{self.space}",
            # sensors and voxels have the same pictures, and so the same embeddings
            pictured_as=name,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=open_recording,
            is_simulated=True,
        )


TINY = Config(subjects=1)


class Films(parts.Config):
    """Drawn films with captions, masks and labels, and simulated fMRI or EEG."""

    subjects: int = Field(2, gt=0, le=999, description="simulated subjects")
    space: Space = Field("voxels", description="voxels: fMRI; sensors: EEG")
    concepts: int = CONCEPTS
    test_films: int = Field(
        pictures.N_TEST_CONCEPTS,
        gt=1,
        le=pictures.N_TEST_CONCEPTS,
        description="test films, each of a new concept",
    )

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set, whose films and signals are made on demand."""
        # stores of other settings than the defaults have other names
        name = "demo-films"
        if self.concepts != pictures.N_TRAIN_CONCEPTS:
            name += f"-{self.concepts}-concepts"
        if self.test_films != pictures.N_TEST_CONCEPTS:
            name += f"-{self.test_films}-tested"
        counts = {
            "train": self.concepts * films.TRAIN_FILMS_PER_CONCEPT,
            "test": self.test_films,
        }

        def open_recording(subject: int, split: str) -> Trials:
            split_films = _list_films(counts, split)
            features = _measure_films(split_films)
            image_ids = [film.scene.image_id for film in split_films]
            if self.space == "sensors":
                early = np.hstack([features["looks"], features["motion"]])
                late = np.hstack([features["object"], features["place"]])
                return simulate_trials(
                    self.space, early, late, subject, split, 1.0, image_ids
                )
            return simulate_voxels(
                features,
                subject,
                REPETITIONS[split],
                SEEDS[split],
                noise=1.0,
                image_ids=image_ids,
                cortex=voxels.FILMS,
            )

        return datasets.Dataset(
            name,
            SPLITS,
            partial(_list_clips, name, counts),
            recorded_as=name if self.space == "voxels" else f"{name}-{self.space}",
            pictured_as=name,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=open_recording,
            is_simulated=True,
        )


def _list_scenes(n_concepts: int, split: str) -> tuple[pictures.Scene, ...]:
    """List the scenes of the test split, or of some training concepts."""
    scenes = pictures.list_scenes(split)  # type: ignore[arg-type]
    if split == "train":
        scenes = scenes[: n_concepts * pictures.TRAIN_PICTURES_PER_CONCEPT]
    return tuple(scenes)


def list_images(
    name: str, list_scenes: Callable[[str], tuple[pictures.Scene, ...]], split: str
) -> stimuli.StimulusSet:
    """List the scenes of a split as pictures, which are drawn when they are opened."""
    scenes = list_scenes(split)
    return stimuli.StimulusSet(
        name,
        split,
        Names.of(scene.image_id for scene in scenes),
        Names.of(scene.concept for scene in scenes),
        partial(_draw_scene, scenes),
        captions=partial(_describe_scene, scenes),
        captions_each=pictures.N_CAPTIONS,
    )


def _draw_scene(scenes: Sequence[pictures.Scene], index: int) -> Image.Image:
    return pictures.draw_scene(scenes[index])


def _describe_scene(scenes: Sequence[pictures.Scene], index: int) -> list[str]:
    return pictures.write_captions(scenes[index])


def _list_films(counts: Mapping[str, int], split: str) -> tuple[films.Film, ...]:
    """List the first `counts[split]` films of a split."""
    return tuple(films.list_films(split)[: counts[split]])  # type: ignore[arg-type]


def _list_clips(
    name: str, counts: Mapping[str, int], split: str
) -> stimuli.StimulusSet:
    """List the films of a split as clips, which are made when they are read."""
    split_films = _list_films(counts, split)
    return stimuli.StimulusSet(
        name,
        split,
        Names.of(film.scene.image_id for film in split_films),
        Names.of(film.scene.concept for film in split_films),
        partial(_read_film, split_films, "clip"),
        captions=partial(_read_film, split_films, "captions"),
        captions_each=pictures.N_CAPTIONS,
        frames=films.N_FRAMES,
        masks=partial(_read_film, split_films, "masks"),
        labels=partial(_read_film, split_films, "labels"),
        label_names=films.LABELS,
        # the key object is the moving shape
        objects=Names.of(film.scene.shape for film in split_films),
        object_names=pictures.SHAPES,
    )


def _read_film(split_films: Sequence[films.Film], content: str, index: int) -> Any:
    """Return the "clip", "captions", "masks" or "labels" of a film."""
    film = split_films[index]
    if content == "clip":
        return stimuli.Clip(film.draw_frames(), films.RATE_HZ)
    if content == "captions":
        return pictures.write_captions(film.scene)
    return film.draw_masks() if content == "masks" else film.encode_labels()


@lru_cache
def measure_features(
    scenes: tuple[pictures.Scene, ...], space: Space
) -> tuple[Float32, Float32]:
    """Measure low-level [N, F] and semantic features [N, G] for simulated signals."""
    low_level_rows = []
    semantic_rows = []
    for scene in scenes:
        picture = pictures.draw_scene(scene)
        if space == "voxels":
            low_level_rows.append(voxels.measure_looks(picture))
            semantic_rows.append(voxels.measure_meaning(scene))
        else:
            low_level_rows.append(simulation.measure_looks(picture))
            semantic_rows.append(simulation.measure_meaning(scene))
    return np.stack(low_level_rows), np.stack(semantic_rows)


@lru_cache
def _measure_films(
    split_films: tuple[films.Film, ...],
) -> dict[str, Float32]:
    """Measure features [N, F] of films for simulated voxels, keyed by name.

    Low-level features are means over frames, because the response of fMRI is slow.
    """
    rows: dict[str, list[Any]] = {"looks": [], "motion": [], "object": [], "place": []}
    for film in split_films:
        frame_features = []
        for frame in film.draw_frames():
            frame_features.append(simulation.measure_looks(Image.fromarray(frame)))
        rows["looks"].append(np.mean(frame_features, 0))
        step = np.array(films.DIRECTIONS[film.direction], np.float32)  # [2]
        rows["motion"].append(step)
        rows["object"].append(
            simulation.measure_meaning(
                film.scene, ("category", "shape", "colour", "texture")
            )
        )
        rows["place"].append(simulation.measure_meaning(film.scene, ("background",)))
    return {name: np.stack(values) for name, values in rows.items()}


def simulate_trials(
    space: Space,
    low_level: Float32,
    semantic: Float32,
    subject: int,
    split: str,
    noise: float,
    image_ids: list[str],
) -> Trials:
    """Simulate EEG or fMRI from low-level [N, F] and semantic features [N, G].

    The provenance of the trials says that they are simulated.
    """
    repetitions = REPETITIONS.get(split, REPETITIONS["test"])
    seed = SEEDS.get(split, SEEDS["test"])
    if space == "voxels":
        features = {"looks": low_level, "meaning": semantic}
        return simulate_voxels(features, subject, repetitions, seed, noise, image_ids)

    # [N, R, C, T]
    signal = simulation.simulate(low_level, semantic, subject, repetitions, seed, noise)
    return Trials.from_repetitions(
        signal,
        image_ids,
        space=Sensors(tuple(simulation.CHANNELS)),
        times_s=np.arange(signal.shape[-1]) / simulation.RATE_HZ,
        rate_hz=simulation.RATE_HZ,
        unit=simulation.UNIT,
        provenance={"simulated": simulation.PROVENANCE},
    )


def simulate_voxels(
    features: Mapping[str, Float32],
    subject: int,
    repetitions: int,
    seed: int,
    noise: float,
    image_ids: list[str],
    cortex: voxels.Cortex = voxels.PICTURES,
) -> Trials:
    """Simulate fMRI from features [N, F], keyed by name, with `voxels.simulate`.

    Some subjects see pictures less often. Their missing repetitions are zeros.
    """
    counts = voxels.draw_repetitions(subject, len(image_ids), repetitions, seed)  # [N]
    is_recorded = np.arange(repetitions) < counts[:, None]  # [N, R]
    # [N, R, V, 1]
    signal = voxels.simulate(features, subject, repetitions, seed, noise, cortex=cortex)
    signal[~is_recorded] = 0
    return Trials.from_repetitions(
        signal,
        image_ids,
        space=Voxels(voxels.make_region_masks(subject, cortex)),
        times_s=np.zeros(1),
        rate_hz=None,
        unit=voxels.UNIT,
        provenance={"simulated": voxels.PROVENANCE},
        repetitions=counts,
    )
