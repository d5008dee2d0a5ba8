"""Audit of other people's retrieval results: facts about their similarities, ids,
training data and log, each with its size in percentage points.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from math import factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.measurement.corrections import (
    Assignment,
    Csls,
    Sinkhorn,
    Whitening,
)
from brainhive_cli.measurement.ranks import TIE, TOP, ranks, unit
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items

FINDING, NOTHING, UNDECIDED = "finding", "none", "not decidable"
"""What a check states."""
PRECISION = {torch.float16: 1e-3, torch.float32: 1e-6}
"""Share of the largest similarity below which two of a file's are equal; of float64 it
is 1e-12.
"""
CERTAIN = 3.0
"""Standard deviations by which ties that break at random may exceed their mean."""
BATCHES = (10, 16, 20, 25, 32, 40, 50, 64, 100, 128, 200, 250, 256, 500, 512)
"""Sizes of the batches within which scores are computed by mistake."""
MOST_COMPARED = 10_000
"""Signals and candidates up to which similarities are corrected."""
EQUAL = 1e-4
"""Share of the spread below which means over the test signals are equal."""
COPY, MIN_DIMENSIONS = 0.999, 8
"""Least cosine of copies, and effective dimensions of embeddings that are compared: in
fewer, different pictures are as near.
"""
MOST_SHARED, MOST_FIRST = 0.999, 0.9
"""Share of the variance of similarities that all signals share, and share of signals
with one nearest picture, from which predictions have collapsed.
"""
MIN_SIGNALS, MOST_ORDERED = 20, 2_000
"""Signals from which the order is judged, and as many as are read for it."""
MIN_WRONG = 6
"""Wrong first choices from which it is judged whether they exclude one another."""
MAX_CHANCE = 1e-4
"""Probability below which a pattern is no chance."""
MAX_ORDER, MIN_ORDER = 2.0, 5.0
"""Standard deviations of the similarity of neighbours in a gallery whose order is of no
content, and of predictions that know the order.
"""

Row = tuple[str, str, float | None, str, str]
"""Check, state, percentage points, evidence, and what is needed or would settle it."""


@dataclass(frozen=True)
class ForeignResult:
    """Similarities of test signals with a gallery, and what its publisher says of them.

    Attributes:
        similarities: [N, M], larger is more alike.
        targets: Gallery rows that show the seen picture, [N, K], -1 where fewer.
        seen: [N] name of the seen picture.
        predicted: Embeddings of the signals [N, D]; None where there are none.
        gallery: Embeddings of the gallery [M, D]; None where there are none.
        has_file: Whether similarities are of a file, not the cosines of embeddings.
        train_ids: Names of the training pictures.
        train_vectors: Their embeddings [T, D]; None where there are none.
        log: Scores by epoch, by name.
        claims: Claimed values by name, each with its rounding; of shares in percent.
        k: Of the top-k that is judged; `audit` chooses it among the claimed ones.
    """

    similarities: Tensor
    targets: Tensor
    seen: Sequence[str]
    predicted: Tensor | None = None
    gallery: Tensor | None = None
    has_file: bool = True
    train_ids: Sequence[str] = ()
    train_vectors: Tensor | None = None
    log: Mapping[str, Float64] = field(default_factory=dict)
    claims: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    k: int = 1

    @cached_property
    def ranks(self) -> tuple[Int64, Int64]:
        """Ranks [N] with ties against the model, and for it."""
        return self.rank(TIE)

    def rank(self, share: float) -> tuple[Int64, Int64]:
        """Rank as `ranks`; a share of the largest similarity is the width of a tie."""
        tie = share * (float(self.similarities.abs().max()) or 1.0)
        against, lenient = (
            ranks(self.similarities, None, self.targets, sign * tie).numpy()
            for sign in (1, -1)
        )
        return against, lenient

    @property
    def pool(self) -> int:
        """Candidates of a signal, among them the right one."""
        return self.similarities.shape[1] - self.targets.shape[1] + 1

    def reorder(self, similarities: Tensor, targets: Tensor | None = None) -> Int64:
        """Rank the same signals by other similarities, or other targets: [N]."""
        targets = self.targets if targets is None else targets
        return ranks(similarities, None, targets).numpy()

    def top(self, counted: Int64, k: int = 0) -> float:
        """Compute the claimed top-k, or another, of ranks [N], in percent."""
        return 100 * float((counted <= (k or self.k)).mean())


def audit(result: ForeignResult) -> list[Row]:
    """Do every check; a claim that a plain ranking reaches needs no explanation."""
    # the first top-k whose claim is higher than a plain ranking gives, else the first
    claimed = [k for k in TOP if f"top{k}" in result.claims]
    higher = [
        k
        for k in claimed
        if result.claims[f"top{k}"][0] - result.claims[f"top{k}"][1]
        > _rank_plainly(result, k)[1]
    ]
    result = replace(result, k=([*higher, *claimed] or [1])[0])
    k, lenient = result.k, result.ranks[1]
    plain = _rank_plainly(result, k)[0]

    # other protocols, where there is no claim or it is higher; also of each picture's
    # signals together, which is a usual one
    value, _ = result.claims.get(f"top{k}", (plain, 0.0))
    is_higher = bool(higher) and not _has_claims(result, _average(result))
    protocols = {"ties": {"ties that count for the model": lenient}}
    if is_higher or not claimed:
        protocols |= {check: dict(rank(result)) for check, rank in PROTOCOLS.items()}
    reached = {
        check: names
        for check, tables in protocols.items()
        if is_higher
        and (names := [name for name in tables if _has_claims(result, tables[name])])
    }

    # a claim that several protocols reach is one finding
    rows = list[Row]()
    for check, judge in CHECKS.items():
        if reached and check == next(iter(reached)):
            without = " or ".join(chain.from_iterable(reached.values()))
            evidence = f"top-{k} falls from {value:.1f} (claimed) to {plain:.1f} "
            evidence += f"without {without}"
            way = "the claim recomputed by a plain ranking"
            rows.append((check, FINDING, value - plain, evidence, way))
            continue
        state, points, evidence, way = judge(result, value, plain)
        if not claimed:
            scores = protocols.get(check, {}).items()
            listed = ", ".join(
                f"{name} {result.top(other):.1f}" for name, other in scores
            )
            evidence = "; ".join(filter(None, [evidence, listed]))
        rows.append((check, state, points, evidence, way))

    # a higher claim that nothing else explains
    is_explained = bool(reached) or ("epoch", FINDING) in {row[:2] for row in rows}
    return [_claimed(result, plain, is_higher and not is_explained), *rows]


def _rank_plainly(result: ForeignResult, k: int) -> tuple[float, float]:
    """Compute top-k [%] with ties against the model, and the most that random ties
    give, among them those that the precision of the file makes.
    """
    against, most = result.ranks[0], 0.0
    for share in (TIE, PRECISION.get(result.similarities.dtype, TIE)):
        last, first = result.rank(share)
        most = max(most, _most(((k + 1 - first) / (last - first + 1)).clip(0, 1)))

    # a claim among fewer candidates, of which all subsets count
    ways = int(result.claims.get("pool", (result.pool, 0))[0])
    if k <= ways < result.pool:
        from scipy.stats import hypergeom

        subset = hypergeom.cdf(k - 1, result.pool - 1, against - 1, ways - 1)
        return 100 * float(subset.mean()), _most(subset)
    return result.top(against, k), most


def _most(chances: Float64) -> float:
    """Give the largest score [%] of hits with these probabilities [N]."""
    error = np.sqrt((chances * (1 - chances)).sum()) / len(chances)
    return 100 * float(chances.mean() + CERTAIN * error)


def _has_claims(result: ForeignResult, counted: Int64) -> bool:
    """Whether ranks [N] have every claimed top-k."""
    return all(
        abs(result.top(counted, k) - result.claims[name][0]) <= result.claims[name][1]
        for k in TOP
        if (name := f"top{k}") in result.claims
    )


def _claimed(result: ForeignResult, plain: float, is_unexplained: bool) -> Row:
    """Compare what is claimed with what the files give."""
    check, k, claims = "claimed numbers", result.k, result.claims
    against, lenient = result.ranks
    rank = float((against + lenient).mean() / 2)
    area = 100 * (1 - (rank - 1) / max(1, result.pool - 1))
    ours = {"mean_rank": rank, "auc": area}
    for other in {1, 5} - {k}:
        ours[f"top{other}"] = result.top(against, other)
    evidence = f"top-{k} {plain:.1f}" + "".join(
        f", {name.replace('top', 'top-').replace('_', ' ')} {value:.1f}"
        for name, value in ours.items()
    )
    if f"top{k}" not in claims:
        return check, UNDECIDED, None, evidence, "the claimed top-1 or top-5"
    value, _ = claims[f"top{k}"]
    evidence = f"{evidence}; claimed top-{k} {value:.1f}"
    if is_unexplained:
        way = "the script that computed it"
        return check, FINDING, value - plain, evidence, way
    return check, NOTHING, None, evidence, ""


def _corrected(result: ForeignResult) -> Iterator[tuple[str, Int64]]:
    """Score what uses the test signals together."""
    values = result.similarities.double()
    if max(values.shape) > MOST_COMPARED:
        return
    scaled = values / max(1.0, float(values.abs().max()))
    tokens: Any = (result.predicted, result.gallery)
    corrections: dict[str, Any] = {
        "one-to-one assignment": Assignment(),
        "CSLS": Csls(),
        "CSLS of 10 neighbours": Csls(neighbours=10),
        **{f"Sinkhorn at {t}": Sinkhorn(temperature=t) for t in (0.01, 0.05, 0.1)},
        **({} if result.predicted is None else {"whitening": Whitening()}),
    }
    for name, correction in corrections.items():
        yield name, result.reorder(correction.correct(scaled, *tokens))
    # each picture's similarities with mean 0 and sd 1 over the test signals
    spread = values.std(0, correction=0).clamp(min=1e-12)
    standardised = (values - values.mean(0)) / spread
    yield "standardising over test signals", result.reorder(standardised)


def _in_batches(result: ForeignResult) -> Iterator[tuple[str, Int64]]:
    """Score signals among the pictures of their own batch, in the order of the file."""
    values, targets = result.similarities.double(), result.targets
    for size in BATCHES:
        if size < len(values) and targets.shape[1] == 1:
            counted = list[Tensor]()
            for start in range(0, len(values), size):
                rows = slice(start, start + size)
                candidates, own = targets[rows, 0].unique(return_inverse=True)
                counted.append(ranks(values[rows][:, candidates], None, own))
            yield f"batches of {size}", torch.cat(counted).numpy()


def _average(result: ForeignResult) -> Int64:
    """Rank the mean similarities of each picture's signals, [P]."""
    pictures, number = result.targets[:, 0].unique(return_inverse=True)
    means = torch.zeros(len(pictures), result.similarities.shape[1]).double()
    means.index_add_(0, number, result.similarities.double())
    return result.reorder(means / number.bincount()[:, None], pictures)


def _on_diagonal(result: ForeignResult) -> Iterator[tuple[str, Int64]]:
    """Score row n as if its picture were column n."""
    count, width = result.similarities.shape
    diagonal = torch.arange(count)
    if count == width and not (result.targets == diagonal[:, None]).any(1).all():
        ranked = result.reorder(result.similarities, diagonal)
        yield "taking row n for picture n", ranked


PROTOCOLS: dict[str, Callable[[ForeignResult], Iterator[tuple[str, Int64]]]] = {
    "test signals together": _corrected,
    "pool": _in_batches,
    "order": _on_diagonal,
}
"""Protocols by which a claim may have been made, by the check that names them."""
Judged = tuple[str, float | None, str, str]


def _ties(result: ForeignResult, value: float, plain: float) -> Judged:
    against, lenient = result.ranks
    high = result.top(lenient)
    share = float((against > lenient).mean())
    evidence = f"{share:.0%} of signals have ties with the seen picture"
    if share:
        evidence += f"; top-{result.k} {plain:.1f} against, {high:.1f} for the claim"
    return NOTHING, None, evidence, ""


def _together(result: ForeignResult, value: float, plain: float) -> Judged:
    """Find traces of the test signals as a whole in what the files hold."""
    values, traces = result.similarities.double(), list[str]()
    (count, width), has_errors = values.shape, (result.ranks[0] > 1).sum() >= MIN_WRONG

    # first choices that exclude one another, although some are wrong; pictures that are
    # alike may be exchanged in pairs
    first, own = values.argmax(1), result.targets[:, 0]
    if count == width == len(first.unique()) == len(own.unique()):
        chosen = own.argsort()[first]  # [N] the signal of the picture that is first
        is_wrong = (chosen != torch.arange(count)) & (
            chosen[chosen] != torch.arange(count)
        )
        wrong = min(100, int(is_wrong.sum()))
        chance = factorial(wrong) / (count - 1.0) ** wrong
        if wrong >= MIN_WRONG and chance < MAX_CHANCE:
            traces.append(
                f"the first choices of {count} signals are all different, {wrong} of "
                "them wrong"
            )

    # equal means or sums over the signals, of similarities or embeddings, which those
    # of a perfect result may have
    spread = float(values.std(correction=0))
    if has_errors and width > 2 and len(values.unique()) > 2:
        levels = {"means": values.mean(0), "sums of exponentials": values.logsumexp(0)}
        traces += [
            f"all pictures have equal {name} of similarities over the test signals"
            for name, level in levels.items()
            if float(level.max() - level.min()) < EQUAL * spread
        ]
    if has_errors and result.predicted is not None:
        tokens = result.predicted.double()
        if float(tokens.mean(0).abs().max()) < EQUAL * float(tokens.std(0).min()):
            traces.append("the mean prediction over the test signals is 0")

    # the size is known where embeddings give what was before
    if not traces:
        return NOTHING, None, "", ""
    points = None
    if result.has_file and result.predicted is not None and result.gallery is not None:
        before = result.top(
            result.reorder(unit(result.predicted) @ unit(result.gallery).T)
        )
        points = plain - before
        traces.append(f"embeddings in the folder give {before:.1f}, not {plain:.1f}")
    way = "predictions or similarities from before that step"
    return FINDING, points, "; ".join(traces), way


def _without(result: ForeignResult, is_known: Bool, what: str, plain: float) -> Judged:
    """State how many signals are of known pictures, and the score of the others."""
    count, total = int(is_known.sum()), len(is_known)
    evidence = f"{count} of {total} signals show {what}"
    if not count:
        return NOTHING, None, evidence, ""
    if count == total:
        return FINDING, None, evidence, "a test on pictures that are not among them"
    rest = result.top(result.ranks[0][~is_known])
    evidence += f"; top-{result.k} falls from {plain:.1f} to {rest:.1f} without them"
    return FINDING, plain - rest, evidence, "a training without these pictures"


def _overlap(result: ForeignResult, value: float, plain: float) -> Judged:
    known = {*result.train_ids}
    if not known:
        return UNDECIDED, None, "", "names of the training pictures"
    # row numbers of two lists are no names
    for names in (known, {*result.seen}):
        if names <= {str(n) for n in range(len(names) + 1)}:
            return UNDECIDED, None, "ids are row numbers", "names of the pictures"
    is_known = np.array([name in known for name in result.seen])
    return _without(result, is_known, "training pictures, by name", plain)


def _copies(result: ForeignResult, value: float, plain: float) -> Judged:
    if result.train_vectors is None or result.gallery is None:
        needed = "embeddings of gallery and training pictures"
        return UNDECIDED, None, "", needed
    learned, gallery = unit(result.train_vectors), unit(result.gallery)
    centred = learned[:MOST_ORDERED] - learned[:MOST_ORDERED].mean(0)
    variances = torch.linalg.svdvals(centred).square()
    if float(variances.sum() ** 2) < MIN_DIMENSIONS * float(variances.square().sum()):
        return UNDECIDED, None, "", "embeddings of more dimensions"
    nearest = torch.cat([(rows @ learned.T).amax(1) for rows in gallery.split(1024)])
    is_copy = (nearest >= COPY)[result.targets[:, 0]].numpy()
    what = "pictures whose embedding a training picture has, too"
    return _without(result, is_copy, what, plain)


def _epoch(result: ForeignResult, value: float, plain: float) -> Judged:
    """Compare the claim with the epochs that the last, the validation and the test
    choose.
    """
    # test scores of the claimed kind where the log names it
    kind = (f"top{result.k}", f"top_{result.k}", f"top-{result.k}", "acc", "")
    tests = {
        name: values
        for name, values in result.log.items()
        if "test" in name and not any(word in name for word in ("loss", "rank"))
    }
    name = next((name for word in kind for name in tests if word in name), "")
    if not name or np.isfinite(tests[name]).sum() < 2:
        needed = "scores on test and validation by epoch"
        return UNDECIDED, None, "", needed
    is_known = np.isfinite(tests[name])
    scores = tests[name][is_known]
    scores = scores * (100 if scores.max() <= 1 else 1)
    honest = {"the last epoch": len(scores) - 1}
    for column, values in result.log.items():
        if re.search(r"(^|_)val", column) and len(values) == len(is_known):
            values = np.nan_to_num(values[is_known])
            is_lower = "loss" in column or "rank" in column
            honest[f"the best {column}"] = int(
                values.argmin() if is_lower else values.argmax()
            )
    best, (chosen, epoch) = int(scores.argmax()), [*honest.items()][-1]
    evidence = (
        f"{name} is {scores[best]:.1f} at its best epoch, {scores[epoch]:.1f} at "
        f"{chosen}"
    )
    rounding = max(0.05, result.claims.get(f"top{result.k}", (0, 0))[1])
    is_best = abs(value - scores[best]) <= rounding
    others = max(scores[index] for index in honest.values())
    if is_best and scores[best] - others > rounding:
        evidence = f"the value is that of the best test epoch; {evidence}"
        return (
            FINDING,
            float(scores[best] - scores[epoch]),
            evidence,
            f"files of {chosen}",
        )
    return NOTHING, None, evidence, ""


def _collapse(result: ForeignResult, value: float, plain: float) -> Judged:
    """Measure what all signals have in common, and how often one picture is first."""
    values = result.similarities.double()
    centred = values - values.mean(1, keepdim=True)
    total = float(centred.square().sum())
    shared = float(centred.mean(0).square().sum()) * len(values) / total if total else 1
    first = values.argmax(1).bincount(minlength=values.shape[1])
    often, chance = int(first.max()), 100 * result.k / result.pool
    evidence = (
        f"one picture is the nearest of {often} of {len(values)} signals, "
        f"{int((first == 0).sum())} of {len(first)} pictures are the nearest of none; "
        f"all signals share {shared:.1%} of the variance of similarities"
    )
    is_collapsed = shared > MOST_SHARED or often > MOST_FIRST * len(values)
    is_target = (result.targets == int(first.argmax())).any(1)
    is_unlike = often - int(is_target.sum()) > 0.2 * len(values)
    constant = result.top(result.reorder(values.mean(0).expand_as(values)))
    if is_collapsed and is_unlike and plain <= constant and constant > 1.5 * chance:
        way = "the score with each picture weighing the same"
        evidence = f"one order for all signals gives {constant:.1f}; {evidence}"
        return FINDING, plain - chance, evidence, way
    return NOTHING, None, evidence, ""


def _units(result: ForeignResult, value: float, plain: float) -> Judged:
    """Compare a claimed interval with that over pictures."""
    hits = (result.ranks[0] <= result.k).astype(float)
    rows = list(range(len(hits)))
    how: Any = {"protocol": "audit", "split": "test", "is_share": True}
    trials, pictures = (
        measure("top", [hits], items=Items([rows], [units], kind), limits=(0, 1), **how)
        for units, kind in ((rows, "signals"), (list(result.seen), "pictures"))
    )
    count = len({*result.seen})
    if pictures.low is None or trials.low is None:
        return UNDECIDED, None, f"{count} pictures", "six pictures or more"
    assert pictures.high is not None and trials.high is not None
    ours = 50 * (pictures.high - pictures.low)
    naive = 50 * (trials.high - trials.low)
    evidence = f"{result.top(_average(result)):.1f} of signals averaged by picture, "
    evidence = (evidence if count < len(hits) else "") + (
        f"95 % from {100 * pictures.low:.1f} to {100 * pictures.high:.1f} over {count} "
        f"pictures of {len(hits)} signals"
    )
    low, high = (result.claims.get(name, (None, 0))[0] for name in ("low", "high"))
    if low is None or high is None or result.k != 1:
        return NOTHING, None, evidence, ""
    claimed = (high - low) / 2
    evidence = f"{evidence}; claimed ± {claimed:.1f}"
    if (
        claimed < 0.7 * ours
        and count < len(hits)
        and abs(claimed - naive) < 0.25 * naive
    ):
        evidence = f"{evidence}, which counts {len(hits)} signals as independent"
        return FINDING, float(ours - claimed), evidence, "an interval over pictures"
    return NOTHING, None, evidence, ""


def _pool(result: ForeignResult, value: float, plain: float) -> Judged:
    ways = int(result.claims.get("pool", (result.pool, 0))[0])
    evidence = f"{result.pool} candidates a signal"
    if ways > result.pool:
        evidence = f"{evidence}, {ways} are claimed"
        return FINDING, None, evidence, f"similarities with all {ways} candidates"
    return NOTHING, None, evidence, ""


def _order(result: ForeignResult, value: float, plain: float) -> Judged:
    """Test whether predictions are alike to the pictures before and after theirs."""
    rows, way = (
        result.targets[:MOST_ORDERED, 0],
        "predictions of signals in another order",
    )
    is_paired = len(rows.unique()) == len(rows) >= MIN_SIGNALS
    if result.gallery is None or not is_paired:
        return UNDECIDED, None, "", way
    pictures = unit(result.gallery)[rows]
    content = (pictures @ pictures.T).numpy()
    values = result.similarities.double()[:MOST_ORDERED, rows].numpy()
    # pictures that are alike explain similarities, except those of neighbours
    off = ~np.eye(len(rows), dtype=bool)
    residual = _centre(values, off)
    known = _centre(content, off)
    residual -= known * (residual * known).sum() / max(1e-30, (known**2).sum())
    if _neighbours(known) > MAX_ORDER:
        return UNDECIDED, None, "neighbours in the gallery are alike", way
    deviations = _neighbours(residual)
    evidence = f"similarity with neighbours of the seen picture: {deviations:+.1f} sd"
    if deviations > MIN_ORDER:
        return FINDING, None, evidence, way
    return NOTHING, None, evidence, ""


def _centre(values: Float64, off: Bool) -> Float64:
    """Remove the means of rows and columns off the diagonal, which becomes 0."""
    values = np.where(off, values, 0.0)
    count = len(values) - 1
    row, column = values.sum(1, keepdims=True) / count, values.sum(0) / count
    return np.where(
        off, values - row - column + values.sum() / count / len(values), 0.0
    )


def _neighbours(values: Float64) -> float:
    """Standardise the sum next to the diagonal by 200 random orders of all."""
    random, count = np.random.default_rng(0), len(values)
    orders = np.array(
        [np.arange(count), *(random.permutation(count) for _ in range(200))]
    )
    before, after = orders[:, :-1], orders[:, 1:]
    sums = (values[before, after] + values[after, before]).sum(1)
    return float((sums[0] - sums[1:].mean()) / max(1e-30, sums[1:].std()))


CHECKS: dict[str, Callable[[ForeignResult, float, float], Judged]] = {
    "ties": _ties,
    "test signals together": _together,
    "training pictures": _overlap,
    "copies of training pictures": _copies,
    "epoch": _epoch,
    "collapse and hubs": _collapse,
    "interval and units": _units,
    "pool": _pool,
    "order": _order,
}
"""The checks, each of a result, the claimed and the recomputed top-k [%]."""
