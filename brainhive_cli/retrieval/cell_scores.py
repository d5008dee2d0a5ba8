"""All that is measured on one cell: rankings, subsets and curves, by subject."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import Field

from brainhive_cli.core.recipe import Section
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.metrics.retrieval import subset_hits
from brainhive_cli.retrieval.ceiling import Ceiling
from brainhive_cli.retrieval.controls import Broken
from brainhive_cli.retrieval.curves import Curve, Sliding, over_repetitions, over_time
from brainhive_cli.retrieval.ensembles import Ensemble
from brainhive_cli.retrieval.rankings import Gallery, Queries, Ranking, rank_all, read


class Subsets(Section):
    """Small galleries drawn from the test pictures, as on NSD."""

    ways: int = Field(300, gt=1, description="pictures of a subset")
    draws: int = Field(30, gt=0, description="subsets")


@dataclass(frozen=True)
class EvaluationSpec:
    """What is to be measured, and among which pictures.

    Attributes:
        splits: Whose pictures are candidates; signals are those of the last.
        random: Random candidates beside them.
        control: What is broken on purpose (see `controlled`).
        seed: Of all that is drawn.
    """

    splits: tuple[str, ...]
    random: int
    control: str
    seed: int
    subsets: Subsets | None = None
    repetitions: Sequence[int] | Literal["all"] | None = None
    repetition_draws: int = 1
    sliding: Sliding | None = None
    ceiling_splits: int = 0

    @property
    def split(self) -> str:
        """The split whose signals are used."""
        return self.splits[-1]


@dataclass(frozen=True)
class Scores:
    """What was measured on one cell, by subject.

    Attributes:
        pool: Candidates.
        pictures: Image ids of those candidates that are pictures.
        subsets: Hits of the items, signal to image and image to signal.
        broken: What a control leaves of the metrics, draw by draw.
    """

    pool: int
    pictures: list[str]
    rankings: dict[int, Ranking]
    subsets: dict[int, tuple[list[float], list[float]]] = field(default_factory=dict)
    repetitions: dict[int, Curve] = field(default_factory=dict)
    sliding: dict[int, Curve] = field(default_factory=dict)
    ceilings: dict[int, Ceiling] = field(default_factory=dict)
    broken: dict[int, Broken] = field(default_factory=dict)

    @classmethod
    def measure(cls, ensemble: Ensemble, asked: EvaluationSpec) -> Self:
        """Measure all that is asked of a cell; its gallery is encoded once.

        Args:
            ensemble: The cell's model, or several.
            asked: What is wanted. A control deals alike in all cells: seeds share a subject's signals.
        """
        gallery = Gallery.of(ensemble, asked.splits, asked.random, asked.seed)
        queries = read(ensemble, gallery, asked.split, asked.control, asked.seed)
        scores = cls(gallery.pool, gallery.image_ids, rank_all(gallery, queries))
        for subject, each in queries.items():
            if asked.subsets:
                scores.subsets[subject] = _subsets(gallery, each, asked.subsets, asked.seed)
            if asked.control != "none":
                scores.broken[subject] = Broken.of(gallery, each, asked.control, subject, asked.seed)
            given = (ensemble, gallery, each.target, subject, asked.split)
            if asked.repetitions is not None:
                draws = asked.repetition_draws
                scores.repetitions[subject] = over_repetitions(*given, asked.repetitions, draws, asked.seed)
            if asked.sliding:
                scores.sliding[subject] = over_time(*given, asked.sliding)
            if asked.ceiling_splits:
                scores.ceilings[subject] = _ceiling(ensemble, subject, asked)
        return scores


def _ceiling(ensemble: Ensemble, subject: int, asked: EvaluationSpec) -> Ceiling:
    """Measure the ceiling of a subject's signals, once for all cells: they depend on no model."""
    first = ensemble.members[0]

    def make() -> Ceiling:
        (trials, *_), there = ensemble.single_trials(subject, asked.split)
        _, picture = ensemble.signals(subject, asked.split)
        ids = [first.pictures(asked.split).image_ids[row] for row in picture]
        return Ceiling.of(trials, there, ids, asked.ceiling_splits, derive_seed(asked.seed, subject))

    found: Ceiling = first.align.once(first.key("ceiling", subject, asked.split), make)
    return found


def _subsets(
    gallery: Gallery, queries: Queries, subsets: Subsets, seed: int
) -> tuple[list[float], list[float]]:
    images = gallery.tokens[queries.target]
    forward, backward = subset_hits(queries.tokens, images, subsets.ways, subsets.draws, seed)
    return forward.tolist(), backward.tolist()
