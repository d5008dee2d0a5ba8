"""Why an evaluation is at chance: too little data, wrong order, one part that differs, or no target."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.lines import Line, write_value
from brainhive_cli.core.measurements import LEVEL, Measurements, by_name
from brainhive_cli.evaluation.retrieval.baseline import (
    FILINGS,
    Candidates,
    Fit,
    Outcome,
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


def diagnose(
    model: str,
    ridge: Outcome,
    signals: int,
    *,
    train_line: str = "",
    check_line: str = "",
    differing: Sequence[str] = (),
    training: Outcome | None = None,
    filings: int = 0,
    refiled: str = "",
) -> dict[str, str]:
    """Explain a verdict by what was measured, and by no more.

    Args:
        model: Verdict of the run.
        ridge: On test pictures.
        signals: How many training signals the ridges of all subjects learned from.
        train_line: Command that trains a ridge.
        check_line: Command that measures the reliability of the signals.
        differing: Sentences on subjects and sessions that differ from the others.
        training: On held-out training pictures; None where they were not decoded.
        filings: How many other orders of pictures were tried.
        refiled: The order by which pictures are found; empty where there is none.

    Returns:
        cause, a sentence that says what was tested, and the line of the next command.
    """
    compared = f"a closed-form ridge on the same signals is {ridge.verdict.words} ({ridge.words})"
    cause, line, orders = "", "", f"in {filings} other orders neither"
    if refiled:
        cause, sentence = "misfiled", f"misfiled: {refiled}; correct the order and prepare the signals again"
    elif model.startswith("above chance") or ridge.verdict.side == "not testable":
        sentence = "; ".join([compared, *differing])
    elif ridge.verdict.side == "above chance":
        cause, line = "part differs" if differing else "too little data", train_line
        sentence = "; ".join([f"too little data for this model: {compared}", *differing])

    # a ridge that finds training pictures alone: another test split
    elif training and training.verdict.side == "above chance":
        cause, line = "test split differs", check_line
        sentence = (
            "test pictures differ from training pictures, or are filed wrongly: a closed-form ridge finds "
            f"held-out training pictures ({training.words}), but no test pictures ({ridge.words}), {orders}"
        )
    else:
        cause, line = "target not carried", check_line
        nor = f" nor held-out training pictures ({training.words})" if training else ""
        sentence = (
            f"too little data, or a target that these signals do not carry: of {signals} training signals a "
            f"closed-form ridge finds neither test pictures ({ridge.words}){nor}, {orders}; check the "
            "reliability of the signals, then try another window or encoder"
        )
    return {"cause": cause, "sentence": sentence, "line": line}


def find_differing(fits: Sequence[Fit], tested: Candidates) -> dict[str, Fit]:
    """Find subjects, and sessions of a subject, that are at chance and worse than the others.

    Returns:
        The subject's ridge by a sentence on what differs.

    Source: Welch's t test of ranks, corrected for the number of subjects and sessions (Bonferroni).
    """
    from scipy.stats import ttest_ind

    # what is compared: subjects with each other, and sessions with the others of their subject
    groups = [[(f"subject {fit.subject}", fit, fit.rank()) for fit in fits]]
    for fit in fits:
        sessions = fit.sessions("test")
        names = [f"session {number + 1} of subject {fit.subject}" for number in sessions]
        groups.append(
            [(name, fit, fit.rank(session=number)) for name, number in zip(names, sessions, strict=True)]
        )
    groups = [group for group in groups if len(group) > 1]
    count, differing = sum(map(len, groups)), {}
    for group in groups:
        for name, fit, ranked in group:
            others = [part for other, _, part in group if other != name]
            rest = np.concatenate([tested.seen(other) for other in others])
            p = count * ttest_ind(tested.seen(ranked), rest, equal_var=False, alternative="greater").pvalue
            if not p <= LEVEL:
                continue

            # ranks that are worse than the others', at chance where these are above it
            outcome, of_others = tested.judge([ranked]), tested.judge(others)
            is_found = outcome.verdict.side == "above chance"
            if not is_found and of_others.verdict.side == "above chance":
                words = f"{name} differs: its pictures are not found ({outcome.words})"
                differing[f"{words}, those of the others are ({of_others.words})"] = fit
    return differing


def explain_fits(
    fits: Sequence[Fit],
    tested: Candidates,
    held_out: Candidates | None,
    model: str,
    ridge: Outcome,
    split: str,
) -> dict[str, Any]:
    """Test the causes of signals whose pictures no ridge finds: those of all subjects, or of some.

    Returns:
        `differing`, `training`, `filings` and `refiled` of `diagnose`, as far as they were tested.
    """
    # ridges whose pictures are not found
    differing = find_differing(fits, tested)
    facts: dict[str, Any] = {"differing": [*differing]}
    is_found = ridge.verdict.side == "above chance"
    suspects = [fit for fit in fits if fit in differing.values() or not is_found]
    if not suspects or (model.startswith("above chance") and not differing):
        return facts

    # other orders of test pictures; of training pictures where these are not found either
    if held_out is not None:
        facts["training"] = held_out.judge([fit.rank(held_out=held_out) for fit in suspects])
        if facts["training"].verdict.side == "above chance":
            held_out = None
        else:
            split, tested = "train", held_out

    # of all subjects, of each, of each session
    parts: list[tuple[str, Sequence[Fit], int | None]] = []
    if len(suspects) > 1:
        parts.append((f"subjects {', '.join(str(fit.subject) for fit in suspects)}", suspects, None))
    for fit in suspects:
        name = f"subject {fit.subject}"
        parts.append((name, [fit], None))
        parts += [(f"session {number + 1} of {name}", [fit], number) for number in fit.sessions(split)]

    # outcomes as filed and in each other order, with the one-sided p of the latter
    tried = []
    for name, members, session in parts:
        filed = tested.judge([fit.rank("", session, held_out) for fit in members])
        for filing in () if filed.verdict.side == "above chance" else FILINGS:
            refiled = tested.judge([fit.rank(filing, session, held_out) for fit in members])
            p = 1.0 if refiled.verdict.better is None else refiled.verdict.better  # None: not testable
            tried.append((p, refiled.mean_rank, name, filing, filed, refiled))
    if not tried:
        return facts

    # the best order, if it is above chance after correction for all that were tried (Bonferroni)
    p, _, name, filing, filed, best = min(tried, key=itemgetter(0, 1))
    count, p = len(tried), p * len(tried)
    facts["filings"] = count
    if p <= LEVEL:
        numbers = f"top-1 {best.top1:.3f}, n {best.verdict.n}, p {p:.2g} after correction for {count} orders"
        order = f"with the order of {SPLITS.get(split, split)} pictures of {name} {filing}"
        found = f"{order}, a closed-form ridge finds them ({numbers}), as filed it does not ({filed.words})"
        facts["refiled"] = found
    return facts


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
    spec, model, align = job.recipe, measured.notes["verdict"], job.runs[0]
    is_asked = spec.baseline == "ridge" or not model.startswith(("above chance", "not testable"))
    if spec.control != "none" or spec.baseline == "none" or not is_asked:
        return Measurements()

    # ridges, and the facts that they tell
    try:
        fits, tested, held_out = fit_subjects(job, device)
        ranked = [fit.rank() for fit in fits]
        ridge, counts = tested.judge(ranked), [fit.signals for fit in fits]
        signals = max(counts) if held_out is None else sum(counts)  # ridges of other subjects share theirs
        facts = explain_fits(fits, tested, held_out, model, ridge, spec.split)
        facts["train_line"] = write_training(align, fits)
        facts["check_line"] = Line("check", f"dataset={align.dataset_config}", "--plots").plain
    except FAILURES as error:
        reason = (
            error.in_one_line if isinstance(error, BrainhiveError) else f"{type(error).__name__}: {error}"
        )
        return Measurements(notes={"baseline": {"sentence": f"{QUESTION} No ridge was fitted: {reason}"}})

    # metrics with the protocol, and all that the sentence says as plain values
    components = max(fit.components for fit in fits)
    how = f"closed-form ridge on at most {components} principal components of {signals} training signals"
    measurements = summarise(
        [tested.seen(subject) for subject in ranked],
        len(tested.rows),
        split=spec.split,
        items=tested.alike.items([pictures.tolist() for pictures, _ in ranked]),
        protocol=f"{measured.notes['protocol']}, {how}",
        only=("top1", "top5", "median_rank"),
    )
    training = facts.get("training")
    notes = {
        **diagnose(model, ridge, signals, **facts),
        "metrics": {metric.name: metric.as_dict() for metric in measurements},
        "above_chance": ridge.verdict.as_dict(),
        "components": components,
        "signals": signals,
        "differing": facts["differing"],
        "training": training and {**training.verdict.as_dict(), "top1": training.top1},
        "filings": facts.get("filings", 0),
    }
    return Measurements({BASELINE: by_name(measurements)}, {}, {"baseline": notes})


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
