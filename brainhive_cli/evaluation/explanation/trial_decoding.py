"""Decoding of stimuli from windows of held-out EEG or MEG trials."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import SIGNIFICANCE_LEVEL
from brainhive_cli.core.jobs import Summary
from brainhive_cli.core.measurements import scope
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals.trials import Trials, index_optional
from brainhive_cli.evaluation.explanation.conclusion import Scopes, summarise_findings
from brainhive_cli.evaluation.explanation.figures import Figures
from brainhive_cli.evaluation.explanation.findings import (
    Finding,
    correct_findings,
    describe_profiles,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import list_window_masks
from brainhive_cli.evaluation.explanation.profiles import (
    SECTION,
    Axis,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import TRIAL_ANALYSES
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.reports.tables import render
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained.model import TrainedModel

DECODING, GENERALISATION = TRIAL_ANALYSES
MAX_COMPARISONS = 2**26
"""Largest number of comparisons of labels with predictions in memory."""


@dataclass(frozen=True)
class DecodedTrials:
    """Predictions for the held-out trials of a subject, over all folds.

    Attributes:
        names: Names [N] of the trials.
        groups: Run, session or fold [N] of each trial.
        stimuli: Row [N] of the stimulus that each trial showed.
        predictions: Predicted rows [P, P, N] of classifiers trained on window p and
            tested on window q.
        axis: P windows.
        n_stimuli: Number of distinguished stimuli.
        trials: Held-out trials.
        interleaving: Exchangeability of the labels.
        skipped_windows_reason: Reason why windows are left out, or "".
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
        self, axis: Axis, predictions: Int64, permuted_stimuli: Int64, chance: float
    ) -> Profile:
        """Make the profile of the accuracy, with permuted labels.

        Predictions are [Q, N] at Q positions, and permuted stimuli are [K, N].
        """
        n_comparisons = permuted_stimuli.size * len(predictions)
        n_chunks = 1 + n_comparisons // MAX_COMPARISONS
        accuracies = []
        for chunk in np.array_split(permuted_stimuli, n_chunks):
            accuracies.append((chunk[:, None] == predictions).mean(2))
        hits = (predictions == self.stimuli).astype(np.float64)
        return Profile(
            "accuracy",
            axis,
            values=hits,
            null=np.concatenate(accuracies),
            chance=chance,
            pool=self.n_stimuli,
        )


def explain_trials(job: Job) -> Summary:
    """Decode which stimulus was seen from single windows of held-out trials.

    Raises:
        RecipeError: if the signals have no time, as fMRI.
    """
    recipe = job.recipe
    align = job.align
    protocol = f"{job.describe_protocol()}, shrinkage LDA of single windows"
    subjects = list(map(partial(decode_trials, job), job.subjects))

    # results that are missing for a subject
    missing = {}
    problem = ""
    skipped_windows_reason = ""
    for decoded in subjects:
        problem = problem or decoded.interleaving.problem
        skipped_windows_reason = (
            skipped_windows_reason or decoded.skipped_windows_reason
        )
    if problem:
        missing["test against permuted labels"] = problem
    if skipped_windows_reason:
        missing["times of overlapping windows"] = skipped_windows_reason

    # trials are grouped by run, session or block, not by their stimuli
    trial_rows: list[tuple[str, str, Hashable]] = []
    names = []
    stimuli = []
    for decoded in subjects:
        names.append(decoded.names)
        stimuli.append(decoded.stimuli)
        blocks = decoded.interleaving.blocks
        trial_rows.extend(zip(decoded.names, decoded.groups, blocks, strict=True))
    grouping = align.dataset.holdout.add_fold_groups(
        make_grouping(align.dataset, (), ()), trial_rows, align.folds
    )
    items = grouping.make_items(names)

    # windows, and pairs of a training window and a tested window
    axis = subjects[0].axis
    windows = list(map(axis.describe_position, range(len(axis.at))))
    pair_names = [
        f"trained {train_window}, tested {test_window}"
        for train_window, test_window in product(windows, windows)
    ]
    pairs = Axis("windows", pair_names)

    # labels that time reveals are not permuted, so there is no test
    n_draws = 0 if problem else recipe.draws
    requested_analyses = (TRIAL_ANALYSES.keys() & recipe.analyses) or TRIAL_ANALYSES
    has_generalisation = n_draws > 0 and GENERALISATION in requested_analyses
    chance = compute_majority_accuracy(stimuli)
    groups = []
    for decoded in subjects:
        permuted_stimuli = permute_stimuli(
            decoded.stimuli, decoded.interleaving, n_draws, recipe.seed
        )
        profiles = SubjectProfiles()
        same_window = np.ascontiguousarray(decoded.predictions.diagonal().T)
        profiles.profiles[DECODING] = decoded.make_profile(
            axis, same_window, permuted_stimuli, chance
        )
        if has_generalisation:
            all_pairs = decoded.predictions.reshape(len(pair_names), -1)
            profiles.profiles[GENERALISATION] = decoded.make_profile(
                pairs, all_pairs, permuted_stimuli, chance
            )
        groups.append([profiles])

    findings = correct_findings(
        describe_profiles(groups, items, protocol=protocol, split=recipe.split)
    )
    facts: dict[str, Any] = {
        "protocol": protocol,
        "draws": n_draws,
        "warnings": align.signal_warnings,
    }
    scopes = Scopes()
    figures = Figures()
    for finding in findings[1:]:
        # only the best pair of windows is a metric, a figure has all pairs
        assert finding.p_values is not None
        peak = int(finding.values.argmax())
        peak_scope = scope(GENERALISATION, pair_names[peak])
        scopes[peak_scope] = {finding.metric: finding.metrics[peak]}
        p_values = finding.p_values.reshape(len(windows), len(windows))
        facts["generalisation"] = p_values.tolist()
        figures.append(_draw_generalisation(finding, axis, chance))
    return summarise_findings(
        job,
        findings[:1],
        [decoded.trials for decoded in subjects],
        items,
        missing,
        figures,
        facts,
        scopes,
    )


def _draw_generalisation(finding: Finding, windows: Axis, chance: float) -> Heatmap:
    """Draw the accuracy by training window (rows) and tested window (columns)."""
    assert finding.p_values is not None
    note = render(
        "explanation.txt",
        analysis=GENERALISATION,
        chance=chance,
        count=(finding.p_values < SIGNIFICANCE_LEVEL).sum(),
        pairs=len(finding.axis.at),
    )
    centres = [f"{centre_ms:.0f}" for centre_ms in windows.at]
    return Heatmap(
        "Categories from time to time",
        finding.values.reshape(len(centres), len(centres)).tolist(),
        rows=centres,
        columns=centres,
        row_axis="classifier trained at, ms",
        column_axis="tested at, ms",
        value="accuracy",
        section=SECTION,
        note=note,
    )


def check_folds(job: Job) -> None:
    """Raise an error if signals have no windows, or do not fit the model of a fold.

    Subjects whose signals are not prepared yet are skipped.
    """
    for subject, cells in job.subjects.items():
        for cell in cells:
            member = TrainedModel(job.align, cell)
            if not member.recordings.build_path(subject).is_file():
                continue
            open_trials = partial(
                member.open_trials, subject, is_tested=False, is_normalised=False
            )
            train_trials = open_trials("train")
            open_trials(job.recipe.split)
            list_windows(job, train_trials)


def list_windows(job: Job, trials: Trials) -> tuple[Axis, list[torch.Tensor]]:
    """List the windows of trials, and the samples of each as a mask [T].

    Raises:
        RecipeError: if the signals have no time, or are shorter than a window.
    """
    # responses of fMRI have a single value for each trial
    if len(trials.times_s) < 2:
        raise RecipeError(
            "decoding by time needs EEG or MEG, but the signals have a single sample",
            "use eval-retrieval",
        )
    return list_window_masks(trials.times_s * 1000, job.recipe.window)


def permute_stimuli(
    stimuli: Int64, interleaving: Interleaving, draws: int, seed: int
) -> Int64:
    """Permute the labels of blocks of trials within parts of the recording.

    Args:
        stimuli: Label [N] of each trial.
        interleaving: Part and block of each trial.
        draws: Number K of permutations.
        seed: Seed of the permutations.

    Returns:
        Labels [K, N]. A block has a single label, taken from its first trial.
    """
    # first trial of each block, and number of the block of each trial
    _, first_trials, block_of_trial = np.unique(
        np.array(interleaving.blocks), return_index=True, return_inverse=True
    )
    part_numbers = {}
    for number, name in enumerate(dict.fromkeys(interleaving.parts)):
        part_numbers[name] = number
    part_of_trial = np.array([part_numbers[name] for name in interleaving.parts])
    part_of_block = part_of_trial[first_trials]

    rng = np.random.default_rng(seed)
    labels = np.tile(stimuli[first_trials], (draws, 1))  # [K, blocks]
    for part in part_numbers.values():
        blocks = np.flatnonzero(part_of_block == part)
        labels[:, blocks] = rng.permuted(labels[:, blocks], axis=1)
    return labels[:, block_of_trial]


def compute_majority_accuracy(stimuli: Sequence[Int64]) -> float:
    """Compute the mean accuracy of naming the most frequent stimulus of each subject.

    Args:
        stimuli: Row [N] of the stimulus of each trial, by subject.
    """
    accuracies = [np.bincount(rows).max() / len(rows) for rows in stimuli]
    return float(np.mean(accuracies))


def decode_trials(job: Job, subject: int) -> DecodedTrials:
    """Train classifiers on each window of each fold, and test them on all windows.

    Raises:
        BrainhiveError: if responses to other labels overlap with every window.
        RecipeError: if the signals have no time.
    """
    split = job.recipe.split
    # seeds share the trials, so the first cell of each fold is enough
    cell_of_fold: dict[int, Cell] = {}
    for cell in job.subjects[subject]:
        cell_of_fold.setdefault(cell.fold, cell)

    names = []
    groups = []
    stimuli = []
    predictions = []
    interleavings = []
    skipped_windows_reason = ""
    for fold, cell in sorted(cell_of_fold.items()):
        member = TrainedModel(job.align, cell, torch.device("cpu"))
        train_trials = member.open_trials(subject, "train", is_tested=False)
        test_trials = member.open_trials(subject, split, is_tested=False)
        axis, masks = list_windows(job, train_trials)

        # leave out windows with responses to predictable other labels
        interleaving = member.find_interleaving(test_trials, split)
        overlap = None
        if interleaving.repeats:
            overlap = member.find_overlap(test_trials, split)
        if overlap is not None:
            is_free = torch.from_numpy(overlap.find_free(train_trials.times_s))
            rows = []
            centres_ms = []
            free_masks = []
            for row, mask in enumerate(masks):
                if not (mask & ~is_free).any():
                    rows.append(row)
                    centres_ms.append(axis.at[row])
                    free_masks.append(mask)
            if not rows:
                raise BrainhiveError(overlap.problem, "leave more time between trials")
            axis = replace(axis, at=centres_ms, spans=index_optional(axis.spans, rows))
            masks = free_masks
            skipped_windows_reason = overlap.problem

        with console.progress(
            f"decoding windows of subject {subject}, fold {fold}", len(masks)
        ) as bar:
            fold_predictions = []
            test_features = map(partial(_average_window, test_trials), masks)
            all_test_features = np.concatenate(list(test_features))  # [P N, C]
            for mask in masks:
                classifier = _fit_classifier(
                    _average_window(train_trials, mask), train_trials.stimulus
                )
                predicted_rows = classifier.predict(all_test_features)
                fold_predictions.append(predicted_rows.reshape(len(masks), -1))
                bar.advance()
        predictions.append(np.stack(fold_predictions))  # [P, P, N]

        stimuli.append(test_trials.stimulus)
        fold_names, fold_groups = member.name_trials(subject, split)
        names += fold_names
        groups += fold_groups
        interleavings.append(interleaving)
    return DecodedTrials(
        names=names,
        groups=groups,
        stimuli=np.concatenate(stimuli),
        predictions=np.concatenate(predictions, 2),
        axis=axis,
        n_stimuli=len(member.find_rows(split)),
        trials=member.open_trials(subject, split, is_tested=False),
        interleaving=Interleaving.join(interleavings),
        skipped_windows_reason=skipped_windows_reason,
    )


def _average_window(trials: Trials, mask: torch.Tensor) -> Float64:
    """Average the signals [N, C, T] over the samples [T] of a window: [N, C]."""
    return trials.averages[:, :, mask.numpy()].mean(2).astype(np.float64)


def _fit_classifier(signals: Float64, stimuli: Int64) -> Any:
    """Fit a shrinkage LDA to standardised signals [n, C] with their stimuli [n]."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    shrinkage_lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return make_pipeline(StandardScaler(), shrinkage_lda).fit(signals, stimuli)
