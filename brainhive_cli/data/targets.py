"""Targets of a data set: the stores of several encoders over the same stimuli, opened and loaded."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.command_lines import command
from brainhive_cli.data.health_checks import warn_of_illness
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.stores import target_store
from brainhive_cli.stores.target_store import EmbeddingStore


def open_embeddings(
    dataset: Dataset,
    made_of: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    images: ImageSet | None = None,
) -> dict[str, EmbeddingStore]:
    """Open the stores of several encoders over the same pictures, warning of collapsed ones.

    Args:
        dataset: Whose pictures.
        made_of: The data set's Config, for the command line that would embed it.
        split: Which of them.
        encoders: One store each.
        paths: Where stores lie.
        images: The pictures, where they are listed already: of ImageNet that takes a while.

    Raises:
        MissingData: if a store is missing, with the line that makes it.
        BrainhiveError: if a store is another data set's, or of other pictures than the data set or another
            store.
    """
    root, line = paths.under_home("embeddings"), command("embed", made_of, encoders)
    try:
        stores = target_store.open_all(root, dataset.name, split, [config.name for config in encoders])
    except MissingData as error:
        raise MissingData(error.message, line) from error
    first = next(iter(stores.values()))
    with suppress(MissingData):  # the pictures need not be on this machine
        first.refuse_other_pictures((images or dataset.images(split)).image_ids, line)
    for other in stores.values():
        warn_of_illness(other)
        whose = "{dataset}/{split}".format_map(other.attributes)
        if whose != f"{dataset.name}/{split}":
            raise BrainhiveError(
                f"{other.path} holds embeddings of {whose}, not of {dataset.name}/{split}", f"{line} --again"
            )
        if difference := _difference(first, other):
            raise BrainhiveError(f"{first.path} and {other.path} hold {difference}", f"{line} --again")
    return stores


def _difference(first: EmbeddingStore, other: EmbeddingStore) -> str:
    """Say how the pictures of two stores differ; empty if row by row they do not."""
    if first.image_ids != other.image_ids:
        is_order = sorted(first.image_ids) == sorted(other.image_ids)
        return "the same pictures in another order" if is_order else "different pictures"
    return "" if np.array_equal(first.done, other.done) else "gaps at different pictures"


def as_tensors(
    stores: Mapping[str, EmbeddingStore], keys: Mapping[str, str], device: torch.device
) -> dict[str, Tensor]:
    """Load whole stores onto the device, by the fuser's keys; each [M, D_encoder]."""
    return {
        keys[name]: torch.from_numpy(np.array(store.embedding)).float().to(device)
        for name, store in stores.items()
    }


def open_alternatives(
    alternatives: Mapping[str, Sequence[str]],
    stores: Mapping[str, EmbeddingStore],
    keys: Mapping[str, str],
    paths: Paths,
    device: torch.device,
) -> dict[str, Tensor]:
    """Load further embeddings of the same pictures, [K, M, D_encoder] by the fuser's keys.

    Args:
        alternatives: Names of further stores, by the encoder whose embeddings they stand in for.
        stores: What they stand in for.
        keys: The fuser's key of each encoder.
        paths: Where stores lie.
        device: Where they are wanted.

    Raises:
        MissingData: if a store is missing.
        BrainhiveError: if one is not of the same pictures and width.
    """
    if unknown := set(alternatives) - set(stores):
        raise BrainhiveError(
            f"train.embedding_alternatives names {', '.join(sorted(unknown))}, which is not fused",
            f"encoders: {', '.join(stores)}",
        )
    further = {}
    for name, others in alternatives.items():
        first = stores[name]
        opened = target_store.open_all(
            paths.under_home("embeddings"), first.attributes["dataset"], first.attributes["split"], others
        )
        for other in opened.values():
            is_alike = first.embedding.shape == other.embedding.shape
            if reason := _difference(first, other) or ("" if is_alike else "embeddings of another width"):
                raise BrainhiveError(f"{first.path} and {other.path} hold {reason}", "name another store")
        values = np.stack([np.asarray(other.embedding) for other in opened.values()])
        further[keys[name]] = torch.from_numpy(values).float().to(device)
    return further


def concepts_of(store: EmbeddingStore) -> NDArray[np.str_]:
    """Return the concept of each row."""
    return np.asarray(store.concepts)
