"""Measurements of all cells and subjects together, as metrics, each next to its control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.signal.windows import tukey

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.measurements import ALL, Metric, scope
from brainhive_cli.core.tables import Table
from brainhive_cli.data.recording_files import filter_samples
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.encoding_model import CORRELATION, UNIQUE
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    SIGNIFICANT,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    correct_together,
    count_larger,
    locate,
    standardise,
)
from brainhive_cli.evaluation.explanation.similarity import Similarity
from brainhive_cli.measurement.metric_names import AT_PEAK, shown
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items

SHUFFLED, TRAINED = "shuffled labels", "trained on shuffled labels"
"""Last part of the scope of a control: labels permuted; a model, or a level, of shuffled labels."""
SECTION = "Explanation"
"""The heading under which a page shows all of it."""
SIMILARITY, RHO, UNIQUE_RHO = "similarity", "rho", "unique_rho"
"""Name of the analysis, and of its metrics: Spearman's correlation, and the partial one."""
CORRELATIONS = {CORRELATION: (-1.0, 1.0), UNIQUE: (-2.0, 2.0)}
"""Least and largest value of metrics, where there are."""
TIMES = 64
"""Times of a course whose metrics are listed; its artifact has all."""
FIRST_ABOVE = "first above chance"
"""Name, in tables and figures, of the first time that is above chance."""
UNKNOWN = "unknown (filter)"
"""The first time above chance where an effect at any later time may show."""
ROUNDING_MS = 0.001
"""Times of an axis are rounded to so much."""
LEAST_P = 0.0005
"""A smaller p would be printed as 0.000."""
ENDS = (2.5, 97.5)
"""Percentiles between which the middle 95 % of the control lie."""
EFFECTS_MS, RAMP_MS = (50, 100, 300, 500), 20
"""Lengths of the effects that are tried, and how long they rise: a high-pass filter spreads long ones
further, a low-pass filter the rise of short ones."""
LEAK = 0.03
"""Share of its largest value from which an effect can be found: strong ones are before they begin
(`benchmarks/simulated_statistics.py --only onsets`)."""
PERIODS = 8
"""Seconds of the simulated recording, before and after the effect, times the lower edge of the filter: mne's
filter is 3.3 long."""
BASELINE_MS = -100
"""Start of the baseline where a store names none, as of THINGS-MEG."""
Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope and name."""


@dataclass(frozen=True)
class Finding:
    """One analysis of all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        axis: The P positions.
        measured: [P].
        controls: [P] by the name of the control.
        scores: [1 + K, P] what was measured, then with permuted labels, each position by its spread; None
            where labels were not permuted.
        corrected: [P] p of the largest over all positions of all analyses, as `correct_findings`.
        latest_ms: [P] how late an effect may begin that shows at each position, as `latest_beginnings`; None
            where filters have not been looked at.
    """

    name: str
    axis: Axis
    measured: list[Metric]
    controls: Mapping[str, list[Metric]]
    scores: Float64 | None = None
    corrected: Float64 | None = None
    latest_ms: Float64 | None = None

    @property
    def metric(self) -> str:
        """Name of what was measured."""
        return self.measured[0].name

    @property
    def peak(self) -> int:
        """Index of the position with the largest value."""
        return int(np.argmax([metric.value for metric in self.measured]))

    @property
    def first_above_chance(self) -> int | None:
        """Index of the first of two positions in a row, on an axis of time, above the corrected control.

        What a window carries may begin anywhere in it: its centre may lie before the effect.
        """
        if self.corrected is None or self.axis.name != TIME:
            return None
        above = self.corrected < SIGNIFICANT
        first = np.flatnonzero(above[:-1] & above[1:])
        return int(first[0]) if len(first) else None

    @property
    def onset(self) -> str:
        """The first position above chance in words, with the latest beginning of an effect that shows there.

        Empty where none is above chance.
        """
        index, axis = self.first_above_chance, self.axis
        if index is None:
            return ""
        end_ms = float(axis.at[index] if axis.spans is None else axis.spans[index, 1])
        latest_ms = end_ms if self.latest_ms is None else float(self.latest_ms[index])
        if not np.isfinite(latest_ms):
            return UNKNOWN
        is_later = latest_ms > end_ms + ROUNDING_MS
        return axis.where(index) + (f" (begins by {latest_ms:.0f} ms)" if is_later else "")

    @property
    def p_at_peak(self) -> str:
        """p of the strongest position, corrected for all, as every table prints it."""
        return "–" if self.corrected is None else write_p(self.corrected[self.peak])

    @property
    def scopes(self) -> Scopes:
        """Metrics by scope and name; of a course, at most so many times as `TIMES`, and the strongest."""
        scopes = {}
        step = -(-len(self.measured) // TIMES) if self.axis.name == TIME else 1
        for index, label in enumerate(self.axis.labels):
            if index % step == 0 or index == self.peak:
                for control, metrics in {"": self.measured, **self.controls}.items():
                    scopes[scope(self.name, label, control)] = {self.metric: metrics[index]}
        return scopes

    @property
    def note(self) -> dict[str, Any]:
        """Notes that a reader of the metrics needs, as plain values."""
        axis, scores = self.axis, self.scores
        return {
            "name": self.name,
            "metric": self.metric,
            "axis": axis.name,
            "at": list(axis.at),
            "windows_ms": None if axis.spans is None else axis.spans.tolist(),
            "peak": axis.labels[self.peak],
            "first_above_chance": self.onset or None,
            "p": None if scores is None else count_larger(scores, scores[1:]).tolist(),
            "p_corrected": None if self.corrected is None else self.corrected.tolist(),
        }


Findings = Sequence[Finding]


def write_p(p: float) -> str:
    """Write a p as every table prints it: never as 0."""
    return f"{p:.3f}" if p >= LEAST_P else f"{p:.0e}"


def claims(results: Findings) -> list[Finding]:
    """Choose the analyses that the first screen shows: the first over time, and the first over space.

    The choice rests on their order alone. Of analyses with several metrics it takes two-way identification,
    which rises above chance before top-1 does.
    """
    chosen = []
    for axes in ((TIME,), (SENSOR, REGION)):
        tested = [
            finding for finding in results if finding.axis.name in axes and finding.corrected is not None
        ]
        same = [finding for finding in tested if finding.name == tested[0].name]
        chosen += sorted(same, key=lambda finding: finding.metric != "two_way")[:1]
    return chosen


def state_claims(results: Findings, carried: str, subjects: int, items: str, scope_words: str) -> str:
    """Say in one sentence when and where signals carry something, how sure that is, and of whom.

    Args:
        results: All analyses.
        carried: What signals carry.
        subjects: Number of subjects.
        items: Number and kind of the items.
        scope_words: Units of the claim, as "these 2 concepts"; empty for units in general.

    Returns:
        The sentence; empty if no analysis over time or space was tested.
    """
    shown_places, other_places = [], []
    for finding in claims(results):
        # the strongest of the significant positions, else of all; the strongest of all may be a noisy one
        values = np.array([metric.value for metric in finding.measured])
        corrected = np.ones(len(values)) if finding.corrected is None else finding.corrected
        is_significant = corrected < SIGNIFICANT
        peak = int(np.where(is_significant | ~is_significant.any(), values, -np.inf).argmax())
        place, first = finding.axis.where(peak), finding.first_above_chance
        p = f"p {write_p(corrected[peak])}"
        if is_significant.any():
            words = f"most {'in region' if finding.axis.name == REGION else 'at'} {place} ({p})"
            if first not in (None, peak) and finding.onset != UNKNOWN:
                words = f"first at {finding.onset}, {words}"
            shown_places.append(words)
        else:
            kind = {TIME: "time", SENSOR: "sensor", REGION: "region"}[finding.axis.name]
            other_places.append(f"no single {kind} (strongest: {place}, {p})")
    if not shown_places and not other_places:
        return ""

    # one sentence: what is shown, what is not, and of whom
    people = f"{subjects} subject{'s' if subjects > 1 else ''}, {items}"
    people += f", for {scope_words}" if scope_words else ""
    sentence = f"Signals carry {carried} {' and '.join(shown_places)}"
    if other_places:
        begin = f"{sentence}; it is shown at" if shown_places else f"Signals are shown to carry {carried} at"
        sentence = f"{begin} {' and at '.join(other_places)}"
    return f"{sentence}: {people}; p corrected over all places of all analyses."


def overall(results: Findings) -> Scopes:
    """Return the strongest value of the first analysis, which stands for all of them.

    It has neither interval nor chance: its position was chosen by the items that it is measured on.
    """
    if not results:
        return {}
    first = results[0]
    top, label = first.measured[first.peak], first.axis.labels[first.peak]
    name = f"{top.name}{AT_PEAK}"
    metric = replace(
        top,
        name=name,
        protocol=f"{top.protocol}, {first.name} at {label}",
        interval="none: the strongest of all places",
        chance=None,
        low=None,
        high=None,
        these_subjects=None,
        people=None,
    )
    return {ALL: {name: metric}}


def correct_findings(results: Findings) -> list[Finding]:
    """Correct p over all positions of all analyses that labels were permuted for, as one page claims them."""
    tests = [finding.scores for finding in results if finding.scores is not None]
    corrected = iter(correct_together(tests) if tests else ())
    return [
        finding if finding.scores is None else replace(finding, corrected=next(corrected))
        for finding in results
    ]


def bound_onsets(results: Findings, signals: Sequence[Trials]) -> tuple[list[Finding], str]:
    """Add to analyses over time how late an effect may begin that shows at each position.

    Args:
        results: All analyses.
        signals: Those of each subject; all have the same samples.

    Returns:
        The analyses; and why a first time above chance cannot be said, empty where it can.
    """
    if all(finding.first_above_chance is None for finding in results):
        return list(results), ""

    # over all subjects, at the samples [T] that the model reads
    by_subject = [latest_beginnings(one.recorded or one)[one.samples] for one in signals]
    times_ms, latest_ms, bounded = signals[0].times_s * 1000, np.max(by_subject, 0), []
    for finding in results:
        if finding.axis.name == TIME:
            axis = finding.axis
            spans = np.array([axis.at, axis.at]).T if axis.spans is None else axis.spans  # [P, 2]
            is_inside = (times_ms >= spans[:, :1] - ROUNDING_MS) & (times_ms <= spans[:, 1:] + ROUNDING_MS)
            finding = replace(finding, latest_ms=np.where(is_inside, latest_ms, -np.inf).max(1))
        bounded.append(finding)
    if all(finding.onset != UNKNOWN for finding in bounded):
        return bounded, ""
    is_unknown = np.isnan(latest_ms).any()
    ahead = "the filter looks ahead, and an effect at any later time may show there"
    return bounded, "how the signals were filtered is not known" if is_unknown else ahead


def latest_beginnings(recording: Trials) -> Float64:
    """Find how late an effect may begin that shows at each sample.

    Effects that begin at each sample go through the filter, the cut, the baseline and the resampling that the
    store names, by the functions of prepare.

    Args:
        recording: Signals of sensors, with the provenance of their store.

    Returns:
        [T] ms after stimulus onset: the sample's own time where nothing shows before it begins; inf where an
        effect at the end of the trial does; NaN where nobody knows how the signals were filtered.
    """
    times_ms, latest = np.asarray(recording.times_s, np.float64) * 1000, []
    for session in recording.provenance.get("sessions") or [{}]:
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        if "epoch_ms" in steps or "filtered_hz" in source:
            # the filters: of the files, whose phase nobody knows, and of the preparation
            rate_hz = float(recording.rate_hz or 0)
            span_ms = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
            start_ms = min(BASELINE_MS, times_ms[0])
            settings = {"epoch_ms": (start_ms, span_ms[1]), "keep_ms": span_ms, "rate_hz": rate_hz}
            settings |= {key: value for key, value in steps.items() if key in Steps.model_fields}
            recorded_hz = float(source.get("recorded_hz", rate_hz))
            bands = [source.get("filtered_hz"), steps.get("band_hz")]
            filters = []
            for band, phase in zip(bands, ["zero", steps.get("phase", "zero")], strict=True):
                if band:  # an edge of None lets everything pass
                    low, high = band
                    edges = low or None, high if high and high < 0.49 * recorded_hz else None
                    filters.append((edges, phase))

            # a long recording with an effect in its middle, cut as if it began at each sample of a trial
            settings |= {"whiten": "no", "whiten_by": "training"}
            cutting = Cutting(Steps.model_validate(settings), recorded_hz)
            lowest_hz = min((low for (low, _), _ in filters if low), default=PERIODS)
            half = round(recorded_hz * (PERIODS / lowest_hz + 4))
            onsets = half - np.rint(times_ms * recorded_hz / 1000).astype(np.int64)
            begun = times_ms.copy()
            for length_ms in EFFECTS_MS:
                effect = tukey(round(length_ms * recorded_hz / 1000), 2 * RAMP_MS / length_ms)
                samples = np.zeros(2 * half)
                samples[half : half + len(effect)] = effect
                for edges, phase in filters:
                    samples = filter_samples(samples, recorded_hz, edges, phase)
                shown = np.abs(cutting.cut([samples], ["effect"], onsets, 1.0)[:, 0])  # [effects, T]
                is_shown = shown >= LEAK * np.abs(samples).max()
                begun = np.maximum(begun, np.where(is_shown, times_ms[:, None], -np.inf).max(0))

            # an effect that shows earlier may show here; nothing is known of effects after the trial
            begun = np.maximum.accumulate(begun)
            latest.append(np.where((begun < times_ms[-1]) | (begun <= times_ms), begun, np.inf))
        elif "simulated" in source and not steps:  # signals of a program, which nothing filtered
            latest.append(times_ms)
        else:
            latest.append(np.full(len(times_ms), np.nan))
    return np.max(latest, 0)


def describe_profiles(
    groups: Sequence[Sequence[SubjectProfiles]],
    pictures: Items,
    protocol: str,
    split: str,
    seeds: Sequence[int],
) -> list[Finding]:
    """Describe every profile over all subjects; positions that not all have, as regions, are left out.

    Args:
        groups: What was measured, by subject, of its cells.
        pictures: One list: those that all subjects were shown, and which of them are alike; no others count.
        protocol: Of the metrics.
        split: Whose signals were explained.
        seeds: Of the trainings.
    """
    parts = [part for group in groups for part in group]
    described, options = [], {"protocol": protocol, "split": split, "items": for_all(pictures, len(groups))}

    # rows of the shared pictures among the items of each cell and subject
    rows = [[locate(part.image_ids, pictures.ids[0]) for part in group] for group in groups]

    # profiles that all have, at the positions and of the items that all share
    for name in parts[0].profiles:
        if all(name in part.profiles for part in parts):
            positions = [part.profiles[name].axis.at for part in parts]
            at = [position for position in positions[0] if all(position in axis for axis in positions)]
            profiles = [
                [part.profiles[name].take(at, items) for part, items in zip(group, listed, strict=True)]
                for group, listed in zip(groups, rows, strict=True)
            ]
            described.append(_describe(name.partition(":")[0], profiles, seeds, options))
    return described


def _describe(
    name: str, groups: Sequence[Sequence[Profile]], seeds: Sequence[int], options: Mapping[str, Any]
) -> Finding:
    """Describe one profile of all cells, by subject; all have the same positions and items."""
    # the measured values, by subject
    first, profiles = groups[0][0], [profile for group in groups for profile in group]
    options = {"pool": first.pool or None, "chance": first.chance, **options}
    options["limits"] = (0.0, 1.0) if first.pool else CORRELATIONS.get(first.metric, (None, None))
    is_share = None if first.metric.startswith("top") else False
    values = [np.stack([profile.values for profile in group]) for group in groups]  # [S, P, N]
    measured = measure_each(first.metric, values, seeds=seeds, is_share=is_share, **options)

    # controls: permuted labels, and what was measured once with shuffled ones
    finding = Finding(name, first.axis, measured, {})
    if all(len(profile.null) for profile in profiles):
        null = np.mean([np.mean([profile.null for profile in group], 0) for group in groups], 0)
        finding = compare_permutations(name, first.axis, measured, null)
    if all(profile.shuffled.size for profile in profiles):
        kind = TRAINED if finding.scores is not None or name.startswith("encoding") else SHUFFLED
        shuffled = [np.stack([profile.shuffled for profile in group]) for group in groups]
        options["protocol"] += f", {kind}"
        control = measure_each(first.metric, shuffled, is_share=False, **options)
        finding = replace(finding, controls={**finding.controls, kind: control})
    return finding


def for_all(pictures: Items, subjects: int) -> Items:
    """Repeat one list of pictures for so many subjects."""
    strata = None if pictures.strata is None else [*pictures.strata] * subjects
    return replace(
        pictures, ids=[*pictures.ids] * subjects, units=[*pictures.units] * subjects, strata=strata
    )


def compare_permutations(
    name: str, axis: Axis, measured: list[Metric], null: Float64, values: Float64 | None = None
) -> Finding:
    """Compare metrics with their control of permuted labels, and describe that control as metrics.

    Args:
        name: See `Finding`.
        axis: See `Finding`.
        measured: [P].
        null: [K, P] the same with the labels permuted.
        values: [P] what is compared with the control; default: the values of the metrics.
    """
    statistic = np.array([metric.value for metric in measured]) if values is None else values
    method = f"the middle 95 % of {len(null)} permutations of the labels"
    numbers = np.stack([null.mean(0), *np.percentile(null, ENDS, 0)], 1).tolist()  # [P, 3]
    control = [
        replace(
            metric,
            value=mean,
            low=low,
            high=high,
            protocol=f"{metric.protocol}, {SHUFFLED}",
            interval=method,
            these_subjects=None,
            people=None,
            seed_sd=None,
        )
        for metric, (mean, low, high) in zip(measured, numbers, strict=True)
    ]
    return Finding(name, axis, measured, {SHUFFLED: control}, standardise(statistic, null))


def describe_similarity(similarity: Similarity, pictures: Items, protocol: str, split: str) -> list[Finding]:
    """Describe the correlation with each level, and the partial one given all other levels."""
    described = []
    kinds = {RHO: similarity.whole}
    if len(similarity.models) > 1:
        kinds[UNIQUE_RHO] = similarity.unique
    for metric, correlations in kinds.items():
        for number, model in enumerate(similarity.models):
            subjects = [np.asarray(values[number], np.float64) for values in correlations.items]  # [T, N]
            items = for_all(pictures, len(subjects))
            options: Any = {"protocol": protocol, "split": split, "items": items, "limits": (-1.0, 1.0)}
            measured = measure_each(metric, subjects, chance=0.0, is_share=False, **options)

            # the test is of correlations [T] averaged over subjects, as the control is
            values, null = correlations.values[:, number].mean(0), correlations.null[:, number]
            name = scope(SIMILARITY, model)
            described.append(compare_permutations(name, similarity.axis, measured, null, values))
    return described


def ceiling_scopes(similarity: Similarity, pictures: Items, protocol: str, split: str) -> Scopes:
    """Describe the ceilings of similarity as metrics, by scope."""
    scopes: Scopes = {}
    context = (pictures.size, None, None, None, None, (), protocol, split, "none")
    ceilings = zip(similarity.lower, similarity.upper, strict=True)
    for label, ends in zip(similarity.axis.labels, ceilings, strict=True):
        name = scope(SIMILARITY, label)
        for metric, value in zip(("ceiling_lower", "ceiling_upper"), ends, strict=True):
            if np.isfinite(value):
                scopes.setdefault(name, {})[metric] = Metric(metric, float(value), *context)
    return scopes


def summary_table(results: Findings, title: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        # the strongest value, the control there, and the first time above chance
        peak = finding.peak
        top, control = finding.measured[peak], next(iter(finding.controls.values()), None)
        numbers = (f"{top.value:.3f}", top.interval_text())
        control_value = "–" if control is None else f"{control[peak].value:.3f}"
        names = (finding.name, shown(finding.metric), finding.axis.where(peak))
        rows.append((*names, *numbers, control_value, finding.p_at_peak, finding.onset or "–"))
    columns = ("analysis", "metric", "strongest", "value", "95 % CI", "control", "p", FIRST_ABOVE)
    return Table(title, columns, rows, section=SECTION)
