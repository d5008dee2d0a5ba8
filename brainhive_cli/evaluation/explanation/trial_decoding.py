"""Classical views of held-out trials of EEG and MEG: category decoding by time, and from time to time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.measurements import NOT_INTERLEAVED, Measurements, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.conclusion import curves, describe_job, write_artifacts
from brainhive_cli.evaluation.explanation.findings import (
    FIRST_ABOVE,
    SECTION,
    Finding,
    bound_onsets,
    compare_permutations,
    correct_findings,
    overall,
    state_claims,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import window_masks
from brainhive_cli.evaluation.explanation.profiles import SIGNIFICANT, Axis
from brainhive_cli.evaluation.explanation.recipe import OF_TRIALS
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import fold_null_inflation
from brainhive_cli.training.alignment.trained import TrainedModel

DECODING, GENERALISATION = OF_TRIALS
ACCURACY = "accuracy"
AT_ONCE = 2**26
"""Comparisons of labels with predictions at once, to bound memory."""


@dataclass(frozen=True)
class Decoded:
    """Predictions of one subject's classifiers for held-out trials, all folds together.

    Attributes:
        names: [N] of the trials.
        groups: [N] run, session or fold of each.
        shown: [N] row of the stimulus that each shows.
        predicted: [P, P, N] rows that a classifier of training time p names at test time q.
        axis: The P windows.
        candidates: How many stimuli are distinguished.
        trials: Those that are held out.
        order: Which labels may be exchanged.
    """

    names: list[str]
    groups: list[str]
    shown: Int64
    predicted: Int64
    axis: Axis
    candidates: int
    trials: Trials
    order: Interleaving


def explain_trials(job: Job, folder: RunFolder) -> Measurements:
    """Decode categories from single windows of held-out trials, and write what pages show.

    Raises:
        RecipeError: if signals are of voxels, which have no time.
    """
    # predictions for all subjects, and the trials that are permuted together
    spec, align = job.spec, job.align
    subjects = []
    with console.progress("decoding subjects", len(job.subjects)) as bar:
        for subject in job.subjects:
            subjects.append(decode(job, subject))
            bar.advance()
    first = subjects[0]
    problem = next(filter(None, (decoded.order.problem for decoded in subjects)), "")
    caveats = [NOT_INTERLEAVED] if any(decoded.order.follows_time for decoded in subjects) else []
    protocol = f"{job.describe_protocol(caveats)}, shrinkage LDA of single windows"
    rows = (zip(each.names, each.groups, each.order.blocks, strict=True) for each in subjects)
    alike = alike_of(align.dataset, (), ())
    alike = align.dataset.holdout.group_alike(alike, chain.from_iterable(rows), align.folds)
    items = alike.items([decoded.names for decoded in subjects])

    # labels [K, N] of each subject, permuted within what was interleaved; none where time says the same
    draws = 0 if problem else spec.draws
    permuted = [permute_blocks(decoded.shown, decoded.order, draws, spec.seed) for decoded in subjects]
    options = {
        "protocol": protocol,
        "split": spec.split,
        "items": items,
        "pool": first.candidates,
        "chance": guess_most_frequent([decoded.shown for decoded in subjects]),
        "limits": (0.0, 1.0),
    }

    # by time: the window that is tested is the one that was trained on
    axis, count = first.axis, len(first.axis.at)
    diagonal = np.arange(count)
    findings = [_describe(DECODING, axis, subjects, permuted, (diagonal, diagonal), options)]
    if has_grid := not problem and GENERALISATION in (spec.analyses_of(OF_TRIALS) or OF_TRIALS):
        train, test = (indices.ravel() for indices in np.meshgrid(diagonal, diagonal, indexing="ij"))
        findings.append(_describe(GENERALISATION, axis, subjects, permuted, (train, test), options))
    findings = correct_findings(findings)
    (finding,), reason = bound_onsets(findings[:1], [decoded.trials for decoded in subjects])
    missing = {FIRST_ABOVE: reason} if reason else {}
    missing |= {"test against permuted labels": problem} if problem else {}
    drawn = dict(curves([finding], {}))
    scopes = overall([finding]) | finding.scopes
    generalisation: list[list[float]] = []

    # from time to time: every window with every classifier
    if has_grid:
        grid = findings[1]
        assert grid.corrected is not None
        peak = grid.peak
        windows = f"trained {axis.where(int(train[peak]))}, tested {axis.where(int(test[peak]))}"
        scopes[scope(GENERALISATION, windows)] = {ACCURACY: grid.measured[peak]}
        above = int((grid.corrected < SIGNIFICANT).sum())
        generalisation = grid.corrected.reshape(count, count).tolist()
        note = (
            f"Chance {grid.measured[0].chance:.3g}. Above it at {above} of {count**2} places: p < "
            f"{SIGNIFICANT:g}, corrected over all by the largest of {spec.draws} permutations of the labels. "
            "Windows are named by their centres."
        )
        values = np.array([metric.value for metric in grid.measured]).reshape(count, count)
        centres = [f"{centre_ms:.0f}" for centre_ms in axis.at]
        drawn["generalisation"] = Heatmap(
            "Categories from time to time",
            values.round(4).tolist(),
            centres,
            centres,
            *("classifier trained at, ms", "tested at, ms", "accuracy"),
            section=SECTION,
            note=note,
        )

    # the page's artifacts, and the facts
    write_artifacts(
        folder, spec, [finding], drawn, missing, f"Categories by time: {protocol}, {spec.split}", items
    )
    said = f"Nothing is said of time courses: {problem}."
    if not problem:
        trials = f"{items.size} {spec.split} trials"
        said = state_claims([finding], "the category", len(subjects), trials, items.scope)
    facts = describe_job(job, protocol, caveats, items, [finding], said, draws)
    changes = {"warnings": align.signal_warnings, "generalisation": generalisation}
    return Measurements(scopes, missing, facts.model_copy(update=changes))


def permute_blocks(shown: Int64, order: Interleaving, draws: int, seed: int) -> Int64:
    """Permute the labels of trials [N] within parts, those of a block together: [K, N]."""
    _, first, block = np.unique(np.array(order.blocks), return_index=True, return_inverse=True)
    number = {name: row for row, name in enumerate(dict.fromkeys(order.parts))}
    part = np.array([number[name] for name in order.parts])[first]  # [blocks]
    random, labels = np.random.default_rng(seed), np.tile(shown[first], (draws, 1))  # [K, blocks]
    for row in number.values():
        members = np.flatnonzero(part == row)
        labels[:, members] = random.permuted(labels[:, members], axis=1)
    return labels[:, block]


def guess_most_frequent(shown: Sequence[Int64]) -> float:
    """Return the accuracy of always naming the most frequent stimulus, mean over subjects with trials [N]."""
    return float(np.mean([np.bincount(stimuli).max() / len(stimuli) for stimuli in shown]))


def decode(job: Job, subject: int) -> Decoded:
    """Fit a classifier to each window of the training trials of each fold, and test it on all windows."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    split, cpu = job.spec.split, torch.device("cpu")
    folds = {cell.fold: cell for cell in reversed(job.subjects[subject])}  # seeds share the trials
    names, groups, shown, predicted, orders = [], [], [], [], []
    for fold, cell in sorted(folds.items()):
        member = TrainedModel(job.align, cell, cpu)
        train, test = (member.trials(subject, name, is_tested=False) for name in ("train", split))
        if len(train.times_s) < 2:
            raise RecipeError(
                "decoding by time is of EEG and MEG, and the signals have one sample", "eval-retrieval"
            )

        # windows, and the mean signals [N, C] of training and held-out trials in each
        axis, masks = window_masks(train.times_s * 1000, job.spec.window)
        learned, tested = (
            [part.averages[:, :, mask.numpy()].mean(2).astype(np.float64) for mask in masks]
            for part in (train, test)
        )

        # predictions [P, P, N] of the classifier of every window at every window
        named = np.empty((len(masks), len(masks), len(test.stimulus)), np.int64)
        with console.progress(f"decoding windows of subject {subject}, fold {fold}", len(learned)) as bar:
            for row, values in enumerate(learned):
                mean, spread = values.mean(0), values.std(0) + 1e-12
                classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
                classifier.fit((values - mean) / spread, train.stimulus)
                for column, held_out in enumerate(tested):
                    named[row, column] = classifier.predict((held_out - mean) / spread)
                bar.advance()
        predicted.append(named)
        shown.append(test.stimulus)
        fold_names, fold_groups = member.name_trials(subject, split)
        names += fold_names
        groups += fold_groups
        orders.append(member.interleaving(test, split))
    trials, candidates = member.trials(subject, split, is_tested=False), len(member.rows(split))
    rows = np.concatenate(shown), np.concatenate(predicted, 2)
    return Decoded(names, groups, *rows, axis, candidates, trials, Interleaving.join(orders))


def _describe(
    name: str,
    axis: Axis,
    subjects: Sequence[Decoded],
    permuted: Sequence[Int64],
    windows: tuple[Int64, Int64],
    options: Mapping[str, Any],
) -> Finding:
    """Measure the accuracy at pairs of windows, against labels that are permuted; p is corrected over all."""
    predictions = [decoded.predicted[windows] for decoded in subjects]  # [Q, N] each
    hits = [predicted == decoded.shown for predicted, decoded in zip(predictions, subjects, strict=True)]
    measured = measure_each(ACCURACY, [hit.astype(np.float64) for hit in hits], is_share=True, **options)

    # accuracies [K, Q] with the permuted labels [K, N], in chunks of permutations
    if not len(permuted[0]):
        return Finding(name, axis, measured, {})
    shares = []
    for predicted, labels in zip(predictions, permuted, strict=True):
        chunks = torch.from_numpy(labels).split(max(1, AT_ONCE // predicted.size))
        shares.append(np.concatenate([(chunk.numpy()[:, None] == predicted).mean(2) for chunk in chunks]))
    null = np.mean(shares, 0)
    if options["items"].inflation > 1:  # as of a verdict over folds
        null = null.mean(0) + fold_null_inflation([null]) ** 0.5 * (null - null.mean(0))
    return compare_permutations(name, axis, measured, null)
