"""Command lines, and the workflows that some of them mean."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base import BrainhiveError, write_value
from brainhive_cli.core.recipes import validate
from brainhive_cli.core.runs import RunFolder, SweptRecipe, run_folder as runs

WORKFLOW = "workflow"
"""Command of workflows. As a reference it means the newest run."""


def resolve_line(
    command: str,
    name: str | None,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
) -> tuple[str, Any, Any]:
    """Resolve a command line to a command with its recipe.

    A recipe that sweeps values means a workflow with a run for each combination. An
    evaluation of a workflow means a workflow that evaluates each of its trainings.

    Args:
        command: Name of the command.
        name: Name of the recipe, or None.
        flags: Values of the flags, by recipe key.
        overrides: Texts `key.path=value`.

    Returns:
        The command that is executed, its Python module and its recipe.

    Raises:
        RecipeError: if there is no such recipe, or if a key or value is invalid.
    """
    module = _import_command(command)
    resolved = module.Recipe.resolve(command, name, flags, overrides)
    trainings = _list_trainings(resolved) if command == "eval-retrieval" else {}
    is_swept = isinstance(resolved, SweptRecipe) and bool(resolved.sweep)
    if not trainings and not is_swept:
        return command, module, resolved

    # the step sets all keys of the line except the training and the workflow's own
    texts = []
    for key, value in flags.items():
        if value is not None:
            texts.append(f"{key}={write_value(value)}")
    step_overrides = []
    for text in [*texts, *overrides]:
        key = text.partition("=")[0]
        is_run = key in ("run", "align_run")
        # Sections of the workflow, which its steps do not set.
        is_own = key.partition(".")[0] in ("run", "paths") and not is_run
        if not is_own and not (is_run and trainings):
            step_overrides.append(text)
    step: dict[str, Any] = {"recipe": name, "overrides": step_overrides}
    fields: dict[str, Any] = {
        "steps": {command: step},
        "paths": resolved.paths,
        "run": resolved.run,
    }
    if trainings:
        # Axis of the trainings of a workflow that an evaluation names.
        training_axis = "training"
        fields["matrix"] = {training_axis: trainings}
        step |= {"for": [training_axis], "compare": True}

    # invalid values are told before the first run
    workflow = _import_command(WORKFLOW)
    recipe = validate(workflow.Recipe, fields)
    for step_name in recipe.expanded_steps:
        workflow.resolve_step(recipe, step_name, {})
    return WORKFLOW, workflow, recipe


def _import_command(command: str) -> Any:
    """Import the Python module of a command."""
    module_name = command.replace("-", "_")
    return importlib.import_module(f"brainhive_cli.commands.{module_name}")


def _list_trainings(recipe: Any) -> dict[str, list[str]]:
    """List the trainings of the workflow that a recipe of eval-retrieval evaluates.

    Returns:
        Override that names the training, by the label of its step. Empty if the recipe
        names no workflow.
    """
    names = recipe.align_run or []
    if len(names) != 1:
        return {}
    root = recipe.paths.under_home("runs")
    if names[0] == WORKFLOW:
        run = runs.find_newest(
            root,
            WORKFLOW,
            lambda run: "" if _read_trainings(run) else "without trainings",
            required_content="trainings",
        )
        return _read_trainings(run)
    with suppress(BrainhiveError):  # the evaluation reports a missing run
        return _read_trainings(runs.find(root, WORKFLOW, names[0]))
    return {}


def _read_trainings(run: RunFolder) -> dict[str, list[str]]:
    """Read the trainings of a workflow, as `_list_trainings` returns them."""
    facts = run.measurements().facts
    trainings = {}
    if isinstance(facts, WorkflowFacts):
        for step_name, run_name in facts.step_runs.items():
            command, _, name = run_name.partition("/")
            if command == "train-align":
                label = step_name.partition(" · ")[2] or step_name
                trainings[label] = [f"align_run={name}"]
    return trainings
