"""Which align run predicts what a prior takes."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from brainhive_cli import priors
from brainhive_cli.alignment.model import Aligner, load
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.core import console, parts, runs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.file_names import below
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import of_variant, variant_of, variants
from brainhive_cli.data.command_lines import command, only_if_recorded, write_prior
from brainhive_cli.data.encoder_keys import encoders_of, match_prior, recipe_around
from brainhive_cli.datasets import Dataset
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.priors import Prior
from brainhive_cli.stores.target_store import path_of

DEFAULT_DATASET = "things-eeg"
"""The default of train-align."""


def find_run(reference: str | None, prior: Prior, source: str, paths: Paths) -> tuple[RunFolder, str]:
    """Find a run by its reference, or the newest that matches the prior; and the variant of a sweep.

    A prior without a fuser takes any run. `:VARIANT` is that of the newest sweep that has it. `source` is the
    prior's reference.

    Raises:
        MissingData: if there is none, with the line that makes one.
        RecipeError: if it is a sweep and no variant is named; the hint lists them.
        BrainhiveError: if the named run predicts other tokens; it names both.
    """
    root = paths.under_home("runs")
    name, variant = of_variant(reference)
    if name:
        run = runs.find(root, "train-align", name)
        recipe = variant_of(variants(run.recipe(Recipe)), variant, run.path.name)
        if prior.fuser is not None:
            check_tokens(_model(run, variant), recipe.encoders, run.path, prior, source, paths)
        return run, variant

    def is_match(run: RunFolder) -> bool:
        has_variant = not variant or variant in variants(run.recipe(Recipe))
        return has_variant and (prior.fuser is None or _matches(run, prior, source))

    found = runs.newest(root, "train-align", is_match)
    if found is None:
        raise MissingData(
            f"no finished align run under {root / 'train-align'}"
            + (f" has a variant {variant!r}" if variant else "")
            + (f" has the tokens of {source}" if prior.fuser is not None else ""),
            "name a run, or train one with `sweep`" if variant else _training(source, paths),
        )
    variant_of(variants(found.recipe(Recipe)), variant, found.path.name)
    return found, variant


def _training(source: str, paths: Paths) -> str:
    """Write the command lines that lead to pictures, on the data of the prior where that is known."""
    described, dataset = priors.describe(source), None
    arguments = write_prior("train-align", source) if described.dims else []
    folder = described.folder
    if "--prior" in arguments and folder and (of := recipe_around(folder).get("dataset")):
        dataset = only_if_recorded(parts.resolve("datasets", of), paths)
    lines = [
        command("train-align", dataset, [], *arguments),
        command("reconstruct", None, [], "--prior", source),
    ]
    with suppress(RecipeError):  # a prior whose encoders have no known names
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


def check_tokens(
    model: Aligner, encoders: Sequence[EncoderConfig], path: Path, prior: Prior, source: str, paths: Paths
) -> None:
    """Refuse a model whose tokens are not those of a prior with a fuser, and warn of another fuser.

    Raises:
        BrainhiveError: naming the run or model, `path`, and the prior, `source`.
    """
    dim = model.layout.heads[model.layout.compared[0]].width
    if dim != prior.dim:
        raise BrainhiveError(
            f"the tokens of {path} have {dim} dimensions, those of {source} {prior.dim}",
            _training(source, paths),
        )
    match_prior(source, encoders)
    if not _has_fuser_of(model, prior, source):
        console.warn(f"{path} was trained against another fusion encoder than that of {source}")


def _matches(run: RunFolder, prior: Prior, source: str) -> bool:
    """Whether a run has the prior's tokens; one that is damaged is left out, with a warning."""
    try:
        return _has_fuser_of(_model(run), prior, source)
    except BrainhiveError as error:
        console.warn(f"{error.message}; passed over")
        return False


def _model(run: RunFolder, variant: str = "") -> Aligner:
    """Load one of a run's models: all cells have the same fuser."""
    cells = below(run.path / "cells", *filter(None, [variant]), source="the variant of a run,")
    return load(min(cells.glob("**/model"), default=cells))  # a sweep's lie one folder deeper


def _has_fuser_of(model: Aligner, prior: Prior, source: str) -> bool:
    """Whether a model was trained for this prior, or one of the same fusion encoder."""
    if model.layout.prior_digest and model.layout.prior_digest == priors.describe(source).digest:
        return True
    if model.fuser is None or prior.fuser is None:
        return False
    own, others = model.fuser.state_dict(), prior.fuser.state_dict()
    return own.keys() == others.keys() and all(
        own[key].shape == value.shape and torch.allclose(own[key], value.float().cpu())
        for key, value in others.items()
    )
