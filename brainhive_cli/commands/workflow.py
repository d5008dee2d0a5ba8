"""workflow: the steps of a system one after another, from its data to its tables, each
by its own command.
"""

import importlib
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from brainhive_cli.core import console, driver, hub, jobs
from brainhive_cli.core.command import Input, Result, collect, read_paces
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError, Unfinished
from brainhive_cli.core.facts import RetrievalFacts, WorkflowFacts
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary, key_work
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import READ_ONLY, Launch
from brainhive_cli.core.measurements import (
    Measurements,
    list_footnotes,
    merge_caveats,
    scope,
)
from brainhive_cli.core.recipe import MAX_STEPS, BaseRecipe
from brainhive_cli.core.sections import Section
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.sentences import state_finding

StepCommand = Literal[
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
"""Name of a step, of an axis, or of one of its values. Cells are called by these with
` · ` in between, so that no two have one name.
"""


class Variation(Section):
    """Value of an axis of the matrix; a list is overrides alone."""

    recipe: str | None = Field(
        None, description="in matrix.AXIS.VALUE: the recipe of steps that it changes"
    )
    overrides: NameList = Field(
        [],
        description="key.path=value of these steps; a value that is a list is this",
    )


class Step(Section):
    """One command."""

    # `for` is a word of Python
    model_config = ConfigDict(serialize_by_alias=True)

    command: StepCommand | None = Field(None, description="default: the step's name")
    recipe: str | None = Field(
        None,
        description="its recipe; default: the workflow's (calibrate, explain, compare, "
        "check, report: the command's own)",
    )
    overrides: NameList = Field(
        [],
        description=(
            "key.path=value; {STEP} is the run of an earlier step, {STEP/model} a path "
            "in it"
        ),
    )
    axes: NameList | None = Field(
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
    quick: NameList = Field(
        [], description="overrides that make it small, for demo --quick"
    )


class Recipe(BaseRecipe):
    """Steps, each with a recipe of the same name unless it says otherwise."""

    is_tracked = True
    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {"until"}

    recipe: str | None = Field(
        None, description="name of each step's recipe; default: the commands' own"
    )
    matrix: dict[
        Label,
        dict[
            Label,
            Annotated[
                Variation,
                BeforeValidator(
                    lambda value: (
                        {"overrides": value} if isinstance(value, str | list) else value
                    )
                ),
            ],
        ],
    ] = Field(
        {},
        description=(
            "axes with named values, each a recipe, overrides or both: a step runs "
            "for every combination of the axes in its `for`"
        ),
    )
    steps: dict[Label, Step] = Field(
        {},
        max_length=MAX_STEPS,
        description="the steps, in order; a name may not be used twice",
    )
    until: str | None = Field(
        None, description="the last step that is run; default: the last of all"
    )

    @model_validator(mode="after")
    def _names_commands_axes_and_steps(self) -> Self:
        for name, step in self.steps.items():
            if (step.command or name) not in get_args(StepCommand):
                known = ", ".join(get_args(StepCommand))
                raise RecipeError(
                    f"the step {name} names no command",
                    f"steps.{name}.command, of: {known}",
                )
        used = {axis for step in self.steps.values() for axis in step.axes or ()}
        for axis in sorted(used ^ self.matrix.keys()):
            raise RecipeError(
                f"the axis {axis} is not in both `matrix` and `for`",
                f"matrix.{axis} and steps.STEP.for=[{axis}], or neither",
            )
        _ = self.cells
        return self

    @cached_property
    def cells(self) -> dict[str, tuple[Step, dict[str, str]]]:
        """Steps for each combination of their axes, by name, with the axes' values.

        Raises:
            RecipeError: if two recipes meet in a step, or there are too many steps.
        """
        cells = dict[str, tuple[Step, dict[str, str]]]()
        axes_of = dict[str, set[str]]()
        for name, step in self.steps.items():
            # the step's axes: its own, or those of the steps that it reads
            read = {
                axis
                for word, _ in MADE.findall(" ".join(step.overrides))
                for axis in axes_of.get(word, ())
            }
            axes_of[name] = read if step.axes is None else {*step.axes}
            axes = [axis for axis in self.matrix if axis in axes_of[name]]

            # one step a combination, changed by the axes that no step before it has
            for values in product(*(self.matrix[axis] for axis in axes)):
                if len(cells) == MAX_STEPS:
                    raise RecipeError(
                        f"more than {MAX_STEPS} steps, from {name} on",
                        "fewer axes or values, or several workflows",
                    )
                cell = dict(zip(axes, values, strict=True))
                changes = [
                    self.matrix[axis][value]
                    for axis, value in cell.items()
                    if axis not in read
                ]
                command = step.command or name
                default = None if command in OWN_RECIPE else self.recipe
                recipes = [change.recipe for change in changes if change.recipe]
                if recipes[1:]:
                    raise RecipeError(
                        f"{scope(name, *values)} has several recipes: "
                        f"{', '.join(recipes)}",
                        "a recipe in one axis, overrides in the others",
                    )
                update = {
                    "command": command,
                    "recipe": next(iter(recipes), step.recipe or default),
                    "overrides": sum(
                        (change.overrides for change in changes), step.overrides
                    ),
                }
                cells[scope(name, *values)] = step.model_copy(update=update), cell
        return cells

    def list_steps(self) -> list[str]:
        """List the steps up to the last one that is run; RecipeError if there is
        none.
        """
        names = [*self.cells]
        last = [name for name in names if self.until in (None, name, _step_of(name))]
        if not last:
            raise RecipeError(
                f"the workflow has no steps{' ' * bool(self.until)}{self.until or ''}",
                f"--recipe papers/neurons, or until, of: {', '.join(self.steps)}",
            )
        return names[: names.index(last[-1]) + 1]

    def command_of(self, name: str) -> StepCommand:
        """Name the command of a step."""
        return cast(StepCommand, self.cells[name][0].command)

    def line(self, name: str, overrides: Sequence[str]) -> str:
        """Write a step as one would type it."""
        recipe = self.cells[name][0].recipe
        flags = ["--recipe", recipe] if recipe else []
        return shlex.join(["brainhive", self.command_of(name), *flags, *overrides])


def _step_of(name: str) -> str:
    """Name the step that a cell is of."""
    return name.partition(" · ")[0]


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

    step, values = recipe.cells[name]

    def name_runs(match: re.Match[str]) -> str:
        # the cells of that step that agree with this one, as a list
        runs, below = [], match["below"] or ""
        for other, (_, fixed) in recipe.cells.items():
            if _step_of(other) == match["step"] and fixed | values == values | fixed:
                name = f"<{other}>"  # not made yet
                if other in results:
                    folder = results[other].folder
                    name = str(folder) if below else folder.name
                runs.append(name + below)
        return ",".join(runs) or match[0]  # YAML in braces

    # equal overrides appear once in the line
    overrides = [
        *dict.fromkeys([*(MADE.sub(name_runs, word) for word in step.overrides), *more])
    ]
    command = recipe.command_of(name)
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    resolved = module.Recipe.resolve(command, step.recipe, {}, overrides)
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
        headline: What it achieved; empty without a finding.
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
    steps = list[Input]()
    listed = list[Input]()
    results = dict[str, Result]()
    # the first unfinished step, all cells of it; later ones need its results
    due = ""
    times = dict[str, float]()
    order = [*recipe.steps]
    for name in recipe.list_steps():
        line, module, resolved = resolve_step(recipe, name, results)
        step = _step_of(name)
        command = recipe.command_of(name)
        is_due = due in ("", step)
        state = "each time"
        if not is_due:
            state = f"waits for {order[order.index(step) - 1]}"
        elif command not in REPEATED:
            # READING computes nothing: it raises where a run is not finished
            try:
                results[name] = module.run(resolved, READ_ONLY)
                state = "finished"
            except (BrainhiveError, Unfinished):
                state, due = "next", step
        if state not in ("finished", "each time"):
            job = jobs.resolve(module, resolved)
            # of later steps, list downloads; their other inputs are made by earlier
            # steps
            listed += [
                one if is_due else replace(one, note=f"for {name}")
                for one in job.list_inputs()
                if is_due or one.size or isinstance(one.error, hub.Unreachable)
            ]
            times[name] = 0.0
            with suppress(BrainhiveError):  # of what is still to be made
                work, key = key_work(command, job)
                pace = read_paces(recipe.paths.under_home("runs")).get(key, (0.0,))
                times[name] = work.count * pace[0] if work else 0.0
        steps.append(Input(f"{name}: {line}", note=state))

    # all that is known of the time
    if known_s := [*filter(None, times.values())]:
        note = f"about {console.write_duration(sum(known_s))}"
        note += f", of {len(known_s)} of {len(times)} steps"
        steps.append(Input("time of what is left", note=note))
    return collect(lambda: steps, lambda: listed)


@dataclass(frozen=True)
class WorkflowRun(RunJob):
    """Run of a workflow, which consists of the runs of its steps."""

    recipe: Recipe

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return (self.recipe.recipe or "steps").replace("/", "-")

    def make_parts(self, run: OpenRun, again: bool) -> dict[str, FinishedStep]:
        """Run the steps; finished ones are reused, and an interrupted one continues."""
        return dict(run_steps(self.recipe, run.launch, again))

    def summarise(self, run: OpenRun) -> Summary:
        """Collect what the steps measured."""
        return Summary(measure_steps(run.parts))

    def describe(self, run: OpenRun) -> Result:
        """Show the steps, and suggest the table of a matrix."""
        result = describe_steps(run.folder.path, run.parts)
        if not self.recipe.matrix:
            return result
        return replace(result, hint=Line("report", run.folder.path.name, "--table"))


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps; finished ones are reused, and an interrupted one continues."""
    if recipe.list_steps() == [*recipe.cells]:
        return driver.run("workflow", WorkflowRun(recipe), launch, again)
    # a part of the steps is no result by itself, so it gets no run
    steps = dict(run_steps(recipe, launch, again))
    return describe_steps(recipe.paths.under_home("runs"), steps)


def describe_steps(path: Path, steps: Mapping[str, FinishedStep]) -> Result:
    """Show all tables and files of the steps, and what each step took."""
    tables = [table for step in steps.values() for table in step.result.tables]
    return Result(
        path,
        (*tables, summarise_steps(steps, "Steps")),
        measure_steps(steps),
        {
            f"{name} {kind}": path
            for name, step in steps.items()
            for kind, path in step.result.files.items()
        },
        exit_code=max(step.result.exit_code for step in steps.values()),
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
        step = recipe.cells[name][0]
        command = recipe.command_of(name)
        further = [*(more or {}).get(name, ())]
        if command not in REPEATED:
            further += precision
        elif launch.is_read_only:
            continue

        # say what the step does, and the line that does it
        line, module, resolved = resolve_step(recipe, name, results, further)
        heading = f"{number}/{len(recipe.cells)} {name}"
        says = [f"    {step.says}"] if step.says else []
        console.say("", heading, *says, f"    {line}")

        # run it by its own command
        start = time.monotonic()
        with console.progress(heading):
            results[name] = result = module.run(resolved, launch, again)
        duration_s = time.monotonic() - start
        result.keep_pace(command, launch, recipe.paths.under_home("runs"), duration_s)
        yield (
            name,
            FinishedStep(line, duration_s, state_finding(result.metrics), result),
        )


def measure_steps(steps: Mapping[str, FinishedStep]) -> Measurements:
    """Collect what the steps measured of all subjects, and what must be said of it."""
    # metrics over all subjects, by step
    scopes = {
        name: metrics
        for name, step in steps.items()
        if (metrics := step.result.metrics.overall)
    }
    caveats = merge_caveats(*(step.result.metrics.caveats for step in steps.values()))
    facts = WorkflowFacts(
        caveats=caveats,
        commands=[step.line for step in steps.values()],
        findings={name: step.headline for name, step in steps.items() if step.headline},
        retrievals={
            name: f"eval-retrieval/{step.result.folder.name}"
            for name, step in steps.items()
            if isinstance(step.result.metrics.facts, RetrievalFacts)
        },
    )
    return Measurements(scopes, facts=facts)


def summarise_steps(steps: Mapping[str, FinishedStep], title: str) -> Table:
    """Say of each step how long it took and what it achieved."""
    rows = [
        (name, f"{step.duration_s:.0f} s", step.headline or "done")
        for name, step in steps.items()
    ]
    note = list_footnotes(measure_steps(steps).caveats)
    return Table(title, ("step", "time", "result"), rows, is_list=True, note=note)
