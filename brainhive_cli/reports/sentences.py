"""Sentences of a report: findings, differences, warnings, methods and citations."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.core.errors import Line
from brainhive_cli.core.facts import (
    CITES,
    RIDGE_RECIPE,
    Difference,
    RetrievalFacts,
    SetUp,
    format_setting,
)
from brainhive_cli.core.measurements import (
    Measurements,
    list_metric_caveats,
    mark,
    merge_caveats,
    metric_title,
)
from brainhive_cli.reports.runs_shown import (
    RunGroup,
    ShownRun,
    choose_headline,
    list_part_metrics,
)
from brainhive_cli.reports.tables import (
    choose_best_part,
    describe_adjustment,
    render,
    templates,
)

HERE = Path(__file__).parent
MEANINGS = documents.read(HERE / "caveats.json", dict[str, str])
"""Sentence that explains each caveat."""
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")
"""Folders of an absolute path. They are cut, because readers of a page use another
machine.
"""
ENTRY = re.compile(r"^@\w+\{(.+),\n(?:  .+\n)+\}$", re.M)
REFERENCES = {
    match[1]: match[0]
    for match in ENTRY.finditer((HERE / "references.bib").read_text(encoding="utf-8"))
}
"""BibTeX entry of each paper (behind parts, data sets and this software) by its key."""
CITED_SECTIONS = ("dataset", "signals", "model", "prior", "generator", "encoders")
"""Sections of a set-up that cite papers, in the order of the citations."""
SOFTWARE_KEY = "brainhive"
MAX_DIFFERENCES = 4
"""Largest number of differences in the first sentences of a page. The table of
differences has all.
"""


def _list_runs(groups: Sequence[RunGroup]) -> list[ShownRun]:
    """List the runs of all groups."""
    return list(chain.from_iterable(group.runs for group in groups))


def state_finding(measurements: Measurements) -> str:
    """State the result of a run in one or two sentences.

    Returns:
        The sentences. Empty if the run has no metric to report.
    """
    # take the pooled metrics, or the metrics of the only variant or cell
    facts = measurements.facts
    part_metrics = list_part_metrics(measurements)
    metrics = measurements.overall
    if not metrics and len(part_metrics) == 1:
        (metrics,) = part_metrics.values()

    # without pooled metrics, take the range of a metric over variants or cells
    range_metric = choose_headline(next(iter(part_metrics.values()), {}))
    values = []
    for metrics_of_part in part_metrics.values():
        if range_metric in metrics_of_part:
            values.append(metrics_of_part[range_metric].value)
    has_range = bool(values) and not metrics
    return render(
        "finding.txt",
        facts=facts,
        metrics=metrics,
        headline=choose_headline(metrics),
        scopes=measurements.scopes,
        parts=part_metrics if has_range else {},
        best=choose_best_part(facts, part_metrics),
        range_metric=range_metric,
        low=min(values, default=0.0),
        high=max(values, default=0.0),
    )


def describe_differences(group: RunGroup) -> list[str]:
    """Write a sentence on each difference, at most `MAX_DIFFERENCES`."""
    metrics = {shown_run.label: shown_run.metrics for shown_run in group.runs}
    return [
        render("difference.txt", difference=difference, metrics=metrics)
        for difference in group.differences[:MAX_DIFFERENCES]
    ]


def name_page(groups: Sequence[RunGroup]) -> str:
    """Write the title of a page: the data set, and the question that its runs answer.

    Args:
        groups: The runs of the page.
    """
    runs = _list_runs(groups)
    set_ups = [shown_run.measurements.facts.set_up for shown_run in runs]
    return render(
        "title.txt", runs=runs, first=runs[0].measurements.facts, set_ups=set_ups
    )


def list_warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List the sentences that a reader needs before any number, each once.

    Args:
        groups: The runs of the page.
    """
    # explain the caveats, each with its footnote sign
    runs = _list_runs(groups)
    lines = explain_caveats(*(shown_run.measurements for shown_run in runs))

    # explain results at chance, and add the warnings of each run
    for shown_run in runs:
        prefix = f"{shown_run.label}: " if len(runs) > 1 else ""
        chance_line = explain_chance(
            shown_run.measurements, shown_run.folder.path / RIDGE_RECIPE
        )
        for line in (chance_line, *list_limits(shown_run.measurements)):
            if line:
                lines.append(f"{prefix}{line}")

    # add refused comparisons, and limits of the tests
    for group in groups:
        lines += [f"Not compared: {reason}" for reason in group.refusals]
    for group in groups:
        for difference in group.differences:
            lines += [f"About the tests: {limit}." for limit in difference.limits]
    return list(dict.fromkeys(lines))


def explain_caveats(*measurements: Measurements) -> list[str]:
    """Explain the caveats of runs and of their metrics, each once with its sign."""
    caveats = [run_measurements.caveats for run_measurements in measurements]
    for run_measurements in measurements:
        for metrics in run_measurements.scopes.values():
            caveats.append(list_metric_caveats(metrics.values()))
    return [
        f"{mark('', [caveat])} {MEANINGS[caveat]}" for caveat in merge_caveats(*caveats)
    ]


def explain_chance(measurements: Measurements, recipe: Path) -> str:
    """Explain a retrieval result that is not above chance, or worse than ridge.

    Args:
        measurements: Measurements of a run.
        recipe: Recipe of train-align that fits the ridge, in the folder of the run. The
            file may be absent.

    Returns:
        The sentences. Empty for any other result.
    """
    if measurements.facts.command != RetrievalFacts.model_fields["command"].default:
        return ""
    facts = measurements.require_facts(RetrievalFacts)
    is_worse_than_ridge = any(
        difference.second == "ridge"
        and difference.is_significant
        and not difference.is_better
        for difference in facts.plain
    )
    return render(
        "chance.txt",
        facts=facts,
        top1=measurements.overall.get("top1"),
        ridge_top1=measurements.scopes.get("plain · ridge", {}).get("top1"),
        is_worse_than_ridge=is_worse_than_ridge,
        command_line=Line("train-align", ("recipe", recipe))
        if recipe.is_file()
        else "",
    )


def list_limits(measurements: Measurements) -> list[str]:
    """List the limits of a retrieval result, and the warnings of the run."""
    paragraph = render(
        "warnings.txt", facts=measurements.facts, metrics=measurements.overall
    )
    limits = [paragraph] if paragraph else []
    return limits + list(measurements.facts.warnings)


def list_missing(groups: Sequence[RunGroup]) -> list[str]:
    """List the metrics that runs did not measure, with the reasons.

    Several metrics of a run may have the same reason.

    Args:
        groups: The runs of the page.
    """
    lines = []
    for group in groups:
        for shown_run in group.runs:
            for name, reason in shown_run.measurements.missing.items():
                text = FOLDERS.sub("", reason)
                lines.append(f"{shown_run.label}: {metric_title(name)}: {text}")
    return list(dict.fromkeys(lines))


def describe_methods(groups: Sequence[RunGroup]) -> str:
    """Write a methods paragraph for a paper from the set-ups of some runs.

    A sentence that is the same for several runs is written once.
    """
    # collect the values of the template
    runs = _list_runs(groups)
    compared: list[Difference] = []
    for group in groups:
        compared += [pair for pair in group.differences if pair.test]
    modalities = {}
    for shown_run in runs:
        facts = shown_run.measurements.facts
        if facts.modality:
            modalities[facts.set_up.get("dataset")] = facts.modality
    environments = [
        shown_run.environment for shown_run in runs if shown_run.environment
    ]

    # a line of the rendered template is a sentence
    text = (
        templates()
        .get_template("methods.txt")
        .render(
            runs=runs,
            modalities=modalities,
            tests=dict.fromkeys(pair.test for pair in compared),
            adjustments=dict.fromkeys(describe_adjustment([pair]) for pair in compared),
            environment=environments[0] if environments else {},
            papers=name_papers,
            format_setting=format_setting,
        )
    )
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(dict.fromkeys(filter(None, lines)))


def list_citations(groups: Sequence[RunGroup]) -> str:
    """List the BibTeX entries behind some runs, and the entry of this software."""
    return list_entries(
        shown_run.measurements.facts.set_up for shown_run in _list_runs(groups)
    )


def list_entries(set_ups: Iterable[SetUp]) -> str:
    """List the BibTeX entries behind some set-ups, and the entry of this software."""
    set_ups = list(set_ups)
    keys: list[str] = []
    for section in CITED_SECTIONS:
        for set_up in set_ups:
            keys += set_up.get(f"{CITES}.{section}", ())
    keys.append(SOFTWARE_KEY)
    return "\n".join(
        REFERENCES[key] for key in dict.fromkeys(keys) if key in REFERENCES
    )


def name_papers(keys: Iterable[str] = ()) -> str:
    """Name papers by authors and year, in parentheses after a space.

    Args:
        keys: Keys of BibTeX entries. Keys without an entry are left out.

    Returns:
        Text such as ` (Haxby et al. 2001)`. Empty without papers.
    """
    papers = [name_paper(REFERENCES[key]) for key in keys if key in REFERENCES]
    return f" ({'; '.join(papers)})" if papers else ""


def name_paper(entry: str) -> str:
    """Name a paper by authors and year, such as `Haxby et al. 2001`.

    A paper without authors is named by the beginning of its title.

    Args:
        entry: BibTeX entry of the paper.
    """
    # read the family names of the authors
    fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.M))
    title = fields["title"].partition(":")[0]
    authors = fields.get("author", title).split(" and ")
    names = [author.partition(",")[0] for author in authors]
    names[0] = authors[0].strip("{}").partition(", ")[0]

    # abbreviate three authors and more, as journals do
    text = " and ".join(names)
    if len(names) > 2 or "others" in names:
        text = f"{names[0]} et al."
    return f"{text} {fields['year']}"
