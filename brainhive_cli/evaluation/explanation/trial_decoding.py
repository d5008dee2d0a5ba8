"""Decoding of stimuli from windows of held-out EEG or MEG trials."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.base import Float64, Int64, RecipeError, console
from brainhive_cli.core.results import SIGNIFICANCE_LEVEL, scope
from brainhive_cli.core.runs import Heatmap, Summary
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals import Trials
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
from brainhive_cli.measurement import LabelDesign
from brainhive_cli.reports.templates import render
from brainhive_cli.training.alignment import Cell

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
        units: Unit [N] of each trial in the design of the study.
    """

    names: list[str]
    groups: list[str]
    stimuli: Int64
    predictions: Int64
    axis: Axis
    n_stimuli: int
    trials: Trials
    units: Int64

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
    study = job.tests.study
    assert study is not None  # trials of seen stimuli are no clips of a film
    subjects = [decode_trials(job, subject) for subject in job.subjects]
    missing = {}
    problem = study.design.problem
    if problem:
        missing["test against permuted labels"] = problem

    # trials are grouped by run, session or block, not by their stimuli
    trial_rows: list[tuple[str, str, Hashable]] = []
    names = []
    stimuli = []
    for decoded in subjects:
        names.append(decoded.names)
        stimuli.append(decoded.stimuli)
        blocks = decoded.units.tolist()
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

    # labels that the design tells are not permuted, so there is no test
    n_draws = 0 if problem else recipe.draws
    requested_analyses = (TRIAL_ANALYSES.keys() & recipe.analyses) or TRIAL_ANALYSES
    has_generalisation = n_draws > 0 and GENERALISATION in requested_analyses
    chance = compute_majority_accuracy(stimuli)
    groups = []
    for decoded in subjects:
        permuted_stimuli = permute_stimuli(
            decoded.stimuli, decoded.units, study.design, n_draws, recipe.seed
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
        describe_profiles(
            groups,
            items,
            protocol=protocol,
            split=recipe.split,
            caveats=job.tests.caveats,
        )
    )
    facts: dict[str, Any] = {
        "protocol": protocol,
        "draws": n_draws,
        "warnings": job.tests.signal_warnings,
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
            person = job.tests.open_person(job.align.open(cell), subject)
            if person.is_prepared:
                person.read(job.recipe.split)
                list_windows(job, person.read("train"))


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
    stimuli: Int64, units: Int64, design: LabelDesign, draws: int, seed: int
) -> Int64:
    """Permute the labels of units, which are trials or series of trials.

    Args:
        stimuli: Label [N] of each trial.
        units: Unit [N] of each trial.
        design: Odds of the labels of the units.
        draws: Largest number K of permutations.
        seed: Seed of the permutations.

    Returns:
        Labels [K, N].
    """
    if not draws:
        return np.empty((0, len(stimuli)), np.int64)
    used_units, first_trials, row = np.unique(
        units, return_index=True, return_inverse=True
    )
    orders = design.take(used_units).draw_orders(draws, seed)
    labels: Int64 = stimuli[first_trials][orders][:, row]
    return labels


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
        RecipeError: if the signals have no time.
    """
    # seeds share the trials, so the first cell of each fold is enough
    cell_of_fold: dict[int, Cell] = {}
    for cell in job.subjects[subject]:
        cell_of_fold.setdefault(cell.fold, cell)

    names = []
    groups = []
    stimuli = []
    predictions = []
    units = []
    for fold, cell in sorted(cell_of_fold.items()):
        person = job.tests.open_person(job.align.open(cell), subject)
        train_trials = person.train_trials
        test_trials = person.all_trials
        axis, masks = list_windows(job, train_trials)

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
        fold_names, fold_groups = person.name_trials()
        names += fold_names
        groups += fold_groups
        units.append(job.tests.find_units(test_trials))
    return DecodedTrials(
        names=names,
        groups=groups,
        stimuli=np.concatenate(stimuli),
        predictions=np.concatenate(predictions, 2),
        axis=axis,
        n_stimuli=len(job.tests.find_rows(job.recipe.split, fold)),
        trials=test_trials,
        units=np.concatenate(units),
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
