"""The sentences of results, rendered from templates: findings, differences, warnings, titles."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.core.facts import ExplanationFacts
from brainhive_cli.core.measurements import Measurements, Metric, caveats_of, mark, merge_caveats
from brainhive_cli.core.set_up import LISTED, SetUp, describe_signals, say
from brainhive_cli.core.tables import brief
from brainhive_cli.measurement.metric_names import headlines, shown
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun, list_parts
from brainhive_cli.reports.tables import adjustment_text, best_of_parts
from brainhive_cli.reports.templates import render

HERE = Path(__file__).parent
MEANINGS = documents.read(HERE / "caveats.json", dict[str, str])
"""Meaning of each caveat of a run."""
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")
"""Folders of an absolute path: of this machine, which no reader of a page has."""


def describe_metric(metric: Metric) -> str:
    """Write a metric with its name, value, interval and chance."""
    return render("metric.txt", metric=metric)


def state_finding(measured: Measurements) -> str:
    """State the result of a run in a sentence or two; empty where it has nothing to say."""
    # metrics of everything together; where nothing is pooled, those of the variants or cells
    facts, metrics, parts = measured.facts, measured.overall, list_parts(measured)
    name = choose_headline(next(iter(parts.values()), {}))
    values = [metrics[name].value for metrics in parts.values() if name in metrics]
    return render(
        "finding.txt",
        facts=facts,
        command=facts.command,
        metrics=metrics,
        scopes=measured.scopes,
        main=choose_headline(metrics),
        caveats=facts.caveats,
        subjects=len({cell.subject for cell in facts.cells.values() if cell.subject is not None}),
        validation=[cell["top1"] for cell in measured.scopes.values() if "top1" in cell],
        parts=parts if values and not metrics else {},
        best=best_of_parts(facts, parts),
        name=name,
        low=min(values, default=0.0),
        high=max(values, default=0.0),
    )


def choose_headline(metrics: Mapping[str, Metric]) -> str:
    """Name the most important metric: the first with chance, since smooth pictures do well in others."""
    names = headlines(list(metrics))
    return next((name for name in names if metrics[name].chance is not None), next(iter(names), ""))


def describe_differences(group: RunGroup) -> list[str]:
    """Write a sentence on each of the first four differences."""
    metrics = {run.label: run.metrics for run in group.runs}
    return [render("difference.txt", row=row, metrics=metrics) for row in group.compared[:4]]


def name_page(groups: Sequence[RunGroup]) -> str:
    """Call a page by the question that its runs answer, and by data set and systems where these are known."""
    runs = [run for group in groups for run in group.runs]
    set_ups = [run.measured.facts.set_up for run in runs]
    return render("title.txt", runs=runs, first=runs[0].measured.facts, set_ups=set_ups)


def list_warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all that a reader must know before a number; caveats have the footnote sign."""
    # caveats, why a result is not above chance, the runs' own warnings
    runs = [run for group in groups for run in group.runs]
    lines = explain_caveats(*(run.measured for run in runs))
    for run in runs:
        named = f"{run.label}: " if len(runs) > 1 else ""
        own = [explain_chance(run.measured), *run.measured.facts.warnings]
        lines += [f"{named}{line}" for line in own if line]

    # what was not compared, and limits of the tests
    lines += [f"Not compared: {reason}" for group in groups for reason in group.not_compared]
    limits = [limit for group in groups for row in group.compared for limit in row.limits]
    return list(dict.fromkeys([*lines, *(f"Of the tests: {limit}." for limit in limits)]))


def explain_caveats(*measured: Measurements) -> list[str]:
    """Explain the caveats of what was measured, each behind the footnote sign."""
    listed = merge_caveats(
        *(each.caveats for each in measured),
        *(caveats_of(metrics.values()) for each in measured for metrics in each.scopes.values()),
    )
    return [f"{mark('', listed)} {MEANINGS[caveat]}" for caveat in listed]


def explain_chance(measured: Measurements) -> str:
    """Explain a result that is not above chance, by the ridge beside it; empty of any other."""
    return render("chance.txt", facts=measured.facts)


def list_missing(groups: Sequence[RunGroup]) -> list[str]:
    """List the metrics that runs did not measure, with reasons that name files without their folders."""
    lines = [
        f"{run.label}: {shown(name)}: {FOLDERS.sub('', why)}"
        for group in groups
        for run in group.runs
        for name, why in run.measured.missing.items()
    ]
    return list(dict.fromkeys(lines))


# The paragraph for the methods of a paper, and the citation.


def describe_methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods from the facts of the runs."""
    # each run: metrics, items, protocol, set-up and tests
    runs, sentences = [run for group in groups for run in group.runs], []
    for run in runs:
        if not (metrics := run.typical_metrics):
            continue
        first = metrics[next(iter(run.headlines))]
        items = f"{first.n:,} {first.split} items"
        items += f" among {first.pool:,} candidates (chance {brief(first.chance or 0)})" if first.pool else ""
        items += f", seeds {', '.join(map(str, first.seeds))}" if first.seeds else ""
        names = f"{', '.join(map(shown, metrics))} ({run.command})"
        interval = f" 95 % intervals: {first.interval}." if first.low is not None else ""
        sentences.append(f"{names}: measured on {items}; protocol: {first.protocol}.{interval}")
        sentences += [*describe_set_up(run.measured.facts.set_up), *describe_tests(run)]

    # the tests between runs
    tests = dict.fromkeys(pair.test for group in groups for pair in group.compared if pair.test)
    if tests:
        compared = (pair for group in groups for pair in group.compared)
        adjustments = dict.fromkeys(adjustment_text(pair) for pair in compared)
        sentences.append(f"Runs were compared item by item ({'; '.join(tests)}); {'; '.join(adjustments)}.")

    # the software and the device
    if environment := next((run.environment for run in runs if run.environment), None):
        versions, device = environment.get("versions", {}), environment.get("device", "")
        named = ", ".join(f"{name} {versions[name]}" for name in ("brainhive", "torch") if name in versions)
        sentences.append(f"All was computed with {named}{f' on {device}' if device else ''}.")
    return " ".join(dict.fromkeys(sentences))


FACTS = {
    "encoders": "embeddings of {}",
    "mode": "mode {}",
    "trained_on_dataset": "trained on {}",
    "epochs": "{} epochs",
    "train.batch_size": "batches of {}",
    "train.lr": "learning rate {}",
    "signal.repetitions": "training repetitions: {}",
    "reconstruct.generator.kind": "generator {}",
}
"""Phrases for the keys of a set-up, in a sentence about the brain model."""
KEPT = {
    "best": "the epoch with the best validation top-1 was kept",
    "last": "the last epoch was kept",
    "test": "the epoch with the best top-1 on the test set was kept",
}
"""Phrases on the selection of the epoch, by the word of a recipe."""


def describe_set_up(set_up: SetUp) -> list[str]:
    """Describe signals, preparation, model and training in two sentences, as far as they are known."""
    if not set_up:
        return []

    # the subjects, the preparation and the channels of the signals
    subjects = set_up.get("subjects", [])
    named = ", ".join(map(str, subjects)) if isinstance(subjects, list) else say("subjects", subjects)
    people = f"{'Subject' if len(subjects) == 1 else 'Subjects'} {named} of {set_up['dataset']}"
    steps = [
        f"{key.removeprefix('preparation.')} {say(key, value)}"
        for key, value in set_up.items()
        if key.startswith("preparation.") and value not in (None, [], {}, "")
    ]
    prepared = f"prepared with {', '.join(steps)}" if steps else "how they were prepared is not recorded"
    names = set_up.get("channels")
    channels = f"; channels {' '.join(names)}" if isinstance(names, list) and len(names) > LISTED else ""
    signals = f"{people}: {', '.join(describe_signals(set_up))}; {prepared}{channels}."

    # the model, its training and the selection of its epoch
    model = f"Brain model {set_up['backbone.kind']}" if "backbone.kind" in set_up else "Brain model"
    facts = [phrase.format(say(key, set_up[key])) for key, phrase in FACTS.items() if key in set_up]
    selection = set_up.get("selection")
    unknown = "how its epoch was selected is not known"
    facts.append(KEPT.get(selection, f"kept epoch: {selection}") if selection else unknown)
    return [signals, f"{model}: {'; '.join(facts)}."]


def describe_tests(run: ShownRun) -> list[str]:
    """Name the test behind each p of a single run."""
    facts, sentences = run.measured.facts, []
    # questions about the ranks, tested or visible without a test
    for answer in facts.answers:
        if answer.p is None:
            sentences.append(f"{answer.question.capitalize()} was seen: {answer.test}.")
        else:
            about = f" for {answer.scope}" if answer.scope else ""
            wider = f"; {answer.wider}" if answer.wider else ""
            claim = f"Whether ranks are above chance{about} ({answer.question})"
            sentences.append(f"{claim} was tested by {answer.test}{wider}.")

    # draws of a control, and permutations of profiles
    if run.is_control:
        sentences.append("The p of the control is the share of its draws that are at least as good.")
    profiles = facts.profiles if isinstance(facts, ExplanationFacts) else []
    if any(profile.get("p") is not None for profile in profiles):
        sentences.append("The p of profiles is by permutation of labels, corrected by the largest statistic.")
    return sentences


CITATION = """@inproceedings{brainhive2026,
  title     = {Learning Brain Representation with Hierarchical Visual Embeddings},
  author    = {Zheng, Jiawen and Jia, Haonan and Li, Ming and Zheng, Yuhui and Zeng, Yufeng and
               Gao, Yang and Liang, Chen},
  booktitle = {International Conference on Learning Representations},
  year      = {2026},
  eprint    = {2602.07495},
  archivePrefix = {arXiv}
}"""
"""BibTeX entry of the paper that Brainhive implements."""
