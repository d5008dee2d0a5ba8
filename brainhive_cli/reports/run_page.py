"""The page of one or many runs, made of what they measured and show; it knows no command."""

import json
from collections.abc import Sequence

from brainhive_cli.core.caveats import extend_title, merge_caveats
from brainhive_cli.reports.page import Group, Page, Section, Text, groups_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.sentences import CITATION, differences, methods, summary, warnings
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
        line for group in groups for line in differences(group.compared)
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
