"""What was found of all cells and subjects together, as metrics, each next to its control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.measurements import ALL, Metric, interval_text, scope
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.explanation.encoding_model import CORRELATION, UNIQUE
from brainhive_cli.evaluation.explanation.occlusion import TIME
from brainhive_cli.evaluation.explanation.profiles import (
    PermutationTest,
    Profile,
    Spans,
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
"""What tables and figures call the first place on an axis of time that is above chance."""
SIGNIFICANT, LEAST_P = 0.05, 0.0005
"""Level of the tests; a smaller p than the second would be printed as 0.000."""
ENDS = (2.5, 97.5)
"""Percentiles between which the middle 95 % of the control lie."""
Groups = Sequence[Sequence[SubjectProfiles]]
"""What was found by subject, of its cells."""


@dataclass(frozen=True)
class Finding:
    """One analysis of all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        axis: What the places are.
        at: [P].
        measured: [P].
        controls: [P] by the name of the control.
        p_values: [P] one-sided, by permutation; None where labels were not permuted.
        corrected: [P] for all places together.
        spans: Of windows; None where a place is one sample, or a name.
    """

    name: str
    axis: str
    at: tuple[Any, ...]
    measured: list[Metric]
    controls: Mapping[str, list[Metric]]
    p_values: NDArray[np.float64] | None = None
    corrected: NDArray[np.float64] | None = None
    spans: Spans | None = None

    @property
    def metric(self) -> str:
        """Name of what was measured."""
        return self.measured[0].name

    @property
    def peak(self) -> int:
        """The place with the largest value."""
        return int(np.argmax([each.value for each in self.measured]))

    @property
    def first_above_chance(self) -> int | None:
        """The first of two places in a row, on an axis of time, that are above the control of all places.

        What a window carries may begin anywhere in it: its centre may lie before the effect.
        """
        if self.corrected is None or self.axis != TIME:
            return None
        above = self.corrected < SIGNIFICANT
        first = np.flatnonzero(above[:-1] & above[1:])
        return int(first[0]) if len(first) else None

    def where(self, place: int) -> str:
        """Name a place in words: of a window, from where to where it lies."""
        if self.spans is None:
            return self.labels[place]
        start, stop = self.spans[place]
        return f"{start:g}{' to ' if start < 0 else '–'}{stop:g} ms"

    @property
    def p_at_peak(self) -> str:
        """p of the strongest place, corrected for all, as every table and figure prints it."""
        if self.corrected is None:
            return "–"
        p = float(self.corrected[self.peak])
        return f"{p:.3f}" if p >= LEAST_P else f"{p:.0e}"

    @property
    def scopes(self) -> dict[str, dict[str, Metric]]:
        """The metrics by scope and name; of a course, at most so many times as `TIMES`, and the strongest."""
        scopes: dict[str, dict[str, Metric]] = {}
        step = -(-len(self.at) // TIMES) if self.axis == TIME else 1
        for number, place in enumerate(self.labels):
            if number % step and number != self.peak:
                continue
            scopes[scope(self.name, place)] = {self.metric: self.measured[number]}
            for control, metrics in self.controls.items():
                scopes[scope(self.name, place, control)] = {self.metric: metrics[number]}
        return scopes

    @property
    def labels(self) -> list[str]:
        """The places in words."""
        return [f"{place:g} ms" if self.axis == TIME else str(place) for place in self.at]

    @property
    def note(self) -> dict[str, Any]:
        """What a reader of the metrics needs besides, as plain values."""
        plain = {"name": self.name, "metric": self.metric, "axis": self.axis, "at": list(self.at)}
        tested = {"p": self.p_values, "p_corrected": self.corrected}
        first = self.first_above_chance
        return {
            **plain,
            "windows_ms": None if self.spans is None else self.spans.tolist(),
            "peak": self.labels[self.peak],
            "first_above_chance": None if first is None else self.where(first),
            **{name: None if each is None else each.tolist() for name, each in tested.items()},
        }


def overall(results: Sequence[Finding]) -> dict[str, dict[str, Metric]]:
    """Give the strongest place of the first analysis as what stands for all of them.

    It has neither interval nor chance: the place was chosen by the items that it is measured on.
    """
    if not results:
        return {}
    first = results[0]
    top, place = first.measured[first.peak], first.labels[first.peak]
    name, protocol = f"{top.name}{AT_PEAK}", f"{top.protocol}, {first.name} at {place}"
    reason = "none: the strongest of all places"
    plain = replace(top, name=name, protocol=protocol, chance=None, interval=reason)
    return {ALL: {name: replace(plain, low=None, high=None, these_subjects=None)}}


def findings(
    groups: Groups, pictures: Items, protocol: str, split: str, seeds: Sequence[int]
) -> list[Finding]:
    """Describe every profile over all subjects; places that not all have, as regions, are left out.

    Args:
        groups: What was found.
        pictures: One list: those that all subjects were shown, and which of them are alike; no others count.
        protocol: Of the metrics.
        split: Whose signals were explained.
        seeds: Of the trainings.
    """
    parts = [part for group in groups for part in group]
    names = [name for name in parts[0].profiles if all(name in part.profiles for part in parts)]
    ids = [str(name) for name in pictures.ids[0]]
    how: dict[str, Any] = {"protocol": protocol, "split": split, "items": for_all(pictures, len(groups))}
    described = []
    for name in names:
        places = [set(part.profiles[name].at) for part in parts]
        at = [place for place in parts[0].profiles[name].at if all(place in some for some in places)]
        profiles = [[part.profiles[name].take(at, part.rows_of(ids)) for part in group] for group in groups]
        described.append(_describe(analysis_of(name), profiles, seeds, how))
    return described


def _describe(
    name: str, groups: Sequence[Sequence[Profile]], seeds: Sequence[int], how: Mapping[str, Any]
) -> Finding:
    """Describe one profile of all cells, by subject; all have the same places and items."""
    first, profiles = groups[0][0], [profile for group in groups for profile in group]
    options: dict[str, Any] = {"pool": first.pool, "chance": first.chance, **how}
    options["limits"] = (0.0, 1.0) if first.pool else CORRELATIONS.get(first.metric, (None, None))
    is_share = None if first.metric.startswith("top") else False
    values = [np.stack([profile.values for profile in group]) for group in groups]  # [S, P, N]
    measured = measure_each(first.metric, values, seeds=seeds, is_share=is_share, **options)
    controls, tested = {}, None
    if all(len(profile.null) for profile in profiles):
        by_subject = [np.mean([profile.null for profile in group], axis=0) for group in groups]
        null = np.mean(by_subject, axis=0)  # [K, P]
        tested = PermutationTest.of(np.array([each.value for each in measured]), null)
        controls[SHUFFLED] = permuted_metrics(measured, null)
    if all(profile.shuffled.size for profile in profiles):
        kind = TRAINED if tested is not None or name.startswith("encoding") else SHUFFLED
        shuffled = [np.stack([profile.shuffled for profile in group]) for group in groups]
        options["protocol"] = f"{how['protocol']}, {kind}"
        controls[kind] = measure_each(first.metric, shuffled, is_share=False, **options)
    alone, corrected = (None, None) if tested is None else (tested.p_values, tested.corrected)
    return Finding(name, first.axis, first.at, measured, controls, alone, corrected, first.spans)


def for_all(pictures: Items, subjects: int) -> Items:
    """Give one list of pictures to so many subjects."""
    return replace(pictures, ids=[*pictures.ids] * subjects, units=[*pictures.units] * subjects)


def permuted_metrics(measured: Sequence[Metric], null: NDArray[np.float64]) -> list[Metric]:
    """Describe a control of permuted labels, [K, P], next to what was measured at each place."""
    method = f"the middle 95 % of {len(null)} permutations of the labels"
    low, high = np.percentile(null, ENDS, axis=0)
    return [
        replace(
            each,
            value=float(mean),
            low=float(least),
            high=float(most),
            interval=method,
            these_subjects=None,
            seed_sd=None,
            protocol=f"{each.protocol}, {SHUFFLED}",
        )
        for each, mean, least, most in zip(measured, null.mean(0), low, high, strict=True)
    ]


def similarity_findings(course: Course, protocol: str, split: str) -> list[Finding]:
    """Describe the correlation with each level, and that with its own part of the distances."""
    similarity, chosen = course.found, []
    kinds = {RHO: (similarity.correlation, similarity.items, similarity.null)}
    if len(similarity.models) > 1:
        kinds[UNIQUE_RHO] = (
            similarity.unique,
            similarity.unique_items,
            similarity.unique_null,
        )
    for metric, (values, items, null) in kinds.items():
        for number, model in enumerate(similarity.models):
            subjects = [np.asarray(each[number], np.float64) for each in items]  # [T, N]
            options = {
                "protocol": protocol,
                "split": split,
                "items": for_all(course.pictures, len(subjects)),
                "chance": 0.0,
                "is_share": False,
                "limits": (-1.0, 1.0),
            }
            measured = measure_each(metric, subjects, **options)  # type: ignore[arg-type]
            drawn = null[:, number]
            tested = PermutationTest.of(values[:, number].mean(0), drawn)
            controls = {SHUFFLED: permuted_metrics(measured, drawn)}
            name = scope(SIMILARITY, model)
            chosen.append(
                Finding(name, course.axis, course.at, measured, controls, tested.p_values, tested.corrected)
            )
    return chosen


def summary_table(results: Sequence[Finding], title: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for each in results:
        top = each.measured[each.peak]
        control = next(iter(each.controls.values()), None)
        beyond = "–" if control is None else f"{control[each.peak].value:.3f}"
        first = "–" if each.first_above_chance is None else each.where(each.first_above_chance)
        place, p, interval = each.where(each.peak), each.p_at_peak, interval_text(top.low, top.high)
        rows.append((each.name, shown(each.metric), place, f"{top.value:.3f}", interval, beyond, p, first))
    columns = ("analysis", "metric", "strongest", "value", "95 % CI", "control", "p", FIRST_ABOVE)
    return Table(title, columns, rows, section=SECTION)
