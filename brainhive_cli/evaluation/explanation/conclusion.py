"""Results of explain over all cells and subjects: corrected p, claims, facts and
figures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.facts import Cell as CellFacts, Claim, ExplanationFacts
from brainhive_cli.core.jobs import Summary
from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    scope,
    shown,
)
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Cell as TableCell, Table, p_text
from brainhive_cli.data.signals.space_files import write_maps
from brainhive_cli.data.signals.spaces import Sensors, Voxels, channel_rows
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import describe_tested
from brainhive_cli.evaluation.explanation.encoding_model import (
    CEILINGS,
    CORRELATION,
    Levels,
)
from brainhive_cli.evaluation.explanation.filter_reach import latest_beginnings
from brainhive_cli.evaluation.explanation.job import Job, Reader
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SECTION,
    SENSOR,
    SIGNIFICANT,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    correct_together,
    standardise,
)
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, OF_SIGNALS, OF_TRIALS
from brainhive_cli.evaluation.explanation.sensor_space import draw_head, place_sensors
from brainhive_cli.evaluation.explanation.similarity import RHO, explain_similarity
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items, fold_null_inflation
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.page import DETAILS, FINDING
from brainhive_cli.reports.tables import render, with_interval
from brainhive_cli.training.alignment.cells import Cell

MEANINGS: Mapping[str, str] = {**OF_MODEL, **OF_SIGNALS, **OF_TRIALS}
SIMILARITY = "similarity"
"""Name of the analysis."""
SHUFFLED, TRAINED = "shuffled labels", "trained on shuffled labels"
"""Last part of the scope of a control: labels permuted; a level of shuffled labels."""
LIMITS = {
    "r": (-1.0, 1.0),
    "rho": (-1.0, 1.0),
    "unique_rho": (-1.0, 1.0),
    "unique_r": (-2.0, 2.0),
}
"""Least and largest value of correlations; shares lie between 0 and 1, and margins
anywhere.
"""
TIMES = 64
"""Times of a course whose metrics are listed; its artifact has all."""
MAPS = "maps"
"""Folder of a run for what was measured of each voxel or sensor."""
FIRST_ABOVE = "first above chance"
"""Name, in tables and figures, of the first time that is above chance."""
UNKNOWN = "unknown (filter)"
"""That time where an effect at any later time may show."""
BEFORE = "unknown (before the stimulus)"
"""That time where it precedes the stimulus, and no filter explains it."""
ROUNDING_MS = 0.001
"""Times of an axis are rounded to this."""
ENDS = (2.5, 97.5)
"""Percentiles between which the middle 95 % of the control lie."""
Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope and name."""
Drawn = list[Curve | Heatmap | Map]


@dataclass(frozen=True)
class Finding:
    """One analysis of all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        metric: Name of what was measured.
        axis: The P positions.
        measured: [P].
        controls: [P] by the name of the control.
        scores: [1 + K, P] what was measured, then with permuted labels, each position
            by its spread; None where labels were not permuted.
        corrected: [P] p of the largest over all positions of all analyses, as
            `correct_findings`.
        latest_ms: How late an effect may begin that shows at the first position above
            chance, as `latest_beginnings`.
    """

    name: str
    metric: str
    axis: Axis
    measured: list[Metric]
    controls: Mapping[str, list[Metric]]
    scores: Float64 | None = None
    corrected: Float64 | None = None
    latest_ms: float = -np.inf

    @property
    def values(self) -> Float64:
        """[P] values of the metrics."""
        return np.array([metric.value for metric in self.measured])

    @property
    def first_above_chance(self) -> int | None:
        """Index of the first of two positions in a row, on an axis of time, above the
        corrected control.
        """
        if self.corrected is None or self.axis.name != TIME:
            return None

        # two in a row, since a single one is often noise
        above = self.corrected < SIGNIFICANT
        first = np.flatnonzero(above[:-1] & above[1:]).tolist()
        return first[0] if first else None

    @property
    def onset(self) -> str:
        """The first position above chance in words; empty where there is none.

        What a window carries may begin anywhere in it: its centre may lie before the
        effect. Where a filter looks ahead, the latest beginning is given instead.
        """
        index = self.first_above_chance
        if index is None:
            return ""
        _, end_ms = self.axis.ends(index)
        if not self.latest_ms < np.inf:
            return UNKNOWN
        if max(self.latest_ms, end_ms) < 0:
            return BEFORE
        if self.latest_ms > end_ms + ROUNDING_MS:
            return f"begins by {self.latest_ms:.0f} ms"
        return self.axis.where(index)


Findings = Sequence[Finding]


def describe_profiles(
    groups: Sequence[Sequence[SubjectProfiles]], items: Items, **context: Any
) -> list[Finding]:
    """Describe every profile over all subjects; positions that not all have, as
    regions, are left out.

    Args:
        groups: What was measured, by subject, of its cells.
        items: Those of each subject, in the order of the profiles.
        context: Further arguments of `measure_each`.
    """
    # an analysis must have been measured of every subject
    described, parts = [], [*chain(*groups)]
    for name, first in parts[0].profiles.items():
        if all(name in part.profiles for part in parts):
            # regions of voxels may differ among subjects
            shared = set[Any].intersection(
                *({*part.profiles[name].axis.at} for part in parts)
            )
            at = [position for position in first.axis.at if position in shared]
            profiles = [
                [part.profiles[name].take(at) for part in group] for group in groups
            ]
            described.append(
                _describe(name.partition(":")[0], profiles, items, context)
            )
    return described


def _describe(
    name: str,
    groups: Sequence[Sequence[Profile]],
    items: Items,
    context: Mapping[str, Any],
) -> Finding:
    """Describe profiles of the same positions and items, by subject, next to their
    controls.
    """
    profiles = [*chain(*groups)]
    # profiles of one analysis share metric, candidates and chance
    metric = profiles[0].metric
    pool = profiles[0].pool or None
    protocol = context["protocol"]
    limits = LIMITS.get(metric, (0.0, 1.0) if pool else (None, None))
    options = {
        "pool": pool,
        "chance": profiles[0].chance,
        "limits": limits,
        "items": items,
        **context,
    }

    # values [S, N] or control of each subject, stacked over seeds
    def measure(field: str, **changes: Any) -> list[Metric]:
        values = [
            np.stack([getattr(profile, field) for profile in group]) for group in groups
        ]
        return measure_each(metric, values, **options | changes)

    # the middle 95 % of the permutations
    is_share = limits == (0.0, 1.0) and metric != "two_way"
    finding = Finding(
        name, metric, profiles[0].axis, measure("values", is_share=is_share), {}
    )
    nulls = [
        [profile.null for profile in group if profile.null is not None]
        for group in groups
    ]
    # labels are permuted alike for all subjects, so permutation k is averaged over them
    null = (
        np.mean([np.mean(group, 0) for group in nulls], 0)
        if all(nulls)
        else np.empty((0, 0))
    )
    if len(null):
        if items.inflation > 1:  # as of a verdict over folds
            null = null.mean(0) + fold_null_inflation([null]) ** 0.5 * (
                null - null.mean(0)
            )
        # [P, 3]
        numbers = np.stack([null.mean(0), *np.percentile(null, ENDS, 0)], 1).tolist()
        # intervals of the measured values do not hold for the control
        changes: Any = dict.fromkeys(("these_subjects", "people", "seed_sd"))
        changes["interval"] = (
            f"the middle 95 % of {len(null)} permutations of the labels"
        )
        changes["protocol"] = f"{protocol}, {SHUFFLED}"
        control = [
            replace(one, value=mean, low=low, high=high, **changes)
            for one, (mean, low, high) in zip(finding.measured, numbers, strict=True)
        ]
        scores = standardise(finding.values, null)
        finding = replace(finding, controls={SHUFFLED: control}, scores=scores)

    # the control that was measured once, with a level of shuffled labels
    if all(profile.shuffled is not None for profile in profiles):
        control = measure(
            "shuffled", is_share=False, protocol=f"{protocol}, {TRAINED}", seeds=()
        )
        finding = replace(finding, controls={TRAINED: control})
    return finding


def correct_findings(results: Findings) -> list[Finding]:
    """Correct p over all positions of all analyses that labels were permuted for, as
    one page claims them.
    """
    # findings without permuted labels stay as they are
    tests = [finding.scores for finding in results if finding.scores is not None]
    corrected = iter(correct_together(tests) if tests else ())
    return [
        finding
        if finding.scores is None
        else replace(finding, corrected=next(corrected))
        for finding in results
    ]


def choose_claims(results: Findings) -> list[Finding]:
    """Choose the analyses that the finding is made of: the first over time, and the
    first over space.

    The choice rests on their order alone. Of analyses with several metrics it takes
    two-way identification, which rises above chance before top-1 does.
    """
    chosen = []
    for axes in ((TIME,), (SENSOR, REGION)):
        tested = [
            finding
            for finding in results
            if finding.axis.name in axes and finding.corrected is not None
        ]

        # metrics of one analysis
        same = [finding for finding in tested if finding.name == tested[0].name]
        chosen += sorted(same, key=lambda finding: finding.metric != "two_way")[:1]
    return chosen


def state_claims(results: Findings) -> list[Claim]:
    """State the claims: on the strongest of the significant positions, else of all."""
    claims = []
    for finding in choose_claims(results):
        p = finding.corrected
        axis = finding.axis
        assert p is not None  # by the choice
        is_eligible = (p < SIGNIFICANT) | (p.min() >= SIGNIFICANT)
        index = int(np.where(is_eligible, finding.values, -np.inf).argmax())
        kind: Any = "time" if axis.name == TIME else axis.name
        claims.append(
            Claim(
                axis=kind,
                place=axis.where(index),
                p=p[index],
                first="" if finding.onset in (UNKNOWN, BEFORE) else finding.onset,
            )
        )
    return claims


def list_scopes(results: Findings) -> Scopes:
    """List metrics by scope and name; of a course, at most so many times as `TIMES`,
    and the strongest.
    """
    scopes = Scopes()
    for finding in results:
        # a course of many times would fill the metrics file
        peak = finding.values.argmax()
        count = len(finding.measured)
        step = -(-count // TIMES) if finding.axis.name == TIME else 1
        controls = {"": finding.measured, **finding.controls}
        for index, (label, control) in product(range(count), controls.items()):
            if index % step == 0 or index == peak:
                name = scope(finding.name, finding.axis.labels[index], label)
                scopes.setdefault(name, {})[finding.metric] = control[index]
    return scopes


def list_facts(finding: Finding) -> dict[str, Any]:
    """List positions, windows, p of each, and the first time above chance, as plain
    values.
    """
    # plain values, which JSON holds
    axis = finding.axis
    return {
        "name": finding.name,
        "metric": finding.metric,
        "axis": axis.name,
        "at": list(axis.at),
        "windows_ms": None if axis.spans is None else axis.spans.tolist(),
        "peak": axis.labels[finding.values.argmax()],
        "first_above_chance": finding.onset or None,
        "p_corrected": None
        if finding.corrected is None
        else finding.corrected.tolist(),
    }


def bound_onsets(
    results: Findings, signals: Sequence[Trials]
) -> tuple[list[Finding], str]:
    """Add to courses over time how late an effect may begin that shows at their first
    time above chance.

    Args:
        results: All analyses.
        signals: Of each subject; all have the same samples.

    Returns:
        The analyses; and why a first time cannot be said, empty where it can.
    """
    if all(finding.first_above_chance is None for finding in results):
        return list(results), ""

    # over all subjects, at the samples [T] that the model reads
    by_subject = [
        latest_beginnings(trials.recorded or trials)[trials.samples]
        for trials in signals
    ]
    times_ms = np.asarray(signals[0].times_s, np.float64) * 1000
    latest_ms = np.max(by_subject, 0)
    bounded, reason = [], ""
    for finding in results:
        index = finding.first_above_chance
        if index is not None:
            start_ms, end_ms = finding.axis.ends(index)
            is_inside = (times_ms >= start_ms - ROUNDING_MS) & (
                times_ms <= end_ms + ROUNDING_MS
            )
            finding = replace(finding, latest_ms=float(latest_ms[is_inside].max()))
            if finding.onset == BEFORE:
                reason = "it lies before the stimulus, and no filter explains that"
            elif finding.onset == UNKNOWN:
                reason = (
                    "how the signals were filtered is not known"
                    if np.isnan(latest_ms).any()
                    else "the filter looks ahead, and an effect at any later time may "
                    "show there"
                )
        bounded.append(finding)
    return bounded, reason


def conclude(
    job: Job,
    folder: RunFolder,
    readers: Sequence[Reader],
    parts: Mapping[tuple[Cell | None, int], SubjectProfiles],
    levels: Levels,
) -> Summary:
    """Describe and draw everything over all subjects, and write maps.

    Args:
        job: The explanation.
        folder: Its run.
        readers: One a subject.
        parts: What was measured of each cell and subject, and of the signals of each
            subject.
        levels: Embeddings of the tested pictures, which similarity compares signals
            with.
    """
    # contexts with and without the model, and parts that could not be measured
    spec = job.recipe
    reader = readers[0]
    align = job.align
    # analyses of signals are stamped as such: no model has a part in them
    context: Any = {"protocol": job.describe_protocol(), "split": spec.split}
    without_model: Any = {**context, "protocol": f"{context['protocol']}, no model"}
    items = reader.pictures
    missing = {"test against permuted labels": items.problem} if items.problem else {}
    for part in parts.values():
        missing |= part.missing

    # models, the encoding model of signals, and similarity with what a perfect model
    # would reach
    results = list[Finding]()
    if OF_MODEL.keys() & spec.analyses:
        groups = [
            [parts[cell, subject] for cell in cells]
            for subject, cells in job.subjects.items()
        ]
        seeds = sorted({cell.seed for cell in align.cells})
        results += describe_profiles(groups, items, seeds=seeds, **context)
    encoded = [part for (cell, _), part in parts.items() if cell is None]
    ceilings: dict[str, dict[str, list[float]]] = {}
    if encoded:
        results += describe_profiles(
            [[part] for part in encoded], items, **without_model
        )
        # ceilings are drawn over time, which voxels lack; a mean over other subjects
        # than those of the curve would be none of it
        if len(reader.times_ms) > 1:
            has_all = all(name in part.arrays for name in CEILINGS for part in encoded)
            ceilings[CORRELATION] = {
                name: np.mean(
                    [part.arrays[name].mean(0) for part in encoded], 0
                ).tolist()
                for name in CEILINGS
                if has_all
            }
    if SIMILARITY in spec.analyses:
        try:
            similar, ceilings[RHO] = explain_similarity(readers, levels, spec)
        except DamagedStore:  # a damaged file is no property of the signals
            raise
        except BrainhiveError as error:
            missing[SIMILARITY] = error.in_one_line
        else:
            results += describe_profiles(
                [[part] for part in similar], items, **without_model
            )

    # the encoding model by sensor and time; subjects with other sensors cannot be
    # averaged
    drawn = Drawn()
    times = [f"{time:g}" for time in reader.times_ms.round(3)]
    maps = [part.arrays.get("encoding map", np.empty(0)) for part in encoded]  # [E, T]
    if {values.shape for values in maps} == {(len(reader.sensors), len(times))} and len(
        times
    ) > 1:
        drawn.append(
            Heatmap(
                "Encoding by sensor and time",
                np.mean(maps, 0).tolist(),
                reader.sensors,
                times,
                SENSOR,
                TIME,
                "correlation",
                is_diverging=True,
                section=SECTION,
            )
        )
    seen, warnings = describe_tested(
        [align.tested_pictures(spec.split)], align.signal_warnings
    )
    facts = {
        "draws": len(reader.labels.permuted),
        "seen_in_training": seen,
        "warnings": warnings,
        "protocol": context["protocol"],
        "ceilings": ceilings,
    }
    signals = [reader.trials for reader in readers]
    if subjects := collect_maps(readers, parts):
        folder.replace(MAPS, lambda path: [write_maps(path, *one) for one in subjects])
    return finish(job, correct_findings(results), signals, items, missing, drawn, facts)


def collect_maps(
    readers: Sequence[Reader], parts: Mapping[tuple[Cell | None, int], SubjectProfiles]
) -> list[tuple[str, dict[str, Float64], Sensors | Voxels]]:
    """Collect what was measured of each voxel or sensor, averaged over cells, pictures
    and times.

    Args:
        readers: One a subject.
        parts: As `conclude`.

    Returns:
        The subject's label, maps by name, and their space, of each subject with any.
    """
    collected = []
    for reader in readers:
        trials = reader.trials
        maps = defaultdict[str, list[Float64]](list)
        space = (trials.recorded or trials).space
        for part in (part for (_, one), part in parts.items() if one == trials.subject):
            # of sensors the analyses by sensor, of voxels the arrays
            for name, profile in part.profiles.items():
                if profile.axis.name == SENSOR:
                    key = f"{name.partition(':')[0]} {profile.metric}"
                    maps[key].append(profile.values.mean(1))
            for name, values in part.arrays.items():
                if isinstance(space, Voxels):
                    flat = values.reshape(len(values), -1)
                    maps[name.removesuffix(" map")].append(flat.mean(1))
        if not maps:
            continue

        # sensors that the model does not read have no row, voxels no value
        means = {name: np.mean(values, 0) for name, values in maps.items()}
        if isinstance(space, Sensors) and trials.mapping is None:
            space = space.select(channel_rows(space.names, reader.sensors))
        elif isinstance(space, Sensors):
            space = Sensors(reader.sensors)
        elif trials.recorded is not None:
            width = trials.recorded.signal.shape[2]
            for name, values in means.items():
                means[name] = np.full(width, np.nan)
                means[name][trials.rows] = values
        collected.append((f"sub-{trials.subject:02d}", means, space))
    return collected


def finish(
    job: Job,
    results: Findings,
    signals: Sequence[Trials],
    items: Items,
    missing: dict[str, str],
    drawn: Drawn,
    facts: Mapping[str, Any],
    scopes: Scopes | None = None,
) -> Summary:
    """Draw all, warn of what is missing, and put metrics and facts together.

    Args:
        job: The explanation.
        results: All analyses.
        signals: Of each subject.
        items: Those that were tested.
        missing: What could not be measured.
        drawn: Further figures.
        facts: Further facts.
        scopes: Further metrics by scope and name.
    """
    # the reach of filters, and where sensors lie
    results, reason = bound_onsets(results, signals)
    missing |= {FIRST_ABOVE: reason} if reason else {}
    space = (signals[0].recorded or signals[0]).space
    if any(finding.axis.name == SENSOR for finding in results) and not place_sensors(
        space
    ):
        missing["head maps"] = "where the sensors lie is not known"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")

    # figures, and the table of all analyses
    align, split = job.align, job.recipe.split
    drawn = (
        draw_findings(
            results, space, signals[0].stimulus_marks, facts.get("ceilings", {})
        )
        + drawn
    )
    # when and where signals carry the stimulus, or why nothing was tested
    about = {
        "claims": state_claims(results),
        "untested": "; ".join(missing.values()),
        "profiles": [*map(list_facts, results)],
        "cells": {
            f"sub-{subject:02d}": CellFacts(subject=subject) for subject in job.subjects
        },
        **{"scope": items.scope, "units": items.kind, "unit_count": items.count},
        "stimuli": len(items.names),
        **align.describe(split),
        **facts,
        "caveats": align.caveats(split),
    }
    measurements = Measurements(
        list_scopes(results) | (scopes or {}), missing, ExplanationFacts(**about)
    )
    return Summary(measurements, [summary_table(results, facts["protocol"]), *drawn])


def draw_findings(
    results: Findings,
    space: Sensors | Voxels,
    marks: Mapping[str, Any],
    ceilings: Mapping[str, Mapping[str, Sequence[float]]],
) -> Drawn:
    """Draw one metric of each analysis over its axis, the claimed one or the first; the
    claims come first.

    All levels are in one figure. Sensors with positions are drawn on a head, and
    regions of voxels with positions on slices; their bars are details.

    Args:
        results: All analyses.
        space: Sensors or voxels of the recording.
        marks: Times that figures mark.
        ceilings: By the metric, averaged over sensors, and by name.
    """
    # analyses by axis, and by whether they are of a level
    claims = {id(finding) for finding in choose_claims(results)}
    positions = place_sensors(space)
    drawn = Drawn()
    groups = defaultdict[Any, list[Finding]](list)
    for finding in sorted(results, key=lambda finding: id(finding) not in claims):
        analysis, _, level = finding.name.partition(" · ")
        groups[analysis, finding.axis.name, bool(level)].append(finding)

    for (analysis, kind, _), (first, *rest) in groups.items():
        # the first metric of each on the head, or on slices
        group = [
            first,
            *(finding for finding in rest if finding.metric == first.metric),
        ]
        # claims stand next to the first sentence of the page
        section = FINDING if id(first) in claims else SECTION
        axis = first.axis
        value = shown(first.metric)
        maps = Drawn()
        for finding in group:
            picture = _draw_map(finding, space, positions)
            if picture is not None:
                maps.append(replace(picture, section=section))

        # lines or bars, with the control of a single one
        lines = [
            _line(finding.name.partition(" · ")[2] or value, finding.measured)
            for finding in group
        ]
        lines += (
            [_line(*control) for control in first.controls.items()]
            if len(group) == 1
            else []
        )
        # ceilings are means over sensors
        bounds = {} if kind == SENSOR else ceilings.get(first.metric, {})
        lines += [Line(shown(name), values) for name, values in bounds.items()]
        note = render(
            "explanation.txt", of=analysis, metric=first.measured[0], ceilings=bounds
        )
        options: Any = {
            "section": DETAILS if maps else section,
            "note": note,
            "style": "bars",
        }
        if kind == TIME:
            options |= {"style": "lines", "marks": dict(marks)}
            onset = first.first_above_chance
            if len(group) == 1 and onset is not None:
                # several levels in one figure have no common onset
                options["marks"][f"{first.onset}: {FIRST_ABOVE}"] = axis.at[onset]

        # a window may begin before an effect that it shows
        words = (
            axis.name if axis.spans is None else f"centre of the window, {axis.name}"
        )
        drawn += [
            *maps,
            Curve(_title(analysis), words, axis.at, lines, value, **options),
        ]
    return drawn


def _draw_map(
    finding: Finding,
    space: Sensors | Voxels,
    positions: Mapping[str, tuple[float, float]],
) -> Map | Heatmap | None:
    """Draw the values of sensors on the head, or those of regions on slices; None where
    neither is known.
    """
    # sensors without positions, and regions without a grid, have bars alone
    values = dict(zip(finding.axis.labels, finding.values.tolist(), strict=True))
    title = _title(finding.name)
    value = shown(finding.metric)
    if finding.axis.name == SENSOR and positions:
        return draw_head(title, positions, values, value)
    if (
        finding.axis.name != REGION
        or not isinstance(space, Voxels)
        or space.grid is None
    ):
        return None

    # the value of its region in each voxel, of the smallest that it lies in
    voxels = np.full(len(space.grid.indices), np.nan)
    regions = {name: space.regions[name] for name in values if name in space.regions}
    for name, mask in sorted(regions.items(), key=lambda region: -int(region[1].sum())):
        voxels[mask] = values[name]
    return draw_slices(title, voxels, space.grid, value)


def _line(name: str, metrics: Sequence[Metric]) -> Line:
    """Draw metrics with their intervals for these subjects, which hold at any number of
    them.
    """
    ends = [metric.these_subjects or (metric.low, metric.high) for metric in metrics]
    low, high = zip(*ends, strict=True)
    return Line(
        name, [metric.value for metric in metrics], low, high, metrics[0].chance
    )


def summary_table(results: Findings, protocol: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        # p of the strongest position, the value there and its control
        peak = int(finding.values.argmax())
        control = next(iter(finding.controls.values()), None)
        p = None if finding.corrected is None else float(finding.corrected[peak])
        rows.append(
            (
                finding.name,
                shown(finding.metric),
                finding.axis.where(peak),
                TableCell(p_text(p), value=p),
                finding.onset or None,
                with_interval(finding.measured[peak]),
                None if control is None else control[peak].value,
            )
        )
    columns = (
        "analysis",
        "metric",
        "strongest",
        "p",
        FIRST_ABOVE,
        "value, 95 % CI",
        "control",
    )
    note = render("explanation.txt", of="table", protocol=protocol)
    return Table(
        "Where each analysis is strongest", columns, rows, section=SECTION, note=note
    )


def _title(name: str) -> str:
    # a level is named by its encoder, an analysis by its description
    analysis, _, level = name.partition(" · ")
    return f"{analysis.capitalize()}: {level or MEANINGS[analysis]}"
