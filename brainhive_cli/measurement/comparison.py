"""Whether two runs, or two sources of one, differ on the same items and subjects, and
by how much.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import (
    SIGNAL_KEYS,
    SIGNIFICANCE_LEVEL,
    Difference,
    RetrievalFacts,
    list_differences,
)
from brainhive_cli.core.measurements import (
    Measurements,
    lower_is_better,
    merge_caveats,
)
from brainhive_cli.measurement.statistics import (
    ValueArray,
    estimate_interval,
    estimate_mean_variance,
    flip_signs,
)
from brainhive_cli.measurement.units import (
    MIN_SUBJECTS_FOR_POPULATION,
    Items,
    fold_null_inflation,
)

RankArray = NDArray[np.number[Any]]
ROUNDING = 1e-12
"""Differences below this are none."""
AT_LIMITS = 0.5
"""Least share of items that both sides have at 0 or 1, where a difference is one of
hits.
"""
OWN_FREEDOM = 4
"""Power of the share of subjects' variance that their own noise explains, by which that
variance gains degrees of freedom: subjects who hardly differ are then tested as items
are. Of powers 1 to 8 the one that has most power while a true null is rejected in at
most .06 (`benchmarks/simulated_statistics`).
"""
FOLDS = (
    "folds of inter share training subjects: they vary together, and p may be too small"
)
"""The limit where each subject is tested on a model of the others."""


def compare_hits(
    first: Sequence[RankArray],
    second: Sequence[RankArray],
    *,
    items: Items | None = None,
) -> Difference:
    """Compare two runs by how often they rank the seen image first.

    An item's value is its share of hits over seeds.

    Args:
        first: Ranks [S, N] of S seeds and N items, one array a subject; or [N].
        second: Ranks of the same items and subjects; the number of seeds may be
            another.
        items: See `statistics.estimate_interval`.
    """
    # hits [S, N] of each subject, by side
    hits = [
        [(np.atleast_2d(group) == 1) * 1.0 for group in groups]
        for groups in (first, second)
    ]
    return compare_values(hits[0], hits[1], items=items)


def compare_values(
    first: Sequence[ValueArray],
    second: Sequence[ValueArray],
    *,
    items: Items | None = None,
) -> Difference:
    """Compare two runs by values of any kind, [S, N] or [N].

    To four subjects the question is whether the runs differ in these subjects: signs of
    the units' paired differences are flipped, alike for all subjects. From five it is
    about people and items: a t test with crossed variances. The interval is the
    inversion of the test, so that they never disagree.

    Args:
        first: Values [S, N] of S seeds and N items, one array a subject; or [N].
        second: Values of the same items and subjects; the number of seeds may be
            another.
        items: See `statistics.estimate_interval`.

    Source: Clark 1973, The language-as-fixed-effect fallacy; Cohen 1988 (d_z).
    """
    # values averaged over seeds, paired by position
    means = [
        [np.atleast_2d(np.asarray(group, np.float64)).mean(0) for group in side]
        for side in (first, second)
    ]
    sizes = [len(group) for group in means[0]]
    items = items or Items.from_sizes(sizes)
    differences = [one - other for one, other in zip(*means, strict=True)]
    subject_means = np.array([difference.mean() for difference in differences])
    subjects = len(subject_means)
    counted = f"{items.n_units} {items.kind}"
    # two that are equally good differ as much as one from chance without an effect
    if items.inflation > 1:
        items = replace(items, inflation=fold_null_inflation(differences, 2))
        counted += ", in folds that share training data"

    # about these subjects, or people in general
    about = f"{items.scope} and " if items.scope else ""
    least_p = 0.0
    p: float | None
    if subjects < MIN_SUBJECTS_FOR_POPULATION:
        flips = flip_signs(differences, items)
        p = flips.p
        least_p = flips.least_p
        low = flips.low
        high = flips.high
        people = "this subject" if subjects == 1 else f"these {subjects} subjects"
        test = f"sign flips over {counted}, for {about}{people}"
    else:
        p, low, high = crossed_t_test(differences, items)
        test = f"t over {subjects} subjects and {counted}, for {about}people in general"
    interval = f"inversion of: {test}"

    # too few units have neither; shares that are nearly all at a limit hardly show how
    # they vary
    values = np.stack([np.concatenate(side) for side in means])  # [2, N]
    are_shares = ((values >= 0) & (values <= 1)).all() and np.isin(values, (0, 1)).all(
        0
    ).mean() >= AT_LIMITS
    if items.shortage:
        p = low = high = None
        test = interval = f"none: {items.shortage}"
    elif are_shares and low is not None and high is not None:
        low, high = _widen(low, high, differences, items)
        interval += ", no narrower than that of paired shares"

    # effect size over subjects, who must differ
    mean = float(subject_means.mean())
    effect = None
    if np.ptp(subject_means) > ROUNDING:
        effect = float(subject_means.mean() / subject_means.std(ddof=1))
    return Difference(
        difference=mean,
        low=low,
        high=high,
        interval=interval,
        n=sum(sizes),
        subjects=subjects,
        p_value=p,
        test=test,
        least_p=least_p,
        cohens_dz=effect,
    )


def _widen(
    low: float, high: float, differences: Sequence[ValueArray], items: Items
) -> tuple[float, float]:
    """Widen an interval of a difference of shares to that which hits alone allow, also
    where none differ.

    The shares by which either side is larger, and their intervals, are subtracted as
    correlated estimates. An interval that excludes 0 keeps its end on that side, so
    that it agrees with its test.

    Source: Newcombe 1998, Improved confidence intervals for the difference between
    binomial proportions based on paired data; Zou and Donner 2008 (intervals of
    differences from those of their terms).
    """
    # shares by which either side is larger, and how far their intervals reach below and
    # above: [2] each
    sides = [[np.maximum(sign * group, 0) for group in differences] for sign in (1, -1)]
    described = [estimate_interval(side, items, limits=(0.0, 1.0)) for side in sides]
    ends = np.array(
        [each.these_subjects or (each.low, each.high) for each in described], np.float64
    )
    scatters = [
        estimate_mean_variance(values, items) for values in (*sides, differences)
    ]
    below, above = np.abs(
        ends.T - [scatter.estimates.mean() for scatter in scatters[:2]]
    )

    # correlation of the two, which exclude each other
    upper, less, together = (scatter.variance for scatter in scatters)
    error = np.sqrt(upper * less)
    correlation = (
        np.clip((upper + less - together) / (2 * error), -1, 0) if error else 0.0
    )
    reaches = [
        np.sqrt(a**2 + b**2 - 2 * correlation * a * b)
        for a, b in zip(below, above[::-1], strict=True)
    ]
    mean = float(scatters[2].estimates.mean())
    wide_low = min(low, mean - reaches[0])
    wide_high = max(high, mean + reaches[1])
    if low <= 0 <= high:
        return wide_low, wide_high
    return (low if wide_low <= 0 < low else wide_low), (
        high if high < 0 <= wide_high else wide_high
    )


def crossed_t_test(
    differences: Sequence[ValueArray], items: Items
) -> tuple[float | None, float | None, float | None]:
    """Test over people and units of items that the mean difference is 0; both vary, and
    are crossed.

    The variance of the mean is that of subjects and, on top, the covariance that shared
    units give them. Its degrees of freedom are Satterthwaite's, of subjects and of
    units; where the noise of single items explains how subjects differ, these add as
    few doubts as items do.

    Args:
        differences: Of the items [N], one array a subject; two subjects at least.
        items: See `statistics.estimate_interval`.

    Returns:
        p, and both ends of the 95 % interval; None where all items are of one unit, the
        interval also where all subjects differ by the same and are too few to say so at
        .05.
    """
    from scipy.special import stdtr, stdtrit

    if items.n_units == 1:
        return None, None, None

    # variance of the mean: subjects, and what shared units add
    scatter = estimate_mean_variance(differences, items)
    subjects = len(differences)
    mean = float(scatter.estimates.mean())
    subject_variance = scatter.subject_variance
    shared = scatter.covariance
    variance = subject_variance + shared
    # all differ by the same: what signs alone say, without an interval above .05
    if variance < ROUNDING**2:
        if abs(mean) < ROUNDING:
            return 1.0, 0.0, 0.0
        p = 2.0 ** (1 - subjects)
        return (p, mean, mean) if p <= SIGNIFICANCE_LEVEL else (p, None, None)

    # Satterthwaite's freedom
    noise = (
        (scatter.noise_variance / subject_variance) ** OWN_FREEDOM
        if subject_variance
        else 0.0
    )
    doubt = subject_variance**2 * (
        (1 - noise) / (subjects - 1) + noise / (subjects * scatter.dof)
    )
    freedom = variance**2 / (doubt + shared**2 / scatter.dof)

    # t test, and the interval that is its inversion
    error = float(np.sqrt(variance))
    reach = float(stdtrit(freedom, 1 - SIGNIFICANCE_LEVEL / 2)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error))
    return p, mean - reach, mean + reach


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several comparisons for their false discovery rate; None
    stays None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    # untested comparisons have no part in the number of tests
    tested = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(tested).tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]


CellItems = Mapping[str, Any]
"""Image ids, units, and lists of their values by name, of one cell."""
ComparedSide = tuple[Measurements, str, str]
"""One side of a comparison: a run, what messages call it, and the source that is
compared.
"""


def _list_cells(
    run: Measurements, source: str | None = None
) -> dict[Any, list[CellItems]]:
    """List the cells of each subject, of several seeds; None for pictures that come
    from no signal.
    """
    cells = defaultdict[Any, list[CellItems]](list)
    for scope, cell in run.facts.cells.items():
        if source is None or cell.source == source:
            cells[cell.subject].append(run.items[scope])
    return dict(cells)


def compare_ranks(
    pairs: Mapping[tuple[str, str], tuple[Measurements, Measurements]],
) -> tuple[list[Difference], list[BrainhiveError]]:
    """Compare the ranks of pairs of runs, by their labels; p values are adjusted over
    all pairs.

    Returns:
        The differences in top-1, and why other pairs cannot be compared: as they were
        tested among other pictures, on other subjects or items.
    """
    compared = []
    errors = []
    # one row a pair; a pair that cannot be compared is a reason, no failure
    for (first, second), pair in pairs.items():
        try:
            shared = {
                "first": first,
                "second": second,
                "metric": "top1",
                "caveats": merge_caveats(*(side.caveats for side in pair)),
            }
            compared.append(_compare_ranks(*pair).model_copy(update=shared))
        except BrainhiveError as error:
            errors.append(error)
    return adjust_together(pair=compared)[0], errors


def _compare_ranks(first: Measurements, second: Measurements) -> Difference:
    """Compare the ranks of two runs; BrainhiveError if they were tested on different
    items.
    """
    # the same candidates, and the same items of each subject, sorted by image id
    runs = [first.facts.run, second.facts.run]
    galleries = [run.facts_of(RetrievalFacts).gallery for run in (first, second)]
    if galleries[0] != galleries[1]:
        problem = f"{runs[0]} and {runs[1]} were tested on different galleries"
        raise BrainhiveError(problem, "compare on the same pictures")
    cells = [_list_cells(run) for run in (first, second)]
    ids = [
        {subject: sorted(listed[0]["image_ids"]) for subject, listed in side.items()}
        for side in cells
    ]
    if ids[0] != ids[1]:
        shown = [
            f"{run} ({', '.join(side)})" for run, side in zip(runs, cells, strict=True)
        ]
        problem = (
            f"{shown[0]} and {shown[1]} were tested on different subjects or items"
        )
        raise BrainhiveError(problem, "give --subjects both have, and the same split")

    # ranks [S, N] of the cells of each subject, by side
    sides = [
        [
            _collect_values(side[subject], listed, "ranks")
            for subject, listed in ids[0].items()
        ]
        for side in cells
    ]
    result = compare_hits(sides[0], sides[1], items=_group(first, [*ids[0].values()]))
    return result.model_copy(update=_limits(first, second, result.subjects))


def compare_sources(run: Measurements) -> list[Difference]:
    """Compare the first source with each other one of the same run, in every metric."""
    first, *rest = [(run, source, source) for source in run.facts.sources]
    return adjust_together(
        source=[row for side in rest for row in _compare_metrics(first, side)]
    )[0]


def adjust_together(**groups: Sequence[Difference]) -> list[list[Difference]]:
    """Adjust the p values of all differences that stand on one page.

    Args:
        groups: Differences by what is compared with: `source`, `run`, `variant`,
            `pair`.

    Returns:
        Each group, with `p_adjusted`, the number of `tests`, and what they are of.
    """
    # how many tests there are, and of what: metrics × pairs
    differences = list(itertools.chain.from_iterable(groups.values()))
    p_values = [row.p_value for row in differences]
    tests = sum(p is not None for p in p_values)
    metrics = len({row.metric for row in differences})
    pairs = {
        noun: len({(row.first, row.second) for row in group})
        for noun, group in groups.items()
    }
    counts = [
        f"{count} {noun}{'s' * (count > 1)}" for noun, count in pairs.items() if count
    ]
    pairs_in_words = counts[0] if len(counts) == 1 else f"({' + '.join(counts)})"
    of = f"{metrics} metric{'s' * (metrics > 1)} × {pairs_in_words}"
    of += (
        ""
        if tests == metrics * sum(pairs.values())
        else ", as far as they could be tested"
    )

    # each difference with its own p, in the same order
    adjusted = iter(benjamini_hochberg(p_values))
    return [
        [
            row.model_copy(
                update={"p_adjusted": next(adjusted), "tests": tests, "tests_of": of}
            )
            for row in group
        ]
        for group in groups.values()
    ]


def compare_runs(
    run: Measurements, name: str, runs: Mapping[str, Measurements], noun: str = "run"
) -> tuple[list[Difference], list[BrainhiveError]]:
    """Compare the first source of a run with that of others, by name; `noun` is what
    these are called.

    Returns:
        The differences, and why other runs cannot be compared: as they were measured by
            another protocol, or
        on other subjects or items.
    """
    # the run against each other one that was measured by the same protocol
    first, *rest = [
        (shown, label, shown.facts.sources[0])
        for label, shown in [(name, run), *runs.items()]
    ]
    # protocols begin with the size of media
    protocols = [
        next(iter(shown.scopes[source].values())).protocol
        for shown, _, source in (first, *rest)
    ]
    size, *sizes = [protocol.split(",")[0] for protocol in protocols]

    # reasons why a run cannot be compared are collected
    compared: list[Difference] = []
    errors = []
    for side, other_size in zip(rest, sizes, strict=True):
        try:
            if other_size != size:
                raise BrainhiveError(
                    f"{name} was measured by {size}, {side[1]} by {other_size}",
                    "measure both by one protocol",
                )
            caveats = {"caveats": merge_caveats(run.caveats, side[0].caveats)}
            compared += [
                row.model_copy(update=caveats) for row in _compare_metrics(first, side)
            ]
        except BrainhiveError as error:
            errors.append(error)
    return adjust_together(**{noun: compared})[0], errors


def _compare_metrics(first: ComparedSide, second: ComparedSide) -> list[Difference]:
    """Compare by every metric that both have."""
    # cells of the same subjects; pictures that come from no signal are compared with
    # all
    first_run, first_name, first_source = first
    second_run, second_name, second_source = second
    names = f"{first_name} and {second_name}"
    hint = "compare runs of the same items"
    cells = [
        _list_cells(first_run, first_source),
        _list_cells(second_run, second_source),
    ]
    subjects = [
        subject for subject in {**cells[0], **cells[1]} if subject is not None
    ] or [None]
    sides: list[list[list[CellItems]]] = [[], []]
    for subject in subjects:
        for name, known, side in zip(
            (first_name, second_name), cells, sides, strict=True
        ):
            if subject not in known and None not in known:
                raise BrainhiveError(
                    f"{name} has no subject {subject}, but "
                    f"{', '.join(map(str, known))}",
                    "compare runs of the same subjects",
                )
            side.append(known[subject if subject in known else None])

    # items that both have; they differ only where a subject is missing on one side
    ids = []
    for subject, first_cells, second_cells in zip(subjects, *sides, strict=True):
        first_ids = first_cells[0]["image_ids"]
        second_ids = {*second_cells[0]["image_ids"]}
        ids.append([image_id for image_id in first_ids if image_id in second_ids])
        difference = {*first_ids} ^ second_ids
        if difference and subject in cells[0] and subject in cells[1]:
            raise BrainhiveError(
                f"{names} are of different items: {min(difference)} is of one only",
                hint,
            )
    if not all(ids):
        raise BrainhiveError(f"{names} have no item in common", hint)

    # metrics that both have
    common = sides[0][0][0].keys() & sides[1][0][0].keys() - {"image_ids", "units"}
    metrics = [name for name in sides[0][0][0] if name in common]
    if not metrics:
        raise BrainhiveError(
            f"{names} have no metric in common", "measure both by one metric"
        )

    # compare the items that have a value on both sides
    compared = []
    limits = _limits(first_run, second_run, len(subjects))
    items = _group(first_run, ids)
    for name in metrics:
        values = [  # [S, N] of each subject, by side
            [
                _collect_values(group, subject_ids, name)
                for group, subject_ids in zip(side, ids, strict=True)
            ]
            for side in sides
        ]
        has_value = [
            ~np.isnan(np.concatenate(pair)).any(0) for pair in zip(*values, strict=True)
        ]
        if any(has.any() for has in has_value):
            chosen = [
                [
                    group[:, has]
                    for group, has in zip(side, has_value, strict=True)
                    if has.any()
                ]
                for side in values
            ]
            shared = {
                "first": first_name,
                "second": second_name,
                "metric": name,
                "lower_is_better": lower_is_better(name),
                **limits,
            }
            result = compare_values(*chosen, items=items.select(has_value))
            compared.append(result.model_copy(update=shared))
    if not compared:
        raise BrainhiveError(f"{names} have no item in common", hint)
    return compared


def _group(run: Measurements, ids: Sequence[Sequence[str]]) -> Items:
    """Group items by the units that a run was measured with."""
    facts = run.facts
    unit_of: dict[str, str] = {}
    for scope in facts.cells:
        unit_of.update(
            zip(run.items[scope]["image_ids"], run.items[scope]["units"], strict=True)
        )
    units = [[unit_of[image_id] for image_id in listed] for listed in ids]
    return Items(ids, units, facts.units, scope=facts.scope, inflation=facts.inflation)


def _limits(first: Measurements, second: Measurements, subjects: int) -> dict[str, Any]:
    """Say whom a difference is about, what limits it, and in what the set-ups of two
    runs differ.
    """
    set_ups = [run.facts.set_up for run in (first, second)]
    limits = []
    if differing := list_differences(set_ups[0], set_ups[1], SIGNAL_KEYS):
        limits.append(f"the two were tested on other signals: {', '.join(differing)}")
    if subjects > 1 and any(
        "inter" in run.facts.mode.split(" + ") for run in (first, second)
    ):
        limits.append(FOLDS)
    return {
        "scope": first.facts.scope,
        "limits": limits,
        "differs": list_differences(*set_ups),
    }


def _collect_values(
    cells: Sequence[CellItems], ids: Sequence[str], metric: str
) -> Float64:
    """Collect the values of items [S, N], one row a cell; NaN where an item has
    none.
    """
    # an item without a value becomes NaN, which pairs leave out
    absent = [None] * len(cells[0]["image_ids"])
    values = [
        dict(zip(cell["image_ids"], cell.get(metric, absent), strict=True))
        for cell in cells
    ]
    return np.array(
        [[value_of[image_id] for image_id in ids] for value_of in values], np.float64
    )
