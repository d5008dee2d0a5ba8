"""What the cells of an align run learn from: embeddings, signals and the target's fusion encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from brainhive_cli.aligner import Layout
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.pipelines._cells import Cell
from brainhive_cli.pipelines._data import Trials, as_tensors, match_keys, open_embeddings, open_trials
from brainhive_cli.priors.fusion_prior import FusionPrior

if TYPE_CHECKING:
    from brainhive_cli.pipelines.train_align import Recipe


@dataclass(frozen=True)
class Material:
    """The embeddings and signals of all cells that learn from the same ones.

    Attributes:
        what: The recipe of one of them.
        dataset: Whose they are.
        pictures: One of the embedding stores: which picture each row is.
        keys: The fuser's key of each encoder, by the encoder's store name.
        images: Embeddings [M, D_encoder] by the fuser's key, on the device.
        prior: The Fusion Prior whose fusion encoder is the target, or None.
        trials: Signals by subject, as far as they are open.
    """

    what: "Recipe"
    dataset: Dataset
    pictures: EmbeddingStore
    keys: dict[str, str]
    images: dict[str, Tensor]
    prior: FusionPrior | None
    trials: dict[int, Trials]

    @classmethod
    def open(cls, what: "Recipe", device: torch.device) -> Self:
        """Load the embeddings onto the device; signals are opened as cells ask for them."""
        dataset: Dataset = what.dataset.build(what.paths)
        stores = open_embeddings(dataset, what.dataset, "train", what.encoders, what.paths)
        prior = FusionPrior.load(what.prior).float() if what.prior else None
        keys = {config.name: config.name for config in what.encoders}
        if prior:
            keys = match_keys(what.encoders, prior.dims, f"the prior {what.prior}")
        pictures = next(iter(stores.values()))
        return cls(what, dataset, pictures, keys, as_tensors(stores, keys, device), prior, {})

    def fits(self, what: "Recipe") -> bool:
        """Tell whether it is what another recipe learns from, too."""
        mine, other = ((each.encoders, each.prior, each.signal) for each in (self.what, what))
        return mine == other

    def trials_of(self, subject: int) -> Trials:
        """Open a subject's signals, or find them open."""
        if subject not in self.trials:
            what = self.what
            self.trials[subject] = open_trials(
                self.dataset, what.paths, what.signal, subject, "train", self.pictures
            )
        return self.trials[subject]

    @property
    def frozen_fuser(self) -> Any:
        """The prior's fusion encoder; None where the fuser is trained."""
        return self.prior.fusion_encoder["vision_model"] if self.prior else None

    def layout(self, what: "Recipe", trials: Sequence[Trials], cell: Cell) -> Layout:
        """Say what a cell's model is made of."""
        dims = {key: embedding.shape[-1] for key, embedding in self.images.items()}
        fuser, dim = what.fuser.model_dump(mode="json"), what.fuser.token_dim(dims, what.dim)
        if self.prior:
            hidden = self.prior.configs["fusion_encoder"]["intermediate_size"]
            fuser = {"kind": "fusion_encoder", "intermediate_size": hidden, "dropout": 0.0}
            dim = self.prior.dim
        return Layout(
            backbone=what.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            dim=dim,
            channels=trials[0].channels,
            samples=trials[0].signal.shape[-1],
            window_ms=what.signal.window_ms,
            scale=what.signal.scale,
            subjects=cell.trained_on,
            prior=what.prior or "",
            subject_layer=what.subject_layer,
            similarity=what.similarity,
        )
