"""The page of one or many runs, made of what they measured and show; it knows no command."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from brainhive_cli.core.artifacts import Curve, Line, Sheet
from brainhive_cli.core.measurements import (
    CALIBRATED,
    MIXED_WITH_BLURRY,
    NORMALISED_BY_TESTED,
    PRIOR_OF_OTHERS,
    SEEN_CONCEPTS,
    SEEN_COPIES,
    SEEN_PICTURES,
    SELECTED_ON_TEST,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    WHITENED_BY_TESTED,
    Metric,
    beside_heading,
    caveats_of,
    extend_title,
    is_difference,
    merge_caveats,
    stamp,
)
from brainhive_cli.core.set_up import LISTED, SET_UP, SetUp, describe_signals, say
from brainhive_cli.core.tables import adjustment_text, brief, number
from brainhive_cli.measurement.metric_names import lower_is_better, shown, with_arrow
from brainhive_cli.reports.page import FirstScreen, Group, Page, Section, Text, groups_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import choose_best, tables_of


def page_of(
    groups: Sequence[RunGroup], title: str = "", commands: Sequence[str] = (), first: Sequence[Section] = ()
) -> Page:
    """Lay out the page.

    Args:
        groups: The runs; those of one group are compared.
        title: The heading; by default what the runs are.
        commands: Lines that made them, to be copied.
        first: Sections that come before those of the runs.
    """
    runs = [run for group in groups for run in group.runs]
    if not title:
        names = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
        title = f"{', '.join(dict.fromkeys(run.command for run in runs))}: {names}"
    differences = [sentence for group in groups for sentence in difference_sentences(group)]
    lead = [*differences[:1], *map(summary, runs[:6]), *differences[1:]]
    if not differences:
        most_told = _pictured_first(groups)[0]
        label = f"{most_told.label}: " if len(groups[0].runs) > 1 else ""
        lead.insert(0, label + verdict(most_told))
    texts = [Text("Each step by hand", "\n".join(commands), True)] if commands else []
    texts.append(Text("For the methods of a paper", methods(groups)))
    texts.append(Text("How to cite (BibTeX)", CITATION))
    recipes = []
    for run in runs:
        recipes.append(Text(f"Recipe of {run.command}: {run.label}", run.recipe_text))
        if run.environment:
            environment = json.dumps(run.environment, indent=2)
            recipes.append(Text(f"Environment of {run.command}: {run.label}", environment))
    last = [Section("Methods and citing", texts=texts), Section("Recipes and environments", texts=recipes)]
    caveats = merge_caveats(*(run.measured.caveats for run in runs))
    sections = [*first, *map(_section, groups), *last]
    return Page(extend_title(title, caveats), lead, warnings(groups), sections, first_screen(groups))


def first_screen(groups: Sequence[RunGroup]) -> FirstScreen:
    """Choose what is seen first: pictures of the run that draws them, else retrieves them; the headline."""
    runs = _pictured_first(groups)
    headline = next((shown for run in runs if (shown := headline_curve(run))), None)
    if len(groups) == 1 and len(groups[0].runs) > 1:
        by_label = {run.label: run.metrics for run in groups[0].runs if run.metrics}
        headline = _bars_of(by_label, next(iter(groups[0].runs[0].headlines), "")) or headline
    for run in runs:
        for sheet in (shown for shown in run.artifacts if isinstance(shown, Sheet)):
            pairs = [(row.tiles[0], row.tiles[1]) for row in sheet.rows if len(row.tiles) > 1][:MAX_PAIRS]
            if pairs:
                second = sheet.columns[1]  # `made`, the source, or the number of a repeat or of a rank
                if second in ("made", run.source) or second.isdecimal():
                    second = "drawn from the signal" if run.source else "retrieved first"
                return FirstScreen((sheet.columns[0], second), pairs, run.folder.path, headline)
    return FirstScreen(headline=headline)


def _pictured_first(groups: Sequence[RunGroup]) -> list[ShownRun]:
    return sorted((run for group in groups for run in group.runs), key=lambda run: not run.source)


def _headline(run: ShownRun) -> str:
    """Name the most important metric: one with chance says more than one that smooth pictures do well in."""
    names = run.headlines
    with_chance = (name for name in names if run.typical_metrics[name].chance is not None)
    return next(with_chance, next(iter(names), ""))


def verdict(run: ShownRun) -> str:
    """Say in one plain sentence what a run found; the figure next to it has the interval."""
    name = _headline(run)
    if (metric := run.metrics.get(name)) is None:
        return summary(run).removeprefix(f"{run.label}: ")
    said = f"{stamp(shown(name), metric.caveats)} is {number(metric.value)}"
    said += f" on {metric.n:,} {metric.split} items"
    if subjects := len({cell.subject for cell in run.cells if cell.subject}):
        said += f" of {subjects} subject{'s' if subjects > 1 else ''}"
    if metric.chance is not None:
        said += f", where chance is {brief(metric.chance)}: "
        said += run.measured.notes.get("verdict", _level(metric, run.scope))
    return f"{said[0].upper()}{said[1:]}."


def _level(metric: Metric, scope: str) -> str:
    """Compare a metric with its chance: in people in general, else in the subjects who were measured.

    Args:
        metric: What was measured.
        scope: What a claim is about where that is not units in general.
    """
    if metric.chance is None:
        return ""
    if metric.low is None:
        return f"nothing can be said of it ({metric.interval.removeprefix('none: ')})"
    about = " in these subjects" if metric.these_subjects and not metric.is_of_people else ""
    about += f" for {scope}" if scope else ""
    return f"{'above' if metric.low > metric.chance else 'not shown to be above'} chance{about}"


def headline_curve(run: ShownRun) -> Curve | None:
    """Draw the most important metric: of each source, else of all and of each subject."""
    name = _headline(run)
    if run.source:
        titles = run.measured.notes.get("titles", {})
        sources = run.measured.notes["sources"]
        return _bars_of({titles.get(one, one): run.measured.scopes.get(one, {}) for one in sources}, name)
    subjects = [cell for cell in run.cells if cell.subject]
    is_one_each = len({cell.subject for cell in subjects}) == len(subjects) <= MAX_BARS
    by_name = {"all": run.metrics} | {cell.subject: cell.metrics for cell in subjects if is_one_each}
    bars = _bars_of(by_name if run.metrics else run.variants, name)
    if bars is None or len(bars.at) > 1 or any(bars.lines[0].low or ()):
        return bars
    drawn = [shown for shown in run.artifacts if isinstance(shown, Curve) and shown.style == "lines"]
    same = (curve for curve in drawn if curve.value and shown(name).startswith(curve.value))
    return next(same, next(iter(drawn), bars))


def _bars_of(metrics: Mapping[str, Mapping[str, Metric]], name: str) -> Curve | None:
    by_part = {part: some[name] for part, some in metrics.items() if name in some}
    if not by_part:
        return None
    listed = list(by_part.values())
    ends = ([metric.low for metric in listed], [metric.high for metric in listed])
    line = Line(shown(name), [metric.value for metric in listed], *ends, listed[0].chance)
    chance = "" if line.chance is None else f"; broken line: chance, {brief(line.chance)}"
    intervals = "" if listed[0].low is None else ", with 95 % intervals"
    intervals += " of these subjects" if beside_heading(listed) == "people in general" else ""
    return Curve(f"{with_arrow(name)}{intervals}{chance}", "", list(by_part), [line], "", "bars")


def _section(group: RunGroup) -> Section:
    first, count = group.runs[0], len(group.runs)
    stamps = {run.label: stamp("" if count == 1 else run.label, run.measured.caveats) for run in group.runs}
    artifacts = [(stamps[run.label], run.artifacts, run.folder.path) for run in group.runs]
    title = group.title or f"{first.command}: {first.label if count == 1 else f'{count} runs'}"
    lead = [f"{run.label}: {run.folder.path.name}" for run in group.runs] if count > 1 else []
    caveats = merge_caveats(*(run.measured.caveats for run in group.runs))
    tables = [replace(table, title=stamp(table.title, caveats)) for table in tables_of(group)]
    return Section(title, [Group("", tables), *groups_of(artifacts)], lead)


MAX_PAIRS, MAX_BARS = 4, 10
"""Pictures, and subjects, on the first screen."""
MEANINGS = {
    SIMULATED: "Simulated: a program made the signals; no brain was recorded.",
    TRAINED_ON_SIMULATED: "Trained on simulated signals: a program made what models learned from.",
    CALIBRATED: "Calibrated: the left-out subject's own unlabelled training recordings normalised signals.",
    WHITENED_BY_TESTED: "Transductive: noise of test trials had a part in the whitening of the signals.",
    UNKNOWN_PICTURES: "Pictures unknown: nothing says whether tested ones, or copies, were trained on.",
    UNKNOWN_SELECTION: "Nothing says how the epoch of a model was selected.",
    UNKNOWN_HISTORY: "History unknown: nothing says whose signals and which pictures the weights, with which "
    "training began, had learned from, nor how they were selected.",
    NORMALISED_BY_TESTED: "Normalised by held-out trials: held-out runs or sessions were z-scored by "
    "their own unlabelled trials.",
    SEEN_PICTURES: "Seen pictures: models learned from other trials of what was tested. Not "
    "comparable with zero-shot retrieval.",
    SEEN_COPIES: "Copies seen: tested pictures that are copies of training pictures were not left out.",
    SEEN_CONCEPTS: "Concepts seen: a model learned from other pictures of tested concepts, before this "
    "training or in that on another data set.",
    PRIOR_OF_OTHERS: "Prior trained on other pictures: what draws has learned from another data set.",
    MIXED_WITH_BLURRY: "Mixed with the blurry picture: scored is the mean of each picture and one that a "
    "latent was regressed to, which low-level metrics favour by construction.",
    SELECTED_ON_TEST: "Selected on test: the epoch was chosen on the test set, so the numbers flatter.",
}
KEPT = {
    "best": "the epoch with the best validation top-1 was kept",
    "last": "the last epoch was kept",
    "test": "the epoch with the best top-1 on the test set was kept",
}
"""How the epoch was selected, by the word of a recipe."""
CITATION = """@inproceedings{brainhive2026,
  title     = {Learning Brain Representation with Hierarchical Visual Embeddings},
  author    = {Zheng, Jiawen and Jia, Haonan and Li, Ming and Zheng, Yuhui and Zeng, Yufeng and
               Gao, Yang and Liang, Chen},
  booktitle = {International Conference on Learning Representations},
  year      = {2026},
  eprint    = {2602.07495},
  archivePrefix = {arXiv}
}"""
"""The paper that Brainhive implements."""


def summary(run: ShownRun) -> str:
    """Say in a sentence or two what a run found."""
    metrics = run.metrics
    if not metrics:
        return _summarise_parts(run)
    first = metrics[run.headlines[0]]
    said = "; ".join(measured(metrics[name]) for name in run.headlines)
    subjects = len({cell.subject for cell in run.cells if cell.subject})
    units = run.measured.notes.get("unit_count", first.n)
    context = f" in {units} {run.measured.notes['units']}" if units * max(1, subjects) < first.n else ""
    context += f" of {subjects} subject{'s' if subjects > 1 else ''}" if subjects else ""
    context += f" among {first.pool:,} candidates" if first.pool else ""
    verdict = run.measured.notes.get("verdict", "")
    context += f"; this is {verdict}" if verdict else f"; for {run.scope}" if run.scope else ""
    # the claims that the design does not allow, and further questions that the ranks were asked
    notes = run.measured.notes
    further = [
        notes.get("above_chance", {}).get("wider"),
        *(each["sentence"] for each in notes.get("questions", ())),
    ]
    lines = [f"Measured on {first.n:,} {first.split} items{context}", *filter(None, further)]
    return " ".join([f"{run.label}: {said}.", *(f"{line[0].upper()}{line[1:]}." for line in lines)])


def measured(metric: Metric) -> str:
    """Say a metric with what belongs to it."""
    interval = "" if metric.low is None else f"95 % interval {metric.interval_text()}"
    chance = "" if metric.chance is None else f"chance {brief(metric.chance)}"
    context = ", ".join(filter(None, [interval, chance]))
    name = stamp(shown(metric.name), metric.caveats)
    return f"{name} {number(metric.value)}" + (f" ({context})" if context else "")


def _summarise_parts(run: ShownRun) -> str:
    """Say what was measured of each variant or cell, where nothing is pooled."""
    parts = run.variants or {cell.name: cell.metrics for cell in run.cells}
    name = next(iter(run.headlines), None)
    if name is None:
        return f"{run.label}: no metric."
    of_all = {part: metrics[name] for part, metrics in parts.items() if name in metrics}
    # what was selected on test is no finding where anything else was measured
    by_part = {part: metric for part, metric in of_all.items() if not metric.selected} or of_all
    first = next(iter(by_part.values()))
    if len(by_part) == 1:
        return f"{run.label}: {measured(first)}, on {first.split} items."
    values = [metric.value for metric in by_part.values()]
    spread = f"from {number(min(values))} to {number(max(values))}"
    kind = "variant" if run.variants else "cell"
    said = f"{run.label}: {len(by_part)} {kind}s; {shown(name)} on {first.split} items {spread}"
    comparable = {} if run.measured.notes.get("not_compared") else by_part
    best = choose_best({part: {name: m} for part, m in comparable.items()}, run.validation_of_variants)
    if labels := best.labels.get(name):
        named = " and ".join(f"“{label}” with {number(by_part[label].value)}" for label in labels)
        said += f"; {best.chosen}: {kind} {named}"
    return f"{said}."


def difference_sentences(group: RunGroup) -> list[str]:
    """Say each difference in a sentence."""
    said, caveats = [], merge_caveats(*(run.measured.caveats for run in group.runs))
    for pair in group.compared[:4]:
        is_more = (pair.difference > 0) != lower_is_better(pair.metric)
        is_shown = is_difference(pair.p)
        how = f"{'better' if is_more else 'worse'} than" if is_shown else "not shown to differ from"
        by = f"difference {pair.difference:+.3f}"
        if pair.low is not None and pair.high is not None:
            by += f", 95 % interval {pair.low:+.3f} to {pair.high:+.3f}"
        by += "" if pair.p is None else f", p {pair.p:.2g}"
        sides = f"{pair.first} is {how} {pair.second}" + (f" for {pair.scope}" if pair.scope else "")
        said.append(f"In {stamp(shown(pair.metric), caveats)} {sides} ({by}, n {pair.n:,}, paired).")
    return said


def warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all that must be known before a number is read, each once."""
    runs = [run for group in groups for run in group.runs]
    of_metrics = [caveats_of(metrics.values()) for run in runs for metrics in run.measured.scopes.values()]
    caveats = merge_caveats(*(run.measured.caveats for run in runs), *of_metrics)
    lines = [stamp(MEANINGS[caveat], [caveat]) for caveat in caveats]
    for run in runs:
        notes = run.measured.notes
        verdict = notes.get("verdict", "above chance")
        if not verdict.startswith("above chance") and not notes.get("control"):
            question = "do signals and pictures belong together as they are filed?"
            explained = notes.get("baseline", {"sentence": question})
            line = f": {explained['line']}" if explained.get("line") else ""
            lines.append(f"{run.label} is {verdict}: {explained['sentence']}{line}")
        lines += [f"{run.label}: {line}" for line in notes.get("warnings", [])]
        missing = run.measured.missing.items()
        lines += [f"Not measured in {run.label}: {shown(name)}: {way}" for name, way in missing]
    lines += [f"Not compared: {reason}" for group in groups for reason in group.not_compared]
    limits = [note for group in groups for pair in group.compared for note in pair.notes]
    return list(dict.fromkeys([*lines, *(f"Of the tests: {note}." for note in limits)]))


def methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods, of what the runs themselves say."""
    runs, said = [run for group in groups for run in group.runs], []
    for run in runs:
        if not (metrics := run.typical_metrics):
            continue
        first = metrics[next(iter(run.headlines))]
        on = f"{first.n:,} {first.split} items"
        on += f" among {first.pool:,} candidates (chance {brief(first.chance or 0)})" if first.pool else ""
        on += f", seeds {', '.join(map(str, first.seeds))}" if first.seeds else ""
        interval = f" 95 % intervals: {first.interval}." if first.low is not None else ""
        what = ", ".join(map(shown, metrics))
        said.append(f"{what} ({run.command}): measured on {on}; protocol: {first.protocol}.{interval}")
        said += [*set_up_sentences(run.measured.notes.get(SET_UP, {})), *tests_of(run)]
    tests = dict.fromkeys(pair.test for group in groups for pair in group.compared if pair.test)
    if tests:
        compared = (pair for group in groups for pair in group.compared)
        adjustments = dict.fromkeys(adjustment_text(pair.adjusted_over) for pair in compared)
        said.append(f"Runs were compared item by item ({'; '.join(tests)}); {'; '.join(adjustments)}.")
    if environment := next((run.environment for run in runs if run.environment), None):
        versions, device = environment.get("versions", {}), environment.get("device", "")
        named = ", ".join(f"{name} {versions[name]}" for name in ("brainhive", "torch") if name in versions)
        said.append(f"All was computed with {named}{f' on {device}' if device else ''}.")
    return " ".join(dict.fromkeys(said))


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
"""How a set-up's keys are said of a brain model."""


def set_up_sentences(set_up: SetUp) -> list[str]:
    """Say whose signals were used, how prepared, and which model was trained how, as far as it is known."""
    if not set_up:
        return []
    subjects = set_up.get("subjects", [])
    named = ", ".join(map(str, subjects)) if isinstance(subjects, list) else say("subjects", subjects)
    whose = f"{'Subject' if len(subjects) == 1 else 'Subjects'} {named} of {set_up['dataset']}"
    steps = [
        f"{key.removeprefix('preparation.')} {say(key, value)}"
        for key, value in set_up.items()
        if key.startswith("preparation.") and value not in (None, [], {}, "")
    ]
    prepared = f"prepared with {', '.join(steps)}" if steps else "how they were prepared is not recorded"
    names = set_up.get("channels")
    listed = f"; channels {' '.join(names)}" if isinstance(names, list) and len(names) > LISTED else ""
    signals = f"{whose}: {', '.join(describe_signals(set_up))}; {prepared}{listed}."
    model = f"Brain model {set_up['backbone.kind']}" if "backbone.kind" in set_up else "Brain model"
    facts = [words.format(say(key, set_up[key])) for key, words in FACTS.items() if key in set_up]
    selection = set_up.get("selection")
    unknown = "how its epoch was selected is not known"
    facts.append(KEPT.get(selection, f"kept epoch: {selection}") if selection else unknown)
    return [signals, f"{model}: {'; '.join(facts)}."]


def tests_of(run: ShownRun) -> list[str]:
    """Name the test behind each p of a run that is no comparison with others."""
    notes, said = run.measured.notes, []
    for answer in filter(None, [notes.get("above_chance"), *notes.get("questions", ())]):
        if answer["p"] is None:
            said.append(f"{answer['question'].capitalize()} was seen: {answer['test']}.")
        else:
            about = f" for {answer['scope']}" if answer["scope"] else ""
            wider = f"; {answer['wider']}" if answer["wider"] else ""
            tested = f"Whether ranks are above chance{about} ({answer['question']})"
            said.append(f"{tested} was tested by {answer['test']}{wider}.")
    if notes.get("control"):
        said.append("The p of the control is the share of its draws that are at least as good.")
    if any(profile.get("p") is not None for profile in notes.get("profiles", [])):
        said.append("The p of profiles is by permutation of labels, corrected by the largest statistic.")
    return said
