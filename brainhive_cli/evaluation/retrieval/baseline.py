"""Baselines on the signals of an evaluation: a closed-form ridge, and scikit-learn's on the same folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, by_name, scope
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.targets.targets import StoreTargets
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.measure import open_gallery, open_models, open_trials, shared_rows
from brainhive_cli.measurement.comparison import compare
from brainhive_cli.measurement.linear_maps import Products, Scale, principal_axes
from brainhive_cli.measurement.ranks import ranks_of_all, summarise
from brainhive_cli.measurement.retrieval import draw_tested
from brainhive_cli.measurement.units import Alike, Items
from brainhive_cli.measurement.verdict import Verdict, judge
from brainhive_cli.training.alignment.trained import TrainedModel

COMPONENTS, SIGNALS, SIGNAL_BYTES = 1000, 20_000, 2 * 10**9
"""Principal components and training signals of a ridge, at most, and bytes of the signals in float32."""
AXES_SIGNALS = 8192
"""Training signals, at most, whose principal components are computed."""
FILING_COMPONENTS, FILING_SIGNALS, HELD_OUT = 300, 4000, 500
"""The same of each ridge on training pictures in another order, and pictures that are held out, at most."""
FEWEST = 10
"""Pictures of a session that is tested by itself."""
TARGET_WIDTH, TARGETS_AT_ONCE = 4096, 256
"""Numbers beyond which a target is projected; targets read at once, 280 MB of 272,896 numbers each."""
FILINGS: Mapping[str, Callable[[Int64], Int64]] = {
    "reversed": lambda pictures: pictures[::-1],
    "shifted by one (each signal shows the picture before)": lambda pictures: np.roll(pictures, 1),
    "shifted by one (each signal shows the picture after)": lambda pictures: np.roll(pictures, -1),
}
"""Mistakes in the order of a session's pictures."""
Ranked = tuple[Int64, Int64]
"""Pictures [N] that signals are filed as, and the ranks [N, P] of all candidates by them."""


PLAIN = "plain"
"""The first part of the scopes of baselines."""
MAX_CLASSES = 50
"""Stimuli up to which they are classified; more are found by their embeddings alone."""
MAX_FEATURES = 2000
"""Numbers of a signal, beyond which classifiers get the principal components of training signals."""
NAMES = {
    "lda": "shrinkage LDA",
    "logistic": "logistic regression",
    "ridge": "ridge to the targets, penalty by generalised cross-validation",
}


class Averages(NamedTuple):
    """Averages of one subject's trials: one for each stimulus in each session.

    Attributes:
        features: [n, F] signals, or what is computed of them.
        pictures: [n] row of each stimulus in the target stores, in the order of the signal store by session.
        sessions: [n] index of the session; 0 where sessions are not known.
        trials: [n] how many were averaged.
    """

    features: Tensor
    pictures: Int64
    sessions: Int64
    trials: Int64

    @classmethod
    def read(cls, member: TrainedModel, subject: int, split: str, is_tested: bool) -> Self:
        """Read signals as the cell's model does, by session where pictures were shown in several."""
        # pictures that were shown in several sessions are averaged by session, if memory allows
        trials = member.trials(subject, split, is_tested=is_tested)
        count, shown_in = len(trials.stimulus), trials.sessions  # [N, R]
        shown_in = np.zeros((count, 1), np.int64) if shown_in is None else shown_in.astype(np.int64)
        is_repeated = ((shown_in >= 0) & (shown_in != shown_in.max(1, keepdims=True))).any()
        is_large = 4 * np.prod(trials.signal.shape) > SIGNAL_BYTES
        if not is_repeated or is_large:
            signal = torch.from_numpy(trials.averages).flatten(1)
            session = np.zeros(count, np.int64) if is_repeated else shown_in.max(1)
            return cls(signal, trials.stimulus, session, np.ones(count, np.int64))

        # the trials of each session by themselves
        single, parts = torch.from_numpy(trials.singles).flatten(2), []
        for number in np.unique(shown_in[shown_in >= 0]).tolist():
            is_of_session = shown_in == number
            rows, counts = np.flatnonzero(is_of_session.any(1)), is_of_session.sum(1)
            weights = torch.from_numpy(is_of_session[rows] / counts[rows, None]).float()
            mean = torch.einsum("nrf,nr->nf", single[torch.from_numpy(rows)], weights)
            parts.append((mean, trials.stimulus[rows], np.full(len(rows), number), counts[rows]))
        features, *lists = zip(*parts, strict=True)
        return cls(torch.cat(features), *map(np.concatenate, lists))

    def take(self, rows: Array) -> Self:
        """Select averages, by index or mask."""
        lists = (self.pictures[rows], self.sessions[rows], self.trials[rows])
        return type(self)(self.features[torch.from_numpy(rows).to(self.features.device)], *lists)

    def refile(self, filing: str, session: int | None) -> Self:
        """File the pictures of a session, or of each, in another order; "" leaves it."""
        pictures = self.pictures.copy()
        for number in np.unique(self.sessions) if session is None else [session]:
            if filing:
                is_of_session = self.sessions == number
                pictures[is_of_session] = FILINGS[filing](pictures[is_of_session])
        return self._replace(pictures=pictures)

    def merge(self) -> tuple[Tensor, Int64]:
        """Average over sessions: features [N, F] and pictures [N], ascending."""
        pictures, index = np.unique(self.pictures, return_inverse=True)
        weights = torch.from_numpy(self.trials / np.bincount(index, self.trials)[index]).to(self.features)
        merged = self.features.new_zeros(len(pictures), self.features.shape[1])
        merged.index_add_(0, torch.from_numpy(index).to(merged.device), self.features * weights[:, None])
        return merged, pictures


@dataclass(frozen=True)
class Outcome:
    """A verdict with the share of signals whose picture comes first, and the picture's mean rank."""

    verdict: Verdict
    top1: float = 0.0
    mean_rank: float = 0.0

    @property
    def words(self) -> str:
        """Numbers in words."""
        verdict = self.verdict
        p = "not testable" if verdict.p is None else f"p {verdict.p:.2g}"
        return f"top-1 {self.top1:.3f}, chance {1 / verdict.pool:.3f}, n {verdict.n}, {p}"


@dataclass(frozen=True)
class Candidates:
    """Pictures of one split with their targets.

    Attributes:
        rows: [P] in the target stores, ascending.
        targets: [P, D] concatenated unit embeddings of the run's encoders.
        alike: Which of them are alike, by row.
    """

    rows: Int64
    targets: Tensor
    alike: Alike

    @classmethod
    def read(cls, member: TrainedModel, split: str, rows: Int64, device: torch.device) -> Self:
        """Read the targets of the run's encoders; wide ones are projected by a count sketch."""
        # targets of each encoder, at equal widths
        stores, parts = member.stores(split), []
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

        # pictures that are alike
        concepts = [member.pictures(split).concepts[row] for row in rows]
        alike = alike_of(member.run.dataset, rows.tolist(), concepts)
        return cls(rows, torch.cat(parts, 1).to(device), alike)

    def of(self, pictures: Int64) -> Tensor:
        """Look up the targets of pictures."""
        return self.targets[torch.from_numpy(np.searchsorted(self.rows, pictures)).to(self.targets.device)]

    def seen(self, ranked: Ranked) -> Int64:
        """Look up the ranks [N] of the pictures that signals are filed as."""
        pictures, ranks = ranked
        return ranks[np.arange(len(ranks)), np.searchsorted(self.rows, pictures)]

    def judge(self, subjects: Sequence[Ranked]) -> Outcome:
        """Test whether signals rank the pictures that they are filed as better than others."""
        subjects = [(pictures, ranks) for pictures, ranks in subjects if len(pictures)]
        if not subjects:
            return Outcome(Verdict("", None, None, 1.0, 0, len(self.rows), "no pictures to be found"))

        # the verdict, and how well pictures rank on average over subjects
        shown, ranks = zip(*subjects, strict=True)
        items, alike = self.alike.items([pictures.tolist() for pictures in shown]), self.alike
        verdict = judge(ranks, items, self.rows.tolist(), None, alike.concept_of, alike.medium)[0]
        seen = [self.seen(ranked) for ranked in subjects]
        top1, mean_rank = np.mean([[(values == 1).mean(), values.mean()] for values in seen], 0).tolist()
        return Outcome(verdict, top1, mean_rank)


@dataclass(frozen=True)
class Fit:
    """The ridge of one subject.

    Attributes:
        subject: Whose signals it decodes.
        train: First components of the training signals; None where other subjects' signals were fitted.
        targets: Targets of these.
        test: Predictions for test signals, less the mean target.
        gallery: [P, D] targets of the candidates, less the mean target.
        components: How many were fitted.
        signals: How many were fitted.
    """

    subject: int
    train: Averages | None
    targets: Candidates
    test: Averages
    gallery: Tensor
    components: int
    signals: int

    @classmethod
    def of(cls, member: TrainedModel, subject: int, split: str, tested: Candidates) -> Self:
        """Fit the training signals of the subject, or of all whom the cell is trained on where it is another.

        Raises:
            BrainhiveError: if signals are missing, or those of several subjects differ in width.
        """
        # signals to train on: the subject's own, or those of all others
        device, is_own = tested.targets.device, subject in member.cell.trained_on
        learned = [subject] if is_own else member.cell.trained_on
        train = [Averages.read(member, number, "train", False) for number in learned]
        if len(widths := {averages.features.shape[1] for averages in train}) > 1:
            raise BrainhiveError("training subjects differ in the width of their signals")

        # as many as memory allows, spread evenly
        most = min(SIGNALS, SIGNAL_BYTES // (4 * widths.pop())) // len(train)
        train = [
            part.take(np.unique(np.linspace(0, len(part.pictures) - 1, most).astype(int))) for part in train
        ]
        test = Averages.read(member, subject, split, True)
        test = test.take(np.isin(test.pictures, tested.rows))
        if (count := sum(len(part.pictures) for part in train)) < 2 * FEWEST:
            raise BrainhiveError(f"{count} training signals are too few")

        # principal components of standardised training signals
        signals = torch.cat([averages.features for averages in train]).to(device)
        scale = Scale.of(signals)
        axes = principal_axes(scale(signals[:: -(-len(signals) // AXES_SIGNALS)]), COMPONENTS)
        *train, test = (
            part._replace(features=scale(part.features.to(device)) @ axes) for part in (*train, test)
        )

        # the ridge, which averages sessions but not subjects
        features, pictures = zip(*(averages.merge() for averages in train), strict=True)
        shown = np.concatenate(pictures)
        targets = Candidates.read(member, "train", np.unique(shown), device)
        predicted, mean = predict(torch.cat(features), targets.of(shown), test.features)
        test, gallery = test._replace(features=predicted), tested.targets - mean

        # signals whose order is tried, of subjects with signals of their own
        first = None
        if is_own:
            first = train[0].take(np.arange(min(FILING_SIGNALS, len(train[0].pictures))))
            first = first._replace(features=first.features[:, :FILING_COMPONENTS])
            rows = np.unique(first.pictures)
            targets = replace(targets, rows=rows, targets=targets.of(rows))
        return cls(subject, first, targets, test, gallery, axes.shape[1], len(shown))

    def sessions(self, split: str) -> list[int]:
        """List the sessions of a split in which a verdict is possible; none where there is one session."""
        averages = self.train if split == "train" and self.train is not None else self.test
        numbers, counts = np.unique(averages.sessions, return_counts=True)
        return numbers[counts >= FEWEST].tolist() if len(numbers) > 1 else []

    def rank(
        self, filing: str = "", session: int | None = None, held_out: Candidates | None = None
    ) -> Ranked:
        """Rank candidates by test signals, perhaps those of one session, perhaps with another order.

        With `held_out`, rank these training pictures by a ridge on the others.
        """
        averages = self.test if held_out is None or self.train is None else self.train
        averages = averages.refile(filing, session)
        is_tested = (averages.sessions == session) | (session is None)
        if held_out is None:
            (predicted, pictures), candidates = averages.take(is_tested).merge(), self.gallery
        else:
            is_held_out = np.isin(averages.pictures, held_out.rows)
            learned, shown = averages.take(~is_held_out).merge()
            test, pictures = averages.take(is_held_out & is_tested).merge()
            predicted, mean = predict(learned, self.targets.of(shown), test)
            candidates = held_out.targets - mean
        return pictures, ranks_of_all(predicted, candidates, len(candidates))


def predict(train: Tensor, targets: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Predict targets by a ridge: their distances [M, D] from the mean training target, and that [D]."""
    centre = train.mean(0)
    products = Products.of(train - centre, [targets])
    mean = products.mean.to(targets)
    return products.predict(test - centre).to(targets) - mean, mean


@console.progress("fitting a ridge")
def fit_subjects(job: Job, device: torch.device) -> tuple[list[Fit], Candidates, Candidates | None]:
    """Fit a ridge to each tested subject's training signals; seeds share it.

    Returns:
        The ridges, the test pictures, and training pictures that are held out to test a ridge on the others;
        None where other subjects' signals were fitted.

    Raises:
        BrainhiveError: if the training signals are not those of the data set, or are missing.
    """
    # trainings that a ridge on all signals is no baseline of
    spec, recipe, reason = job.recipe, job.runs[0].recipe, ""
    if job.runs[0].origin is not None:
        reason = "trained on another data set"
    elif recipe is not None and recipe.train.shuffled_labels:
        reason = "trained on shuffled labels"
    elif recipe is not None and (recipe.finetune.sessions or recipe.finetune.share < 1):
        reason = "fine-tuned to a share of the training signals"
    if reason:
        raise BrainhiveError(f"the cells were {reason}")

    # the first cell that is tested on each subject; one model is loaded at a time
    first = {subject: group for group in reversed(job.groups) for subject in group[0].tested_on}
    fits = []
    tested: Candidates | None = None
    for group in dict.fromkeys(first[subject] for subject in sorted(first)):
        models = open_models(job.runs, group, device, spec.head)
        if tested is None:
            rows = open_gallery(models, [spec.split], only_shown=spec.only_shown).tested
            tested = Candidates.read(models[0], spec.split, draw_tested(rows), device)
        subjects = [subject for subject in sorted(first) if first[subject] is group]
        fits += [Fit.of(models[0], subject, spec.split, tested) for subject in subjects]
    assert tested is not None

    # half of the training pictures of all subjects
    held_out = None
    if all(fit.train is not None for fit in fits):
        known = np.unique(np.concatenate([fit.targets.rows for fit in fits]))
        rows = np.sort(np.random.default_rng(0).permutation(known)[: min(HELD_OUT, len(known) // 2)])
        held_out = Candidates.read(models[0], "train", rows, device)
    return fits, tested, held_out


@console.progress("fitting plain baselines")
def rank_plainly(job: Job, device: torch.device) -> dict[str, dict[int, Int64]]:
    """Fit plain baselines to the training signals of each fold, and rank what its test signals show.

    Returns:
        Int64 [N] by baseline and subject, in the order of the pooled folds.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    # each subject and fold once, whatever number of seeds was trained
    ranks: dict[str, dict[int, list[Int64]]] = {name: {} for name in NAMES}
    done: set[tuple[int, int]] = set()
    for group in job.groups:
        fold, split = group[0].fold, job.recipe.split
        todo = [subject for subject in group[0].tested_on if (subject, fold) not in done]
        done |= {(subject, fold) for subject in todo}
        if not todo:
            continue  # of another seed, which has the same signals
        models = open_models(job.runs, group, device, job.recipe.head)
        rows, first = shared_rows(models, split), models[0]

        # signals of this fold
        for subject in todo:
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
                    ranks[name].setdefault(subject, []).append(ranked)

            # the ridge predicts targets; less their mean, as its predictions are
            learned = Candidates.read(first, "train", np.unique(labels), device)
            tested = Candidates.read(first, "test", rows, device)
            predicted, mean = predict(train.to(device), learned.of(labels), test.to(device))
            ranked = ranks_of_all(predicted, tested.targets - mean, len(rows))
            ranks["ridge"].setdefault(subject, []).append(tested.seen((shown, ranked)))
    return {
        name: {subject: np.concatenate(parts) for subject, parts in by_subject.items()}
        for name, by_subject in ranks.items()
        if by_subject
    }


def compare_plainly(
    ranks: Mapping[str, Mapping[int, Int64]],
    ours: Mapping[int, Sequence[Int64]],
    items: Items,
    **context: Any,
) -> Measurements:
    """Measure baselines, and the differences to the run on the same items.

    Args:
        ranks: Of each baseline, [N] by subject.
        ours: Of the run, [S, N] by subject.
        items: The items of these subjects.
        context: See `summarise`.
    """
    scopes, rows, warnings = {}, [], []
    for name, by_subject in ranks.items():
        # the metrics of the baseline
        measured = summarise([by_subject[subject] for subject in ours], items=items, **context)
        scopes[scope(PLAIN, name)] = by_name(measured)
        difference = compare([np.array(ours[s]) for s in ours], [by_subject[s] for s in ours], items=items)

        # the side of the baseline on which the run lies
        side = "not distinguished"
        if difference.p_value is not None and difference.low is not None and difference.high is not None:
            side = "above" if difference.low > 0 else "below" if difference.high < 0 else side
        elif difference.p_value is None:
            side = "too few items to compare"
        rows.append({"name": name, "side": side, **asdict(difference)})
        if side == "below":
            warnings.append(
                f"below a plain baseline on the same folds: top-1 of {NAMES[name]} is "
                f"{-difference.difference:.3f} higher"
            )
    return Measurements(scopes, notes={PLAIN: rows, "plain_warnings": warnings})
