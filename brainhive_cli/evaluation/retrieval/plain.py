"""Plain baselines of scikit-learn on the same folds, next to a run that holds out trials or pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.measurements import Measurements, by_name, scope
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
        ensemble = Ensemble.load(job.runs, group, device, job.recipe.head)
        rows, member = ensemble.rows(split), ensemble.members[0]

        # signals of this fold
        for subject in todo:
            responses = member.responses(subject, "train", is_tested=False)
            signals, shown = ensemble.signals(subject, split)  # shown: [M] rows of stimuli
            labels = responses.stimulus  # [N] rows of stimuli

            # standardised by those of the training, [N, F] and [M, F]
            train = torch.from_numpy(np.asarray(responses.signal, np.float32)).flatten(1)
            scale = Scale.of(train)
            train, test = scale(train), scale(signals[0].flatten(1).float())

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
            learned = Candidates.read(member, "train", np.unique(labels), device)
            tested = Candidates.read(member, "test", rows, device)
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
