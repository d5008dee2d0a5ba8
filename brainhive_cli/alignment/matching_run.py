"""Which align run makes the tokens that a Fusion Prior takes."""

from collections.abc import Sequence
from contextlib import suppress

import torch

from brainhive_cli.alignment import model as aligners
from brainhive_cli.alignment.layout import Layout
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.sweep import of_variant, variant_of
from brainhive_cli.core import console, parts, runs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.command_lines import command, seen, taking
from brainhive_cli.data.encoder_keys import encoders_of, match_prior, recipe_around
from brainhive_cli.datasets import Dataset
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.priors.fusion_prior import FusionPrior, digest, fused_by
from brainhive_cli.stores.target_store import path_of

DEFAULT_DATASET = "things_eeg"
"""What train-align takes unless told otherwise."""


def find_run(asked: str | None, prior: FusionPrior, source: str, paths: Paths) -> tuple[RunFolder, str]:
    """Take the run asked for, or the newest whose fusion encoder is the prior's; and the variant of a sweep.

    Args:
        asked: A run's folder or name, or `SWEEP:VARIANT`; None for the newest that fits.
        prior: Whose tokens it must make.
        source: What the user calls the prior.
        paths: Where runs lie.

    Raises:
        MissingData: if there is none, with the line that makes one.
        RecipeError: if it is a sweep of which no variant is named; the hint lists them.
        BrainhiveError: if the run asked for makes other tokens; it names both.
    """
    root = paths.under_home("runs")
    if asked is not None:
        name, variant = of_variant(asked)
        run = runs.find(root, "train-align", name)
        _check(run, _made(run, variant), variant, prior, source, paths)
        return run, variant
    found = runs.newest(root, "train-align", lambda run: _fits(run, prior, source))
    if found is None:
        raise MissingData(
            f"no finished align run under {root / 'train-align'} has the tokens of {source}",
            _training(source, paths),
        )
    _made(found, "")
    return found, ""


def _made(run: RunFolder, variant: str) -> Recipe:
    return variant_of(Recipe.model_validate(run.recipe()), variant, run.path.name)


def _training(source: str, paths: Paths) -> str:
    """Write the lines that lead to pictures, on the data that the prior is for where that is known."""
    arguments, dataset = taking("train-align", source), None
    if "--prior" in arguments and (of := recipe_around(fused_by(source)[0]).get("dataset")):
        dataset = seen(parts.resolve("datasets", of), paths)
    lines = [
        command("train-align", dataset, [], *arguments),
        command("reconstruct", None, [], "--prior", source),
    ]
    with suppress(RecipeError):  # of a prior whose encoders have no names that we know
        pictures, encoders = dataset or parts.resolve("datasets", DEFAULT_DATASET), encoders_of(source)
        if not _are_embedded(pictures.build(paths), encoders, paths):
            lines.insert(0, command("embed", pictures, encoders))
    return " && ".join(lines)


def _are_embedded(dataset: Dataset, encoders: Sequence[EncoderConfig], paths: Paths) -> bool:
    root = paths.under_home("embeddings")
    return all(
        path_of(root, dataset.name, split, config.name).is_file()
        for split in dataset.splits
        for config in encoders
    )


def _check(run: RunFolder, made: Recipe, variant: str, prior: FusionPrior, source: str, paths: Paths) -> None:
    layout, is_same = _compare(run, prior, source, variant)
    dim = layout.heads[layout.compared[0]].width
    if dim != prior.dim:
        raise BrainhiveError(
            f"the tokens of {run.path} have {dim} dimensions, those of {source} {prior.dim}",
            _training(source, paths),
        )
    match_prior(source, made.encoders)
    if not is_same:
        console.warn(f"{run.path} was trained against another fusion encoder than that of {source}")


def _fits(run: RunFolder, prior: FusionPrior, source: str) -> bool:
    """Whether a run has the prior's tokens; one that is damaged is passed over, with a warning."""
    try:
        return _compare(run, prior, source)[1]
    except BrainhiveError as error:
        console.warn(f"{error.message}; passed over")
        return False


def _compare(run: RunFolder, prior: FusionPrior, source: str, variant: str = "") -> tuple[Layout, bool]:
    """Read a run's layout, and whether it was trained for this prior, or one of the same fusion encoder."""
    cells = run.path / "cells" / variant
    model = aligners.load(min(cells.glob("**/model"), default=cells))  # a sweep's lie one folder deeper
    if model.layout.prior_digest == digest(source):
        return model.layout, True
    mine = model.fuser.state_dict() if model.fuser is not None else {}
    theirs = prior.fusion_encoder["vision_model"].state_dict()
    same = mine.keys() == theirs.keys() and all(
        mine[key].shape == value.shape and torch.allclose(mine[key], value.float().cpu())
        for key, value in theirs.items()
    )
    return model.layout, same
