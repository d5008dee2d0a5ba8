"""All that is measured on one cell: rankings, subsets, curves, ceiling and control, by subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.evaluation.retrieval.ceiling import Ceiling
from brainhive_cli.evaluation.retrieval.controls import ControlDraws
from brainhive_cli.evaluation.retrieval.curves import Curve, over_repetitions, over_time
from brainhive_cli.evaluation.retrieval.ensembles import Ensemble
from brainhive_cli.evaluation.retrieval.rankings import Gallery, Queries, Ranking, encode_queries, rank_all
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Subsets
from brainhive_cli.evaluation.retrieval.region_shares import RegionShares
from brainhive_cli.measurement.retrieval import subset_expectations, subset_hits

Hits = tuple[list[float], list[float]]
"""Share of its draws in which an item was found first, [N] signal to image and [N] image to signal."""


@dataclass(frozen=True)
class SubjectScores:
    """What was measured on one subject; what was not requested is None or empty.

    Attributes:
        ranking: Of all its signals.
        subsets: Hits among drawn subsets.
        curves: By name.
        ceiling: Of the signals, whatever the model.
        control: What the control leaves of the metrics, draw by draw.
        regions: What each region carries of each head.
        expected: Hits among all possible subsets, for whose share drawn ones are an estimate.
    """

    ranking: Ranking
    subsets: Hits | None
    curves: Mapping[str, Curve]
    ceiling: Ceiling | None
    control: ControlDraws | None
    expected: Hits | None = None
    regions: RegionShares | None = None


@dataclass(frozen=True)
class CellScores:
    """What was measured on one cell.

    Attributes:
        pool: Number of candidates.
        pictures: Image ids of those candidates that are pictures.
        subjects: Scores by subject.
    """

    pool: int
    pictures: list[str]
    subjects: dict[int, SubjectScores]

    @classmethod
    def measure(cls, ensemble: Ensemble, spec: EvaluationSpec) -> Self:
        """Measure everything requested of a cell; its gallery is encoded once.

        Args:
            ensemble: The cell's model, or several.
            spec: What is measured. A control permutes alike in all cells: seeds share a subject's signals.
        """
        gallery = Gallery.of(ensemble, spec.splits, spec.distractors, spec.seed, spec.only_shown)
        queries = encode_queries(ensemble, gallery, spec.split, spec.control, spec.seed)
        rankings = rank_all(gallery, queries)
        subjects = {
            subject: SubjectScores(
                rankings[subject],
                _subset_hits(gallery, each, spec.subsets, spec.seed) if spec.subsets else None,
                _curves(ensemble, gallery, each, subject, spec),
                _ceiling(ensemble, subject, spec) if spec.ceiling_splits else None,
                ControlDraws.draw(gallery, each, spec.control, spec.seed) if spec.control != "none" else None,
                _expected(gallery, each, spec.subsets) if spec.subsets else None,
                RegionShares.measure(ensemble.members[0], subject, spec.split)
                if spec.region_shares
                else None,
            )
            for subject, each in queries.items()
        }
        return cls(gallery.pool, gallery.image_ids, subjects)


def _subset_hits(gallery: Gallery, queries: Queries, subsets: Subsets, seed: int) -> Hits:
    images, ways = gallery.tokens[queries.target], subsets.ways_of(len(queries.target))
    forward, backward = subset_hits(queries.tokens, images, ways, subsets.draws, seed)
    return forward.tolist(), backward.tolist()


def _expected(gallery: Gallery, queries: Queries, subsets: Subsets) -> Hits:
    images, ways = gallery.tokens[queries.target], subsets.ways_of(len(queries.target))
    forward, backward = subset_expectations(queries.tokens, images, ways)
    return forward.tolist(), backward.tolist()


def _curves(
    ensemble: Ensemble, gallery: Gallery, queries: Queries, subject: int, spec: EvaluationSpec
) -> dict[str, Curve]:
    signals, curves = (ensemble, gallery, queries.target, subject), {}
    if spec.repetitions is not None:
        curves["repetitions"] = over_repetitions(*signals, spec)
    if spec.sliding is not None:
        curves["sliding"] = over_time(*signals, spec.split, spec.sliding)
    return curves


def _ceiling(ensemble: Ensemble, subject: int, spec: EvaluationSpec) -> Ceiling:
    """Measure the ceiling of a subject's signals, once for all cells: they depend on no model."""
    first = ensemble.members[0]

    def measure() -> Ceiling:
        (trials, *_), available = ensemble.single_trials(subject, spec.split)
        _, picture = ensemble.signals(subject, spec.split)
        ids = [first.pictures(spec.split).image_ids[row] for row in picture]
        return Ceiling.measure(trials, available, ids, spec.ceiling_splits, derive_seed(spec.seed, subject))

    found: Ceiling = first.align.once(first.key("ceiling", subject, spec.split), measure)
    return found
