"""Check that a brain model predicts the tokens of a prior, and the way to one."""

from contextlib import suppress
from typing import Any

from brainhive_cli.core.base import Line, MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.targets import (
    are_embedded,
    find_prior_encoders,
    keep_if_recorded,
    read_run_recipe,
    write_embed_commands,
    write_prior_arguments,
)
from brainhive_cli.models import priors
from brainhive_cli.training.alignment import Recipe
from brainhive_cli.training.alignment.trained.models import TrainedModels


def check_tokens(
    align: TrainedModels, prior: priors.Prior, source: str, dataset: Any
) -> None:
    """Check that the models of a run predict tokens of a prior's fusion encoder.

    Args:
        align: Run or model folder. All its cells have the same fuser.
        prior: Prior of the reconstruction.
        source: Reference of the prior.
        dataset: Config of the data set for the training in the hint.

    Raises:
        MissingData: if the fuser differs. The hint trains a model that fits.
    """
    import torch

    # the model was trained for this prior
    model = align.open_first().module
    prior_digest = model.layout.prior_digest
    if prior_digest and prior_digest == priors.describe(source).digest:
        return

    # or for another prior whose fuser has the same weights
    state = {} if model.fuser is None else model.fuser.state_dict()
    prior_state = {} if prior.fuser is None else prior.fuser.state_dict()
    is_equal = bool(state) and state.keys() == prior_state.keys()
    if is_equal:
        for key, value in prior_state.items():
            is_equal = state[key].shape == value.shape and torch.allclose(
                state[key], value.float().cpu()
            )
            if not is_equal:
                break
    if not is_equal:
        raise MissingData(
            f"{align.folder.path} was trained with another fusion encoder than "
            f"{source}",
            write_training(source, align.paths, dataset),
        )


def write_training(source: str, paths: Paths, dataset: Any) -> str:
    """Write the command line that trains for a prior and reconstructs pictures.

    Commands are joined by `&&`. The first makes embeddings, if some are missing.

    Args:
        source: Reference of the prior.
        paths: Folders of the recipe.
        dataset: Config of the data set, or None for the data set of the prior.
    """
    prior = priors.describe(source)
    arguments = []
    if prior.dims:
        arguments = write_prior_arguments("train-align", source, dataset)

    # without a recipe, the data set of the prior is the default
    has_prior_flag = ("prior", source) in arguments
    if dataset is None and has_prior_flag and prior.folder:
        fields = read_run_recipe(prior.folder).get("dataset")
        if fields:
            dataset = keep_if_recorded(parts.resolve("datasets", fields), paths)
    has_dataset_flag = has_prior_flag or not arguments
    flag = ("dataset", dataset if has_dataset_flag else None)
    reconstruct_arguments = write_prior_arguments("reconstruct", source, dataset)
    reconstruct_arguments = reconstruct_arguments or [("prior", source)]
    commands = [
        str(Line("train-align", flag, *arguments)),
        str(Line("reconstruct", *reconstruct_arguments)),
    ]

    # embed first if the targets are missing and the encoders are known by name
    with suppress(RecipeError):
        encoders = find_prior_encoders(source)
        default = Recipe.model_fields["dataset"].default
        pictures = dataset or parts.resolve("datasets", default)
        if not are_embedded(pictures.build(paths), encoders, paths):
            commands.insert(0, write_embed_commands(pictures, encoders))
    return " && ".join(commands)
