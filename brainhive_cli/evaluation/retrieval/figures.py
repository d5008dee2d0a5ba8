"""Tables and figures of an evaluated run: metrics, ranks, curves, sheets,
similarities.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from torch.nn.functional import normalize

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    CurveLine,
    Heatmap,
    Sheet,
    SheetRow,
    SheetTile,
)
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.core.facts import ConfusionMatrix, RetrievalFacts
from brainhive_cli.core.measurements import (
    Measurements,
    add_footnotes,
    metric_title,
)
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.files.ids import match_names
from brainhive_cli.data.media.media_files import get_first_frame
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.evaluation.retrieval.measure import (
    Models,
    encode,
    encode_gallery,
    open_gallery,
    open_trials,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.scopes import (
    NEAREST,
    REGIONS,
    REPETITIONS,
    name_subject,
    select_scopes,
)
from brainhive_cli.evaluation.retrieval.tables import CURVE_NOTE, PAGE_TABLES, lay_out
from brainhive_cli.measurement.retrieval import Gallery
from brainhive_cli.measurement.slope import average_by_unit
from brainhive_cli.reports.drawings import draw_slices, is_informative
from brainhive_cli.reports.tables import (
    describe_sample,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel

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
    facts = measured.require_facts(RetrievalFacts)
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
        CurveLine("measured", shares),
        CurveLine("guessing", [(b - a) / pool for a, b in bins]),
    ]
    title = "Ranks of the seen picture"
    drawn.append(
        Curve(title, f"rank among {pool}", names, lines, "share of queries", "bars")
    )

    # top-1 over repetitions
    if points := select_scopes(measured, REPETITIONS):
        line = CurveLine.from_metrics(
            metric_title("top1"), [point["top1"] for point in points.values()]
        )
        title = "Accuracy over repetitions"
        counts = [*map(float, points)]
        curve = Curve(
            title,
            "repetitions averaged",
            counts,
            [line],
            metric_title("top1"),
            note=CURVE_NOTE,
        )
        drawn.append(replace(curve, is_logarithmic=True))

    # scores over the cosine with the nearest training picture
    if NEAREST in measured.scopes:
        drawn.append(_draw_nearest(measured))

    # shares of regions in the predictions of each head
    regions = select_scopes(measured, REGIONS)
    heads = next(iter(regions.values()), {})
    lines = [
        CurveLine.from_metrics(head, [metrics[head] for metrics in regions.values()])
        for head in heads
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
        if is_informative(artifact)
    ]
    details = lay_out(measured, PAGE_TABLES)
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
        [CurveLine("mean of a bin", means), CurveLine("least squares", fitted)],
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
        f"of {name_subject(subject)}"
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
    target = np.searchsorted(gallery.test_rows, trials[0].stimulus)  # [N]
    tokens = normalize(encode(models, trials))  # [N, D]
    pictures = normalize(encode_gallery(models, gallery))  # [M, D]
    concepts = [concept.replace("_", " ") for concept in gallery.concepts]
    whose = f"{first.cell.name} on {name_subject(subject)}"

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
        tiles = [SheetTile(files[true], [concepts[true], f"rank {rank}"])]
        for index in nearest:
            lines = [concepts[index], f"cosine {query[index]:.2f}"]
            tiles.append(
                SheetTile(
                    files[index], lines, verdict="right" if index == true else "wrong"
                )
            )
        query_rows.append(SheetRow(gallery.image_ids[true], tiles))
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
            images = dataset.images(dataset.holdout.name_stored_split(split))
            if not images.has_pictures:
                continue
            ids = [gallery.image_ids[row] for row in shown]
            image_rows, unknown = match_names(ids, images.image_ids)
        except BrainhiveError as error:
            problems += [error.in_one_line] * len(shown)
            continue

        # all metrics are there by now: a picture that only decorates must not lose them
        problems += [f"{dataset.name} {split} has no {name}" for name in unknown]
        for row, image_row in zip(shown, image_rows.tolist(), strict=True):
            if image_row < 0:
                continue
            try:
                picture = get_first_frame(images.open(image_row))
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
