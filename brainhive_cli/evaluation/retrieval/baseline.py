"""Baselines on the signals of an evaluation: a closed-form ridge, and scikit-learn's on
the same folds.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Int64
from brainhive_cli.core.console import write_duration
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import MAX_MISFILED_P, RIDGE_RECIPE, Answer, Baseline
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.recipe import validate, write_yaml
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.targets import StoreTargets
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.measure import (
    Models,
    find_shared_rows,
    open_gallery,
    open_trials,
)
from brainhive_cli.evaluation.retrieval.scopes import CLASSIFIERS
from brainhive_cli.measurement.linear_maps import (
    MAX_EXACT,
    FeatureScaler,
    Products,
    principal_axes,
)
from brainhive_cli.measurement.ranks import rank_first_pictures
from brainhive_cli.measurement.retrieval import draw_verdict_pictures
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import MAX_PERMUTATIONS, ROUNDING, judge
from brainhive_cli.models.backbones.ridge import count_fit_operations
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.recipe import (
    FROM_MEAN,
    Recipe as AlignRecipe,
    make_ridge_keys,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import TrainedRun

RIDGE_TAKES = {
    *("dataset", "encoders", "mode", "subjects", "trained_on", "signal", "paths")
}
"""Keys of an aligner's recipe that its ridge has, too."""
OPERATIONS_PER_S, FREE_S = 2e10, 60.0
"""Multiplications of a ridge in a second, on two cores; seconds that a ridge may take
where a training took less.
"""
FAILURES = (MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)
"""Errors of memory and algebra that leave an evaluation without its ridge."""
COMPONENTS, SIGNALS, SIGNAL_BYTES = 1000, 20_000, 2 * 10**9
"""Principal components and training signals of a ridge, at most, and bytes of the
signals in float32.
"""
AXES_SIGNALS = 8192
"""Training signals, at most, whose principal components are computed."""
SIGNALS_AT_ONCE = 2048
"""Training signals whose targets in all orders are held at once, 134 MB of 4,096
numbers.
"""
FEWEST = 20
"""Training signals of a ridge, at least."""
TARGET_WIDTH, TARGETS_AT_ONCE = 4096, 256
"""Numbers beyond which a target is projected; targets read at once, 280 MB of 272,896
numbers each.
"""
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
"""The order of a signal store's pictures, and mistakes in it."""
MAX_CLASSES = 50
"""Stimuli up to which they are classified; of more only embeddings are predicted."""
MAX_FEATURES = 2000
"""Numbers of a signal, beyond which classifiers get the principal components of
training signals.
"""


def write_ridge(job: Job, folder: Path) -> AlignRecipe:
    """Write the recipe of a ridge on the signals and targets of the evaluated run into
    its folder, so that train-align can fit it again.

    Raises:
        BrainhiveError: if such a ridge is no baseline of the run, or would take longer
            than the training did.
    """
    # trainings that a ridge on all signals is no baseline of
    run = job.runs[0]
    recipe = job.runs[0].recipe
    if recipe is None or len(job.runs) > 1:
        raise BrainhiveError("ridges are fitted for single runs of train-align")
    _refuse_other_training(run)
    if recipe.similarity == FROM_MEAN:
        raise BrainhiveError("the run is a ridge")
    if recipe.mode == "finetune":
        raise BrainhiveError("the cells were fine-tuned from others")

    # not longer than the training took, where nobody asked for it
    layout = job.open_models(job.groups[0], torch.device("cpu"))[0].module.layout
    keys = [layout.encoders[config.name] for config in recipe.encoders]
    compared = [key in layout.compared_keys for key in keys]
    expected_s = _expect_s(job, layout.spec, compared)
    took_s = run.folder.duration_s
    if job.recipe.baseline == "auto" and expected_s > max(took_s, FREE_S):
        raise BrainhiveError(
            f"a ridge would take about {write_duration(expected_s)}, and the training "
            f"took {write_duration(took_s)}: baseline=ridge fits it"
        )

    # the same signals, and the encoders of the compared heads
    fields = recipe.model_dump(mode="json", include=RIDGE_TAKES)
    fields["encoders"] = [*compress(fields["encoders"], compared)]
    fields["signal"]["repetitions"] = "average"
    fields |= make_ridge_keys(recipe.mode, COMPONENTS)
    fields |= {"seeds": recipe.seeds[:1], "train": {"validation": 0.0}}
    ridge = validate(AlignRecipe, fields)
    (folder / RIDGE_RECIPE).write_text(write_yaml(make_portable(fields)))
    return ridge


def _refuse_other_training(run: TrainedRun) -> None:
    """Refuse trainings whose signals or labels are others than a ridge would read.

    Raises:
        BrainhiveError: saying what they were.
    """
    recipe = run.recipe
    if run.origin is not None:
        raise BrainhiveError("the cells were trained on another data set")
    if recipe is not None and recipe.train.shuffled_labels:
        raise BrainhiveError("the cells were trained on shuffled labels")
    if recipe is not None and (recipe.finetune.sessions or recipe.finetune.share < 1):
        raise BrainhiveError(
            "the cells were fine-tuned to a share of the training signals"
        )


def _expect_s(job: Job, spec: SignalSpec, compared: Sequence[bool]) -> float:
    """Estimate the seconds that ridges of all subjects take, by multiplications."""
    run = job.runs[0]
    stores = compress(run.stores("train").values(), compared)
    width = sum(int(np.prod(store.shape)) for store in stores)
    features = max(spec.widths or (spec.channels,)) * spec.samples
    is_of_trials = run.dataset.holdout.divides_train
    operations = 0.0
    for cell in run.cells:
        if cell.seed == run.cells[0].seed:
            stored = run.source(cell.variant).open_store(cell.trained_on[0])["train"]
            pictures, most = stored.signal.shape[:2]
            count = pictures * (most if is_of_trials else 1) * len(cell.trained_on)
            components = features if len(cell.trained_on) > 1 else COMPONENTS
            operations += count_fit_operations(count, features, components)
            kept = min(count, features, components)
            operations += 2.0 * count * kept * width
    return operations / OPERATIONS_PER_S


def read_signals(
    models: Models, subject: int, split: str, rows: Int64, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, dict[str, Int64], Int64]:
    """Read a subject's signals, reduced to what a ridge is fitted to and tested on.

    Of a subject who was not trained on, training signals are those of who was.

    Returns:
        Principal components of training signals [N, K] and of test signals [M, K];
        targets [Q, D] of the training pictures, and the index of each training signal's
        target [N] by order of the pictures; rows [M] of the pictures that test signals
        are filed as.

    Raises:
        BrainhiveError: if signals are missing, or those of several subjects differ in
            width.
    """
    # signals to train on
    first = models[0]
    is_new = subject not in first.cell.trained_on
    people = first.cell.trained_on if is_new else [subject]
    trials = [first.trials(person, "train", is_tested=False) for person in people]
    signals = [flatten(part) for part in trials]
    if len(widths := {part.shape[1] for part in signals}) > 1:
        raise BrainhiveError("training subjects differ in the width of their signals")

    # as many as memory allows, spread evenly
    most = min(SIGNALS, SIGNAL_BYTES // (4 * widths.pop())) // len(signals)
    chosen = [
        np.unique(np.linspace(0, len(part) - 1, most).astype(int)) for part in signals
    ]
    train = torch.cat(
        [part[index] for part, index in zip(signals, chosen, strict=True)]
    ).to(device)
    if len(train) < FEWEST:
        raise BrainhiveError(f"{len(train)} training signals are too few")

    # signals that show a candidate
    tested = open_trials(models, subject, split)[0]
    tested = tested.take(np.isin(tested.stimulus, rows))
    if not len(tested.stimulus):
        raise BrainhiveError(f"subject {subject} was shown none of the candidates")

    # principal components of standardised training signals
    scale = FeatureScaler.fit(train)
    axes = principal_axes(scale(train[:: -(-len(train) // AXES_SIGNALS)]), COMPONENTS)
    components = scale(train) @ axes, scale(flatten(tested).to(device)) @ axes

    # targets of the training pictures, in each order of a signal store
    pictures = np.unique(np.concatenate([part.stimulus for part in trials]))
    targets = read_targets(first, "train", pictures, device)
    learned = {}
    # the order of other people's stores is not in question
    for order in [AS_FILED] if is_new else ORDERS:
        refile = ORDERS[order]
        filed = [
            refile(part.stimulus)[index]
            for part, index in zip(trials, chosen, strict=True)
        ]
        learned[order] = np.searchsorted(pictures, np.concatenate(filed))
    return *components, targets, learned, tested.stimulus


def flatten(trials: Trials) -> Tensor:
    """Give each of some trials as one row, [N, F]."""
    return torch.from_numpy(trials.averages).flatten(1)


def rank_by_ridge(
    train: Tensor,
    targets: Tensor,
    learned: Mapping[str, Int64],
    test: Tensor,
    candidates: Tensor,
) -> dict[str, Int64]:
    """Rank candidates by their cosine similarity with predictions, both less the mean
    training target, for each order of the training pictures.

    Args:
        train: [N, F] training signals, which are factorised once.
        targets: [Q, D] of the training pictures.
        learned: [N] index of each training signal's target, by order.
        test: [M, F] test signals.
        candidates: [P, D] targets.

    Returns:
        Ranks [M, P] by order.
    """
    # signals and targets are centred, so that ridges need no intercept; the targets of
    # all orders stand side by side
    centre = train.mean(0)
    rows = torch.from_numpy(np.stack([*learned.values()], 1))  # [N, orders]
    chunks = (targets[part].flatten(1) for part in rows.split(SIGNALS_AT_ONCE))
    products = Products.from_samples(train - centre, chunks)

    # a penalty, predictions and ranks for each order
    width = targets.shape[1]
    ranks_of_order = {}
    for number, order in enumerate(learned):
        outputs = slice(number * width, (number + 1) * width)
        mean = products.mean[outputs].to(targets)
        predicted = products.predict(test - centre, outputs=outputs).to(targets) - mean
        ranked = rank_first_pictures(predicted, candidates - mean, len(candidates))
        ranks_of_order[order] = ranked
    return ranks_of_order


def read_targets(
    model: TrainedModel, split: str, rows: Int64, device: torch.device
) -> Tensor:
    """Read unit embeddings of the run's encoders, concatenated: [P, D]; a count sketch
    projects wide ones.
    """
    # targets of each encoder, at equal widths
    stores, parts = model.stores(split), []
    width = TARGET_WIDTH // len(stores)
    for number, store in enumerate(stores.values()):
        source = StoreTargets.from_store(store, torch.device("cpu"), on_device=False)
        random = np.random.default_rng(number)
        size = int(np.prod(source.shape))
        column = torch.from_numpy(random.integers(width, size=size))
        # a count sketch keeps inner products in expectation
        sign = torch.from_numpy(random.choice([-1.0, 1.0], size)).float()

        # unit embeddings [n, width], read in chunks
        chunks = []
        for part in torch.from_numpy(rows).split(TARGETS_AT_ONCE):
            values = source.gather(part).flatten(1)
            if size > width:
                values = torch.zeros(len(values), width).index_add_(
                    1, column, values * sign
                )
            chunks.append(normalize(values))
        parts.append(torch.cat(chunks))
    return torch.cat(parts, 1).to(device)


def look_up(ranks: Array, shown: Int64, rows: Int64) -> Array:
    """Look up the ranks [M] of the pictures that signals are filed as in those of all
    candidates, [M, P].
    """
    return ranks[np.arange(len(ranks)), np.searchsorted(rows, shown)]


def judge_ranks(
    ranks: Sequence[Int64], shown: Sequence[Int64], rows: Int64, alike: StimulusGrouping
) -> Answer:
    """Test whether signals rank the pictures that they are filed as better than others.

    Args:
        ranks: Of all candidates, [M, P] by subject.
        shown: [M] rows of the pictures that the signals are filed as, by subject.
        rows: [P] of the candidates, ascending.
        alike: Which candidates are alike, by row.
    """
    items = alike.make_items([pictures.tolist() for pictures in shown])
    return judge(ranks, items, rows.tolist(), None, alike.concept_of, alike.medium)[0]


def approximate_p(
    ranks: Int64, shown: Int64, rows: Int64, alike: StimulusGrouping
) -> float:
    """Give the one-sided p of the mean rank of what signals show, with labels permuted.

    By the normal approximation, as p of many orders are corrected, and permutations
    that are drawn reach none so small.

    Args:
        ranks: [M, P] of all candidates.
        shown: [M] rows of the pictures that the signals show.
        rows: [P] of the candidates, ascending.
        alike: Which candidates are alike, by row.
    """
    from scipy.special import ndtr

    # sums of the ranks of what signals show, and of permuted labels
    items = alike.make_items([shown.tolist()])
    orders = items.draw_permutations(MAX_PERMUTATIONS, 0)  # [K, M]
    if not len(orders):
        return 1.0
    signals = np.arange(len(shown))
    names: Any = items.names
    table = ranks[:, np.searchsorted(rows, names)]
    own = ranks[signals, np.searchsorted(rows, shown)].sum()
    number = {name: index for index, name in enumerate(names)}
    order_of_signals = orders[:, [number[name] for name in shown.tolist()]]
    sums = table[signals, order_of_signals].sum(1)
    z = (own - sums.mean()) / max(sums.std(), ROUNDING)
    # no less than one of all permutations, where these are few
    smallest = 1 / (len(orders) + 1) if len(orders) < MAX_PERMUTATIONS else 0.0
    return float(max(ndtr(z), smallest))


def try_orders(
    subject: int,
    ranks_of_order: Mapping[str, Int64],
    shown: Int64,
    rows: Int64,
    alike: StimulusGrouping,
) -> list[tuple[float, str]]:
    """Test whether a subject's pictures rank well in other orders, where they do not as
    filed.

    Args:
        subject: Whose signals.
        ranks_of_order: Ranks [M, P] of all candidates, by the order of the training
            pictures.
        shown: [M] rows of the pictures that test signals are filed as.
        rows: [P] of the candidates, ascending.
        alike: Which candidates are alike, by row.

    Returns:
        One-sided p of each order, and the order in words.
    """
    # where signals rank their pictures above chance as filed, the order is right
    if (
        judge_ranks([ranks_of_order[AS_FILED]], [shown], rows, alike).side
        == "above chance"
    ):
        return []

    # pictures of the training, from which the ridge was fitted anew, and of the test
    tried = []
    for learned_order, ranked in ranks_of_order.items():
        for tested_order, refile in ORDERS.items():
            if learned_order == tested_order == AS_FILED:
                continue
            p = approximate_p(ranked, refile(shown), rows, alike)
            learned = f"training pictures of subject {subject} {learned_order}"
            tried.append((p, f"{learned} and test pictures {tested_order}"))
    return tried


def conclude(tried: Sequence[tuple[float, str]]) -> Baseline:
    """State the order in which a ridge finds pictures, where it does not as filed.

    Args:
        tried: One-sided p of each other order, and the order in words.
    """
    # the best order, if it is above chance after correction for all that were tried
    # (Bonferroni)
    p, order = min(tried, default=(1.0, ""))
    if tried and p * len(tried) <= MAX_MISFILED_P:
        return Baseline(orders=len(tried), order=order, order_p=p * len(tried))
    return Baseline(orders=len(tried))


def _expect_orders_s(job: Job) -> float:
    """Estimate the seconds in which a quick ridge tries orders for all subjects, by
    multiplications.
    """
    run = job.runs[0]
    sizes = [int(np.prod(store.shape)) for store in run.stores("train").values()]
    width = len(ORDERS) * min(TARGET_WIDTH, sum(sizes))
    tests = {
        (subject, cells[0].fold): cells[0]
        for cells in job.groups
        for subject in cells[0].tested_on
    }
    operations = 0.0
    for (subject, _), cell in tests.items():
        people = [subject] if subject in cell.trained_on else cell.trained_on
        stored = run.source(cell.variant).open_store(people[0])["train"]
        features = int(np.prod(stored.signal.shape[2:]))
        most = min(SIGNALS, SIGNAL_BYTES // (4 * features))
        count = min(most, len(stored.signal) * len(people))

        # principal axes: exact ones, or four passes over the signals
        sample = min(count, AXES_SIGNALS)
        small = min(sample, features)
        kept = min(COMPONENTS, small)
        if small <= MAX_EXACT:
            operations += count_fit_operations(sample, features, small)
        else:
            operations += 12.0 * sample * features * kept
        # the ridge
        operations += count_fit_operations(count, kept, kept)
        operations += 2.0 * count * kept * (features + width)
    return operations / OPERATIONS_PER_S


@console.progress("trying other orders of the pictures")
def find_order(job: Job, device: torch.device) -> Baseline:
    """Find an order of the pictures in which a quick ridge finds them, where a result
    is at chance.

    Raises:
        BrainhiveError: if signals are missing, those of several subjects differ in
            width, the cells were trained on others, or it would take longer than the
            training did.
    """
    _refuse_other_training(job.runs[0])
    # not longer than the training took, where nobody asked for it
    if job.recipe.baseline == "auto":
        expected_s = _expect_orders_s(job)
        took_s = job.runs[0].folder.duration_s
        if expected_s > max(took_s, FREE_S):
            raise BrainhiveError(
                "to try other orders of the pictures would take about "
                f"{write_duration(expected_s)}, and the training took "
                f"{write_duration(took_s)}: baseline=ridge tries them"
            )
    # pictures among which the verdict is asked
    spec, align = job.recipe, job.runs[0]
    opened = job.open_models(job.groups[0], device)
    rows = draw_verdict_pictures(
        open_gallery(opened, [spec.split], only_shown=spec.only_shown).test_rows
    )
    candidates = read_targets(opened[0], spec.split, rows, device)
    alike = make_grouping(
        align.dataset, rows.tolist(), opened[0].pictures(spec.split).concepts[rows]
    )

    # each subject's ridge, with pictures as filed and in other orders
    tried = []
    for models, subject in first_tests(job, device):
        train, test, targets, learned, seen = read_signals(
            models, subject, spec.split, rows, device
        )
        ranks_of_order = rank_by_ridge(train, targets, learned, test, candidates)
        tried += try_orders(subject, ranks_of_order, seen, rows, alike)
    return conclude(tried)


def first_tests(job: Job, device: torch.device) -> Iterator[tuple[Models, int]]:
    """Open the models that test a subject first in a fold, with the subject: seeds
    share signals.
    """
    # a fold of a subject has the same signals in every seed
    done: set[tuple[int, int]] = set()
    for group in job.groups:
        models = job.open_models(group, device)
        for subject in group[0].tested_on:
            if (test := (subject, group[0].fold)) not in done:
                done.add(test)
                yield models, subject


@console.progress("fitting plain baselines")
def rank_by_classifiers(job: Job, device: torch.device) -> dict[str, list[Int64]]:
    """Fit plain baselines to the training signals of each fold, and rank what its test
    signals show.

    Returns:
        Ranks [N] of each baseline, one array a subject, in the order of the pooled
        folds.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    # signals of each subject and fold once, whatever number of seeds was trained
    ranks = {name: defaultdict[int, list[Int64]](list) for name in CLASSIFIERS}
    folds = Counter[int]()
    for models, subject in first_tests(job, device):
        folds[subject] += 1
        split, first = job.recipe.split, models[0]
        trials = first.trials(subject, "train", is_tested=False)
        tested = open_trials(models, subject, split)[0]
        # rows of stimuli
        rows = find_shared_rows(models, split)
        labels = trials.stimulus
        shown = tested.stimulus

        # standardised by those of the training, [N, F] and [M, F]
        scale = FeatureScaler.fit(flatten(trials))
        train = scale(flatten(trials))
        test = scale(flatten(tested).float())

        # classifiers of few stimuli, each of which was shown twice at least
        if (
            len(rows) <= MAX_CLASSES
            and np.unique(labels, return_counts=True)[1].min() > 1
        ):
            if train.shape[1] > MAX_FEATURES:
                axes = principal_axes(train, MAX_FEATURES)
                train, test = train @ axes, test @ axes
            lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            for name, classifier in (
                ("lda", lda),
                ("logistic", LogisticRegression(max_iter=1000)),
            ):
                # scores [M, classes]; of two classes there is one column
                classifier.fit(train.numpy(), labels)
                scores = classifier.decision_function(test.numpy())
                scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores

                # a stimulus without training trials comes last; ties rank against it,
                # as for any model
                scores_of_rows = np.full((len(shown), len(rows)), -np.inf)
                scores_of_rows[:, np.searchsorted(rows, classifier.classes_)] = scores
                score = look_up(scores_of_rows, shown, rows)
                ranks[name][subject].append((scores_of_rows >= score[:, None]).sum(1))

    # a classifier that some fold could not fit is left out
    return {
        name: [np.concatenate(ranks_of_subject[subject]) for subject in folds]
        for name, ranks_of_subject in ranks.items()
        if all(
            len(ranks_of_subject[subject]) == count for subject, count in folds.items()
        )
    }
