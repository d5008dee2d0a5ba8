"""workflow: the steps of a system one after another, from its data to its tables, each
by its own command.
"""

import importlib
import math
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import ConfigDict, Field, model_validator

from brainhive_cli.core import console, hub
from brainhive_cli.core.cells import finishing, start_run
from brainhive_cli.core.command import Input, Result, collect, read_paces
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError, Unfinished
from brainhive_cli.core.facts import WorkflowFacts
from brainhive_cli.core.launch import READING, Launch
from brainhive_cli.core.measurements import (
    Measurements,
    caveats_of,
    list_footnotes,
    merge_caveats,
    scope,
)
from brainhive_cli.core.recipe import MAX_STEPS, BaseRecipe, Names, Section
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.sentences import state_finding

Command = Literal[
    "prepare",
    "embed",
    "train-align",
    "eval-retrieval",
    "train-prior",
    "reconstruct",
    "calibrate",
    "explain",
    "compare",
    "check",
    "report",
]
REPEATED = ("compare", "check", "report")
"""Commands without a run of their own, which are run each time."""
OWN_RECIPE = (*REPEATED, "calibrate", "explain")
"""Commands whose steps do not take the workflow's recipe."""
MADE = re.compile(r"\{(?P<step>[^{}/]+)(?P<below>/[^{}]*)?\}")
"""In an override, what an earlier step made: `{STEP}` the name of its run,
`{STEP/model}` a path in it.
"""
Label = Annotated[str, Field(pattern=r"^[^{}/·]+$")]
"""Name of an axis, or of one of its values: part of the names of steps."""


class Variation(Section):
    """Value of an axis of the matrix; a list is overrides alone."""

    recipe: str | None = Field(
        None, description="in matrix.AXIS.VALUE: the recipe of steps that it changes"
    )
    overrides: Names = Field(
        [],
        description="key.path=value of these steps; a value that is a list is this",
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_overrides_alone(cls, fields: Any) -> Any:
        plain = isinstance(fields, str | list | None)
        return {"overrides": fields or []} if plain else fields


class Step(Section):
    """One command."""

    # `for` is a word of Python
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    command: Command | None = Field(None, description="default: the step's name")
    recipe: str | None = Field(
        None,
        description="its recipe; default: the workflow's (calibrate, explain, compare, "
        "check, report: the command's own)",
    )
    overrides: Names = Field(
        [],
        description=(
            "key.path=value; {STEP} is the run of an earlier step, {STEP/model} a path "
            "in it"
        ),
    )
    axes: Names | None = Field(
        None,
        alias="for",
        description=(
            "axes of the matrix: the step runs for each combination of their values; "
            "default: the axes of the steps that its overrides name. A value changes "
            "the first steps that run for its axis, not those that name them"
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
    matrix: dict[Label, dict[Label, Variation]] = Field(
        {},
        description=(
            "axes with named values, each a recipe, overrides or both: a step runs "
            "for every combination of the axes in its `for`"
        ),
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
        for name, step in self.steps.items():
            if (step.command or name) not in get_args(Command):
                known = ", ".join(get_args(Command))
                raise RecipeError(
                    f"the step {name} names no command",
                    f"steps.{name}.command, of: {known}",
                )
        if self.until is not None and self.until not in {*self.steps, *self.cells}:
            raise RecipeError(
                f"until: there is no step {self.until}",
                f"the steps are {', '.join(self.steps)}",
            )
        # an axis of no step has no effect
        used = {axis for _, cell in self.cells.values() for axis in cell}
        if idle := [axis for axis in self.matrix if axis not in used]:
            raise RecipeError(
                f"matrix.{idle[0]} has no effect: no step runs for it",
                f"steps.STEP.for=[{idle[0]}]",
            )
        return self

    @cached_property
    def cells(self) -> dict[str, tuple[Step, dict[str, str]]]:
        """Steps for each combination of their axes, by name, with the axes' values.

        Raises:
            RecipeError: if a step names an axis that is not there, two recipes meet in
                one, or there are too many.
        """
        cells = dict[str, tuple[Step, dict[str, str]]]()
        axes_of = dict[str, list[str]]()
        for name, step in self.steps.items():
            # the step's axes: its own, or those of the steps that it reads
            words = [match["step"] for match in MADE.finditer(" ".join(step.overrides))]
            of_read = {axis for word in words for axis in axes_of.get(word, ())}
            chosen = of_read if step.axes is None else {*step.axes}
            if unknown := sorted(chosen - self.matrix.keys()):
                raise RecipeError(
                    f"the step {name} runs for {unknown[0]}, which is no axis",
                    f"the axes are {', '.join(self.matrix) or 'none: see matrix'}",
                )
            axes = axes_of[name] = [axis for axis in self.matrix if axis in chosen]
            count = math.prod(len(self.matrix[axis]) for axis in axes)
            if len(cells) + count > MAX_STEPS:
                raise RecipeError(
                    f"more than {MAX_STEPS} steps: {name} runs {count:,} times",
                    "fewer axes or values, or several workflows",
                )

            # one step a combination, changed by the axes that enter here
            for values in product(*(self.matrix[axis] for axis in axes)):
                cell = dict(zip(axes, values, strict=True))
                changes = [
                    self.matrix[axis][value]
                    for axis, value in cell.items()
                    if axis not in of_read
                ]
                recipes = [change.recipe for change in changes if change.recipe]
                if len(recipes) > 1:
                    raise RecipeError(
                        f"{scope(name, *values)} has {len(recipes)} recipes: "
                        f"{', '.join(recipes)}",
                        "a recipe in one axis, overrides in the others",
                    )
                overrides = [word for change in changes for word in change.overrides]
                update = {
                    "command": step.command or name,
                    "recipe": next(iter(recipes), step.recipe),
                    "overrides": [
                        *(
                            _narrow(word, axes_of, cells, cell)
                            for word in step.overrides
                        ),
                        *overrides,
                    ],
                }
                cells[scope(name, *values)] = step.model_copy(update=update), cell
        return cells

    def list_steps(self) -> list[str]:
        """List the steps up to the last one that is run; RecipeError if there are
        none.
        """
        if not (names := [*self.cells]):
            raise RecipeError(
                "the workflow has no steps",
                "--recipe papers/neurons, or a file with `steps`",
            )
        if self.until is None:
            return names
        last = [name for name in names if self.until in (name, _step_of(name))][-1]
        return names[: names.index(last) + 1]

    def command_of(self, name: str) -> Command:
        """Name the command of a step."""
        return cast(Command, self.cells[name][0].command)

    def recipe_of(self, name: str) -> str | None:
        """Name the recipe of a step; None for its command's own."""
        step = self.cells[name][0]
        return step.recipe or (None if step.command in OWN_RECIPE else self.recipe)

    def line(self, name: str, overrides: Sequence[str]) -> str:
        """Write a step as one would type it."""
        recipe = self.recipe_of(name)
        flags = ["--recipe", recipe] if recipe else []
        return shlex.join(["brainhive", self.command_of(name), *flags, *overrides])


def _step_of(name: str) -> str:
    """Name the step that a cell is of."""
    return name.partition(" · ")[0]


def _narrow(
    override: str,
    axes_of: Mapping[str, Sequence[str]],
    cells: Mapping[str, tuple[Step, Mapping[str, str]]],
    cell: Mapping[str, str],
) -> str:
    """Let `{STEP}` name the cells of that step that agree with this one, as a list."""

    def list_cells(match: re.Match[str]) -> str:
        if not axes_of.get(match["step"]):  # of no axes, no step, or YAML in braces
            return match[0]
        named = (
            f"{{{name}{match['below'] or ''}}}"
            for name, (_, other) in cells.items()
            if _step_of(name) == match["step"]
            and all(cell.get(axis, value) == value for axis, value in other.items())
        )
        return ",".join(named)

    return MADE.sub(list_cells, override)


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
            return f"<{match['step']}>" if match["step"] in recipe.cells else match[0]
        return (
            f"{result.folder}{match['below']}" if match["below"] else result.folder.name
        )

    # with the names of the runs of earlier steps; equal overrides appear once in the
    # line
    step_overrides = (
        MADE.sub(name_run, override) for override in recipe.cells[name][0].overrides
    )
    overrides = list(dict.fromkeys([*step_overrides, *more]))
    command = recipe.command_of(name)
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    resolved = module.Recipe.resolve(command, recipe.recipe_of(name), {}, overrides)
    # a step uses the processes and folders of the workflow
    resolved = resolved.model_copy(
        update={
            "paths": recipe.paths,
            **({"run": recipe.run} if resolved.computes else {}),
        }
    )
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
    results, states = dict[str, Result](), dict[str, str]()
    # the first unfinished step, all cells of it; later ones need its results
    due, times = "", list[tuple[str, float | None]]()
    for name in recipe.list_steps():
        line, module, resolved = resolve_step(recipe, name, results)
        earlier = [*dict.fromkeys([*map(_step_of, states), _step_of(name)])]
        is_due = due in ("", _step_of(name))
        state = "each time" if is_due else f"waits for {earlier[-2]}"
        if is_due and recipe.command_of(name) not in REPEATED:
            # READING computes nothing: it raises where a run is not finished
            try:
                results[name], state = module.run(resolved, READING), "finished"
            except (BrainhiveError, Unfinished):
                state, due = "next", _step_of(name)
        if state not in ("finished", "each time"):
            read = collect(partial(module.inputs, resolved))
            # of later steps, list downloads; their other inputs are made by earlier
            # steps
            later = [
                one
                for one in read
                if one.size or isinstance(one.error, hub.Unreachable)
            ]
            listed += (
                read if is_due else [replace(one, note=f"for {name}") for one in later]
            )
            command = recipe.command_of(name)
            times.append((name, _estimate_s(command, module, resolved)))
        states[name] = state
        steps.append(Input(f"{name}: {line}", note=state))

    # all that is known of the time
    known_s = [seconds for _, seconds in times if seconds is not None]
    if known_s:
        note = f"about {console.write_duration(sum(known_s))}"
        if unknown := [name for name, seconds in times if seconds is None]:
            note += f", without {console.summarise_names(unknown)}"
        steps.append(Input("time of what is left", note=note))
    return collect(lambda: steps, lambda: listed)


def _estimate_s(command: Command, module: Any, recipe: Any) -> float | None:
    """Estimate the seconds of a step by the pace of the last work of its kind."""
    paces = read_paces(recipe.paths.under_home("runs"))
    with suppress(BrainhiveError):  # of what is still to be made nothing is known
        if paces and hasattr(module, "work") and (work := module.work(recipe)):
            from brainhive_cli.core import launch

            device = launch.start(recipe.run).device_name
            key = work.key(command, device, launch.num_processes(recipe.run))
            return work.count * paces[key][0] if key in paces else None
    return None


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps; finished ones are reused, and an interrupted one continues."""
    # the steps first: their runs are what this one consists of
    is_whole = recipe.list_steps() == [*recipe.cells]
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
    axes = {name: recipe.cells[name][1] for name in steps if recipe.matrix}
    measurements = measure_steps(steps).stating(axes=axes)
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
        exit_code=max((each.result.exit_code for each in steps.values()), default=0),
        hint=Line("report", folder.path.name, "--table")
        if is_whole and recipe.matrix
        else "",
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
        if launch.only_reads and recipe.command_of(name) in REPEATED:
            continue
        line, module, resolved = resolve_step(recipe, name, results, further)
        heading, says = (
            f"{number}/{len(recipe.cells)} {name}",
            recipe.cells[name][0].says,
        )
        console.say("", heading, *([f"    {says}"] if says else []), f"    {line}")

        # run it by its own command
        start = time.monotonic()
        with console.progress(heading):
            results[name] = module.run(resolved, launch, again)
        if not launch.only_reads:
            results[name].keep_pace(
                recipe.command_of(name),
                launch,
                recipe.paths.under_home("runs"),
                time.monotonic() - start,
            )
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
        made={
            name: "/".join(step.result.folder.parts[-2:])
            for name, step in steps.items()
            if (step.result.folder / FINISHED).is_file()
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
