"""The command `workflow`: several commands, run one after another as its steps.

A step is a command with its recipe and overrides (`key.path=value`). An axis is a set
of named values, such as "slow" and "fast", each of which changes a step. A step that
runs for several axes is expanded: it becomes a step for each combination of their
values. The values that the recipe of a step sweeps are such axes, too. The runs of an
expanded step do not depend on one another, so they share data, and the cells of
trainings are one queue.
"""

import copy
import importlib
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast, get_args

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    RecipeError,
    Table,
    TableCell,
    Unfinished,
    console,
    format_number,
)
from brainhive_cli.core.files import Input, collect_inputs, hub
from brainhive_cli.core.recipes import (
    MAX_STEPS,
    BaseRecipe,
    NameList,
    Section,
    find_recipe,
    parse_value,
    read_recipe,
    validate,
)
from brainhive_cli.core.results import (
    Difference,
    Measurements,
    Metric,
    add_footnotes,
    list_footnotes,
    mark,
    merge_caveats,
    metric_title,
    scope,
)
from brainhive_cli.core.runs import (
    METRICS_FILE,
    READ_ONLY,
    Launch,
    OpenRun,
    Result,
    RunJob,
    Summary,
    SweptRecipe,
    driver,
    jobs,
    key_work,
    list_axes,
    read_paces,
)
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.sentences.sentences import state_finding
from brainhive_cli.reports.tables import (
    choose_headline,
    difference_table,
    list_headline_values,
    list_part_rows,
    make_metric_cell,
)

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
SWEPT = ("train-align", "reconstruct")
"""Commands whose recipes may sweep values."""
QUEUED = ("train-align",)
"""Commands whose runs of an expanded step are computed in one queue of cells."""
COMPARED = ("eval-retrieval", "reconstruct")
"""Commands whose runs of an expanded step are compared, item by item."""
REPEATED = ("compare", "check", "report")
"""Commands that write no run. They are repeated whenever the workflow is run."""
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
            "key.path=value; {STEP} is the run of an earlier step, {STEP · VALUE} its "
            "run for a value of an axis, {STEP/model} a path in it"
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
    compare: bool | str = Field(
        False,
        union_mode="left_to_right",
        description="of eval-retrieval and reconstruct: value of the axes with whose "
        "run the others are compared item by item; true, and always for a sweep: the "
        "best on validation, or the first",
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
            Axes that no matrix defines are swept by recipes.
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

        # the property raises an error if steps cannot be expanded
        expanded_names = list(self.expanded_steps)
        for name, step in self.steps.items():
            if isinstance(step.compare, str):
                names = [text for text in expanded_names if get_step_name(text) == name]
                if not any(_has_value(text, step.compare) for text in names):
                    labels = [text.partition(" · ")[2] for text in names]
                    raise RecipeError(
                        f"steps.{name}.compare is {step.compare!r}, no value of its "
                        "axes",
                        f"choose from: {', '.join(filter(None, labels)) or 'none'}",
                    )
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
        read_recipe_once = cache(_read_recipe_sweep)
        for name, step in self.steps.items():
            # a step inherits the axis values of the runs that its overrides refer to
            combinations: Iterable[dict[str, str]] = [{}]
            for source, _ in RUN_REFERENCE.findall(" ".join(step.overrides)):
                runs = _list_runs(expanded_steps, source, {})
                run_values = [expanded_steps[run].axis_values for run in runs] or [{}]
                joined_values = (
                    first | second
                    for first, second in product(combinations, run_values)
                    if _have_same_values(first, second)
                )
                # more combinations than steps are an error below
                combinations = list(islice(joined_values, MAX_STEPS + 1))
            inherited_axes = set(chain.from_iterable(combinations))
            if step.axes is not None:
                # axes of its own replace the inherited axes and sweeps
                axes = [axis for axis in self.matrix if axis in step.axes]
                label_products = product(*[self.matrix[axis] for axis in axes])
                combinations = (
                    dict(zip(axes, labels, strict=True)) for labels in label_products
                )

            for values in combinations:
                # inherited axes have changed the runs that the step reads, not the step
                labels = []
                variations = {}
                for axis, variation_of_label in self.matrix.items():
                    if axis in values:
                        labels.append(values[axis])
                        if axis not in inherited_axes:
                            variations[axis] = variation_of_label[values[axis]]
                varied_step = self._vary_step(name, scope(name, *labels), variations)
                for own_values, swept_step in _sweep_step(
                    name, varied_step, read_recipe_once
                ):
                    if len(expanded_steps) == MAX_STEPS:
                        raise RecipeError(
                            f"the workflow has more than {MAX_STEPS} steps, counted up "
                            f"to {name}",
                            "use fewer axes or values, or several workflows",
                        )
                    all_values = values | own_values
                    swept_labels = [
                        label
                        for axis, label in all_values.items()
                        if axis not in self.matrix
                    ]
                    expanded_name = scope(name, *labels, *swept_labels)
                    expanded_steps[expanded_name] = ExpandedStep(swept_step, all_values)
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

        # Commands that use their own default recipe, and not the recipe
        # of the workflow.
        own_recipe = REPEATED + ("calibrate", "explain")
        default_recipe = None if command in own_recipe else self.recipe
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

        until_names = [
            name for name in names if self.until in (name, get_step_name(name))
        ]
        if not until_names:
            raise RecipeError(
                f"the workflow has no step {self.until}",
                f"set until to one of: {', '.join(self.steps)}",
            )
        return names[: names.index(until_names[-1]) + 1]

    def group_steps(self) -> list[list[str]]:
        """List the names of `list_steps`, with a list for the runs of each step.

        The runs of one step do not depend on one another.
        """
        names_by_step: dict[str, list[str]] = {}
        for name in self.list_steps():
            names_by_step.setdefault(get_step_name(name), []).append(name)
        return list(names_by_step.values())

    def group_tasks(self) -> dict[str, list[str]]:
        """List the names of `list_steps` for each job of a cluster, by its name.

        The runs of a step share a job if they are computed in one queue or compared.
        """
        groups = {}
        for names in self.group_steps():
            if self.get_command(names[0]) in QUEUED + COMPARED:
                groups[get_step_name(names[0])] = names
            else:
                groups |= {name: [name] for name in names}
        return groups

    def list_compared_steps(self, names: Iterable[str]) -> list[list[str]]:
        """List the expanded steps whose runs are compared with one another.

        They differ in swept values only, or in all values if the step says what they
        are compared with. The first name of a list is the chosen reference, if the step
        has one.

        Args:
            names: Names of expanded steps.
        """
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            step, axis_values = self.expanded_steps[name]
            other_values = [
                value for axis, value in axis_values.items() if axis in self.matrix
            ]
            is_swept = len(other_values) < len(axis_values)
            if step.command in COMPARED and (is_swept or step.compare):
                group_values = other_values if is_swept else ()
                group = groups.setdefault((get_step_name(name), *group_values), [])
                is_reference = isinstance(step.compare, str) and _has_value(
                    name, step.compare
                )
                group.insert(0 if is_reference else len(group), name)
        return [group for group in groups.values() if len(group) > 1]

    def get_command(self, name: str) -> StepCommand:
        """Return the command of an expanded step."""
        return cast(StepCommand, self.expanded_steps[name].step.command)

    def write_line(self, name: str, overrides: Sequence[str]) -> str:
        """Return the command line of an expanded step, as a user would type it."""
        recipe = self.expanded_steps[name].step.recipe
        flags = ["--recipe", recipe] if recipe else []
        return shlex.join(["brainhive", self.get_command(name), *flags, *overrides])


def get_step_name(name: str) -> str:
    """Return the step of an expanded step: `train-align` for `train-align · low`."""
    return name.partition(" · ")[0]


def _has_value(name: str, value: str) -> bool:
    """Return True if the name of an expanded step ends with a value of its axes."""
    return name.endswith(f" · {value}")


def _read_recipe_sweep(command: str, recipe: str | None) -> Any:
    """Read the key `sweep` of a recipe. An error in the recipe is left to its step."""
    with suppress(BrainhiveError):
        return read_recipe(find_recipe(command, recipe), command).get("sweep")
    return None


def _sweep_step(
    name: str, step: Step, read_recipe_sweep: Callable[[str, str | None], Any]
) -> list[tuple[dict[str, str], Step]]:
    """List the combinations of the values that a step sweeps.

    Args:
        name: Name of the step in the recipe.
        step: Step, with its command.
        read_recipe_sweep: Reads the key `sweep` of a recipe, by command and name.

    Returns:
        Values by axis, and the step with these values, which sweeps nothing itself.
        Without a sweep, the step itself without values.

    Raises:
        RecipeError: if the sweep is invalid.
    """
    if step.command not in SWEPT:
        return [({}, step)]
    recipe_sweep = read_recipe_sweep(step.command, step.recipe)
    fields = {"sweep": copy.deepcopy(recipe_sweep or {})}
    other_overrides = []
    for override in step.overrides:
        key, _, text = override.partition("=")
        if key.partition(".")[0] == "sweep":
            SweptRecipe.set_key(fields, key, parse_value(text, override))
        else:
            other_overrides.append(override)
    axes = list_axes(validate(SweptRecipe, fields).sweep)
    other_overrides = [
        text for text in other_overrides if text.partition("=")[0] not in axes
    ]
    if recipe_sweep:
        other_overrides.append("sweep={}")

    combinations = []
    for labels in product(*axes.values()):
        values = {}
        overrides = list(other_overrides)
        for (key, override_of), label in zip(axes.items(), labels, strict=True):
            values[f"{name}.{key}"] = label
            overrides.append(override_of[label])
        swept_step = step.model_copy(update={"overrides": overrides})
        combinations.append((values, swept_step))
    return combinations


def _list_runs(
    expanded_steps: Mapping[str, ExpandedStep],
    step_name: str,
    axis_values: Mapping[str, str],
) -> list[str]:
    """List the expanded steps of a step whose runs another step reads.

    Args:
        expanded_steps: Expanded steps by name.
        step_name: Name of the step whose runs are read.
        axis_values: Values of the axes in the step that reads them. Runs for other
            values of the axes that both steps share are left out.
    """
    return [
        name
        for name, expanded_step in expanded_steps.items()
        if get_step_name(name) == step_name
        and _have_same_values(expanded_step.axis_values, axis_values)
    ]


def _have_same_values(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Return True if two steps have equal values of the axes that both have."""
    return all(first[axis] == second[axis] for axis in first.keys() & second.keys())


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
    # remove repeated overrides
    overrides = list(dict.fromkeys([*overrides, *extra_overrides]))

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
    # a reference names a step, or one of its expanded steps
    names = [match["step"]]
    if match["step"] not in recipe.expanded_steps:
        names = _list_runs(recipe.expanded_steps, match["step"], axis_values)

    subpath = match["subpath"] or ""
    runs = []
    for name in names:
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
        step = get_step_name(name)
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
        steps = list(self.recipe.steps)
        name = self.recipe.recipe or (steps[0] if len(steps) == 1 else "steps")
        return name.replace("/", "-")

    def make_parts(self, run: OpenRun, force: bool) -> dict[str, FinishedStep]:
        """Run the steps of the workflow, and return them by name.

        Args:
            run: Open run folder. `run.launch` has the processes that share the work.
            force: If True, run finished steps again.
        """
        return dict(run_steps(self.recipe, run.launch, force))

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a step has another run than when the workflow was finished."""
        facts = run.folder.measurements().require_facts(WorkflowFacts)
        return facts.step_runs != list_step_runs(run.parts)

    def summarise(self, run: OpenRun) -> Summary:
        """Collect the measurements of the steps, and compare their runs."""
        return Summary(measure_steps(self.recipe, run.parts))

    def describe(self, run: OpenRun) -> Result:
        """Describe the steps in tables, with a hint to evaluate or compare the runs."""
        path = run.folder.path
        result = describe_steps(path, run.parts, run.folder.measurements())
        expanded_steps = self.recipe.expanded_steps.values()
        commands = {expanded_step.step.command for expanded_step in expanded_steps}
        if commands == {"train-align"}:
            return replace(result, hint=Line("eval-retrieval", ("run", path.name)))
        if any(expanded_step.axis_values for expanded_step in expanded_steps):
            return replace(result, hint=Line("report", path.name, "--table"))
        return result


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
    measurements = measure_steps(recipe, steps)
    return describe_steps(recipe.paths.under_home("runs"), steps, measurements)


def describe_steps(
    path: Path, steps: Mapping[str, FinishedStep], measurements: Measurements
) -> Result:
    """Join the results of steps into the result of their workflow.

    The tables of steps are on the pages of their runs. A terminal shows a single table
    with a row for each step.

    Args:
        path: Folder of the run, or of all runs, which is stored in the result.
        steps: Steps that were run, by name.
        measurements: Measurements of all steps.

    Returns:
        The tables, files and measurements of all steps, a table that summarises the
        steps, and their highest exit code.
    """
    for reason in measurements.facts.not_compared:
        console.warn(f"not compared: {reason}")
    differences = difference_table(measurements.facts.comparisons)
    difference_tables = (differences,) if differences.rows else ()
    tables: list[Table] = []
    files: dict[str, Path] = {}
    for name, step in steps.items():
        tables += step.result.tables
        for kind, file in step.result.files.items():
            files[f"{name} {kind}"] = file
    tables += [*difference_tables, summarise_steps(steps, "Steps")]

    exit_code = max(step.result.exit_code for step in steps.values())
    return Result(
        path,
        tuple(tables),
        measurements,
        files,
        exit_code=exit_code,
        printed_tables=(tabulate_steps(steps), *difference_tables),
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
            step before its expansion.

    Yields:
        The name of each expanded step, such as `embed · low`, and the step with its
        result. Its duration is an equal share of the time of all runs of the step.
    """
    results: dict[str, Result] = {}
    runs_folder = recipe.paths.under_home("runs")
    number = 0
    # Largest number of command lines that are printed before the runs of a step.
    max_printed_lines = 12
    for names in recipe.group_steps():
        # if runs are only read, skip commands that write none
        step_name = get_step_name(names[0])
        command = recipe.get_command(names[0])
        if command in REPEATED and launch.is_read_only:
            number += len(names)
            continue

        # steps that compute use the floating-point precision of the workflow
        overrides = list((extra_overrides or {}).get(step_name, ()))
        if command not in REPEATED and recipe.run.mixed_precision:
            overrides.append(f"run.mixed_precision={recipe.run.mixed_precision}")

        # print the purpose of the step, and its command lines
        lines = {}
        recipes = {}
        for name in names:
            number += 1
            lines[name], module, recipes[name] = resolve_step(
                recipe, name, results, overrides
            )
            if len(lines) > max_printed_lines:
                continue
            heading = f"{number}/{len(recipe.expanded_steps)} {name}"
            message = ["", heading]
            says = recipe.expanded_steps[name].step.says
            if says and name == names[0]:
                message.append(f"    {says}")
            message.append(f"    {lines[name]}")
            console.say(*message)
        n_more = len(names) - max_printed_lines
        if n_more > 0:
            console.say("", f"and {n_more:,} more runs of {step_name}")

        # run the step, and measure its duration to estimate later runs
        start_s = time.monotonic()
        with console.progress(heading):
            step_results = _run_group(command, module, recipes, launch, force)
        duration_s = (time.monotonic() - start_s) / len(names)
        results |= step_results
        for name, result in step_results.items():
            result.keep_pace(command, launch, runs_folder, duration_s)
            headline = state_finding(result.metrics)
            yield name, FinishedStep(lines[name], duration_s, headline, result)


def _run_group(
    command: str,
    module: Any,
    recipes: Mapping[str, Any],
    launch: Launch,
    force: bool,
) -> dict[str, Result]:
    """Make the runs of a step, which share data, and perhaps one queue of cells.

    Args:
        command: Command of the step.
        module: Module of the command.
        recipes: Recipe of each run, by the name of the expanded step.
        launch: Processes that share the work.
        force: If True, make finished runs again.
    """
    if len(recipes) == 1 or command not in QUEUED + COMPARED:
        return {
            name: module.run(recipe, launch, force) for name, recipe in recipes.items()
        }

    # all runs share the data of the first run
    first_job: RunJob | None = None
    queue = {}
    results = {}
    finished_names = list[str]()
    for name, recipe in recipes.items():
        job = module.resolve_job(recipe, first_job)
        if isinstance(job, jobs.UnresolvedJob):
            raise job.error
        first_job = first_job or job
        if command in QUEUED:
            queue[name] = job
        else:
            results[name] = driver.run(job, launch, force, finished_names, is_part=True)
    if finished_names:
        names = console.summarise_names(finished_names)
        console.say(f"found finished runs, {names}")
    return results or driver.run_together(queue, launch, force)


def list_step_runs(steps: Mapping[str, FinishedStep]) -> dict[str, str]:
    """List the runs of the steps of a workflow, as COMMAND/NAME by name of the step."""
    return {
        name: f"{step.result.folder.parent.name}/{step.result.folder.name}"
        for name, step in steps.items()
        if (step.result.folder / METRICS_FILE).is_file()
    }


def measure_steps(recipe: Recipe, steps: Mapping[str, FinishedStep]) -> Measurements:
    """Collect the measurements of the steps of a workflow, and compare their runs.

    Args:
        recipe: Recipe of the workflow.
        steps: Steps that were run, by name.

    Returns:
        Metrics over all subjects, by the name of the step, and facts: the command
        lines, the main results, the runs, the caveats (limits of a result, such as
        "simulated"), and the differences between runs of a step.
    """
    from brainhive_cli.measurement import compare_runs

    scopes = {}
    findings = {}
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
            stimulus = measurements.facts.stimulus

    # compare the runs of a step, whose p values are adjusted together
    compared: dict[str, dict[str, Any]] = {}
    comparisons: list[Difference] = []
    reasons: list[str] = []
    for names in recipe.list_compared_steps(steps):
        runs_of_step = {name: steps[name].result.metrics for name in names}
        validations = {name: run.facts.validation for name, run in runs_of_step.items()}
        compared |= validations
        reference = names[0]
        if not isinstance(recipe.expanded_steps[reference].step.compare, str):
            reference = _choose_reference(validations)
        reference_run = runs_of_step.pop(reference)
        pairs = {}
        for name, measurements in runs_of_step.items():
            pairs[reference, name] = (reference_run, measurements)
        differences, errors = compare_runs(pairs, noun="variant")
        comparisons += differences
        reasons += [error.message for error in errors.values()]

    facts = WorkflowFacts(
        caveats=merge_caveats(*caveats),
        commands=[step.line for step in steps.values()],
        findings=findings,
        step_runs=list_step_runs(steps),
        stimulus=stimulus,
        compared=compared,
        comparisons=comparisons,
        not_compared=reasons,
    )
    return Measurements(scopes, facts=facts)


def _choose_reference(validations: Mapping[str, Mapping[str, Any]]) -> str:
    """Choose the run with the best validation, or the first.

    Args:
        validations: Validation of each run of a step, by name.
    """
    # only values on the pictures of the first run can be ranked with it
    first_name = next(iter(validations))
    measured_on = validations[first_name].get("measured_on")
    values = {}
    for name, validation in validations.items():
        if validation.get("measured_on") == measured_on:
            values[name] = validation.get("value", -1.0)
    return max(values, key=values.__getitem__)


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
