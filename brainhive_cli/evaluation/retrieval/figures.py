"""Figures of an evaluated run besides its metrics: ranks, curves, sheets, similarities, tables."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
from torch.nn.functional import normalize

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Line, Row, Sheet, Tile
from brainhive_cli.core.facts import ConfusionMatrix, RetrievalFacts
from brainhive_cli.core.measurements import Measurements, add_footnotes
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.media_files import first_frame
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores.ids import match_ids
from brainhive_cli.evaluation.retrieval.measure import (
    REGIONS,
    REPETITIONS,
    Models,
    encode,
    encode_gallery,
    open_gallery,
    open_trials,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import label, scopes_below
from brainhive_cli.evaluation.retrieval.tables import DETAILS, DRAWN, lay_out
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports.drawings import draw_slices, shows_something
from brainhive_cli.reports.sheets import describe_sample
from brainhive_cli.training.alignment.trained import TrainedModel

MOST_PICTURES = 100
"""Pictures in the similarity matrix."""
RETRIEVED = 5
"""Pictures retrieved for each query of the sheet."""
SECTION = "Retrieval"
"""The heading under which a page shows what is drawn."""


@console.progress("drawing figures")
def draw_artifacts(run: RunFolder, measured: Measurements, models: Models, recipe: Recipe) -> list[Artifact]:
    """Make all artifacts of a run, and save their pictures in it.

    Args:
        run: The run.
        measured: What it measured.
        models: The first cell's, whose first subject is shown; none for no sheet and matrix.
        recipe: How it was measured, and what is shown.
    """
    # confusions and voxels, of trials of known categories
    facts, drawn = measured.facts_of(RetrievalFacts), list[Artifact]()
    if facts.confusion_matrix:
        drawn.append(_draw_confusions(facts.confusion_matrix))
    if facts.tests_trials and models:
        drawn += _draw_voxels(models[0], recipe.split)

    # shares of all queries in bins of ranks that double: 1, 2–3, 4–7 …; and those that guessing would give
    ranks = np.concatenate([measured.items[name]["ranks"] for name in facts.cells])
    pool = measured.overall["top1"].pool or int(ranks.max())
    edges = [*(2**power for power in range(pool.bit_length())), pool + 1]
    bins = list(pairwise(edges))
    names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in bins]
    shares = (np.histogram(ranks, edges)[0] / len(ranks)).tolist()
    lines = [Line("measured", shares), Line("guessing", [(b - a) / pool for a, b in bins])]
    title = "Ranks of the seen picture"
    drawn.append(Curve(title, f"rank among {pool}", names, lines, "share of queries", "bars"))

    # top-1 over repetitions
    if points := scopes_below(measured, REPETITIONS):
        line = Line.of(shown("top1"), [point["top1"] for point in points.values()])
        title, counts = "Accuracy over repetitions", [*map(float, points)]
        curve = Curve(title, "repetitions averaged", counts, [line], shown("top1"), note=DRAWN)
        drawn.append(replace(curve, is_logarithmic=True))

    # shares of regions in the predictions of each head
    regions = scopes_below(measured, REGIONS)
    heads = next(iter(regions.values()), {})
    lines = [Line.of(head, [metrics[head] for metrics in regions.values()]) for head in heads]
    title, value = "What each region carries", "share of the prediction lost without it"
    drawn.append(Curve(title, "region", [*regions], lines, value, "bars", note=facts.protocol))

    # figures of the first cell, and tables
    if models:
        drawn += _draw_cell(run, models, recipe)
    drawn = [replace(artifact, section=SECTION) for artifact in drawn if shows_something(artifact)]
    details = lay_out(measured, recipe.concept_rows, DETAILS)
    drawn += [replace(table, section="Details") for table in details]
    return [replace(each, note=add_footnotes(each.note, measured.caveats)) for each in drawn]


def _draw_confusions(matrix: ConfusionMatrix) -> Heatmap:
    """Draw the share of each concept's trials that were taken for each concept."""
    # a concept without trials has a row of zeros
    totals = np.sum(matrix.counts, 1, keepdims=True)
    shares = (matrix.counts / np.maximum(1, totals)).round(4).tolist()
    rows = [f"{name} ({total})" for name, total in zip(matrix.names, totals[:, 0], strict=True)]
    title = "Confusion matrix: share of the trials of each row taken for each column; in brackets, trials"
    return Heatmap(title, shares, rows, matrix.names, "shown", "decoded as", "share of trials", 0.0, 1.0)


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
    title = f"Where the categories differ: F of each voxel over all {len(signals)} trials of {label(subject)}"
    return [draw_slices(title, np.nan_to_num(ratios), space.grid, "F (describes the signals, no model)", 0.0)]


def _draw_cell(run: RunFolder, models: Models, spec: Recipe) -> list[Artifact]:
    """Draw a cell's first subject: a sheet of queries, and their similarities with the gallery."""
    # unit tokens of the signals and the candidates
    gallery = open_gallery(models, spec.splits, only_shown=spec.only_shown)
    first, subject = models[0], models[0].cell.tested_on[0]
    trials = open_trials(models, subject, spec.split)
    target = np.searchsorted(gallery.tested, trials[0].stimulus)  # [N]
    tokens = normalize(encode(models, trials))  # [N, D]
    pictures = normalize(encode_gallery(models, gallery))  # [M, D]
    concepts = [concept.replace("_", " ") for concept in gallery.concepts]
    whose = f"{first.cell.name} on {label(subject)}"

    # the files of the candidates, each saved at most once
    files = []
    for split, rows in gallery.rows.items():
        images = first.run.dataset.images(first.run.dataset.holdout.stored_split(split))
        if not images.has_pictures:
            return []
        ids = [*first.pictures(split).image_ids[rows]]
        matched = match_ids(ids, images.image_ids, f"{images.dataset} {split}")
        files += [(images, row) for row in matched.tolist()]

    @cache
    def save(index: int) -> str:
        images, row = files[index]
        return artifacts.save_picture(run, f"gallery/{index}", first_frame(images.open(row)))

    # random queries, each with the pictures that are most similar to it
    _, queries = np.unique(target, return_index=True)
    query_rows = []
    drawn = np.random.default_rng(spec.seed).permutation(len(tokens))[: spec.sheet_rows]
    scores = (tokens[drawn] @ pictures.T).cpu().numpy()
    for query, true in zip(scores, target[drawn].tolist(), strict=True):
        rank = int((query >= query[true]).sum())  # ties rank against the model
        tiles = [Tile(save(true), [concepts[true], f"rank {rank}"])]
        for index in np.argsort(-query, kind="stable")[:RETRIEVED].tolist():
            lines = [concepts[index], f"cosine {query[index]:.2f}"]
            tiles.append(Tile(save(index), lines, verdict="right" if index == true else "wrong"))
        query_rows.append(Row(gallery.image_ids[true], tiles))
    columns = ["seen", *(str(rank + 1) for rank in range(RETRIEVED))]
    title = f"Seen, and the {RETRIEVED} most similar pictures"
    noun = f"{spec.split} {'pictures' if len(queries) == len(tokens) else 'trials'}"
    note = f"{describe_sample(len(drawn), len(tokens), noun, spec.seed)}; {whose}"
    sheet = Sheet(title, columns, query_rows, note=note)

    # queries in even steps, one a picture and sorted by concept, with the pictures that they showed
    count = min(MOST_PICTURES, len(queries))
    steps = np.unique(np.linspace(0, len(queries) - 1, count).round().astype(int))
    chosen = np.array(sorted(queries[steps].tolist(), key=lambda row: gallery.concepts[target[row]]))
    shown_indices = target[chosen]
    values = (tokens[chosen] @ pictures[shown_indices].T).cpu().numpy()
    names = [concepts[index] for index in shown_indices]
    note = f"{whose}, sorted by concept; the diagonal is right"
    note += f"; {len(chosen)} of {len(queries)} pictures" if len(chosen) < len(queries) else ""
    title, words = "Similarity of signals and pictures", ("signal of", "picture", "cosine similarity")
    matrix = Heatmap(title, values.tolist(), names, names, *words, note=note)
    return [sheet, matrix]
