"""Tables and figures of an evaluated run: metrics, ranks, curves, sheets,
similarities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from torch.nn.functional import normalize

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    Heatmap,
    Line,
    Row,
    Sheet,
    Tile,
)
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.core.facts import ConfusionMatrix, Control, RetrievalFacts
from brainhive_cli.core.measurements import (
    ALL,
    TRANSDUCTIVE,
    Measurements,
    Metric,
    add_footnotes,
    scope,
    shown,
)
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Cell, Table, p_text
from brainhive_cli.data.media.media_files import first_frame
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores.ids import match_names
from brainhive_cli.evaluation.retrieval.baseline import CLASSIFIERS, PLAIN, RIDGE
from brainhive_cli.evaluation.retrieval.measure import (
    ALONE,
    CORRECTIONS,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    SUBSETS,
    Models,
    encode,
    encode_gallery,
    open_gallery,
    open_trials,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import (
    CEILING,
    NEAREST,
    label,
    scopes_below,
)
from brainhive_cli.measurement.retrieval import BACKWARD, Gallery
from brainhive_cli.measurement.slope import average_by_unit
from brainhive_cli.reports.drawings import draw_slices, shows_something
from brainhive_cli.reports.tables import (
    describe_sample,
    difference_table,
    metric_table,
    published_tables,
    render,
)
from brainhive_cli.training.alignment.trained import TrainedModel

HEADLINES = ("top1", "top5", "median_rank")
FEWEST_DRAWS = 39
"""Draws from which the middle 95 % of them hold another one in 95 of 100."""
DRAWN = f"{REPETITION_DRAWS} random choices of each number of repetitions"
"""Note of the curve over repetitions."""
CONTROLS = {"shuffled": "signals shuffled", "permuted": "labels permuted"}
THIS_RUN = "this run"
REQUESTED = (
    *("cells", "baseline", "control", "corrections"),
    *("subsets", "repetitions", "regions", "comparisons"),
)
"""Tables that are printed: the result, then each control, curve and comparison that the
recipe names.
"""
DETAILS = ("baseline", "control", "corrections", "subsets", "ceiling", "comparisons")
"""Tables on pages: what is neither metrics of cells nor drawn."""
NEAREST_BINS = 8
"""Bins of equal size in the figure of nearest training pictures."""
RETRIEVED = 5
"""Pictures retrieved for each query of the sheet."""
SECTION = "Retrieval"
"""The heading under which a page shows what is drawn."""


@console.progress("drawing figures")
def draw_artifacts(
    run: RunFolder, measured: Measurements, models: Models, recipe: Recipe
) -> list[Artifact]:
    """Make all artifacts of a run, and save their pictures in it.

    Args:
        run: The run.
        measured: What it measured.
        models: The first cell's, whose first subject is shown; none for no sheet.
        recipe: How it was measured, and what is shown.
    """
    # confusions and voxels, of trials of known categories
    facts = measured.facts_of(RetrievalFacts)
    drawn = list[Artifact]()
    if facts.confusion_matrix:
        drawn.append(_draw_confusions(facts.confusion_matrix))
    if facts.tests_trials and models:
        drawn += _draw_voxels(models[0], recipe.split)

    # shares of all queries in bins of ranks that double: 1, 2–3, 4–7 …; and those that
    # guessing would give
    ranks = np.concatenate([measured.items[name]["ranks"] for name in facts.cells])
    pool = measured.overall["top1"].pool or int(ranks.max())
    edges = [*(2**power for power in range(pool.bit_length())), pool + 1]
    bins = list(pairwise(edges))
    names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in bins]
    shares = (np.histogram(ranks, edges)[0] / len(ranks)).tolist()
    lines = [
        Line("measured", shares),
        Line("guessing", [(b - a) / pool for a, b in bins]),
    ]
    title = "Ranks of the seen picture"
    drawn.append(
        Curve(title, f"rank among {pool}", names, lines, "share of queries", "bars")
    )

    # top-1 over repetitions
    if points := scopes_below(measured, REPETITIONS):
        line = Line.of(shown("top1"), [point["top1"] for point in points.values()])
        title = "Accuracy over repetitions"
        counts = [*map(float, points)]
        curve = Curve(
            title, "repetitions averaged", counts, [line], shown("top1"), note=DRAWN
        )
        drawn.append(replace(curve, is_logarithmic=True))

    # scores over the cosine with the nearest training picture
    if NEAREST in measured.scopes:
        drawn.append(_draw_nearest(measured))

    # shares of regions in the predictions of each head
    regions = scopes_below(measured, REGIONS)
    heads = next(iter(regions.values()), {})
    lines = [
        Line.of(head, [metrics[head] for metrics in regions.values()]) for head in heads
    ]
    title = "What each region carries"
    value = "share of the prediction lost without it"
    drawn.append(
        Curve(title, "region", [*regions], lines, value, "bars", note=facts.protocol)
    )

    # figures of the first cell, and tables
    if models:
        drawn += _draw_cell(run, models, recipe)
    drawn = [
        replace(artifact, section=SECTION)
        for artifact in drawn
        if shows_something(artifact)
    ]
    details = lay_out(measured, DETAILS)
    drawn += [replace(table, section="Details") for table in details]
    return [
        replace(each, note=add_footnotes(each.note, measured.caveats)) for each in drawn
    ]


def _draw_confusions(matrix: ConfusionMatrix) -> Heatmap:
    """Draw the share of each concept's trials that were taken for each concept."""
    # a concept without trials has a row of zeros
    totals = np.sum(matrix.counts, 1, keepdims=True)
    shares = (matrix.counts / np.maximum(1, totals)).round(4).tolist()
    rows = [
        f"{name} ({total})"
        for name, total in zip(matrix.names, totals[:, 0], strict=True)
    ]
    title = (
        "Confusion matrix: share of the trials of each row taken for each column; in "
        "brackets, trials"
    )
    return Heatmap(
        title,
        shares,
        rows,
        matrix.names,
        "shown",
        "decoded as",
        "share of trials",
        0.0,
        1.0,
    )


def _draw_nearest(measured: Measurements) -> Curve:
    """Draw the mean score in bins of the cosine with the nearest training picture, and
    the fitted slope.
    """
    cells = [measured.items[name] for name in measured.facts.cells]
    nearest, score = average_by_unit(cells)
    bins = np.array_split(np.argsort(nearest, kind="stable"), NEAREST_BINS)
    cosines, means = (
        [float(values[rows].mean()) for rows in bins if len(rows)]
        for values in (nearest, score)
    )
    fitted = np.polyval(np.polyfit(nearest, score, 1), cosines).tolist()
    slope = measured.scopes[NEAREST]["nearest_slope"]
    return Curve(
        "Score against the nearest training picture",
        "cosine with the nearest training picture",
        cosines,
        [Line("mean of a bin", means), Line("least squares", fitted)],
        "share of wrong pictures below, less that for other signals",
        note=f"Slope {slope.value:.3f} per standard deviation of cosine, 95 % CI "
        f"{slope.interval_text()} ({slope.interval}). Cosines are of the embeddings "
        "that retrieval compares. A slope above 0 says that pictures near training "
        "pictures score better.",
    )


def _draw_voxels(model: TrainedModel, split: str) -> list[Heatmap]:
    """Draw how far categories differ in each voxel, over the first subject's trials."""
    from sklearn.feature_selection import f_classif

    # voxels without positions cannot be drawn on slices
    subject = model.cell.tested_on[0]
    parts = [model.trials(subject, name, is_tested=False) for name in ("train", split)]
    space = parts[1].space
    if not isinstance(space, Voxels) or space.grid is None:
        return []

    # F of each voxel, over training and test trials
    signals = np.concatenate([part.averages[:, :, 0] for part in parts])
    ratios, _ = f_classif(signals, np.concatenate([part.stimulus for part in parts]))
    title = (
        f"Where the categories differ: F of each voxel over all {len(signals)} trials "
        f"of {label(subject)}"
    )
    return [
        draw_slices(
            title,
            np.nan_to_num(ratios),
            space.grid,
            "F (describes the signals, no model)",
            0.0,
        )
    ]


def _draw_cell(run: RunFolder, models: Models, spec: Recipe) -> list[Artifact]:
    """Draw a sheet of queries of a cell's first subject."""
    # unit tokens of the signals and the candidates
    gallery = open_gallery(models, spec.splits, only_shown=spec.only_shown)
    first = models[0]
    subject = models[0].cell.tested_on[0]
    trials = open_trials(models, subject, spec.split)
    target = np.searchsorted(gallery.tested, trials[0].stimulus)  # [N]
    tokens = normalize(encode(models, trials))  # [N, D]
    pictures = normalize(encode_gallery(models, gallery))  # [M, D]
    concepts = [concept.replace("_", " ") for concept in gallery.concepts]
    whose = f"{first.cell.name} on {label(subject)}"

    # random queries, each with the pictures that are most similar to it
    drawn = np.random.default_rng(spec.seed).permutation(len(tokens))[: spec.sheet_rows]
    scores = (tokens[drawn] @ pictures.T).cpu().numpy()
    retrieved = np.argsort(-scores, axis=1, kind="stable")[:, :RETRIEVED]
    seen = target[drawn]
    files = save_pictures(run, first, gallery, np.union1d(seen, retrieved))
    if not any(files.values()):
        return []

    # a row for each query, with gaps for pictures that cannot be read
    query_rows = []
    for query, true, nearest in zip(
        scores, seen.tolist(), retrieved.tolist(), strict=True
    ):
        rank = int((query >= query[true]).sum())  # ties rank against the model
        tiles = [Tile(files[true], [concepts[true], f"rank {rank}"])]
        for index in nearest:
            lines = [concepts[index], f"cosine {query[index]:.2f}"]
            tiles.append(
                Tile(files[index], lines, verdict="right" if index == true else "wrong")
            )
        query_rows.append(Row(gallery.image_ids[true], tiles))
    columns = ["seen", *(str(rank + 1) for rank in range(RETRIEVED))]
    title = f"Seen, and the {RETRIEVED} most similar pictures"
    noun = (
        f"{spec.split} "
        f"{'pictures' if len({*target.tolist()}) == len(tokens) else 'trials'}"
    )
    note = f"{describe_sample(len(drawn), len(tokens), noun, spec.seed)}; {whose}"
    return [Sheet(title, columns, query_rows, note=note)]


def save_pictures(
    run: RunFolder, model: TrainedModel, gallery: Gallery, rows: Int64
) -> dict[int, str]:
    """Save pictures of a gallery for the sheet, and warn of those that are not here.

    Args:
        run: The run that shows them.
        model: The model whose data set has the pictures.
        gallery: The candidates.
        rows: The candidates that are shown.

    Returns:
        The file of each picture, by its row; empty for a picture that cannot be read.
    """
    dataset = model.run.dataset
    files = dict.fromkeys(rows.tolist(), "")
    problems = list[str]()
    start = 0
    for split, stored in gallery.rows.items():
        # candidates lie split by split
        shown = [row for row in files if start <= row < start + len(stored)]
        start += len(stored)
        if not shown:
            continue
        try:
            images = dataset.images(dataset.holdout.stored_split(split))
            ids = [gallery.image_ids[row] for row in shown]
            image_rows, unknown = match_names(ids, images.image_ids)
        except BrainhiveError as error:
            problems += [error.in_one_line] * len(shown)
            continue
        if not images.has_pictures:
            continue

        # all metrics are there by now: a picture that only decorates must not lose them
        problems += [f"{dataset.name} {split} has no {name}" for name in unknown]
        for row, image_row in zip(shown, image_rows.tolist(), strict=True):
            if image_row < 0:
                continue
            try:
                picture = first_frame(images.open(image_row))
            except (BrainhiveError, OSError) as error:
                problems.append(first_line(error))
                continue
            files[row] = artifacts.save_picture(run, f"gallery/{row}", picture)

    if problems:
        state = "has gaps" if any(files.values()) else "is left out"
        console.warn(
            f"the sheet {state}: {len(problems)} of its {len(files)} pictures cannot "
            f"be read, the first because of: {problems[0]}. With them, --again draws it"
        )
    return files


def lay_out(measured: Measurements, parts: Sequence[str] | None) -> list[Table]:
    """Lay out the tables that a run has something for.

    Args:
        measured: What it measured.
        parts: Which tables, by what they show; None for all.
    """
    # metrics by row
    facts = measured.facts_of(RetrievalFacts)
    scopes = measured.scopes
    overall = measured.overall
    # rows of cells, baselines and corrections by title
    cells = {}
    for name, cell in facts.cells.items():
        # the name of a cell may end with its subject, which would only widen the column
        is_named = cell.cell.rpartition("/")[2].startswith(str(cell.subject))
        cells[cell.cell if is_named else f"{cell.cell} on {cell.subject}"] = scopes[
            name
        ]
    ridge = (
        {RIDGE: scopes[scope(PLAIN, RIDGE)]} if scope(PLAIN, RIDGE) in scopes else {}
    )
    plain = {
        CLASSIFIERS[row.second]: scopes[scope(PLAIN, row.second)]
        for row in facts.plain
        if row.second != RIDGE
    }
    paired = [row for row in facts.plain if row.second == RIDGE]
    # the other direction has a scope below that of each correction, or run
    corrected, alone = (
        {
            name: metrics
            for name, metrics in scopes_below(measured, part).items()
            if not name.endswith(BACKWARD)
        }
        for part in (CORRECTIONS, ALONE)
    )
    # directions by the end of their scopes; MindEye calls the second one forward
    directions = {"signal seeks image": "", "image seeks signal": BACKWARD}

    def compare_with(title: str, models: Mapping[str, Mapping[str, Metric]]) -> Table:
        # the run next to others on the same items; no rows where there are none
        return metric_table(
            title, {THIS_RUN: overall, **models} if models else {}, "model", HEADLINES
        )

    # tables by what they show
    tables = {
        "cells": [
            metric_table(
                f"Retrieval, {overall['top1'].split}",
                {"all": overall, **(cells if len(cells) > 1 else {}), **ridge},
                "cell",
                HEADLINES,
                note=render("ridge.txt", rows=paired) if paired else "",
            )
        ],
        "baseline": [
            compare_with("With plain baselines on the same folds", plain),
            difference_table(
                [row for row in facts.plain if row.second != RIDGE],
                {"": THIS_RUN, **CLASSIFIERS},
            ),
        ],
        "control": _control(facts.control) if facts.control else [],
        "corrections": [
            compare_with(f"Similarities corrected: {TRANSDUCTIVE}", corrected)
        ],
        "subsets": [
            metric_table(
                "Top-1 among subsets",
                {
                    words: scopes.get(scope(ALL, SUBSETS, way), {})
                    for words, way in directions.items()
                },
                "direction",
                note="MindEye's forward is: image seeks signal",
            )
        ],
        "ceiling": [_ceiling(measured, facts.repetitions)],
        "repetitions": [
            metric_table(
                "Accuracy over repetitions",
                scopes_below(measured, REPETITIONS),
                "repetitions",
                note=DRAWN,
            )
        ],
        "regions": [
            metric_table(
                "What each region carries of a prediction",
                scopes_below(measured, REGIONS),
                "region",
            )
        ],
        "comparisons": [
            compare_with("With each run alone", alone),
            difference_table(facts.against),
            Table(
                "This run differs from others",
                ("from", "in"),
                [(row.second, line) for row in facts.against for line in row.differs],
            ),
        ],
        "published": published_tables(facts.published),
    }

    # a table without rows says nothing
    return [table for part in parts or tables for table in tables[part] if table.rows]


def sweep_tables(
    tables_of: Mapping[str, Sequence[Table]], measured: Measurements
) -> tuple[Table, ...]:
    """Lay out the tables of each variant, and their differences; nothing is pooled over
    variants.
    """
    # tables of all variants one below the other, then their differences
    columns = [
        replace(table, title=f"{variant}: {table.title}")
        for variant, tables in tables_of.items()
        for table in tables
    ]
    compared = difference_table(measured.facts.comparisons)
    return (*columns, *([compared] if compared.rows else []))


def _ceiling(measured: Measurements, repetitions: int) -> Table:
    """Lay out the ceilings of subjects, and say why others have none."""
    # reasons are listed in the note, unless no subject has a ceiling
    title = "Split-half ceiling of the signals"
    ceilings = scopes_below(measured, CEILING)
    reasons = {
        name.rpartition(" · ")[2]: reason for name, reason in measured.missing.items()
    }
    if not ceilings:
        return Table(title, ("subject", "why there is none"), [*reasons.items()])
    without = [f"{subject} has none: {reason}" for subject, reason in reasons.items()]
    note = "; ".join([f"{repetitions} repetitions of a picture at most", *without])
    return metric_table(title, ceilings, "subject", note=note)


def _control(control: Control) -> list[Table]:
    """Show what is measured, and its null distribution under the control."""
    # the null distribution as its mean, and the middle 95 % of the draws
    rows = []
    for name, metric in control.metrics.items():
        mean, low, high = (metric[key] for key in ("mean", "low", "high"))
        drawn = Cell(f"{mean:.3f}", f"{low:.3f} to {high:.3f}", mean)
        rows.append((shown(name), metric["measured"], drawn, p_text(metric["p"])))
    ends = "95 %" if control.draws >= FEWEST_DRAWS else "ends"
    columns = ("metric", "measured", f"mean, {ends} of draws", "p")
    note = (
        f"{control.draws} draws with {CONTROLS[control.kind]}; n {control.n}, pool "
        f"{control.pool}."
    )
    return [Table("Measured, and under the control", columns, rows, note=note)]
