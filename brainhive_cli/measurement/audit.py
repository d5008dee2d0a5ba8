"""Audit of other people's retrieval results: facts about their similarities, ids,
training data and log, each with its size in percentage points.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.measurement.corrections import Assignment, Sinkhorn
from brainhive_cli.measurement.ranks import TIE, TOP, ranks, summarise, unit
from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Items

FINDING, NOTHING, UNDECIDED = "finding", "none", "not decidable"
"""What a check states."""
PRECISION = {torch.float16: 1e-3, torch.float32: 1e-6}
"""Share of the largest similarity below which two similarities of a file are equal; of
float64 it is 1e-12.
"""
ROUNDING = 0.5
"""Percentage points by which a claim is rounded at most."""
CERTAIN = 3.0
"""Standard deviations by which ties that break at random may exceed their mean."""
MOST_COMPARED = 10_000
"""Signals and candidates up to which similarities are corrected."""
EQUAL = 1e-4
"""Share of the spread below which means over the test signals are equal."""
COPY, MIN_DIMENSIONS = 0.999, 8
"""Least cosine of copies, and effective dimensions of embeddings that are compared: in
fewer, different pictures are as near.
"""
MIN_WRONG = 12
"""Wrong first choices from which a pattern of them is no chance: as many that exclude
one another have a probability of at most 1e-4.
"""
MOST_FIRST = 0.9
"""Share of signals with one nearest picture from which predictions have collapsed."""

Row = tuple[str, str, float | None, str]
"""Check, state, percentage points, and evidence or what is needed for the points."""
Judged = tuple[bool, float | None, str] | None
"""Whether there is a finding, its points, and evidence; None: not decidable."""


@dataclass(frozen=True)
class ForeignResult:
    """Similarities of test signals with a gallery, and what its publisher says of them.

    Attributes:
        similarities: [N, M], larger is more alike.
        targets: Gallery rows that show the seen picture, [N, K], -1 where fewer.
        seen: [N] name of the seen picture.
        train_ids: Names of the training pictures.
        gallery: Embeddings of the gallery [M, D]; None where there are none.
        train_vectors: Those of the training pictures [T, D].
        log: Scores by epoch, by name.
        claims: Claimed values, shares in percent; of an interval half its width.
        k: Of the top-k that is judged; `audit` chooses it among the claimed ones.
    """

    similarities: Tensor
    targets: Tensor
    seen: Sequence[str]
    train_ids: Sequence[str] = ()
    gallery: Tensor | None = None
    train_vectors: Tensor | None = None
    log: Mapping[str, Float64] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    k: int = 1

    @property
    def pool(self) -> int:
        """Candidates of a signal, among them the right one."""
        return self.similarities.shape[1] - self.targets.shape[1] + 1

    @cached_property
    def ranks(self) -> Int64:
        """Ranks [N] with ties against the model."""
        return self.rank(TIE)

    def rank(self, share: float) -> Int64:
        """Rank with ties as wide as a share of the largest similarity; if it is
        negative, ties rank for the model.
        """
        tie = share * (float(self.similarities.abs().max()) or 1.0)
        return ranks(self.similarities, None, self.targets, tie).numpy()

    def top(self, counted: Int64 | None = None) -> float:
        """Compute the judged top-k of these or other ranks, in percent."""
        return 100 * float(
            ((self.ranks if counted is None else counted) <= self.k).mean()
        )


def audit(result: ForeignResult) -> list[Row]:
    """Do every check; a claim that a plain ranking reaches needs no explanation."""
    # the first top-k whose claim is higher than a plain ranking gives, else the first
    claims = {k: result.claims[f"top{k}"] for k in TOP if f"top{k}" in result.claims}
    plain = {k: _rank_plainly(result, k) for k in TOP}
    higher = [k for k, claim in claims.items() if claim - ROUNDING > plain[k][1]]
    result = replace(result, k=[*higher, *claims, 1][0])

    # protocols that reach a higher claim; the mean of each picture's signals is plain
    def reaches(counted: Int64) -> bool:
        return all(
            abs(100 * (counted <= k).mean() - claim) <= ROUNDING
            for k, claim in claims.items()
        )

    is_higher = False
    if higher:
        pictures, number = result.targets[:, 0].unique(return_inverse=True)
        weights = torch.nn.functional.one_hot(number).double() / number.bincount()
        means = weights.T @ result.similarities.double()  # [P, M]
        average = replace(result, similarities=means, targets=pictures[:, None])
        is_higher = not reaches(average.ranks)
    protocols = [("ties", "ties for the model", result.rank(-TIE)), *_correct(result)]
    causes = {check for check, _, counted in protocols if reaches(counted)}

    # a claim that several protocols reach is one finding, of the first; the last check
    # finds what nothing explains
    rows = list[Row]()
    for check, (judge, needed) in CHECKS.items():
        judged = judge(result)
        found, points, evidence = judged or (False, None, "")
        for by, name, counted in protocols:
            evidence += f"; {name} {result.top(counted):.1f}" if by == check else ""
        if is_higher and check in {*causes, "claimed numbers"}:
            found = True
            points = claims[result.k] - plain[result.k][0]
        is_higher &= not (found and check in {*causes, "epoch"})
        state = FINDING if found else NOTHING if judged else UNDECIDED
        points = points if found else None
        if state != NOTHING and points is None:
            evidence += f"; needed: {needed}"
        rows.append((check, state, points, evidence.removeprefix("; ")))
    return rows


def _claimed(result: ForeignResult) -> Judged:
    """Compare the claimed score and number of candidates with those of the files."""
    claim = result.claims.get(f"top{result.k}")
    plain, _ = _rank_plainly(result, result.k)
    if claim is None:
        return None
    ways = result.claims.get("pool", result.pool)
    evidence = f"top-{result.k} {claim:.1f} claimed, {plain:.1f} by a plain ranking; "
    evidence += f"{ways:.0f} candidates claimed, {result.pool} in the files"
    return ways > result.pool, None, evidence


def _rank_plainly(result: ForeignResult, k: int) -> tuple[float, float]:
    """Compute top-k [%] with ties against the model, and the most that random ties
    give, among them those that the precision of the file makes.
    """
    from scipy.stats import hypergeom

    # probabilities of a hit [N]; for a claim among fewer candidates, over all subsets
    pool = result.pool
    ways = int(result.claims.get("pool", result.pool))
    share = PRECISION.get(result.similarities.dtype, TIE)
    last = result.rank(share)
    first = result.rank(-share)
    chances = ((k + 1 - first) / (last - first + 1)).clip(0, 1)
    plain = result.ranks <= k
    if k <= ways < pool:
        plain = chances = hypergeom.cdf(k - 1, pool - 1, result.ranks - 1, ways - 1)
    error = np.sqrt((chances * (1 - chances)).sum()) / len(chances)
    most = max(plain.mean(), chances.mean() + CERTAIN * error)
    return 100 * float(plain.mean()), 100 * float(most)


def _correct(result: ForeignResult) -> Iterator[tuple[str, str, Int64]]:
    """Rank by what uses the test signals together: check, name, and ranks [N]."""
    values = result.similarities.double()
    if max(values.shape) > MOST_COMPARED:
        return
    scaled = values / values.abs().max().clamp(min=1)
    for name, correction in {
        "one-to-one assignment": Assignment(),
        **{f"Sinkhorn at {t}": Sinkhorn(temperature=t) for t in (0.01, 0.05, 0.1)},
    }.items():
        corrected = correction.correct(scaled, scaled, scaled)
        yield TOGETHER, name, replace(result, similarities=corrected).ranks


def _ties(result: ForeignResult) -> Judged:
    names = ("top1", "top5", "mean_rank", "rank_auc")
    metrics = summarise([result.ranks], result.pool, split="test", only=names)
    listed = (f"{metric.name} {metric.value:.3f}" for metric in metrics)
    return False, None, f"ties against the model: {', '.join(listed)}"


def _together(result: ForeignResult) -> Judged:
    """Find traces of the test signals as a whole in what the files hold."""
    values = result.similarities.double()
    traces = list[str]()
    count, width = values.shape
    # first choices that exclude one another, although some are wrong; pictures that are
    # alike may be exchanged in pairs
    first = values.argmax(1)
    own = result.targets[:, 0]
    if count == width == len(first.unique()) == len(own.unique()):
        chosen = own.argsort()[first]  # [N] the signal of the picture that is first
        wrong = (first != own) & (chosen[chosen] != torch.arange(count))
        if wrong.sum() >= MIN_WRONG:
            traces.append(f"all first choices differ, although {wrong.sum()} are wrong")

    # equal means or sums over the signals, which those of a perfect result may have
    if (result.ranks > 1).sum() >= MIN_WRONG and len(values.unique()) > 2:
        levels = torch.stack([values.mean(0), values.logsumexp(0)])
        if (levels.amax(1) - levels.amin(1) < EQUAL * values.std()).any():
            traces.append("sums over test signals are equal for all pictures")

    return bool(traces), None, "; ".join(traces)


def _without(result: ForeignResult, is_known: Bool, what: str) -> Judged:
    """State how many signals are of known pictures, and the score of the others."""
    evidence = f"{is_known.sum()} of {len(is_known)} signals show {what}"
    if is_known.all() or not is_known.any():
        return bool(is_known.all()), None, evidence
    plain = result.top()
    rest = result.top(result.ranks[~is_known])
    evidence += f"; top-{result.k} falls from {plain:.1f} to {rest:.1f} without them"
    return True, plain - rest, evidence


def _overlap(result: ForeignResult) -> Judged:
    # row numbers of two lists are no names
    known = {*result.train_ids}
    for names in (known, {*result.seen}):
        if names <= {str(n) for n in range(len(names) + 1)}:
            return None
    is_known = np.array([name in known for name in result.seen])
    return _without(result, is_known, "training pictures, by name")


def _copies(result: ForeignResult) -> Judged:
    gallery = result.gallery
    learned = result.train_vectors
    if gallery is None or learned is None or gallery.shape[1] != learned.shape[1]:
        return None
    gallery = unit(gallery)
    learned = unit(learned)
    scatter = torch.cov(learned.T)
    if scatter.trace() ** 2 < MIN_DIMENSIONS * scatter.square().sum():
        return None
    is_copy = ((gallery @ learned.T).amax(1) >= COPY)[result.targets[:, 0]].numpy()
    return _without(result, is_copy, "copies of training pictures, by embedding")


def _epoch(result: ForeignResult) -> Judged:
    """Compare the claim with the best test score, and with those of the last epoch and
    the best on validation.
    """
    # test scores of the claimed kind where the log names it
    top = f"top{result.k}"
    worse = re.compile("loss|rank")
    name = min(
        (name for name in result.log if "test" in name and not worse.search(name)),
        key=lambda name: top not in name.replace("_", ""),
        default="",
    )
    if not name:
        return None
    scores = result.log[name]
    scores = scores * (100 if np.nanmax(scores) <= 1 else 1)

    # scores of epochs that are chosen without the test
    honest = [scores[np.isfinite(scores)][-1]]
    for other, values in result.log.items():
        if "val" in other and len(values) == len(scores):
            signed = -values if worse.search(other) else values
            honest.append(scores[np.nanargmax(signed)])
    best = float(np.nanmax(scores))
    score = float(np.nanmax(honest))
    evidence = (
        f"{name} {best:.1f} at its best epoch, {score:.1f} at the last or at the "
        "best on validation"
    )
    difference = abs(result.claims.get(top, result.top()) - best)
    return difference <= ROUNDING < best - score, best - score, evidence


def _collapse(result: ForeignResult) -> Judged:
    """Count how often each picture is first, and score one order for all signals."""
    values = result.similarities.double()
    first = values.argmax(1).bincount(minlength=values.shape[1])
    often = int(first.max())
    count = len(values)
    chance = 100 * result.k / result.pool
    constant = replace(result, similarities=values.mean(0).expand_as(values)).top()
    evidence = (
        f"one picture is the nearest of {often} of {count} signals, "
        f"{(first == 0).sum()} of {len(first)} pictures are the nearest of none; "
        f"one order for all signals gives {constant:.1f}"
    )
    wrong = often - (result.targets == first.argmax()).any(1).sum()
    is_collapsed = often > MOST_FIRST * count and wrong > 0.2 * count
    is_found = is_collapsed and result.top() <= constant > 1.5 * chance
    return bool(is_found), result.top() - chance, evidence


def _units(result: ForeignResult) -> Judged:
    """Compare a claimed interval of top-1 with that over pictures."""
    hits = (result.ranks <= 1).astype(float)
    signals = len(result.seen)
    items = Items([range(signals)], [result.seen], "pictures")
    interval = describe([hits], items, is_share=True)
    if interval.low is None or interval.high is None:
        return None
    claimed = result.claims.get("interval", np.nan)
    ours = 50 * (interval.high - interval.low)
    naive = 196 * float(hits.std()) / signals**0.5
    evidence = (
        f"± {ours:.1f} over {items.count} pictures, ± {naive:.1f} over {signals} "
        "signals"
    )
    is_naive = items.count < signals and abs(claimed - naive) < 0.25 * naive
    return is_naive and claimed < 0.7 * ours, ours - claimed, evidence


TOGETHER = "test signals together"
CHECKS: dict[str, tuple[Callable[[ForeignResult], Judged], str]] = {
    "ties": (_ties, ""),
    TOGETHER: (_together, "predictions or similarities from before that step"),
    "training pictures": (_overlap, "names of training pictures, not all tested"),
    "copies of training pictures": (
        _copies,
        "embeddings of gallery and training pictures, not all tested",
    ),
    "epoch": (_epoch, "scores on test and validation by epoch"),
    "collapse and hubs": (_collapse, ""),
    "interval and units": (_units, "six pictures or more"),
    "claimed numbers": (_claimed, "a claimed top-1 or top-5, all claimed candidates"),
}
"""The checks by name, and what is needed where their points are not known."""
