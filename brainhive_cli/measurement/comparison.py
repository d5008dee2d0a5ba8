"""Whether two runs, or two sources of one, differ on the same items and subjects, and by how much."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import set_up
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import LEVEL, Difference, RetrievalFacts
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.measurement.metric_names import lower_is_better
from brainhive_cli.measurement.signs import flip_signs
from brainhive_cli.measurement.statistics import Values, describe, scatter_of_means
from brainhive_cli.measurement.units import MANY_SUBJECTS, Items, fold_null_inflation

Ranks = NDArray[np.integer[Any]]
ROUNDING = 1e-12
"""Differences below this are none."""
AT_LIMITS = 0.5
"""Least share of items that both sides have at 0 or 1, where a difference is one of hits."""
OWN_FREEDOM = 4
"""Power of the share of subjects' variance that their own noise explains, by which that variance gains
degrees of freedom: subjects who hardly differ are then tested as items are. Of powers 1 to 8 the one that has
most power while a true null is rejected in at most .06 (`benchmarks/simulated_statistics.py`)."""
FOLDS = "folds of inter share training subjects: they vary together, and p may be too small"
"""The limit where each subject is tested on a model of the others."""


def compare(first: Sequence[Ranks], second: Sequence[Ranks], *, items: Items | None = None) -> Difference:
    """Compare two runs by how often they rank the seen image first.

    An item's value is its share of hits over seeds.

    Args:
        first: Ranks [S, N] of S seeds and N items, one array a subject; or [N].
        second: Ranks of the same items and subjects; the number of seeds may be another.
        items: See `statistics.describe`.

    Raises:
        BrainhiveError: if subjects or items are not the same in number.
    """
    # hits [S, N] of each subject, by side
    hits = [[(np.atleast_2d(group) == 1) * 1.0 for group in groups] for groups in (first, second)]
    compared = compare_values(hits[0], hits[1], items=items)
    # counts of items are whole numbers with one seed only
    if any(len(group) > 1 for side in hits for group in side):
        return compared
    joined = np.concatenate(
        [first_hits[0] - second_hits[0] for first_hits, second_hits in zip(*hits, strict=True)]
    )
    only = {"only_first": int((joined > 0).sum()), "only_second": int((joined < 0).sum())}
    return compared.model_copy(update=only)


def compare_values(
    first: Sequence[Values], second: Sequence[Values], *, items: Items | None = None
) -> Difference:
    """Compare two runs by values of any kind, [S, N] or [N].

    To four subjects the question is whether the runs differ in these subjects: signs of the units' paired
    differences are flipped, alike for all subjects. From five it is about people and items: a t test with
    crossed variances. The interval is the inversion of the test, so that they never disagree.

    Args:
        first: Values [S, N] of S seeds and N items, one array a subject; or [N].
        second: Values of the same items and subjects; the number of seeds may be another.
        items: See `statistics.describe`.

    Raises:
        BrainhiveError: if subjects or items are not the same in number.

    Source: Clark 1973, The language-as-fixed-effect fallacy; Cohen 1988 (d_z).
    """
    # values of the same items in the same order
    groups = [[np.atleast_2d(np.asarray(group, np.float64)) for group in side] for side in (first, second)]
    # paired by position, so items must be as many in each subject
    sizes = [[group.shape[-1] for group in side] for side in groups]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise BrainhiveError(
            f"items by subject {sizes[0]} and {sizes[1]} cannot be paired", "compare runs of the same items"
        )

    # paired differences, averaged over seeds
    items = items or Items.unnamed(sizes[0])
    pairs = [np.stack([group.mean(0) for group in pair]) for pair in zip(*groups, strict=True)]  # [2, N]
    differences = [pair[0] - pair[1] for pair in pairs]
    subject_means = np.array([difference.mean() for difference in differences])
    subjects, counted = len(subject_means), f"{items.count} {items.kind}"
    if items.inflation > 1:  # two that are equally good differ as much as one from chance without an effect
        items = replace(items, inflation=fold_null_inflation(differences, 2))
        counted += ", in folds that share training data"

    # about these subjects, or people in general
    about, p, least_p = f"{items.scope} and " if items.scope else "", None, 0.0
    low, high = None, None
    if subjects < MANY_SUBJECTS:
        flips = flip_signs(differences, items)
        people = "this subject" if subjects == 1 else f"these {subjects} subjects"
        test = f"sign flips over {counted}, for {about}{people}"
        p, least_p, low, high = flips.p, flips.least_p, flips.low, flips.high
    else:
        p, low, high = crossed_t(differences, items)
        test = f"t over {subjects} subjects and {counted}, for {about}people in general"
    interval = f"inversion of: {test}"

    # too few units have neither; shares that are nearly all at a limit hardly show how they vary
    values = np.concatenate(pairs, 1)
    are_shares = ((values >= 0) & (values <= 1)).all() and np.isin(values, (0, 1)).all(0).mean() >= AT_LIMITS
    if items.shortage:
        p = low = high = None
        test = interval = f"none: {items.shortage}"
    elif are_shares and low is not None and high is not None:
        low, high = _widen(low, high, differences, items)
        interval += ", no narrower than that of paired shares"

    # effect size over subjects, who must differ
    mean, effect = float(subject_means.mean()), None
    if np.ptp(subject_means) > ROUNDING:
        effect = float(subject_means.mean() / subject_means.std(ddof=1))
    size = sum(map(len, differences))
    return Difference(
        difference=mean,
        low=low,
        high=high,
        interval=interval,
        n=size,
        subjects=subjects,
        p_value=p,
        test=test,
        least_p=least_p,
        cohens_dz=effect,
    )


def _widen(low: float, high: float, differences: Sequence[Values], items: Items) -> tuple[float, float]:
    """Widen an interval of a difference of shares to that which hits alone allow, also where none differ.

    The shares by which either side is larger, and their intervals, are subtracted as correlated estimates. An
    interval that excludes 0 keeps its end on that side, so that it agrees with its test.

    Source: Newcombe 1998, Improved confidence intervals for the difference between binomial proportions based
    on paired data; Zou and Donner 2008 (intervals of differences from those of their terms).
    """
    # shares by which either side is larger, and how far their intervals reach below and above: [2] each
    sides = [[np.maximum(sign * group, 0) for group in differences] for sign in (1, -1)]
    described = [describe(side, items, limits=(0.0, 1.0)) for side in sides]
    ends = np.array([each.these_subjects or (each.low, each.high) for each in described], np.float64)
    rows = [np.stack(group) for group in zip(*sides, differences, strict=True)]
    scatters = scatter_of_means(rows, items)
    below, above = np.abs(ends.T - [scatter.estimates.mean() for scatter in scatters[:2]])

    # correlation of the two, which exclude each other
    upper, less, together = (scatter.together for scatter in scatters)
    error = np.sqrt(upper * less)
    correlation = np.clip((upper + less - together) / (2 * error), -1, 0) if error else 0.0
    reaches = [
        np.sqrt(a**2 + b**2 - 2 * correlation * a * b) for a, b in zip(below, above[::-1], strict=True)
    ]
    mean = float(scatters[2].estimates.mean())
    wide_low, wide_high = min(low, mean - reaches[0]), max(high, mean + reaches[1])
    if low <= 0 <= high:
        return wide_low, wide_high
    return (low if wide_low <= 0 < low else wide_low), (high if high < 0 <= wide_high else wide_high)


def crossed_t(differences: Sequence[Values], items: Items) -> tuple[float | None, float | None, float | None]:
    """Test over people and units of items that the mean difference is 0; both vary, and are crossed.

    The variance of the mean is that of subjects and, on top, the covariance that shared units give them. Its
    degrees of freedom are Satterthwaite's, of subjects and of units; where the noise of single items explains
    how subjects differ, these add as few doubts as items do.

    Args:
        differences: Of the items [N], one array a subject; two subjects at least.
        items: See `statistics.describe`.

    Returns:
        p, and both ends of the 95 % interval; None where all items are of one unit, the interval also where
        all subjects differ by the same and are too few to say so at .05.
    """
    from scipy.stats import t

    if items.count == 1:
        return None, None, None

    # variance of the mean: subjects, and what shared units add
    (scatter,) = scatter_of_means([group[None] for group in differences], items)
    subjects, mean = len(differences), float(scatter.estimates.mean())
    subject_variance, shared = scatter.subject_variance, scatter.shared
    variance = subject_variance + shared
    if variance < ROUNDING**2:  # all differ by the same: what signs alone say, without an interval above .05
        if abs(mean) < ROUNDING:
            return 1.0, 0.0, 0.0
        p = 2.0 ** (1 - subjects)
        return (p, mean, mean) if p <= LEVEL else (p, None, None)

    # Satterthwaite's freedom
    noise = (scatter.own / subject_variance) ** OWN_FREEDOM if subject_variance else 0.0
    doubt = subject_variance**2 * ((1 - noise) / (subjects - 1) + noise / (subjects * scatter.freedom))
    freedom = variance**2 / (doubt + shared**2 / scatter.freedom)

    # t test, and the interval that is its inversion
    error = float(np.sqrt(variance))
    reach = float(t.ppf(1 - LEVEL / 2, freedom)) * error
    return float(2 * t.sf(abs(mean) / error, freedom)), mean - reach, mean + reach


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several comparisons for their false discovery rate; None stays None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    # untested comparisons have no part in the number of tests
    tested = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(tested).tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]


CellItems = Mapping[str, Any]
"""Image ids, units, and lists of their values by name, of one cell."""


class Side(NamedTuple):
    """One side of a comparison: a run, or a source of it, and what messages call it."""

    run: Measurements
    name: str
    source: str | None = None

    @property
    def protocol(self) -> str:
        """Size and origin of the media of its source."""
        return next(iter(self.run.scopes[str(self.source)].values())).protocol

    @property
    def subjects(self) -> dict[Any, list[CellItems]]:
        """Cells of each subject, of several seeds; None for pictures that come from no signal."""
        cells: dict[Any, list[CellItems]] = {}
        for scope, cell in self.run.facts.cells.items():
            if self.source is None or cell.source == self.source:
                cells.setdefault(cell.subject, []).append(self.run.items[scope])
        return cells

    def cells_of(self, subject: Any) -> list[CellItems]:
        """Choose the cells of a subject; what is of no subject is compared with all of them."""
        subjects = self.subjects
        if subject not in subjects and None not in subjects:
            known = ", ".join(map(str, subjects))
            raise BrainhiveError(
                f"{self.name} has no subject {subject}, but {known}", "compare runs of the same subjects"
            )
        return subjects[subject if subject in subjects else None]


def compare_ranks(
    pairs: Mapping[tuple[str, str], tuple[Measurements, Measurements]],
) -> tuple[list[Difference], list[BrainhiveError]]:
    """Compare the ranks of pairs of runs, by their labels; p values are adjusted over all pairs.

    Returns:
        The differences in top-1, and why other pairs cannot be compared: as they were tested among other
        pictures, on other subjects or items.
    """
    compared, errors = [], []
    # one row a pair; a pair that cannot be compared is a reason, no failure
    for (first, second), pair in pairs.items():
        try:
            shared = {"first": first, "second": second, "metric": "top1", "caveats": pair[1].caveats}
            compared.append(_compare_ranks(*pair).model_copy(update=shared))
        except BrainhiveError as error:
            errors.append(error)
    return adjust_together(pair=compared)[0], errors


def _compare_ranks(first: Measurements, second: Measurements) -> Difference:
    """Compare the ranks of two runs; BrainhiveError if they were tested on different items."""
    _check_galleries(first, second)
    subjects = [Side(run, run.facts.run).subjects for run in (first, second)]

    # items of each subject, sorted by image id
    ids, units = [], []
    for cells in subjects[0].values():
        pairs = sorted(zip(cells[0]["image_ids"], cells[0]["units"], strict=True))
        ids.append([image_id for image_id, _ in pairs])
        units.append([unit for _, unit in pairs])
    items = _group(first, ids, units)

    # ranks [S, N] of the cells of each subject in the same order
    sides = []
    for cells_of in subjects:
        ranks = []
        for subject in subjects[0]:
            orders = [np.argsort(cell["image_ids"], kind="stable") for cell in cells_of[subject]]
            sorted_cells = zip(cells_of[subject], orders, strict=True)
            ranks.append(np.array([np.asarray(cell["ranks"])[order] for cell, order in sorted_cells]))
        sides.append(ranks)
    result = compare(*sides, items=items)
    return result.model_copy(update=_limits(first, second, result.subjects))


def _check_galleries(first: Measurements, second: Measurements) -> None:
    """Refuse runs that were tested on other candidates, subjects or items."""
    # candidates
    runs = [first.facts.run, second.facts.run]
    galleries = [run.facts_of(RetrievalFacts).gallery for run in (first, second)]
    if galleries[0] != galleries[1]:
        shown = [
            f"{run} ({gallery.pictures} pictures of {gallery.dataset}, digest {gallery.digest})"
            for run, gallery in zip(runs, galleries, strict=True)
            if gallery
        ]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} were tested on different galleries", "compare on the same pictures"
        )

    # subjects, and items of each
    subjects = [Side(run, "").subjects for run in (first, second)]
    if subjects[0].keys() != subjects[1].keys():
        shown = [f"{run} ({', '.join(cells)})" for run, cells in zip(runs, subjects, strict=True)]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} have different subjects", "give --subjects both have"
        )
    for subject, cells in subjects[0].items():
        if sorted(cells[-1]["image_ids"]) != sorted(subjects[1][subject][-1]["image_ids"]):
            raise BrainhiveError(
                f"{runs[0]} and {runs[1]} were tested on different items of {subject}",
                "compare on the same split",
            )


def compare_sources(run: Measurements) -> list[Difference]:
    """Compare the first source with each other one of the same run, in every metric."""
    first, *rest = (Side(run, source, source) for source in run.facts.sources)
    return adjust_together(source=[row for side in rest for row in _compare_metrics(first, side)])[0]


def adjust_together(**groups: Sequence[Difference]) -> list[list[Difference]]:
    """Adjust the p values of all differences that stand on one page.

    Args:
        groups: Differences by what is compared with: `source`, `run`, `variant`, `pair`.

    Returns:
        Each group, with `p_adjusted`, the number of `tests`, and what they are of.
    """
    # how many tests there are, and of what: metrics × pairs
    differences = list(itertools.chain.from_iterable(groups.values()))
    p_values = [row.p_value for row in differences]
    tests, metrics = sum(p is not None for p in p_values), len({row.metric for row in differences})
    pairs = {noun: len({(row.first, row.second) for row in group}) for noun, group in groups.items()}
    counts = [f"{count} {noun}{'s' * (count > 1)}" for noun, count in pairs.items() if count]
    pairs_in_words = counts[0] if len(counts) == 1 else f"({' + '.join(counts)})"
    of = f"{metrics} metric{'s' * (metrics > 1)} × {pairs_in_words}"
    of += "" if tests == metrics * sum(pairs.values()) else ", as far as they could be tested"

    # each difference with its own p, in the same order
    adjusted = iter(benjamini_hochberg(p_values))
    return [
        [
            row.model_copy(update={"p_adjusted": next(adjusted), "tests": tests, "tests_of": of})
            for row in group
        ]
        for group in groups.values()
    ]


def compare_runs(
    run: Measurements, name: str, runs: Mapping[str, Measurements], noun: str = "run"
) -> tuple[list[Difference], list[BrainhiveError]]:
    """Compare the first source of a run with that of others, by name; `noun` is what these are called.

    Returns:
        The differences, and why other runs cannot be compared: as they were measured by another protocol, or
        on other subjects or items.
    """
    # the run against each other one that was measured by the same protocol
    run_items = [(name, run), *runs.items()]
    first, *rest = (Side(shown, label, shown.facts.sources[0]) for label, shown in run_items)

    # reasons why a run cannot be compared are collected
    compared: list[Difference] = []
    errors = []
    for side in rest:
        sizes = [pair.protocol.split(",")[0] for pair in (first, side)]
        try:
            if sizes[0] != sizes[1]:
                raise BrainhiveError(
                    f"{name} was measured by {sizes[0]}, {side.name} by {sizes[1]}",
                    "measure both by one protocol",
                )
            caveats = {"caveats": side.run.caveats}
            compared += [row.model_copy(update=caveats) for row in _compare_metrics(first, side)]
        except BrainhiveError as error:
            errors.append(error)
    return adjust_together(**{noun: compared})[0], errors


def _compare_metrics(first: Side, second: Side) -> list[Difference]:
    """Compare by every metric that both have."""
    # cells of the same subjects; pictures that come from no signal are compared with all
    names, hint = f"{first.name} and {second.name}", "compare runs of the same items"
    known_subjects = {**first.subjects, **second.subjects}
    subjects = [subject for subject in known_subjects if subject is not None] or [None]
    pairs = [(first.cells_of(subject), second.cells_of(subject)) for subject in subjects]

    # items that both have; they differ only where a subject is missing on one side
    ids = []
    for subject, (first_cells, second_cells) in zip(subjects, pairs, strict=True):
        first_ids, second_ids = first_cells[0]["image_ids"], {*second_cells[0]["image_ids"]}
        ids.append([image_id for image_id in first_ids if image_id in second_ids])
        difference = {*first_ids} ^ second_ids
        if difference and subject in first.subjects and subject in second.subjects:
            raise BrainhiveError(f"{names} are of different items: {min(difference)} is of one only", hint)
    if not all(ids):
        raise BrainhiveError(f"{names} have no item in common", hint)

    # metrics that both have
    common = pairs[0][0][0].keys() & pairs[0][1][0].keys() - {"image_ids", "units"}
    metrics = [name for name in pairs[0][0][0] if name in common]
    if not metrics:
        raise BrainhiveError(f"{names} have no metric in common", "measure both by one metric")

    # unit of each item
    unit_of: dict[str, str] = {}
    for scope in first.run.facts.cells:
        cell = first.run.items[scope]
        unit_of.update(zip(cell["image_ids"], cell["units"], strict=True))
    items = _group(first.run, ids, [[unit_of[image_id] for image_id in listed] for listed in ids])

    # compare the items that have a value on both sides
    compared, limits = [], _limits(first.run, second.run, len(subjects))
    for name in metrics:
        values = [  # [S, N] of each subject, by side
            [_collect_values(cells, subject_ids, name) for cells, subject_ids in zip(side, ids, strict=True)]
            for side in zip(*pairs, strict=True)
        ]
        has_value = [~np.isnan(np.concatenate(pair)).any(0) for pair in zip(*values, strict=True)]
        if any(has.any() for has in has_value):
            chosen = [
                [group[:, has] for group, has in zip(side, has_value, strict=True) if has.any()]
                for side in values
            ]
            shared = {"first": first.name, "second": second.name, "metric": name, **limits}
            shared["lower_is_better"] = lower_is_better(name)
            result = compare_values(*chosen, items=items.where(has_value))
            compared.append(result.model_copy(update=shared))
    if not compared:
        raise BrainhiveError(f"{names} have no item in common", hint)
    return compared


def _group(run: Measurements, ids: Sequence[Sequence[str]], units: Sequence[Sequence[str]]) -> Items:
    """Group items as a run did."""
    # units, scope and inflation are those that the run was measured with
    facts = run.facts
    return Items(ids, units, facts.units, scope=facts.scope, inflation=facts.inflation)


def _limits(first: Measurements, second: Measurements, subjects: int) -> dict[str, Any]:
    """Say whom a difference is about, what limits it, and in what the set-ups of two runs differ."""
    set_ups, limits = [run.facts.set_up for run in (first, second)], []
    if differing := set_up.differences(set_ups[0], set_ups[1], set_up.SIGNALS):
        limits.append(f"the two were tested on other signals: {', '.join(differing)}")
    if subjects > 1 and any("inter" in run.facts.mode.split(" + ") for run in (first, second)):
        limits.append(FOLDS)
    return {"scope": first.facts.scope, "limits": limits, "differs": set_up.differences(*set_ups)}


def _collect_values(cells: Sequence[CellItems], ids: Sequence[str], metric: str) -> Float64:
    """Collect the values of items [S, N], one row a cell; NaN where an item has none."""
    # an item without a value becomes NaN, which pairs leave out
    absent = [None] * len(cells[0]["image_ids"])
    values = [dict(zip(cell["image_ids"], cell.get(metric, absent), strict=True)) for cell in cells]
    return np.array([[value_of[image_id] for image_id in ids] for value_of in values], np.float64)
