"""The page of one or many runs, made of what they measured and show; it knows no command."""

import json
from collections.abc import Sequence

from brainhive_cli.core.caveats import (
    MIXED_WITH_BLURRY,
    NORMALISED_BY_TESTED,
    PRIOR_OF_OTHERS,
    SELECTED_ON_TEST,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    WHITENED_BY_TESTED,
    extend_title,
    merge_caveats,
)
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.set_up import LISTED, SET_UP, SetUp, describe_signals, say
from brainhive_cli.core.tables import brief, number
from brainhive_cli.measurement.comparison import is_difference
from brainhive_cli.measurement.metric_names import lower_is_better, shown
from brainhive_cli.reports.page import Group, Page, Section, Text, groups_of
from brainhive_cli.reports.runs_shown import Compared, RunGroup, ShownRun
from brainhive_cli.reports.tables import tables_of


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
    lead = [summary(run) for run in runs[:6]] + [
        line for group in groups for line in difference_sentences(group.compared)
    ]
    sections = [*first, *(_section(group) for group in groups), _methods(groups, commands), _recipes(runs)]
    caveats = merge_caveats(*(run.found.caveats for run in runs))
    return Page(extend_title(title or _title(runs), caveats), lead, warnings(groups), sections)


def _title(runs: Sequence[ShownRun]) -> str:
    commands = list(dict.fromkeys(run.command for run in runs))
    names = runs[0].folder.path.name if len(runs) == 1 else f"{len(runs)} runs"
    return f"{', '.join(commands)}: {names}"


def _section(group: RunGroup) -> Section:
    first = group.runs[0]
    is_alone = len(group.runs) == 1
    shown_of = [("" if is_alone else run.label, run.artifacts, run.folder.path) for run in group.runs]
    tables = Group("", tables_of(group))
    title = group.title or (
        f"{first.command}: {first.label}" if is_alone else f"{first.command}: {len(group.runs)} runs"
    )
    lead = [] if is_alone else [f"{run.label}: {run.folder.path.name}" for run in group.runs]
    return Section(title, [tables, *groups_of(shown_of)], lead)


def _methods(groups: Sequence[RunGroup], commands: Sequence[str]) -> Section:
    texts = [
        Text("For the methods of a paper", methods(groups), True),
        Text("How to cite (BibTeX)", CITATION),
    ]
    if commands:
        texts.insert(0, Text("Each step by hand", "\n".join(commands), True))
    return Section("Methods and citing", texts=texts)


def _recipes(runs: Sequence[ShownRun]) -> Section:
    texts = []
    for run in runs:
        texts.append(Text(f"Recipe of {run.command}: {run.label}", run.recipe_text))
        if run.environment:
            texts.append(
                Text(f"Environment of {run.command}: {run.label}", json.dumps(run.environment, indent=2))
            )
    return Section("Recipes and environments", texts=texts)


MEANINGS = {
    SIMULATED: "Simulated: a program made the signals; no brain was recorded.",
    TRAINED_ON_SIMULATED: "Trained on simulated signals: a program made what models learned from.",
    NORMALISED_BY_TESTED: "Transductive: signals were normalised by the left-out subject's own recordings.",
    WHITENED_BY_TESTED: "Transductive: noise of test trials had a part in the whitening of the signals.",
    UNKNOWN_PICTURES: "Pictures unknown: nothing says whether tested ones, or copies, were trained on.",
    UNKNOWN_SELECTION: "Nothing says how the epoch of a model was selected.",
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
        return _summary_of_parts(run)
    said = [measured(metrics[name]) for name in run.headlines]
    first = metrics[run.headlines[0]]
    verdict = run.found.notes.get("verdict", "")
    subjects = len({cell.subject for cell in run.cells if cell.subject})
    of_whom = f" of {subjects} subject{'s' if subjects > 1 else ''}" if subjects else ""
    among = f" among {first.pool:,} candidates" if first.pool else ""
    units = run.found.notes.get("unit_count", first.n)
    of_units = f" in {units} {run.found.notes['units']}" if units * max(1, subjects) < first.n else ""
    tail = f"; this is {verdict}" if verdict else ""
    return (
        f"{run.label}: {'; '.join(said)}. "
        f"Measured on {first.n:,} {first.split} items{of_units}{of_whom}{among}{tail}."
    )


def measured(metric: Metric) -> str:
    """Say a metric with what belongs to it."""
    interval = "" if metric.low is None else f"95 % interval {metric.interval_text()}"
    chance = "" if metric.chance is None else f"chance {brief(metric.chance)}"
    context = ", ".join(filter(None, [interval, chance]))
    return f"{shown(metric.name)} {number(metric.value)}" + (f" ({context})" if context else "")


def _summary_of_parts(run: ShownRun) -> str:
    """Say what was measured of each variant or cell, where nothing is pooled."""
    parts = run.variants or {cell.name: cell.metrics for cell in run.cells}
    kind = "variant" if run.variants else "cell"
    name = next(iter(run.headlines), None)
    if name is None:
        return f"{run.label}: no metric."
    values = {part: metrics[name].value for part, metrics in parts.items() if name in metrics}
    best = (min if lower_is_better(name) else max)(values, key=values.__getitem__)
    split = next(metrics[name].split for metrics in parts.values() if name in metrics)
    spread = f"from {number(min(values.values()))} to {number(max(values.values()))}"
    if len(values) == 1:
        return f"{run.label}: {measured(parts[best][name])}, on {split} items."
    of_best = "" if run.found.notes.get("not_compared") else f", the best in the {kind} “{best}”"
    return f"{run.label}: {len(values)} {kind}s; {shown(name)} on {split} items {spread}{of_best}."


def difference_sentences(compared: Sequence[Compared]) -> list[str]:
    """Say each difference in a sentence."""
    said = []
    for each in compared[:4]:
        is_more = (each.difference > 0) != lower_is_better(each.metric)
        is_shown = is_difference(each.p, each.low, each.high)
        how = ("better" if is_more else "worse") if is_shown else "not shown to differ"
        by = f"difference {each.difference:+.3f}"
        by += (
            ""
            if each.low is None or each.high is None
            else f", 95 % interval {each.low:+.3f} to {each.high:+.3f}"
        )
        p = "" if each.p is None else f", p {each.p:.2g}"
        than = f"than {each.second}" if is_shown else f"from {each.second}"
        said.append(f"In {shown(each.metric)} {each.first} is {how} {than} ({by}{p}, n {each.n:,}, paired).")
    return said


def warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all that must be known before a number is read, each once."""
    runs = [run for group in groups for run in group.runs]
    lines = [MEANINGS[caveat] for caveat in merge_caveats(*(run.found.caveats for run in runs))]
    for run in runs:
        metrics = [metric for some in run.found.scopes.values() for metric in some.values()]
        if any(metric.selected for metric in metrics):
            lines.append(MEANINGS[SELECTED_ON_TEST])
        verdict = run.found.notes.get("verdict", "above chance")
        if verdict != "above chance" and not run.found.notes.get("control"):
            lines.append(
                f"{run.label} is {verdict}: do signals and pictures belong together as they are filed?"
            )
        lines += [f"{run.label}: {line}" for line in run.found.notes.get("warnings", [])]
        lines += [
            f"Not measured in {run.label}: {shown(name)}: {way}" for name, way in run.found.missing.items()
        ]
    lines += [f"Not compared: {reason}" for group in groups for reason in group.not_compared]
    limits = [note for group in groups for each in group.compared for note in each.notes]
    return list(dict.fromkeys([*lines, *(f"Of the tests: {note}." for note in limits)]))


def methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods, of what the runs themselves say."""
    said = []
    for run in (run for group in groups for run in group.runs):
        metrics = run.metrics or next(iter(run.variants.values()), {})
        metrics = metrics or next((cell.metrics for cell in run.cells), {})
        if not metrics:
            continue
        first = metrics[next(iter(run.headlines))]
        seeds = f", seeds {', '.join(map(str, first.seeds))}" if first.seeds else ""
        pool = f" among {first.pool:,} candidates (chance {brief(first.chance or 0)})" if first.pool else ""
        interval = f" 95 % intervals: {first.interval}." if first.low is not None else ""
        what, on = ", ".join(map(shown, metrics)), f"{first.n:,} {first.split} items{pool}{seeds}"
        said.append(f"{what} ({run.command}): measured on {on}; protocol: {first.protocol}.{interval}")
        said += [*set_up_sentences(run.found.notes.get(SET_UP, {})), *tests_of(run)]
    tests = dict.fromkeys(each.test for group in groups for each in group.compared if each.test)
    if tests:
        said.append(
            f"Runs were compared item by item ({'; '.join(tests)}); p adjusted by Benjamini–Hochberg."
        )
    environments = [run.environment for group in groups for run in group.runs if run.environment]
    if environments:
        versions, device = environments[0].get("versions", {}), environments[0].get("device", "")
        named = ", ".join(f"{name} {versions[name]}" for name in ("brainhive", "torch") if name in versions)
        said.append(f"All was computed with {named}{f' on {device}' if device else ''}.")
    return " ".join(dict.fromkeys(said))


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
    said = [f"{whose}: {', '.join(describe_signals(set_up))}; {prepared}{listed}."]
    model = f"Brain model {set_up['backbone.kind']}" if "backbone.kind" in set_up else "Brain model"
    facts = [f"embeddings of {say('encoders', set_up['encoders'])}"] if "encoders" in set_up else []
    facts += [f"mode {set_up['mode']}"] if "mode" in set_up else []
    for key, words in (
        ("trained_on_dataset", "trained on {}"),
        ("epochs", "{} epochs"),
        ("train.batch_size", "batches of {}"),
        ("train.lr", "learning rate {}"),
        ("signal.repetitions", "training repetitions: {}"),
        ("reconstruct.generator.kind", "generator {}"),
    ):
        facts += [words.format(say(key, set_up[key]))] if key in set_up else []
    selection = set_up.get("selection")
    not_known = "how its epoch was selected is not known"
    kept = KEPT.get(selection, f"kept epoch: {selection}") if selection else not_known
    return [*said, f"{model}: {'; '.join([*facts, kept])}."]


def tests_of(run: ShownRun) -> list[str]:
    """Name the test behind each p of a run that is no comparison with others."""
    notes, said = run.found.notes, []
    if test := notes.get("above_chance"):
        said.append(f"Whether ranks are above chance was tested by {test['test']}.")
    if notes.get("control"):
        said.append("The p of the control is the share of its draws that are at least as good.")
    if any(profile.get("p") is not None for profile in notes.get("profiles", [])):
        said.append("The p of profiles is by permutation of labels, corrected by the largest statistic.")
    return said
