"""Plain baselines of scikit-learn on the same folds, next to a run that holds out trials or pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core import console
from brainhive_cli.core.measurements import Measurements, by_name, merge_caveats, scope
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.retrieval.baseline import Candidates, predict
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.rankings import Ensemble
from brainhive_cli.measurement.comparison import compare
from brainhive_cli.measurement.linear_maps import Scale, principal_axes
from brainhive_cli.measurement.ranks import ranks_of_all, summarise
from brainhive_cli.measurement.units import Items

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
Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """The signals of one subject in one fold, standardised by the training signals.

    Attributes:
        train: [N, F].
        labels: [N] row of the stimulus that each shows.
        test: [M, F].
        shown: [M] row of the stimulus that each shows.
        candidates: [K] rows of the stimuli that are to be distinguished.
    """

    train: NDArray[np.float32]
    labels: Ranks
    test: NDArray[np.float32]
    shown: Ranks
    candidates: Ranks

    def classify(self, classifier: Any) -> Ranks:
        """Rank the shown stimuli by a classifier, [M]; one without training trials comes last."""
        classifier.fit(self.train, self.labels)
        # scores [M, classes]; of two classes there is one column
        scores = classifier.decision_function(self.test)
        scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores

        # ranks of the shown classes
        column = np.searchsorted(classifier.classes_, self.shown)
        is_known = np.isin(self.shown, classifier.classes_)
        seen = np.take_along_axis(scores, np.minimum(column, scores.shape[1] - 1)[:, None], 1)
        ranked = 1 + (scores > seen).sum(1)
        return np.where(is_known, ranked, len(self.candidates))


@console.progress("fitting plain baselines")
def rank_plainly(job: Job, device: torch.device) -> dict[str, dict[int, Ranks]]:
    """Fit plain baselines to the training signals of each fold, and rank what its test signals show.

    Returns:
        Ranks [N] by baseline and subject, in the order of the pooled folds.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    # each subject and fold once, whatever number of seeds was trained
    ranks: dict[str, dict[int, list[Ranks]]] = {name: {} for name in NAMES}
    done: set[tuple[int, int]] = set()
    for group in job.groups:
        todo = [subject for subject in group[0].tested_on if (subject, group[0].fold) not in done]
        if not todo:
            continue  # of another seed, which has the same signals
        ensemble = Ensemble.load(job.runs, group, device, job.spec.head)
        rows = ensemble.rows(job.spec.split)

        # signals of this fold
        for subject in todo:
            done.add((subject, group[0].fold))
            fold, scaled = _read_fold(ensemble, subject, job.spec.split, rows)

            # classifiers of few stimuli, each of which was shown twice at least
            if len(rows) <= MAX_CLASSES and np.unique(fold.labels, return_counts=True)[1].min() > 1:
                lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
                ranks["lda"].setdefault(subject, []).append(fold.classify(lda))
                logistic = LogisticRegression(max_iter=1000)
                ranks["logistic"].setdefault(subject, []).append(fold.classify(logistic))

            # the ridge predicts targets; less their mean, as its predictions are
            member = ensemble.members[0]
            learned = Candidates.read(member, "train", np.unique(fold.labels), device)
            tested = Candidates.read(member, "test", fold.candidates, device)
            train, test = (part.to(device) for part in scaled)
            predicted, mean = predict(train, learned.of(fold.labels), test)
            ranked = np.asarray(ranks_of_all(predicted, tested.targets - mean, len(fold.candidates)))
            column = np.searchsorted(fold.candidates, fold.shown)
            seen = np.take_along_axis(ranked, column[:, None], 1)[:, 0]
            ranks["ridge"].setdefault(subject, []).append(np.asarray(seen, np.int64))
    return {
        name: {subject: np.concatenate(parts) for subject, parts in by_subject.items()}
        for name, by_subject in ranks.items()
        if by_subject
    }


def _read_fold(
    ensemble: Ensemble, subject: int, split: str, rows: Ranks
) -> tuple[Fold, tuple[torch.Tensor, torch.Tensor]]:
    """Read a fold; also as tensors, [N, F] and [M, F]."""
    # signals of training and test, standardised by the former
    member = ensemble.members[0]
    train = member.responses(subject, "train", is_tested=False)
    learned = torch.from_numpy(np.asarray(train.signal, np.float32)).flatten(1)
    signals, shown = ensemble.signals(subject, split)
    scale, tested = Scale.of(learned), signals[0].flatten(1).float()
    scaled = scale(learned), scale(tested)

    # principal components of wide signals
    parts = scaled
    if learned.shape[1] > MAX_FEATURES:
        axes = principal_axes(scaled[0], MAX_FEATURES)
        parts = scaled[0] @ axes, scaled[1] @ axes
    return Fold(parts[0].numpy(), train.stimulus, parts[1].numpy(), shown, rows), scaled


def compare_plainly(
    ranks: Mapping[str, Mapping[int, Ranks]],
    ours: Mapping[int, Sequence[Sequence[int]]],
    items: Items,
    caveats: Sequence[str],
    **context: Any,
) -> Measurements:
    """Measure baselines, and the differences to the run on the same items.

    Args:
        ranks: Of each baseline, [N] by subject.
        ours: Of the run, [S, N] by subject.
        items: The items of these subjects.
        caveats: Of the signals, which baselines share.
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
    return Measurements(
        scopes, notes={PLAIN: rows, "plain_warnings": warnings, "caveats": merge_caveats(caveats)}
    )


def plain_table(measured: Measurements) -> Table:
    """Lay out the run and its baselines, with the paired difference of each."""
    if not measured.notes.get(PLAIN):
        return Table("", (), ())

    # the run, then each baseline
    top1 = measured.overall["top1"]
    rows: list[tuple[Any, ...]] = [("this run", top1.value, top1.interval_text(), "–", "–", "–")]
    for row in measured.notes[PLAIN]:
        plain = measured.scopes[scope(PLAIN, row["name"])]["top1"]
        ends = "–" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
        difference = f"{row['difference']:+.3f}"
        rows.append((NAMES[row["name"]], plain.value, plain.interval_text(), difference, ends, row["side"]))
    title = (
        f"Plain baselines on the same folds, n {top1.n}, pool {top1.pool}, chance {top1.chance:.3g}; "
        f"difference: this run less the baseline; {measured.notes[PLAIN][0]['interval']}"
    )
    columns = ("model", "top-1", "95 % CI", "difference", "its 95 % CI", "this run is")
    return Table(title, columns, tuple(rows))
