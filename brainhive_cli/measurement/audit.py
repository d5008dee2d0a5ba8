"""Audit of other people's retrieval results: facts about their similarities, ids,
training data and log, each with its size in percentage points.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.measurement.corrections import Assignment, Csls, Sinkhorn
from brainhive_cli.measurement.epoch_log import ROUNDING, find_logs, round_to
from brainhive_cli.measurement.foreign_result import PRECISION, ForeignResult
from brainhive_cli.measurement.ranks import (
    TIE_TOLERANCE,
    TOP_K,
    normalise_tokens,
    summarise_ranks,
)
from brainhive_cli.measurement.readings import (
    COSINE,
    compare,
    fill_missing,
    list_readings,
)
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import Items

FINDING, NOTHING, UNDECIDED = "finding", "none", "not decidable"
"""What a check states."""
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
SEEDS = 2.33
"""Standard deviations of a score by which a mean over seeds exceeds that of one seed in
1 of 100 at most.
"""
TOGETHER = "test signals together"
STANDARDISED = "standardised by test signals"
CLAIMED = "claimed numbers"
BEFORE = "predictions or similarities from before that step"

Row = tuple[str, str, float | None, str]
"""Check, state, percentage points, and evidence or what is needed for the points."""
Judged = tuple[bool | None, float | None, str]
"""Whether there is a finding (None: not decidable), its points, and evidence."""


def audit(result: ForeignResult) -> list[Row]:
    """Do every check; a claim that a usual convention reaches needs no explanation."""
    claims = {k: result.claims[f"top{k}"] for k in TOP_K if f"top{k}" in result.claims}
    for choice in _choose_readings(result, claims):
        reading, members, is_reached = choice
        result = members[0]
        protocols = [("ties", "ties for the model", result.rank(-TIE_TOLERANCE))]
        protocols += _correct(result)
        causes = set[str]()
        for check, _, counted in protocols:
            is_same = True
            for k, claim in claims.items():
                top = 100 * float((counted <= k).mean())
                is_same &= abs(top - claim) <= round_to(claim)
            if is_same:
                causes.add(check)
        if is_reached or causes:
            break

    # the first top-k whose claim is higher than a plain ranking gives, by more than
    # trainings differ if there is such a one; else the first that is claimed
    plain = {k: _rank_plainly(result, k) for k in TOP_K}
    higher = list[int]()
    if not is_reached:
        higher = [k for k, claim in claims.items() if claim - ROUNDING > plain[k][1]]
    is_higher = bool(higher)
    far = [k for k in higher if not _reach(members, {k: claims[k]}, SEEDS)]
    result = replace(result, k=[*far, *higher, *claims, 1][0])

    # a claim that several protocols reach is one finding, of the first; the last check
    # finds what nothing explains
    rows = list[Row]()
    for check, (judge, needed) in CHECKS.items():
        found, points, evidence = judge(result)
        for by, name, counted in protocols:
            evidence += f"; {name} {result.top(counted):.1f}" if by == check else ""
        if check == CLAIMED and reading:
            evidence += f"; read as {reading}"
        if check == CLAIMED and len(members) > 1:
            evidence += f"; {len(members)} trainings in the files, the first is judged"
        if is_higher and check in causes:
            found = True
        elif is_higher and check == CLAIMED:
            reason = _explain(result, members[1:], claims, bool(far))
            found = None if reason else True
            evidence += f"; {reason}" if reason else ""
        if is_higher and check in {*causes, CLAIMED}:
            points = claims[result.k] - plain[result.k][0]
        is_higher &= not (found and check in {*causes, "epoch"})
        state = FINDING if found else UNDECIDED if found is None else NOTHING
        points = points if found else None
        if state != NOTHING and points is None:
            evidence += f"; needed: {needed}"
        rows.append((check, state, points, evidence.removeprefix("; ")))
    return rows


def _choose_readings(
    result: ForeignResult, claims: Mapping[int, float]
) -> list[tuple[str, list[ForeignResult], bool]]:
    """Choose the first reading of the files that reaches the claims, else the files as
    they are and the first reading that comes as near as trainings differ.

    Returns:
        Names, results of the trainings in the files, and whether they reach the claims.
    """
    name, members = next(list_readings(result))
    if not claims or _reach(members, claims, points=ROUNDING):
        return [(name, members, True)]
    near = list[tuple[str, list[ForeignResult], bool]]()
    for reading, read in list_readings(result):
        if _reach(read, claims):
            return [(reading, read, True)]
        if not near and _reach(read, claims, SEEDS):
            near = [(reading, read, False)]
    return [(name, members, False), *near]


def _reach(
    members: Sequence[ForeignResult],
    claims: Mapping[int, float],
    spread: float = 0,
    points: float = 0,
) -> bool:
    """Test whether the mean top-k of results is as claimed: rounded, or cut after the
    last decimal, and but for random ties.

    Args:
        members: Results of the trainings in the files.
        claims: Top-k in percent, by k.
        spread: Standard deviations of a score that it may differ by.
        points: Percentage points that it may differ by.
    """
    for k, claim in claims.items():
        low, high = np.mean([_rank_plainly(member, k) for member in members], 0)
        error = (low * (100 - low) / len(members[0].ranks)) ** 0.5
        if "pool" in members[0].claims:  # the mean over subsets may also be lower
            low -= high - low
        rounding = max(points, round_to(claim))
        above = spread * error + rounding
        if not low - above - rounding <= claim <= high + above:
            return False
    return bool(claims)


def _explain(
    result: ForeignResult,
    others: Sequence[ForeignResult],
    claims: Mapping[int, float],
    is_far: bool,
) -> str:
    """Say what the files lack that could explain a claim higher than they give.

    Args:
        result: The judged result.
        others: Results of the other trainings in the files.
        claims: Top-k in percent, by k.
        is_far: Whether it is further from the result than trainings differ.

    Returns:
        The explanation, empty if there is none.
    """
    if any(_reach([other], claims) for other in others):
        return "it is the score of another training in the files"
    if result.claims.get("trainings", 1) > 1:
        return "the claim is a mean over several trainings"
    if result.predicted is None and len({*result.seen}) < len(result.seen):
        return "predictions of a picture's signals may have been averaged"
    claim = claims[result.k]
    for log in find_logs(result).values():
        if (abs(log.scores - claim) <= round_to(claim) + log.rounding).any():
            return "the log has the claim at another epoch"
    if not is_far:
        return "trainings differ by as much, so it may be a mean over several"
    return ""


def _claimed(result: ForeignResult) -> Judged:
    """Compare the claimed score and number of candidates with those of the files."""
    claim = result.claims.get(f"top{result.k}")
    plain, _ = _rank_plainly(result, result.k)
    if claim is None:
        return None, None, ""
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
    first, last = result.range_of_ranks
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
        **{f"CSLS of {count}": Csls(neighbours=count) for count in (5, 10)},
    }.items():
        corrected = correction.correct(scaled, scaled, scaled)
        yield TOGETHER, name, replace(result, similarities=corrected).ranks
    if result.predicted is None or result.gallery is None or result.ranked is not None:
        return
    predicted = result.predicted.double()
    centred = predicted - predicted.nanmean(0)
    for name, standardised in {
        "centred": centred,
        "standardised": centred / centred.square().nanmean(0).sqrt().clamp(min=1e-12),
    }.items():
        similarities = compare(standardised, result.gallery, COSINE)
        if len(similarities) == len(result.targets):
            filled = fill_missing(similarities)
            counted = replace(result, similarities=filled).ranks
            yield STANDARDISED, f"{name} over the test signals", counted


def _spread(similarities: Tensor) -> float:
    """Compute the standard deviation of similarities, whatever a few of them are."""
    values = similarities.numpy()
    low, high = np.quantile(values, (0.001, 0.999))
    return float(values.clip(low, high).std())


def _ties(result: ForeignResult) -> Judged:
    names = ("top1", "top5", "mean_rank", "rank_auc")
    metrics = summarise_ranks(
        [result.ranks], result.pool, split="test", metric_names=names
    )
    listed = (f"{metric.name} {metric.value:.3f}" for metric in metrics)
    evidence = f"ties against the model: {', '.join(listed)}"
    if result.missing:
        evidence += f"; {result.missing} similarities are missing, they rank last"
    return False, None, evidence


def _standardised(result: ForeignResult) -> Judged:
    """Find predictions whose columns have exactly the same mean over the test signals
    as others have: 0, or that of the gallery or of the training pictures.
    """
    predicted = result.predicted
    gallery = result.gallery
    if predicted is None or gallery is None:
        return None, None, ""
    values = predicted.double()[predicted.isfinite().all(1)]
    if len(values) < 2 or (result.ranks > 1).sum() < MIN_WRONG:
        return False, None, ""
    spread = values.std(0)
    is_varied = spread > 0
    equal = max(EQUAL, PRECISION.get(predicted.dtype, 0))

    means = {"0": torch.zeros_like(spread), "that of the gallery": gallery.nanmean(0)}
    learned = result.train_vectors
    if learned is not None and learned.shape[1:] == gallery.shape[1:]:
        means["that of the training pictures"] = learned.nanmean(0)
    for name, mean in means.items():
        is_equal = ((values.mean(0) - mean).abs() < equal * spread)[is_varied]
        if len(is_equal) < MIN_DIMENSIONS or not is_equal.all():
            continue
        evidence = f"all {len(is_equal)} columns have the mean {name}"
        if (spread[is_varied] - 1).abs().max() < 1 / len(values):
            evidence += " and the standard deviation 1"
        evidence += " over the test signals"

        # its worth: a regression gives the means of pictures, and their spreads
        # shrunk by the correlation with the seen picture
        if len(values) != len(result.targets) or result.ranked is not None:
            return True, None, evidence
        vectors = gallery.double().nan_to_num(0)
        seen = vectors[result.pictures]
        scores = [(array - array.mean(0)) / array.std(0) for array in (values, seen)]
        shrunk = (scores[0] * scores[1]).mean(0).clamp(min=0) * vectors.std(0)
        estimate = scores[0] * shrunk + vectors.mean(0)
        without = replace(result, similarities=compare(estimate, vectors, COSINE)).top()
        evidence += f"; about {without:.1f} with those that a regression gives"
        points = result.top() - without
        return True, points if points > 0 else None, evidence
    return False, None, "the means of the columns over the test signals differ"


def _together(result: ForeignResult) -> Judged:
    """Find traces of the test signals as a whole in what the files hold."""
    values = result.similarities.double()
    traces = list[str]()
    count, width = values.shape
    is_complete = (values > values.min()).all(0) | (result.missing == 0)  # [M]
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
    has_wrong = (result.ranks > 1).sum() >= MIN_WRONG
    if has_wrong and len(values.unique()) > 2 and is_complete.sum() > 2:
        complete = values[:, is_complete]
        # signals that tell no pictures apart, as lost ones filled with 0, say nothing
        complete = complete[complete.amax(1) > complete.amin(1)]
        levels = torch.stack([complete.mean(0), complete.logsumexp(0)])
        if (levels.amax(1) - levels.amin(1) < EQUAL * _spread(values)).any():
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
            return None, None, ""
    is_known = np.array([name in known for name in result.seen])
    return _without(result, is_known, "training pictures, by name")


def _copies(result: ForeignResult) -> Judged:
    gallery = result.gallery
    learned = result.train_vectors
    if gallery is None or learned is None or gallery.shape[1] != learned.shape[1]:
        return None, None, ""
    gallery = normalise_tokens(gallery.nan_to_num(0))
    learned = normalise_tokens(learned.nan_to_num(0))
    scatter = torch.atleast_2d(torch.cov(learned.T))  # of one dimension a number
    if scatter.trace() ** 2 < MIN_DIMENSIONS * scatter.square().sum():
        return None, None, ""
    is_copy = ((gallery @ learned.T).amax(1) >= COPY)[result.pictures].numpy()
    return _without(result, is_copy, "copies of training pictures, by embedding")


def _epoch(result: ForeignResult) -> Judged:
    """Compare the claim with the best test score, and with those of epochs that are
    chosen without the test; of several trainings with the means.
    """
    logs = [*find_logs(result).values()]
    if not logs:
        return None, None, ""
    best = float(np.mean([np.nanmax(log.scores) for log in logs]))
    score = float(np.mean([np.nanmax(log.honest) for log in logs]))
    evidence = (
        f"{logs[0].name} {best:.1f} at its best epoch, {score:.1f} at the last or at "
        "the best on validation"
    )
    if len(logs) > 1:
        evidence += f"; means over {len(logs)} trainings"

    # the claim, within its rounding and that of the log
    claim = result.claims.get(f"top{result.k}", result.top())
    rounding = round_to(claim) + max(log.rounding for log in logs)
    is_best = abs(claim - best) <= rounding < claim - score
    for log in logs:  # the claim of one of them: its last epoch, or best on validation
        own = log.honest[[0, -1]]
        is_best &= not (np.abs(own - claim) <= rounding).any()
    if is_best and best - score > ROUNDING:
        is_validated = all(log.is_validated for log in logs)
        if not is_validated:
            evidence += "; the claim is the best, but validation is not in the log"
        return is_validated or None, best - score, evidence
    return False, None, evidence


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
    interval = estimate_interval([hits], items, is_share=True)
    if interval.low is None or interval.high is None:
        return None, None, ""
    claimed = result.claims.get("interval", np.nan)
    ours = 50 * (interval.high - interval.low)
    naive = 196 * float(hits.std()) / signals**0.5
    evidence = (
        f"± {ours:.1f} over {items.n_units} pictures, ± {naive:.1f} over {signals} "
        "signals"
    )
    is_naive = items.n_units < signals and abs(claimed - naive) < 0.25 * naive
    return is_naive and claimed < 0.7 * ours, ours - claimed, evidence


CHECKS: dict[str, tuple[Callable[[ForeignResult], Judged], str]] = {
    "ties": (_ties, ""),
    TOGETHER: (_together, BEFORE),
    STANDARDISED: (_standardised, BEFORE),
    "training pictures": (_overlap, "names of training pictures, not all tested"),
    "copies of training pictures": (
        _copies,
        "embeddings of gallery and training pictures, not all tested",
    ),
    "epoch": (_epoch, "scores on test and validation by epoch"),
    "collapse and hubs": (_collapse, ""),
    "interval and units": (_units, "six pictures or more"),
    CLAIMED: (
        _claimed,
        "a claimed top-1 or top-5, all claimed candidates, seeds and subjects",
    ),
}
"""The checks by name, and what is needed where their points are not known."""
