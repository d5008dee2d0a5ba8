"""What an evaluated run shows besides its metrics: ranks, curves, sheets, similarities, a map, tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import normalize

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Line, Map, Point, Row, Sheet, Tile
from brainhive_cli.core.caveats import extend_title
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.media_files import first_frame
from brainhive_cli.data.stores.ids import match_ids
from brainhive_cli.evaluation.retrieval.rankings import Ensemble, Gallery
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec
from brainhive_cli.evaluation.retrieval.summary import label, points_of, regions_of
from brainhive_cli.evaluation.retrieval.tables import detail_tables
from brainhive_cli.measurement.metric_names import shown

AXES = {"repetitions": "repetitions averaged", "sliding": "centre of the window, ms after onset"}
TITLES = {"repetitions": "Accuracy over repetitions", "sliding": "Accuracy over time"}
MOST = 100
"""Pictures in the similarity matrix and in the map."""
SHOWN = 5
"""Pictures retrieved for each query of the sheet."""


def artifacts_of(
    run: RunFolder,
    measured: Measurements,
    ensemble: Ensemble | None,
    spec: EvaluationSpec,
    rows: int,
    concepts: int,
    how: str,
) -> list[Artifact]:
    """Make all artifacts of a run, and save their pictures in it.

    Args:
        run: The run.
        measured: What it measured.
        ensemble: The first cell's model, whose first subject is shown; None for no sheet, matrix or map.
        spec: How it was measured.
        rows: Queries on the sheet.
        concepts: Best and worst concepts in tables; 0 for none.
        how: The map's projection, pca or umap.
    """
    made: list[Artifact] = [_histogram(measured), *_curves(measured), *_regions(measured)]
    if ensemble is not None:
        first = _Shown(run, ensemble, spec)
        made += [first.sheet(rows), first.matrix(), first.map(how)]
    made += [replace(table, section="Details") for table in detail_tables(measured, concepts)]
    return [replace(each, note=extend_title(each.note, measured.caveats)) for each in made]


def _histogram(measured: Measurements) -> Curve:
    """Count the ranks of all queries in bins that double, next to what guessing would give."""
    ranks = np.concatenate([np.asarray(measured.items[name]["ranks"]) for name in measured.notes["cells"]])
    pool = measured.overall["top1"].pool or int(ranks.max())
    edges = [1]
    while edges[-1] <= pool:
        edges.append(min(2 * edges[-1], pool + 1))
    bins = list(pairwise(edges))
    names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in bins]
    shares = [float(((ranks >= a) & (ranks < b)).mean()) for a, b in bins]
    guess = [(b - a) / pool for a, b in bins]
    lines = [Line("measured", shares), Line("guessing", guess)]
    return Curve(
        "Ranks of the seen picture",
        f"rank among {pool}",
        names,
        lines,
        "share of queries",
        "bars",
        section="Retrieval",
    )


def _line(words: str, metrics: Sequence[Metric]) -> Line:
    low, high = [each.low for each in metrics], [each.high for each in metrics]
    return Line(words, [each.value for each in metrics], low, high, metrics[0].chance)


def _curves(measured: Measurements) -> list[Curve]:
    made = []
    for name, about in measured.notes["curves"].items():
        points = points_of(measured, name)
        lines = [
            _line(shown(metric), [each[metric] for each in points.values()]) for metric in ("top1", "top5")
        ]
        is_over_repetitions = name == "repetitions"
        made.append(
            Curve(
                *(TITLES[name], AXES[name], list(points), lines, "accuracy"),
                is_logarithmic=is_over_repetitions,
                section="Retrieval",
                note=about["description"],
            )
        )
    return made


def _regions(measured: Measurements) -> list[Curve]:
    regions = regions_of(measured)
    heads = list(next(iter(regions.values()), {}))
    lines = [_line(head, [metrics[head] for metrics in regions.values()]) for head in heads]
    value, note = "share of the prediction lost without it", measured.notes["protocol"]
    made = Curve(
        "What each region carries",
        "region",
        list(regions),
        lines,
        value,
        "bars",
        section="Retrieval",
        note=note,
    )
    return [made] if regions else []


@dataclass(frozen=True)
class _Shown:
    """The queries and the gallery of a cell's first subject."""

    run: RunFolder
    ensemble: Ensemble
    spec: EvaluationSpec

    @cached_property
    def gallery(self) -> Gallery:
        return Gallery.of(self.ensemble, self.spec.splits, 0, self.spec.seed, self.spec.only_shown)

    @cached_property
    def queries(self) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Tokens [N, D] of unit length, and the place [N] of what each showed."""
        subject = self.ensemble.cell.tested_on[0]
        signals, picture = self.ensemble.signals(subject, self.spec.split)
        tokens = self.ensemble.tokens(subject, signals)
        return normalize(tokens, dim=1), np.searchsorted(self.gallery.rows, picture)

    @cached_property
    def pictures(self) -> torch.Tensor:
        return normalize(self.gallery.tokens, dim=1)

    @property
    def note(self) -> str:
        return f"{self.ensemble.cell.name} on {label(self.ensemble.cell.tested_on[0])}"

    @cached_property
    def _open(self) -> Callable[[int], Image.Image]:
        """Open a picture by its place in the gallery."""
        member, places = self.ensemble.members[0], []
        for split in reversed(self.spec.splits):
            images, known = member.align.dataset.images(split), member.pictures(split).image_ids
            rows = self.ensemble.rows(split)
            if self.spec.only_shown and split == self.spec.split:
                rows = self.ensemble.shown(split)
            ids = [known[row] for row in rows]
            places += [(images, row) for row in match_ids(ids, images.image_ids, f"{images.dataset} {split}")]

        def open_picture(place: int) -> Image.Image:
            images, row = places[place]
            return first_frame(images.open(int(row)))

        return open_picture

    @cached_property
    def _saved(self) -> dict[int, str]:
        return {}

    def file(self, place: int) -> str:
        """Save a picture of the gallery, once; return its name within the run."""
        if place not in self._saved:
            self._saved[place] = artifacts.save_picture(self.run, f"gallery/{place}", self._open(place))
        return self._saved[place]

    def concept(self, place: int) -> str:
        return self.gallery.concepts[place].replace("_", " ")

    def sheet(self, count: int) -> Sheet:
        """Show some queries, each with the pictures that are most similar to it."""
        tokens, target = self.queries
        chosen = np.random.default_rng(self.spec.seed).permutation(len(tokens))[:count]
        scores = (tokens[chosen] @ self.pictures.T).cpu().numpy()
        rows = []
        for query, true in zip(scores, target[chosen].tolist(), strict=True):
            rank = int((query >= query[true]).sum())  # ties rank against the model
            tiles = [Tile(self.file(true), [self.concept(true), f"rank {rank}"])]
            for place in np.argsort(-query, kind="stable")[:SHOWN].tolist():
                lines = [self.concept(place), f"cosine {query[place]:.2f}"]
                tiles.append(Tile(self.file(place), lines, verdict="right" if place == true else "wrong"))
            rows.append(Row(self.gallery.image_ids[true], tiles))
        columns = ["seen", *(str(place + 1) for place in range(SHOWN))]
        title = f"Seen, and the {SHOWN} most similar pictures"
        return Sheet(
            title, columns, rows, "Retrieval", f"{self.note}; queries drawn at random, not the best."
        )

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        """Queries [n] of the matrix and the map, in even steps, sorted by concept."""
        _, target = self.queries
        _, first = np.unique(target, return_index=True)  # one query a picture
        steps = np.unique(np.linspace(0, len(first) - 1, min(MOST, len(first))).round().astype(int))
        return np.array(sorted(first[steps].tolist(), key=lambda row: self.gallery.concepts[target[row]]))

    def matrix(self) -> Heatmap:
        """Compare queries with the pictures that they showed: the diagonal is right."""
        tokens, target = self.queries
        rows, places = self._chosen, target[self._chosen]
        values = (tokens[rows] @ self.pictures[places].T).cpu().numpy()
        names = [self.concept(place) for place in places.tolist()]
        many = len(self._chosen) < len(np.unique(target))
        note = f"{self.note}, sorted by concept; the diagonal is right"
        note += f"; {len(rows)} of {len(np.unique(target))} pictures" if many else ""
        return Heatmap(
            *("Similarity of signals and pictures", values.tolist(), names, names, "signal of", "picture"),
            value="cosine similarity",
            section="Retrieval",
            note=note,
        )

    def map(self, how: str) -> Map:
        """Place predictions and pictures in one plane, each centred on their own mean."""
        tokens, target = self.queries
        places = target[self._chosen]
        both = [self.pictures[places], tokens[self._chosen]]
        centred = np.concatenate([(each - each.mean(0)).cpu().numpy() for each in both])
        plane = project(centred, len(places), how, self.spec.seed)
        names = ("picture", "predicted from the signal")
        points = [
            Point(float(x), float(y), self.concept(place), names[row >= len(places)], file=self.file(place))
            for row, ((x, y), place) in enumerate(zip(plane, [*places, *places], strict=True))
        ]
        axes = ("first component", "second component") if how == "pca" else ("UMAP 1", "UMAP 2")
        note = f"{self.note}; pictures and predictions are centred apart, and projected by the pictures."
        return Map("Embeddings in two dimensions", points, axes=axes, section="Retrieval", note=note)


Values = NDArray[np.float32]


def project(values: Values, count: int, how: str, seed: int) -> Values:
    """Project vectors [N, D] to two dimensions [N, 2], which the first `count` define.

    Args:
        values: The vectors.
        count: How many are projected by themselves; the others follow.
        how: `pca`, or `umap` (McInnes et al. 2018), which keeps neighbours rather than distances.
        seed: Of UMAP.
    """
    if how == "umap":
        from umap import UMAP

        fitted = UMAP(random_state=seed, n_neighbors=min(15, count - 1)).fit(values[:count])
        return np.concatenate([fitted.embedding_, fitted.transform(values[count:])])
    _, _, directions = np.linalg.svd(values[:count], full_matrices=False)
    plane: Values = values @ directions[:2].T
    return plane if plane.shape[1] == 2 else np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
