"""Paired comparisons of the results of two runs, or of two sources of a run.

A source is the origin of the scored pictures, such as the brain or a baseline.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import Bool, BrainhiveError, Float64
from brainhive_cli.core.results import (
    SIGNAL_KEYS,
    SIGNIFICANCE_LEVEL,
    Difference,
    Measurements,
    list_differences,
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
    look_up_names,
    name_few,
)

RankArray = NDArray[np.number[Any]]
ROUNDING = 1e-12
"""Largest absolute difference of means that counts as rounding error."""
SHARED_TRAINING_LIMIT = (
    "the folds of mode inter share training subjects, so their results correlate and p "
    "may be too small"
)
"""Warning for the mode "inter", in which each subject is tested with a model that was
trained on the other subjects.
"""
ONE_SEED_LIMIT = (
    "each side has a single seed, so the difference is of these trained models and "
    "says nothing about their recipes"
)
"""Warning if both runs have a single seed, and a model depends on it."""


def compare_hits(
    first: Sequence[RankArray],
    second: Sequence[RankArray],
    *,
    items: Items | None = None,
) -> Difference:
    """Compare how often two runs rank the right picture first.

    Args:
        first: Ranks of each subject in the first run: [N] for N items, or [S, N] for S
            seeds. The best rank is 1.
        second: Ranks of the same items and subjects in the second run. The number of
            seeds may differ.
        items: Items, and their units (groups of items that are alike). If None, each
            item is a unit.

    Returns:
        The difference of hit rates, first run minus second run (see `compare_values`).
    """
    first_hits = [(np.atleast_2d(ranks) == 1) * 1.0 for ranks in first]
    second_hits = [(np.atleast_2d(ranks) == 1) * 1.0 for ranks in second]
    return compare_values(first_hits, second_hits, items=items)


def compare_values(
    first: Sequence[ValueArray],
    second: Sequence[ValueArray],
    *,
    items: Items | None = None,
) -> Difference:
    """Compare two runs by their values of the same items and subjects.

    The test of the mean difference depends on the number of subjects:

    - Up to four: the signs of the differences of units are flipped, for all subjects at
      once. The result holds for these subjects.
    - Five or more: a t test adds the variances over subjects and units. The result
      holds for people in general.

    Args:
        first: Values of each subject in the first run: [N] for N items, or [S, N] for S
            seeds, which are averaged.
        second: Values of the same items and subjects in the second run. The number of
            seeds may differ.
        items: Items, and their units (groups of items that are alike). If None, each
            item is a unit, and subjects with equally many items share all items.

    Returns:
        The mean difference, first minus second, with p, the 95 % interval, and the
        effect size d_z over subjects. Without p and interval for fewer than six units.

    Source: Clark 1973, The language-as-fixed-effect fallacy; Cohen 1988 (d_z).
    """
    first_means = [_average_seeds(values) for values in first]
    second_means = [_average_seeds(values) for values in second]
    sizes = [len(values) for values in first_means]
    items = items or Items.from_sizes(sizes)
    differences = []
    for first_values, second_values in zip(first_means, second_means, strict=True):
        differences.append(first_values - second_values)
    subject_means = np.array([values.mean() for values in differences])
    subjects = len(subject_means)
    units_text = f"{items.n_units} {items.kind}"
    if items.inflation > 1:
        # folds share training data, so values vary more by chance
        inflation = fold_null_inflation(differences, 2)
        items = replace(items, inflation=inflation)
        units_text += ", in folds that share training data"

    # test the mean difference for these subjects, or for people in general
    scope = f"{items.scope} and " if items.scope else ""
    least_p = 0.0
    p: float | None
    if subjects < MIN_SUBJECTS_FOR_POPULATION:
        flips = flip_signs(differences, items)
        p = flips.p
        least_p = flips.least_p
        low = flips.low
        high = flips.high
        people = name_few(subjects, "subjects")
        test = f"sign flips over {units_text}, for {scope}{people}"
    else:
        p, low, high = crossed_t_test(differences, items)
        test = (
            f"t over {subjects} subjects and {units_text}, for {scope}people in general"
        )
    interval = f"inversion of: {test}"

    # drop the test if there are few units, and widen the interval of hit rates
    pairs = np.stack([np.concatenate(first_means), np.concatenate(second_means)])
    if items.shortage:
        p = low = high = None
        test = interval = f"none: {items.shortage}"
    elif low is not None and high is not None and _are_mostly_hits(pairs):
        low, high = _widen_for_hits(low, high, differences, items)
        interval += ", at least as wide as the interval of paired shares"

    # the effect size over subjects is undefined if subjects do not differ
    mean = float(subject_means.mean())
    cohens_dz = None
    if np.ptp(subject_means) > ROUNDING:
        cohens_dz = mean / float(subject_means.std(ddof=1))
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
        cohens_dz=cohens_dz,
    )


def _average_seeds(values: ValueArray) -> Float64:
    """Average values [S, N] or [N] over S seeds. Return [N] in float64."""
    mean: Float64 = np.atleast_2d(np.asarray(values, np.float64)).mean(0)
    return mean


def _are_mostly_hits(pairs: Float64) -> bool:
    """Return True if the values [2, N] of two runs are shares, and many are 0 or 1."""
    are_shares = ((pairs >= 0) & (pairs <= 1)).all()
    is_at_limit = np.isin(pairs, (0, 1)).all(0)
    # Smallest share of items whose values are 0 or 1 in both runs, for which a
    # difference of values is treated as a difference of hit rates.
    return bool(are_shares and is_at_limit.mean() >= 0.5)


def _widen_for_hits(
    low: float, high: float, differences: Sequence[ValueArray], items: Items
) -> tuple[float, float]:
    """Widen the interval of a difference of hit rates to the interval of paired shares.

    The wider interval of the mean difference D is

        D - sqrt(a₁² + b₂² - 2 r a₁ b₂)  to  D + sqrt(a₂² + b₁² - 2 r a₂ b₁).

    Index 1 is for the increases max(d, 0), 2 for the decreases max(-d, 0). The interval
    of each mean ends a below and b above it. The correlation of the two means is r.

    Args:
        low: Lower end of the interval of the test.
        high: Upper end of the interval of the test.
        differences: Differences d [N] of the items of each subject, in [-1, 1].

    Returns:
        The ends of the wider interval. It excludes 0 if the interval of the test does.

    Source: Newcombe 1998, Improved confidence intervals for the difference between
    binomial proportions based on paired data; Zou and Donner 2008 (a difference
    of two terms).
    """
    # for increases and decreases: distances from the mean to the ends of its interval
    lower_distances = []
    upper_distances = []
    variances = []
    for sign in (1, -1):
        changes = [np.maximum(sign * values, 0) for values in differences]
        interval = estimate_interval(changes, items, limits=(0.0, 1.0))
        components = estimate_mean_variance(changes, items)
        mean_change = components.estimates.mean()
        ends = interval.these_subjects or (interval.low, interval.high)
        lower, upper = np.abs(np.array(ends, np.float64) - mean_change)
        lower_distances.append(lower)
        upper_distances.append(upper)
        variances.append(components.variance)

    # the correlation is not positive, because no item both increases and decreases
    total = estimate_mean_variance(differences, items)
    error = np.sqrt(variances[0] * variances[1])
    correlation = 0.0
    if error:
        covariance = (variances[0] + variances[1] - total.variance) / 2
        correlation = np.clip(covariance / error, -1, 0)

    # combine the distances, and keep the interval of the test where it is wider
    mean = float(total.estimates.mean())
    wide_low = min(
        low, mean - _add_errors(lower_distances[0], upper_distances[1], correlation)
    )
    wide_high = max(
        high, mean + _add_errors(lower_distances[1], upper_distances[0], correlation)
    )

    # an end that would cross 0 stays at its place
    if wide_low <= 0 < low:
        wide_low = low
    if high < 0 <= wide_high:
        wide_high = high
    return wide_low, wide_high


def _add_errors(first: float, second: float, correlation: float) -> float:
    """Compute the error of a difference of two estimates from the error of each."""
    error: float = np.sqrt(first**2 + second**2 - 2 * correlation * first * second)
    return error


def crossed_t_test(
    differences: Sequence[ValueArray], items: Items
) -> tuple[float | None, float | None, float | None]:
    """Test if the mean difference for people and units in general is 0.

    The variance of the mean is s + c, where s is the variance over the S subjects, and
    c the covariance of two subjects, who saw the same units. The degrees of freedom
    (Satterthwaite) are

        (s + c)² / (s² / f + c² / u)  with  1 / f = (1 - q) / (S - 1) + q / (S u).

    The u are the degrees of freedom of the units. The weight q is the share of s that
    the noise of single subjects explains, to the power 4.

    Args:
        differences: Differences [N] of the items of each of two or more subjects.
        items: Items and their units, such as concepts.

    Returns:
        Two-sided p, and the ends of the 95 % interval. All are None for a single unit.
        If no difference varies, p is the p of a sign test over subjects. The interval
        then is the mean, or None if the mean is not 0 and p is not significant.
    """
    from scipy.special import stdtr, stdtrit

    if items.n_units == 1:
        return None, None, None
    components = estimate_mean_variance(differences, items)
    subjects = len(differences)
    mean = float(components.estimates.mean())
    subject_variance = components.subject_variance
    covariance = components.covariance
    variance = subject_variance + covariance

    # without variance, only signs can be tested
    if variance < ROUNDING**2:
        if abs(mean) < ROUNDING:
            return 1.0, 0.0, 0.0
        p = 2.0 ** (1 - subjects)
        if p > SIGNIFICANCE_LEVEL:
            return p, None, None
        return p, mean, mean

    noise = 0.0
    if subject_variance:
        # Exponent, in `crossed_t_test`, of the share of the variance over
        # subjects that the noise of each subject explains. Among the exponents 1
        # to 8, 4 has the largest statistical power with a false positive rate of
        # at most .06 (`benchmarks/simulated_statistics`).
        noise = (components.noise_variance / subject_variance) ** 4
    subject_term = subject_variance**2 * (
        (1 - noise) / (subjects - 1) + noise / (subjects * components.dof)
    )
    dof = variance**2 / (subject_term + covariance**2 / components.dof)

    error = float(np.sqrt(variance))
    reach = float(stdtrit(dof, 1 - SIGNIFICANCE_LEVEL / 2)) * error
    p = float(2 * stdtr(dof, -abs(mean) / error))
    return p, mean - reach, mean + reach


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for the false discovery rate of several tests.

    Args:
        p_values: The p of each comparison. None does not count as a test.

    Returns:
        The adjusted p values in the order of `p_values`, with None for None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    test_p_values = [p for p in p_values if p is not None]
    adjusted_p_values = false_discovery_control(test_p_values).tolist()
    adjusted = iter(adjusted_p_values)
    return [None if p is None else next(adjusted) for p in p_values]


CellItems = Mapping[str, Any]
"""Lists [N] for the N items of a cell (trained model): their `image_ids`, and the
values of each metric under its name.
"""
SubjectCells = Mapping[Any, Sequence[CellItems]]
"""Cells of each subject, with one cell per seed. The subject None stands for pictures
that do not depend on a signal, such as a baseline.
"""


@dataclass(frozen=True)
class ComparedSource:
    """A source of a run, such as the brain or a baseline, that is compared.

    Attributes:
        run: Measurements of the run.
        name: Name of the run or source in messages and tables.
        source: Name of the source in the run, or "" for a run without sources.
    """

    run: Measurements
    name: str
    source: str

    def list_cells(self) -> SubjectCells:
        """List the values of the items in each cell of the source, by subject."""
        cells = defaultdict[Any, list[CellItems]](list)
        for scope, cell in self.run.facts.cells.items():
            if cell.source == self.source and scope in self.run.items:
                cells[cell.subject].append(_list_values(self.run, scope))
        if not cells:
            raise BrainhiveError(
                f"{self.name} has no value per item",
                "compare runs of eval-retrieval or reconstruct",
            )
        return dict(cells)


def _list_values(run: Measurements, scope: str) -> CellItems:
    """List the metrics of the items of a cell. A hit is a rank of 1."""
    items = run.items[scope]
    if not run.facts.hit_metric:
        return items
    rank_of = dict(zip(items["image_ids"], items["ranks"], strict=True))
    image_ids = sorted(rank_of)
    hits = [rank_of[image_id] == 1 for image_id in image_ids]
    return {"image_ids": image_ids, run.facts.hit_metric: hits}


def compare_sources(run: Measurements) -> list[Difference]:
    """Compare the first source of a run with each other source, in every metric.

    The p values are adjusted over all differences.
    """
    sources = [ComparedSource(run, source, source) for source in run.facts.sources]
    compared: list[Difference] = []
    for source in sources[1:]:
        compared += _compare_metrics(sources[0], source)
    return adjust_together(source=compared)[0]


def adjust_together(**groups: Sequence[Difference]) -> list[list[Difference]]:
    """Adjust the p values of all differences on a page of a report together.

    Args:
        groups: Groups of differences, keyed by the kind of the compared objects:
            `source`, `run`, `variant` or `pair`.

    Returns:
        Copies of the groups, in the order of the arguments, with `p_adjusted` (None
        without a p value), `tests` (number of p values) and
        `tests_of` (their description).
    """
    differences: list[Difference] = []
    for group in groups.values():
        differences += group
    p_values = [difference.p_value for difference in differences]
    tests = sum(p is not None for p in p_values)
    tests_of = _describe_tests(groups, tests)

    # the adjusted p values come in the order of the groups
    adjusted_p_values = iter(benjamini_hochberg(p_values))
    adjusted_groups = []
    for group in groups.values():
        adjusted_group = []
        for difference in group:
            p_adjusted = next(adjusted_p_values)
            fields = {"p_adjusted": p_adjusted, "tests": tests, "tests_of": tests_of}
            adjusted_group.append(difference.model_copy(update=fields))
        adjusted_groups.append(adjusted_group)
    return adjusted_groups


def _describe_tests(groups: Mapping[str, Sequence[Difference]], tests: int) -> str:
    """Describe adjusted tests, such as "2 metrics × (2 sources + 1 run)".

    Args:
        tests: Number of differences that have a p value.
    """
    metrics = set()
    n_pairs = 0
    counts = []
    for kind, group in groups.items():
        metrics |= {difference.metric for difference in group}
        pairs = {(difference.first, difference.second) for difference in group}
        if pairs:
            n_pairs += len(pairs)
            counts.append(_count_nouns(len(pairs), kind))

    pairs_text = counts[0] if len(counts) == 1 else f"({' + '.join(counts)})"
    text = f"{_count_nouns(len(metrics), 'metric')} × {pairs_text}"
    if tests != len(metrics) * n_pairs:
        text += ", as far as they could be tested"
    return text


def _count_nouns(count: int, noun: str) -> str:
    """Write a count with its noun, such as "1 run" or "2 runs"."""
    return f"{count} {noun}s" if count > 1 else f"{count} {noun}"


def compare_runs(
    pairs: Mapping[tuple[str, str], tuple[Measurements, Measurements]],
    noun: str = "pair",
) -> tuple[list[Difference], dict[tuple[str, str], BrainhiveError]]:
    """Compare pairs of runs in every metric, by the first source of each run.

    Args:
        pairs: Measurements of the two runs of each pair, keyed by their labels.
        noun: Kind of the pairs in the description of the tests, such as "variant".

    Returns:
        The differences, first run minus second run, with p values adjusted for all
        metrics and pairs. Then the error of each pair that differs in protocol,
        candidates, subjects, items or all metrics, by its labels.
    """
    compared: list[Difference] = []
    errors = {}
    for labels, runs in pairs.items():
        first, second = [
            ComparedSource(run, label, next(iter(run.facts.sources), ""))
            for label, run in zip(labels, runs, strict=True)
        ]
        try:
            differences = _compare_metrics(first, second)
        except BrainhiveError as error:
            errors[labels] = error
            continue
        caveats = {"caveats": merge_caveats(first.run.caveats, second.run.caveats)}
        for difference in differences:
            compared.append(difference.model_copy(update=caveats))
    return adjust_together(**{noun: compared})[0], errors


def _check_protocols(first: ComparedSource, second: ComparedSource) -> None:
    """Raise an error if the values of two runs were not measured in the same way."""
    names = f"{first.name} and {second.name}"
    facts = [source.run.facts for source in (first, second)]
    galleries = [getattr(item, "gallery", None) for item in facts]
    if galleries[0] != galleries[1]:
        raise BrainhiveError(
            f"{names} were tested on different galleries",
            "compare runs with the same gallery",
        )
    if not first.source or not second.source:
        return
    first_protocol, second_protocol = map(_sizing_protocol, (first, second))
    if first_protocol != second_protocol:
        raise BrainhiveError(
            f"{first.name} was measured by the protocol {first_protocol}, "
            f"{second.name} by {second_protocol}",
            "measure both by the same protocol",
        )


def _sizing_protocol(source: ComparedSource) -> str:
    """Return the part of a source's protocol that says how pictures were resized."""
    metrics = list(source.run.scopes[source.source].values())
    return metrics[0].protocol.split(",")[0]


def _compare_metrics(
    first_source: ComparedSource, second_source: ComparedSource
) -> list[Difference]:
    """Compare two sources of runs in every metric that both have.

    Raises:
        BrainhiveError: if the sources share no metric, or differ in subjects or items.
    """
    # subjects of both sources, or None if no source depends on a signal
    first_cells = first_source.list_cells()
    second_cells = second_source.list_cells()
    _check_protocols(first_source, second_source)
    subjects = list(dict.fromkeys(list(first_cells) + list(second_cells)))
    subjects = [subject for subject in subjects if subject is not None] or [None]

    # pair the cells, whose items differ only if a source does not depend on the subject
    names = f"{first_source.name} and {second_source.name}"
    hint = "compare runs of the same items"
    pairs = []
    ids = []
    for subject in subjects:
        first_seeds = _find_cells(first_source, first_cells, subject)
        second_seeds = _find_cells(second_source, second_cells, subject)
        pairs.append((first_seeds, second_seeds))
        first_ids = first_seeds[0]["image_ids"]
        second_ids = set(second_seeds[0]["image_ids"])
        unpaired = set(first_ids) ^ second_ids
        both_have_subject = subject in first_cells and subject in second_cells
        if unpaired and both_have_subject:
            raise BrainhiveError(
                f"{names} were measured on different items: only one of them has "
                f"{min(unpaired)}",
                hint,
            )
        ids.append([image_id for image_id in first_ids if image_id in second_ids])
    if not all(ids):
        raise BrainhiveError(f"{names} have no item in common", hint)

    # metrics of both sources, in the order of the first source
    first_seeds, second_seeds = pairs[0]
    shared_keys = first_seeds[0].keys() & second_seeds[0].keys()
    metric_names = shared_keys - {"image_ids", "units"}
    metrics = [key for key in first_seeds[0] if key in metric_names]
    if not metrics:
        raise BrainhiveError(
            f"{names} have no metric in common", "measure both by the same metric"
        )

    limits = _describe_limits(first_source.run, second_source.run, len(subjects))
    items = _group_items(first_source.run, ids)
    compared = []
    for metric in metrics:
        difference = _compare_metric(metric, pairs, ids, items)
        if difference is not None:
            fields = {
                "first": first_source.name,
                "second": second_source.name,
                "metric": metric,
                "lower_is_better": lower_is_better(metric),
            }
            compared.append(difference.model_copy(update=fields | limits))
    if not compared:
        raise BrainhiveError(f"{names} have no item in common", hint)
    return compared


def _find_cells(
    source: ComparedSource, cells: SubjectCells, subject: Any
) -> Sequence[CellItems]:
    """Find the cells of a subject, or else the cells that do not depend on a signal.

    Args:
        cells: Cells (results of a subject and a seed), keyed by subject, or by None if
            they do not depend on a signal.

    Raises:
        BrainhiveError: if there are cells of neither the subject nor None.
    """
    if subject in cells:
        return cells[subject]
    if None in cells:
        return cells[None]
    raise BrainhiveError(
        f"{source.name} has no subject {subject}, only {', '.join(map(str, cells))}",
        "compare runs of the same subjects",
    )


def _compare_metric(
    metric: str,
    pairs: Sequence[tuple[Sequence[CellItems], Sequence[CellItems]]],
    ids: Sequence[Sequence[str]],
    items: Items,
) -> Difference | None:
    """Compare a metric over the items that have a value in both sources.

    Args:
        pairs: Cells (results of a seed) of both sources, for each subject.
        ids: Image ids [N] of the compared items of each subject.
        items: The items named by `ids`, and their units.

    Returns:
        First source minus second source, or None without an item that has values in all
        seeds of both sources.
    """
    first_values = []
    second_values = []
    has_values: list[Bool] = []
    for (first_cells, second_cells), subject_ids in zip(pairs, ids, strict=True):
        first_rows = _collect_values(first_cells, subject_ids, metric)  # [S, N]
        second_rows = _collect_values(second_cells, subject_ids, metric)
        has_value: Bool = ~np.isnan(np.concatenate([first_rows, second_rows])).any(0)
        has_values.append(has_value)
        # leave out subjects without any item that has values in all seeds
        if has_value.any():
            first_values.append(first_rows[:, has_value])
            second_values.append(second_rows[:, has_value])
    if not first_values:
        return None
    return compare_values(first_values, second_values, items=items.select(has_values))


def _group_items(run: Measurements, ids: Sequence[Sequence[str]]) -> Items:
    """Group items by the units that a run was measured with.

    Args:
        ids: Image ids [N] of each subject.
    """
    facts = run.facts
    unit_of: dict[str, str] = {}
    for scope in facts.cells:
        cell = run.items[scope]
        unit_of.update(zip(cell["image_ids"], cell["units"], strict=True))
    units = look_up_names(unit_of, ids)
    return Items(ids, units, facts.units, scope=facts.scope, inflation=facts.inflation)


def _describe_limits(
    first_run: Measurements, second_run: Measurements, subjects: int
) -> dict[str, Any]:
    """Describe the scope and the limits of a comparison.

    Returns:
        Fields of a `Difference`: `scope` (units such as "these films", or empty),
        `limits` (warnings), and `differs` (settings in which the runs differ).
    """
    first_set_up = first_run.facts.set_up
    second_set_up = second_run.facts.set_up
    limits = []
    signal_differences = list_differences(first_set_up, second_set_up, SIGNAL_KEYS)
    if signal_differences:
        limits.append(
            f"both were tested on different signals: {', '.join(signal_differences)}"
        )

    # models of the mode "inter" share training subjects if there are several subjects
    modes = first_run.facts.mode.split(" + ") + second_run.facts.mode.split(" + ")
    if subjects > 1 and "inter" in modes:
        limits.append(SHARED_TRAINING_LIMIT)

    # models in closed form have no batches, and do not depend on the seed
    set_ups = list(first_set_up) + list(second_set_up)
    if first_run is not second_run and "train.batch_size" in set_ups:
        cells = [*first_run.facts.cells.values()], [*second_run.facts.cells.values()]
        if all(len({cell.seed for cell in side}) == 1 for side in cells):
            limits.append(ONE_SEED_LIMIT)
    return {
        "scope": first_run.facts.scope,
        "limits": limits,
        "differs": list_differences(first_set_up, second_set_up),
    }


def _collect_values(
    cells: Sequence[CellItems], ids: Sequence[str], metric: str
) -> Float64:
    """Collect the values [S, N] of a metric from the cells of S seeds.

    Args:
        ids: Image ids [N] of the items.
        metric: Name of the metric, or `ranks`.

    Returns:
        The values, with NaN for an item without a value.
    """
    rows = []
    for cell in cells:
        missing = [None] * len(cell["image_ids"])
        value_of = dict(zip(cell["image_ids"], cell.get(metric, missing), strict=True))
        rows.append([value_of[image_id] for image_id in ids])
    return np.array(rows, np.float64)
