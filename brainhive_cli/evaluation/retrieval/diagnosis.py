"""Why an evaluation is at chance: too little data, wrong order, one part that differs, or no target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.lines import Line, write_value
from brainhive_cli.core.measurements import LEVEL, Measurements, Metric, by_name
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.retrieval.baseline import (
    FILINGS,
    Candidates,
    Fit,
    Outcome,
    Ranked,
    fit_subjects,
)
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.training.alignment.trained import TrainedRun

BASELINE = "baseline · ridge"
"""The scope of the ridge's metrics."""
SPLITS = {"train": "training"}
"""Names of splits in sentences, where they differ from those of recipes."""
QUESTION = "do signals and pictures belong together as they are filed?"
"""Asked where no ridge could be fitted."""
FAILURES = (BrainhiveError, MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)
"""Errors that leave an evaluation without its baseline."""


@dataclass(frozen=True)
class Facts:
    """Measurements that explain a verdict.

    Attributes:
        model: Verdict of the run.
        ridge: On test pictures.
        signals: How many training signals the ridges of all subjects learned from.
        train_line: Command that trains a ridge.
        check_line: Command that measures the reliability of the signals.
        differing: Sentences on subjects and sessions that differ from the others.
        training: On held-out training pictures; None where they were not decoded.
        filings: How many other orders of pictures were tried.
        refiled: The order by which pictures are found; empty where there is none.
    """

    model: str
    ridge: Outcome
    signals: int
    train_line: str = ""
    check_line: str = ""
    differing: Sequence[str] = ()
    training: Outcome | None = None
    filings: int = 0
    refiled: str = ""


class Diagnosis(NamedTuple):
    """The cause of a verdict, a sentence that says what was tested, and the next command."""

    cause: str
    sentence: str
    line: str = ""


def diagnose(facts: Facts) -> Diagnosis:
    """Explain a verdict by what was measured, and by no more."""
    ridge, orders = facts.ridge, f"in {facts.filings} other orders neither"
    compared = f"a closed-form ridge on the same signals is {ridge.verdict.words} ({ridge.words})"

    # pictures in another order
    if facts.refiled:
        advice = "correct the order and prepare the signals again"
        return Diagnosis("misfiled", f"misfiled: {facts.refiled}; {advice}")
    if facts.model.startswith("above chance") or ridge.verdict.side == "not testable":
        return Diagnosis("", "; ".join([compared, *facts.differing]))

    # a ridge that does better: too little data for the model
    if ridge.verdict.side == "above chance":
        sentence = "; ".join([f"too little data for this model: {compared}", *facts.differing])
        return Diagnosis("part differs" if facts.differing else "too little data", sentence, facts.train_line)

    # a ridge that finds training pictures alone: another test split
    if facts.training and facts.training.verdict.side == "above chance":
        sentence = (
            "test pictures differ from training pictures, or are filed wrongly: a closed-form ridge finds "
            f"held-out training pictures ({facts.training.words}), but no test pictures ({ridge.words}), "
            f"{orders}"
        )
        return Diagnosis("test split differs", sentence, facts.check_line)
    training = f" nor held-out training pictures ({facts.training.words})" if facts.training else ""
    sentence = (
        "too little data, or a target that these signals do not carry: "
        f"of {facts.signals} training signals a closed-form ridge finds neither test pictures "
        f"({ridge.words}){training}, {orders}; check the reliability of the signals, then try another window "
        "or encoder"
    )
    return Diagnosis("target not carried", sentence, facts.check_line)


def find_differing(fits: Sequence[Fit], tested: Candidates) -> dict[str, Fit]:
    """Find subjects, and sessions of a subject, that are at chance and worse than the others.

    Returns:
        The subject's ridge by a sentence on what differs.

    Source: Welch's t test of ranks, corrected for the number of subjects and sessions (Bonferroni).
    """
    from scipy.stats import ttest_ind

    # what is compared: subjects with each other, and sessions with the others of their subject
    groups = [{f"subject {fit.subject}": (fit, fit.rank()) for fit in fits}]
    for fit in fits:
        by_session = {number: fit.rank(session=number) for number in fit.sessions("test")}
        names = [f"session {number + 1} of subject {fit.subject}" for number in by_session]
        groups.append({name: (fit, ranked) for name, ranked in zip(names, by_session.values(), strict=True)})
    groups = [group for group in groups if len(group) > 1]
    count, differing = sum(map(len, groups)), {}
    for group in groups:
        for name, (fit, ranked) in group.items():
            others = [part for other, (_, part) in group.items() if other != name]
            rest = np.concatenate([tested.seen(other) for other in others])
            p = count * ttest_ind(tested.seen(ranked), rest, equal_var=False, alternative="greater").pvalue
            if not p <= LEVEL:
                continue

            # ranks that are worse than the others', at chance where these are above it
            outcome = tested.judge([ranked])
            if outcome.verdict.side == "above chance":
                continue
            rest_outcome = tested.judge(others)
            if rest_outcome.verdict.side == "above chance":
                words = f"{name} differs: its pictures are not found ({outcome.words})"
                differing[f"{words}, those of the others are ({rest_outcome.words})"] = fit
    return differing


def explain_fits(
    fits: Sequence[Fit], tested: Candidates, held_out: Candidates | None, facts: Facts, split: str
) -> Facts:
    """Test the causes of signals whose pictures no ridge finds: those of all subjects, or of some."""
    # ridges whose pictures are not found
    differing = find_differing(fits, tested)
    facts, is_found = replace(facts, differing=[*differing]), facts.ridge.verdict.side == "above chance"
    suspects = [fit for fit in fits if fit in differing.values() or not is_found]
    if not suspects or (facts.model.startswith("above chance") and not differing):
        return facts

    # other orders of test pictures; of training pictures where these are not found either
    rank: Callable[[Fit, str, int | None], Ranked] = Fit.rank
    if held_out is not None:
        training = held_out.judge([fit.rank_training(held_out=held_out) for fit in suspects])
        facts = replace(facts, training=training)
        if training.verdict.side != "above chance":
            split, tested = "train", held_out
            rank = partial(Fit.rank_training, held_out=held_out)

    # of all subjects, of each, of each session
    parts: dict[str, tuple[Sequence[Fit], int | None]] = {}
    if len(suspects) > 1:
        parts[f"subjects {', '.join(str(fit.subject) for fit in suspects)}"] = suspects, None
    for fit in suspects:
        parts[f"subject {fit.subject}"] = [fit], None
        for number in fit.sessions(split):
            parts[f"session {number + 1} of subject {fit.subject}"] = [fit], number

    # outcomes as filed and in each other order, with the one-sided p of the latter
    tried = []
    for name, (members, session) in parts.items():
        filed = tested.judge([rank(fit, "", session) for fit in members])
        for filing in () if filed.verdict.side == "above chance" else FILINGS:
            refiled = tested.judge([rank(fit, filing, session) for fit in members])
            p = 1.0 if refiled.verdict.better is None else refiled.verdict.better  # None: not testable
            tried.append((name, filing, filed, refiled, p))
    if not tried:
        return facts

    # the best order, if it is above chance after correction for all that were tried (Bonferroni)
    name, filing, filed, best, p = min(tried, key=lambda row: (row[4], row[3].mean_rank))
    count, p, words = len(tried), p * len(tried), ""
    if p <= LEVEL:
        numbers = f"top-1 {best.top1:.3f}, n {best.verdict.n}, p {p:.2g} after correction for {count} orders"
        order = f"with the order of {SPLITS.get(split, split)} pictures of {name} {filing}"
        words = f"{order}, a closed-form ridge finds them ({numbers}), as filed it does not ({filed.words})"
    return replace(facts, filings=count, refiled=words)


def explain_verdict(job: Job, measured: Measurements, device: torch.device) -> Measurements:
    """Fit a ridge where the recipe or a verdict at chance asks for one, and explain the verdict by it.

    Args:
        job: The evaluation.
        measured: What it measured.
        device: Where ridges are fitted.

    Returns:
        The ridge's metrics, and `baseline` in the notes: a sentence with its cause and the next command.
        Where no ridge can be fitted, the sentence says why; nothing where none is asked for.
    """
    spec, model, align = job.spec, measured.notes["verdict"], job.runs[0]
    is_asked = spec.baseline == "ridge" or not model.startswith(("above chance", "not testable"))
    if spec.control != "none" or spec.baseline == "none" or not is_asked:
        return Measurements()

    # ridges, and the facts that they tell
    try:
        fits, tested, held_out = fit_subjects(job, device)
        ranked = [fit.rank() for fit in fits]
        ridge, counts = tested.judge(ranked), [fit.signals for fit in fits]
        signals = max(counts) if held_out is None else sum(counts)  # ridges of other subjects share theirs
        check = Line("check", f"dataset={align.dataset_config}", "--plots").plain
        facts = Facts(model, ridge, signals, write_training(align, fits), check)
        facts = explain_fits(fits, tested, held_out, facts, spec.split)
    except FAILURES as error:
        reason = (
            error.in_one_line if isinstance(error, BrainhiveError) else f"{type(error).__name__}: {error}"
        )
        return Measurements(notes={"baseline": {"sentence": f"{QUESTION} No ridge was fitted: {reason}"}})

    # metrics with the protocol, and all that the sentence says as plain values
    components = max(fit.components for fit in fits)
    how = f"closed-form ridge on at most {components} principal components of {signals} training signals"
    items = tested.alike.items([subject.pictures.tolist() for subject in ranked])
    options: Any = {"split": spec.split, "items": items, "protocol": f"{measured.notes['protocol']}, {how}"}
    options |= {"only": ("top1", "top5", "median_rank")}
    metrics = by_name(summarise([tested.seen(subject) for subject in ranked], len(tested.rows), **options))
    notes = {
        **diagnose(facts)._asdict(),
        "metrics": {name: metric.as_dict() for name, metric in metrics.items()},
        "above_chance": ridge.verdict.as_dict(),
        "components": components,
        "signals": signals,
        "differing": list(facts.differing),
        "training": facts.training and {**facts.training.verdict.as_dict(), "top1": facts.training.top1},
        "filings": facts.filings,
    }
    return Measurements({BASELINE: metrics}, {}, {"baseline": notes})


def write_training(align: TrainedRun, fits: Sequence[Fit]) -> str:
    """Write the command that trains a ridge of each subject on the signals and encoders of a run."""
    # settings of the signals other than those that a ridge has no use for
    model = align.models[0]
    knobs = model.source.signal.model_dump(mode="json", exclude_defaults=True)
    idle = {"repetitions", "random_k", *(() if "normalise" in knobs else ("scale",))}
    knobs = {"normalise": "channel"} | {key: value for key, value in knobs.items() if key not in idle}
    subjects = ",".join(str(fit.subject) for fit in fits)
    more = [("subjects", subjects), ("seeds", "0"), "backbone.kind=ridge", "backbone.alpha=auto"]
    more += ["train.validation=0", *(f"signal.{key}={write_value(value)}" for key, value in knobs.items())]
    parts = ("dataset", align.dataset_config), ("encoders", model.encoders)
    return Line("train-align", *parts, *more).plain


HEADLINES = ("top-1", "95 % CI", "top-5", "rank", "n", "pool", "chance")


def list_headlines(metrics: Mapping[str, Metric]) -> tuple[Any, ...]:
    """List the values below HEADLINES."""
    top1, top5, median = (metrics[metric] for metric in ("top1", "top5", "median_rank"))
    return (top1.value, top1.interval_text(), top5.value, median.value, top1.n, top1.pool, top1.chance)


def baseline_table(measured: Measurements) -> Table:
    """Lay out the run and the ridge in one table."""
    if BASELINE not in measured.scopes:
        return Table("", (), ())
    rows = []
    for name, metrics in (("this run", measured.overall), ("ridge", measured.scopes[BASELINE])):
        rows.append((name, *list_headlines(metrics)))
    columns = ("model", *HEADLINES)
    title = f"{measured.notes['baseline']['sentence']}; ridge: {measured.scopes[BASELINE]['top1'].protocol}"
    return Table(f"{title[0].upper()}{title[1:]}", columns, rows)
