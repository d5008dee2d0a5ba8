"""The embedded world in motion: drawn films with captions, masks and labels, and simulated fMRI of them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets.demo import REPETITIONS, SEEDS, SPLITS, simulate_voxels
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.trials import Trials
from brainhive_cli.demo import films, pictures, simulation, voxels


class Config(parts.Config):
    """Films of known things on their way, and voxels that answer to thing, direction and place."""

    subjects: int = Field(2, gt=0, le=999, description="simulated subjects")
    noise: float = Field(1.0, ge=0, description="size of the noise; 1 as calibrated")
    concepts: int = Field(
        pictures.TRAIN_CONCEPTS,
        gt=1,
        le=pictures.TRAIN_CONCEPTS,
        description="training concepts, each in six films",
    )
    test_films: int = Field(
        pictures.TEST_CONCEPTS,
        gt=1,
        le=pictures.TEST_CONCEPTS,
        description="test films, each of a new concept",
    )

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set; films and signals are made on demand."""
        # settings that differ from the defaults have stores of their own
        name = "demo-films" if self.noise == 1.0 else f"demo-films-noise-{self.noise:g}"
        name += "" if self.concepts == pictures.TRAIN_CONCEPTS else f"-{self.concepts}-concepts"
        name += "" if self.test_films == pictures.TEST_CONCEPTS else f"-{self.test_films}-tested"
        counts = {"train": self.concepts * films.TRAIN_FILMS_PER_CONCEPT, "test": self.test_films}

        def simulate(subject: int, split: str) -> Trials:
            shown = _list_films(name, counts, split)
            knobs = REPETITIONS[split], SEEDS[split], self.noise  # repetitions; seed and size of the noise
            ids = [film.scene.image_id for film in shown]
            return simulate_voxels(_features(shown), subject, *knobs, ids, voxels.FILMS)

        subjects = tuple(range(1, self.subjects + 1))
        listed = partial(_list_clips, name, counts)
        return datasets.Dataset(
            name, SPLITS, listed, subjects=subjects, open_recording=simulate, is_simulated=True
        )


TINY = Config(subjects=1, concepts=2, test_films=4)


def _list_films(name: str, counts: Mapping[str, int], split: str) -> tuple[films.Film, ...]:
    datasets.check_split(name, split, SPLITS)
    # fewer films are the first of the same list
    return tuple(films.films(split)[: counts[split]])  # type: ignore[arg-type]


def _list_clips(name: str, counts: Mapping[str, int], split: str) -> datasets.StimulusSet:
    """List the films of a split; one is drawn when it is opened."""
    shown = _list_films(name, counts, split)
    ids, concepts = (Names.of(getattr(film.scene, key) for film in shown) for key in ("image_id", "concept"))
    # captions, masks and labels are made when they are read, as films are
    read = partial(_draw, shown), partial(_describe, shown), pictures.CAPTIONS_EACH, films.FRAMES
    labels = partial(_label, shown), films.LABELS
    # the key object is the thing that moves
    objects = Names.of(film.scene.shape for film in shown), pictures.SHAPES
    return datasets.StimulusSet(name, split, ids, concepts, *read, partial(_mask, shown), *labels, *objects)


def _draw(shown: Sequence[films.Film], index: int) -> datasets.Clip:
    return datasets.Clip(shown[index].frames(), films.RATE_HZ)


def _describe(shown: Sequence[films.Film], index: int) -> list[str]:
    return pictures.captions(shown[index].scene)


def _mask(shown: Sequence[films.Film], index: int) -> UInt8:
    return shown[index].masks()


def _label(shown: Sequence[films.Film], index: int) -> UInt8:
    return shown[index].labels()


@lru_cache
def _features(shown: tuple[films.Film, ...]) -> dict[str, simulation.Floats]:
    """Measure the features that drive voxels: looks, averaged over frames as a slow response does; the rest.

    Returns:
        [N, F] by name.
    """
    # one row of features for each film
    steps = {name: np.array(step, np.float32) for name, step in films.DIRECTIONS.items()}
    rows = [
        {
            "looks": np.mean([simulation.low_level(frame) for frame in _draw(shown, row).pictures], 0),
            "motion": steps[film.direction],  # [2]
            "object": simulation.semantic(film.scene, ("category", "shape", "colour", "texture")),
            "place": simulation.semantic(film.scene, ("background",)),
        }
        for row, film in enumerate(shown)
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
