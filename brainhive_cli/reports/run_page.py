"""The page of one or many runs, from their measurements and artifacts alone; it knows no command."""

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
from brainhive_cli.core.runs import LARGEST_RECIPE
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
        first: Sections ahead of those of the runs.
    """
    # the title, by default the commands and the run or the number of runs
    runs = [run for group in groups for run in group.runs]
    if not title:
        names = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
        title = f"{', '.join(dict.fromkeys(run.command for run in runs))}: {names}"

    # the lead: the first difference, or the verdict on one run, then summaries
    differences = [sentence for group in groups for sentence in difference_sentences(group)]
    lead = [*differences[:1], *map(summary, runs[:6]), *differences[1:]]
    if not differences:
        main_run = _pictured_first(groups)[0]
        label = f"{main_run.label}: " if len(groups[0].runs) > 1 else ""
        lead.insert(0, label + verdict(main_run))

    # texts to copy: commands, methods, citation, recipes and environments
    texts = [Text("Each step by hand", "\n".join(commands), True)] if commands else []
    texts.append(Text("For the methods of a paper", methods(groups)))
    texts.append(Text("How to cite (BibTeX)", CITATION))
    recipes = []
    for run in runs:
        recipe = run.folder.read_text("recipe.yaml", LARGEST_RECIPE)
        recipes.append(Text(f"Recipe of {run.command}: {run.label}", recipe))
        if run.environment:
            environment = json.dumps(run.environment, indent=2)
            recipes.append(Text(f"Environment of {run.command}: {run.label}", environment))
    last = [Section("Methods and citing", texts=texts), Section("Recipes and environments", texts=recipes)]

    # put the page together; caveats are stamped on the title
    caveats = merge_caveats(*(run.measured.caveats for run in runs))
    sections = [*first, *map(_lay_out_section, groups), *last]
    return Page(extend_title(title, caveats), lead, warnings(groups), sections, first_screen(groups))


def first_screen(groups: Sequence[RunGroup]) -> FirstScreen:
    """Choose the first screen: pictures, reconstructed rather than retrieved ones, and the headline."""
    # the headline compares the runs of a page that has one group of them
    runs = _pictured_first(groups)
    headline = next((shown for run in runs if (shown := headline_curve(run))), None)
    if len(groups) == 1 and len(groups[0].runs) > 1:
        run_metrics = {run.label: run.metrics for run in groups[0].runs if run.metrics}
        headline = _draw_bars(run_metrics, next(iter(groups[0].runs[0].headlines), "")) or headline

    # the first sheet that shows a stimulus next to another picture
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


def _main_headline(run: ShownRun) -> str:
    """Name the most important metric: the first with chance, since smooth pictures do well in others."""
    names = run.headlines
    with_chance = (name for name in names if run.typical_metrics[name].chance is not None)
    return next(with_chance, next(iter(names), ""))


def verdict(run: ShownRun) -> str:
    """State the result of a run in one plain sentence; the figure next to it has the interval."""
    name = _main_headline(run)
    if (metric := run.metrics.get(name)) is None:
        return summary(run).removeprefix(f"{run.label}: ")

    # the value, its items and its subjects
    said = f"{stamp(shown(name), metric.caveats)} is {number(metric.value)}"
    said += f" on {metric.n:,} {metric.split} items"
    if subjects := len({cell.subject for cell in run.cells if cell.subject}):
        said += f" of {subjects} subject{'s' if subjects > 1 else ''}"

    # the run's own verdict, else a claim about people in general or about the measured subjects
    if metric.chance is not None:
        if metric.low is None:
            level = f"nothing can be said of it ({metric.interval.removeprefix('none: ')})"
        else:
            level = f"{'above' if metric.low > metric.chance else 'not shown to be above'} chance"
            level += " in these subjects" if metric.these_subjects and not metric.is_of_people else ""
            level += f" for {run.scope}" if run.scope else ""
        said += f", where chance is {brief(metric.chance)}: {run.measured.notes.get('verdict', level)}"
    return f"{said[0].upper()}{said[1:]}."


def headline_curve(run: ShownRun) -> Curve | None:
    """Draw the most important metric, as bars of the sources, or of all cells and the subjects."""
    name = _main_headline(run)
    if run.source:
        titles = run.measured.notes.get("titles", {})
        sources = run.measured.notes["sources"]
        scopes = run.measured.scopes
        return _draw_bars({titles.get(source, source): scopes.get(source, {}) for source in sources}, name)

    # subjects next to all cells, unless they have several cells or are too many
    subjects = [cell for cell in run.cells if cell.subject]
    shows_subjects = len({cell.subject for cell in subjects}) == len(subjects) <= MAX_BARS
    cell_metrics = {"all": run.metrics} | {cell.subject: cell.metrics for cell in subjects if shows_subjects}
    bars = _draw_bars(cell_metrics if run.metrics else run.variants, name)

    # a single bar without an interval says less than a curve of the run, best one of the same metric
    if bars is None or len(bars.at) > 1 or any(bars.lines[0].low or ()):
        return bars
    drawn = [shown for shown in run.artifacts if isinstance(shown, Curve) and shown.style == "lines"]
    same = (curve for curve in drawn if curve.value and shown(name).startswith(curve.value))
    return next(same, next(iter(drawn), bars))


def _draw_bars(metrics: Mapping[str, Mapping[str, Metric]], name: str) -> Curve | None:
    """Draw one metric as a bar per run, source, subject or variant; None if nothing has the metric."""
    part_values = {part: part_metrics[name] for part, part_metrics in metrics.items() if name in part_metrics}
    if not part_values:
        return None

    # values, intervals and chance
    listed = list(part_values.values())
    ends = ([metric.low for metric in listed], [metric.high for metric in listed])
    line = Line(shown(name), [metric.value for metric in listed], *ends, listed[0].chance)

    # the title tells the broken line and the kind of interval
    chance = "" if line.chance is None else f"; broken line: chance, {brief(line.chance)}"
    intervals = "" if listed[0].low is None else ", with 95 % intervals"
    intervals += " of these subjects" if beside_heading(listed) == "people in general" else ""
    return Curve(f"{with_arrow(name)}{intervals}{chance}", "", list(part_values), [line], "", "bars")


def _lay_out_section(group: RunGroup) -> Section:
    # artifacts are stamped by their run, tables with the caveats of all runs
    first, count = group.runs[0], len(group.runs)
    stamps = {run.label: stamp("" if count == 1 else run.label, run.measured.caveats) for run in group.runs}
    artifacts = [(stamps[run.label], run.artifacts, run.folder.path) for run in group.runs]
    title = group.title or f"{first.command}: {first.label if count == 1 else f'{count} runs'}"
    lead = [f"{run.label}: {run.folder.path.name}" for run in group.runs] if count > 1 else []
    caveats = merge_caveats(*(run.measured.caveats for run in group.runs))
    tables = [replace(table, title=stamp(table.title, caveats)) for table in tables_of(group)]
    return Section(title, [Group("", tables), *groups_of(artifacts)], lead)


MAX_PAIRS, MAX_BARS = 4, 10
"""Limits of the first screen: pairs of pictures, and bars of subjects."""
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
"""Sentences on the selection of the epoch, by the word of a recipe."""
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
    """Summarise the results of a run in a sentence or two."""
    metrics = run.metrics
    if not metrics:
        return _summarise_parts(run)

    # the headlines, and the items, units, subjects and candidates that they rest on
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
        *(question["sentence"] for question in notes.get("questions", ())),
    ]
    lines = [f"Measured on {first.n:,} {first.split} items{context}", *filter(None, further)]
    return " ".join([f"{run.label}: {said}.", *(f"{line[0].upper()}{line[1:]}." for line in lines)])


def measured(metric: Metric) -> str:
    """Write a metric with its value, interval and chance."""
    interval = "" if metric.low is None else f"95 % interval {metric.interval_text()}"
    chance = "" if metric.chance is None else f"chance {brief(metric.chance)}"
    context = ", ".join(filter(None, [interval, chance]))
    name = stamp(shown(metric.name), metric.caveats)
    return f"{name} {number(metric.value)}" + (f" ({context})" if context else "")


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
        return f"{run.label}: {measured(first)}, on {first.split} items."

    # the range of the values
    values = [metric.value for metric in part_values.values()]
    spread = f"from {number(min(values))} to {number(max(values))}"
    kind = "variant" if run.variants else "cell"
    said = f"{run.label}: {len(part_values)} {kind}s; {shown(name)} on {first.split} items {spread}"

    # the best of them, if they can be compared
    comparable = {} if run.measured.notes.get("not_compared") else part_values
    best = choose_best({part: {name: m} for part, m in comparable.items()}, run.validation_of_variants)
    if labels := best.labels.get(name):
        named = " and ".join(f"“{label}” with {number(part_values[label].value)}" for label in labels)
        said += f"; {best.chosen}: {kind} {named}"
    return f"{said}."


def difference_sentences(group: RunGroup) -> list[str]:
    """Write a sentence on each of the first four differences."""
    said, caveats = [], merge_caveats(*(run.measured.caveats for run in group.runs))
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
        said.append(f"In {stamp(shown(pair.metric), caveats)} {claim} ({numbers}, n {pair.n:,}, paired).")
    return said


def warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all warnings that belong before the numbers, without repetition."""
    # explain the caveats of runs and metrics
    runs = [run for group in groups for run in group.runs]
    metric_caveats = [
        caveats_of(metrics.values()) for run in runs for metrics in run.measured.scopes.values()
    ]
    caveats = merge_caveats(*(run.measured.caveats for run in runs), *metric_caveats)
    lines = [stamp(MEANINGS[caveat], [caveat]) for caveat in caveats]

    # warn of results not above chance, of the run's own warnings, and of metrics that are missing
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
        lines += [f"Not measured in {run.label}: {shown(name)}: {reason}" for name, reason in missing]

    # name runs that were not compared, and limits of the tests
    lines += [f"Not compared: {reason}" for group in groups for reason in group.not_compared]
    limits = [note for group in groups for pair in group.compared for note in pair.notes]
    return list(dict.fromkeys([*lines, *(f"Of the tests: {note}." for note in limits)]))


def methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods from the notes of the runs."""
    # each run: metrics, items, protocol, set-up and tests
    runs, said = [run for group in groups for run in group.runs], []
    for run in runs:
        if not (metrics := run.typical_metrics):
            continue
        first = metrics[next(iter(run.headlines))]
        items = f"{first.n:,} {first.split} items"
        items += f" among {first.pool:,} candidates (chance {brief(first.chance or 0)})" if first.pool else ""
        items += f", seeds {', '.join(map(str, first.seeds))}" if first.seeds else ""
        interval = f" 95 % intervals: {first.interval}." if first.low is not None else ""
        names = ", ".join(map(shown, metrics))
        said.append(f"{names} ({run.command}): measured on {items}; protocol: {first.protocol}.{interval}")
        said += [*set_up_sentences(run.measured.notes.get(SET_UP, {})), *tests_of(run)]

    # the tests between runs
    tests = dict.fromkeys(pair.test for group in groups for pair in group.compared if pair.test)
    if tests:
        compared = (pair for group in groups for pair in group.compared)
        adjustments = dict.fromkeys(adjustment_text(pair.adjusted_over) for pair in compared)
        said.append(f"Runs were compared item by item ({'; '.join(tests)}); {'; '.join(adjustments)}.")

    # the software and the device
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
"""Phrases for the keys of a set-up, in a sentence about the brain model."""


def set_up_sentences(set_up: SetUp) -> list[str]:
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
    listed = f"; channels {' '.join(names)}" if isinstance(names, list) and len(names) > LISTED else ""
    signals = f"{people}: {', '.join(describe_signals(set_up))}; {prepared}{listed}."

    # the model, its training and the selection of its epoch
    model = f"Brain model {set_up['backbone.kind']}" if "backbone.kind" in set_up else "Brain model"
    facts = [words.format(say(key, set_up[key])) for key, words in FACTS.items() if key in set_up]
    selection = set_up.get("selection")
    unknown = "how its epoch was selected is not known"
    facts.append(KEPT.get(selection, f"kept epoch: {selection}") if selection else unknown)
    return [signals, f"{model}: {'; '.join(facts)}."]


def tests_of(run: ShownRun) -> list[str]:
    """Name the test behind each p of a single run."""
    notes, said = run.measured.notes, []
    # questions about the ranks, tested or visible without a test
    for answer in filter(None, [notes.get("above_chance"), *notes.get("questions", ())]):
        if answer["p"] is None:
            said.append(f"{answer['question'].capitalize()} was seen: {answer['test']}.")
        else:
            about = f" for {answer['scope']}" if answer["scope"] else ""
            wider = f"; {answer['wider']}" if answer["wider"] else ""
            tested = f"Whether ranks are above chance{about} ({answer['question']})"
            said.append(f"{tested} was tested by {answer['test']}{wider}.")

    # draws of a control, and permutations of profiles
    if notes.get("control"):
        said.append("The p of the control is the share of its draws that are at least as good.")
    if any(profile.get("p") is not None for profile in notes.get("profiles", [])):
        said.append("The p of profiles is by permutation of labels, corrected by the largest statistic.")
    return said
