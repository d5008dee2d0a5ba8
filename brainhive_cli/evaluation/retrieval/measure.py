"""All that is measured on one cell: ranks, subsets, curves, ceiling, regions and
control, by subject.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, reduce
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.measurements import BACKWARD, TRIALS_TOGETHER, scope
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signals.selection import make_region_masks
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    CORRECTIONS,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    SUBSETS,
)
from brainhive_cli.measurement.ranks import expected_subset_hits, rank_targets
from brainhive_cli.measurement.reliability import (
    average_halves,
    correlation_shares,
    rank_halves,
    unit_vectors,
)
from brainhive_cli.measurement.repetitions import separate_repetitions
from brainhive_cli.measurement.retrieval import (
    Gallery,
    Scores,
    depends_on_other_trials,
    measure_control,
    permute_targets,
    rank_corrected,
    rank_for_verdict,
    rank_gallery,
)
from brainhive_cli.measurement.units import MIN_UNITS_FOR_POPULATION
from brainhive_cli.training.alignment.trained.model import TrainedModel

Models = Sequence[TrainedModel]
"""The models of a group: their cosine similarities are averaged.

Unit tokens concatenated have the mean of their cosines as cosine, so that several
models have tokens too.
"""
TRAINING_AT_ONCE = 1024
"""Training pictures whose tokens are held at once: of 427,648 numbers each, 1.8 GB."""
SIGNALS_AT_ONCE = 64
"""Signals whose heads are predicted at once: 272,896 outputs of each are 70 MB."""


@console.progress("ranking pictures by signals")
def measure_cell(models: Models, spec: Recipe) -> tuple[Gallery, dict[int, Scores]]:
    """Measure everything requested of a cell; its gallery is encoded once.

    Args:
        models: The cell's model, or several.
        spec: What is measured. A control permutes alike in all cells: seeds share a
            subject's signals.

    Returns:
        The candidates, and the scores of each subject.
    """
    # rank all subjects at once, so that a large gallery is read once
    gallery = open_gallery(models, spec.splits, spec.only_shown)
    images = encode_gallery(models, gallery)
    tokens, items = {}, {}
    for subject in models[0].cell.tested_on:
        tokens[subject], items[subject] = encode_items(
            models, gallery, images, subject, spec
        )
    scores = rank_gallery(gallery, images, tokens, items)
    corrected = rank_corrected(gallery, images, tokens, items, spec.corrections)
    alone = rank_alone(models, gallery, images, tokens, items)
    nearest = measure_nearest(models, images[: len(gallery.test_rows)], spec.split)

    # further measures of each subject
    for subject, signals in tokens.items():
        table = scores[subject]
        target = gallery.find_indices(table.labels)
        scopes: dict[str, Scores] = {**table.scopes}
        if spec.subsets:
            scopes[SUBSETS] = measure_subsets(signals, images[target], spec.subsets)
        scopes |= {
            scope(part, name): ranked[subject]
            for part, table_of in ((CORRECTIONS, corrected), (ALONE, alone))
            for name, ranked in table_of.items()
        }
        if spec.repetitions:
            scopes |= measure_repetitions(models, images, target, subject, spec)
        if spec.region_shares:
            scopes |= measure_region_shares(models[0], subject, spec.split)
        ceiling = _open_ceiling(models, subject, spec) if spec.ceiling_splits else None
        scores[subject] = replace(
            rank_for_verdict(gallery, images, signals, table),
            scopes=scopes,
            ceiling=ceiling,
            train_similarities=nearest[target] if nearest.size else nearest,
        )

    # a prediction that needs other test signals is no result of one trial
    if dependent := [
        str(subject) for subject, listed in items.items() if not listed.is_trialwise
    ]:
        console.warn(
            f"{models[0].cell.name}: tokens of subject {', '.join(dependent)} depend "
            "on the other test signals, and every number is stamped "
            f"“{TRIALS_TOGETHER}”; let the backbone use no mean or other statistic of "
            "the batch in evaluation mode"
        )
    return gallery, scores


def open_gallery(
    models: Models, splits: Sequence[str], only_shown: bool = False
) -> Gallery:
    """List the pictures of some splits that every model has an embedding of; signals
    are those of the last.

    With `only_shown`, those of the last that a tested subject of any cell was shown.

    Raises:
        BrainhiveError: if models have different pictures.
    """
    # candidates that were tested come first, as their split is the last
    first = models[0]
    rows = dict[str, Int64]()
    image_ids = list[str]()
    concepts = list[str]()
    for split in reversed(splits):
        rows[split] = shared_rows(models, split)
        if only_shown and split == splits[-1]:
            subjects = {
                subject for cell in first.run.cells for subject in cell.tested_on
            }
            shown = [first.shown(subject, split) for subject in sorted(subjects)]
            rows[split] = np.intersect1d(rows[split], np.concatenate(shown))
        pictures = first.pictures(split)
        image_ids += pictures.image_ids[rows[split]]
        concepts += pictures.concepts[rows[split]]
    return Gallery(rows, image_ids, concepts, first.run.dataset.alike_by)


def shared_rows(models: Models, split: str) -> Int64:
    """Find the rows of the pictures that every model has an embedding of."""
    # rows are compared across models, so their stores must list the same pictures
    first, *rest = (model.pictures(split) for model in models)
    for other in rest:
        if first.image_ids != other.image_ids:
            raise BrainhiveError(
                f"{first.path} and {other.path} hold different pictures", "embed again"
            )
    return reduce(np.intersect1d, [model.rows(split) for model in models])


def encode_gallery(models: Models, gallery: Gallery) -> Tensor:
    """Encode the pictures of a gallery as tokens [M, D]."""
    return torch.cat(
        [
            _join(model.images(split, rows) for model in models)
            for split, rows in gallery.rows.items()
        ]
    )


def measure_nearest(models: Models, tested: Tensor, split: str) -> Float64:
    """Measure the cosine of tested pictures [N, D] with the nearest training picture,
    [N].

    Nothing where the training pictures are those that are tested, or those of another
    data set, or have no embeddings here.
    """
    run = models[0].run
    if (
        split == "train"
        or run.dataset.holdout.has_seen_pictures
        or run.origin is not None
    ):
        return np.empty(0)
    with suppress(MissingData):
        # blocks of training pictures, of which one is held at a time
        rows = shared_rows(models, "train")
        best = []
        for part in np.array_split(rows, 1 + len(rows) // TRAINING_AT_ONCE):
            learned = _join(model.images("train", part) for model in models)
            cosines = normalize(tested.float()) @ normalize(learned.float()).T
            best.append(cosines.amax(1).double().cpu())  # [N]
        # further digits depend on the order of heads
        return np.max(best, 0).round(5)
    return np.empty(0)


def open_trials(models: Models, subject: int, split: str) -> list[Trials]:
    """Open a subject's trials as each model reads them, of pictures that all have and
    none has seen.
    """
    opened = [model.trials(subject, split) for model in models]
    _ = [trials.averages for trials in opened]  # which the cells that follow read, too
    tested = reduce(
        np.intersect1d,
        [shared_rows(models, split), *(trials.stimulus for trials in opened)],
    )
    return [trials.take(np.isin(trials.stimulus, tested)) for trials in opened]


def encode(models: Models, trials: Iterable[Trials]) -> Tensor:
    """Encode the averages of trials, as each model reads them, as tokens [N, D]."""
    return _join(model.encode(part) for model, part in zip(models, trials, strict=True))


def _join(tokens: Iterable[Tensor]) -> Tensor:
    """Join the tokens [N, D] of several models."""
    # unit tokens side by side have the mean of the models' cosines
    first, *rest = tokens
    return torch.cat([normalize(part) for part in (first, *rest)], 1) if rest else first


def rank_alone(
    models: Models,
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
) -> dict[str, dict[int, Scores]]:
    """Rank by each of several models alone, on the same items, by the names of their
    runs; nothing of one model.
    """
    if len(models) < 2:
        return {}
    # the columns of each model in joined tokens [N, D]
    split, rows = next(iter(gallery.rows.items()))
    widths = [model.images(split, rows[:1]).shape[1] for model in models]
    pictures = images.split(widths, 1)
    signals = {subject: joined.split(widths, 1) for subject, joined in tokens.items()}
    ranked = {}
    for number, model in enumerate(models):
        part = {subject: parts[number] for subject, parts in signals.items()}
        ranked[model.run.name] = {
            subject: replace(table, description=f"{model.run.name} alone")
            for subject, table in rank_gallery(
                gallery, pictures[number], part, items
            ).items()
        }
    return ranked


def encode_items(
    models: Models, gallery: Gallery, images: Tensor, subject: int, spec: Recipe
) -> tuple[Tensor, Scores]:
    """Encode a subject's signals as tokens [N, D], and list what they showed, not yet
    ranked.
    """
    # index in the gallery of what was seen
    first = models[0]
    split = spec.split
    tested = open_trials(models, subject, spec.split)
    tokens = encode(models, tested)
    rows = tested[0].stimulus
    seen = np.searchsorted(gallery.test_rows, rows)

    # what was interleaved; names and runs or sessions of held-out trials, which no
    # other designs have
    is_tested = np.isin(first.trials(subject, split).stimulus, rows)
    interleaving = first.interleaving(tested[0], split)
    if interleaving.repeats and (overlap := first.find_overlap(tested[0], split)):
        interleaving = replace(interleaving, problem=overlap.problem, follows_time=True)
    names, groups = (
        [*compress(listed, is_tested)] for listed in first.name_trials(subject, split)
    )

    # what signals are tested on, which a control permutes
    parts = interleaving.parts if names else ()
    targets = permute_targets(seen, gallery, spec.control, spec.seed, parts)
    target = next(targets)
    control = (
        {}
        if spec.control == "none"
        else measure_control(gallery, images, tokens, [seen, *targets])
    )

    # a prediction that needs other test signals is no result of one trial
    is_trialwise = not any(
        depends_on_other_trials(
            partial(model.encode, part), torch.from_numpy(part.averages)
        )
        for model, part in zip(models, tested, strict=True)
    )
    labels = [gallery.image_ids[index] for index in target]
    concepts = [gallery.concepts[index] for index in target]
    items = Scores(
        names or labels,
        labels,
        concepts,
        groups,
        interleaving,
        is_trialwise,
        control=control,
    )
    return tokens, items


def measure_subsets(tokens: Tensor, shown: Tensor, ways: int) -> Scores:
    """Measure how often signals [N, D] and pictures [N, D] find each other in small
    galleries.
    """
    # of all pictures where they are fewer
    pool = min(ways, len(shown))
    words = f"{pool}-way" if pool == ways else f"all {pool} pictures, fewer than {ways}"
    expected = expected_subset_hits(tokens, shown, pool)
    forward, backward = (
        Scores(values={"top1_expected": shares}, pool=pool) for shares in expected
    )
    return replace(forward, description=words, scopes={BACKWARD: backward})


def check_measures(spec: Recipe, trials: Trials) -> None:
    """Refuse repetitions and regions that a subject's trials do not have."""
    if spec.repetitions:
        count_repetitions(trials, spec)
    if spec.region_shares:
        mask_regions(trials)


def count_repetitions(trials: Trials, spec: Recipe) -> list[int]:
    """List how many repetitions are averaged, ascending.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    most = int(trials.counts.max())
    doubled = {*(2**n for n in range(most.bit_length())), most}  # 1, 2, 4, … and all
    chosen = sorted(doubled if spec.repetitions == "all" else spec.repetitions or ())
    if max(chosen) > most:
        raise RecipeError(
            f"repetitions: {max(chosen)} of a picture requested, subject "
            f"{trials.subject} has {most}",
            "repetitions=all takes 1, 2, 4, … and all that there are",
        )
    return chosen


def mask_regions(trials: Trials) -> dict[str, Tensor]:
    """Mark the voxels [V, 1] of each region that has any.

    Raises:
        RecipeError: if there is none.
    """
    regions = make_region_masks(trials.regions, trials.width)
    if not regions:
        raise RecipeError(
            "region_shares is of voxels in regions, which the signals have not",
            "leave it",
        )
    return {name: torch.from_numpy(mask) for name, mask in regions.items()}


def measure_repetitions(
    models: Models, images: Tensor, target: Int64, subject: int, spec: Recipe
) -> dict[str, Scores]:
    """Rank what averages of k repetitions show, for each k; which ones is drawn at
    random, several times.

    A picture with fewer repetitions averages all it has.

    Args:
        models: The cell's.
        images: [M, D] tokens of the candidates.
        target: [N] index of what each signal showed.
        subject: Whose signals.
        spec: Numbers of repetitions, and the seed.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    # numbers of repetitions
    tested = open_trials(models, subject, spec.split)
    chosen = count_repetitions(tested[0], spec)
    most = int(tested[0].counts.max())

    # tokens of averages of k random repetitions, alike for all models; of all there is
    # one choice
    points = {}
    for k in chosen:
        draws = []
        for draw in range(REPETITION_DRAWS if k < most else 1):
            seed = derive_seed(spec.seed, subject, k, draw)
            averages = [
                trials.average(k, torch.Generator().manual_seed(seed))
                for trials in tested
            ]
            draws.append(encode(models, averages))

        # all draws are ranked at once, so that a large gallery is read once: [draws, N]
        ranked = rank_targets(
            torch.cat(draws), images, torch.from_numpy(np.tile(target, len(draws)))
        )
        points[scope(REPETITIONS, f"{k}")] = Scores(
            ranks=ranked.numpy().reshape(len(draws), -1),
            pool=len(images),
            description=f"{k} of them drawn",
        )
    return points


def _open_ceiling(models: Models, subject: int, spec: Recipe) -> Scores:
    """Measure the ceiling of a subject's signals, once for all cells: they depend on no
    model.
    """

    def measure() -> Scores:
        tested = open_trials(models, subject, spec.split)[0]
        trials = torch.from_numpy(tested.singles)
        available = torch.from_numpy(tested.counts)
        ids = [*models[0].pictures(spec.split).image_ids[tested.stimulus]]

        # halves are of repetitions that are far apart, as far as their times are known
        is_there = tested.is_there
        sessions = tested.sessions
        try:
            parts = separate_repetitions(
                is_there, sessions, tested.runs, tested.times_in_run
            )
        except BrainhiveError as error:
            return Scores(repetitions=int(available.max()), reason=error.message)

        # what all pictures of a session share is no agreement of a picture's
        # repetitions
        for number in () if sessions is None else np.unique(sessions[is_there]):
            is_of_session = torch.from_numpy(is_there & (sessions == number))
            if int(is_of_session.any(1).sum()) >= MIN_UNITS_FOR_POPULATION:
                trials[is_of_session] -= trials[is_of_session].mean(0)
        seed = derive_seed(spec.seed, subject)
        return measure_ceiling(
            trials, available, ids, spec.ceiling_splits, seed, torch.from_numpy(parts)
        )

    return models[0].once("ceiling", subject, spec.split, measure)


def measure_ceiling(
    trials: Tensor,
    available: Tensor,
    image_ids: Sequence[str],
    splits: int,
    seed: int,
    parts: Tensor,
) -> Scores:
    """Halve the single trials [N, R, …] of pictures at random, `splits` times; [N] of
    the R exist.

    Halves are of different `parts` [N, R] of the recording, see `separate_repetitions`.
    """
    # pictures that were repeated
    numbers = torch.arange(trials.shape[1])
    is_there = numbers < available[:, None]  # [N, R]
    most = int(available.max())
    is_repeated = parts.masked_fill(~is_there, 0).amax(1) >= 1
    ids = [*compress(image_ids, is_repeated.tolist())]
    if len(ids) < 2:
        few = (
            "one repetition of each picture"
            if most < 2
            else "fewer than two pictures were repeated"
        )
        return Scores(repetitions=most, reason=few)
    signal = trials[is_repeated].flatten(2)
    available = available[is_repeated]
    parts = parts[is_repeated]
    signal[~is_there[is_repeated]] = 0  # the padding may be NaN

    # ranks of the pictures, and their shares in the correlation of the halves, by split
    ranks_by_split = []
    shares = []
    sizes = []
    with console.progress("measuring the ceiling", splits) as bar:
        for split in range(splits):
            random = torch.Generator().manual_seed(derive_seed(seed, split))
            *halves, size = average_halves(signal, available, random, parts=parts)
            ranks_by_split.append(rank_halves(*halves).numpy())
            shares.append(
                correlation_shares(
                    *(unit_vectors(half.numpy()) for half in halves)
                ).mean(1)
            )
            sizes.append(float(size.sum()))
            bar.advance()

    # how many times as many repetitions there are as a half has
    times = float(available.sum()) / float(np.mean(sizes))
    ranks = np.stack(ranks_by_split)
    values = {"reliability": np.mean(shares, 0)}
    return Scores(
        ids,
        ranks=ranks,
        pool=len(ids),
        values=values,
        repetitions=most,
        repetition_ratio=times,
    )


def measure_region_shares(
    model: TrainedModel, subject: int, split: str
) -> dict[str, Scores]:
    """Replace the voxels of each region by their mean over training signals, and
    predict again.

    A share is the squared change of a head's prediction, over that with all voxels
    replaced: 0 where the region has no effect. Shares of regions that interact, or
    overlap, do not add up to 1.

    Raises:
        RecipeError: if the signals are not of voxels.
    """
    # voxels of each region, and the mean training signal
    trials = model.trials(subject, split)
    rest = torch.from_numpy(model.mean_training_signal(subject))  # [V, 1]
    masks = mask_regions(trials)

    # squared change [N] of each head without a region, over that without all voxels
    def measure_change(values: Tensor, changed: Tensor) -> Tensor:
        return (values - changed).flatten(1).square().sum(1).cpu()

    # with every voxel at its mean nothing of the picture is left
    empty = model.predict(subject, rest[None])
    shares: dict[str, dict[str, Any]] = {
        name: {head: [] for head in empty} for name in masks
    }
    for part in torch.from_numpy(trials.averages).split(SIGNALS_AT_ONCE):
        predicted = model.predict(subject, part)  # heads [n, …] with all voxels
        for name, mask in masks.items():
            for head, values in model.predict(
                subject, torch.where(mask, rest, part)
            ).items():
                total = measure_change(predicted[head], empty[head]).clamp(min=1e-30)
                shares[name][head] += (
                    measure_change(predicted[head], values) / total
                ).tolist()
    ids = model.name_trials(subject, split)[0] or [
        *model.pictures(split).image_ids[trials.stimulus]
    ]
    return {
        scope(REGIONS, name): Scores(ids, values=values, description="by region")
        for name, values in shares.items()
    }
