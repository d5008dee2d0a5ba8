"""The sentences of a page on runs, in the order in which the page shows them."""

import re
from collections.abc import Sequence
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.core.measurements import (
    Metric,
    caveats_of,
    is_difference,
    merge_caveats,
    stamp,
)
from brainhive_cli.core.set_up import LISTED, SET_UP, SetUp, describe_signals, say
from brainhive_cli.core.tables import adjustment_text, brief, number
from brainhive_cli.measurement.metric_names import lower_is_better, shown
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import best_of_parts

# The verdict and the differences, at the top of a page.


BASELINES = ("nearest", "mean")
"""Sources of pictures that need no brain, in a run of reconstructions."""


QUESTIONS = {
    "prepare": "signals, prepared",
    "embed": "how do encoders describe the pictures?",
    "train-align": "how did brain models learn?",
    "train-prior": "how did the prior learn?",
    "eval-retrieval": "which picture was seen?",
    "reconstruct": "what was seen, drawn from the signals",
    "explain": "when and where do signals carry what was seen?",
    "calibrate": "how soon is a new person decoded?",
    "live": "what did a person see, while they saw it?",
}
"""Questions that runs of each command answer, in the titles of pages."""


def name_page(groups: Sequence[RunGroup]) -> str:
    """Call a page by data set, system and question; by its runs where these are not known or differ."""
    # data sets and systems of all runs that know them
    runs = [run for group in groups for run in group.runs]
    set_ups = [set_up for run in runs if (set_up := run.measured.notes.get(SET_UP))]
    datasets = list(dict.fromkeys(str(set_up["dataset"]) for set_up in set_ups))
    models = [say("backbone.kind", set_up.get("backbone.kind", "")) for set_up in set_ups]
    modes = [say("mode", set_up.get("mode", "")) for set_up in set_ups]
    systems = list(dict.fromkeys(" ".join(filter(None, pair)) for pair in zip(models, modes, strict=True)))

    # the question of the first run that says most
    commands = list(dict.fromkeys(run.command for run in runs))
    questions = [QUESTIONS.get(command, command) for command in commands]
    if len(datasets) != 1:
        named = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
        return f"{', '.join(questions[:1])} {named}".strip()
    compared = " and ".join(systems) if len(systems) <= 2 else f"{len(runs)} runs"
    return f"{datasets[0]}, {compared}: {questions[0]}"


def state_verdict(run: ShownRun) -> str:
    """State the result of a run in one plain sentence; the figure next to it has the interval."""
    name, notes = run.main_headline, run.measured.notes
    if notes.get("finding"):
        return str(notes["finding"])
    if (metric := run.metrics.get(name)) is None:
        return summarise_run(run).removeprefix(f"{run.label}: ")

    # the value, its items and its subjects
    sentence = f"{stamp(shown(name), metric.caveats)} is {number(metric.value)}"
    sentence += f" on {metric.n:,} {metric.split} items"
    sentence += _of_subjects(run)

    # the run's own verdict, else a claim about people in general or about the measured subjects
    if metric.chance is not None:
        if metric.low is None:
            level = f"nothing can be said of it ({metric.interval.removeprefix('none: ')})"
        else:
            level = f"{'above' if metric.low > metric.chance else 'not shown to be above'} chance"
            level += " in these subjects" if metric.these_subjects and not metric.is_of_people else ""
            level += f" for {notes['scope']}" if notes.get("scope") else ""
        sentence += f", where chance is {brief(metric.chance)}: {notes.get('verdict', level)}"

    # the same metric of what needs no brain: nearest and mean pictures
    titles, scopes = notes.get("titles", {}), run.measured.scopes
    baselines = [
        f"the {titles.get(source, source)} has {number(scopes[source][name].value)}"
        for source in BASELINES
        if name in scopes.get(source, {}) and run.source
    ]
    sentence += f"; {', '.join(baselines)}" if baselines else ""

    # decoded captions, which the first screen shows below the pictures
    captions = run.metrics.get("caption_object")
    if captions is not None and captions.chance is not None:
        sentence += f"; captions name the object in {number(captions.value)} of {captions.n:,} items"
        sentence += f", where chance is {brief(captions.chance)}"
    return f"{sentence[0].upper()}{sentence[1:]}."


def describe_differences(group: RunGroup) -> list[str]:
    """Write a sentence on each of the first four differences."""
    sentences, caveats = [], merge_caveats(*(run.measured.caveats for run in group.runs))
    for pair in group.compared[:4]:
        # a direction is claimed only if the difference is significant
        is_better = (pair.difference > 0) != lower_is_better(pair.metric)
        is_shown = is_difference(pair.p)
        relation = f"{'better' if is_better else 'worse'} than" if is_shown else "not shown to differ from"
        claim = f"{pair.first} is {relation} {pair.second}" + (f" for {pair.scope}" if pair.scope else "")

        # the numbers behind the claim
        numbers = f"difference {pair.difference:+.3f}"
        if pair.low is not None and pair.high is not None:
            numbers += f", 95 % interval {pair.low:+.3f} to {pair.high:+.3f}"
        numbers += "" if pair.p is None else f", p {pair.p:.2g}"
        metric = stamp(shown(pair.metric), caveats)
        sentences.append(f"In {metric} {claim} ({numbers}, n {pair.n:,}, paired).")
    return sentences


# The summaries, below `In words`.


def summarise_run(run: ShownRun) -> str:
    """Summarise the results of a run in a sentence or two."""
    metrics, notes = run.metrics, run.measured.notes
    if not metrics:
        return _summarise_parts(run)

    # the headlines, and the items, units, subjects and candidates that they rest on
    first = metrics[run.headlines[0]]
    results = "; ".join(describe_metric(metrics[name]) for name in run.headlines)
    units = notes.get("unit_count", first.n)
    context = f" in {units} {notes['units']}" if units * max(1, run.subject_count) < first.n else ""
    context += _of_subjects(run)
    context += f" among {first.pool:,} candidates" if first.pool else ""
    if notes.get("verdict"):
        context += f"; this is {notes['verdict']}"
    elif notes.get("scope"):
        context += f"; for {notes['scope']}"

    # the claims that the design does not allow, and further questions that the ranks were asked
    further = [
        notes.get("above_chance", {}).get("wider"),
        *(question["sentence"] for question in notes.get("questions", ())),
    ]
    lines = [f"Measured on {first.n:,} {first.split} items{context}", *filter(None, further)]
    return " ".join([f"{run.label}: {results}.", *(f"{line[0].upper()}{line[1:]}." for line in lines)])


def _of_subjects(run: ShownRun) -> str:
    count = run.subject_count
    return f" of {count} subject{'s' if count > 1 else ''}" if count else ""


def _summarise_parts(run: ShownRun) -> str:
    """Summarise the variants or cells of a run that pools nothing."""
    parts = run.variants or {cell.name: cell.metrics for cell in run.cells}
    name = next(iter(run.headlines), None)
    if name is None:
        return f"{run.label}: no metric."

    # values selected on test are left out if there are others
    all_parts = {part: metrics[name] for part, metrics in parts.items() if name in metrics}
    part_values = {part: metric for part, metric in all_parts.items() if not metric.selected} or all_parts
    first = next(iter(part_values.values()))
    if len(part_values) == 1:
        return f"{run.label}: {describe_metric(first)}, on {first.split} items."

    # the range of the values
    values = [metric.value for metric in part_values.values()]
    spread = f"from {number(min(values))} to {number(max(values))}"
    kind = "variant" if run.variants else "cell"
    sentence = f"{run.label}: {len(part_values)} {kind}s; {shown(name)} on {first.split} items {spread}"

    # the best of them, if they can be compared
    best = best_of_parts(run, {part: {name: metric} for part, metric in part_values.items()})
    if labels := best.labels.get(name):
        named = " and ".join(f"“{label}” with {number(part_values[label].value)}" for label in labels)
        sentence += f"; {best.chosen}: {kind} {named}"
    return f"{sentence}."


def describe_metric(metric: Metric) -> str:
    """Write a metric with its value, interval and chance."""
    interval = "" if metric.low is None else f"95 % interval {metric.interval_text()}"
    chance = "" if metric.chance is None else f"chance {brief(metric.chance)}"
    context = ", ".join(filter(None, [interval, chance]))
    name = stamp(shown(metric.name), metric.caveats)
    return f"{name} {number(metric.value)}" + (f" ({context})" if context else "")


# The warnings, below `What to know before reading a number`.

MEANINGS = documents.read(Path(__file__).with_name("caveats.json"), dict[str, str])
"""Meaning of each caveat of a run."""


def list_warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all warnings that belong before the numbers, without repetition."""
    # explain the caveats of runs and metrics
    runs = [run for group in groups for run in group.runs]
    metric_caveats = [
        caveats_of(metrics.values()) for run in runs for metrics in run.measured.scopes.values()
    ]
    caveats = merge_caveats(*(run.measured.caveats for run in runs), *metric_caveats)
    lines = [stamp(MEANINGS[caveat], [caveat]) for caveat in caveats]

    # warn of results not above chance, and of the run's own warnings
    for run in runs:
        notes = run.measured.notes
        verdict = notes.get("verdict", "above chance")
        if not verdict.startswith("above chance") and not notes.get("control"):
            question = "do signals and pictures belong together as they are filed?"
            baseline = notes.get("baseline", {"sentence": question})
            line = f": {baseline['line']}" if baseline.get("line") else ""
            lines.append(f"{run.label} is {verdict}: {baseline['sentence']}{line}")
        lines += [f"{run.label}: {line}" for line in notes.get("warnings", [])]

    # name runs that were not compared, and limits of the tests
    lines += [f"Not compared: {reason}" for group in groups for reason in group.not_compared]
    limits = [note for group in groups for pair in group.compared for note in pair.notes]
    return list(dict.fromkeys([*lines, *(f"Of the tests: {note}." for note in limits)]))


FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")
"""Folders of an absolute path: of this machine, which no reader of a page has."""


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
    """Write a paragraph for a paper's methods from the notes of the runs."""
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
        sentences += [*describe_set_up(run.measured.notes.get(SET_UP, {})), *describe_tests(run)]

    # the tests between runs
    tests = dict.fromkeys(pair.test for group in groups for pair in group.compared if pair.test)
    if tests:
        compared = (pair for group in groups for pair in group.compared)
        adjustments = dict.fromkeys(adjustment_text(pair.adjusted_over) for pair in compared)
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
    notes, sentences = run.measured.notes, []
    # questions about the ranks, tested or visible without a test
    for answer in filter(None, [notes.get("above_chance"), *notes.get("questions", ())]):
        if answer["p"] is None:
            sentences.append(f"{answer['question'].capitalize()} was seen: {answer['test']}.")
        else:
            about = f" for {answer['scope']}" if answer["scope"] else ""
            wider = f"; {answer['wider']}" if answer["wider"] else ""
            claim = f"Whether ranks are above chance{about} ({answer['question']})"
            sentences.append(f"{claim} was tested by {answer['test']}{wider}.")

    # draws of a control, and permutations of profiles
    if notes.get("control"):
        sentences.append("The p of the control is the share of its draws that are at least as good.")
    if any(profile.get("p") is not None for profile in notes.get("profiles", [])):
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
