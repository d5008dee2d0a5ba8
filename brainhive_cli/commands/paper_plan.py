"""What it takes to repeat a paper: its data, weights, disk, time and memory, and the lines to its number."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from brainhive_cli.commands import workflow
from brainhive_cli.core import console, documents
from brainhive_cli.core.recipe import find_recipe, parse_value, read_recipe
from brainhive_cli.core.results import Need, Plan, read_paces, write_duration
from brainhive_cli.core.set_up import flatten
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange.downloads import SOURCES

NAMED = 4
"""Weights and files that are named; the others are counted."""
MEMORY = "memory, estimated"
"""Item of plans."""
PROTOCOL = {"mode": "{}", "subjects": "{} subjects", "pool": "{} candidates", "repetitions": "{} averaged"}
"""Keys of published retrieval that say what a score is comparable with, in words."""


class Weights(NamedTuple):
    """Published weights.

    Attributes:
        licence: As their publisher names it.
        gb: Size in 10^9 bytes; None where it is not known.
    """

    licence: str
    gb: float | None = None


@cache
def published_weights() -> dict[str, Weights]:
    """Read sizes and licences of published weights, by the names of needs."""
    path = Path(__file__).parents[1] / "models" / "published_weights.yaml"
    known = documents.read(path, dict[str, dict[str, Any]])
    return {name: Weights(**fields) for name, fields in known.items()}


def plan_paper(name: str, recipe: Any) -> Table:
    """Say what it takes to repeat a paper with what is here; nothing is fetched, and no network is needed.

    Args:
        name: A shipped recipe below papers/.
        recipe: A recipe of its that the user has, for paths and device.

    Returns:
        Rows of item and value, as far as each is known.
    """
    # plan every step from the recordings to the number
    steps = workflow.Recipe.resolve("workflow", name, {}, ())
    steps = steps.model_copy(update={"paths": recipe.paths, "run": recipe.run})
    planned = workflow.plan_steps(steps)
    recipes = [job.recipe for job, _ in planned.values()]
    plans = [plan for _, plan in planned.values()]

    # what no step makes, and is not here: weights, and files of the data
    made = {key for plan in plans for key in plan.makes}
    needs = {need.name: need for plan in plans for need in plan.needs if need.is_missing}
    absent = [need for need in needs.values() if need.key not in made and not need.name.startswith("run ")]
    folders = {above for need in absent for above in PurePosixPath(need.name).parents}  # listed by file, too
    weights = [
        need
        for need in absent
        if need.name in published_weights() and PurePosixPath(need.name) not in folders
    ]
    files = [need for need in absent if need.name not in published_weights()]

    # the data sets, of which some are fetched by a line
    datasets = list(dict.fromkeys(filter(None, map(_dataset_of, recipes))))
    sources = {kind: SOURCES[kind] for kind in datasets if kind in SOURCES}
    writes = sum(plan.writes for plan in plans)
    lists_all = bool(weights or files) or not any(plan.errors for plan in plans)
    nothing = "all is here" if lists_all else "see what is missing"
    memory = [str(plan.items[MEMORY]) for plan in plans if MEMORY in plan.items]
    items = {
        "published": "; ".join(filter(None, map(_describe_published, recipes))) or "no number",
        "data": f"{', '.join(datasets)}: {_describe_sizes(files, nothing)}",
        "terms": "; ".join(f"{kind}: {source.about}" for kind, source in sources.items()) or "see its source",
        "weights": _describe_sizes(weights, nothing),
        "disk": f"{_total([*weights, *files]) if lists_all else 'an unknown amount'} to get, "
        f"{console.size(writes)} of targets to write",
        "memory": "; ".join(memory) or "known when the data is here",
        "time there": "; ".join(filter(None, (_published(recipe).get("took") for recipe in recipes)))
        or "not known",
        "time here": describe_time(planned, recipe.paths.under_home("runs")),
    }

    # the lines, each of which finds the newest run of the recipe that it names
    lines = [f"brainhive fetch {kind}" for kind in sources] if files or not lists_all else []
    lines += [_write_line(steps, step) for step in steps.steps]
    rows = [*items.items(), *(("" if number else "lines", line) for number, line in enumerate(lines))]
    rows.append(("or all", f"brainhive workflow --recipe {name}"))
    return Table(f"To repeat {name}, with what is here", ("item", "value"), tuple(rows))


def _write_line(steps: workflow.Recipe, step: str) -> str:
    """Write a step as a line by itself: what it takes of an earlier step is named by that step's recipe."""

    def name_recipe(made: re.Match[str]) -> str:
        """Name the recipe of the step whose run is meant; YAML in braces stays."""
        recipe = steps.recipe_of(made["step"]) if made["step"] in steps.steps else None
        return recipe or made[0]

    command, recipe = steps.command_of(step), steps.recipe_of(step)
    stated = flatten(read_recipe(find_recipe(command, recipe), command)) if recipe else {}
    overrides = []
    for override in steps.steps[step].overrides:
        line = workflow.MADE.sub(name_recipe, override)
        key, _, value = line.partition("=")
        if flatten({key: parse_value(value, line)}).items() <= stated.items():
            continue  # the recipe says so itself
        overrides.append(line)
    return steps.line(step, overrides)


def _dataset_of(recipe: Any) -> str:
    """Name the data set that a step reads; empty where it takes that of a run."""
    if getattr(recipe, "mode", "") == "finetune":
        return ""
    part = getattr(recipe, "dataset", None) or getattr(recipe, "preparation", None)
    return str(part.kind) if part is not None else ""


def _published(recipe: Any) -> dict[str, Any]:
    """Return what a paper states of a step; empty where its recipe has no such section."""
    section = getattr(recipe, "published", None)
    return section.model_dump(mode="json", exclude_none=True) if section is not None else {}


def _describe_published(recipe: Any) -> str:
    """Write a published score with its protocol."""
    stated = _published(recipe)
    scores = {"top-1": stated.get("top1"), "top-5": stated.get("top5"), **stated.get("values", {})}
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in scores.items() if value is not None)
    words = []
    for key, text in PROTOCOL.items():
        if (value := stated.get(key)) is not None:
            words.append(text.format(len(value) if isinstance(value, list) else value))
    protocol = f" ({', '.join(words)})" if words else ""
    return f"{numbers}{protocol}: {stated['source']}" if numbers else ""


def _size(need: Need) -> int | None:
    """Return bytes by the plan, or else those of published weights; None where neither knows."""
    gb = published_weights().get(need.name, Weights("")).gb
    return need.size or (None if gb is None else round(gb * 1e9))


def _total(needs: Sequence[Need]) -> str:
    """Add sizes up, and say of how many things they are not known."""
    sizes = list(map(_size, needs))
    total, unknown = sum(filter(None, sizes)), sizes.count(None)
    texts = [f"about {console.size(total)}"] if total else []
    texts += [f"{unknown} of unknown size"] if unknown else []
    return " and ".join(texts) or "nothing"


def _describe_sizes(needs: Sequence[Need], nothing: str) -> str:
    """List what is to be got, largest first, with licences; names that differ in a number are one entry."""
    if not needs:
        return nothing
    alike: dict[str, list[Need]] = {}
    for need in needs:
        alike.setdefault(re.sub(r"\d+", "#", need.name), []).append(need)
    groups = sorted(alike.values(), key=lambda group: -sum(_size(need) or 0 for need in group))
    named = []
    for group in groups[:NAMED]:
        more = f" and {len(group) - 1} alike" if len(group) > 1 else ""
        licence = published_weights().get(group[0].name, Weights("")).licence
        about = ", ".join(filter(None, [_total(group).removeprefix("about "), licence]))
        named.append(f"{group[0].name}{more} ({about})")
    more = f", and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return f"{_total(needs)}: {', '.join(named)}{more}"


def describe_time(planned: dict[str, tuple[workflow.Job, Plan]], runs: Path) -> str:
    """Estimate the time of each step from earlier runs of the same kind, on each device that had one."""
    paces, texts = read_paces(runs), []
    for name, (job, plan) in planned.items():
        if plan.work is None:
            continue
        start = plan.work.key(job.line.split()[1], "")
        for key, pace in paces.items():
            if key.startswith(start):
                duration = write_duration(pace.seconds * plan.work.count)
                texts.append(f"{name}: {duration} on {key.removeprefix(start)}")
    return "; ".join(texts) or "known after the first run of each step"
