"""Sentences of results, rendered from templates: findings, differences, warnings,
titles, methods, papers.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.core.errors import Line
from brainhive_cli.core.facts import (
    CITES,
    RIDGE_RECIPE,
    RetrievalFacts,
    SetUp,
    format_setting,
)
from brainhive_cli.core.measurements import (
    Measurements,
    caveats_of,
    mark,
    merge_caveats,
    shown,
)
from brainhive_cli.reports.runs_shown import (
    RunGroup,
    choose_headline,
    list_part_metrics,
)
from brainhive_cli.reports.tables import (
    adjustment_text,
    choose_best_part,
    render,
    templates,
)

HERE = Path(__file__).parent
MEANINGS = documents.read(HERE / "caveats.json", dict[str, str])
"""Meaning of each caveat of a run."""
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")
"""Folders of an absolute path: of this machine, which no reader of a page has."""
ENTRY = re.compile(r"^@\w+\{(.+),\n(?:  .+\n)+\}$", re.M)
REFERENCES = {
    entry[1]: entry[0]
    for entry in ENTRY.finditer((HERE / "references.bib").read_text(encoding="utf-8"))
}
"""BibTeX entries of the papers behind parts and data sets, and of this software, by
their keys.
"""
ORDER = ("dataset", "signals", "model", "prior", "generator", "encoders")
"""Sections of the papers of a set-up, in the order in which they are listed."""
SOFTWARE = "brainhive"


def state_finding(measured: Measurements) -> str:
    """State the result of a run in a sentence or two; empty where it has nothing to
    say.
    """
    # metrics of everything together; where nothing is pooled, those of the variants or
    # cells
    facts = measured.facts
    parts = list_part_metrics(measured)
    metrics = measured.overall or (
        next(iter(parts.values())) if len(parts) == 1 else {}
    )
    name = choose_headline(next(iter(parts.values()), {}))
    values = [metrics[name].value for metrics in parts.values() if name in metrics]
    best, chosen = choose_best_part(facts, parts)
    return render(
        "finding.txt",
        facts=facts,
        metrics=metrics,
        scopes=measured.scopes,
        main=choose_headline(metrics),
        parts=parts if values and not metrics else {},
        best=best,
        chosen=chosen,
        name=name,
        low=min(values, default=0.0),
        high=max(values, default=0.0),
    )


def describe_differences(group: RunGroup) -> list[str]:
    """Write a sentence on each of the first four differences."""
    # few enough for the lead of a page; the table of differences has all
    metrics = {run.label: run.metrics for run in group.runs}
    return [
        render("difference.txt", row=row, metrics=metrics) for row in group.compared[:4]
    ]


def name_page(groups: Sequence[RunGroup]) -> str:
    """Call a page by the question that its runs answer, and by data set and systems
    where these are known.
    """
    runs = [run for group in groups for run in group.runs]
    set_ups = [run.measured.facts.set_up for run in runs]
    return render("title.txt", runs=runs, first=runs[0].measured.facts, set_ups=set_ups)


def list_warnings(groups: Sequence[RunGroup]) -> list[str]:
    """List all that a reader must know before a number; caveats have their
    footnote signs.
    """
    # caveats, why a result is not above chance, the runs' own warnings
    runs = [run for group in groups for run in group.runs]
    lines = explain_caveats(*(run.measured for run in runs))
    for run in runs:
        prefix = f"{run.label}: " if len(runs) > 1 else ""
        explained = explain_chance(run.measured, run.folder.path / RIDGE_RECIPE)
        warnings = [explained, *list_limits(run.measured)]
        lines += [f"{prefix}{line}" for line in warnings if line]

    # what was not compared, and limits of the tests
    lines += [
        f"Not compared: {reason}" for group in groups for reason in group.not_compared
    ]
    limits = [
        limit for group in groups for row in group.compared for limit in row.limits
    ]
    return list(
        dict.fromkeys([*lines, *(f"Of the tests: {limit}." for limit in limits)])
    )


def explain_caveats(*measured: Measurements) -> list[str]:
    """Explain the caveats of what was measured, each behind its footnote sign."""
    # caveats of runs, then of their metrics, each once
    listed = merge_caveats(
        *(each.caveats for each in measured),
        *(
            caveats_of(metrics.values())
            for each in measured
            for metrics in each.scopes.values()
        ),
    )
    return [f"{mark('', [caveat])} {MEANINGS[caveat]}" for caveat in listed]


def explain_chance(measured: Measurements, recipe: Path) -> str:
    """Explain a result that is not above chance, or worse than the ridge next to it;
    empty of any other.

    Args:
        measured: Of a run.
        recipe: That of train-align which fits the ridge, in the folder of the run.
    """
    if measured.facts.command != RetrievalFacts.model_fields["command"].default:
        return ""
    facts = measured.facts_of(RetrievalFacts)
    return render(
        "chance.txt",
        facts=facts,
        facts_top1=measured.overall.get("top1"),
        ridge=measured.scopes.get("plain · ridge", {}).get("top1"),
        is_worse=any(
            row.second == "ridge" and row.is_significant and not row.is_better
            for row in facts.plain
        ),
        line=Line("train-align", ("recipe", recipe)) if recipe.is_file() else "",
    )


def list_limits(measured: Measurements) -> list[str]:
    """List what limits the test of a run: of a retrieval one paragraph, then the run's
    own warnings.
    """
    # the paragraph is empty for runs that are no retrieval
    text = render("warnings.txt", facts=measured.facts, metrics=measured.overall)
    return [*filter(None, [text]), *measured.facts.warnings]


def list_missing(groups: Sequence[RunGroup]) -> list[str]:
    """List the metrics that runs did not measure, with reasons that name files without
    their folders.
    """
    # a metric may be missing in several runs for one reason
    lines = [
        f"{run.label}: {shown(name)}: {FOLDERS.sub('', why)}"
        for group in groups
        for run in group.runs
        for name, why in run.measured.missing.items()
    ]
    return list(dict.fromkeys(lines))


def describe_methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods from what the parts that ran have read;
    each sentence once.
    """
    # template values: runs, tests and adjustments, each once
    runs = [run for group in groups for run in group.runs]
    compared = [pair for group in groups for pair in group.compared if pair.test]
    facts = [run.measured.facts for run in runs]
    text = (
        templates()
        .get_template("methods.txt")
        .render(
            runs=runs,
            modalities={
                one.set_up.get("dataset"): one.modality for one in facts if one.modality
            },
            tests=dict.fromkeys(pair.test for pair in compared),
            adjustments=dict.fromkeys(adjustment_text([pair]) for pair in compared),
            environment=next((run.environment for run in runs if run.environment), {}),
            papers=name_papers,
            say=format_setting,
        )
    )
    # sentences stand on lines, of which equal ones of several runs are one
    return " ".join(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))


def list_citations(groups: Sequence[RunGroup]) -> str:
    """List the BibTeX entries of all that ran: data sets, methods, encoders, this
    software.
    """
    return list_entries(
        run.measured.facts.set_up for group in groups for run in group.runs
    )


def list_entries(set_ups: Iterable[SetUp]) -> str:
    """List the BibTeX entries behind set-ups, and that of this software."""
    # papers in the order of sections, then the software
    cited = [*set_ups]
    keys = [
        key
        for part in ORDER
        for set_up in cited
        for key in set_up.get(f"{CITES}.{part}", ())
    ]
    return "\n".join(
        REFERENCES[key] for key in dict.fromkeys([*keys, SOFTWARE]) if key in REFERENCES
    )


def name_papers(keys: Iterable[str] = ()) -> str:
    """Name papers by authors and year, in parentheses behind a blank; empty without
    any.
    """
    # keys without an entry have no name to be shown
    papers = [name_paper(REFERENCES[key]) for key in keys if key in REFERENCES]
    return f" ({'; '.join(papers)})" if papers else ""


def name_paper(entry: str) -> str:
    """Name a paper, as `Haxby et al. 2001`; one without known authors by its title."""
    # fields of the entry, and family names of its authors
    fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.M))
    first, *rest = fields.get("author", fields["title"].partition(":")[0]).split(
        " and "
    )
    names = [first.strip("{}").partition(", ")[0]] + [
        name.partition(",")[0] for name in rest
    ]
    # three authors and more are abbreviated, as journals do
    authors = (
        " and ".join(names)
        if len(names) < 3 and "others" not in names
        else f"{names[0]} et al."
    )
    return f"{authors} {fields['year']}"
