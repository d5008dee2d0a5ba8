"""Scores of a cell: the gallery, ranked for the signals of each tested subject."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.measurements import (
    BACKWARD,
    TRIALS_TOGETHER,
    scope,
)
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
    correlate_without_each,
    predict_reliability,
    retrieve_halves,
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
from brainhive_cli.measurement.units import (
    MIN_UNITS_FOR_POPULATION,
    Items,
    StimulusGrouping,
)
from brainhive_cli.training.alignment.cells import list_test_subjects
from brainhive_cli.training.alignment.trained.model import TrainedModel

Models = Sequence[TrainedModel]
"""Models of a cell group. Retrieval averages their cosine similarities.

The unit tokens of several models are concatenated. The cosine similarity of
concatenated tokens is the mean over the models.
"""
TRAIN_PICTURES_PER_BATCH = 1024
"""Training pictures whose tokens are in memory together: 1.8 GB of 427,648 numbers
each.
"""
SIGNALS_PER_BATCH = 64
"""Signals whose heads are predicted together: 70 MB of 272,896 outputs each."""


@console.progress("ranking pictures by signals")
def measure_cell(models: Models, recipe: Recipe) -> tuple[Gallery, dict[int, Scores]]:
    """Rank the gallery for the signals of a cell, and take further measures.

    A control permutes the labels of a subject in the same way in all cells.

    Args:
        models: Models of the cell group.
        recipe: Recipe that says what is measured.

    Returns:
        The gallery, and the scores by subject.
    """
    # encode the pictures, and the signals of all subjects
    gallery = open_gallery(models, recipe.splits, recipe.only_shown)
    images = encode_gallery(models, gallery)
    tokens = {}
    items = {}
    for subject in models[0].cell.tested_on:
        tokens[subject], items[subject] = encode_items(
            models, gallery, images, subject, recipe
        )

    # rank for all subjects together, so that a large gallery is read once
    scores = rank_gallery(gallery, images, tokens, items)
    corrected = rank_corrected(gallery, images, tokens, items, recipe.corrections)
    single = rank_single_models(models, gallery, images, tokens, items)
    test_images = images[: len(gallery.test_rows)]
    similarities = measure_train_similarities(models, test_images, recipe.split)

    # measure everything else that the recipe requests, for each subject
    dependent = []
    for subject, signals in tokens.items():
        subject_scores = scores[subject]
        target = gallery.find_indices(subject_scores.labels)
        scopes: dict[str, Scores] = dict(subject_scores.scopes)
        if recipe.subsets:
            scopes[SUBSETS] = measure_subsets(signals, images[target], recipe.subsets)
        for name, tables in corrected.items():
            scopes[scope(CORRECTIONS, name)] = tables[subject]
        for name, tables in single.items():
            scopes[scope(ALONE, name)] = tables[subject]
        if recipe.repetitions:
            scopes |= measure_repetitions(models, images, target, subject, recipe)
        if recipe.region_shares:
            scopes |= measure_region_shares(models[0], subject, recipe.split)
        ceiling = None
        if recipe.ceiling_splits:
            # the ceiling depends on no model, so cells share it
            compute = partial(_measure_signal_ceiling, models, subject, recipe)
            ceiling = models[0].compute_once("ceiling", subject, recipe.split, compute)
        if not items[subject].is_trialwise:
            dependent.append(str(subject))
        scores[subject] = replace(
            rank_for_verdict(gallery, images, signals, subject_scores),
            scopes=scopes,
            ceiling=ceiling,
            train_similarities=similarities[target]
            if similarities.size
            else similarities,
        )

    # a prediction that needs other test signals is no result of a single trial
    if dependent:
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
    """List the candidates: pictures for which every model has an embedding.

    Args:
        models: Models of the cell group.
        splits: Splits of the pictures. The signals of the last split are tested.
        only_shown: If True, leave out pictures of the last split that no tested subject
            of any cell was shown.

    Raises:
        BrainhiveError: if models have different pictures.
    """
    # the tested split comes first
    model = models[0]
    rows: dict[str, Int64] = {}
    image_ids: list[str] = []
    concepts: list[str] = []
    for split in reversed(splits):
        rows[split] = find_shared_rows(models, split)
        if only_shown and split == splits[-1]:
            shown_rows = [
                model.find_shown_rows(subject, split)
                for subject in list_test_subjects(model.run.cells)
            ]
            rows[split] = np.intersect1d(rows[split], np.concatenate(shown_rows))
        pictures = model.open_pictures(split)
        image_ids += pictures.image_ids[rows[split]]
        concepts += pictures.concepts[rows[split]]
    # the outputs of a single classifier can be compared between signals
    contents = {config.content for config in model.encoders}
    are_labels = len(models) == 1 and contents == {"labels"}
    return Gallery(
        rows, image_ids, concepts, model.run.dataset.alike_by, are_labels=are_labels
    )


def find_shared_rows(models: Models, split: str) -> Int64:
    """Return the rows [M] of the pictures for which every model has an embedding.

    Raises:
        BrainhiveError: if the files of the models list different pictures.
    """
    first_pictures = models[0].open_pictures(split)
    rows = models[0].find_rows(split)
    for model in models[1:]:
        pictures = model.open_pictures(split)
        if first_pictures.image_ids != pictures.image_ids:
            raise BrainhiveError(
                f"{first_pictures.path} and {pictures.path} hold different pictures",
                "embed again",
            )
        rows = np.intersect1d(rows, model.find_rows(split))
    return rows


def encode_gallery(models: Models, gallery: Gallery) -> Tensor:
    """Encode the pictures of a gallery as tokens [M, D]."""
    tokens = []
    for split, rows in gallery.rows.items():
        tokens.append(_encode_pictures(models, split, rows))
    return torch.cat(tokens)


def _encode_pictures(models: Models, split: str, rows: Int64) -> Tensor:
    """Encode the pictures in some rows of a split as tokens [M, D]."""
    return _join_tokens([model.encode_pictures(split, rows) for model in models])


def measure_train_similarities(
    models: Models, test_images: Tensor, split: str
) -> Float64:
    """Measure the similarity of tested pictures to the nearest training picture.

    Args:
        models: Models of the cell group.
        test_images: Tokens [N, D] of the tested pictures.
        split: Split of the tested pictures.

    Returns:
        Largest cosine similarity [N]. Empty if the tested pictures are training
        pictures, if the models were trained on another data set, or if the training
        pictures have no embeddings.
    """
    run = models[0].run
    has_seen_pictures = split == "train" or run.dataset.holdout.has_seen_pictures
    if has_seen_pictures or run.origin is not None:
        return np.empty(0)
    with suppress(MissingData):
        rows = find_shared_rows(models, "train")
        maxima = []
        n_batches = 1 + len(rows) // TRAIN_PICTURES_PER_BATCH
        for batch in np.array_split(rows, n_batches):
            images = _encode_pictures(models, "train", batch)
            cosines = normalize(test_images.float()) @ normalize(images.float()).T
            maxima.append(cosines.amax(1).double().cpu())  # [N]
        # further digits depend on the order of the heads
        return np.max(maxima, 0).round(5)
    return np.empty(0)


def open_trials(models: Models, subject: int, split: str) -> list[Trials]:
    """Open the trials of a subject as each model reads them.

    Trials of pictures that a model has no embedding of, or was trained on, are left
    out.
    """
    model_trials = []
    rows = find_shared_rows(models, split)
    for model in models:
        trials = model.open_trials(subject, split)
        # compute the averages now, because later cells use them, too
        _ = trials.averages
        rows = np.intersect1d(rows, trials.stimulus)
        model_trials.append(trials)
    return [trials.take(np.isin(trials.stimulus, rows)) for trials in model_trials]


def encode(models: Models, trials: Iterable[Trials]) -> Tensor:
    """Encode the averages of trials, as each model reads them, as tokens [N, D]."""
    pairs = zip(models, trials, strict=True)
    return _join_tokens([model.encode(model_trials) for model, model_trials in pairs])


def _join_tokens(tokens: Sequence[Tensor]) -> Tensor:
    """Concatenate the unit tokens [N, D] of several models. Keep a single tensor."""
    if len(tokens) == 1:
        return tokens[0]
    return torch.cat(list(map(normalize, tokens)), 1)


def rank_single_models(
    models: Models,
    gallery: Gallery,
    images: Tensor,
    tokens: Mapping[int, Tensor],
    items: Mapping[int, Scores],
) -> dict[str, dict[int, Scores]]:
    """Rank the gallery by each of several models alone, on the same items.

    Args:
        models: Models of the cell group.
        gallery: Candidates.
        images: Tokens [M, D] of the candidates, concatenated over models.
        tokens: Tokens [N, D] of the signals, likewise, by subject.
        items: Scores with the labels of the signals, by subject.

    Returns:
        Scores by name of the model's run and by subject. Empty for a single model.
    """
    if len(models) < 2:
        return {}
    # columns of each model in the concatenated tokens
    split, rows = next(iter(gallery.rows.items()))
    widths = [model.encode_pictures(split, rows[:1]).shape[1] for model in models]
    model_images = images.split(widths, 1)

    ranked = {}
    for index, model in enumerate(models):
        model_tokens = {}
        for subject, signals in tokens.items():
            model_tokens[subject] = signals.split(widths, 1)[index]
        scores = rank_gallery(gallery, model_images[index], model_tokens, items)
        name = model.run.name
        for subject, table in scores.items():
            scores[subject] = replace(table, description=f"{name} alone")
        ranked[name] = scores
    return ranked


def encode_items(
    models: Models, gallery: Gallery, images: Tensor, subject: int, recipe: Recipe
) -> tuple[Tensor, Scores]:
    """Encode the signals of a subject, and list the items before they are ranked.

    Args:
        models: Models of the cell group.
        gallery: Candidates.
        images: Tokens [M, D] of the candidates.
        subject: Number of the subject.
        recipe: Recipe with the split and the control.

    Returns:
        Tokens [N, D], and scores with the labels of the signals.
    """
    first_model = models[0]
    split = recipe.split
    test_trials = open_trials(models, subject, split)
    tokens = encode(models, test_trials)
    rows = test_trials[0].stimulus
    seen_indices = np.searchsorted(gallery.test_rows, rows)

    # unit of each signal in the design of the study
    study = first_model.run.find_study(split)
    units = np.empty(0, np.int64)
    if study is not None:
        units = study.units[subject][np.asarray(test_trials[0].index)]

    # held-out trials have names, and a run or session as group
    is_tested = np.isin(first_model.open_trials(subject, split).stimulus, rows)
    all_names, all_groups = first_model.name_trials(subject, split)
    names = list(compress(all_names, is_tested))
    groups = list(compress(all_groups, is_tested))

    # a control exchanges the labels
    target = seen_indices
    control = {}
    if recipe.control != "none":
        if study is None:
            # clips of a film
            clips = StimulusGrouping(
                gallery.alike_by, dict(enumerate(gallery.concepts))
            )
            control_units = seen_indices
            exchange = clips.make_items([seen_indices.tolist()])
        else:
            control_units = units
            rows = np.unique(units)
            exchange = Items.independent([rows.tolist()])
            exchange = replace(exchange, design=study.design.take(rows))
        seed = recipe.seed
        if recipe.control == "shuffled":
            seed = derive_seed(seed, subject)
        target, *further = permute_targets(seen_indices, control_units, exchange, seed)
        draws = [seen_indices, *further]
        control = measure_control(gallery, images, tokens, draws)

    is_trialwise = True
    for model, trials in zip(models, test_trials, strict=True):
        averages = torch.from_numpy(trials.averages)
        if depends_on_other_trials(partial(model.encode, trials), averages):
            is_trialwise = False
            break
    labels = []
    concepts = []
    for index in target:
        labels.append(gallery.image_ids[index])
        concepts.append(gallery.concepts[index])
    items = Scores(
        image_ids=names or labels,
        labels=labels,
        concepts=concepts,
        groups=groups,
        units=units,
        is_trialwise=is_trialwise,
        control=control,
    )
    return tokens, items


def measure_subsets(tokens: Tensor, images: Tensor, subset_size: int) -> Scores:
    """Measure the expected top-1 of signals and pictures in random small galleries.

    Args:
        tokens: Tokens [N, D] of the signals.
        images: Tokens [N, D] of the pictures that the signals showed.
        subset_size: Number of pictures in a gallery. If there are fewer, all are taken.

    Returns:
        `top1_expected` from signals to pictures, and back in the scope `backward`.
    """
    pool = min(subset_size, len(images))
    description = f"{pool}-way"
    if pool < subset_size:
        description = f"all {pool} pictures, fewer than {subset_size}"
    forward, backward = expected_subset_hits(tokens, images, pool)
    return Scores(
        values={"top1_expected": forward},
        pool=pool,
        description=description,
        scopes={BACKWARD: Scores(values={"top1_expected": backward}, pool=pool)},
    )


def list_repetition_counts(trials: Trials, recipe: Recipe) -> list[int]:
    """List the numbers of repetitions that are averaged for a curve, ascending.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    largest = int(trials.counts.max())
    counts = set[int]()
    if recipe.repetitions == "all":
        powers = 2 ** np.arange(largest.bit_length())
        counts = {largest}.union(powers.tolist())
    elif recipe.repetitions:
        counts = set(recipe.repetitions)
    if max(counts) > largest:
        raise RecipeError(
            f"repetitions: {max(counts)} of a picture requested, subject "
            f"{trials.subject} has {largest}",
            "repetitions=all takes 1, 2, 4, … and all that there are",
        )
    return sorted(counts)


def mask_regions(trials: Trials) -> dict[str, Bool]:
    """Return a mask [V, 1] of the voxels of each region, by its name.

    Raises:
        RecipeError: if no region has voxels.
    """
    masks = make_region_masks(trials.regions, trials.width)
    if not masks:
        raise RecipeError(
            "region_shares needs voxels in regions, which these signals lack",
            "leave region_shares out",
        )
    return masks


def measure_repetitions(
    models: Models, images: Tensor, target: Int64, subject: int, recipe: Recipe
) -> dict[str, Scores]:
    """Rank the gallery for averages of k random repetitions, for each number k.

    A picture with fewer repetitions is averaged over all of them.

    Args:
        models: Models of the cell group.
        images: Tokens [M, D] of the candidates.
        target: Gallery index [N] of the label of each signal.
        subject: Number of the subject.
        recipe: Recipe with the numbers of repetitions and the seed.

    Returns:
        Scores with ranks [draws, N] by scope, such as `repetitions · 4`.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    test_trials = open_trials(models, subject, recipe.split)
    largest = int(test_trials[0].counts.max())
    scopes = {}
    for k in list_repetition_counts(test_trials[0], recipe):
        # all repetitions can only be drawn in a single way
        n_draws = REPETITION_DRAWS if k < largest else 1
        draws = []
        for draw in range(n_draws):
            # all models average the same repetitions
            seed = derive_seed(recipe.seed, subject, k, draw)
            averages = [
                trials.average(k, torch.Generator().manual_seed(seed))
                for trials in test_trials
            ]
            draws.append(encode(models, averages))

        # rank for all draws together, so that a large gallery is read once
        targets = torch.from_numpy(np.tile(target, n_draws))
        ranks = rank_targets(torch.cat(draws), images, targets)
        scopes[scope(REPETITIONS, f"{k}")] = Scores(
            ranks=ranks.numpy().reshape(n_draws, -1),
            pool=len(images),
            description=f"{k} of them drawn",
        )
    return scopes


def _measure_signal_ceiling(models: Models, subject: int, recipe: Recipe) -> Scores:
    """Measure how well halves of a subject's repetitions retrieve each other."""
    test_trials = open_trials(models, subject, recipe.split)[0]
    trials = torch.from_numpy(test_trials.singles)
    available = torch.from_numpy(test_trials.counts)
    image_ids = models[0].open_pictures(recipe.split).image_ids[test_trials.stimulus]

    # halves consist of repetitions that are far apart, if their times are known
    is_there = test_trials.is_there
    sessions = test_trials.sessions
    try:
        parts = separate_repetitions(
            is_there, sessions, test_trials.runs, test_trials.times_in_run
        )
    except BrainhiveError as error:
        return Scores(repetitions=int(available.max()), reason=error.message)

    # subtract the mean of each session, which is no agreement between repetitions
    if sessions is not None:
        for session in np.unique(sessions[is_there]):
            is_of_session = torch.from_numpy(is_there & (sessions == session))
            if int(is_of_session.any(1).sum()) >= MIN_UNITS_FOR_POPULATION:
                trials[is_of_session] -= trials[is_of_session].mean(0)
    return measure_ceiling(
        trials,
        available,
        list(image_ids),
        splits=recipe.ceiling_splits,
        seed=derive_seed(recipe.seed, subject),
        parts=torch.from_numpy(parts),
    )


def measure_ceiling(
    trials: Tensor,
    available: Tensor,
    image_ids: Sequence[str],
    splits: int,
    seed: int,
    parts: Tensor,
) -> Scores:
    """Retrieve a random half of the repetitions of each picture by the other half.

    Args:
        trials: Signals [N, R, C, T] of the single repetitions.
        available: Number [N] of repetitions that exist. The others are padding.
        image_ids: Image ids [N].
        splits: Number of random splits into halves.
        seed: Seed of the splits.
        parts: Part of the recording [N, R] of each repetition (see
            `separate_repetitions`). No part is in both halves.

    Returns:
        Scores with `top1`, `top5` and the `reliability`, averaged over splits. If fewer
        than two pictures have several parts, scores with a `reason`.
    """
    # select the pictures with repetitions in several parts
    is_there = torch.arange(trials.shape[1]) < available[:, None]  # [N, R]
    largest = int(available.max())
    is_repeated = parts.masked_fill(~is_there, 0).amax(1) >= 1
    repeated_ids = list(compress(image_ids, is_repeated.tolist()))
    if len(repeated_ids) < 2:
        reason = "fewer than two pictures were repeated"
        if largest < 2:
            reason = "one repetition of each picture"
        return Scores(repetitions=largest, reason=reason)
    signals = trials[is_repeated].flatten(2)
    signals[~is_there[is_repeated]] = 0  # the padding may be NaN
    available = available[is_repeated]
    parts = parts[is_repeated]

    shares = defaultdict[str, list[Float64]](list)
    correlations = np.zeros((1 + len(signals), signals.shape[2]), np.float32)
    half_size = 0.0
    with console.progress("measuring the ceiling", splits) as bar:
        for split in range(splits):
            rng = torch.Generator().manual_seed(derive_seed(seed, split))
            first_half, second_half, size = average_halves(
                signals, available, rng, parts=parts
            )
            for name, row in retrieve_halves(first_half, second_half).items():
                shares[name].append(row)
            first_vectors = unit_vectors(first_half.numpy())
            second_vectors = unit_vectors(second_half.numpy())
            correlations += (
                correlate_without_each(first_vectors, second_vectors) / splits
            )
            half_size += float(size.sum()) / splits
            bar.advance()
    times = float(available.sum()) / half_size
    values = {name: np.mean(rows, 0) for name, rows in shares.items()}
    return Scores(
        repeated_ids,
        pool=len(repeated_ids),
        values=values | {"reliability": predict_reliability(correlations, times)},
        repetitions=largest,
    )


def measure_region_shares(
    model: TrainedModel, subject: int, split: str
) -> dict[str, Scores]:
    """Measure how predictions change if a region has its mean training signal.

    The share is the squared change of a head's prediction, divided by the squared
    change if all voxels have their mean. 0 means that the region has no effect.
    Shares of regions that interact or overlap do not add up to 1.

    Returns:
        Scores with the share [N] of each head, by scope such as `regions · V1`.

    Raises:
        RecipeError: if the signals have no voxels in regions.
    """
    trials = model.open_trials(subject, split)
    mean_signal = torch.from_numpy(model.average_training_signal(subject))  # [V, 1]
    masks = mask_regions(trials)
    mean_heads = model.predict(subject, mean_signal[None])
    shares: dict[str, Any] = {}
    for region in masks:
        shares[region] = defaultdict(list)
    for batch in torch.from_numpy(trials.averages).split(SIGNALS_PER_BATCH):
        heads = model.predict(subject, batch)  # [n, ...] of each head
        totals = {}
        for head, values in heads.items():
            total = _sum_squared_change(values, mean_heads[head])
            totals[head] = total.clamp(min=1e-30)
        for region, mask in masks.items():
            is_in_region = torch.from_numpy(mask)
            changed_batch = torch.where(is_in_region, mean_signal, batch)
            changed_heads = model.predict(subject, changed_batch)
            for head, values in changed_heads.items():
                change = _sum_squared_change(heads[head], values)
                shares[region][head] += (change / totals[head]).tolist()

    names, _ = model.name_trials(subject, split)
    if not names:
        names = list(model.open_pictures(split).image_ids[trials.stimulus])
    return {
        scope(REGIONS, region): Scores(names, values=values, description="by region")
        for region, values in shares.items()
    }


def _sum_squared_change(values: Tensor, changed: Tensor) -> Tensor:
    """Sum the squared change of each item [N, ...] over all axes but the first."""
    return (values - changed).flatten(1).square().sum(1).cpu()
