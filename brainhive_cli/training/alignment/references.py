"""References of brain models: a run, a sweep's variant, a recipe, a model folder, the
hub, or none at all.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from brainhive_cli.core import hub, runs
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError
from brainhive_cli.core.files import locate, resolve_below
from brainhive_cli.core.recipe import Paths, recipe_name_of, shipped_recipes
from brainhive_cli.core.sweep import make_variants, select_variant
from brainhive_cli.training.alignment.model_files import is_model
from brainhive_cli.training.alignment.recipe import Recipe

T = TypeVar("T")
TRAINING = "train-align"
"""The command that makes brain models; as a reference it stands for the newest run."""
INHERITED = (
    *("dataset", "encoders", "heads", "head", "dim", "backbone", "fuser", "prior"),
    *("subject_layer", "similarity", "signal"),
)
"""Recipe keys of a model's architecture and data, which a fine-tuned model keeps."""


def find_reference(
    reference: str | None,
    paths: Paths,
    dataset: Any = None,
    *,
    may_be_finetuned: bool = True,
) -> tuple[runs.RunFolder, str]:
    """Find what a reference names; without one, the newest finished run on a data set,
    which is said.

    A reference is a run's folder, name or the end of it; `RUN:VARIANT` of a sweep, or
    `:VARIANT` of the newest sweep that has it; the name of a train-align recipe, which
    stands for the newest finished run that it made; a model folder or published
    checkpoint; or `hub:owner/name[@revision][:VARIANT]`, a run that `push` has
    uploaded, or a model folder in a repository. Whether a model fits what it is opened
    for is checked by who opens it.

    Args:
        reference: How it is named; None: the newest.
        paths: Where runs lie.
        dataset: Config of the data set that the newest run must be of; None: any. A run
            that is named may be of another.
        may_be_finetuned: Whether the newest may be a fine-tuned one.

    Raises:
        MissingData: if there is none, with the line that makes one.
        RecipeError: if a sweep has no such variant.
    """
    # a model folder, here or on the hub
    root, (name, variant) = paths.under_home("runs"), runs.split_variant(reference)
    is_shared = name is not None and name.startswith(hub.HUB_PREFIX)
    path = hub.fetch_run(str(name)) if is_shared else locate(reference or "")
    if reference is not None and is_model(path):
        return runs.RunFolder(path), ""

    # a run that is named, and one variant of it
    recipe_name = name_of_training(name, root)
    if name and name != TRAINING and recipe_name is None:
        run = runs.find(root, TRAINING, str(path) if is_shared else name)
        if variant:
            select_variant(
                make_variants(run.recipe(Recipe, paths=paths)), variant, run.name
            )
        return run, variant

    # a recipe's name already says the data set
    wanted = (
        None if dataset is None or recipe_name else dataset.build(paths).recorded_as
    )

    def describe_lacking(run: runs.RunFolder) -> str:
        """Say why a run is not the one that is meant; empty if it is."""
        recipe = run.recipe(Recipe, paths=paths)
        names = {recipe.recipe_name, *run.read_found().recipe_names}
        if recipe_name is not None and recipe_name not in names:
            makers = " and ".join(filter(None, sorted(names)))
            return f"made by {makers or 'no recipe that is named'}"
        if (
            wanted is not None
            and (actual := recipe.dataset.build(paths).recorded_as) != wanted
        ):
            return f"data set {actual}, not {wanted}"
        if variant and variant not in make_variants(recipe):
            return f"no variant {variant!r}"
        return (
            "" if may_be_finetuned or recipe.mode != "finetune" else "fine-tuned itself"
        )

    # the newest finished run that lacks nothing, or the line that would make one
    needed = {
        "the recipe": recipe_name,
        "the data set": wanted,
        "the variant": variant and repr(variant),
    }
    described = " and ".join(
        f"{what} {value}" for what, value in needed.items() if value
    )
    way = str(Line(TRAINING, ("recipe", name) if recipe_name else ("dataset", dataset)))
    way += f", with a sweep that has {variant!r}" if variant else ""
    return runs.find_newest(
        root, TRAINING, describe_lacking, required_content=described, hint=way
    ), variant


def model_folders(run: runs.RunFolder, variant: str = "") -> dict[str, Path]:
    """List the folder of each cell's model, by the cell's name; a single model has
    none.
    """
    if is_model(run.path):
        return {"": run.path}
    # cells lie in cells/[VARIANT/]CELL, each with a folder `model`
    cells = resolve_below(
        run.path / "cells", *filter(None, [variant]), source="the variant of a run,"
    )
    return {
        str(model.parent.relative_to(cells)): model
        for model in sorted(cells.glob("**/model"))
    }


def find_model(run: runs.RunFolder, variant: str = "", cell: str = "") -> Path:
    """Find the folder of a cell's model; without a name, of the only one; raises as
    `choose_cell`.
    """
    return choose_cell(model_folders(run, variant), cell, run.name)


def choose_cell(cells: Mapping[str, T], name: str, where: object) -> T:
    """Choose a cell by its name; without a name, the only one.

    Args:
        cells: Cells of a run, by name.
        name: Which; empty for the only one.
        where: The run, for the error.

    Raises:
        RecipeError: if there is no such cell, or several could be meant; the hint lists
            them.
    """
    if name in cells or (not name and len(cells) == 1):
        return cells[name or next(iter(cells))]

    # no such cell, or an empty name that several cells could mean
    problem = (
        f"no cell {name!r}" if name else f"{len(cells)} cells, of which none is named"
    )
    raise RecipeError(f"{where} has {problem}", ", ".join(cells) or "train it first")


def known_variants(run: str | None, paths: Paths) -> set[str]:
    """List the variants of all runs that a reference may mean, which is written without
    its variant.
    """
    root, labels = paths.under_home("runs"), set[str]()
    folders = []
    with suppress(BrainhiveError):  # where there is no such run
        # a named run, or else all finished ones
        is_one = run not in (None, "", TRAINING) and name_of_training(run, root) is None
        folders = (
            [runs.find(root, TRAINING, str(run))]
            if is_one
            else runs.list_finished_runs(root, TRAINING)
        )
    for folder in folders:
        with suppress(BrainhiveError):  # a damaged run has none
            labels |= {*make_variants(folder.recipe(Recipe))}
    return labels


def rejoined(names: Sequence[str], paths: Paths) -> list[str]:
    """Join the names of variants that were split at their commas."""
    # a name continues the one before it if both are a variant, or the start of one
    joined: list[str] = []
    for name in names:
        longer = ",".join([*joined[-1:], name])
        run, variant = runs.split_variant(longer)
        labels = known_variants(run, paths) if joined and variant else ()
        # a variant, or the start of one
        if any(f"{label},".startswith(f"{variant},") for label in labels):
            joined[-1] = longer
        else:
            joined.append(name)
    return joined


def name_of_training(reference: str | None, runs_root: Path) -> str | None:
    """Give the name of the train-align recipe that a reference means; None where it
    means none.
    """
    # a run's folder comes before a recipe of the same name
    if (
        not reference
        or runs.is_run(locate(reference))
        or runs.is_run(runs_root / TRAINING / reference)
    ):
        return None
    # a recipe file of the user, or a shipped one
    shipped = shipped_recipes() / reference.replace("_", "-") / f"{TRAINING}.yaml"
    for file in (Path(reference), shipped):
        # to a Path, a name that is too long is an error
        if file.suffix == ".yaml" and os.path.isfile(file):
            return recipe_name_of(file) or None
    return None


def inherited(recipe: Recipe, training: Recipe) -> Recipe:
    """Take over the keys that a model fine-tuned by a recipe keeps of the one that
    another has trained.
    """
    keys = {key: getattr(training, key) for key in INHERITED}
    # the objective too, unless the recipe sets its own
    if not recipe.terms and recipe.loss == type(recipe)().loss:
        keys |= {"terms": training.terms, "targets": training.targets}
    return recipe.model_copy(update=keys)
