"""Closed-form ridge on the signals of an evaluation, each subject's once for all seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.targets.targets import StoreTargets
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.rankings import MOST_TESTED, Ensemble, candidate_rows
from brainhive_cli.measurement.linear_maps import Products, Scale, principal_axes
from brainhive_cli.measurement.ranks import ranks_of_all
from brainhive_cli.measurement.units import Alike
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
        averaged = member.responses(subject, split, is_tested=is_tested)
        count, shown_in = len(averaged.stimulus), averaged.sessions  # [N, R]
        shown_in = np.zeros((count, 1), np.int64) if shown_in is None else shown_in.astype(np.int64)
        is_repeated = ((shown_in >= 0) & (shown_in != shown_in.max(1, keepdims=True))).any()
        is_large = 4 * np.prod(averaged.signal.shape) * shown_in.shape[1] > SIGNAL_BYTES
        if not is_repeated or is_large:
            signal = torch.from_numpy(averaged.signal).flatten(1)
            session = np.zeros(count, np.int64) if is_repeated else shown_in.max(1)
            return cls(signal, averaged.stimulus, session, np.ones(count, np.int64))

        # the trials of each session by themselves
        trials = member.responses(subject, split, is_tested=is_tested, with_single=True)
        single, parts = torch.from_numpy(trials.single).flatten(2), []
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


class Ranked(NamedTuple):
    """Pictures [N] that signals are filed as, and the ranks [N, P] of all candidates by them."""

    pictures: Int64
    ranks: Int64


@dataclass(frozen=True)
class Outcome:
    """A verdict with the share of signals whose picture comes first, and the picture's mean rank."""

    verdict: Verdict
    top1: float
    mean_rank: float

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
        pictures, dataset = member.pictures(split), member.run.dataset
        concepts = {row: pictures.concepts[row] for row in rows.tolist()}
        medium = "clip" if dataset.alike_by == "neighbours" else "picture"
        return cls(rows, torch.cat(parts, 1).to(device), Alike(dataset.alike_by, concepts, medium))

    def of(self, pictures: Int64) -> Tensor:
        """Look up the targets of pictures."""
        return self.targets[torch.from_numpy(np.searchsorted(self.rows, pictures)).to(self.targets.device)]

    def seen(self, ranked: Ranked) -> Int64:
        """Look up the ranks [N] of the pictures that signals are filed as."""
        columns = np.searchsorted(self.rows, ranked.pictures)
        return np.take_along_axis(ranked.ranks, columns[:, None], 1)[:, 0]

    def judge(self, subjects: Sequence[Ranked]) -> Outcome:
        """Test whether signals rank the pictures that they are filed as better than others."""
        subjects, pool = [ranked for ranked in subjects if len(ranked.pictures)], len(self.rows)
        if not subjects:
            return Outcome(Verdict("", None, None, 1.0, 0, pool, "no pictures to be found"), 0.0, 0.0)

        # the verdict, and how well pictures rank on average over subjects
        items = self.alike.items([ranked.pictures.tolist() for ranked in subjects])
        ranks, alike = [ranked.ranks for ranked in subjects], self.alike
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

    def rank(self, filing: str = "", session: int | None = None) -> Ranked:
        """Rank candidates by test signals, perhaps those of one session, perhaps with another order."""
        test = self.test.refile(filing, session)
        predicted, pictures = (test if session is None else test.take(test.sessions == session)).merge()
        return Ranked(pictures, ranks_of_all(predicted, self.gallery, len(self.gallery)))

    def rank_training(self, filing: str = "", session: int | None = None, *, held_out: Candidates) -> Ranked:
        """Rank held-out training pictures by a ridge on the others, perhaps with another order."""
        assert self.train is not None
        train = self.train.refile(filing, session)
        is_held_out = np.isin(train.pictures, held_out.rows)
        is_tested = is_held_out if session is None else is_held_out & (train.sessions == session)
        (learned, shown), (test, pictures) = (train.take(part).merge() for part in (~is_held_out, is_tested))
        predicted, mean = predict(learned, self.targets.of(shown), test)
        return Ranked(pictures, ranks_of_all(predicted, held_out.targets - mean, len(held_out.rows)))


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
    align, spec = job.runs[0], job.spec
    recipe = align.recipe
    if align.origin is not None:
        raise BrainhiveError("the cells were trained on another data set")
    if recipe is not None and recipe.train.shuffled_labels:
        raise BrainhiveError("the cells were trained on shuffled labels")
    if recipe is not None and (recipe.finetune.sessions or recipe.finetune.share < 1):
        raise BrainhiveError("the cells were fine-tuned to a share of the training signals")

    # the first cell that is tested on each subject; one model is loaded at a time
    first = {subject: group for group in reversed(job.groups) for subject in group[0].tested_on}
    fits = []
    tested: Candidates | None = None
    for group in dict.fromkeys(first[subject] for subject in sorted(first)):
        ensemble = Ensemble.load(job.runs, group, device, spec.head)
        member = ensemble.members[0]
        if tested is None:
            rows = candidate_rows(ensemble, [spec.split], spec.only_shown)[spec.split]
            if len(rows) > MOST_TESTED:
                rows = np.sort(np.random.default_rng(0).choice(rows, MOST_TESTED, replace=False))
            tested = Candidates.read(member, spec.split, rows, device)
        subjects = [subject for subject in sorted(first) if first[subject] is group]
        fits += [Fit.of(member, subject, spec.split, tested) for subject in subjects]
    assert tested is not None

    # half of the training pictures of all subjects
    held_out = None
    if all(fit.train is not None for fit in fits):
        known = np.unique(np.concatenate([fit.targets.rows for fit in fits]))
        rows = np.sort(np.random.default_rng(0).permutation(known)[: min(HELD_OUT, len(known) // 2)])
        held_out = Candidates.read(member, "train", rows, device)
    return fits, tested, held_out
