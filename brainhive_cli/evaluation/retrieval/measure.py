"""Scores of a cell: the gallery, ranked for the signals of each tested subject."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Float64,
    Int64,
    RecipeError,
    console,
    derive_seed,
)
from brainhive_cli.core.results import CORRECTIONS, TRIALS_TOGETHER, scope
from brainhive_cli.data.signals import Trials, make_region_masks
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    REGIONS,
    REPETITION_DRAWS,
    REPETITIONS,
    SUBSETS,
)
from brainhive_cli.measurement import (
    MIN_UNITS_FOR_POPULATION,
    Gallery,
    Scores,
    average_halves,
    correlate_without_each,
    depends_on_other_trials,
    exchange_labels,
    measure_subsets,
    predict_reliability,
    rank_corrected,
    rank_for_verdict,
    rank_gallery,
    rank_parts,
    rank_targets,
    retrieve_halves,
    separate_repetitions,
    unit_vectors,
)
from brainhive_cli.training.alignment.trained import (
    TestedPerson,
    TestSet,
    TrainedModel,
    open_targets,
)

Models = Sequence[TrainedModel]
"""Models of a cell group, one of each run, whose cosine similarities are averaged.

The unit tokens of several models are concatenated. The cosine similarity of
concatenated tokens is the mean over the models.
"""
TRAIN_PICTURES_PER_BATCH = 1024
"""Training pictures whose tokens are in memory together: 1.8 GB of 427,648 numbers
each.
"""
SIGNALS_PER_BATCH = 64
"""Signals whose heads are predicted together: 70 MB of 272,896 outputs each."""


@dataclass(frozen=True)
class TestedSignals:
    """Test signals of a subject, as each model of a cell group reads them.

    Attributes:
        people: The subject, as each model reads its signals.
        trials: Trials of pictures that every model can test, as each model reads them.
        targets: Gallery index [N] of the picture of each signal.
        names: Names [N] of held-out trials. Empty if the items are pictures.
        groups: Run or session [N] of each held-out trial.
        units: Unit [N] of each signal in the design of the study, if there is one.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    people: Sequence[TestedPerson]
    trials: Sequence[Trials]
    targets: Int64
    names: Sequence[str]
    groups: Sequence[str]
    units: Int64


@console.progress("ranking pictures by signals")
def measure_cell(
    models: Models, tests: TestSet, recipe: Recipe
) -> tuple[Gallery, dict[int, Scores]]:
    """Rank the gallery for the signals of a cell, and take further measures.

    A control permutes the labels of a subject in the same way in all cells.

    Args:
        models: Models of the cell group.
        tests: Test set of their runs.
        recipe: Recipe that says what is measured.

    Returns:
        The gallery, and the scores by subject.
    """
    # encode the pictures
    subjects = models[0].cell.tested_on
    gallery = open_gallery(models, tests, recipe.splits, recipe.only_shown)
    train_rows = tests.find_trained_rows(models[0].cell.fold)
    images = encode_gallery(models, tests, gallery)
    test_images = images[: len(gallery.test_rows)]
    similarities = measure_train_similarities(models, tests, test_images, train_rows)

    # encode the signals of each subject. A control exchanges the labels of its items
    signals = {}
    tokens = {}
    items = {}
    design = None if tests.study is None else tests.study.design
    for subject in subjects:
        tested = open_signals(models, tests, subject, gallery.test_rows)
        signals[subject] = tested
        tokens[subject] = encode(models, tested.trials)
        is_trialwise = encode_trialwise(models, tested.trials)
        items[subject] = Scores.from_targets(
            gallery,
            tested.targets,
            names=tested.names,
            groups=tested.groups,
            units=tested.units,
            is_trialwise=is_trialwise,
        )
        if recipe.control != "none":
            seed = recipe.seed
            if recipe.control == "shuffled":
                seed = derive_seed(seed, subject)
            items[subject] = exchange_labels(
                items[subject],
                gallery,
                images,
                tokens[subject],
                design,
                seed,
            )

    # rank for all subjects together, so that a large gallery is read once
    scores = rank_gallery(gallery, images, tokens, items)
    corrected = rank_corrected(gallery, images, tokens, items, recipe.corrections)
    single = {}
    if len(models) > 1:
        widths = {model.run_name: model.token_width for model in models}
        single = rank_parts(gallery, images, tokens, items, widths)

    # measure everything else that the recipe requests, for each subject
    for subject in subjects:
        subject_scores = scores[subject]
        target = gallery.find_indices(subject_scores.labels)
        scopes: dict[str, Scores] = dict(subject_scores.scopes)
        if recipe.subsets:
            scopes[SUBSETS] = measure_subsets(
                tokens[subject], images[target], recipe.subsets
            )
        for name, tables in corrected.items():
            scopes[scope(CORRECTIONS, name)] = tables[subject]
        for name, tables in single.items():
            scopes[scope(ALONE, name)] = tables[subject]
        if recipe.repetitions:
            scopes |= measure_repetitions(
                models, signals[subject].trials, images, target, recipe
            )
        if recipe.region_shares:
            scopes |= measure_region_shares(models[0], signals[subject].people[0])
        scores[subject] = replace(
            rank_for_verdict(gallery, images, tokens[subject], subject_scores),
            scopes=scopes,
            train_similarities=similarities[target]
            if similarities.size
            else similarities,
        )

    # a prediction that needs other test signals is no result of a single trial
    dependent = [str(subject) for subject in items if not items[subject].is_trialwise]
    if dependent:
        console.warn(
            f"{models[0].cell.name}: tokens of subject {', '.join(dependent)} depend "
            "on the other test signals, and every number is stamped "
            f"“{TRIALS_TOGETHER}”; let the backbone use no mean or other statistic of "
            "the batch in evaluation mode"
        )
    return gallery, scores


def open_gallery(
    models: Models, tests: TestSet, splits: Sequence[str], only_shown: bool = False
) -> Gallery:
    """List the candidates: pictures for which every model has an embedding.

    Args:
        models: Models of the cell group.
        tests: Test set of their runs.
        splits: Splits of the pictures. The signals of the last split are tested.
        only_shown: If True, leave out pictures of the last split that no tested subject
            of any cell was shown.
    """
    # the tested split comes first
    first_model = models[0]
    rows: dict[str, Int64] = {}
    image_ids: list[str] = []
    concepts: list[str] = []
    for split in reversed(splits):
        rows[split] = tests.find_rows(split, first_model.cell.fold)
        if only_shown and split == splits[-1]:
            people = [tests.open_person(first_model, s) for s in tests.subjects]
            shown_rows = [person.read(split).stimulus for person in people]
            rows[split] = np.intersect1d(rows[split], np.concatenate(shown_rows))
        pictures = tests.open_pictures(split)
        image_ids += pictures.image_ids[rows[split]]
        concepts += pictures.concepts[rows[split]]
    # the outputs of a single classifier can be compared between signals
    contents = {config.content for config in first_model.encoders}
    are_labels = len(models) == 1 and contents == {"labels"}
    alike_by = tests.dataset.alike_by
    return Gallery(rows, image_ids, concepts, alike_by, are_labels=are_labels)


def encode_gallery(models: Models, tests: TestSet, gallery: Gallery) -> Tensor:
    """Encode the pictures of a gallery as tokens [M, D]."""
    tokens = []
    for split, rows in gallery.rows.items():
        tokens.append(encode_pictures(models, tests, split, rows))
    return torch.cat(tokens)


def encode_pictures(models: Models, tests: TestSet, split: str, rows: Int64) -> Tensor:
    """Encode pictures of a split as tokens [M, D]."""
    tokens = []
    for model in models:
        tokens.append(model.encode_pictures(open_targets(tests, model, split), rows))
    return _join_tokens(tokens)


def measure_train_similarities(
    models: Models, tests: TestSet, test_images: Tensor, train_rows: Int64
) -> Float64:
    """Measure the similarity of tested pictures to the nearest training picture.

    Args:
        models: Models of the cell group.
        tests: Test set of their runs.
        test_images: Tokens [N, D] of the tested pictures.
        train_rows: Row [M] of each training picture.

    Returns:
        Largest cosine similarity [N]. Empty without training pictures.
    """
    if not len(train_rows):
        return np.empty(0)
    maxima = []
    n_batches = 1 + len(train_rows) // TRAIN_PICTURES_PER_BATCH
    for batch in np.array_split(train_rows, n_batches):
        images = encode_pictures(models, tests, "train", batch)
        cosines = normalize(test_images.float()) @ normalize(images.float()).T
        maxima.append(cosines.amax(1).double().cpu())  # [N]
    # further digits depend on the order of the heads
    similarities: Float64 = np.max(maxima, 0).round(5)
    return similarities


def open_signals(
    models: Models, tests: TestSet, subject: int, rows: Int64
) -> TestedSignals:
    """Open the test signals of a subject as each model reads them.

    Args:
        models: Models of the cell group.
        tests: Test set of their runs.
        subject: Number of the subject.
        rows: Row [M] of each candidate of the tested split, ascending. Trials of other
            pictures, and of pictures that a model was trained on, are left out.
    """
    people = [tests.open_person(model, subject) for model in models]
    tested_rows = rows
    for person in people:
        tested_rows = np.intersect1d(tested_rows, person.trials.stimulus)
        # compute the averages now, because later cells use them, too
        _ = person.trials.averages
    trials = []
    for person in people:
        trials.append(person.trials.take(np.isin(person.trials.stimulus, tested_rows)))

    # held-out trials have names, and a run or session as group
    is_tested = np.isin(people[0].trials.stimulus, tested_rows)
    names, groups = people[0].name_trials()
    return TestedSignals(
        people=people,
        trials=trials,
        targets=np.searchsorted(rows, trials[0].stimulus),
        names=list(compress(names, is_tested)),
        groups=list(compress(groups, is_tested)),
        units=tests.find_units(trials[0]),
    )


def encode(models: Models, trials: Iterable[Trials]) -> Tensor:
    """Encode the averages of trials, as each model reads them, as tokens [N, D]."""
    pairs = zip(models, trials, strict=True)
    return _join_tokens([model.encode(model_trials) for model, model_trials in pairs])


def _join_tokens(tokens: Sequence[Tensor]) -> Tensor:
    """Concatenate the unit tokens [N, D] of several models. Keep a single tensor."""
    if len(tokens) == 1:
        return tokens[0]
    return torch.cat([normalize(model_tokens) for model_tokens in tokens], 1)


def encode_trialwise(models: Models, trials: Sequence[Trials]) -> bool:
    """Return True if no model's token of a trial depends on other trials."""
    for model, model_trials in zip(models, trials, strict=True):
        averages = torch.from_numpy(model_trials.averages)
        if depends_on_other_trials(partial(model.encode, model_trials), averages):
            return False
    return True


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
    models: Models,
    trials: Sequence[Trials],
    images: Tensor,
    target: Int64,
    recipe: Recipe,
) -> dict[str, Scores]:
    """Rank the gallery for averages of k random repetitions, for each number k.

    A picture with fewer repetitions is averaged over all of them.

    Args:
        models: Models of the cell group.
        trials: Trials of a subject, as each model reads them.
        images: Tokens [M, D] of the candidates.
        target: Gallery index [N] of the label of each signal.
        recipe: Recipe with the numbers of repetitions and the seed.

    Returns:
        Scores with ranks [draws, N] by scope, such as `repetitions · 4`.

    Raises:
        RecipeError: if there are fewer repetitions than requested.
    """
    first_trials = trials[0]
    largest = int(first_trials.counts.max())
    scopes = {}
    for k in list_repetition_counts(first_trials, recipe):
        # all repetitions can only be drawn in a single way
        n_draws = REPETITION_DRAWS if k < largest else 1
        draws = []
        for draw in range(n_draws):
            # all models average the same repetitions
            seed = derive_seed(recipe.seed, first_trials.subject, k, draw)
            averages = []
            for model_trials in trials:
                rng = torch.Generator().manual_seed(seed)
                averages.append(model_trials.average(k, rng))
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


def measure_signal_ceiling(
    models: Models, tests: TestSet, subject: int, recipe: Recipe
) -> Scores:
    """Measure how well halves of a subject's repetitions retrieve each other.

    The result depends on no model.
    """
    rows = tests.find_rows(tests.split, models[0].cell.fold)
    test_trials = open_signals(models, tests, subject, rows).trials[0]
    trials = torch.from_numpy(test_trials.singles)
    available = torch.from_numpy(test_trials.counts)
    image_ids = tests.open_pictures(tests.split).image_ids[test_trials.stimulus]

    # halves consist of repetitions that are far apart, if their times are known
    sessions = test_trials.sessions
    picture_of_trial = test_trials.picture_of_trial
    try:
        parts = separate_repetitions(
            picture_of_trial, sessions, test_trials.runs, test_trials.times_in_run
        )
    except BrainhiveError as error:
        return Scores(repetitions=int(available.max()), reason=error.message)

    # subtract the mean of each session, which is no agreement between repetitions
    if sessions is not None:
        for session in np.unique(sessions):
            is_of_session = sessions == session
            n_pictures = len(np.unique(picture_of_trial[is_of_session]))
            if n_pictures >= MIN_UNITS_FOR_POPULATION:
                trials[is_of_session] -= trials[is_of_session].mean(0)
    return measure_ceiling(
        torch.from_numpy(test_trials.as_repetitions(trials.numpy())),
        available,
        list(image_ids),
        splits=recipe.ceiling_splits,
        seed=derive_seed(recipe.seed, subject),
        parts=torch.from_numpy(test_trials.as_repetitions(parts)),
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
    model: TrainedModel, person: TestedPerson
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
    trials = person.trials
    subject = person.subject
    mean_signal = torch.from_numpy(person.mean_signal)  # [V, 1]
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

    names, _ = person.name_trials()
    if not names:
        pictures = person.open_pictures(person.split)
        names = list(pictures.image_ids[trials.stimulus])
    return {
        scope(REGIONS, region): Scores(names, values=values, description="by region")
        for region, values in shares.items()
    }


def _sum_squared_change(values: Tensor, changed: Tensor) -> Tensor:
    """Sum the squared change of each item [N, ...] over all axes but the first."""
    return (values - changed).flatten(1).square().sum(1).cpu()
