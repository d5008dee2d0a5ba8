"""What the cells of an align run learn from: targets, signals, and the fuser of a prior."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import console, home
from brainhive_cli.core.caveats import SIMULATED, WHITENED_BY_TESTED
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import free_bytes
from brainhive_cli.data.media.picture_augmentation import AUGMENTED, augmented
from brainhive_cli.data.signal_stores import caveats_of, open_signals
from brainhive_cli.data.signals.normalisation import Moments
from brainhive_cli.data.stores.target_store import TargetStore, pixels_of
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.target_sources import OnlineTargets, TargetSource
from brainhive_cli.data.targets.targets import Targets, open_alternatives, open_stores
from brainhive_cli.data.trials import Trials, open_trials, spec_of
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import FUSED, TOKEN, Head, Heads
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.finetune import share_of
from brainhive_cli.training.alignment.identity import digest_of
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.layout import Layout, fused_head
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.validation import held_out_of

DIM = 1024
"""D of a token that neither recipe, fuser nor prior decides: BrainHiVE's."""


@dataclass(frozen=True)
class TrainingData:
    """Targets and signals of all cells that learn from the same ones; each is opened when it is first used.

    Attributes:
        job: The run.
        recipe: The recipe of one of these cells.
        launch: On whose device the targets are.
    """

    job: Job
    recipe: Recipe
    launch: Launch
    _trials: dict[int, Trials] = field(default_factory=dict)

    def is_compatible(self, recipe: Recipe) -> bool:
        """Check that another recipe learns from the same targets and signals."""
        return _inputs(self.recipe) == _inputs(recipe)

    @cached_property
    def stores(self) -> dict[str, TargetStore]:
        """The target stores, by the encoder's name; all have the same rows."""
        return {config.name: self.job.stores[config.name] for config in self.recipe.stored_encoders}

    @property
    def stimuli(self) -> TargetStore:
        """One of the target stores: which stimulus each row is."""
        return next(iter(self.stores.values()))

    @property
    def pixels(self) -> NDArray[np.uint64] | None:
        """Digests of the stimuli's pixels, [M]; None where no store has them."""
        return pixels_of(self.stores.values())

    @cached_property
    def prior(self) -> Prior | None:
        """The prior whose frozen fuser makes the target."""
        return priors.load(self.recipe.prior) if self.recipe.prior else None

    @cached_property
    def keys(self) -> dict[str, str]:
        """The fuser's key of each encoder, by the encoder's store name."""
        keys = {config.name: config.name for config in self.recipe.encoders}
        if self.prior:
            keys |= match_keys(self.recipe.fused_encoders, self.prior.dims, f"the prior {self.recipe.prior}")
        return keys

    @cached_property
    def images(self) -> Targets:
        """Targets of the stimuli, by the fuser's key."""
        given = (self.recipe.train.embedding_alternatives, self.stores, self.recipe.paths)
        stored = Targets.of(self.stores, self.launch, self.keys, further=open_alternatives(*given))
        return Targets({**stored.sources, **self.online})

    @cached_property
    def online(self) -> dict[str, OnlineTargets]:
        """What encoders of `train.online` give for the stimuli at each step, by encoder."""
        targets = self.recipe.head_targets
        return self._computed({targets[head].name: targets[head] for head in self.recipe.train.online})

    @cached_property
    def augmented(self) -> Targets | None:
        """What the encoders of some heads give for augmented pictures, by target; None where none is asked.

        Raises:
            BrainhiveError: if the pictures are not those of the stores, or an encoder reads no pictures.
        """
        config = self.recipe.train.augment_pictures
        encoders = {head: self.recipe.head_targets[head] for head in config.heads}
        for encoder in encoders.values():
            if encoder.encodes != "pixels":
                raise RecipeError(
                    f"{encoder.name} reads no pictures that could be augmented", "leave its head out"
                )
        computed = self._computed(
            {each.name: each for each in encoders.values()}, partial(augmented, config=config)
        )
        sources: dict[str, TargetSource] = {
            head + AUGMENTED: computed[each.name] for head, each in encoders.items()
        }
        return Targets(sources) if sources else None

    def _computed(
        self, encoders: Mapping[str, EncoderConfig], vary: Callable[[Any], Any] | None = None
    ) -> dict[str, OnlineTargets]:
        """Compute targets at each step, by encoder; nothing is opened where there is none.

        Raises:
            BrainhiveError: if the stimuli are not those of the stores.
        """
        if not encoders:
            return {}
        stimuli = self.job.dataset.images("train")
        self.stimuli.refuse_other_pictures(stimuli.image_ids, "brainhive embed")
        return {
            name: OnlineTargets(stimuli, group, name, vary)
            for group in grouped(list(encoders.values()), "fp32", self.launch)
            for name in group.names
        }

    @property
    def with_single(self) -> bool:
        """Whether trials keep their single repetitions."""
        is_of_sessions = self.recipe.finetune.sessions is not None
        is_varied = self.recipe.train.augment.repetitions > 0
        return is_of_sessions or is_varied or self.recipe.signal.repetitions != "average"

    @cached_property
    def is_memory_mapped(self) -> bool:
        """Whether signals stay on disk; `auto`: where they need more than half of the free memory."""
        signal, dataset = self.recipe.signal, self.job.dataset
        stores = [open_signals(dataset, self.recipe.paths, signal, each) for each in self.job.trained_on]
        given = (dataset.channels, dataset.name)
        shapes = [signal.select(store["train"], *given).shape for store in stores]  # [N, R, C, T]
        _check_repetitions(dataset.name, self.recipe, max((shape[1] for shape in shapes), default=0))
        if self.recipe.train.memory_map != "auto":
            return self.recipe.train.memory_map == "yes"
        needed = sum(4 * n * (1 + r * self.with_single) * prod(rest) for n, r, *rest in shapes)
        is_mapped = self.launch.processes * needed > free_bytes(self.launch.device) / 2
        if is_mapped:
            console.say(f"the signals need {needed / 1e9:.1f} GB, so they stay on disk")
        return is_mapped

    def trials_of(self, subject: int) -> Trials:
        """Open a subject's training signals, once for all cells."""
        if subject not in self._trials:
            self._trials[subject] = open_trials(
                *(self.job.dataset, self.recipe.paths, self.recipe.signal, subject, "train", self.stimuli),
                with_single=self.with_single,
                memory_map=self.is_memory_mapped,
            )
        return self._trials[subject]

    def of_cell(self, cell: Cell) -> tuple[Layout, CellData]:
        """Return the architecture of a cell's model, and what it learns from."""
        recipe = self.job.variants[cell.variant]
        train = recipe.train
        held_out = held_out_of(self.stimuli.concepts, train.validation, self.pixels)
        images = self.images  # opened first: signals are mapped or not by the memory that they leave
        trials = [self.trials_of(subject) for subject in cell.trained_on]
        if recipe.mode == "finetune":
            trials = [share_of(each, held_out, recipe.finetune) for each in trials]
        learned = self._learned(recipe, trials)
        if recipe.train.shuffled_labels:
            trials = [_shuffled(each, cell.seed) for each in trials]
        tested, tested_images = None, None
        if recipe.train.selection == "test":
            tested, tested_images = self._tested(cell, learned)
        data = CellData(
            trials,
            images,
            held_out,
            self.prior.fuser if self.prior else None,
            self.job.starts(cell),
            tested,
            tested_images,
            learned,
            recipe.signal.repetitions,
            recipe.signal.random_k,
            self.augmented,
            Alike(self.job.dataset.alike_by, dict(enumerate(self.stimuli.concepts))),
            train.epoch_trials and train.epoch_trials * (recipe.finetune.sessions or 1),
        )
        return self._layout(recipe, trials), data

    def _tested(self, cell: Cell, learned: Learned) -> tuple[list[Trials], Targets]:
        """Open the test signals of a cell and the targets of their stimuli, which select the epoch."""
        recipe, dataset = self.recipe, self.job.dataset
        stores = open_stores(dataset, recipe.dataset, "test", recipe.stored_encoders, recipe.paths)
        stimuli = next(iter(stores.values()))
        trials = [
            open_trials(
                *(dataset, recipe.paths, recipe.signal, subject, "test", stimuli),
                normaliser=learned.normaliser_of(subject),
            )
            for subject in cell.tested_on
        ]
        seen = learned.pictures.contain(dataset.pictured_as, stimuli.image_ids, pixels_of(stores.values()))
        trials = [each.take(np.flatnonzero(~seen[each.stimulus])) for each in trials]
        return trials, Targets.of(stores, self.launch, self.keys)

    def _learned(self, recipe: Recipe, trials: Sequence[Trials]) -> Learned:
        """Describe what a cell's model learns from; what selects the epoch is added later."""
        rows = np.unique(np.concatenate([each.stimulus for each in trials]))
        pixels = None if self.pixels is None else self.pixels[rows]
        how, normaliser, dataset = recipe.signal.normalise, None, self.job.dataset
        stores = [open_signals(dataset, recipe.paths, recipe.signal, each.subject) for each in trials]
        caveats = caveats_of(dataset, (store["train"] for store in stores))
        if how != "none" and recipe.signal.normalise_by == "training_subjects":
            normaliser = Moments.pooled([each.moments for each in trials if each.moments]).normaliser(how)
        return Learned(
            dataset=dataset.pictured_as,
            recordings=dataset.recorded_as,
            subjects=tuple(each.subject for each in trials),
            preparation=recipe.signal.model_dump(mode="json"),
            is_simulated=SIMULATED in caveats,
            is_whitened_by_tested=WHITENED_BY_TESTED in caveats,
            pictures=LearnedPictures.of(dataset.pictured_as, self.stimuli.image_ids[rows], pixels),
            normaliser=normaliser,
        )

    def _digest(self, encoder: str) -> str:
        """Return what identifies the targets of an encoder."""
        if encoder in self.stores:
            return digest_of(self.stores[encoder])
        return self.online[encoder].group.digest

    def _layout(self, recipe: Recipe, trials: Sequence[Trials]) -> Layout:
        shapes, fused = self.images.shapes, {self.keys[config.name] for config in recipe.fused_encoders}
        dims = {key: shapes[key][-1] for key in shapes if key in fused}
        fuser: dict[str, Any] = recipe.fuser.model_dump(mode="json") if fused else {}
        dim = recipe.fuser.token_dim(dims, recipe.dim or DIM) if fused else None
        if self.prior and recipe.prior:
            hidden = self.job.priors[recipe.prior].fuser["intermediate_size"]
            fuser = {"kind": "fusion_encoder", "intermediate_size": hidden}
            fuser["dropout"] = recipe.train.prior_dropout
            dim = self.prior.dim
        if recipe.dim not in (None, dim):
            raise RecipeError(f"dim is {recipe.dim}, but this fuser's tokens have {dim}", "leave dim out")
        heads = {
            name: fused_head({key: shapes[key] for key in dims}, dim or 0)
            if target == FUSED
            else Head(shapes[target.name], target.name, self._digest(target.name))
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
            prior_digest=self.job.digests.get(recipe.prior or "", ""),
            subject_layer=recipe.subject_layer,
            similarity=recipe.similarity,
            normalise=recipe.signal.normalise,
        )


def _shuffled(trials: Trials, seed: int) -> Trials:
    """Give each signal the picture of another, drawn once."""
    random = np.random.default_rng((seed, trials.subject))
    return replace(trials, stimulus=random.permutation(trials.stimulus))


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
    loaded = (recipe.encoders, recipe.heads, recipe.prior, recipe.signal)
    varied = (train.embedding_alternatives, train.online, train.augment, train.augment_pictures)
    return (*loaded, *varied, train.memory_map, recipe.finetune.sessions is None)


def _check_repetitions(dataset: str, recipe: Recipe, most: int) -> None:
    """Refuse settings that contradict each other; warn of those without effect on `most` repetitions.

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
    least = {"single": 2, "random": signal.random_k + 1}.get(signal.repetitions, 0)
    idle = [f"signal.repetitions={signal.repetitions}"] if most < least else []
    idle += ["train.augment.repetitions"] if mixed and most < 2 else []
    if idle:
        console.warn(f"{' and '.join(idle)} has no effect: {dataset} has {most} repetition(s) a picture")
