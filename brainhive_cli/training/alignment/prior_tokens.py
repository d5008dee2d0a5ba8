"""Whether the tokens of a brain model are those that a prior with a fuser takes."""

from contextlib import suppress
from typing import Any

import torch

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.lines import Line
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.command_lines import (
    are_embedded,
    only_if_recorded,
    write_embedding,
    write_prior,
)
from brainhive_cli.data.targets.encoder_keys import encoders_of, match_prior, recipe_around
from brainhive_cli.models import priors
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

DEFAULT_DATASET = "things-eeg"
"""The default of train-align."""


def check_tokens(
    align: TrainedRun, prior: priors.Prior, source: str, dataset: Any, *, is_named: bool
) -> None:
    """Refuse a run whose tokens are not those of a prior with a fuser.

    Args:
        align: The run, or a single model; all its cells have one fuser.
        prior: What it is to decode for.
        source: What the user calls the prior.
        dataset: Config of the data set that what would fit is trained on.
        is_named: Whether the user asks for this very run: another fuser of the same encoders is then only
            warned of.

    Raises:
        MissingData: if it is the newest run, and not named; as the next.
        BrainhiveError: naming the run, the prior, and what trains one that fits.
    """
    # the tokens fit if their width and the fuser that made them are the prior's
    path, trained = align.folder.path, TrainedModel(align, align.cells[0])
    model = trained.module
    dim = model.layout.heads[model.layout.compared[0]].width
    refusal, has_width = BrainhiveError if is_named else MissingData, dim == prior.dim
    if has_width and _has_fuser_of(model, prior, source):
        return

    # another width cannot be decoded; another fuser only if the user names this run
    problem = f"{path} was trained against another fusion encoder than that of {source}"
    if not has_width:
        problem = f"the tokens of {path} have {dim} dimensions, those of {source} {prior.dim}"
    if not has_width or not is_named:
        raise refusal(problem, write_training(source, align.paths, dataset))
    # with the prior's encoders, a warning is enough
    match_prior(source, trained.encoders)
    console.warn(problem)


def _has_fuser_of(model: Aligner, prior: priors.Prior, source: str) -> bool:
    """Whether a model was trained for this prior, or one of the same fusion encoder."""
    if model.layout.prior_digest and model.layout.prior_digest == priors.describe(source).digest:
        return True
    if model.fuser is None or prior.fuser is None:
        return False

    # equal weights are the same fuser, whichever prior it was read from
    state, prior_state = model.fuser.state_dict(), prior.fuser.state_dict()
    return state.keys() == prior_state.keys() and all(
        state[key].shape == value.shape and torch.allclose(state[key], value.float().cpu())
        for key, value in prior_state.items()
    )


def write_training(source: str, paths: Paths, dataset: Any) -> str:
    """Write the command lines that lead to pictures, on the data set in use or else that of the prior."""
    # without a data set in use, take the one that the prior was trained on
    described = priors.describe(source)
    arguments = write_prior("train-align", source, dataset) if described.dims else []
    folder = described.folder
    is_prior = ("prior", source) in arguments
    if dataset is None and is_prior and folder and (of := recipe_around(folder).get("dataset")):
        dataset = only_if_recorded(parts.resolve("datasets", of), paths)
    dataset_key = ("dataset", dataset if is_prior or not arguments else None)

    # first train the brain model, then draw with it
    drawing = write_prior("reconstruct", source, dataset) or [("prior", source)]
    lines = [str(Line("train-align", dataset_key, *arguments)), str(Line("reconstruct", *drawing))]
    with suppress(RecipeError):  # a prior whose encoders have no known names
        pictures, encoders = dataset or parts.resolve("datasets", DEFAULT_DATASET), encoders_of(source)
        if not are_embedded(pictures.build(paths), encoders, paths.under_home("embeddings")):
            lines.insert(0, write_embedding(pictures, encoders))
    return " && ".join(lines)
