"""Figures of an evaluation."""

from dataclasses import replace

import numpy as np
from torch.nn.functional import normalize

from brainhive_cli.core.base import BrainhiveError, Int64, console, first_line
from brainhive_cli.core.results import (
    SEEN_PICTURES,
    SIGNIFICANCE_LEVEL,
    Measurements,
    add_footnotes,
    metric_title,
)
from brainhive_cli.core.runs import (
    Artifact,
    BrainMap,
    Curve,
    CurveLine,
    Heatmap,
    RunFolder,
    Sample,
    Sheet,
    SheetRow,
    SheetTile,
    artifacts,
)
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import match_names
from brainhive_cli.data.media import get_first_frame
from brainhive_cli.evaluation.retrieval.facts import ConfusionMatrix, RetrievalFacts
from brainhive_cli.evaluation.retrieval.measure import (
    Models,
    encode,
    encode_gallery,
    open_gallery,
    open_signals,
)
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.scopes import (
    NEAREST,
    REGIONS,
    REPETITIONS,
    name_subject,
    select_scopes,
)
from brainhive_cli.evaluation.retrieval.tables import CURVE_NOTE, lay_out
from brainhive_cli.measurement import Gallery, average_by_unit
from brainhive_cli.reports.figures import (
    is_informative,
    make_rank_bars,
    write_brain_map,
)
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.tables import describe_sample
from brainhive_cli.training.alignment.trained import TestSet, TrainedModel

MAX_NUMBERED_CONCEPTS = 12
"""Largest number of concepts in a confusion matrix with numbers in its cells."""


@console.progress("drawing figures")
def draw_artifacts(
    run: RunFolder,
    measurements: Measurements,
    models: Models,
    tests: TestSet,
    recipe: Recipe,
) -> list[Artifact]:
    """Draw figures, lay out tables, and save a sheet's retrieved pictures.

    Args:
        run: Folder of the run.
        measurements: Measurements of the run.
        models: Models of the first cell group. Empty to leave out the sheet.
        tests: Test set.
        recipe: Recipe of the run.
    """
    facts = measurements.require_facts(RetrievalFacts)
    figures: list[Artifact] = []
    headlines: list[Artifact] = []
    if facts.confusion_matrix:
        headlines.append(_draw_confusions(facts.confusion_matrix))
    if facts.tests_trials and models:
        headlines += _draw_voxels(run, models[0], tests)
    # Heading of the figures on a page.
    page_section = "Retrieval"
    if facts.tests_categories:
        # the matrix shows the finding, and hits and misses have no ranks
        if models:
            headlines += draw_examples(run, tests.dataset)
        headlines = [replace(figure, section=FINDING) for figure in headlines]
    else:
        # the ranks lead the page, unless a matrix shows the answer of every concept
        ranks_section = page_section if facts.confusion_matrix else FINDING
        figures.append(replace(_draw_ranks(measurements), section=ranks_section))
    figures = headlines + figures
    figures += _draw_repetitions(measurements)
    if NEAREST in measurements.scopes:
        figures.append(_draw_train_similarities(measurements))
    figures.append(_draw_regions(measurements))
    if models and not facts.tests_categories:
        figures += _draw_sheet(run, models, tests, recipe)

    artifacts: list[Artifact] = []
    for figure in filter(is_informative, figures):
        caveats = list(measurements.caveats)
        # a map of the signals has no trained model
        if isinstance(figure, BrainMap) and SEEN_PICTURES in caveats:
            caveats.remove(SEEN_PICTURES)
        note = add_footnotes(figure.note, caveats)
        section = figure.section or page_section
        artifacts.append(replace(figure, section=section, note=note))
    # Tables on pages, which show the metrics of cells and the curves in other ways.
    page_tables = (
        "baseline",
        "control",
        "corrections",
        "subsets",
        "ceiling",
        "comparisons",
    )
    for table in lay_out(measurements, page_tables):
        note = add_footnotes(table.note, measurements.caveats)
        artifacts.append(replace(table, section="Details", note=note))
    return artifacts


def _draw_confusions(matrix: ConfusionMatrix) -> Heatmap:
    """Draw the share of each concept's trials that were decoded as each concept."""
    # a concept without trials has a row of zeros
    totals = np.sum(matrix.counts, 1, keepdims=True)
    shares = matrix.counts / np.maximum(1, totals)

    # write the numbers of a few concepts into the cells
    texts: list[list[str]] = []
    if len(matrix.names) <= MAX_NUMBERED_CONCEPTS:
        for row_counts, row_shares in zip(matrix.counts, shares, strict=True):
            texts.append([])
            for count, share in zip(row_counts, row_shares, strict=True):
                text = f"{count:,}\n{100 * share:.0f} %" if count else "0"
                texts[-1].append(text)
    names = [name.replace("_", " ") for name in matrix.names]
    return Heatmap(
        "Confusion matrix",
        values=shares.round(4).tolist(),
        rows=names,
        columns=names,
        row_axis="shown",
        column_axis="decoded as",
        value="share of the trials of a row",
        low=0.0,
        high=1.0,
        texts=texts,
        note="Each row shows the trials of a category, and how many of them were "
        "decoded as each category.",
    )


def _draw_voxels(run: RunFolder, model: TrainedModel, tests: TestSet) -> list[BrainMap]:
    """Draw how far the first subject's categories differ in each voxel, as F values.

    Voxels below the F of p = .05, corrected by Bonferroni, are not drawn, unless all
    voxels are below it.

    Returns:
        The map, or nothing if the voxels have no positions.
    """
    from scipy.stats import f as f_distribution
    from sklearn.feature_selection import f_classif

    subject = model.cell.tested_on[0]
    person = tests.open_person(model, subject)
    train_trials = person.train_trials
    test_trials = person.all_trials
    space = test_trials.space
    if space.grid is None:
        return []
    signals = np.concatenate([train_trials.averages, test_trials.averages])
    categories = np.concatenate([train_trials.stimulus, test_trials.stimulus])
    f_values, _ = f_classif(signals[:, :, 0], categories)
    f_values = np.nan_to_num(f_values)

    n_trials, n_voxels = signals.shape[:2]
    n_categories = len(np.unique(categories))
    threshold: float | None = float(
        f_distribution.isf(
            SIGNIFICANCE_LEVEL / n_voxels, n_categories - 1, n_trials - n_categories
        )
    )
    test = (
        f"F test that takes trials as independent, p < {SIGNIFICANCE_LEVEL:g}, "
        f"Bonferroni-corrected for {n_voxels} voxels"
    )
    if f_values.max() >= threshold:
        note = f"Only voxels with F of at least {threshold:.2f} are coloured ({test})."
    else:
        note = f"No voxel reaches F = {threshold:.2f} ({test}), so all are coloured."
        threshold = None
    figure = write_brain_map(
        run.path,
        f"sub-{subject:02d}",
        "f_of_categories",
        f_values,
        space,
        title=f"Where the categories differ: F of each voxel over all {n_trials} "
        f"trials of {name_subject(subject)}",
        value="F (describes the signals, no model)",
        note=note,
        threshold=threshold,
    )
    return [figure]


def draw_examples(run: RunFolder, dataset: Dataset) -> list[Sheet]:
    """Draw a sheet with a picture of each category, and save the pictures.

    Returns:
        The sheet, or nothing if the categories have no pictures or are too many.
    """
    stimuli = dataset.images("train")
    if stimuli.open_example is None or len(stimuli) > MAX_NUMBERED_CONCEPTS:
        return []
    rows = []
    for index, name in enumerate(stimuli.image_ids):
        try:
            picture = stimuli.open_example(index)
        except (BrainhiveError, OSError) as error:
            # all metrics are computed by now, so a picture must not stop the command
            console.warn(f"no example of {name}: {first_line(error)}")
            continue
        file = artifacts.save_picture(run, f"examples/{index}", picture)
        rows.append(SheetRow(name, [SheetTile(file, [name])]))
    return [Sheet("An example of each category", columns=["example"], rows=rows)]


def _draw_ranks(measurements: Measurements) -> Curve:
    """Draw the ranks of the seen pictures in all cells."""
    cells = measurements.items.values()
    ranks = np.concatenate([values["ranks"] for values in cells])
    pool = measurements.overall["top1"].pool or int(ranks.max())
    title = f"Ranks of the seen {measurements.facts.stimulus}, against chance"
    return make_rank_bars(title, ranks, pool, f"share of {len(ranks):,} signals")


def _draw_repetitions(measurements: Measurements) -> list[Curve]:
    """Draw the hits over the number of averaged repetitions, if it was measured."""
    points = select_scopes(measurements, REPETITIONS)
    if not points:
        return []
    hit_metric = measurements.require_facts(RetrievalFacts).hit_metric
    title = metric_title(hit_metric)
    hits = [metrics[hit_metric] for metrics in points.values()]
    curve = Curve(
        "Accuracy over repetitions",
        axis="repetitions averaged",
        at=list(map(float, points)),
        lines=[CurveLine.from_metrics(title, hits)],
        value=title,
        is_logarithmic=True,
        note=CURVE_NOTE,
    )
    return [curve]


def _draw_train_similarities(measurements: Measurements) -> Curve:
    """Draw the rank advantage over the similarity to the nearest training picture.

    The advantage is how much better a picture ranks for its own signal than for others.
    """
    similarities, advantages = average_by_unit(measurements.items.values())
    order = np.argsort(similarities, kind="stable")
    bin_similarities = []
    bin_advantages = []
    # Number of bins of equal size in the figure of nearest training pictures.
    for rows in np.array_split(order, 8):
        if len(rows):
            bin_similarities.append(float(similarities[rows].mean()))
            bin_advantages.append(float(advantages[rows].mean()))
    line = np.polyfit(similarities, advantages, 1)
    fitted = np.polyval(line, bin_similarities).tolist()
    slope = measurements.scopes[NEAREST]["nearest_slope"]
    return Curve(
        "Score against the nearest training picture",
        axis="cosine with the nearest training picture",
        at=bin_similarities,
        lines=[
            CurveLine("mean of a bin", bin_advantages),
            CurveLine("least squares", fitted),
        ],
        value="share of wrong pictures below, less that for other signals",
        note=f"Slope {slope.value:.3f} per standard deviation of cosine, 95 % CI "
        f"{slope.interval_text()} ({slope.interval}). Cosines are of the embeddings "
        "that retrieval compares. A slope above 0 says that pictures near training "
        "pictures score better.",
    )


def _draw_regions(measurements: Measurements) -> Curve:
    """Draw how much of each head's prediction is lost without each region."""
    regions = select_scopes(measurements, REGIONS)
    heads = next(iter(regions.values()), {})
    lines = []
    for head in heads:
        shares = [metrics[head] for metrics in regions.values()]
        lines.append(CurveLine.from_metrics(head, shares))
    return Curve(
        "What each region carries",
        axis="region",
        at=list(regions),
        lines=lines,
        value="share of the prediction lost without it",
        style="bars",
        note=measurements.facts.protocol,
    )


def _draw_sheet(
    run: RunFolder, models: Models, tests: TestSet, recipe: Recipe
) -> list[Sheet]:
    """Draw a sheet of random signals of the first subject, and retrieved pictures.

    Returns:
        The sheet, or nothing if no picture can be read.
    """
    # encode the signals and the pictures as unit tokens
    gallery = open_gallery(models, tests, recipe.splits, recipe.only_shown)
    model = models[0]
    subject = model.cell.tested_on[0]
    signals = open_signals(models, tests, subject, gallery.test_rows)
    targets = signals.targets
    tokens = normalize(encode(models, signals.trials))  # [N, D]
    images = normalize(encode_gallery(models, tests, gallery))  # [M, D]

    # choose random signals, and the pictures that are most similar to each
    order = np.random.default_rng(recipe.seed).permutation(len(tokens))
    queries = order[: recipe.sheet_rows]
    scores = (tokens[queries] @ images.T).cpu().numpy()
    # Number of retrieved pictures in a row of the sheet.
    n_retrieved = 5
    retrieved = np.argsort(-scores, axis=1, kind="stable")[:, :n_retrieved]
    seen_indices = targets[queries]
    files = save_pictures(
        run, tests.dataset, gallery, np.union1d(seen_indices, retrieved)
    )
    if not any(files.values()):
        return []

    # pictures that cannot be read leave a gap
    concepts = [concept.replace("_", " ") for concept in gallery.concepts]
    rows = []
    for query_scores, target, nearest in zip(
        scores, seen_indices.tolist(), retrieved.tolist(), strict=True
    ):
        # ties rank before the seen picture
        rank = int((query_scores >= query_scores[target]).sum())
        lines = [concepts[target], f"rank {rank} of {len(images)}"]
        tiles = [SheetTile(files[target], lines)]
        for index in nearest:
            lines = [concepts[index], f"cosine {query_scores[index]:.2f}"]
            is_right = index == target
            tiles.append(
                SheetTile(files[index], lines, verdict="right" if is_right else "wrong")
            )
        image_id = gallery.image_ids[target]
        rows.append(SheetRow(image_id, tiles, rank, len(images)))
    columns = ["seen"] + list(map(str, range(1, n_retrieved + 1)))
    has_repeated_pictures = len(set(targets.tolist())) < len(tokens)
    noun = f"{recipe.split} {'trials' if has_repeated_pictures else 'pictures'}"
    sample = Sample(len(tokens), noun, recipe.seed, name_subject(subject))
    description = describe_sample(len(queries), len(tokens), noun, recipe.seed)
    sheet = Sheet(
        f"Seen, and the {n_retrieved} most similar pictures",
        columns=columns,
        rows=rows,
        sample=sample,
        note=f"{description}; {model.cell.name} on {name_subject(subject)}",
    )
    return [sheet]


def save_pictures(
    run: RunFolder, dataset: Dataset, gallery: Gallery, rows: Int64
) -> dict[int, str]:
    """Save pictures of a gallery for the sheet, and warn of unreadable pictures.

    Args:
        run: Folder of the run.
        dataset: Data set that has the pictures.
        gallery: Candidates.
        rows: Gallery indices of the pictures, each once.

    Returns:
        File of each picture, by its index. "" for a picture that cannot be read.
    """
    files = dict.fromkeys(rows.tolist(), "")
    problems: list[str] = []
    start = 0
    for split, split_rows in gallery.rows.items():
        # the gallery lists split after split
        stop = start + len(split_rows)
        indices = rows[(start <= rows) & (rows < stop)].tolist()
        start = stop
        if not indices:
            continue
        try:
            images = dataset.images(dataset.holdout.name_stored_split(split))
            if not images.has_pictures:
                continue
            ids = [gallery.image_ids[index] for index in indices]
            image_rows, missing_ids = match_names(ids, images.image_ids)
        except BrainhiveError as error:
            problems += [error.in_one_line] * len(indices)
            continue

        # all metrics are computed by now, so a picture must not stop the command
        for image_id in missing_ids:
            problems.append(f"{dataset.name} {split} has no {image_id}")
        for index, image_row in zip(indices, image_rows.tolist(), strict=True):
            if image_row < 0:
                continue
            try:
                picture = get_first_frame(images.open(image_row))
            except (BrainhiveError, OSError) as error:
                problems.append(first_line(error))
                continue
            files[index] = artifacts.save_picture(run, f"gallery/{index}", picture)

    if problems:
        state = "has gaps" if any(files.values()) else "is left out"
        console.warn(
            f"the sheet {state}: {len(problems)} of its {len(files)} pictures cannot "
            f"be read, the first because of: {problems[0]}. With them, --again draws it"
        )
    return files
