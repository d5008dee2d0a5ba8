"""Sentences of a report: findings, differences, warnings, methods and citations."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from brainhive_cli.core.base import Line
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import (
    CITES,
    SIGNIFICANCE_LEVEL,
    Measurements,
    SetUp,
    format_setting,
    list_metric_caveats,
    mark,
    merge_caveats,
    metric_title,
)
from brainhive_cli.core.runs import METRICS_FILE, RunFolder
from brainhive_cli.reports.tables import (
    RunGroup,
    ShownRun,
    choose_best_part,
    choose_headline,
    describe_adjustment,
    list_headline_values,
    list_part_rows,
    list_runs,
)
from brainhive_cli.reports.templates import render, templates

HERE = Path(__file__).parent
MEANINGS = documents.read(HERE / "caveats.json", dict[str, str])
"""Sentence that explains each caveat."""
ENTRY = re.compile(r"^@\w+\{(.+),\n(?:  .+\n)+\}$", re.M)
BIBTEX = (HERE.parent / "references.bib").read_text(encoding="utf-8")
REFERENCES = {match[1]: match[0] for match in ENTRY.finditer(BIBTEX)}
"""BibTeX entries by their keys."""
RIDGE_RECIPE = "ridge.yaml"
"""File with the recipe of the baseline ridge, in the folder of an evaluation."""


def state_finding(measurements: Measurements) -> str:
    """State the main result of a run in a few sentences.

    - Run with pooled metrics, or with a single part: these metrics.
    - Other run: the range of the most important metric over its parts. A part is a
      compared run or a cell (trained model of a subject and a seed).

    Args:
        measurements: Metrics of the run, and facts about the run.

    Returns:
        The sentences. Empty if the run has no metric to report.
    """
    facts = measurements.facts
    parts = list_part_rows(measurements)
    metrics = measurements.overall
    if not metrics and len(parts) == 1:
        metrics = parts[0].metrics

    range_metric, values = list_headline_values(parts)
    has_range = bool(values) and not metrics
    return render(
        "finding.txt",
        facts=facts,
        metrics=metrics,
        headline=choose_headline(metrics),
        scopes=measurements.scopes,
        parts={part.label: part.metrics for part in parts} if has_range else {},
        best=choose_best_part(measurements),
        range_metric=range_metric,
        low=min(values, default=0.0),
        high=max(values, default=0.0),
    )


def describe_differences(group: RunGroup) -> list[str]:
    """Write a sentence on each difference, at most 4."""
    sentences = []
    metrics = {shown_run.label: shown_run.metrics for shown_run in group.runs}
    # Largest number of differences in the first sentences of a page.
    for difference in group.differences[:4]:
        sentence = render("difference.txt", difference=difference, metrics=metrics)
        sentences.append(sentence)
    return sentences


def name_page(groups: Sequence[RunGroup]) -> str:
    """Write the title of a page: the data set and the question of its runs."""
    runs = list_runs(groups)
    return render(
        "title.txt",
        runs=runs,
        first=runs[0].measurements.facts,
        set_ups=_list_set_ups(runs),
    )


def _list_set_ups(runs: Sequence[ShownRun]) -> list[SetUp]:
    """List the set-ups, which are settings by name, of some runs."""
    return [shown_run.measurements.facts.set_up for shown_run in runs]


def list_warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List the warnings that a reader of a page needs before any number.

    Args:
        groups: The runs of the page, with the differences between them.

    Returns:
        Sentences without repetitions: explanations of caveats (such as `simulated`),
        warnings of runs, refused comparisons and limits of the tests.
    """
    runs = list_runs(groups)
    run_measurements = []
    lines = []
    for shown_run in runs:
        measurements = shown_run.measurements
        run_measurements.append(measurements)
        recipe = shown_run.folder.path / RIDGE_RECIPE
        prefix = f"{shown_run.label}: " if len(runs) > 1 else ""
        for line in [explain_chance(measurements, recipe)] + list_limits(measurements):
            if line:
                lines.append(f"{prefix}{line}")

    test_lines = []
    for group in groups:
        for reason in group.refusals:
            lines.append(f"Not compared: {reason}")
        for difference in group.differences:
            for limit in difference.limits:
                test_lines.append(f"About the tests: {limit}.")

    test_lines += map(count_evaluations, runs)
    warnings = explain_caveats(*run_measurements) + lines
    warnings += filter(None, test_lines)
    return list(dict.fromkeys(warnings))


def explain_caveats(*measurements: Measurements) -> list[str]:
    """Explain the caveats of runs, such as `simulated`, each once with its sign."""
    caveats: list[str] = []
    stimuli = set[str]()
    # Plural of each kind of stimuli.
    plurals = {"picture": "pictures", "clip": "clips", "category": "categories"}
    for run_measurements in measurements:
        stimuli.add(plurals.get(run_measurements.facts.stimulus, "stimuli"))
        caveats += run_measurements.caveats
        for metrics in run_measurements.scopes.values():
            caveats += list_metric_caveats(metrics.values())
    noun = stimuli.pop() if len(stimuli) == 1 else "stimuli"
    lines = []
    for caveat in merge_caveats(caveats):
        meaning = MEANINGS[caveat].replace("the same stimuli", f"the same {noun}")
        lines.append(f"{mark('', [caveat])} {meaning}")
    return lines


def explain_chance(measurements: Measurements, recipe: Path) -> str:
    """Explain a retrieval that is not above chance, or worse than a ridge regression.

    Args:
        measurements: Metrics of a run, and facts about the run.
        recipe: File with the settings of a ridge regression on the same signals. It
            need not exist.

    Returns:
        The sentences. Empty for any other result, and for runs of other commands.
    """
    facts = measurements.facts
    if not facts.hit_metric:
        return ""
    has_recipe = recipe.is_file()
    return render(
        "chance.txt",
        facts=facts,
        hits=measurements.overall.get(facts.hit_metric),
        ridge_hits=measurements.scopes.get("plain · ridge", {}).get(facts.hit_metric),
        command_line=Line("train-align", ("recipe", recipe)) if has_recipe else "",
    )


def count_evaluations(shown_run: ShownRun) -> str:
    """State how many evaluations in the folder of runs have tested the same signals.

    Returns:
        The sentence. Empty for a single evaluation, a control, or another command.
    """
    tested = list_tested_signals(shown_run.folder)
    count = 0
    for path in shown_run.folder.path.parent.glob(f"*/{METRICS_FILE}"):
        count += bool(tested & list_tested_signals(RunFolder(path.parent)))
    if count < 2:
        return ""
    return (
        f"About the tests: this is one of {count} evaluations of this test set in this "
        "folder of runs, and p is not adjusted for them. The best of them counts from "
        f"p ≤ {SIGNIFICANCE_LEVEL / count:.2g} (Bonferroni)."
    )


def list_tested_signals(run: RunFolder) -> set[tuple[str, ...]]:
    """List the split, data set and subject of the signals that an evaluation tests."""
    # the text is searched, because a parser is too slow for hundreds of recipes
    recipe = run.read_text("recipe.yaml")
    gallery = re.search(r"^gallery: (?:.*\+)?(.+)$", recipe, re.M)
    if not gallery or "\ncontrol: none\n" not in recipe:
        return set()
    signals = re.findall(r"^  signals ([^/]+)/.*/([^/:]+):", recipe, re.M)
    return {(gallery[1], dataset, subject) for dataset, subject in signals}


def list_limits(measurements: Measurements) -> list[str]:
    """List the limits of a retrieval result, and the warnings of the run."""
    paragraph = render(
        "warnings.txt", facts=measurements.facts, metrics=measurements.overall
    )
    limits = [paragraph] if paragraph else []
    return limits + list(measurements.facts.warnings)


def list_missing(groups: Sequence[RunGroup]) -> list[str]:
    """List the metrics that runs did not measure, as lines `RUN: METRIC: REASON`."""
    lines = []
    for shown_run in list_runs(groups):
        for name, reason in shown_run.measurements.missing.items():
            # Folders at the beginning of an absolute path, useless on another machine.
            text = re.sub(r"(?<![\w.:/])/(?:[^\s/]+/)+", "", reason)
            lines.append(f"{shown_run.label}: {metric_title(name)}: {text}")
    return list(dict.fromkeys(lines))


def describe_methods(groups: Sequence[RunGroup]) -> str:
    """Write a methods paragraph for a paper, with each sentence once.

    Args:
        groups: The runs of the paper, with the differences between them.
    """
    tests = []
    adjustments = []
    for group in groups:
        for pair in group.differences:
            if pair.test:
                tests.append(pair.test)
                adjustments.append(describe_adjustment([pair]))

    # collect the modality of each data set, and the software of each run
    runs = list_runs(groups)
    modalities = {}
    environments = []
    for shown_run in runs:
        facts = shown_run.measurements.facts
        if facts.modality:
            modalities[facts.set_up.get("dataset")] = facts.modality
        if shown_run.environment:
            environments.append(shown_run.environment)

    # a line of the rendered template is a sentence
    text = (
        templates()
        .get_template("methods.txt")
        .render(
            runs=runs,
            modalities=modalities,
            tests=dict.fromkeys(tests),
            adjustments=dict.fromkeys(adjustments),
            environment=environments[0] if environments else {},
            papers=name_papers,
            format_setting=format_setting,
        )
    )
    lines = map(str.strip, text.splitlines())
    return " ".join(dict.fromkeys(filter(None, lines)))


def list_citations(groups: Sequence[RunGroup]) -> str:
    """List the BibTeX entries behind some runs, and the entry of this software."""
    return list_entries(_list_set_ups(list_runs(groups)))


def list_entries(set_ups: Iterable[SetUp]) -> str:
    """List the BibTeX entries behind some set-ups, and the entry of this software.

    Args:
        set_ups: Settings by name. The setting `cites.model` lists the keys of the
            entries behind the model.
    """
    set_ups = list(set_ups)
    keys: list[str] = []
    # Sections of a set-up that cite papers, in the order of the citations.
    cited_sections = ("dataset", "signals", "model", "prior", "generator", "encoders")
    for section in cited_sections:
        for set_up in set_ups:
            keys += set_up.get(f"{CITES}.{section}", ())
    keys.append("brainhive")
    entries = map(REFERENCES.get, dict.fromkeys(keys))
    return "\n".join(filter(None, entries))


def name_papers(keys: Iterable[str] = ()) -> str:
    """Name papers by authors and year, in parentheses after a space.

    Args:
        keys: Keys of BibTeX entries. Keys without an entry are left out.

    Returns:
        Text such as ` (Haxby et al. 2001)`. Empty without papers.
    """
    entries = filter(None, map(REFERENCES.get, keys))
    papers = "; ".join(map(name_paper, entries))
    return f" ({papers})" if papers else ""


def name_paper(entry: str) -> str:
    """Name a paper by authors and year, such as `Haxby et al. 2001`.

    Args:
        entry: BibTeX entry. Without authors, the title up to a colon stands for them.
    """
    fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.M))
    title = fields["title"].partition(":")[0]
    authors = fields.get("author", title).split(" and ")
    family_names = [author.partition(",")[0] for author in authors]
    family_names[0] = authors[0].strip("{}").partition(", ")[0]
    text = " and ".join(family_names)
    if len(family_names) > 2 or "others" in family_names:
        text = f"{family_names[0]} et al."
    return f"{text} {fields['year']}"
