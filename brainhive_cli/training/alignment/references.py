"""References of brain models, such as the name of a run, a recipe or a model folder."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from brainhive_cli.core.base import Line, RecipeError
from brainhive_cli.core.files import hub, locate
from brainhive_cli.core.recipes import Paths, recipe_name_of, shipped_recipes
from brainhive_cli.core.runs import run_folder as runs
from brainhive_cli.training.alignment.model_files import is_model
from brainhive_cli.training.alignment.recipe import Recipe

T = TypeVar("T")
TRAINING = "train-align"
"""Command that trains brain models. As a reference it means the newest run."""
INHERITED_KEYS = (
    "dataset",
    "encoders",
    "heads",
    "head",
    "dim",
    "backbone",
    "fuser",
    "prior",
    "subject_layer",
    "similarity",
    "signal",
)
"""Recipe keys of the architecture and the data, which a fine-tuned model keeps."""


def find_reference(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    *,
    may_be_finetuned: bool = True,
) -> runs.RunFolder:
    """Find the run or model folder that a reference names.

    If the newest run is chosen, its name and age are printed.

    Args:
        reference: One of:

            - The folder of a run, its name, its label, or the end of its name.
            - The name of a train-align recipe, for its newest finished run.
            - A model folder or a published checkpoint.
            - `hub:owner/name[@revision]`, a run or model folder on the hub.
            - None or `train-align`, for the newest finished run.
        paths: Folders of the recipe.
        dataset: Config of the data set that the newest run must have, or None for any.
        may_be_finetuned: If False, the newest run must not be fine-tuned.

    Returns:
        The run, or the model folder as a run.

    Raises:
        MissingData: if there is none.
    """
    # a model folder, on this machine or on the hub
    root = paths.under_home("runs")
    is_shared = reference is not None and reference.startswith(hub.HUB_PREFIX)
    path = hub.fetch_run(str(reference)) if is_shared else locate(reference or "")
    if reference is not None and is_model(path):
        return runs.RunFolder(path)

    # a run by its name
    recipe_name = find_recipe_name(reference, root)
    if reference and reference != TRAINING and recipe_name is None:
        return runs.find(root, TRAINING, str(path) if is_shared else reference)

    # the newest run with this recipe and data set
    dataset_name = None
    if dataset is not None and not recipe_name:  # a recipe has its own data set
        dataset_name = dataset.build(paths).recorded_as
    explain_misfit = partial(
        _explain_misfit,
        paths=paths,
        recipe_name=recipe_name,
        dataset_name=dataset_name,
        may_be_finetuned=may_be_finetuned,
    )
    requirements = []
    if recipe_name:
        requirements.append(f"the recipe {recipe_name}")
    if dataset_name:
        requirements.append(f"the data set {dataset_name}")
    setting = ("recipe", reference) if recipe_name else ("dataset", dataset)
    return runs.find_newest(
        root,
        TRAINING,
        explain_misfit,
        required_content=" and ".join(requirements),
        hint=Line(TRAINING, setting),
    )


def _explain_misfit(
    run: runs.RunFolder,
    paths: Paths,
    recipe_name: str | None,
    dataset_name: str | None,
    may_be_finetuned: bool,
) -> str:
    """Return the requirement that a run does not meet, or "" if it meets all.

    Any run meets a requirement that is None or "".
    """
    recipe = run.recipe(Recipe, paths=paths)
    run_recipe_names = {recipe.recipe_name, *run.read_found().recipe_names}
    if recipe_name is not None and recipe_name not in run_recipe_names:
        names = " and ".join(sorted(filter(None, run_recipe_names)))
        return f"from another recipe, {names}" if names else "from no named recipe"
    if dataset_name is not None:
        run_dataset_name = recipe.dataset.build(paths).recorded_as
        if run_dataset_name != dataset_name:
            return f"on another data set, {run_dataset_name}"
    if recipe.mode == "finetune" and not may_be_finetuned:
        return "fine-tuned already"
    return ""


def list_model_folders(run: runs.RunFolder) -> dict[str, Path]:
    """List the model folders of a run, keyed by cell.

    Args:
        run: Run of train-align, or a model folder, whose key is "".
    """
    if is_model(run.path):
        return {"": run.path}
    models = sorted((run.path / "cells").glob("*/model"))
    return {model.parent.name: model for model in models}


def find_model(run: runs.RunFolder, cell: str = "") -> Path:
    """Find the model folder of a cell, by default of the only cell."""
    return choose_cell(list_model_folders(run), cell, run.name)


def choose_cell(
    cells: Mapping[str, T],
    name: str,
    run: object,
    write_choice: Callable[[str], object] = "cell={}".format,
) -> T:
    """Choose a cell by its name.

    Args:
        cells: Values, such as model folders, by the name of the cell.
        name: Name of the cell, or "" for the only one.
        run: Name of the run, for the error.
        write_choice: Writes the line that chooses a cell by its name, for the error.

    Raises:
        RecipeError: if there is no such cell, or "" could mean several.
    """
    if name in cells:
        return cells[name]
    if not name and len(cells) == 1:
        return next(iter(cells.values()))
    if not cells:
        raise RecipeError(f"{run} has no trained model", "train it first")
    problem = (
        f"{run} has no model {name!r}" if name else f"{run} has {len(cells)} models"
    )
    names = list(cells)
    # Largest number of cells in an error message.
    max_listed_cells = 6
    listed_names = ", ".join(names[:max_listed_cells])
    if len(names) > max_listed_cells:
        listed_names += f" and {len(names) - max_listed_cells} more"
    raise RecipeError(
        f"{problem} (cells: {listed_names})",
        f"choose one of its {len(cells)} models: {write_choice(names[0])}",
    )


def find_recipe_name(reference: str | None, runs_root: Path) -> str | None:
    """Return the name of the train-align recipe that a reference means, or None.

    A run in `runs_root` with the same name or label has precedence.
    """
    if not reference:
        return None
    if (
        runs.is_run(locate(reference))
        or runs.is_run(runs_root / TRAINING / reference)
        or runs.find_labelled(runs_root, TRAINING, reference)
    ):
        return None

    # a recipe file of the user, or a shipped recipe
    shipped = shipped_recipes() / reference.replace("_", "-") / f"{TRAINING}.yaml"
    for file in (Path(reference), shipped):
        # os.path.isfile is False for a name that is too long, where Path raises
        if file.suffix == ".yaml" and os.path.isfile(file):
            return recipe_name_of(file) or None
    return None


def copy_training_keys(recipe: Recipe, training: Recipe) -> Recipe:
    """Copy a recipe of fine-tuning with the keys of the training that it starts from.

    The keys are `INHERITED_KEYS`, and the loss terms unless `recipe` sets its own.
    """
    keys = {key: getattr(training, key) for key in INHERITED_KEYS}
    has_own_loss = bool(recipe.terms) or recipe.loss != type(recipe)().loss
    if not has_own_loss:
        keys |= {"terms": training.terms, "targets": training.targets}
    return recipe.model_copy(update=keys)
