"""Baselines on the signals of an evaluation: a closed-form ridge, and scikit-learn's on the same folds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import LEVEL, Answer, Baseline, Difference
from brainhive_cli.core.lines import Line, write_value
from brainhive_cli.core.measurements import Measurements, Metric, by_name, scope
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.targets.targets import StoreTargets
from brainhive_cli.evaluation.retrieval.job import Group, Job
from brainhive_cli.evaluation.retrieval.measure import (
    Models,
    open_gallery,
    open_models,
    open_trials,
    shared_rows,
)
from brainhive_cli.measurement.comparison import compare
from brainhive_cli.measurement.linear_maps import Products, Scale, principal_axes
from brainhive_cli.measurement.ranks import ranks_of_all, summarise
from brainhive_cli.measurement.retrieval import draw_tested
from brainhive_cli.measurement.units import Alike, Items
from brainhive_cli.measurement.verdict import judge
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

BASELINE, PLAIN = "baseline · ridge", "plain"
"""The scope of the ridge that a verdict is compared with, and the first part of those of plain baselines."""
FAILURES = (BrainhiveError, MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)
"""Errors that leave an evaluation without its ridge."""
COMPONENTS, SIGNALS, SIGNAL_BYTES = 1000, 20_000, 2 * 10**9
"""Principal components and training signals of a ridge, at most, and bytes of the signals in float32."""
AXES_SIGNALS = 8192
"""Training signals, at most, whose principal components are computed."""
FEWEST = 20
"""Training signals of a ridge, at least."""
TARGET_WIDTH, TARGETS_AT_ONCE = 4096, 256
"""Numbers beyond which a target is projected; targets read at once, 280 MB of 272,896 numbers each."""
AS_FILED = "as filed"
ORDERS: Mapping[str, Callable[[Int64], Int64]] = {
    AS_FILED: lambda pictures: pictures,
    "reversed": lambda pictures: pictures[::-1],
    "shifted by one (each signal shows the picture before)": lambda pictures: np.roll(pictures, 1),
    "shifted by one (each signal shows the picture after)": lambda pictures: np.roll(pictures, -1),
}
"""The order of a signal store's pictures, and mistakes in it."""
MAX_CLASSES = 50
"""Stimuli up to which they are classified; more are found by their embeddings alone."""
MAX_FEATURES = 2000
"""Numbers of a signal, beyond which classifiers get the principal components of training signals."""
NAMES = {
    "lda": "shrinkage LDA",
    "logistic": "logistic regression",
    "ridge": "ridge",
}


@dataclass(frozen=True)
class Ridge:
    """Signals of one subject, reduced to what a ridge is fitted to and tested on.

    Attributes:
        subject: Whose signals are tested.
        is_own: Whether the training signals are the subject's, not those of other people.
        train: [N, K] principal components of training signals.
        targets: [Q, D] targets of the training pictures.
        learned: [N] index of each training signal's target, by order of the pictures.
        test: [M, K] test signals.
        shown: [M] rows of the pictures that test signals are filed as.
    """

    subject: int
    is_own: bool
    train: Tensor
    targets: Tensor
    learned: Mapping[str, Int64]
    test: Tensor
    shown: Int64

    @classmethod
    def read(cls, models: Models, subject: int, split: str, rows: Int64, device: torch.device) -> Self:
        """Read the subject's signals; of one who was not trained on, training signals are those of who was.

        Raises:
            BrainhiveError: if signals are missing, or those of several subjects differ in width.
        """
        # signals to train on
        first, is_own = models[0], subject in models[0].cell.trained_on
        trained_on = [subject] if is_own else first.cell.trained_on
        trials = [first.trials(number, "train", is_tested=False) for number in trained_on]
        signals = [torch.from_numpy(part.averages).flatten(1) for part in trials]
        if len(widths := {part.shape[1] for part in signals}) > 1:
            raise BrainhiveError("training subjects differ in the width of their signals")

        # as many as memory allows, spread evenly
        most = min(SIGNALS, SIGNAL_BYTES // (4 * widths.pop())) // len(signals)
        chosen = [np.unique(np.linspace(0, len(part) - 1, most).astype(int)) for part in signals]
        train = torch.cat([part[index] for part, index in zip(signals, chosen, strict=True)]).to(device)
        if len(train) < FEWEST:
            raise BrainhiveError(f"{len(train)} training signals are too few")

        # signals that show a candidate
        tested = open_trials(models, subject, split)[0]
        tested = tested.take(np.isin(tested.stimulus, rows))
        if not len(tested.stimulus):
            raise BrainhiveError(f"subject {subject} was shown none of the candidates")
        test = torch.from_numpy(tested.averages).flatten(1).to(device)

        # principal components of standardised training signals
        scale = Scale.of(train)
        axes = principal_axes(scale(train[:: -(-len(train) // AXES_SIGNALS)]), COMPONENTS)

        # targets of the training pictures, in each order of a signal store
        pictures = np.unique(np.concatenate([part.stimulus for part in trials]))
        targets, learned = read_targets(first, "train", pictures, device), {}
        for order, refile in ORDERS.items():
            filed = [refile(part.stimulus)[index] for part, index in zip(trials, chosen, strict=True)]
            learned[order] = np.searchsorted(pictures, np.concatenate(filed))
        return cls(
            subject, is_own, scale(train) @ axes, targets, learned, scale(test) @ axes, tested.stimulus
        )

    def rank(self, candidates: Tensor, order: str = AS_FILED) -> Int64:
        """Fit the ridge to pictures in an order, and rank candidates [P, D] by test signals: [M, P]."""
        return rank_by_ridge(self.train, self.targets[self.learned[order]], self.test, candidates)


def rank_by_ridge(train: Tensor, targets: Tensor, test: Tensor, candidates: Tensor) -> Int64:
    """Rank candidates by their cosine similarity with predictions, both less the mean training target.

    Args:
        train: [N, F] training signals.
        targets: [N, D] what the ridge learns to predict from them.
        test: [M, F] test signals.
        candidates: [P, D] targets.

    Returns:
        Ranks [M, P].
    """
    centre = train.mean(0)
    products = Products.of(train - centre, [targets])
    mean = products.mean.to(targets)
    predicted = products.predict(test - centre).to(targets) - mean
    return ranks_of_all(predicted, candidates - mean, len(candidates))


def read_targets(model: TrainedModel, split: str, rows: Int64, device: torch.device) -> Tensor:
    """Read unit embeddings of the run's encoders, concatenated: [P, D]; a count sketch projects wide ones."""
    # targets of each encoder, at equal widths
    stores, parts = model.stores(split), []
    width = TARGET_WIDTH // len(stores)
    for number, store in enumerate(stores.values()):
        source = StoreTargets.of(store, torch.device("cpu"), hold=False)
        random, size = np.random.default_rng(number), int(np.prod(source.shape))
        column = torch.from_numpy(random.integers(width, size=size))
        sign = torch.from_numpy(random.choice([-1.0, 1.0], size)).float()

        # unit embeddings [n, width], read in chunks
        chunks = []
        for start in range(0, len(rows), TARGETS_AT_ONCE):
            values = source.gather(rows[start : start + TARGETS_AT_ONCE]).flatten(1)
            if size > width:
                values = torch.zeros(len(values), width).index_add_(1, column, values * sign)
            chunks.append(normalize(values))
        parts.append(torch.cat(chunks))
    return torch.cat(parts, 1).to(device)


def look_up(ranks: Int64, shown: Int64, rows: Int64) -> Int64:
    """Look up the ranks [M] of the pictures that signals are filed as in those of all candidates, [M, P]."""
    return ranks[np.arange(len(ranks)), np.searchsorted(rows, shown)]


def judge_ranks(ranks: Sequence[Int64], shown: Sequence[Int64], rows: Int64, alike: Alike) -> Answer:
    """Test whether signals rank the pictures that they are filed as better than others.

    Args:
        ranks: Of all candidates, [M, P] by subject.
        shown: [M] rows of the pictures that the signals are filed as, by subject.
        rows: [P] of the candidates, ascending.
        alike: Which candidates are alike, by row.
    """
    items = alike.items([pictures.tolist() for pictures in shown])
    return judge(ranks, items, rows.tolist(), None, alike.concept_of, alike.medium)[0]


def try_orders(
    ridge: Ridge, ranks: Int64, candidates: Tensor, rows: Int64, alike: Alike
) -> list[tuple[float, str]]:
    """Test whether a subject's pictures are found in other orders, where they are not as filed.

    Args:
        ridge: The subject's.
        ranks: [M, P] of all candidates, with pictures as filed.
        candidates: [P, D] targets.
        rows: [P] of the candidates, ascending.
        alike: Which candidates are alike, by row.

    Returns:
        One-sided p of each order, and the order in words.
    """
    if judge_ranks([ranks], [ridge.shown], rows, alike).side == "above chance":
        return []

    # pictures of the training, from which the ridge is fitted anew, and of the test; others' training stays
    tried = []
    for learned_order in ORDERS if ridge.is_own else (AS_FILED,):
        ranked = ranks if learned_order == AS_FILED else ridge.rank(candidates, learned_order)
        for tested_order, refile in ORDERS.items():
            if learned_order == tested_order == AS_FILED:
                continue
            p = judge_ranks([ranked], [refile(ridge.shown)], rows, alike).better
            learned = f"training pictures of subject {ridge.subject} {learned_order}"
            tried.append((1.0 if p is None else p, f"{learned} and test pictures {tested_order}"))
    return tried


def diagnose(
    is_above: bool, ridge: Answer, tried: Sequence[tuple[float, str]]
) -> Literal["", "misfiled", "too little data", "target not carried"]:
    """Name the cause of a result by what was measured, and by no more.

    Args:
        is_above: Whether the run is above chance.
        ridge: Answer of the ridge on the same signals.
        tried: One-sided p of other orders of the pictures, and each order in words.
    """
    # the best order, if it is above chance after correction for all that were tried (Bonferroni)
    if tried and min(tried)[0] * len(tried) <= LEVEL:
        return "misfiled"

    # the ridge compared with the model
    if is_above or ridge.side == "not testable":
        return ""
    return "too little data" if ridge.side == "above chance" else "target not carried"


def explain_verdict(job: Job, measured: Measurements, device: torch.device) -> Measurements:
    """Fit a ridge where the recipe or a verdict at chance asks for one, and explain the verdict by it.

    Args:
        job: The evaluation.
        measured: What it measured.
        device: Where ridges are fitted.

    Returns:
        What was measured, with the ridge's metrics, and `baseline` in the facts: a sentence with its cause
        and any next command. Where no ridge can be fitted, the sentence says why.
    """
    spec, verdict = job.recipe, measured.facts.verdict
    is_asked = spec.baseline == "ridge" or not verdict.startswith(("above chance", "not testable"))
    if spec.control != "none" or spec.baseline == "none" or not is_asked:
        return measured
    try:
        return _compare_with_ridge(job, measured, device)
    except FAILURES as error:
        reason = (
            error.in_one_line if isinstance(error, BrainhiveError) else f"{type(error).__name__}: {error}"
        )
        return measured.stating(baseline=Baseline(reason=reason))


@console.progress("fitting a ridge")
def _compare_with_ridge(job: Job, measured: Measurements, device: torch.device) -> Measurements:
    """Fit a ridge to each tested subject's training signals, and compare the verdict with it."""
    # trainings that a ridge on all signals is no baseline of
    spec, align, reason = job.recipe, job.runs[0], ""
    recipe = align.recipe
    if align.origin is not None:
        reason = "trained on another data set"
    elif recipe is not None and recipe.train.shuffled_labels:
        reason = "trained on shuffled labels"
    elif recipe is not None and (recipe.finetune.sessions or recipe.finetune.share < 1):
        reason = "fine-tuned to a share of the training signals"
    if reason:
        raise BrainhiveError(f"the cells were {reason}")

    # pictures among which the verdict is asked
    models = open_models(job.runs, job.groups[0], device, spec.head)
    rows = draw_tested(open_gallery(models, [spec.split], only_shown=spec.only_shown).tested)
    candidates = read_targets(models[0], spec.split, rows, device)
    concepts = models[0].pictures(spec.split).concepts
    alike = alike_of(align.dataset, rows.tolist(), [concepts[row] for row in rows])

    # each subject's ridge, with pictures as filed; in other orders, too, where the model does not find them
    verdict = measured.facts.verdict
    subjects, counts, components, are_own = [], [], 0, True
    ranks: list[Int64] = []
    shown: list[Int64] = []
    tried: list[tuple[float, str]] = []
    for group, tested_subjects in first_tests(job.groups):
        models = open_models(job.runs, group, device, spec.head)
        for subject in tested_subjects:
            ridge = Ridge.read(models, subject, spec.split, rows, device)
            subjects.append(subject)
            counts.append(len(ridge.train))
            components, are_own = max(components, ridge.train.shape[1]), are_own and ridge.is_own
            ranks.append(ridge.rank(candidates))
            shown.append(ridge.shown)
            if not verdict.startswith("above chance"):
                tried += try_orders(ridge, ranks[-1], candidates, rows, alike)

    # metrics with the protocol
    signals = sum(counts) if are_own else max(counts)  # ridges of other people's signals share these
    how = f"closed-form ridge on at most {components} principal components of {signals} training signals"
    metrics = by_name(
        summarise(
            [look_up(*pair, rows) for pair in zip(ranks, shown, strict=True)],
            len(rows),
            split=spec.split,
            items=alike.items([pictures.tolist() for pictures in shown]),
            protocol=f"{measured.facts.protocol}, {how}",
            only=("top1", "top5", "median_rank"),
        )
    )

    # the cause, and the command that follows from it
    of_ridge = judge_ranks(ranks, shown, rows, alike)
    cause = diagnose(verdict.startswith("above chance"), of_ridge, tried)
    line = {
        "too little data": write_training(align, subjects),
        "target not carried": Line("check", f"dataset={align.dataset_config}", "--plots").plain,
    }.get(cause, "")
    order_p, order = min(tried, default=(None, ""))
    baseline = Baseline(
        cause=cause,
        line=line,
        answer=of_ridge,
        top1=metrics["top1"].value,
        chance=1 / len(rows),
        signals=signals,
        orders=len(tried),
        order=order,
        order_p=None if order_p is None else min(1.0, order_p * len(tried)),
    )
    return (measured | Measurements({BASELINE: metrics})).stating(baseline=baseline)


def first_tests(groups: Sequence[Group]) -> Iterator[tuple[Group, list[int]]]:
    """List groups with the subjects whom no group of the same fold before them tests: seeds share signals."""
    done: set[tuple[int, int | None]] = set()
    for group in groups:
        fold = group[0].fold
        subjects = [subject for subject in group[0].tested_on if (subject, fold) not in done]
        done |= {(subject, fold) for subject in subjects}
        if subjects:
            yield group, subjects


def write_training(align: TrainedRun, subjects: Sequence[int]) -> str:
    """Write the command that trains a ridge of each subject on the signals and encoders of a run."""
    # settings of the signals other than those that a ridge has no use for
    model = align.models[0]
    knobs = model.source.signal.model_dump(mode="json", exclude_defaults=True)
    idle = {"repetitions", "random_k", *(() if "normalise" in knobs else ("scale",))}
    knobs = {"normalise": "channel"} | {key: value for key, value in knobs.items() if key not in idle}
    more = [
        ("subjects", ",".join(map(str, subjects))),
        ("seeds", "0"),
        "backbone.kind=ridge",
        "backbone.alpha=auto",
    ]
    more += ["train.validation=0", *(f"signal.{key}={write_value(value)}" for key, value in knobs.items())]
    parts = ("dataset", align.dataset_config), ("encoders", model.encoders)
    return Line("train-align", *parts, *more).plain


@console.progress("fitting plain baselines")
def rank_plainly(job: Job, device: torch.device) -> dict[str, dict[int, Int64]]:
    """Fit plain baselines to the training signals of each fold, and rank what its test signals show.

    Returns:
        Int64 [N] by baseline and subject, in the order of the pooled folds.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    # each subject and fold once, whatever number of seeds was trained
    ranks = {name: defaultdict[int, list[Int64]](list) for name in NAMES}
    for group, subjects in first_tests(job.groups):
        split, models = job.recipe.split, open_models(job.runs, group, device, job.recipe.head)
        rows, first = shared_rows(models, split), models[0]

        # signals of this fold
        for subject in subjects:
            trials = first.trials(subject, "train", is_tested=False)
            test_trials = open_trials(models, subject, split)[0]
            shown = test_trials.stimulus  # [M] rows of stimuli
            labels = trials.stimulus  # [N] rows of stimuli

            # standardised by those of the training, [N, F] and [M, F]
            train = torch.from_numpy(trials.averages).flatten(1)
            scale = Scale.of(train)
            train, test = scale(train), scale(torch.from_numpy(test_trials.averages).flatten(1).float())

            # classifiers of few stimuli, each of which was shown twice at least
            if len(rows) <= MAX_CLASSES and np.unique(labels, return_counts=True)[1].min() > 1:
                axes = principal_axes(train, MAX_FEATURES) if train.shape[1] > MAX_FEATURES else None
                parts = [(part if axes is None else part @ axes).numpy() for part in (train, test)]
                lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
                for name, classifier in (("lda", lda), ("logistic", LogisticRegression(max_iter=1000))):
                    # scores [M, classes]; of two classes there is one column
                    scores = classifier.fit(parts[0], labels).decision_function(parts[1])
                    scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores

                    # a stimulus without training trials comes last
                    classes = classifier.classes_
                    column = np.minimum(np.searchsorted(classes, shown), len(classes) - 1)
                    ranked = 1 + (scores > np.take_along_axis(scores, column[:, None], 1)).sum(1)
                    ranked = np.where(np.isin(shown, classes), ranked, len(rows))
                    ranks[name][subject].append(ranked)

            # the ridge predicts targets
            pictures, learned = np.unique(labels, return_inverse=True)
            targets = read_targets(first, "train", pictures, device)[learned]
            candidates = read_targets(first, "test", rows, device)
            ranked = rank_by_ridge(train.to(device), targets, test.to(device), candidates)
            ranks["ridge"][subject].append(look_up(ranked, shown, rows))
    return {
        name: {subject: np.concatenate(parts) for subject, parts in by_subject.items()}
        for name, by_subject in ranks.items()
        if by_subject.keys() == ranks["ridge"].keys()
    }


def compare_plainly(
    ranks: Mapping[str, Mapping[int, Int64]],
    ours: Mapping[int, Sequence[Int64]],
    items: Items,
    **context: Any,
) -> tuple[dict[str, dict[str, Metric]], list[Difference], list[str]]:
    """Measure baselines, and the differences to the run on the same items.

    Args:
        ranks: Of each baseline, [N] by subject.
        ours: Of the run, [S, N] by subject.
        items: The items of these subjects.
        context: See `summarise`.

    Returns:
        Metrics by scope, differences, and a warning for each baseline that is better than the run.
    """
    scopes, rows, warnings = {}, [], []
    for name, by_subject in ranks.items():
        # the metrics of the baseline, and the difference to it
        plain = [by_subject[subject] for subject in ours]
        scopes[scope(PLAIN, name)] = by_name(summarise(plain, items=items, **context))
        difference = compare([np.array(group) for group in ours.values()], plain, items=items)

        # a run below its baseline is warned of
        rows.append(difference.model_copy(update={"second": name, "metric": "top1"}))
        if difference.high is not None and difference.high < 0:
            warnings.append(
                f"below a plain baseline on the same folds: top-1 of {NAMES[name]} is "
                f"{-difference.difference:.3f} higher"
            )
    return scopes, rows, warnings
