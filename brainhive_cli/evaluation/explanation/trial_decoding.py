"""Classical views of held-out trials of EEG and MEG: category decoding by time, and from time to time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files import portable
from brainhive_cli.core.measurements import Measurements, Metric, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.signals.selection import inside, window_starts
from brainhive_cli.evaluation.explanation.conclusion import FIGURES, curves
from brainhive_cli.evaluation.explanation.findings import (
    SECTION,
    SHUFFLED,
    SIGNIFICANT,
    Finding,
    overall,
    permuted_metrics,
    summary_table,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.profiles import Axis, PermutationTest
from brainhive_cli.evaluation.explanation.recipe import OF_TRIALS
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import FOLD_NULL_INFLATION
from brainhive_cli.reports.drawings import save_figure
from brainhive_cli.training.alignment.trained_cell import TrainedCell

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
        spans: [P, 2] windows in milliseconds.
        candidates: How many stimuli are distinguished.
    """

    names: list[str]
    groups: list[str]
    shown: NDArray[np.int64]
    predicted: NDArray[np.int64]
    spans: NDArray[np.float64]
    candidates: int

    def permute(self, draws: int, seed: int) -> NDArray[np.int64]:
        """Permute labels within runs, sessions or folds: [K, N]."""
        random, permuted = np.random.default_rng(seed), np.tile(self.shown, (draws, 1))
        groups = np.asarray(self.groups)
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            permuted[:, members] = random.permuted(permuted[:, members], axis=1)
        return permuted


def explain_trials(job: Job, folder: RunFolder) -> Measurements:
    """Decode categories from single windows of held-out trials, and write what pages show.

    Raises:
        RecipeError: if signals are of voxels, which have no time.
    """
    # accuracies of all subjects, and the trials that are permuted together
    spec, align = job.spec, job.align
    decoded = {subject: decode(job, subject) for subject in job.subjects}
    first, groups = next(iter(decoded.values())), [*decoded.values()]
    protocol, holdout = f"{job.describe_protocol()}, shrinkage LDA of single windows", align.dataset.holdout
    assert holdout is not None
    pairs = [pair for one in groups for pair in zip(one.names, one.groups, strict=True)]
    alike = replace(alike_of(align.dataset, (), ()), group_of=dict(pairs), groups=holdout.by)
    alike = replace(alike, has_folds=len(align.folds) > 1)
    items = alike.items([one.names for one in groups])
    permuted = [one.permute(spec.draws, spec.seed) for one in groups]
    options: dict[str, Any] = {
        "protocol": protocol,
        "split": spec.split,
        "items": items,
        "pool": first.candidates,
        "chance": 1 / first.candidates,
        "limits": (0.0, 1.0),
    }

    # by time: the window that is tested is the one that was trained on
    axis, count = Axis.of_windows(first.spans), len(first.spans)
    diagonal = np.arange(count)
    finding, grid = _describe(DECODING, axis, groups, permuted, (diagonal, diagonal), options), None
    drawn: dict[str, Any] = dict(curves([finding], {}))
    scopes = overall([finding]) | finding.scopes
    notes: dict[str, Any] = {"profiles": [finding.note]}

    # from time to time: every window with every classifier
    if GENERALISATION in (spec.analyses_of(OF_TRIALS) or OF_TRIALS):
        train, test = (places.ravel() for places in np.meshgrid(diagonal, diagonal, indexing="ij"))
        grid = _describe(GENERALISATION, axis, groups, permuted, (train, test), options)
        assert grid.test is not None
        peak = grid.peak
        place = f"trained {axis.where(int(train[peak]))}, tested {axis.where(int(test[peak]))}"
        scopes[scope(GENERALISATION, place)] = {ACCURACY: grid.measured[peak]}
        is_above = grid.test.corrected < SIGNIFICANT
        notes["generalisation"] = {"p_corrected": grid.test.corrected.reshape(count, count).tolist()}
        drawn["generalisation"] = _draw_grid(grid.measured, axis, is_above, spec.draws)
    for name, artifact in drawn.items() if spec.figures else ():
        for suffix in spec.figures:
            folder.replace(f"{FIGURES}/{name}.{suffix}", partial(save_figure, artifact))

    # the page's artifacts, and notes
    about = f"; for {items.scope}" if items.scope else ""
    table = summary_table([finding], f"Categories by time: {protocol}, {spec.split}{about}")
    artifacts.write(folder, [table, *drawn.values()])
    notes |= {
        "run": portable(str(align.folder.path)),
        "runs": [align.name],
        "dataset": align.dataset.name,
        "mode": align.mode,
        "protocol": protocol,
        "caveats": align.caveats(spec.split),
        "warnings": align.signal_warnings,
        "draws": spec.draws,
        "scope": items.scope,
        SET_UP: align.set_up(spec.split),
        "units": items.kind,
        "unit_count": items.count,
    }
    return Measurements(scopes, {}, notes)


@console.progress("decoding windows")
def decode(job: Job, subject: int) -> Decoded:
    """Fit a classifier to each window of the training trials of each fold, and test it on all windows."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    split, device = job.spec.split, torch.device("cpu")
    folds = {cell.fold: cell for cell in reversed(job.subjects[subject])}  # seeds share the trials
    names: list[str] = []
    groups: list[str] = []
    shown, predicted, spans, candidates = [], [], np.empty((0, 2)), 0
    for _, cell in sorted(folds.items()):
        member = TrainedCell.load(job.align, cell, device)
        train, test = (member.responses(subject, name, is_tested=False) for name in ("train", split))
        if train.times_s is None or len(train.times_s) < 2:
            raise RecipeError(
                "decoding by time is of EEG and MEG, and the signals have one sample", "eval-retrieval"
            )
        candidates = len(member.rows(split))
        spans, windows = _cut(np.asarray(train.times_s) * 1000, job)
        features = [[_average(part.signal, window) for window in windows] for part in (train, test)]
        tested = np.empty((len(windows), len(windows), len(test.stimulus)), np.int64)
        for place, values in enumerate(features[0]):
            mean, spread = values.mean(0), values.std(0) + 1e-12
            classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            classifier.fit((values - mean) / spread, train.stimulus)
            for other, held_out in enumerate(features[1]):
                tested[place, other] = classifier.predict((held_out - mean) / spread)
        predicted.append(tested)
        shown.append(test.stimulus)
        fold_names, fold_groups = member.name_trials(subject, split)
        names += fold_names
        groups += fold_groups
    return Decoded(names, groups, np.concatenate(shown), np.concatenate(predicted, 2), spans, candidates)


def _cut(times_ms: NDArray[np.float64], job: Job) -> tuple[NDArray[np.float64], list[NDArray[np.bool_]]]:
    """Cut the signal into windows: from where to where [P, 2], and which samples lie in each [T]."""
    width, step = job.spec.window.width_ms, job.spec.window.step_ms
    starts = [*window_starts(times_ms, width, step)]
    return np.array([(start, start + width) for start in starts]), [
        inside(times_ms, s, width) for s in starts
    ]


def _average(signal: Any, is_inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average the samples of a window: [N, C]."""
    return np.asarray(np.asarray(signal)[:, :, is_inside].mean(2), np.float64)


def _describe(
    name: str,
    axis: Axis,
    subjects: Sequence[Decoded],
    permuted: Sequence[NDArray[np.int64]],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    options: Mapping[str, Any],
) -> Finding:
    """Measure the accuracy at pairs of windows, against labels that are permuted; p is corrected over all."""
    chosen = [one.predicted[places] for one in subjects]  # [Q, N]
    hits = [predicted == one.shown for predicted, one in zip(chosen, subjects, strict=True)]
    values = [hit.astype(np.float64) for hit in hits]
    measured = measure_each(ACCURACY, values, is_share=True, **options)
    pairs = zip(chosen, permuted, strict=True)
    null = np.mean([_share_right(predicted, labels) for predicted, labels in pairs], axis=0)  # [K, Q]
    if options["items"].inflation > 1:  # as of a verdict over folds
        null = null.mean(0) + FOLD_NULL_INFLATION**0.5 * (null - null.mean(0))
    test = PermutationTest.of(np.array([metric.value for metric in measured]), null)
    return Finding(name, axis, measured, {SHUFFLED: permuted_metrics(measured, null)}, test)


def _share_right(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compare predictions [Q, N] with permuted labels [K, N]: the share that is right, [K, Q]."""

    def blocks() -> Iterator[NDArray[np.float64]]:
        step = max(1, AT_ONCE // predicted.size)
        for start in range(0, len(labels), step):
            part = labels[start : start + step, None] == predicted
            yield part.mean(2)

    return np.concatenate([*blocks()])


def _draw_grid(measured: Sequence[Metric], axis: Axis, is_above: NDArray[np.bool_], draws: int) -> Heatmap:
    """Draw the accuracy of every classifier at every time."""
    count = len(axis.labels)
    values = np.array([metric.value for metric in measured]).reshape(count, count)
    above = int(is_above.sum())
    note = (
        f"Chance {measured[0].chance:.3g}. Above it at {above} of {count**2} places: p < {SIGNIFICANT:g}, "
        f"corrected over all by the largest of {draws} permutations of the labels. Windows are named by "
        "their centres."
    )
    names = [f"{place:.0f}" for place in axis.at]
    words = ("classifier trained at, ms", "tested at, ms", "accuracy")
    return Heatmap(
        "Categories from time to time",
        values.round(4).tolist(),
        names,
        names,
        *words,
        section=SECTION,
        note=note,
    )


def count_folds(job: Job) -> int:
    """Count the folds of a run that holds out trials.

    Raises:
        BrainhiveError: with the way out.
    """
    holdout = job.align.dataset.holdout
    if holdout is not None and not holdout.shows_seen:
        raise BrainhiveError(
            f"explain reads one model a subject, and {job.align.name} has {len(job.align.folds)} folds of "
            "pictures",
            "a run whose test pictures lie in a folder test; or hold out trials, runs or sessions",
        )
    return len(job.align.folds)
