"""The paragraph for the methods of a paper, and the papers behind it, by the set-ups of runs."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from brainhive_cli.core.set_up import CITES, SetUp, say
from brainhive_cli.reports.runs_shown import RunGroup
from brainhive_cli.reports.tables import adjustment_text
from brainhive_cli.reports.templates import templates

ENTRY = re.compile(r"^@\w+\{(.+),\n(?:  .+\n)+\}$", re.M)
REFERENCES = {
    entry[1]: entry[0]
    for entry in ENTRY.finditer(Path(__file__).with_name("references.bib").read_text(encoding="utf-8"))
}
"""BibTeX entries of the papers behind parts and data sets, and of this software, by their keys."""
ORDER = ("dataset", "signals", "model", "prior", "generator", "encoders")
"""Sections of the papers of a set-up, in the order in which they are listed."""
SOFTWARE = "brainhive"


def describe_methods(groups: Sequence[RunGroup]) -> str:
    """Write a paragraph for a paper's methods from what the parts that ran have read; each sentence once."""
    # template values: runs, tests and adjustments, each once
    runs = [run for group in groups for run in group.runs]
    compared = [pair for group in groups for pair in group.compared if pair.test]
    facts = [run.measured.facts for run in runs]
    text = (
        templates()
        .get_template("methods.txt")
        .render(
            runs=runs,
            modalities={one.set_up.get("dataset"): one.modality for one in facts if one.modality},
            tests=dict.fromkeys(pair.test for pair in compared),
            adjustments=dict.fromkeys(adjustment_text(pair) for pair in compared),
            environment=next((run.environment for run in runs if run.environment), {}),
            papers=name_papers,
            say=say,
        )
    )
    # sentences stand on lines, of which equal ones of several runs are one
    return " ".join(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))


def list_citations(groups: Sequence[RunGroup]) -> str:
    """List the BibTeX entries of all that ran: data sets, methods, encoders, this software."""
    return list_entries(run.measured.facts.set_up for group in groups for run in group.runs)


def list_entries(set_ups: Iterable[SetUp]) -> str:
    """List the BibTeX entries behind set-ups, and that of this software."""
    # papers in the order of sections, then the software
    cited = [*set_ups]
    keys = [key for part in ORDER for set_up in cited for key in set_up.get(f"{CITES}.{part}", ())]
    return "\n".join(REFERENCES[key] for key in dict.fromkeys([*keys, SOFTWARE]) if key in REFERENCES)


def name_papers(keys: Iterable[str] = ()) -> str:
    """Name papers by authors and year, in parentheses behind a blank; empty without any."""
    # keys without an entry have no name to be shown
    papers = [name_paper(REFERENCES[key]) for key in keys if key in REFERENCES]
    return f" ({'; '.join(papers)})" if papers else ""


def name_paper(entry: str) -> str:
    """Name a paper, as `Haxby et al. 2001`; one without known authors by its title."""
    # fields of the entry, and family names of its authors
    fields = dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", entry, re.M))
    first, *rest = fields.get("author", fields["title"].partition(":")[0]).split(" and ")
    names = [first.strip("{}").partition(", ")[0]] + [name.partition(",")[0] for name in rest]
    # three authors and more are abbreviated, as journals do
    authors = " and ".join(names) if len(names) < 3 and "others" not in names else f"{names[0]} et al."
    return f"{authors} {fields['year']}"
