"""workflow: the steps of a system one after another, from its data to its tables, each
by its own command.
"""

import importlib
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self, cast, get_args

from pydantic import Field, model_validator

from brainhive_cli.core import console, hub
from brainhive_cli.core.cells import finishing, start_run
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import BrainhiveError, RecipeError, Unfinished
from brainhive_cli.core.facts import WorkflowFacts
from brainhive_cli.core.launch import READING, Launch
from brainhive_cli.core.measurements import (
    Measurements,
    caveats_of,
    list_footnotes,
    merge_caveats,
)
from brainhive_cli.core.recipe import MAX_STEPS, BaseRecipe, Names, Section
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.sentences import state_finding

Command = Literal[
    "prepare", "embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"
]
MADE = re.compile(r"\{(?P<step>[^{}/]+)(?P<below>/[^{}]*)?\}")
"""In an override, what an earlier step made: `{STEP}` the name of its run,
`{STEP/model}` a path in it.
"""


class Step(Section):
    """One command."""

    command: Command | None = Field(None, description="default: the step's name")
    recipe: str | None = Field(None, description="its recipe; default: the workflow's")
    overrides: Names = Field(
        [],
        description=(
            "key.path=value; {STEP} is the run of an earlier step, {STEP/model} a path "
            "in it"
        ),
    )
    says: str = Field("", description="what it does and why, said when it begins")
    heading: str = Field("", description="of its section on the demo's page")
    quick: Names = Field(
        [], description="overrides that make it small, for demo --quick"
    )


class Recipe(BaseRecipe):
    """Steps, each with a recipe of the same name unless it says otherwise."""

    is_tracked = True
    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {"until"}

    recipe: str | None = Field(
        None, description="name of each step's recipe; default: the commands' own"
    )
    steps: dict[str, Step] = Field(
        {},
        max_length=MAX_STEPS,
        description="the steps, in order; a name may not be used twice",
    )
    until: str | None = Field(
        None, description="the last step that is run; default: the last of all"
    )

    @model_validator(mode="after")
    def _names_a_command_of_each_step(self) -> Self:
        for name in self.steps:
            if self.command_of(name) not in get_args(Command):
                known = ", ".join(get_args(Command))
                raise RecipeError(
                    f"the step {name} names no command",
                    f"steps.{name}.command, of: {known}",
                )
        if self.until is not None and self.until not in self.steps:
            raise RecipeError(
                f"until: there is no step {self.until}",
                f"the steps are {', '.join(self.steps)}",
            )
        return self

    def list_steps(self) -> list[str]:
        """List the steps up to the last one that is run; RecipeError if there are
        none.
        """
        if not (names := [*self.steps]):
            raise RecipeError(
                "the workflow has no steps",
                "--recipe papers/neurons, or a file with `steps`",
            )
        return names if self.until is None else names[: names.index(self.until) + 1]

    def command_of(self, name: str) -> Command:
        """Name the command of a step."""
        return cast(Command, self.steps[name].command or name)

    def recipe_of(self, name: str) -> str | None:
        """Name the recipe of a step; None for its command's own."""
        return self.steps[name].recipe or self.recipe

    def line(self, name: str, overrides: Sequence[str]) -> str:
        """Write a step as one would type it."""
        recipe = self.recipe_of(name)
        flags = ["--recipe", recipe] if recipe else []
        return shlex.join(["brainhive", self.command_of(name), *flags, *overrides])


def resolve_step(
    recipe: Recipe, name: str, results: Mapping[str, Result], more: Sequence[str] = ()
) -> tuple[str, Any, Any]:
    """Resolve the recipe of a step.

    Args:
        recipe: The workflow's.
        name: Of the step.
        results: Those of the earlier steps that have been run.
        more: Further overrides of the step.

    Returns:
        The line as one would type it, the module of its command, and what that is run
        with.
    """

    def name_run(match: re.Match[str]) -> str:
        result = results.get(match["step"])
        if result is None:  # not made yet, or YAML in braces
            return f"<{match['step']}>" if match["step"] in recipe.steps else match[0]
        return (
            f"{result.folder}{match['below']}" if match["below"] else result.folder.name
        )

    # with the names of the runs of earlier steps; equal overrides appear once in the
    # line
    step_overrides = (
        MADE.sub(name_run, override) for override in recipe.steps[name].overrides
    )
    overrides = list(dict.fromkeys([*step_overrides, *more]))
    command = recipe.command_of(name)
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    resolved = module.Recipe.resolve(command, recipe.recipe_of(name), {}, overrides)
    # a step uses the processes and folders of the workflow
    resolved = resolved.model_copy(update={"run": recipe.run, "paths": recipe.paths})
    return recipe.line(name, overrides), module, resolved


@dataclass(frozen=True)
class FinishedStep:
    """A step that was run.

    Attributes:
        line: As one would type it.
        duration_s: How long it took.
        headline: What it achieved.
        result: What its command returned.
    """

    line: str
    duration_s: float
    headline: str
    result: Result


def inputs(recipe: Recipe) -> list[Input]:
    """List the steps with their lines and states, the inputs of the next, and what is
    fetched for others.
    """
    steps, listed = list[Input](), list[Input]()
    results: dict[str, Result] = {}
    before, is_next = "", True
    for name in recipe.list_steps():
        line, module, resolved = resolve_step(recipe, name, results)
        # only the first unfinished step can be inspected: later ones need its results
        state = f"waits for {before}"
        if is_next:
            # READING computes nothing: it raises where a run is not finished
            try:
                results[name], state = module.run(resolved, READING), "finished"
            except (BrainhiveError, Unfinished):
                state = "next"
        if state != "finished":
            read = collect(partial(module.inputs, resolved))
            # of later steps, list downloads; their other inputs are made by earlier
            # steps
            later = [
                one
                for one in read
                if one.size or isinstance(one.error, hub.Unreachable)
            ]
            listed += (
                read if is_next else [replace(one, note=f"for {name}") for one in later]
            )
            is_next = False
        steps.append(Input(f"{name}: {line}", note=state))
        before = name
    return collect(lambda: steps, lambda: listed)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps; finished ones are reused, and an interrupted one continues."""
    # the steps first: their runs are what this one consists of
    is_whole = recipe.list_steps() == [*recipe.steps]
    folder = RunFolder(recipe.paths.under_home("runs"))
    # a part of the steps is no result by itself, so it gets no run
    if is_whole:
        folder = start_run(
            "workflow",
            (recipe.recipe or "steps").replace("/", "-"),
            recipe,
            launch,
            again,
        )
    steps = dict(run_steps(recipe, launch, again))
    measurements = measure_steps(steps)
    if is_whole:
        with finishing(folder, launch) as is_due:
            if is_due and launch.is_main:
                folder.finish(measurements)

    # all tables and files of the steps, and what each step took
    tables = [table for step in steps.values() for table in step.result.tables]
    return Result(
        folder.path,
        (*tables, summarise_steps(steps, "Steps")),
        measurements,
        {
            f"{name} {kind}": path
            for name, step in steps.items()
            for kind, path in step.result.files.items()
        },
    )


def run_steps(
    recipe: Recipe,
    launch: Launch,
    again: bool,
    more: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[tuple[str, FinishedStep]]:
    """Run the steps through their own commands, one after another, and give each with
    its name.

    Args:
        recipe: The steps.
        launch: The processes that share each of them.
        again: Whether finished runs are made anew.
        more: Further overrides of steps, by name.
    """
    # the precision of the workflow is that of all steps
    mixed = recipe.run.mixed_precision
    precision = [f"run.mixed_precision={mixed}"] if mixed else []
    results: dict[str, Result] = {}
    for number, name in enumerate(recipe.list_steps(), 1):
        # say what the step does, and the line that does it
        further = [*(more or {}).get(name, ()), *precision]
        line, module, resolved = resolve_step(recipe, name, results, further)
        heading, says = f"{number}/{len(recipe.steps)} {name}", recipe.steps[name].says
        console.say("", heading, *([f"    {says}"] if says else []), f"    {line}")

        # run it by its own command
        start = time.monotonic()
        with console.progress(heading):
            results[name] = module.run(resolved, launch, again)
        headline = _headline(recipe.command_of(name), results[name])
        yield (
            name,
            FinishedStep(line, time.monotonic() - start, headline, results[name]),
        )


def measure_steps(steps: Mapping[str, FinishedStep]) -> Measurements:
    """Collect what the steps measured of all subjects, and what must be said of it."""
    # metrics over all subjects, by step
    scopes = {
        name: step.result.metrics.overall
        for name, step in steps.items()
        if step.result.metrics.overall
    }
    caveats = merge_caveats(*(step.result.metrics.caveats for step in steps.values()))
    facts = WorkflowFacts(
        caveats=caveats,
        commands=[step.line for step in steps.values()],
        findings={
            name: text
            for name, step in steps.items()
            if (text := state_finding(step.result.metrics))
        },
    )
    return Measurements(scopes, facts=facts)


def summarise_steps(steps: Mapping[str, FinishedStep], title: str) -> Table:
    """Say of each step how long it took and what it achieved."""
    rows = [
        (name, f"{step.duration_s:.0f} s", step.headline)
        for name, step in steps.items()
    ]
    note = list_footnotes(
        caveats_of(
            [
                metric
                for step in steps.values()
                for metric in step.result.metrics.overall.values()
            ]
        )
    )
    return Table(title, ("step", "time", "result"), rows, is_list=True, note=note)


def _headline(command: Command, result: Result) -> str:
    """Say in one line what a step achieved: its finding, or how many stores it made."""
    if finding := state_finding(result.metrics):
        return finding
    rows = result.tables[0].rows if result.tables else ()
    if command == "prepare":  # a row for each split of a subject's store
        rows = tuple({row[0]: row for row in rows}.values())
    return f"{len(rows)} store{'s' if len(rows) > 1 else ''}" if rows else "done"
