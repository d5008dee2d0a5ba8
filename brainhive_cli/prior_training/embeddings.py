"""Embeddings of pictures: read from stores, or computed when they are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.device import to_device
from brainhive_cli.data.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.targets import open_embeddings
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.stores.target_store import EmbeddingStore, path_of


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the pictures of one split, by several encoders.

    Attributes:
        stores: What has been embedded, by encoder.
        rows: [M] the row of each picture in the stores; -1 where it could not be decoded.
        missing: Encoders that no store is there of.
        launch: Where these compute.
    """

    stores: dict[str, EmbeddingStore]
    rows: NDArray[np.int64]
    missing: tuple[EncoderConfig, ...]
    launch: Launch

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        made_of: parts.Config,
        images: ImageSet,
        encoders: Sequence[EncoderConfig],
        paths: Paths,
        compute_missing: bool,
        launch: Launch,
    ) -> Self:
        """Open the stores that are there; what has none is an error unless it may be computed.

        Raises:
            MissingData: if stores are missing, with the line that makes them.
        """
        root = paths.under_home("embeddings")
        there = {c.name: path_of(root, dataset.name, images.split, c.name).is_file() for c in encoders}
        stored = [config for config in encoders if there[config.name] or not compute_missing]
        try:
            given = (dataset, made_of, images.split, stored, paths, images)
            stores = open_embeddings(*given) if stored else {}
        except MissingData as error:
            raise MissingData(error.message, f"{error.hint}, or add --embed-missing") from error
        first = next(iter(stores.values()), None)
        rows = first.rows(images.image_ids) if first else np.arange(len(images))
        return cls(stores, rows, tuple(config for config in encoders if config not in stored), launch)

    @cached_property
    def trunks(self) -> list[EncoderGroup]:
        """Networks for what no store holds; they are loaded here, onto the device."""
        made = [EncoderGroup.of(group, "fp32", self.launch) for group in grouped(self.missing)]
        for trunk in made:
            trunk.prepare()
        return made

    @cached_property
    def dims(self) -> dict[str, int]:
        """D of each encoder's embedding."""
        computed = {name: shape[-1] for trunk in self.trunks for name, shape in trunk.shapes.items()}
        return {name: store.embedding.shape[-1] for name, store in self.stores.items()} | computed

    def of(self, chosen: NDArray[np.int64], views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the embeddings [B, D] of the chosen pictures, float32, by encoder.

        Args:
            chosen: Which pictures, [B].
            views: The pictures as each network of `trunks` sees them, [B, 3, H, W] by its name.
        """
        found = {name: store.embedding[self.rows[chosen]] for name, store in self.stores.items()}
        device = self.launch.device
        read = {name: to_device(torch.from_numpy(np.float32(rows)), device) for name, rows in found.items()}
        computed = [trunk.encode(views[trunk.name]) for trunk in self.trunks]
        return read | {name: rows.clone() for some in computed for name, rows in some.items()}
