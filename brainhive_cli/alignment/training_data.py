"""What the cells of an align run learn from: targets, signals, and the fuser of a prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import nn

from brainhive_cli import priors
from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.identity import digest_of
from brainhive_cli.alignment.layout import Layout, fused_head
from brainhive_cli.alignment.learned import Learned, hashes_of
from brainhive_cli.alignment.memory_map import is_memory_mapped
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.core import console, home
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.heads import FUSED, TOKEN, Head, Heads
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_keys import match_keys
from brainhive_cli.data.signal_stores import open_signals
from brainhive_cli.data.targets import Targets, open_alternatives, open_stores
from brainhive_cli.data.trials import Trials, open_trials, spec_of
from brainhive_cli.datasets import Dataset
from brainhive_cli.priors import Prior
from brainhive_cli.signals.normalisation import Moments
from brainhive_cli.signals.selection import Selection
from brainhive_cli.stores import target_store
from brainhive_cli.stores.target_store import TargetStore

DIM = 1024
"""D of a token that neither recipe, fuser nor prior decides: BrainHiVE's."""


@dataclass(frozen=True)
class TrainingData:
    """The targets and signals of all cells that learn from the same ones.

    Attributes:
        recipe: The recipe of one of them.
        dataset: Whose they are.
        launch: On whose device the targets are.
        pictures: One of the target stores: which stimulus each row is.
        keys: The fuser's key of each encoder, by the encoder's store name.
        digests: Digest of what made each store; empty where nothing says.
        images: Targets of these pictures, by the fuser's key.
        prior: The prior whose frozen fuser makes the target, or None.
        with_single: Whether trials keep their single repetitions.
        memory_map: Whether training signals stay on disk.
        trials: Signals by subject, as far as they are open.
    """

    recipe: Recipe
    dataset: Dataset
    launch: Launch
    pictures: TargetStore
    keys: dict[str, str]
    digests: dict[str, str]
    images: Targets
    prior: Prior | None
    with_single: bool
    memory_map: bool
    trials: dict[int, Trials]

    @classmethod
    def open(cls, recipe: Recipe, subjects: Sequence[int], launch: Launch) -> Self:
        """Load the targets onto the device; signals of these subjects are opened when a cell needs them."""
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        root, names = recipe.paths.under_home("embeddings"), [config.name for config in recipe.encoders]
        stores = target_store.open_all(root, dataset.name, "train", names)  # checked before, for all variants
        selections = _selections(dataset, recipe, subjects)
        _check_repetitions(dataset.name, recipe, selections)
        with_single = recipe.signal.repetitions != "average" or recipe.train.augment.repetitions > 0
        prior = priors.load(recipe.prior) if recipe.prior else None
        keys = {config.name: config.name for config in recipe.encoders}
        if prior:
            keys |= match_keys(recipe.fused_encoders, prior.dims, f"the prior {recipe.prior}")
        further = open_alternatives(recipe.train.embedding_alternatives, stores, recipe.paths)
        return cls(
            recipe,
            dataset,
            launch,
            next(iter(stores.values())),
            keys,
            {name: digest_of(store) for name, store in stores.items()},
            Targets.of(stores, launch, keys, further=further),
            prior,
            with_single,
            is_memory_mapped(
                recipe.train.memory_map, selections, with_single, launch.device, launch.processes
            ),
            {},
        )

    def is_compatible(self, recipe: Recipe) -> bool:
        """Check that another recipe learns from the same targets and signals."""
        return _inputs(self.recipe) == _inputs(recipe)

    def trials_of(self, subject: int) -> Trials:
        """Open a subject's training signals, once for all cells."""
        if subject not in self.trials:
            self.trials[subject] = open_trials(
                *(self.dataset, self.recipe.paths, self.recipe.signal, subject, "train", self.pictures),
                with_single=self.with_single,
                memory_map=self.memory_map,
            )
        return self.trials[subject]

    def tested(self, cell: Cell, learned: Learned) -> tuple[list[Trials], Targets]:
        """Open the test signals of a cell and the targets of their stimuli, which select the epoch."""
        recipe = self.recipe
        stores = open_stores(self.dataset, recipe.dataset, "test", recipe.encoders, recipe.paths)
        pictures = next(iter(stores.values()))
        trials = [
            open_trials(
                *(self.dataset, recipe.paths, recipe.signal, subject, "test", pictures),
                normaliser=learned.normaliser_of(subject),
            )
            for subject in cell.tested_on
        ]
        return trials, Targets.of(stores, self.launch, self.keys)

    def learned(self, recipe: Recipe, trials: Sequence[Trials]) -> Learned:
        """Say what a cell's model learns from, for its folder; what selects the epoch is added later."""
        rows = np.unique(np.concatenate([each.stimulus for each in trials]))
        how, normaliser = recipe.signal.normalise, None
        if how != "none" and recipe.signal.normalise_by == "training_subjects":
            normaliser = Moments.pooled([each.moments for each in trials if each.moments]).normaliser(how)
        return Learned(
            dataset=self.dataset.name,
            recordings=self.dataset.recorded_as,
            subjects=tuple(each.subject for each in trials),
            preparation=recipe.signal.model_dump(mode="json"),
            is_simulated=self.dataset.is_simulated,
            pictures=np.sort(hashes_of(self.dataset.name, self.pictures.image_ids[rows])),
            normaliser=normaliser,
        )

    @property
    def frozen_fuser(self) -> nn.Module | None:
        """The prior's fuser; None where the fuser is trained."""
        return self.prior.fuser if self.prior else None

    def layout(self, recipe: Recipe, trials: Sequence[Trials]) -> Layout:
        """Return the architecture of a cell's model."""
        shapes, fused = self.images.shapes, {self.keys[config.name] for config in recipe.fused_encoders}
        dims = {key: shapes[key][-1] for key in shapes if key in fused}
        fuser: dict[str, Any] = recipe.fuser.model_dump(mode="json") if fused else {}
        dim = recipe.fuser.token_dim(dims, recipe.dim or DIM) if fused else None
        if self.prior and recipe.prior:
            hidden = priors.describe(recipe.prior).fuser["intermediate_size"]
            fuser = {"kind": "fusion_encoder", "intermediate_size": hidden}
            fuser["dropout"] = recipe.train.prior_dropout
            dim = self.prior.dim
        if recipe.dim not in (None, dim):
            raise RecipeError(f"dim is {recipe.dim}, but this fuser's tokens have {dim}", "leave dim out")
        heads = {
            name: fused_head({key: shapes[key] for key in dims}, dim or 0)
            if target == FUSED
            else Head(shapes[target.name], target.name, self.digests[target.name])
            for name, target in recipe.head_targets.items()
        }
        return Layout(
            spec=spec_of(trials),
            heads=heads,
            backbone=recipe.backbone.model_dump(mode="json"),
            fuser=fuser,
            dims=dims,
            encoders=self.keys,
            retrieval_heads=_compared(recipe, heads),
            window_ms=recipe.signal.window_ms,
            scale=recipe.signal.scale,
            prior=home.portable(recipe.prior or ""),
            prior_digest=recipe.digests.get(recipe.prior or "", ""),
            subject_layer=recipe.subject_layer,
            similarity=recipe.similarity,
            normalise=recipe.signal.normalise,
        )


def _compared(recipe: Recipe, heads: Heads) -> tuple[str, ...]:
    """Name the heads that retrieval compares: the recipe's, else the only one of vectors or tokens."""
    if recipe.head is not None:
        return (recipe.head,)
    if not recipe.heads:
        return () if recipe.is_fused else tuple(heads)
    found = [name for name, head in heads.items() if len(head.shape) <= 2]
    return tuple(found) if TOKEN not in heads and len(found) == 1 else ()


def _inputs(recipe: Recipe) -> tuple[Any, ...]:
    """List the settings that decide which targets and signals are loaded, and how."""
    train = recipe.train
    loaded = (recipe.encoders, recipe.prior, recipe.signal)
    return (*loaded, train.embedding_alternatives, train.augment, train.memory_map)


def _selections(dataset: Dataset, recipe: Recipe, subjects: Sequence[int]) -> list[Selection]:
    """Select the training signals of each subject; nothing is read."""
    signal, channels = recipe.signal, recipe.signal.channels or dataset.channels
    recorded = [open_signals(dataset, recipe.paths, signal, subject)["train"] for subject in subjects]
    return [Selection.of(each, channels, signal.window_ms, signal.scale, dataset.name) for each in recorded]


def _check_repetitions(dataset: str, recipe: Recipe, selections: Sequence[Selection]) -> None:
    """Refuse settings that contradict each other; warn of those without effect on these recordings.

    Raises:
        RecipeError: if single trials are to be mixed over repetitions.
    """
    signal, mixed = recipe.signal, recipe.train.augment.repetitions
    if signal.repetitions == "single" and mixed:
        raise RecipeError(
            "single trials cannot be mixed over repetitions", "signal.repetitions=average, or random"
        )
    if signal.normalise != "none" and signal.scale != 1:
        console.warn(f"signal.scale={signal.scale:g} has no effect with signal.normalise={signal.normalise}")
    most = max((each.shape[1] for each in selections), default=0)
    least = {"single": 2, "random": signal.random_k + 1}.get(signal.repetitions, 0)
    idle = [f"signal.repetitions={signal.repetitions}"] if most < least else []
    idle += ["train.augment.repetitions"] if mixed and most < 2 else []
    if idle:
        console.warn(f"{' and '.join(idle)} has no effect: {dataset} has {most} repetition(s) a picture")
