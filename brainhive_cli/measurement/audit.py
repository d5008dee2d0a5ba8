"""Audit of another project's retrieval result: checks for common mistakes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import Bool, Int64
from brainhive_cli.measurement.corrections import Assignment, Csls, Sinkhorn
from brainhive_cli.measurement.foreign_result import (
    COSINE,
    MAX_ROUNDING_POINTS,
    PRECISION,
    ForeignResult,
    compute_rounding,
    compute_similarities,
    fill_missing,
    find_logs,
    list_readings,
)
from brainhive_cli.measurement.ranks import (
    TIE_TOLERANCE,
    TOP_K,
    normalise_tokens,
    summarise_ranks,
)
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import Items

FINDING, NOTHING, UNDECIDED = "finding", "none", "not decidable"
MAX_MEAN_DIFFERENCE = 1e-4
"""Largest difference between two means over the test signals that count as equal, as a
share of the standard deviation.
"""
MIN_EFFECTIVE_DIMENSIONS = 8
"""Smallest number of effective dimensions of embeddings that are searched for copies.
With fewer, the embeddings of different pictures are as similar as copies.
"""
MIN_WRONG_CHOICES = 12
"""Smallest number of wrong first choices in which a pattern is judged. The probability
that so many exclude one another by chance is at most 1e-4.
"""
MAX_SEED_DEVIATIONS = 2.33
"""Largest difference between a mean over seeds and the score of one seed, in standard
deviations of a score. A larger difference has a probability of at most 1 %.
"""
TOGETHER = "test signals together"
STANDARDISED = "standardised by test signals"
CLAIMED = "claimed numbers"
NEEDED_PREDICTIONS = (
    "predictions or similarities from before that step, of all claimed trainings"
)

AuditRow = tuple[str, str, float | None, str]
"""Name of a check, its state, its percentage points, and the evidence."""


class Judgement(NamedTuple):
    """Outcome of a check.

    Attributes:
        has_finding: True if there is a finding, None if the files cannot decide.
        points: Size of the finding in percentage points, or None if it is unknown.
            Without a finding, the size that the files do not exclude, or None.
        evidence: Numbers on which the outcome rests, or an empty text.
    """

    has_finding: bool | None
    points: float | None
    evidence: str


class AlternativeRanking(NamedTuple):
    """Ranks by a protocol that the publisher may have used without stating it.

    Attributes:
        check: Name of the check that looks for this protocol.
        name: Name such as `CSLS of 10`.
        ranks: Ranks [N] of the targets.
    """

    check: str
    name: str
    ranks: Int64


class Reading(NamedTuple):
    """Result as read by a set of usual conventions, such as a measure of similarity.

    Attributes:
        name: Names of the conventions. Empty for the files without a change.
        members: Result of each training (seed or subject) in the files.
        is_reached: True if the claims agree with a plain ranking of the results.
    """

    name: str
    members: list[ForeignResult]
    is_reached: bool


def audit(result: ForeignResult) -> list[AuditRow]:
    """Apply every check to a result of another project.

    Args:
        result: Similarities in the files, and the claims of their publisher.

    Returns:
        A row for each check: its name, its state ("finding", "none" or "not
        decidable"), its size in percentage points, and the evidence.
    """
    # claimed top-k scores in percent
    claims = {k: result.claims[f"top{k}"] for k in TOP_K if f"top{k}" in result.claims}

    # the first reading (set of conventions) that reaches the claims, by sorting the
    # candidates by similarity alone (plain ranking) or by another protocol
    for reading in _choose_readings(result, claims):
        training = reading.members[0]
        ranks = training.rank_with_ties(-TIE_TOLERANCE)
        alternatives = [AlternativeRanking("ties", "ties for the model", ranks)]
        alternatives += _rank_with_corrections(training)
        causes = _find_causes(alternatives, claims)
        if reading.is_reached or causes:
            break

    # deviations from the plain scores, and claims that are higher
    deviations = {}
    higher_claims = list[int]()
    for k, claim in claims.items():
        score, highest = _score_plain_ranking(training, k)
        deviations[k] = claim - score
        if claim - MAX_ROUNDING_POINTS > highest and not reading.is_reached:
            higher_claims.append(k)

    # claims that differ from the plain score by more than two seeds differ
    far_claims = [
        k
        for k in higher_claims
        if not _agree(reading.members, {k: claims[k]}, deviations=MAX_SEED_DEVIATIONS)
    ]

    # other rankings may reach honest claims by coincidence
    window = 2 * result.claims.get("rounding", MAX_ROUNDING_POINTS)
    window = max(window, 50 / len(training.ranks))
    distance = np.linalg.norm(list(deviations.values()))
    # Largest expected number of alternative rankings that reach K honest claims by
    # chance. The claims deviate from the scores in the files by an error with a
    # standard deviation near the root mean square of these deviations d. With about
    # eight rankings, and windows w around the claims, the number is about (w / |d|)ᴷ.
    is_coincidence = window ** len(claims) > 0.03 * distance ** len(claims)

    # check the top-k score whose claim stands out most
    k = (far_claims or higher_claims or list(claims) or [1])[0]
    checked = replace(training, k=k)

    # if several checks explain a claim, only the first of these checks has a finding
    rows = list[AuditRow]()
    is_unexplained = bool(higher_claims)
    for check, (judge, needed_data) in CHECKS.items():
        has_finding, points, evidence = judge(checked)
        is_cause = check in causes

        # extend the evidence
        for alternative in alternatives:
            if alternative.check == check:
                score = checked.compute_top_k(alternative.ranks)
                evidence += f"; {alternative.name} {score:.1f}"
        if check == CLAIMED:
            evidence += _describe_reading(reading)

        # A cause of a higher claim is a finding, and so is a claim without a cause. If
        # the claim may be right for a reason, a cause may reach it by coincidence.
        if is_unexplained and (is_cause or check == CLAIMED):
            points = deviations[k]
            reason = _explain(checked, reading.members[1:], claims, bool(far_claims))
            if reason and (check == CLAIMED or is_coincidence):
                has_finding = has_finding or None
                evidence += f"; {reason}"
            else:
                has_finding = True
        if has_finding and (is_cause or check == "epoch"):
            is_unexplained = False

        rows.append(_make_row(check, has_finding, points, evidence, needed_data))
    return rows


def _find_causes(
    alternatives: Sequence[AlternativeRanking], claims: Mapping[int, float]
) -> set[str]:
    """Find the checks whose mistakes may explain the claimed scores.

    Args:
        alternatives: Rankings that result from mistakes, such as ties that count
            for the model.
        claims: Claimed top-k scores in percent, keyed by k.

    Returns:
        Names of the checks with an alternative ranking that gives every claimed score,
        except for rounding. Without claims, all checks with an alternative ranking.
    """
    causes = set[str]()
    for alternative in alternatives:
        reaches_all = True
        for k, claim in claims.items():
            score = 100 * float((alternative.ranks <= k).mean())
            reaches_all &= abs(score - claim) <= compute_rounding(claim)
        if reaches_all:
            causes.add(alternative.check)
    return causes


def _describe_reading(reading: Reading) -> str:
    """Describe the conventions and the trainings of a reading, as further evidence."""
    description = ""
    if reading.name:
        description += f"; read as {reading.name}"
    if len(reading.members) > 1:
        description += f"; {len(reading.members)} trainings in the files, the first "
        description += "is checked"
    return description


def _make_row(
    check: str,
    has_finding: bool | None,
    points: float | None,
    evidence: str,
    needed_data: str,
) -> AuditRow:
    """Make the row of a check in the table of the audit.

    Args:
        has_finding: True for a finding, None if the files cannot decide.
        points: Effect on the score in percentage points, or None. Without a finding,
            the effect that the files do not exclude, so the check is undecided.
        needed_data: Data that the evidence asks for if the check is undecided, or has a
            finding without points.
    """
    if points and not has_finding:
        has_finding = points = None
    # State of a check, keyed by `Judgement.has_finding`.
    states = {True: FINDING, False: NOTHING, None: UNDECIDED}
    state = states[has_finding]
    if state != NOTHING and points is None:
        evidence += f"; needed: {needed_data}"
    return check, state, points, evidence.removeprefix("; ")


def _choose_readings(
    result: ForeignResult, claims: Mapping[int, float]
) -> list[Reading]:
    """Choose the readings of the files that are compared with the claims.

    Args:
        claims: Claimed top-k scores in percent, keyed by k.

    Returns:
        Only the first reading that reaches the claims, if a reading does. Else the
        unchanged files and, if there is one, the first reading that differs from the
        claims by no more than two seeds differ. Without claims, the unchanged files.
    """
    # the first reading takes the files without a change
    name, members = next(list_readings(result))
    if not claims or _agree(members, claims, points=MAX_ROUNDING_POINTS):
        return [Reading(name, members, is_reached=True)]

    choices = [Reading(name, members, is_reached=False)]
    for reading_name, reading_members in list_readings(result):
        if _agree(reading_members, claims):
            return [Reading(reading_name, reading_members, is_reached=True)]
        if len(choices) == 1 and _agree(
            reading_members, claims, deviations=MAX_SEED_DEVIATIONS
        ):
            choices.append(Reading(reading_name, reading_members, is_reached=False))
    return choices


def _agree(
    members: Sequence[ForeignResult],
    claims: Mapping[int, float],
    deviations: float = 0,
    points: float = 0,
) -> bool:
    """Return True if the mean scores of trainings agree with all claims.

    A claim may be rounded or cut after its last decimal, and ties may be broken at
    random. Without claims, the function returns False.

    Args:
        members: Result of each training (seed or subject).
        claims: Claimed top-k scores in percent, keyed by k.
        deviations: Tolerance for the sampling error, in standard deviations of a score.
        points: Smallest tolerance for rounding, in percentage points.
    """
    for k, claim in claims.items():
        # mean over trainings of the plain score and of its highest plausible value
        scores = [_score_plain_ranking(member, k) for member in members]
        low, high = np.mean(scores, 0)
        deviation = (low * (100 - low) / len(members[0].ranks)) ** 0.5

        # a mean over random subsets of candidates may be as much lower as higher
        if "pool" in members[0].claims:
            low -= high - low
        rounding = max(points, compute_rounding(claim))
        tolerance = deviations * deviation + rounding

        # cutting after the last decimal doubles the error, downwards only
        if not low - tolerance - rounding <= claim <= high + tolerance:
            return False
    return bool(claims)


def _explain(
    result: ForeignResult,
    other_trainings: Sequence[ForeignResult],
    claims: Mapping[int, float],
    is_far: bool,
) -> str:
    """Explain a claimed score that is higher than the score computed from the files.

    Args:
        claims: Claimed top-k scores in percent, keyed by k.
        is_far: True if the claim differs from the computed score by more than
            two seeds differ.

    Returns:
        The first explanation by which the claim may be right, or an empty text.
    """
    if any(_agree([training], claims) for training in other_trainings):
        return "the claim is the score of another training in the files"
    if result.claims.get("trainings", 1) > 1:
        return "the claim is a mean over several trainings"
    has_repetitions = len(set(result.seen_names)) < len(result.seen_names)
    if result.predictions is None and has_repetitions:
        return "the predictions of a picture's signals may have been averaged"

    claim = claims[result.k]
    for log in find_logs(result).values():
        tolerance = compute_rounding(claim) + log.rounding
        if (abs(log.scores - claim) <= tolerance).any():
            return "the log has the claim at another epoch"
    if not is_far:
        return "trainings differ by as much, so the claim may be a mean over several"
    return ""


def _score_plain_ranking(result: ForeignResult, k: int) -> tuple[float, float]:
    """Compute the top-k score by plain similarity, and its highest plausible value.

    If fewer candidates are claimed than the files hold, the score is the mean over all
    subsets with the claimed number of candidates.

    Returns:
        The score in percent, with ties against the model, and its highest plausible
        value if ties (equal at the precision of the file) or subsets are random.
    """
    from scipy.stats import hypergeom

    # probability of a hit [N], if a tie is broken at random
    lowest_ranks, highest_ranks = result.rank_ranges
    n_ranks = highest_ranks - lowest_ranks + 1
    chances = ((k + 1 - lowest_ranks) / n_ranks).clip(0, 1)
    hits = result.ranks <= k

    # a target is a hit if a random subset has fewer than k better candidates
    pool = result.pool
    claimed_pool = int(result.claims.get("pool", result.pool))
    if k <= claimed_pool < pool:
        chances = hypergeom.cdf(k - 1, pool - 1, result.ranks - 1, claimed_pool - 1)
        hits = chances

    # add the deviation that random ties or subsets make plausible
    deviation = np.sqrt((chances * (1 - chances)).sum()) / len(chances)
    # Largest difference between a score with random ties and its mean,
    # in standard deviations.
    highest = max(hits.mean(), chances.mean() + 3.0 * deviation)
    return 100 * float(hits.mean()), 100 * float(highest)


def _rank_with_corrections(result: ForeignResult) -> Iterator[AlternativeRanking]:
    """Rank by each usual protocol that uses all test signals together.

    The protocols are corrections of the similarities, and predictions that are centred
    or standardised over the test signals. Nothing is ranked for more than
    10,000 signals or candidates.
    """
    values = result.similarities.double()
    # Largest number of signals or candidates whose similarities are corrected.
    if max(values.shape) > 10_000:
        return
    corrections: dict[str, Assignment | Sinkhorn | Csls] = {
        "one-to-one assignment": Assignment()
    }
    for temperature in (0.01, 0.05, 0.1):
        corrections[f"Sinkhorn at {temperature}"] = Sinkhorn(temperature=temperature)
    for neighbours in (5, 10):
        corrections[f"CSLS of {neighbours}"] = Csls(neighbours=neighbours)
    scaled = values / values.abs().max().clamp(min=1)
    for name, correction in corrections.items():
        corrected = correction.correct(scaled, scaled, scaled)
        ranks = replace(result, similarities=corrected).ranks
        yield AlternativeRanking(TOGETHER, name, ranks)

    # predictions that are centred or standardised over the test signals
    is_backward = result.ranked_pictures is not None
    if result.predictions is None or result.gallery is None or is_backward:
        return
    predictions = result.predictions.double()
    centred = predictions - predictions.nanmean(0)
    deviations = centred.square().nanmean(0).sqrt()
    changed_predictions = {
        "centred": centred,
        "standardised": centred / torch.where(deviations > 0, deviations, 1),
    }
    for name, changed in changed_predictions.items():
        similarities = compute_similarities(changed, result.gallery, COSINE)
        if len(similarities) == len(result.targets):
            filled = fill_missing(similarities)
            ranks = replace(result, similarities=filled).ranks
            yield AlternativeRanking(
                STANDARDISED, f"{name} over the test signals", ranks
            )


def _check_ties(result: ForeignResult) -> Judgement:
    """State the scores of a result if ties count against the model.

    Returns:
        `Judgement(has_finding, points, evidence)`, without a finding. The evidence
        states the scores.
    """
    names = ("top1", "top5", "mean_rank", "rank_auc")
    metrics = summarise_ranks(
        [result.ranks], result.pool, split="test", metric_names=names
    )
    scores = ", ".join(f"{metric.name} {metric.value:.3f}" for metric in metrics)
    evidence = f"ties against the model: {scores}"
    if result.n_missing:
        evidence += f"; {result.n_missing} similarities are missing and rank last"
    return Judgement(False, None, evidence)


def _check_signals_together(result: ForeignResult) -> Judgement:
    """Find traces of a method that uses all test signals together.

    The traces are different first choices for all signals, and means or sums of
    exponentials over the signals that are equal for all pictures. A trace counts if at
    least `MIN_WRONG_CHOICES` first choices are wrong.

    Returns:
        `Judgement(has_finding, points, evidence)`. The evidence lists the traces. The
        points are None.
    """
    values = result.similarities.double()
    traces = list[str]()
    n_signals, n_candidates = values.shape

    # pairs of signals that chose each other's picture do not count as wrong, because
    # such pictures may look alike
    first_choices = values.argmax(1)
    targets = result.targets[:, 0]
    n_chosen = len(first_choices.unique())
    n_seen = len(targets.unique())
    if n_signals == n_candidates == n_chosen == n_seen:
        signal_of_picture = targets.argsort()
        chosen_signals = signal_of_picture[first_choices]  # [N]
        is_exchanged = chosen_signals[chosen_signals] == torch.arange(n_signals)
        is_wrong = (first_choices != targets) & ~is_exchanged
        n_wrong = is_wrong.sum()
        if n_wrong >= MIN_WRONG_CHOICES:
            traces.append(f"all first choices differ, although {n_wrong} are wrong")

    # candidates without missing similarities, which have the lowest value
    is_complete = (values > values.min()).all(0) | (result.n_missing == 0)  # [M]
    has_wrong = (result.ranks > 1).sum() >= MIN_WRONG_CHOICES
    can_compare_sums = len(values.unique()) > 2 and is_complete.sum() > 2
    if has_wrong and can_compare_sums:
        complete = values[:, is_complete]

        # leave out constant rows, such as a lost signal filled with 0
        complete = complete[complete.amax(1) > complete.amin(1)]

        # means, or sums of exponentials, that hardly differ between candidates
        levels = torch.stack([complete.mean(0), complete.logsumexp(0)])
        ranges = levels.amax(1) - levels.amin(1)
        if (ranges < MAX_MEAN_DIFFERENCE * _compute_spread(values)).any():
            traces.append("sums over test signals are equal for all pictures")

    return Judgement(bool(traces), None, "; ".join(traces))


def _compute_spread(similarities: Tensor) -> float:
    """Compute the standard deviation of similarities [N, M], with outliers clipped."""
    values = similarities.numpy()
    low, high = np.quantile(values, (0.001, 0.999))
    return float(values.clip(low, high).std())


def _check_standardisation(result: ForeignResult) -> Judgement:
    """Find predicted embeddings that were standardised over the test signals.

    There is a finding if the columns that vary, at least `MIN_EFFECTIVE_DIMENSIONS`,
    all have the mean 0, all the mean of the gallery, or all the mean of
    the training pictures.

    Returns:
        `Judgement(has_finding, points, evidence)`. The points are the score minus an
        estimate without standardisation, or None if not positive. Not decidable without
        predictions or gallery embeddings.
    """
    predictions = result.predictions
    gallery = result.gallery
    if predictions is None or gallery is None:
        return Judgement(None, None, "")

    # predictions without missing values
    is_finite = predictions.isfinite().all(1)
    values = predictions.double()[is_finite]
    if len(values) < 2 or (result.ranks > 1).sum() < MIN_WRONG_CHOICES:
        return Judgement(False, None, "")
    spread = values.std(0)
    is_varied = spread > 0
    tolerance = max(MAX_MEAN_DIFFERENCE, PRECISION.get(predictions.dtype, 0))

    means = {"0": torch.zeros_like(spread), "of the gallery": gallery.nanmean(0)}
    train_embeddings = result.train_embeddings
    if train_embeddings is not None and train_embeddings.shape[1:] == gallery.shape[1:]:
        means["of the training pictures"] = train_embeddings.nanmean(0)
    for name, mean in means.items():
        is_near = (values.mean(0) - mean).abs() < tolerance * spread
        is_equal = is_near[is_varied]
        if len(is_equal) < MIN_EFFECTIVE_DIMENSIONS or not is_equal.all():
            continue
        evidence = f"all {len(is_equal)} prediction columns have the mean {name}"
        if (spread[is_varied] - 1).abs().max() < 1 / len(values):
            evidence += " and the standard deviation 1"
        evidence += " over the test signals"

        # estimate the score without standardisation, if each signal has a prediction
        is_backward = result.ranked_pictures is not None
        if len(values) != len(result.targets) or is_backward:
            return Judgement(True, None, evidence)
        score = _score_without_standardisation(result, values, gallery)
        evidence += f"; the score is about {score:.1f} with the means of a regression"
        points = result.compute_top_k() - score
        return Judgement(True, points if points > 0 else None, evidence)
    evidence = "the means of the columns over the test signals differ"
    return Judgement(False, None, evidence)


def _score_without_standardisation(
    result: ForeignResult, predictions: Tensor, gallery: Tensor
) -> float:
    """Estimate the score in percent that predictions had before standardisation.

    In each dimension, predictions get the mean of the embeddings, and their standard
    deviation times the correlation of predictions and embeddings, as in
    a linear regression.

    Args:
        predictions: Predicted embeddings [N, D] of the N test signals, in float64.
        gallery: Embeddings [M, D] of the candidate pictures.
    """
    # correlation of predicted and seen embeddings in each dimension
    embeddings = gallery.double().nan_to_num(0)
    seen_embeddings = embeddings[result.picture_rows]
    predicted_scores = (predictions - predictions.mean(0)) / predictions.std(0)
    seen_scores = (seen_embeddings - seen_embeddings.mean(0)) / seen_embeddings.std(0)
    correlations = (predicted_scores * seen_scores).mean(0).clamp(min=0)  # [D]

    # scale and shift the predictions as a regression does
    spread = correlations * embeddings.std(0)
    estimates = predicted_scores * spread + embeddings.mean(0)
    similarities = compute_similarities(estimates, embeddings, COSINE)
    return replace(result, similarities=similarities).compute_top_k()


def _check_training_names(result: ForeignResult) -> Judgement:
    """Find test pictures that have the name of a training picture.

    Names are compared without the word for their split, such as "train". Equal names
    are different pictures where both lists count their pictures, or name classes.

    Returns:
        `Judgement(has_finding, points, evidence)`. Not decidable if a list has only row
        numbers, if both lists count, or if the training list seems to name classes.
    """
    # Matches the word for a split and the leading zeros in the name of a picture.
    split_or_zeros = re.compile(
        r"(?i)(?<![a-z])(train(ing)?|test(ing)?|val(id(ation)?)?|dev)(?![a-z])"
        r"|(?<!\d)0+(?=\d)"
    )
    trained = {split_or_zeros.sub("", name) for name in result.train_ids}
    seen_names = [split_or_zeros.sub("", name) for name in result.seen_names]
    seen = set(seen_names)

    # equal row numbers, or counts in both lists, do not mean equal pictures
    row_numbers = set(map(str, range(len(trained | seen) + 1)))
    are_numbers = trained <= row_numbers or seen <= row_numbers
    are_numbers |= _is_counter(trained) and _is_counter(seen)

    # classes repeat in the list of training pictures, or no other names are in it
    are_classes = trained <= seen
    # Largest mean number of times that a list of training trials names a picture. In
    # lists of classes, the names repeat more often.
    are_classes |= len(result.train_ids) > 3 * len(trained)
    if are_numbers or are_classes:
        return Judgement(None, None, "")
    is_trained = np.array([name in trained for name in seen_names])
    return _score_without(result, is_trained, "training pictures, by name")


def _is_counter(names: set[str]) -> bool:
    """Return True if the last number in more than two thirds of names counts pictures.

    Such a number is 0 or 1, or follows the number of an otherwise equal name.
    """
    n_counted = 0
    for name in names:
        # Matches the last number in a name, except for the size or version
        # of a picture.
        match = re.search(r"\d{1,18}(?=\D*((\d{1,5}x|v)\d{1,5}\D*)?$)", name)
        if match:
            number = int(match[0])
            previous = f"{name[: match.start()]}{number - 1}{name[match.end() :]}"
            n_counted += number < 2 or previous in names
    return 3 * n_counted > 2 * len(names)


def _check_training_copies(result: ForeignResult) -> Judgement:
    """Find test pictures that are copies of a training picture, by their embeddings.

    Returns:
        `Judgement(has_finding, points, evidence)`. Not decidable if embeddings are
        missing, differ in width, or vary in fewer
        than `MIN_EFFECTIVE_DIMENSIONS` directions.
    """
    gallery = result.gallery
    train_embeddings = result.train_embeddings
    if gallery is None or train_embeddings is None:
        return Judgement(None, None, "")
    if gallery.shape[1] != train_embeddings.shape[1]:
        return Judgement(None, None, "")
    gallery = normalise_tokens(gallery.nan_to_num(0))
    train_embeddings = normalise_tokens(train_embeddings.nan_to_num(0))

    # the participation ratio trace(C)^2 / trace(C^2) of the covariance C estimates the
    # number of effective dimensions
    covariance = torch.atleast_2d(torch.cov(train_embeddings.T))
    squared_trace = covariance.trace() ** 2
    if squared_trace < MIN_EFFECTIVE_DIMENSIONS * covariance.square().sum():
        return Judgement(None, None, "")

    largest_cosines = (gallery @ train_embeddings.T).amax(1)
    # Smallest cosine similarity of two pictures that count as copies.
    is_copy = (largest_cosines >= 0.999)[result.picture_rows].numpy()
    return _score_without(result, is_copy, "copies of training pictures, by embedding")


def _score_without(
    result: ForeignResult, is_trained: Bool, description: str
) -> Judgement:
    """Compute how much the score falls without the signals that show training pictures.

    Args:
        is_trained: Mask [N] of the test signals that show a training picture.
        description: Description of these pictures, such as "training
            pictures, by name".

    Returns:
        `Judgement(has_finding, points, evidence)`, with a finding if any signal shows a
        training picture. The points are None if no signal or every signal does.
    """
    n_trained = is_trained.sum()
    evidence = f"{n_trained} of {len(is_trained)} signals show {description}"
    if is_trained.all() or not is_trained.any():
        return Judgement(bool(is_trained.all()), None, evidence)
    score = result.compute_top_k()
    remaining = result.compute_top_k(result.ranks[~is_trained])
    evidence += (
        f"; top-{result.k} falls from {score:.1f} to {remaining:.1f} without them"
    )
    return Judgement(True, score - remaining, evidence)


def _check_epoch(result: ForeignResult) -> Judgement:
    """Find out if a claimed score was reached by choosing the epoch on test data.

    An unselected score, such as the score of the last epoch, needs no test score to
    choose an epoch (`EpochLog.unselected_scores`).

    Returns:
        - Finding: the claim equals the best test score of all epochs and no unselected
          score. The points are the difference of the best scores of both kinds.
        - No finding: the claim is another score, or the usual unselected scores are
          hardly lower.
        - Not decidable: there is no log. Or the claim equals the best test score, but
          also an unselected score, or the log has no validation scores.
    """
    logs = list(find_logs(result).values())
    if not logs:
        return Judgement(None, None, "")

    # means over trainings
    scores = [
        (
            np.nanmax(log.scores),
            np.nanmin(log.usual_scores),
            np.nanmax(log.unselected_scores),
        )
        for log in logs
    ]
    best, usual, unselected = np.mean(scores, 0)
    evidence = (
        f"{logs[0].column} {best:.1f} at its best epoch, {usual:.1f} to "
        f"{unselected:.1f} by choices without test scores"
    )
    if len(logs) > 1:
        evidence += f"; means over {len(logs)} trainings"

    # the claim equals the best score up to rounding
    claim = result.claims.get(f"top{result.k}", result.compute_top_k())
    rounding = compute_rounding(claim) + max(log.rounding for log in logs)
    if abs(claim - best) > rounding or best - usual <= MAX_ROUNDING_POINTS:
        return Judgement(False, None, evidence)

    # an unselected score, of all trainings or of one, may be the claim
    least = max(rounding, MAX_ROUNDING_POINTS)
    is_decidable = min(claim, best) - unselected > least
    for log in logs:
        is_near = np.abs(log.usual_scores - claim) <= rounding
        is_decidable &= log.is_validated and not is_near.any()
    if not is_decidable:
        evidence += (
            "; the claim is the best, which is a finding only if the log has scores on "
            f"validation, and all of these choices are lower by over {least:.1f}"
        )
        return Judgement(False, best - usual, evidence)
    return Judgement(True, best - unselected, evidence)


def _check_collapse(result: ForeignResult) -> Judgement:
    """Find predictions that are the same for nearly all signals.

    There is a finding if all of these conditions hold:

    - One picture is the nearest of nearly all signals, and often a wrong one.
    - The score is not higher than the score of one fixed ranking for all signals.
    - The score of the fixed ranking is more than 1.5 times chance.

    Returns:
        `Judgement(has_finding, points, evidence)`. Points are the score minus chance.
    """
    values = result.similarities.double()
    n_signals, n_candidates = values.shape
    counts = values.argmax(1).bincount(minlength=n_candidates)
    n_common = int(counts.max())
    n_never = (counts == 0).sum()
    chance = 100 * result.k / result.pool

    mean_similarities = values.mean(0).expand_as(values)
    constant = replace(result, similarities=mean_similarities).compute_top_k()
    evidence = (
        f"one picture is the nearest of {n_common} of {n_signals} signals, "
        f"{n_never} of {n_candidates} pictures are the nearest of none; "
        f"one order for all signals gives {constant:.1f}"
    )

    # the common picture is the nearest of nearly all signals, and wrong for over 20 %
    shows_common = (result.targets == counts.argmax()).any(1)
    n_wrong = n_common - shows_common.sum()
    # Largest share of signals with the same first choice. Above it, predictions may
    # have collapsed to a single picture.
    is_common = n_common > 0.9 * n_signals
    is_collapsed = is_common and n_wrong > 0.2 * n_signals
    score = result.compute_top_k()
    has_finding = bool(is_collapsed and score <= constant and constant > 1.5 * chance)
    return Judgement(has_finding, score - chance if has_finding else None, evidence)


def _check_interval(result: ForeignResult) -> Judgement:
    """Find a claimed interval of top-1 that treats repeated signals as independent.

    There is a finding if the claimed interval has about the width of the interval over
    signals, and less than 70 % of the width over pictures, of which some
    have several signals.

    Returns:
        `Judgement(has_finding, points, evidence)`. The points are the half width over
        pictures minus the claimed half width. Not decidable with too few pictures.
    """
    hits = (result.ranks <= 1).astype(float)
    n_signals = len(result.seen_names)
    items = Items([range(n_signals)], [result.seen_names], "pictures")
    interval = estimate_interval([hits], items, is_share=True)
    if interval.low is None or interval.high is None:
        return Judgement(None, None, "")

    # half widths in percentage points
    claimed = result.claims.get("interval", np.nan)
    over_pictures = 50 * (interval.high - interval.low)
    over_signals = 196 * float(hits.std()) / n_signals**0.5
    evidence = (
        f"± {over_pictures:.1f} over {items.n_units} pictures, ± {over_signals:.1f} "
        f"over {n_signals} signals"
    )
    has_repetitions = items.n_units < n_signals
    is_over_signals = abs(claimed - over_signals) < 0.25 * over_signals
    is_narrow = claimed < 0.7 * over_pictures
    has_finding = has_repetitions and is_over_signals and is_narrow
    return Judgement(
        has_finding, over_pictures - claimed if has_finding else None, evidence
    )


def _check_claims(result: ForeignResult) -> Judgement:
    """Find a claimed number of candidates that exceeds the number in the files.

    Returns:
        `Judgement(has_finding, points, evidence)`. Not decidable without
        a claimed score.
    """
    claim = result.claims.get(f"top{result.k}")
    if claim is None:
        return Judgement(None, None, "")
    score, _ = _score_plain_ranking(result, result.k)
    pool = result.claims.get("pool", result.pool)
    evidence = (
        f"top-{result.k} {claim:.1f} claimed, {score:.1f} by a plain ranking; "
        f"{pool:.0f} candidates claimed, {result.pool} in the files"
    )
    return Judgement(pool > result.pool, None, evidence)


CHECKS: dict[str, tuple[Callable[[ForeignResult], Judgement], str]] = {
    "ties": (_check_ties, "similarities of all claimed trainings"),
    TOGETHER: (_check_signals_together, NEEDED_PREDICTIONS),
    STANDARDISED: (_check_standardisation, NEEDED_PREDICTIONS),
    "training pictures": (
        _check_training_names,
        "names of training pictures, such as content hashes, that neither count them "
        "nor name classes, and a test picture that is not among them",
    ),
    "copies of training pictures": (
        _check_training_copies,
        "embeddings of gallery and training pictures, and a test picture without copy",
    ),
    "epoch": (
        _check_epoch,
        "scores on test and validation by epoch, and the rule that chose the epoch",
    ),
    "collapse and hubs": (_check_collapse, ""),
    "interval and units": (_check_interval, "six pictures or more"),
    CLAIMED: (
        _check_claims,
        "a claimed top-1 or top-5, and the files of all claimed candidates, seeds and "
        "subjects",
    ),
}
"""Function of each check, and the data that it needs to be decidable or to have points,
keyed by the name of the check.
"""
