"""Baselines that are fitted to the signals of an evaluation."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Int64,
    console,
    write_duration,
)
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.recipes import validate, write_yaml
from brainhive_cli.core.results import BASELINE_CLASSIFIERS, Answer
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.data.targets import StoreTargets
from brainhive_cli.evaluation.retrieval.facts import MAX_MISFILED_P, Baseline
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.measure import (
    Models,
    open_gallery,
    open_signals,
)
from brainhive_cli.measurement import (
    MAX_PERMUTATIONS,
    ROUNDING,
    Components,
    FeatureScaler,
    Products,
    StimulusGrouping,
    count_fit_operations,
    draw_verdict_pictures,
    judge,
    rank_first_pictures,
)
from brainhive_cli.models import SignalSpec
from brainhive_cli.reports.sentences.sentences import RIDGE_RECIPE
from brainhive_cli.training.alignment import (
    FROM_MEAN,
    Recipe as AlignRecipe,
    make_ridge_keys,
)
from brainhive_cli.training.alignment.trained import TestSet, TrainedModels

OPERATIONS_PER_S = 2e10
"""Multiplications of a ridge per second, on two cores."""
MIN_TIME_LIMIT_S = 60.0
"""Time that a ridge may take after a shorter training."""
FAILURES = (MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)
"""Exceptions that leave an evaluation without its baseline."""
MAX_COMPONENTS = 1000
"""Largest number of principal components of the signals."""
MAX_TRAIN_SIGNALS = 20_000
"""Largest number of training signals of a small ridge."""
MAX_SIGNAL_BYTES = 2 * 10**9
"""Largest size of the training signals of a small ridge, in float32."""
MAX_SIGNALS_FOR_AXES = 2000
"""Largest number of training signals whose principal axes are computed."""
SIGNALS_PER_BATCH = 2048
"""Training signals whose targets in all orders are in memory together: 134 MB of 4,096
numbers.
"""
MIN_TRAIN_SIGNALS = 20
"""Smallest number of training signals of a small ridge."""
MAX_TARGET_WIDTH = 4096
"""Largest width of targets. Wider targets are projected."""
TARGETS_PER_BATCH = 256
"""Targets that are read together: 280 MB of 272,896 numbers each."""
AS_FILED = "as filed"
ORDERS: Mapping[str, Callable[[Int64], Int64]] = {
    AS_FILED: lambda pictures: pictures,
    "reversed": lambda pictures: pictures[::-1],
    "shifted by one (each signal shows the picture before)": lambda pictures: np.roll(
        pictures, 1
    ),
    "shifted by one (each signal shows the picture after)": lambda pictures: np.roll(
        pictures, -1
    ),
}
"""Orders in which pictures may have been shown: as filed, and by mistakes."""
MAX_CLASSES = 50
"""Largest number of stimuli that classifiers distinguish."""
MAX_FEATURES = 2000
"""Largest number of features of a classifier. Longer signals are reduced to principal
components.
"""


def write_ridge(job: Job, folder: Path) -> AlignRecipe:
    """Write the recipe of a ridge on the same signals and targets as the evaluated run.

    train-align can fit the ridge again from this file.

    Raises:
        BrainhiveError: if such a ridge is no baseline of the run, or if it takes longer
            than the training and the recipe does not request it.
    """
    run = job.runs[0]
    recipe = run.recipe
    if recipe is None or len(job.runs) > 1:
        raise BrainhiveError("ridges are fitted for single runs of train-align")
    _require_usual_training(run)
    if recipe.similarity == FROM_MEAN:
        raise BrainhiveError("the run is a ridge")
    if recipe.mode == "finetune":
        raise BrainhiveError("the cells were fine-tuned from others")

    # do not take longer than the training, unless the recipe requests a ridge
    models = job.open_models(job.groups[0], torch.device("cpu"))
    layout = models[0].layout
    is_compared = [
        layout.encoders[config.name] in layout.compared_keys
        for config in recipe.encoders
    ]
    ridge_s = _estimate_ridge_s(job, layout.spec, is_compared)
    training_s = run.folder.duration_s
    if job.recipe.baseline == "auto" and ridge_s > max(training_s, MIN_TIME_LIMIT_S):
        raise BrainhiveError(
            f"a ridge would take about {write_duration(ridge_s)}, and the training "
            f"took {write_duration(training_s)}: baseline=ridge fits it"
        )

    # Keys of the recipe of train-align that its ridge takes over.
    shared_keys = {
        "dataset",
        "encoders",
        "mode",
        "subjects",
        "trained_on",
        "signal",
        "paths",
    }
    # take the same signals, and the encoders of the compared heads
    fields = recipe.model_dump(mode="json", include=shared_keys)
    fields["encoders"] = list(compress(fields["encoders"], is_compared))
    fields["signal"]["repetitions"] = "average"
    fields |= make_ridge_keys(recipe.mode, MAX_COMPONENTS)
    fields |= {"seeds": recipe.seeds[:1], "train": {"validation": 0.0}}
    ridge = validate(AlignRecipe, fields)
    (folder / RIDGE_RECIPE).write_text(write_yaml(make_portable(fields)))
    return ridge


@console.progress("fitting plain baselines")
def rank_by_classifiers(job: Job, device: torch.device) -> dict[str, list[Int64]]:
    """Rank the stimuli of held-out trials by classifiers of the training trials.

    Classifiers need at most `MAX_CLASSES` stimuli, each with two training trials.

    Returns:
        Ranks [N] of each subject over all folds, by name of the classifier. A
        classifier that could not be fitted in some fold is left out.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    # seeds share their signals, so each subject and fold is tested once
    fold_ranks = defaultdict[tuple[str, int], list[Int64]](list)
    n_folds = Counter[int]()
    split = job.recipe.split
    for models, subject in open_first_models(job, device):
        n_folds[subject] += 1
        rows = job.tests.find_rows(split, models[0].cell.fold)
        signals = open_signals(models, job.tests, subject, rows)
        trials = signals.people[0].train_trials
        test_trials = signals.trials[0]
        _, trial_counts = np.unique(trials.stimulus, return_counts=True)
        if len(rows) > MAX_CLASSES or trial_counts.min() < 2:
            continue

        # standardise by the training trials
        scale = FeatureScaler.fit(flatten(trials))
        train = scale(flatten(trials))
        test = scale(flatten(test_trials).float())
        if train.shape[1] > MAX_FEATURES:
            axes = Components.fit(train, MAX_FEATURES).basis
            train = train @ axes
            test = test @ axes

        classifiers = {
            "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
            "logistic": LogisticRegression(max_iter=1000),
        }
        for name, classifier in classifiers.items():
            classifier.fit(train.numpy(), trials.stimulus)
            scores = classifier.decision_function(test.numpy())  # [M, classes]
            if scores.ndim == 1:  # two classes have a single column
                scores = np.stack([-scores, scores], 1)

            # a stimulus without training trials ranks last, and so do ties
            row_scores = np.full((len(scores), len(rows)), -np.inf)
            row_scores[:, np.searchsorted(rows, classifier.classes_)] = scores
            own_scores = look_up_assigned(row_scores, test_trials.stimulus, rows)
            ranks = (row_scores >= own_scores[:, None]).sum(1)
            fold_ranks[name, subject].append(ranks)

    complete = {}
    for name in BASELINE_CLASSIFIERS:
        subject_ranks = []
        for subject, count in n_folds.items():
            ranks_of_folds = fold_ranks[name, subject]
            if len(ranks_of_folds) == count:
                subject_ranks.append(np.concatenate(ranks_of_folds))
        if len(subject_ranks) == len(n_folds):
            complete[name] = subject_ranks
    return complete


@console.progress("trying other orders of the pictures")
def find_order(job: Job, device: torch.device) -> Baseline:
    """Find out if pictures were filed in a wrong order, to explain a result at chance.

    A small ridge regression is fitted and tested with the pictures in each of `ORDERS`,
    such as reversed.

    Returns:
        The number of tried orders, and the best order if it ranks the seen pictures
        significantly above chance.

    Raises:
        BrainhiveError: if signals are missing or differ in width, if the cells were
            trained on other signals, or if it takes longer than the training and the
            recipe does not request it.
    """
    recipe, run = job.recipe, job.runs[0]
    _require_usual_training(run)
    if recipe.baseline == "auto":
        orders_s = _estimate_orders_s(job)
        training_s = run.folder.duration_s
        if orders_s > max(training_s, MIN_TIME_LIMIT_S):
            raise BrainhiveError(
                "to try other orders of the pictures would take about "
                f"{write_duration(orders_s)}, and the training took "
                f"{write_duration(training_s)}: baseline=ridge tries them"
            )

    # rank the pictures that the permutation test compares
    first_models = job.open_models(job.groups[0], device)
    tests = job.tests
    gallery = open_gallery(first_models, tests, [recipe.split], recipe.only_shown)
    rows = draw_verdict_pictures(gallery.test_rows)
    candidates = read_targets(tests.open_stores(recipe.split), rows, device)
    concepts = tests.open_pictures(recipe.split).concepts[rows]
    grouping = make_grouping(run.dataset, rows.tolist(), concepts)

    order_tests: list[tuple[float, str]] = []
    for models, subject in open_first_models(job, device):
        train, test, targets, target_indices, test_rows = read_signals(
            models, tests, subject, rows, device
        )
        ranks_of_order = rank_by_ridge(train, targets, target_indices, test, candidates)
        order_tests += try_orders(subject, ranks_of_order, test_rows, rows, grouping)
    return choose_order(order_tests)


def _require_usual_training(run: TrainedModels) -> None:
    """Check that the run was trained on the signals and labels that a ridge reads.

    Raises:
        BrainhiveError: if it was trained on others.
    """
    if run.origin is not None:
        raise BrainhiveError("the cells were trained on another data set")
    recipe = run.recipe
    if recipe is None:
        return
    if recipe.train.shuffled_labels:
        raise BrainhiveError("the cells were trained on shuffled labels")
    if recipe.finetune.sessions or recipe.finetune.share < 1:
        raise BrainhiveError(
            "the cells were fine-tuned to a share of the training signals"
        )


def open_first_models(job: Job, device: torch.device) -> Iterator[tuple[Models, int]]:
    """Open the models of the first seed of each subject and fold.

    Yields:
        The models of a cell group, used together, and a subject that they test.
    """
    opened_tests: set[tuple[int, int]] = set()
    for group in job.groups:
        models = job.open_models(group, device)
        fold = group[0].fold
        for subject in group[0].tested_on:
            if (subject, fold) not in opened_tests:
                opened_tests.add((subject, fold))
                yield models, subject


def _estimate_ridge_s(job: Job, spec: SignalSpec, is_compared: Sequence[bool]) -> float:
    """Estimate how many seconds the ridges of all subjects take.

    Args:
        is_compared: True for each encoder whose head is compared.
    """
    run = job.runs[0]
    stores = compress(job.tests.open_stores("train").values(), is_compared)
    width = _sum_widths(stores)
    n_features = max(spec.widths or (spec.channels,)) * spec.samples
    has_trials = run.dataset.holdout.divides_train
    operations = 0.0
    for cell in run.cells:
        if cell.seed != run.cells[0].seed:
            continue
        recordings = run.recordings
        stored = recordings.open_store(cell.trained_on[0])["train"]
        rows = stored.signal if has_trials else stored.counts
        n_signals = len(rows) * len(cell.trained_on)
        components = n_features if len(cell.trained_on) > 1 else MAX_COMPONENTS
        operations += count_fit_operations(n_signals, n_features, components)
        n_components = min(n_signals, n_features, components)
        operations += 2.0 * n_signals * n_components * width
    return operations / OPERATIONS_PER_S


def _estimate_orders_s(job: Job) -> float:
    """Estimate how many seconds small ridges take to try all orders of the pictures."""
    run = job.runs[0]
    target_width = _sum_widths(job.tests.open_stores("train").values())
    width = len(ORDERS) * min(MAX_TARGET_WIDTH, target_width)
    cell_of_test = {}
    for cells in job.groups:
        for subject in cells[0].tested_on:
            cell_of_test[subject, cells[0].fold] = cells[0]

    operations = 0.0
    for (subject, _), cell in cell_of_test.items():
        # ridges of new subjects are fitted to the training subjects
        people = [subject] if subject in cell.trained_on else cell.trained_on
        stored = run.recordings.open_store(people[0])["train"]
        n_features = int(np.prod(stored.signal.shape[1:]))
        max_signals = min(MAX_TRAIN_SIGNALS, MAX_SIGNAL_BYTES // (4 * n_features))
        n_signals = min(max_signals, len(stored.counts) * len(people))

        # principal axes, and the ridge
        sample = min(n_signals, MAX_SIGNALS_FOR_AXES)
        n_components = min(MAX_COMPONENTS, sample, n_features)
        operations += count_fit_operations(sample, n_features, n_components)
        operations += count_fit_operations(n_signals, n_components, n_components)
        operations += 2.0 * n_signals * n_components * (n_features + width)
    return operations / OPERATIONS_PER_S


def _sum_widths(stores: Iterable[TargetStore]) -> int:
    """Sum the numbers of a picture's embeddings in several stores."""
    return sum(int(np.prod(store.shape)) for store in stores)


class RidgeData(NamedTuple):
    """Signals and targets of a small ridge of one subject.

    Attributes:
        train: Principal components [N, K] of the training signals.
        test: Principal components [M, K] of the test signals.
        targets: Targets [Q, D] of the training pictures.
        target_indices: Index [N] of the target of each training signal, by order of the
            pictures.
        test_rows: Row [M] of the picture that each test signal is assigned to.
    """

    train: Tensor
    test: Tensor
    targets: Tensor
    target_indices: dict[str, Int64]
    test_rows: Int64


def read_signals(
    models: Models, tests: TestSet, subject: int, rows: Int64, device: torch.device
) -> RidgeData:
    """Read the signals that a small ridge of a subject is fitted to and tested on.

    A new subject has the training signals of the subjects that the model was trained
    on.

    Args:
        models: Models of the cell group.
        tests: Test set.
        subject: Number of the subject.
        rows: Row [P] of each candidate, ascending.
        device: Device of the ridge.

    Raises:
        BrainhiveError: if signals are missing, or differ in width between subjects.
    """
    model = models[0]
    is_new = subject not in model.cell.trained_on
    people = model.cell.trained_on if is_new else [subject]
    stimuli = []
    signals = []
    widths = set[int]()
    for person in people:
        trials = tests.open_person(model, person).train_trials
        stimuli.append(trials.stimulus)
        signals.append(flatten(trials))
        widths.add(signals[-1].shape[1])
    if len(widths) > 1:
        raise BrainhiveError("training subjects differ in the width of their signals")

    # select as many signals as memory allows, evenly spaced
    max_signals = min(MAX_TRAIN_SIGNALS, MAX_SIGNAL_BYTES // (4 * widths.pop()))
    max_per_person = max_signals // len(signals)
    selected_rows = []
    selected_signals = []
    for values in signals:
        spaced = np.linspace(0, len(values) - 1, max_per_person)
        selected_rows.append(np.unique(spaced.astype(int)))
        selected_signals.append(values[selected_rows[-1]])
    train = torch.cat(selected_signals).to(device)
    if len(train) < MIN_TRAIN_SIGNALS:
        raise BrainhiveError(f"{len(train)} training signals are too few")

    # test signals that show a candidate
    test_trials = open_signals(models, tests, subject, rows).trials[0]
    if not len(test_trials.stimulus):
        raise BrainhiveError(f"subject {subject} was shown none of the candidates")

    # principal components of standardised signals
    scale = FeatureScaler.fit(train)
    step = -(-len(train) // MAX_SIGNALS_FOR_AXES)
    axes = Components.fit(scale(train[::step]), MAX_COMPONENTS).basis

    # targets in each order, or only as filed for a new subject's training signals
    pictures = np.unique(np.concatenate(stimuli))
    target_indices = {}
    for order in [AS_FILED] if is_new else ORDERS:
        refile = ORDERS[order]
        order_pictures = []
        for shown_pictures, indices in zip(stimuli, selected_rows, strict=True):
            order_pictures.append(refile(shown_pictures)[indices])
        target_indices[order] = np.searchsorted(
            pictures, np.concatenate(order_pictures)
        )
    return RidgeData(
        train=scale(train) @ axes,
        test=scale(flatten(test_trials).to(device)) @ axes,
        targets=read_targets(tests.open_stores("train"), pictures, device),
        target_indices=target_indices,
        test_rows=test_trials.stimulus,
    )


def flatten(trials: Trials) -> Tensor:
    """Return the averages of trials as rows [N, F]."""
    return torch.from_numpy(trials.averages).flatten(1)


def read_targets(
    stores: Mapping[str, TargetStore], rows: Int64, device: torch.device
) -> Tensor:
    """Read the targets of pictures: unit embeddings of all encoders, concatenated.

    Args:
        stores: Target stores of the pictures, by encoder.
        rows: Row [P] of each picture.
        device: Device of the result.

    Returns:
        Targets [P, D]. Wide embeddings are projected by a count sketch, which keeps
        inner products in expectation.
    """
    max_width = MAX_TARGET_WIDTH // len(stores)
    embeddings = []
    for number, store in enumerate(stores.values()):
        source = StoreTargets.from_store(store, torch.device("cpu"), on_device=False)
        rng = np.random.default_rng(number)
        size = int(np.prod(source.shape))
        column = torch.from_numpy(rng.integers(max_width, size=size))
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], size)).float()
        batches = []
        for batch in torch.from_numpy(rows).split(TARGETS_PER_BATCH):
            values = source.gather(batch).flatten(1)
            if size > max_width:
                # add each number, with a random sign, to a random column
                sketch = torch.zeros(len(values), max_width)
                values = sketch.index_add_(1, column, values * sign)
            batches.append(normalize(values))
        embeddings.append(torch.cat(batches))
    return torch.cat(embeddings, 1).to(device)


def rank_by_ridge(
    train: Tensor,
    targets: Tensor,
    target_indices: Mapping[str, Int64],
    test: Tensor,
    candidates: Tensor,
) -> dict[str, Int64]:
    """Rank candidates by a ridge, for each assumed order of the training pictures.

    The similarity is the cosine after the mean training target is subtracted.

    Args:
        train: Training signals [N, F], which are factorised once for all orders.
        targets: Targets [Q, D] of the training pictures.
        target_indices: For each assumed order, such as `reversed`, the row [N] of
            `targets` that belongs to each training signal.
        test: Test signals [M, F].
        candidates: Targets [P, D] of the candidates.

    Returns:
        Ranks [M, P] by order.
    """
    order_indices = torch.from_numpy(np.stack(list(target_indices.values()), 1))
    # the targets [n, orders * D] of all orders form the columns
    batches = (
        targets[batch].flatten(1) for batch in order_indices.split(SIGNALS_PER_BATCH)
    )
    products = Products.from_samples(train, batches)

    width = targets.shape[1]
    ranks_of_order = {}
    for number, order in enumerate(target_indices):
        outputs = slice(number * width, (number + 1) * width)
        mean = products.mean[outputs]
        predicted = products.predict(test, outputs=outputs)
        ranks_of_order[order] = rank_first_pictures(
            predicted - mean, candidates - mean, len(candidates)
        )
    return ranks_of_order


def look_up_assigned(values: Array, test_rows: Int64, rows: Int64) -> Array:
    """Look up the value of the candidate that each test signal is assigned to.

    Args:
        values: Values [M, P] of all candidates.
        test_rows: Row [M] of the picture that each test signal is assigned to.
        rows: Row [P] of each candidate, ascending.

    Returns:
        Values [M].
    """
    return values[np.arange(len(values)), np.searchsorted(rows, test_rows)]


def judge_ranks(
    ranks: Sequence[Int64],
    test_rows: Sequence[Int64],
    rows: Int64,
    grouping: StimulusGrouping,
) -> Answer:
    """Test if the pictures that signals are assigned to rank above chance.

    Args:
        ranks: Ranks [M, P] of all candidates for each subject.
        test_rows: Row [M] of the assigned picture of each signal, for each subject.
        rows: Row [P] of each candidate, ascending.
        grouping: Rules that group candidates into units, such as concepts, by row.
    """
    items = grouping.make_items([subject_rows.tolist() for subject_rows in test_rows])
    answers = judge(
        ranks,
        items,
        rows.tolist(),
        concept_of=grouping.concept_of,
        medium=grouping.medium,
    )
    return answers[0]


def approximate_p(
    ranks: Int64, test_rows: Int64, rows: Int64, grouping: StimulusGrouping
) -> float:
    """Approximate p for the mean rank of the pictures that signals are assigned to.

    Correction for many tested orders needs a smaller p than a share of a few
    permutations can be, so permuted ranks are taken as normally distributed.

    Args:
        ranks: Ranks [M, P] of all candidates.
        test_rows: Row [M] of the assigned picture of each signal.
        rows: Row [P] of each candidate, ascending.
        grouping: Rules that group candidates into units, such as concepts, by row.
    """
    from scipy.special import ndtr

    items = grouping.make_items([test_rows.tolist()])
    orders = items.draw_permutations(MAX_PERMUTATIONS, 0)  # [K, pictures]
    if not len(orders):
        return 1.0

    # sum of the ranks of the assigned pictures, and of permuted pictures
    signals = np.arange(len(test_rows))
    names: Any = items.names
    table = ranks[:, np.searchsorted(rows, names)]  # [M, pictures]
    assigned_sum = look_up_assigned(ranks, test_rows, rows).sum()
    # picture number [K, M] that each permutation assigns to each signal
    number_of = {name: number for number, name in enumerate(names)}
    signal_orders = orders[:, [number_of[name] for name in test_rows.tolist()]]
    permuted_sums = table[signals, signal_orders].sum(1)
    spread = max(permuted_sums.std(), ROUNDING)
    z = (assigned_sum - permuted_sums.mean()) / spread

    # with all permutations, p is at least the share of the identity
    smallest_p = 0.0
    if len(orders) < MAX_PERMUTATIONS:
        smallest_p = 1 / (len(orders) + 1)
    return float(max(ndtr(z), smallest_p))


def try_orders(
    subject: int,
    ranks_of_order: Mapping[str, Int64],
    test_rows: Int64,
    rows: Int64,
    grouping: StimulusGrouping,
) -> list[tuple[float, str]]:
    """Test if a subject's signals fit the pictures in another order than as filed.

    Args:
        subject: Number of the subject.
        ranks_of_order: Ranks [M, P] of all candidates, by order of the training
            pictures.
        test_rows: Row [M] of the assigned picture of each test signal.
        rows: Row [P] of each candidate, ascending.
        grouping: Rules that group candidates into units, such as concepts, by row.

    Returns:
        One-sided p and description of each other order. Empty if the pictures rank
        above chance in the order of the file.
    """
    answer = judge_ranks([ranks_of_order[AS_FILED]], [test_rows], rows, grouping)
    if answer.side == "above chance":
        return []
    tests = []
    for train_order, ranks in ranks_of_order.items():
        for test_order, refile in ORDERS.items():
            if train_order == test_order == AS_FILED:
                continue
            p = approximate_p(ranks, refile(test_rows), rows, grouping)
            description = (
                f"training pictures of subject {subject} {train_order} and test "
                f"pictures {test_order}"
            )
            tests.append((p, description))
    return tests


def choose_order(tests: Sequence[tuple[float, str]]) -> Baseline:
    """Choose the order with the smallest p, if it passes Bonferroni's correction.

    Args:
        tests: One-sided p and description of each order.

    Returns:
        The number of tested orders, and the chosen order if there is one.
    """
    if not tests:
        return Baseline()
    p, order = min(tests)
    corrected_p = p * len(tests)
    if corrected_p > MAX_MISFILED_P:
        return Baseline(orders=len(tests))
    return Baseline(orders=len(tests), order=order, order_p=corrected_p)
