"""What the cells of an align run learn from: targets, signals, and the fuser of a prior."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from brainhive_cli.data.responses import Responses, Rows, open_responses, spec_of
from brainhive_cli.data.signal_stores import caveats_of
from brainhive_cli.data.signals.normalisation import Moments
from brainhive_cli.data.stores.target_store import pixels_of
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.target_stores import digest_of, open_alternatives, open_stores
from brainhive_cli.data.targets.targets import OnlineTargets, Targets, TargetSource
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import FUSED, TOKEN, Head, Heads
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.finetune import share_of
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.layout import Layout, fused_head
from brainhive_cli.training.alignment.learned import Learned, LearnedPictures
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.validation import held_out_of

DIM = 1024
"""D of a token that neither recipe, fuser nor prior decides: BrainHiVE's."""


class TrainingData:
    """Targets and signals of all cells that learn from the same ones.

    Args:
        job: The run.
        recipe: The recipe of one of these cells.
        launch: On whose device the targets are.

    Attributes:
        stores: The target stores, by the encoder's name; all have the same rows.
        stimuli: One of them: which stimulus each row is.
        pixels: Digests of the stimuli's pixels, [M]; None where no store has them.
        prior: The prior whose frozen fuser makes the target.
        keys: The fuser's key of each encoder, by the encoder's store name.
        targets: Targets of the stimuli, by the fuser's key.
        augmented: Targets of augmented pictures, by the head's name; None where none are asked for.
        responses: Training signals, by subject; each is opened when a cell first learns from it.
    """

    def __init__(self, job: Job, recipe: Recipe, launch: Launch) -> None:
        self.job, self.recipe, self.launch = job, recipe, launch
        self.stores = {config.name: job.stores[config.name] for config in recipe.stored_encoders}
        self.stimuli = next(iter(self.stores.values()))
        self.pixels = pixels_of(self.stores.values())
        self.prior = priors.load(recipe.prior) if recipe.prior else None
        self.keys = {config.name: config.name for config in recipe.encoders}
        if self.prior:
            self.keys |= match_keys(recipe.fused_encoders, self.prior.dims, f"the prior {recipe.prior}")

        # targets are opened before signals, which are mapped or not by the memory that is left
        further = open_alternatives(recipe.train.embedding_alternatives, self.stores, recipe.paths)
        stored = Targets.of(self.stores, launch, self.keys, further=further)
        heads = recipe.head_targets
        self.online = self._computed({heads[head].name: heads[head] for head in recipe.train.online})
        self.targets = Targets({**stored.sources, **self.online})
        self.augmented = self._augmented()

        # single trials are needed where repetitions are chosen anew in each step
        is_varied = recipe.train.augment.repetitions > 0 or recipe.signal.repetitions != "average"
        self.with_single = is_varied or recipe.finetune.sessions is not None
        self.is_memory_mapped = self._is_memory_mapped()
        self.responses: dict[int, Responses] = {}

    def is_compatible(self, recipe: Recipe) -> bool:
        """Check that another recipe learns from the same targets and signals."""
        return _inputs(self.recipe) == _inputs(recipe)

    def _augmented(self) -> Targets | None:
        """Compute what the encoders of some heads give for augmented pictures.

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
        by_name = {encoder.name: encoder for encoder in encoders.values()}
        computed = self._computed(by_name, partial(augmented, config=config))
        sources: dict[str, TargetSource] = {
            head + AUGMENTED: computed[encoder.name] for head, encoder in encoders.items()
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

    def _is_memory_mapped(self) -> bool:
        """Whether signals stay on disk; `auto`: where they need more than half of the free memory."""
        source, where = self.job.source(self.recipe), self.job.dataset.name
        shapes = [source.select(source.open(each)["train"], where).shape for each in self.job.trained_on]
        _check_repetitions(where, self.recipe, max((shape[1] for shape in shapes), default=0))
        if self.recipe.train.memory_map != "auto":
            return self.recipe.train.memory_map == "yes"
        needed = sum(4 * n * (1 + r * self.with_single) * prod(rest) for n, r, *rest in shapes)
        is_mapped = self.launch.processes * needed > free_bytes(self.launch.device) / 2
        if is_mapped:
            console.say(f"the signals need {needed / 1e9:.1f} GB, so they stay on disk")
        return is_mapped

    def of_cell(self, cell: Cell) -> tuple[Layout, CellData]:
        """Return the architecture of a cell's model, and what it learns from."""
        recipe = self.job.variants[cell.variant]
        train, source = recipe.train, self.job.source(self.recipe)
        held_out = held_out_of(self.stimuli.concepts, train.validation, self.pixels)
        for subject in cell.trained_on:
            if subject not in self.responses:
                self.responses[subject] = open_responses(
                    *(source, subject, "train", self.stimuli),
                    with_single=self.with_single,
                    memory_map=self.is_memory_mapped,
                )
        responses = [self.responses[subject] for subject in cell.trained_on]
        if recipe.mode == "finetune":
            responses = [share_of(each, held_out, recipe.finetune) for each in responses]
        learned = self._learned(recipe, responses)
        layout = self._layout(recipe, responses)
        if train.shuffled_labels:
            responses = [_shuffled(each, cell.seed) for each in responses]
        tested, tested_targets = None, None
        if train.selection == "test":
            tested, tested_targets = self._tested(cell, learned)
        data = CellData(
            responses=responses,
            targets=self.targets,
            held_out=held_out,
            fuser=self.prior.fuser if self.prior else None,
            starts=self.job.starts(cell),
            tested=tested,
            tested_targets=tested_targets,
            learned=learned,
            repetitions=recipe.signal.repetitions,
            random_k=recipe.signal.random_k,
            augmented=self.augmented,
            alike=Alike(self.job.dataset.alike_by, dict(enumerate(self.stimuli.concepts))),
            epoch_trials=train.epoch_trials and train.epoch_trials * (recipe.finetune.sessions or 1),
        )
        return layout, data

    def _tested(self, cell: Cell, learned: Learned) -> tuple[list[Responses], Targets]:
        """Open the test signals of a cell and the targets of their stimuli, which select the epoch."""
        recipe, dataset, source = self.recipe, self.job.dataset, self.job.source(self.recipe)
        stores = open_stores(dataset, recipe.dataset, "test", recipe.stored_encoders, recipe.paths)
        stimuli, pixels = next(iter(stores.values())), pixels_of(stores.values())
        seen = learned.pictures.contain(dataset.pictured_as, stimuli.image_ids, pixels)

        def are_unseen(rows: Rows) -> NDArray[np.bool_]:
            return ~seen[rows]

        tested = [
            open_responses(
                *(source, subject, "test", stimuli),
                normaliser=learned.normaliser_of(subject),
                are_allowed=are_unseen,
            )
            for subject in cell.tested_on
        ]
        return tested, Targets.of(stores, self.launch, self.keys)

    def _learned(self, recipe: Recipe, responses: Sequence[Responses]) -> Learned:
        """Describe what a cell's model learns from; what selects the epoch is added later."""
        rows = np.unique(np.concatenate([each.stimulus for each in responses]))
        pixels = None if self.pixels is None else self.pixels[rows]
        source, normaliser, dataset = self.job.source(self.recipe), None, self.job.dataset
        caveats = caveats_of(dataset, (source.open(each.subject)["train"] for each in responses))
        how = recipe.signal.normalise
        if how != "none" and recipe.signal.normalise_by == "training_subjects":
            moments = [each.moments for each in responses if each.moments]
            normaliser = Moments.pooled(moments).normaliser(how)
        return Learned(
            dataset=dataset.pictured_as,
            recordings=dataset.recorded_as,
            subjects=tuple(each.subject for each in responses),
            preparation=recipe.signal.model_dump(mode="json"),
            is_simulated=SIMULATED in caveats,
            is_whitened_by_tested=WHITENED_BY_TESTED in caveats,
            pictures=LearnedPictures.of(dataset.pictured_as, self.stimuli.image_ids[rows], pixels),
            normaliser=normaliser,
        )

    def _layout(self, recipe: Recipe, responses: Sequence[Responses]) -> Layout:
        """Say what the model of a cell is built from."""
        shapes, fused = self.targets.shapes, {self.keys[config.name] for config in recipe.fused_encoders}
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
        heads = {}
        for name, target in recipe.head_targets.items():
            if target == FUSED:
                heads[name] = fused_head({key: shapes[key] for key in dims}, dim or 0)
                continue
            store = self.stores.get(target.name)
            digest = digest_of(store) if store else self.online[target.name].group.digest
            heads[name] = Head(shapes[target.name], target.name, digest)
        return Layout(
            spec=spec_of(responses),
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


def _shuffled(responses: Responses, seed: int) -> Responses:
    """Give each signal the picture of another, drawn once."""
    random = np.random.default_rng((seed, responses.subject))
    return replace(responses, stimulus=random.permutation(responses.stimulus))


def _compared(recipe: Recipe, heads: Heads) -> tuple[str, ...]:
    """Name the heads that retrieval compares: the recipe's, else the only one of vectors or tokens."""
    if recipe.head is not None:
        return (recipe.head,)
    if not recipe.heads:
        return () if recipe.is_fused else tuple(heads)
    comparable = [name for name, head in heads.items() if len(head.shape) <= 2]
    return tuple(comparable) if TOKEN not in heads and len(comparable) == 1 else ()


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
