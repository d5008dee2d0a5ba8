"""Measurements of all cells and subjects together, as metrics, each next to its control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.measurements import ALL, Metric, scope
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.explanation.encoding_model import CORRELATION, UNIQUE
from brainhive_cli.evaluation.explanation.profiles import (
    TIME,
    Axis,
    PermutationTest,
    Profile,
    SubjectProfiles,
    analysis_of,
)
from brainhive_cli.evaluation.explanation.similarity import Course
from brainhive_cli.measurement.metric_names import AT_PEAK, shown
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items

SHUFFLED, TRAINED = "shuffled labels", "trained on shuffled labels"
"""Last part of the scope of a control: labels permuted; a model, or a level, of shuffled labels."""
SECTION = "Explanation"
"""The heading under which a page shows all of it."""
SIMILARITY, RHO, UNIQUE_RHO = "similarity", "rho", "unique_rho"
CORRELATIONS = {CORRELATION: (-1.0, 1.0), UNIQUE: (-2.0, 2.0)}
"""Least and largest value of metrics, where there are."""
TIMES = 64
"""Times of a course whose metrics are listed; its artifact has all."""
FIRST_ABOVE = "first above chance"
"""Name, in tables and figures, of the first time that is above chance."""
SIGNIFICANT, LEAST_P = 0.05, 0.0005
"""Level of the tests; a smaller p than the second would be printed as 0.000."""
ENDS = (2.5, 97.5)
"""Percentiles between which the middle 95 % of the control lie."""
Groups = Sequence[Sequence[SubjectProfiles]]
"""Measurements by subject, of its cells."""


@dataclass(frozen=True)
class Finding:
    """One analysis of all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        axis: The places.
        measured: [P].
        controls: [P] by the name of the control.
        test: Against permuted labels; None where labels were not permuted.
    """

    name: str
    axis: Axis
    measured: list[Metric]
    controls: Mapping[str, list[Metric]]
    test: PermutationTest | None = None

    @property
    def metric(self) -> str:
        """Name of what was measured."""
        return self.measured[0].name

    @property
    def peak(self) -> int:
        """The place with the largest value."""
        return int(np.argmax([metric.value for metric in self.measured]))

    @property
    def first_above_chance(self) -> int | None:
        """The first of two places in a row, on an axis of time, that are above the control of all places.

        What a window carries may begin anywhere in it: its centre may lie before the effect.
        """
        if self.test is None or self.axis.name != TIME:
            return None
        above = self.test.corrected < SIGNIFICANT
        first = np.flatnonzero(above[:-1] & above[1:])
        return int(first[0]) if len(first) else None

    @property
    def p_at_peak(self) -> str:
        """p of the strongest place, corrected for all, as every table prints it."""
        if self.test is None:
            return "–"
        p = float(self.test.corrected[self.peak])
        return f"{p:.3f}" if p >= LEAST_P else f"{p:.0e}"

    @property
    def scopes(self) -> dict[str, dict[str, Metric]]:
        """The metrics by scope and name; of a course, at most so many times as `TIMES`, and the strongest."""
        scopes: dict[str, dict[str, Metric]] = {}
        step = -(-len(self.measured) // TIMES) if self.axis.name == TIME else 1
        for number, place in enumerate(self.axis.labels):
            if number % step == 0 or number == self.peak:
                for control, metrics in {"": self.measured, **self.controls}.items():
                    scopes[scope(self.name, place, control)] = {self.metric: metrics[number]}
        return scopes

    @property
    def note(self) -> dict[str, Any]:
        """Notes that a reader of the metrics needs, as plain values."""
        first, test, axis = self.first_above_chance, self.test, self.axis
        return {
            "name": self.name,
            "metric": self.metric,
            "axis": axis.name,
            "at": list(axis.at),
            "windows_ms": None if axis.spans is None else axis.spans.tolist(),
            "peak": axis.labels[self.peak],
            "first_above_chance": None if first is None else axis.where(first),
            "p": None if test is None else test.p_values.tolist(),
            "p_corrected": None if test is None else test.corrected.tolist(),
        }


def overall(results: Sequence[Finding]) -> dict[str, dict[str, Metric]]:
    """Give the strongest place of the first analysis as what stands for all of them.

    It has neither interval nor chance: the place was chosen by the items that it is measured on.
    """
    if not results:
        return {}
    first = results[0]
    top, place = first.measured[first.peak], first.axis.labels[first.peak]
    name, protocol = f"{top.name}{AT_PEAK}", f"{top.protocol}, {first.name} at {place}"
    metric = replace(top, name=name, protocol=protocol, interval="none: the strongest of all places")
    metric = replace(metric, chance=None, low=None, high=None, these_subjects=None, people=None)
    return {ALL: {metric.name: metric}}


def describe_profiles(
    groups: Groups, pictures: Items, protocol: str, split: str, seeds: Sequence[int]
) -> list[Finding]:
    """Describe every profile over all subjects; places that not all have, as regions, are left out.

    Args:
        groups: What was measured.
        pictures: One list: those that all subjects were shown, and which of them are alike; no others count.
        protocol: Of the metrics.
        split: Whose signals were explained.
        seeds: Of the trainings.
    """
    parts = [part for group in groups for part in group]
    ids, described = [str(name) for name in pictures.ids[0]], []
    for name in parts[0].profiles:
        if all(name in part.profiles for part in parts):
            places = [part.profiles[name].axis.at for part in parts]
            at = [place for place in places[0] if all(place in some for some in places)]
            profiles = [
                [part.profiles[name].take(at, part.rows_of(ids)) for part in group] for group in groups
            ]
            options = {"protocol": protocol, "split": split, "items": for_all(pictures, len(groups))}
            described.append(_describe(analysis_of(name), profiles, seeds, options))
    return described


def _describe(
    name: str, groups: Sequence[Sequence[Profile]], seeds: Sequence[int], options: Mapping[str, Any]
) -> Finding:
    """Describe one profile of all cells, by subject; all have the same places and items."""
    first, profiles = groups[0][0], [profile for group in groups for profile in group]
    options = {"pool": first.pool or None, "chance": first.chance, **options}
    options["limits"] = (0.0, 1.0) if first.pool else CORRELATIONS.get(first.metric, (None, None))
    is_share = None if first.metric.startswith("top") else False
    values = [np.stack([profile.values for profile in group]) for group in groups]  # [S, P, N]
    measured = measure_each(first.metric, values, seeds=seeds, is_share=is_share, **options)
    test, controls = None, {}
    if all(len(profile.null) for profile in profiles):
        by_subject = [np.mean([profile.null for profile in group], axis=0) for group in groups]
        null = np.mean(by_subject, axis=0)  # [K, P]
        test = PermutationTest.of(np.array([metric.value for metric in measured]), null)
        controls[SHUFFLED] = permuted_metrics(measured, null)
    if all(profile.shuffled.size for profile in profiles):
        kind = TRAINED if test is not None or name.startswith("encoding") else SHUFFLED
        shuffled = [np.stack([profile.shuffled for profile in group]) for group in groups]
        options["protocol"] += f", {kind}"
        controls[kind] = measure_each(first.metric, shuffled, is_share=False, **options)
    return Finding(name, first.axis, measured, controls, test)


def for_all(pictures: Items, subjects: int) -> Items:
    """Give one list of pictures to so many subjects."""
    strata = None if pictures.strata is None else [*pictures.strata] * subjects
    return replace(
        pictures, ids=[*pictures.ids] * subjects, units=[*pictures.units] * subjects, strata=strata
    )


def permuted_metrics(measured: Sequence[Metric], null: NDArray[np.float64]) -> list[Metric]:
    """Describe a control of permuted labels, [K, P], next to what was measured at each place."""
    method = f"the middle 95 % of {len(null)} permutations of the labels"
    low, high = np.percentile(null, ENDS, axis=0)
    metrics = []
    for metric, *numbers in zip(measured, null.mean(0), low, high, strict=True):
        mean, least, most = map(float, numbers)
        control = replace(metric, protocol=f"{metric.protocol}, {SHUFFLED}", interval=method, seed_sd=None)
        metrics.append(replace(control, value=mean, low=least, high=most, these_subjects=None, people=None))
    return metrics


def describe_similarity(course: Course, protocol: str, split: str) -> list[Finding]:
    """Describe the correlation with each level, and that with its own part of the distances."""
    similarity, described = course.similarity, []
    kinds = {RHO: similarity.whole}
    if len(similarity.models) > 1:
        kinds[UNIQUE_RHO] = similarity.unique
    for metric, correlations in kinds.items():
        for number, model in enumerate(similarity.models):
            subjects = [np.asarray(values[number], np.float64) for values in correlations.items]  # [T, N]
            items = for_all(course.pictures, len(subjects))
            options: Any = {"protocol": protocol, "split": split, "items": items, "limits": (-1.0, 1.0)}
            measured = measure_each(metric, subjects, chance=0.0, is_share=False, **options)
            values, null = correlations.values[:, number].mean(0), correlations.null[:, number]
            controls = {SHUFFLED: permuted_metrics(measured, null)}
            test = PermutationTest.of(values, null)
            described.append(Finding(scope(SIMILARITY, model), course.axis, measured, controls, test))
    return described


def ceiling_scopes(course: Course, protocol: str, split: str) -> dict[str, dict[str, Metric]]:
    """Give the ceilings of similarity as metrics, by scope."""
    scopes: dict[str, dict[str, Metric]] = {}
    context = (course.pictures.size, None, None, None, None, (), protocol, split, "none")
    ceilings = zip(course.similarity.lower, course.similarity.upper, strict=True)
    for place, ends in zip(course.axis.labels, ceilings, strict=True):
        name = scope(SIMILARITY, place)
        for metric, value in zip(("ceiling_lower", "ceiling_upper"), ends, strict=True):
            if np.isfinite(value):
                scopes.setdefault(name, {})[metric] = Metric(metric, float(value), *context)
    return scopes


def summary_table(results: Sequence[Finding], title: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        peak, first = finding.peak, finding.first_above_chance
        top, control = finding.measured[peak], next(iter(finding.controls.values()), None)
        numbers = (f"{top.value:.3f}", top.interval_text())
        control_value = "–" if control is None else f"{control[peak].value:.3f}"
        first_place = "–" if first is None else finding.axis.where(first)
        names = (finding.name, shown(finding.metric), finding.axis.where(peak))
        rows.append((*names, *numbers, control_value, finding.p_at_peak, first_place))
    columns = ("analysis", "metric", "strongest", "value", "95 % CI", "control", "p", FIRST_ABOVE)
    return Table(title, columns, rows, section=SECTION)
