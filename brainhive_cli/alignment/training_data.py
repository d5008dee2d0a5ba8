"""What the cells of an align run learn from: embeddings, signals and the target's fusion encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.layout import Layout, fused_head
from brainhive_cli.alignment.learned import Learned, hashes_of
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.storage_mode import form_of
from brainhive_cli.core import home
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.heads import TOKEN, Head
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.signal_spec import SignalSpec
from brainhive_cli.data.encoder_keys import match_keys
from brainhive_cli.data.targets import Targets, open_alternatives, open_stores
from brainhive_cli.data.trials import StorageMode, Trials, open_trials
from brainhive_cli.datasets import Dataset
from brainhive_cli.priors.fusion_prior import FusionPrior
from brainhive_cli.signals.normalisation import Moments, Normaliser
from brainhive_cli.stores import target_store
from brainhive_cli.stores.target_store import EmbeddingStore

DIM = 1024
"""D of a token that neither recipe, fuser nor prior decides: BrainHiVE's."""


@dataclass(frozen=True)
class Material:
    """The embeddings and signals of all cells that learn from the same ones.

    Attributes:
        recipe: The recipe of one of them.
        dataset: Whose they are.
        launch: On whose device the embeddings are.
        pictures: One of the embedding stores: which picture each row is.
        keys: The fuser's key of each encoder, by the encoder's store name.
        images: Targets of these pictures, by the fuser's key.
        alternatives: Further embeddings of the same pictures, [K, M, D_encoder].
        prior: The Fusion Prior whose fusion encoder is the target, or None.
        form: How signals are held.
        trials: Signals by subject, as far as they are open.
    """

    recipe: Recipe
    dataset: Dataset
    launch: Launch
    pictures: EmbeddingStore
    keys: dict[str, str]
    images: Targets
    alternatives: dict[str, Tensor]
    prior: FusionPrior | None
    form: StorageMode
    trials: dict[int, Trials]

    @classmethod
    def open(cls, what: Recipe, subjects: Sequence[int], launch: Launch) -> Self:
        """Load the embeddings onto the device; signals of these subjects are opened as cells ask for them."""
        dataset: Dataset = what.dataset.build(what.paths)
        root, names = what.paths.under_home("embeddings"), [config.name for config in what.encoders]
        stores = target_store.open_all(
            root, dataset.name, "train", names
        )  # looked at before, in all variants
        prior = FusionPrior.load(what.prior).float() if what.prior else None
        keys = {config.name: config.name for config in what.encoders}
        if prior:
            keys = match_keys(what.encoders, prior.dims, f"the prior {what.prior}")
        return cls(
            what,
            dataset,
            launch,
            next(iter(stores.values())),
            keys,
            Targets.of(stores, launch, keys),
            open_alternatives(what.train.embedding_alternatives, stores, keys, what.paths, launch.device),
            prior,
            form_of(dataset, what.paths, what.signal, what.train, subjects, launch),
            {},
        )

    def is_compatible(self, what: Recipe) -> bool:
        """Tell whether it is what another recipe learns from, too."""
        mine, other = (
            (
                each.encoders,
                each.prior,
                each.signal,
                train.embedding_alternatives,
                train.augment,
                train.memory_map,
            )
            for each, train in ((self.recipe, self.recipe.train), (what, what.train))
        )
        return mine == other

    def trials_of(self, subject: int) -> Trials:
        """Open a subject's training signals, or find them open."""
        if subject not in self.trials:
            self.trials[subject] = self._trials(subject, "train", self.pictures, self.form)
        return self.trials[subject]

    def tested(self, cell: Cell, learned: Learned) -> tuple[list[Trials], Targets]:
        """Open the test signals of a cell and the embeddings of the test pictures: to select the epoch by."""
        what = self.recipe
        stores = open_stores(self.dataset, what.dataset, "test", what.encoders, what.paths)
        pictures = next(iter(stores.values()))
        trials = [
            self._trials(subject, "test", pictures, StorageMode(), learned.normaliser_of(subject))
            for subject in cell.tested_on
        ]
        return trials, Targets.of(stores, self.launch, self.keys)

    def _trials(
        self,
        subject: int,
        split: str,
        pictures: EmbeddingStore,
        form: StorageMode,
        normaliser: Normaliser | None = None,
    ) -> Trials:
        given = (self.dataset, self.recipe.paths, self.recipe.signal, subject, split, pictures)
        return open_trials(*given, form=form, normaliser=normaliser)

    def learned(self, what: Recipe, trials: Sequence[Trials]) -> Learned:
        """Say what a cell's model learns from, for its folder; what selects the epoch is yet to come."""
        rows = np.unique(np.concatenate([each.picture for each in trials]))
        how, normaliser = what.signal.normalise, None
        if how != "none" and what.signal.normalise_by == "training_subjects":
            normaliser = Moments.pooled([each.moments for each in trials if each.moments]).normaliser(how)
        return Learned(
            dataset=self.dataset.name,
            recordings=self.dataset.recorded_as,
            subjects=tuple(each.subject for each in trials),
            preparation=what.signal.model_dump(mode="json"),
            is_simulated=self.dataset.is_simulated,
            pictures=np.sort(hashes_of(self.dataset.name, self.pictures.image_ids[rows])),
            normaliser=normaliser,
        )

    @property
    def frozen_fuser(self) -> Any:
        """The prior's fusion encoder; None where the fuser is trained."""
        return self.prior.fusion_encoder["vision_model"] if self.prior else None

    def layout(self, what: Recipe, trials: Sequence[Trials], cell: Cell) -> Layout:
        """Say what a cell's model is made of."""
        shapes = self.images.shapes
        dims = {key: shape[-1] for key, shape in shapes.items()}
        fuser, dim = what.fuser.model_dump(mode="json"), what.fuser.token_dim(dims, what.dim or DIM)
        if self.prior:
            hidden = self.prior.configs["fusion_encoder"]["intermediate_size"]
            fuser = {"kind": "fusion_encoder", "intermediate_size": hidden}
            fuser["dropout"] = what.train.prior_dropout
            dim = self.prior.dim
        if what.dim not in (None, dim):
            raise RecipeError(f"dim is {what.dim}, but the tokens of this fuser have {dim}", "leave dim out")
        heads = {TOKEN: fused_head(shapes, dim)}
        if is_apart := fuser["kind"] == "heads":
            heads = {key: Head(shape, key) for key, shape in shapes.items()}
            fuser, dims = {}, {}
        return Layout(
            spec=SignalSpec(
                trials[0].channels,
                trials[0].signal.shape[-1],
                cell.trained_on,
                tuple(each.signal.shape[-2] for each in trials),
                trials[0].rate_hz,
            ),
            heads=heads,
            backbone=what.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            retrieval_heads=tuple(heads) if is_apart else (),
            window_ms=what.signal.window_ms,
            scale=what.signal.scale,
            prior=home.portable(what.prior or ""),
            prior_digest=what.digests.get(what.prior or "", ""),
            subject_layer=what.subject_layer,
            similarity=what.similarity,
            normalise=what.signal.normalise,
        )
