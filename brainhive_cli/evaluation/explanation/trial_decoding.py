"""Classical views of held-out trials of EEG and MEG: category decoding by time, and
from time to time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.jobs import Summary
from brainhive_cli.core.measurements import scope
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals.trials import Trials, index_optional
from brainhive_cli.evaluation.explanation.conclusion import Scopes, summarise_findings
from brainhive_cli.evaluation.explanation.figures import Figures
from brainhive_cli.evaluation.explanation.findings import (
    correct_findings,
    describe_profiles,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import list_window_masks
from brainhive_cli.evaluation.explanation.profiles import (
    SECTION,
    SIGNIFICANCE_LEVEL,
    Axis,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import TRIAL_ANALYSES
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.reports.tables import render
from brainhive_cli.training.alignment.trained.model import TrainedModel

DECODING, GENERALISATION = TRIAL_ANALYSES
MAX_COMPARISONS = 2**26
"""Comparisons of labels with predictions at once, to bound memory."""


@dataclass(frozen=True)
class DecodedTrials:
    """Predictions of one subject's classifiers for held-out trials, all folds together.

    Attributes:
        names: [N] of the trials.
        groups: [N] run, session or fold of each.
        shown: [N] row of the stimulus that each shows.
        predicted: [P, P, N] rows that a classifier of training time p names at test
            time q.
        axis: The P windows.
        candidates: How many stimuli are distinguished.
        trials: Those that are held out.
        order: Which labels may be exchanged.
        left_out: Why windows are left out; empty if none are.
    """

    names: list[str]
    groups: list[str]
    stimuli: Int64
    predictions: Int64
    axis: Axis
    n_stimuli: int
    trials: Trials
    interleaving: Interleaving
    skipped_windows_reason: str = ""

    def make_profile(
        self, axis: Axis, predicted: Int64, permuted: Int64, chance: float
    ) -> Profile:
        """Measure the accuracy of predictions [Q, N], also with the permuted labels [K,
        N].
        """
        # [k, Q, N] comparisons of a chunk at once
        chunks = np.array_split(
            permuted, 1 + permuted.size * len(predicted) // MAX_COMPARISONS
        )
        null = np.concatenate(
            [(chunk[:, None] == predicted).mean(2) for chunk in chunks]
        )
        hits = (predicted == self.stimuli).astype(np.float64)
        return Profile("accuracy", axis, hits, null, None, chance, self.n_stimuli)


def explain_trials(job: Job) -> Summary:
    """Decode categories from single windows of held-out trials.

    Raises:
        RecipeError: if signals are of voxels, which have no time.
    """
    # predictions for all subjects, and the trials that are permuted together
    spec, align = job.recipe, job.align
    subjects = [decode(job, subject) for subject in job.subjects]
    problem = next(
        filter(None, (decoded.interleaving.problem for decoded in subjects)), ""
    )
    protocol = f"{job.describe_protocol()}, shrinkage LDA of single windows"
    rows = (
        zip(each.names, each.groups, each.interleaving.blocks, strict=True)
        for each in subjects
    )
    # trials are grouped by run, session or block, and not by what they show
    alike = make_grouping(align.dataset, (), ())
    alike = align.dataset.holdout.add_fold_groups(
        alike, chain.from_iterable(rows), align.folds
    )
    items = alike.make_items([decoded.names for decoded in subjects])

    # by time, where the tested window is the one that was trained on; every window with
    # every classifier
    axis = subjects[0].axis
    chance = compute_majority_accuracy([decoded.stimuli for decoded in subjects])
    windows = [axis.describe_position(index) for index in range(len(axis.at))]
    pairs = Axis(
        "windows",
        [f"trained {one}, tested {other}" for one, other in product(windows, windows)],
    )
    # without exchangeable labels there is no test
    draws = 0 if problem else spec.draws
    parts = []
    for decoded in subjects:
        # labels are permuted within what was interleaved; not at all where time says
        # the same
        permuted = permute_stimuli(
            decoded.stimuli, decoded.interleaving, draws, spec.seed
        )
        part = SubjectProfiles()
        predicted = decoded.predictions
        diagonal = np.ascontiguousarray(predicted.diagonal().T)
        part.profiles[DECODING] = decoded.make_profile(axis, diagonal, permuted, chance)
        if draws and GENERALISATION in (
            (TRIAL_ANALYSES.keys() & spec.analyses) or TRIAL_ANALYSES
        ):
            grid = predicted.reshape(len(pairs.at), -1)
            part.profiles[GENERALISATION] = decoded.make_profile(
                pairs, grid, permuted, chance
            )
        parts.append([part])
    by_time, *grids = correct_findings(
        describe_profiles(parts, items, protocol=protocol, split=spec.split)
    )
    facts: dict[str, Any] = {"protocol": protocol, "draws": draws}
    facts["warnings"] = align.signal_warnings
    scopes = Scopes()
    drawn = Figures()

    # the best pair of windows, and a matrix of all
    for finding in grids:
        assert finding.p_values is not None
        peak = int(finding.values.argmax())
        shape = (len(windows), len(windows))
        scopes[scope(GENERALISATION, pairs.at[peak])] = {
            finding.metric: finding.metrics[peak]
        }
        facts["generalisation"] = finding.p_values.reshape(shape).tolist()  # [P, P]
        shares = {
            "chance": chance,
            "count": (finding.p_values < SIGNIFICANCE_LEVEL).sum(),
            "pairs": len(pairs.at),
        }
        note = render("explanation.txt", analysis=GENERALISATION, **shares)
        centres = [f"{centre_ms:.0f}" for centre_ms in axis.at]
        matrix = Heatmap(
            "Categories from time to time",
            finding.values.reshape(shape).tolist(),
            rows=centres,
            columns=centres,
            row_axis="classifier trained at, ms",
            column_axis="tested at, ms",
            value="accuracy",
            section=SECTION,
            note=note,
        )
        drawn.append(matrix)
    missing = {"test against permuted labels": problem} if problem else {}
    if left_out := next(
        filter(None, (decoded.skipped_windows_reason for decoded in subjects)), ""
    ):
        missing["times of overlapping windows"] = left_out
    # recordings say which filters, marks and sensors figures have
    signals = [decoded.trials for decoded in subjects]
    return summarise_findings(
        job, [by_time], signals, items, missing, drawn, facts, scopes
    )


def check_folds(job: Job) -> None:
    """Refuse signals that are not of windows, or do not fit the model of a fold."""
    for subject, cells in job.subjects.items():
        for cell in cells:
            member = TrainedModel(job.align, cell)
            if not member.source.build_path(subject).is_file():
                continue
            train, _ = (
                member.trials(subject, name, is_tested=False, is_normalised=False)
                for name in ("train", job.recipe.split)
            )
            list_windows(job, train)


def list_windows(job: Job, trials: Trials) -> tuple[Axis, list[torch.Tensor]]:
    """List the windows of a subject's trials; see `window_masks`.

    Raises:
        RecipeError: if the signals have no time.
    """
    # betas of fMRI have one value for each trial
    if len(trials.times_s) < 2:
        raise RecipeError(
            "decoding by time is of EEG and MEG, and the signals have one sample",
            "eval-retrieval",
        )
    return list_window_masks(trials.times_s * 1000, job.recipe.window)


def permute_stimuli(shown: Int64, order: Interleaving, draws: int, seed: int) -> Int64:
    """Permute the labels of trials [N] within parts, those of a block together: [K,
    N].
    """
    # one label for each block, that of its first trial
    _, first, block = np.unique(
        np.array(order.blocks), return_index=True, return_inverse=True
    )
    number = {name: row for row, name in enumerate(dict.fromkeys(order.parts))}
    part = np.array([number[name] for name in order.parts])[first]  # [blocks]
    # [K, blocks]
    random = np.random.default_rng(seed)
    labels = np.tile(shown[first], (draws, 1))
    # blocks trade labels with others of their part alone
    for row in number.values():
        members = np.flatnonzero(part == row)
        labels[:, members] = random.permuted(labels[:, members], axis=1)
    return labels[:, block]


def compute_majority_accuracy(shown: Sequence[Int64]) -> float:
    """Return the accuracy of always naming the most frequent stimulus, mean over
    subjects with trials [N].
    """
    return float(
        np.mean([np.bincount(stimuli).max() / len(stimuli) for stimuli in shown])
    )


def decode(job: Job, subject: int) -> DecodedTrials:
    """Fit a classifier to each window of the training trials of each fold, and test it
    on all windows.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    split = job.recipe.split
    cpu = torch.device("cpu")
    # seeds share the trials
    folds = {cell.fold: cell for cell in reversed(job.subjects[subject])}
    names = []
    groups = []
    shown = []
    predicted = []
    orders = []
    left_out = ""
    for fold, cell in sorted(folds.items()):
        member = TrainedModel(job.align, cell, cpu)
        train, test = (
            member.trials(subject, name, is_tested=False) for name in ("train", split)
        )
        # windows, and the mean signals [N, C] of training and held-out trials in each
        axis, masks = list_windows(job, train)
        interleaving = member.interleaving(test, split)
        overlap = member.find_overlap(test, split) if interleaving.repeats else None
        if overlap is not None:
            # responses to other labels, which tell this one, are left out
            free = torch.from_numpy(overlap.find_free(train.times_s))
            rows = [row for row, mask in enumerate(masks) if not (mask & ~free).any()]
            if not rows:
                raise BrainhiveError(overlap.problem, "a longer time between trials")
            at, spans = [axis.at[row] for row in rows], index_optional(axis.spans, rows)
            axis, masks = (
                replace(axis, at=at, spans=spans),
                [masks[row] for row in rows],
            )
            left_out = overlap.problem
        learned, tested = (
            [
                part.averages[:, :, mask.numpy()].mean(2).astype(np.float64)
                for mask in masks
            ]
            for part in (train, test)
        )

        # predictions [P, P, N] of the classifier of every window at every window
        tests = np.concatenate(tested)  # [P N, C]
        with console.progress(
            f"decoding windows of subject {subject}, fold {fold}", len(learned)
        ) as bar:
            rows = []
            for values in learned:
                shrinkage_lda = LinearDiscriminantAnalysis(
                    solver="lsqr", shrinkage="auto"
                )
                classifier = make_pipeline(StandardScaler(), shrinkage_lda).fit(
                    values, train.stimulus
                )
                rows.append(classifier.predict(tests).reshape(len(masks), -1))
                bar.advance()
        predicted.append(np.stack(rows))
        shown.append(test.stimulus)
        fold_names, fold_groups = member.name_trials(subject, split)
        names += fold_names
        groups += fold_groups
        orders.append(interleaving)
    return DecodedTrials(
        names,
        groups,
        np.concatenate(shown),
        np.concatenate(predicted, 2),
        axis,
        len(member.rows(split)),
        member.trials(subject, split, is_tested=False),
        Interleaving.join(orders),
        left_out,
    )
