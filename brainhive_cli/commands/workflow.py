"""The command `workflow`: several commands, run one after another as its steps.

A step is a command with its recipe and overrides (`key.path=value`). An axis is a set
of named values, such as "slow" and "fast", each of which changes a step. A step that
runs for several axes is expanded: it becomes a step for each combination of their
values.
"""

import importlib
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core import console, driver, hub, jobs
from brainhive_cli.core.command import Input, Result, collect_inputs, read_paces
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError, Unfinished
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary, key_work
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import READ_ONLY, Launch
from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    add_footnotes,
    list_footnotes,
    mark,
    merge_caveats,
    metric_title,
    scope,
)
from brainhive_cli.core.recipe import MAX_STEPS, BaseRecipe
from brainhive_cli.core.sections import Section
from brainhive_cli.core.tables import Table, TableCell, format_number
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.runs_shown import (
    choose_headline,
    list_headline_values,
    list_part_rows,
)
from brainhive_cli.reports.sentences import state_finding
from brainhive_cli.reports.tables import make_metric_cell

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
"""Commands that write no run. They are repeated whenever the workflow is run."""
OWN_RECIPE = REPEATED + ("calibrate", "explain")
"""Commands that use their own default recipe, and not the recipe of the workflow."""
RUN_REFERENCE = re.compile(r"\{(?P<step>[^{}/]+)(?P<subpath>/[^{}]*)?\}")
"""Reference to the run of an earlier step in an override: `{STEP}` stands for the name
of the run, and `{STEP/model}` for a path in the run.
"""
STATE_EACH_TIME = "each time"
"""State of a step that is run whenever the workflow is run."""
STATE_FINISHED = "finished"
"""State of a step whose run is finished."""
Label = Annotated[str, Field(pattern=r"^[^{}/·]+$")]
"""Name of a step, of an axis, or of a value of an axis. It has no `·`, which joins
labels in the names of expanded steps.
"""


def _as_variation(value: Any) -> Any:
    """Return the overrides of a variation as its section, and a section unchanged."""
    return {"overrides": value} if isinstance(value, str | list) else value


class Variation(Section):
    """Value of an axis: a recipe or overrides for the steps that run for this axis."""

    recipe: str | None = Field(
        None, description="in matrix.AXIS.VALUE: recipe of the steps that it changes"
    )
    overrides: NameList = Field(
        [],
        description="key.path=value of these steps; instead of a section, the value "
        "may be a list of overrides",
    )


class Step(Section):
    """Step of a workflow: a command with its recipe and overrides."""

    # `for` is a keyword of Python, so the field `axes` has it as its alias
    model_config = ConfigDict(serialize_by_alias=True)

    command: StepCommand | None = Field(
        None, description="command to run; default: the name of the step"
    )
    recipe: str | None = Field(
        None,
        description="recipe of the step; default: the workflow's recipe (for "
        "calibrate, explain, compare, check and report: the command's own)",
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
            "default: the axes of the steps that its overrides name. A value of an "
            "axis changes only the first steps that run for this axis, not the steps "
            "that read their runs"
        ),
    )
    says: str = Field(
        "", description="purpose of the step, printed when the step begins"
    )
    heading: str = Field(
        "", description="heading of the step's section on the demo's page"
    )
    quick: NameList = Field(
        [], description="overrides for demo --quick, to make the step fast"
    )


class ExpandedStep(NamedTuple):
    """A step for one combination of axis values.

    Attributes:
        step: Step with the command, recipe and overrides for this combination.
        axis_values: Value of each axis, such as {"rate": "slow"}. Empty without axes.
    """

    step: Step
    axis_values: dict[str, str]


class Recipe(BaseRecipe):
    """Recipe of `workflow`: the steps, and the matrix of values to run them for."""

    is_tracked = True
    writes_run = True
    summary = (
        "Run all steps of a study, from its data to its tables, and continue where an "
        "earlier run stopped."
    )
    example = "--recipe papers/neurons"
    FINGERPRINT_EXCLUDE = BaseRecipe.FINGERPRINT_EXCLUDE | {"until"}

    recipe: str | None = Field(
        None, description="recipe of all steps, by name; default: the commands' own"
    )
    matrix: dict[
        Label, dict[Label, Annotated[Variation, BeforeValidator(_as_variation)]]
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
        description="steps by name, in the order in which they run",
    )
    until: str | None = Field(
        None, description="last step to run; default: the last of all steps"
    )

    @model_validator(mode="after")
    def _check_commands_axes_and_steps(self) -> Self:
        """Check the commands and axes of the steps, and expand the steps.

        Raises:
            RecipeError: if a step has no command, if the steps and the matrix do not
                have the same axes, or if the steps cannot be expanded.
        """
        commands = get_args(StepCommand)
        for name, step in self.steps.items():
            if (step.command or name) not in commands:
                raise RecipeError(
                    f"the step {name} does not say which command it runs",
                    f"set steps.{name}.command to one of: {', '.join(commands)}",
                )

        # each axis is defined by the matrix, and used by a step
        used_axes = set[str]()
        for step in self.steps.values():
            used_axes |= set(step.axes or ())
        for axis in sorted(used_axes - self.matrix.keys()):
            raise RecipeError(
                f"a step runs for the axis {axis}, which `matrix` does not define",
                f"add matrix.{axis}, or remove {axis} from steps.STEP.for",
            )
        for axis in sorted(self.matrix.keys() - used_axes):
            raise RecipeError(
                f"`matrix` defines the axis {axis}, but no step runs for it",
                f"add {axis} to steps.STEP.for, or remove matrix.{axis}",
            )

        _ = self.expanded_steps  # raises an error if steps cannot be expanded
        return self

    @cached_property
    def expanded_steps(self) -> dict[str, ExpandedStep]:
        """Steps for each combination of axis values, by names such as `embed · low`.

        An axis of the matrix is a set of named values, each of which changes a step.

        Raises:
            RecipeError: if an expanded step has several recipes, or if there are more
                than `MAX_STEPS` expanded steps.
        """
        expanded_steps: dict[str, ExpandedStep] = {}
        axes_by_step: dict[str, set[str]] = {}
        for name, step in self.steps.items():
            # a step inherits the axes of the earlier steps that its overrides refer to
            inherited_axes = set[str]()
            for source, _ in RUN_REFERENCE.findall(" ".join(step.overrides)):
                inherited_axes |= axes_by_step.get(source, set())
            step_axes = inherited_axes if step.axes is None else set(step.axes)
            axes_by_step[name] = step_axes
            axes = [axis for axis in self.matrix if axis in step_axes]

            # inherited axes have changed the runs that the step reads, not the step
            new_axes = [axis for axis in axes if axis not in inherited_axes]

            labels_by_axis = [list(self.matrix[axis]) for axis in axes]
            for labels in product(*labels_by_axis):
                if len(expanded_steps) == MAX_STEPS:
                    raise RecipeError(
                        f"the workflow has more than {MAX_STEPS} steps, counted up to "
                        f"{name}",
                        "use fewer axes or values, or several workflows",
                    )
                expanded_name = scope(name, *labels)
                axis_values = dict(zip(axes, labels, strict=True))
                variations = {
                    axis: self.matrix[axis][axis_values[axis]] for axis in new_axes
                }
                varied_step = self._vary_step(name, expanded_name, variations)
                expanded_steps[expanded_name] = ExpandedStep(varied_step, axis_values)
        return expanded_steps

    def _vary_step(
        self, name: str, expanded_name: str, variations: Mapping[str, Variation]
    ) -> Step:
        """Return a copy of a step, changed by the recipes and overrides of axis values.

        Args:
            name: Name of the step in the recipe.
            expanded_name: Name of the changed step, for the error.
            variations: Value of each axis, with a recipe, overrides (`key.path=value`)
                or both. Only one may have a recipe, or set a key.
        """
        step = self.steps[name]
        command = step.command or name
        recipes = []
        overrides = list(step.overrides)
        axis_of: dict[str, str] = {}
        for axis, variation in variations.items():
            if variation.recipe:
                recipes.append(variation.recipe)
            overrides += variation.overrides
            keys = {text.partition("=")[0].strip() for text in variation.overrides}
            for key, (other_key, other_axis) in product(keys, axis_of.items()):
                shorter, longer = sorted((f"{key}.", f"{other_key}."), key=len)
                if longer.startswith(shorter):
                    raise RecipeError(
                        f"{expanded_name}: the axes {other_axis} and {axis} both set "
                        f"{key}",
                        "set it in one of them, or list all combinations in one axis",
                    )
            axis_of |= dict.fromkeys(keys, axis)
        if len(recipes) > 1:
            raise RecipeError(
                f"{expanded_name} has several recipes: {', '.join(recipes)}",
                "set the recipe in one axis, and only overrides in the other axes",
            )

        default_recipe = None if command in OWN_RECIPE else self.recipe
        return step.model_copy(
            update={
                "command": command,
                "recipe": recipes[0] if recipes else step.recipe or default_recipe,
                "overrides": overrides,
            }
        )

    def list_steps(self) -> list[str]:
        """List the expanded steps to run, such as `embed · low`, in their order.

        Steps after the step `until` are left out. `until` is the name of a step, with
        all its expanded steps, or of one expanded step.

        Raises:
            RecipeError: if there are no steps, or if `until` does not name a step.
        """
        names = list(self.expanded_steps)
        if not names:
            raise RecipeError(
                "the workflow has no steps", "name a recipe: --recipe papers/neurons"
            )
        if self.until is None:
            return names

        until_names = [name for name in names if self.until in (name, _get_step(name))]
        if not until_names:
            raise RecipeError(
                f"the workflow has no step {self.until}",
                f"set until to one of: {', '.join(self.steps)}",
            )
        return names[: names.index(until_names[-1]) + 1]

    def get_command(self, name: str) -> StepCommand:
        """Return the command of an expanded step."""
        return cast(StepCommand, self.expanded_steps[name].step.command)

    def write_line(self, name: str, overrides: Sequence[str]) -> str:
        """Return the command line of an expanded step, as a user would type it."""
        recipe = self.expanded_steps[name].step.recipe
        flags = ["--recipe", recipe] if recipe else []
        return shlex.join(["brainhive", self.get_command(name), *flags, *overrides])


def _get_step(name: str) -> str:
    """Return the step of an expanded step: `train-align` for `train-align · low`."""
    return name.partition(" · ")[0]


def resolve_step(
    recipe: Recipe,
    name: str,
    results: Mapping[str, Result],
    extra_overrides: Sequence[str] = (),
) -> tuple[str, Any, Any]:
    """Prepare the command of a workflow step, with the recipe that the command needs.

    Args:
        recipe: Recipe of the workflow.
        name: Name of the expanded step, such as `embed · low`.
        results: Results of the earlier steps, by name. The overrides of the step may
            refer to their runs.
        extra_overrides: Texts `key.path=value`, added to the overrides of the step.

    Returns:
        The command line of the step, the Python module of the command, and the checked
        recipe for `module.run`.
    """
    # replace references such as {train-align} by the names of runs of this step
    step, axis_values = recipe.expanded_steps[name]
    insert_runs = partial(_insert_runs, recipe, axis_values, results)
    overrides = [RUN_REFERENCE.sub(insert_runs, text) for text in step.overrides]
    overrides += extra_overrides

    # remove repeated overrides
    overrides = list(dict.fromkeys(overrides))

    command = recipe.get_command(name)
    module = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    resolved: BaseRecipe = module.Recipe.resolve(command, step.recipe, {}, overrides)

    # a step uses the folders and processes of the workflow
    changes: dict[str, Any] = {"paths": recipe.paths}
    if resolved.can_share_work:
        # the label names the run of the workflow, not the runs of its steps
        changes["run"] = recipe.run.model_copy(update={"label": None})
    resolved = resolved.model_copy(update=changes)
    return recipe.write_line(name, overrides), module, resolved


def _insert_runs(
    recipe: Recipe,
    axis_values: Mapping[str, str],
    results: Mapping[str, Result],
    match: re.Match[str],
) -> str:
    """Return the text that replaces a reference to a step, such as `{embed}`.

    Args:
        recipe: Workflow with all steps.
        axis_values: Values of the matrix axes in the step that has the reference.
        results: Results of the earlier steps, by name.
        match: Match of `RUN_REFERENCE`.

    Returns:
        Names of the step's runs, separated by commas. A reference with a subpath, such
        as `{embed/model}`, gives paths, and a step without a run gives `<NAME>`. Text
        in braces that names no step is returned unchanged.
    """
    subpath = match["subpath"] or ""
    runs = []
    for name, expanded_step in recipe.expanded_steps.items():
        # skip runs for other values of the axes that both steps share
        other_values = expanded_step.axis_values
        shared_axes = other_values.keys() & axis_values.keys()
        has_same_values = all(
            other_values[axis] == axis_values[axis] for axis in shared_axes
        )
        if _get_step(name) != match["step"] or not has_same_values:
            continue

        if name not in results:
            run_text = f"<{name}>"
        elif subpath:
            run_text = str(results[name].folder)
        else:
            run_text = results[name].folder.name
        runs.append(run_text + subpath)
    return ",".join(runs) if runs else match[0]


@dataclass(frozen=True)
class FinishedStep:
    """A step that was run.

    Attributes:
        line: Command line of the step.
        duration_s: Duration of the step in seconds.
        headline: Sentence with the main result. Empty if the step measured nothing.
        result: Result of the command.
    """

    line: str
    duration_s: float
    headline: str
    result: Result


def inputs(recipe: Recipe) -> list[Input]:
    """List the steps of a workflow with their states, and the inputs that are needed.

    Args:
        recipe: Recipe of the workflow.

    Returns:
        - an input for each step, whose note is the state of the step
        - an input for the remaining time, if it can be estimated
        - all inputs of the next step to run
        - downloads of later steps, whose other inputs are made by earlier steps
    """
    step_states: list[Input] = []
    step_inputs: list[Input] = []
    results: dict[str, Result] = {}
    expected_s: list[float | None] = []
    paces = read_paces(recipe.paths.under_home("runs"))
    step_names = list(recipe.steps)

    next_step = None  # first step that is not finished
    for name in recipe.list_steps():
        # find the state of the step
        line, module, resolved = resolve_step(recipe, name, results)
        step = _get_step(name)
        command = recipe.get_command(name)
        is_next = next_step is None or step == next_step
        if not is_next:
            previous_step = step_names[step_names.index(step) - 1]
            state = f"waits for {previous_step}"
        elif command in REPEATED:
            state = STATE_EACH_TIME
        else:
            # READ_ONLY returns the result of a finished run, or raises an error
            try:
                results[name] = module.run(resolved, READ_ONLY)
                state = STATE_FINISHED
            except (BrainhiveError, Unfinished):
                state = "next"
                next_step = step
        step_states.append(Input(f"{name}: {line}", note=state))
        if state in (STATE_FINISHED, STATE_EACH_TIME):
            continue

        # list the inputs of an unfinished step, and estimate its duration
        job = jobs.resolve(module, resolved)
        for job_input in job.list_inputs():
            if is_next:
                step_inputs.append(job_input)
            elif job_input.size or isinstance(job_input.error, hub.Unreachable):
                # the input must be downloaded
                step_inputs.append(replace(job_input, note=f"for {name}"))
        expected_s.append(_estimate_duration(command, job, paces))

    known_s = [duration_s for duration_s in expected_s if duration_s]
    if known_s:
        duration = console.write_duration(sum(known_s))
        note = f"about {duration} for {len(known_s)} of {len(expected_s)} steps"
        step_states.append(Input("remaining time", note=note))
    return collect_inputs(lambda: step_states, lambda: step_inputs)


def _estimate_duration(
    command: str, job: jobs.Job, paces: Mapping[str, tuple[float, int]]
) -> float | None:
    """Estimate the seconds that a job will take, from earlier jobs of its kind.

    Args:
        paces: Seconds per unit of work, and bytes of memory, by the key of `key_work`.

    Returns:
        The duration. None if no earlier job was measured, or if the amount of work is
        unknown.
    """
    # the work is unknown if an earlier step has not written the files of the job
    try:
        work, key = key_work(command, job)
    except BrainhiveError:
        return None
    if not work or key not in paces:
        return None
    seconds_per_unit, _ = paces[key]
    return work.count * seconds_per_unit


@dataclass(frozen=True)
class WorkflowRun(RunJob):
    """Run of a complete workflow, which refers to the runs of its steps."""

    recipe: Recipe
    command = "workflow"

    @property
    def short_name(self) -> str:
        """First part of the name of the run."""
        return (self.recipe.recipe or "steps").replace("/", "-")

    def make_parts(self, run: OpenRun, force: bool) -> dict[str, FinishedStep]:
        """Run the steps of the workflow, and return them by name.

        Args:
            run: Open run folder. `run.launch` has the processes that share the work.
            force: If True, run finished steps again.
        """
        return dict(run_steps(self.recipe, run.launch, force))

    def summarise(self, run: OpenRun) -> Summary:
        """Collect the measurements of the steps."""
        return Summary(measure_steps(run.parts))

    def describe(self, run: OpenRun) -> Result:
        """Describe the steps in tables, with a hint to compare values of the matrix."""
        result = describe_steps(run.folder.path, run.parts)
        if not self.recipe.matrix:
            return result
        return replace(result, hint=Line("report", run.folder.path.name, "--table"))


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Run the steps of a workflow, one after another.

    Args:
        recipe: Recipe of the workflow.
        launch: Processes that share the work of each step.
        force: If True, run all steps again. If False, reuse finished runs, and continue
            an interrupted run.

    Returns:
        The tables, files and measurements of all steps.
    """
    # a workflow that runs all its steps gets a run folder of its own
    if recipe.list_steps() == list(recipe.expanded_steps):
        return driver.run(WorkflowRun(recipe), launch, force)

    # a workflow that stops at the step `until` stores only the runs of its steps
    steps = dict(run_steps(recipe, launch, force))
    return describe_steps(recipe.paths.under_home("runs"), steps)


def describe_steps(path: Path, steps: Mapping[str, FinishedStep]) -> Result:
    """Join the results of steps into the result of their workflow.

    The tables of steps are on the pages of their runs. A terminal shows a single table
    with a row for each step.

    Args:
        path: Folder of the run, or of all runs, which is stored in the result.
        steps: Steps that were run, by name.

    Returns:
        The tables, files and measurements of all steps, a table that summarises the
        steps, and their highest exit code.
    """
    tables: list[Table] = []
    files: dict[str, Path] = {}
    for name, step in steps.items():
        tables += step.result.tables
        for kind, file in step.result.files.items():
            files[f"{name} {kind}"] = file
    tables.append(summarise_steps(steps, "Steps"))

    exit_code = max(step.result.exit_code for step in steps.values())
    return Result(
        path,
        tuple(tables),
        measure_steps(steps),
        files,
        exit_code=exit_code,
        printed_tables=(tabulate_steps(steps),),
    )


def run_steps(
    recipe: Recipe,
    launch: Launch,
    force: bool,
    extra_overrides: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[tuple[str, FinishedStep]]:
    """Run the steps of a workflow, one after another.

    Args:
        recipe: Recipe of the workflow.
        launch: Processes that share the work of each step.
        force: If True, run all steps again. If False, reuse finished runs, and continue
            an interrupted run.
        extra_overrides: Texts `key.path=value` to add to a step, by the name of the
            step.

    Yields:
        The name of each expanded step, such as `embed · low`, and the step with its
        result.
    """
    results: dict[str, Result] = {}
    runs_folder = recipe.paths.under_home("runs")
    for number, name in enumerate(recipe.list_steps(), 1):
        # if runs are only read, skip commands that write none
        step = recipe.expanded_steps[name].step
        command = recipe.get_command(name)
        if command in REPEATED and launch.is_read_only:
            continue

        # steps that compute use the floating-point precision of the workflow
        overrides = list((extra_overrides or {}).get(name, ()))
        if command not in REPEATED and recipe.run.mixed_precision:
            overrides.append(f"run.mixed_precision={recipe.run.mixed_precision}")

        # print the purpose of the step, and its command line
        line, module, resolved = resolve_step(recipe, name, results, overrides)
        heading = f"{number}/{len(recipe.expanded_steps)} {name}"
        message = ["", heading]
        if step.says:
            message.append(f"    {step.says}")
        message.append(f"    {line}")
        console.say(*message)

        # run the step, and measure its duration to estimate later runs
        start_s = time.monotonic()
        with console.progress(heading):
            result = module.run(resolved, launch, force)
        duration_s = time.monotonic() - start_s
        results[name] = result
        result.keep_pace(command, launch, runs_folder, duration_s)
        headline = state_finding(result.metrics)
        yield name, FinishedStep(line, duration_s, headline, result)


def measure_steps(steps: Mapping[str, FinishedStep]) -> Measurements:
    """Collect the measurements of the steps of a workflow.

    Args:
        steps: Steps that were run, by name.

    Returns:
        Metrics over all subjects, by the name of the step, and facts: the command
        lines, the main results, the runs of eval-retrieval, and the caveats (limits of
        a result, such as "simulated").
    """
    scopes = {}
    findings = {}
    retrievals = {}
    caveats = []
    stimulus = "picture"
    for name, step in steps.items():
        measurements = step.result.metrics
        caveats.append(measurements.caveats)
        if measurements.overall:
            scopes[name] = measurements.overall
        if step.headline:
            findings[name] = step.headline
        if isinstance(measurements.facts, RetrievalFacts):
            retrievals[name] = f"eval-retrieval/{step.result.folder.name}"
            stimulus = measurements.facts.stimulus
    facts = WorkflowFacts(
        caveats=merge_caveats(*caveats),
        commands=[step.line for step in steps.values()],
        findings=findings,
        retrievals=retrievals,
        stimulus=stimulus,
    )
    return Measurements(scopes, facts=facts)


def tabulate_steps(steps: Mapping[str, FinishedStep]) -> Table:
    """Return a table with the result, duration and run of each step.

    The note says how many items the results were measured on.
    """
    # the heading names the metric if all results are of the same metric
    summaries = {}
    for name, step in steps.items():
        summaries[name] = _summarise_result(step.result.metrics)
    metric_names = {metric.name for _, metric in summaries.values() if metric}
    heading = "result"
    if len(metric_names) == 1:
        heading = metric_title(metric_names.pop())

    rows = []
    caveats: list[str] = []
    steps_by_sample: dict[str, list[str]] = {}
    for name, step in steps.items():
        step_name, _, variant = name.partition(" · ")
        result, metric = summaries[name]
        chance = ""
        if metric:
            if heading == "result":
                title = metric_title(metric.name)
                result = replace(result, text=f"{title} {result.text}")
            caveats += metric.caveats
            chance = format_number(metric.chance)
            names = steps_by_sample.setdefault(_describe_sample(metric), [])
            if step_name not in names:
                names.append(step_name)
        duration = "< 1 s"
        if step.duration_s >= 1:
            duration = console.write_duration(round(step.duration_s))
        run_name = step.result.folder.name
        rows.append((step_name, variant, result, chance, duration, run_name))

    sentences = []
    for sample, names in steps_by_sample.items():
        sentences.append(f"{', '.join(names)}: {sample}")
    return Table(
        "Steps",
        ("step", "variant", f"{heading}, 95 % CI", "chance", "time", "run"),
        rows,
        note=add_footnotes(". ".join(sentences) + "." if sentences else "", caveats),
        keeps_columns=True,
    )


def _summarise_result(measurements: Measurements) -> tuple[TableCell, Metric | None]:
    """Summarise the most important metric of a step in a table cell.

    Without metrics over all models, the cell has the range over the models.

    Returns:
        The cell, and the metric (of the first model). None if nothing was measured.
    """
    metrics = measurements.overall
    headline = choose_headline(metrics)
    if headline:
        return make_metric_cell(metrics[headline]), metrics[headline]

    # metrics of models, such as the validation of a training
    parts = list_part_rows(measurements)
    headline, values = list_headline_values(parts)
    if not values:
        return TableCell("done"), None
    first_metric = parts[0].metrics[headline]
    cell = TableCell(
        f"{format_number(min(values))} to {format_number(max(values))}",
        small=f"{len(values)} models",
        mark=mark("", first_metric.caveats),
    )
    return cell, first_metric


def _describe_sample(metric: Metric) -> str:
    """Describe the tested items, the candidates and the interval of a metric."""
    phrases = [f"{metric.n:,} tested ({metric.split} split)"]
    if metric.pool:
        phrases.append(f"{metric.pool:,} candidates")
    if metric.low is not None:
        phrases.append(f"interval: {metric.interval}")
    return ", ".join(phrases)


def summarise_steps(steps: Mapping[str, FinishedStep], title: str) -> Table:
    """Return a table of the duration and the main result of each step.

    The note explains the footnote signs of every step.
    """
    rows = []
    footnotes = []
    for name, step in steps.items():
        rows.append((name, f"{step.duration_s:.0f} s", step.headline or "done"))
        for caveat in step.result.metrics.caveats:
            # merged caveats would lack a phrase that another step's caveat includes
            footnote = list_footnotes([caveat])
            if footnote not in footnotes:
                footnotes.append(footnote)
    note = "; ".join(footnotes)
    return Table(title, ("step", "time", "result"), rows, is_list=True, note=note)
