"""Whether two runs, or two sources of one, differ on the same items and subjects, and by how much."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import set_up
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import LEVEL, Measurements
from brainhive_cli.measurement.metric_names import lower_is_better
from brainhive_cli.measurement.statistics import Values, describe, scatter_of_means
from brainhive_cli.measurement.units import Items

Ranks = NDArray[np.integer[Any]]
ROUNDING = 1e-12
"""Differences below this are none."""
ALL_SIGNS = 16
"""Subjects up to which all signs are tried; of more, as many random ones."""
FOLDS = "folds of inter share training subjects: they vary together, and p may be too small"
"""The limit where each subject is tested on a model of the others."""
TWO = "of two subjects minF′ may be too small; the interval accounts for how little they say about others"
"""It rejects a true null in 10 % of simulations where subject × method has a sd of .4 logits."""


@dataclass(frozen=True)
class Comparison:
    """One run against another on the same items and subjects.

    Attributes:
        difference: First minus second, mean over subjects.
        low: Lower end of its 95 % interval, as those of `core.measurements.Metric`; None of one item.
        high: Upper end.
        interval: How the interval was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over units alone, which holds for them only.
        n: Items that were compared, over all subjects.
        subjects: Number of subjects.
        p_value: The headline, two-sided: minF′ over subjects and items; of one subject McNemar's test, or a
            t test over items where values are no hits, which one item cannot have: None.
        test: What the headline is.
        sign_flip_p: Over subjects, for these items: exact test by all signs of the subjects' differences.
        wilcoxon_p: Over subjects, for these items: signed-rank test. None for one subject, as all three.
        t_p: Over subjects, for these items: paired t test; None if all differ by the same, too.
        least_p: The smallest p that the sign-flip and signed-rank tests of so few subjects can give.
        cohens_dz: Effect size over subjects: mean difference over the standard deviation of differences.
        only_first: Items that only the first run found; None where values are no hits, or of several seeds.
        only_second: Items that only the second run found.
    """

    difference: float
    low: float | None
    high: float | None
    interval: str
    these_subjects: tuple[float, float] | None
    n: int
    subjects: int
    p_value: float | None
    test: str
    sign_flip_p: float | None
    wilcoxon_p: float | None
    t_p: float | None
    least_p: float | None
    cohens_dz: float | None
    only_first: int | None = None
    only_second: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        these = None if self.these_subjects is None else list(self.these_subjects)
        return {**asdict(self), "these_subjects": these}


def compare(first: Sequence[Ranks], second: Sequence[Ranks], *, items: Items | None = None) -> Comparison:
    """Compare two runs by how often they rank the seen image first.

    Subjects and units of items are crossed: a method may suit some subjects and some concepts by chance, and
    both chances count. minF′ takes both in; a test over subjects alone does not, and holds for these items
    only. An item's value is its share of hits over seeds. McNemar's test needs single hits of independent
    items; it is that of one subject with one seed a side, and a t test over units that of one subject else.

    Args:
        first: Ranks [S, N] of S seeds and N items, one array a subject; or [N].
        second: Ranks of the same items and subjects; the number of seeds may be another.
        items: See `statistics.describe`.

    Raises:
        BrainhiveError: if subjects or items are not the same in number.

    Source: Clark 1973, The language-as-fixed-effect fallacy (minF′); McNemar 1947; Wilcoxon 1945; Cohen 1988
    (d_z), through scipy.stats.
    """
    hits = [[(np.atleast_2d(group) == 1) * 1.0 for group in groups] for groups in (first, second)]
    return _compare(hits[0], hits[1], items, are_hits=True)


def compare_values(
    first: Sequence[Values], second: Sequence[Values], *, items: Items | None = None
) -> Comparison:
    """Compare two runs by values of any kind, [S, N] or [N], as `compare` does by ranks."""
    values = [[np.atleast_2d(group) for group in groups] for groups in (first, second)]
    return _compare(values[0], values[1], items, are_hits=False)


def _compare(
    first: Sequence[Values], second: Sequence[Values], items: Items | None, are_hits: bool
) -> Comparison:
    sizes = [[group.shape[-1] for group in groups] for groups in (first, second)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise BrainhiveError(
            f"items by subject {sizes[0]} and {sizes[1]} cannot be paired", "compare runs of the same items"
        )
    items = items or Items.unnamed(sizes[0])
    differences = [one.mean(0) - other.mean(0) for one, other in zip(first, second, strict=True)]
    interval = describe(differences, items, limits=(-1, 1) if are_hits else (None, None), is_share=False)
    by_subject = np.array([difference.mean() for difference in differences])
    discordant = None
    if are_hits and all(len(group) == 1 for group in (*first, *second)):  # of one seed a side
        joined = np.concatenate(differences)
        discordant = int((joined > 0).sum()), int((joined < 0).sum())
    p: float | None
    if len(differences) > 1:
        p, test = min_f(differences, items), f"minF′ over subjects and {items.kind}"
    elif discordant and items.are_independent:
        p, test = mcnemar(*discordant), f"McNemar's over {items.kind}"
    else:
        p, test = _over_units(differences[0], items), f"t over {items.kind}"
    return Comparison(
        float(by_subject.mean()),
        interval.low,
        interval.high,
        interval.method,
        interval.these_subjects,
        sum(map(len, differences)),
        len(differences),
        p,
        test,
        *over_subjects(by_subject),
        *(discordant or ()),
    )


def min_f(differences: Sequence[Values], items: Items | None = None) -> float | None:
    """Test over subjects and units of items that the mean difference is 0: the p of minF′.

    With F₁ over subjects and F₂ over units, minF′ = F₁F₂ / (F₁ + F₂): the squared mean over the sum of both
    errors' squares. Where nothing varies it has no value, and p is the least that a sign flip could give.

    Args:
        differences: Of the items [N], one array a subject; two subjects at least.
        items: See `statistics.describe`.

    Returns:
        p, or None if all items are of one unit.
    """
    from scipy.stats import f

    items = items or Items.unnamed([len(group) for group in differences])
    if items.count == 1:
        return None
    (scatter,) = scatter_of_means([group[None] for group in differences], items)
    subjects, mean = len(differences), float(scatter.estimates.mean())
    errors = np.array([scatter.estimates.var(ddof=1) / subjects, scatter.together])
    freedom = np.array([subjects - 1, items.count - 1])
    if abs(mean) < ROUNDING:
        return 1.0
    if errors.sum() < ROUNDING**2:
        return least_p(subjects)
    denominator = errors.sum() ** 2 / (errors**2 / freedom).sum()
    return float(f.sf(mean**2 / errors.sum(), 1, denominator))


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two counts of discordant pairs of one subject differ: exact, two-sided."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def least_p(subjects: int) -> float:
    """Give the smallest two-sided p of tests by the signs of so many subjects."""
    return 2.0 ** (1 - subjects)


def over_subjects(
    differences: Values,
) -> tuple[float | None, float | None, float | None, float | None, float | None]:
    """Test the subjects' differences [subjects]: p of sign flips, Wilcoxon and t, the least p, and d_z."""
    from scipy.stats import ttest_1samp, wilcoxon

    differences = differences.round(12)  # equal sizes tie, whatever their last digit
    if len(differences) < 2:
        return None, None, None, None, None
    least = least_p(len(differences))
    if not differences.any():
        return 1.0, 1.0, 1.0, least, 0.0
    mean, spread = differences.mean(), differences.std(ddof=1)
    t_p: float | None = None  # where all differ by the same, and d_z too
    effect: float | None = None
    if spread >= ROUNDING:
        t_p, effect = float(ttest_1samp(differences, 0).pvalue), float(mean / spread)
    elif abs(mean) < ROUNDING:
        t_p, effect = 1.0, 0.0
    return sign_flip(differences), float(wilcoxon(differences).pvalue), t_p, least, effect


def sign_flip(differences: Values) -> float:
    """Test differences [subjects]: the share of signs that give a mean as far from 0, two-sided."""
    count = len(differences)
    if count <= ALL_SIGNS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = np.random.default_rng(0).choice((-1, 1), (2**ALL_SIGNS, count))
        signs[0] = 1  # the observed ones are among them
    return float((np.abs(signs @ differences) >= abs(differences.sum()) - ROUNDING).mean())


def _over_units(differences: Values, items: Items) -> float | None:
    """Test the differences [N] of one subject by t over units; where all are the same, by their signs."""
    from scipy.stats import t

    units, mean = items.count, float(differences.mean())
    if units == 1:
        return None
    (scatter,) = scatter_of_means([differences[None]], items)
    error = float(np.sqrt(scatter.together))
    if error < ROUNDING:
        return 1.0 if abs(mean) < ROUNDING else least_p(units)
    return float(2 * t.sf(abs(mean) / error, units - 1))


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several comparisons for their false discovery rate; None stays None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    there = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(there).tolist() if there else [])
    return [None if p is None else next(adjusted) for p in p_values]


def limits_of_p(modes: Sequence[str], subjects: int) -> list[str]:
    """Say what a reader of minF′'s p must know, of runs trained in these modes."""
    is_inter = any("inter" in mode.split(" + ") for mode in modes)
    return [*([TWO] if subjects == 2 else []), *([FOLDS] if is_inter and subjects > 1 else [])]


TESTS = ("p_value", "sign_flip_p", "wilcoxon_p", "t_p")
Key = TypeVar("Key")
CellItems = Mapping[str, Any]
"""Image ids, units, and lists of their values by name, of one cell."""


class Side(NamedTuple):
    """One side of a comparison: a run, or a source of it, and what messages call it."""

    run: Measurements
    name: str
    source: str | None = None

    @property
    def protocol(self) -> str:
        """How the media of its source were sized and made."""
        return next(iter(self.run.scopes[str(self.source)].values())).protocol

    @property
    def subjects(self) -> dict[Any, list[CellItems]]:
        """The cells of each subject, of several seeds; None for pictures that come from no signal."""
        cells: dict[Any, list[CellItems]] = {}
        for scope, cell in self.run.notes["cells"].items():
            if self.source is None or cell["source"] == self.source:
                cells.setdefault(cell["subject"], []).append(self.run.items[scope])
        return cells

    @property
    def unit_of(self) -> dict[str, str]:
        """Image id to the unit of items that are alike."""
        cells = [self.run.items[scope] for scope in self.run.notes["cells"]]
        pairs = (zip(cell["image_ids"], cell["units"], strict=True) for cell in cells)
        return dict(itertools.chain.from_iterable(pairs))

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
    pairs: Mapping[Key, tuple[Measurements, Measurements]],
) -> tuple[dict[Key, dict[str, Any]], list[BrainhiveError]]:
    """Compare the ranks of pairs of runs; p values of several comparisons are adjusted together.

    Returns:
        The comparisons, and why other pairs cannot be compared: as they were tested among other pictures, on
        other subjects or items.
    """
    compared: dict[Key, dict[str, Any]] = {}
    errors = []
    for key, pair in pairs.items():
        try:
            compared[key] = _compare_ranks(*pair)
        except BrainhiveError as error:
            errors.append(error)
    for test in TESTS:
        adjusted = benjamini_hochberg([comparison[test] for comparison in compared.values()])
        for comparison, p in zip(compared.values(), adjusted, strict=True):
            comparison[f"{test}_adjusted"] = p
    return compared, errors


def _compare_ranks(one: Measurements, other: Measurements) -> dict[str, Any]:
    _check_galleries(one, other)
    first, second = (Side(run, run.notes["run"]).subjects for run in (one, other))
    named = [sorted(zip(cells[0]["image_ids"], cells[0]["units"], strict=True)) for cells in first.values()]
    ids, units = ([[pair[place] for pair in some] for some in named] for place in (0, 1))
    ranks = [[_sorted_ranks(side[subject]) for subject in first] for side in (first, second)]
    result = compare(*ranks, items=Items(ids, units, one.notes["units"]))
    few = []
    if result.least_p is not None and result.least_p > LEVEL:  # few subjects have few signs
        few = [f"{result.subjects} subjects: sign-flip and Wilcoxon give {result.least_p:.2g} at least"]
    notes, differs = _limits(one, other, result.subjects, few)
    named_run = {"run": other.notes["run"], "caveats": other.caveats}
    return {**named_run, "differs": differs, "notes": notes, **result.as_dict()}


def _check_galleries(first: Measurements, second: Measurements) -> None:
    runs = [first.notes["run"], second.notes["run"]]
    galleries = [first.notes["gallery"], second.notes["gallery"]]
    if galleries[0] != galleries[1]:
        shown = [
            f"{run} ({gallery['pictures']} pictures of {gallery['of']}, {gallery['random']} random, "
            f"digest {gallery['digest']})"
            for run, gallery in zip(runs, galleries, strict=True)
        ]
        raise BrainhiveError(
            f"{shown[0]} and {shown[1]} were tested on different galleries", "compare on the same pictures"
        )
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


def _sorted_ranks(cells: Sequence[CellItems]) -> NDArray[np.int64]:
    """Collect ranks [S, N] of the cells of a subject, in the order of the sorted image ids."""
    orders = [np.argsort(cell["image_ids"], kind="stable") for cell in cells]
    return np.array([np.asarray(cell["ranks"])[order] for cell, order in zip(cells, orders, strict=True)])


def compare_sources(run: Measurements) -> list[dict[str, Any]]:
    """Compare the first source with each other one of the same run; p values are adjusted over metrics."""
    first, *rest = (Side(run, source, source) for source in run.notes["sources"])
    return [{"with": side.name, "caveats": [], **_compare_metrics(first, side)} for side in rest]


def compare_runs(
    run: Measurements, name: str, runs: Mapping[str, Measurements]
) -> tuple[list[dict[str, Any]], list[BrainhiveError]]:
    """Compare the first source of a run with that of others, by name.

    Returns:
        The comparisons, and why other runs cannot be compared: as they were measured by another protocol, or
        on other subjects or items.
    """
    named = [(name, run), *runs.items()]
    first, *rest = (Side(shown, label, shown.notes["sources"][0]) for label, shown in named)
    compared, errors = [], []
    for side in rest:
        sizes = [pair.protocol.split(",")[0] for pair in (first, side)]
        try:
            if sizes[0] != sizes[1]:
                raise BrainhiveError(
                    f"{name} was measured by {sizes[0]}, {side.name} by {sizes[1]}",
                    "measure both by one protocol",
                )
            metrics = _compare_metrics(first, side)
            compared.append({"with": side.name, "caveats": side.run.caveats, **metrics})
        except BrainhiveError as error:
            errors.append(error)
    return compared, errors


def _compare_metrics(first: Side, second: Side) -> dict[str, Any]:
    """Compare by every metric that both have."""
    names, in_common = f"{first.name} and {second.name}", "compare runs of the same items"
    known_subjects = {**first.subjects, **second.subjects}
    subjects = [subject for subject in known_subjects if subject is not None] or [None]
    pairs = [(first.cells_of(subject), second.cells_of(subject)) for subject in subjects]
    ids = []
    for subject, (firsts, seconds) in zip(subjects, pairs, strict=True):
        in_first, in_second = ({*cells[0]["image_ids"]} for cells in (firsts, seconds))
        ids.append([image_id for image_id in firsts[0]["image_ids"] if image_id in in_second])
        difference = in_first ^ in_second
        if difference and subject in first.subjects and subject in second.subjects:
            raise BrainhiveError(
                f"{names} are of different items: {min(difference)} is of one only", in_common
            )
    if not all(ids):
        raise BrainhiveError(f"{names} have no item in common", in_common)
    in_both = pairs[0][0][0].keys() & pairs[0][1][0].keys() - {"image_ids", "units"}
    metrics = [name for name in pairs[0][0][0] if name in in_both]
    if not metrics:
        raise BrainhiveError(f"{names} have no metric in common", "measure both by one metric")
    unit_of = first.unit_of
    items = Items(ids, [[unit_of[image_id] for image_id in some] for some in ids], first.run.notes["units"])
    compared = {}
    for name in metrics:
        values = [
            [_values(cells, some, name) for cells, some in zip(side, ids, strict=True)]
            for side in zip(*pairs, strict=True)
        ]
        has_value = [~np.isnan(np.concatenate(both)).any(0) for both in zip(*values, strict=True)]
        if any(has.any() for has in has_value):
            some = [
                [group[:, has] for group, has in zip(side, has_value, strict=True) if has.any()]
                for side in values
            ]
            result = compare_values(*some, items=items.where(has_value)).as_dict()
            compared[name] = {**result, "lower_is_better": lower_is_better(name)}
    if not compared:
        raise BrainhiveError(f"{names} have no item in common", in_common)
    adjusted = benjamini_hochberg([result["p_value"] for result in compared.values()])
    notes, differs = _limits(first.run, second.run, len(subjects))
    return {
        "protocol": second.protocol,
        "notes": notes,
        "differs": differs,
        "metrics": {n: {**compared[n], "p_adjusted": p} for n, p in zip(compared, adjusted, strict=True)},
    }


def _limits(
    first: Measurements, second: Measurements, subjects: int, few: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Say what limits a comparison, and in what the set-ups of two runs differ."""
    set_ups = [run.notes.get(set_up.SET_UP, {}) for run in (first, second)]
    modes = [run.notes.get("mode", "") for run in (first, second)]
    notes = [*set_up.notes_of_signals(*set_ups), *few, *limits_of_p(modes, subjects)]
    return notes, set_up.differences(*set_ups)


def _values(cells: Sequence[CellItems], ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Collect the values of items [S, N], one row a cell; NaN where an item has none."""
    nothing = [None] * len(cells[0]["image_ids"])
    by_id = [dict(zip(cell["image_ids"], cell.get(metric, nothing), strict=True)) for cell in cells]
    return np.array([[cell[image_id] for image_id in ids] for cell in by_id], np.float64)
