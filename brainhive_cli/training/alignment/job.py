"""The job of train-align: a recipe, resolved once into what `plan` prints and `run` does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import in_words
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.core.results import Work
from brainhive_cli.core.set_up import SET_UP, merge
from brainhive_cli.core.sweep import variants
from brainhive_cli.data.datasets import Dataset, files_of, images_for_plan
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import shape_of
from brainhive_cli.data.targets.encoder_keys import match_prior
from brainhive_cli.data.targets.target_stores import open_stores, store_needs
from brainhive_cli.models import backbones, priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import FUSED, Head, Heads
from brainhive_cli.models.priors import Description
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.cells import Cell, cells_of
from brainhive_cli.training.alignment.finetune import find_source, inherit, model_for
from brainhive_cli.training.alignment.layout import tokens_of
from brainhive_cli.training.alignment.matching_run import as_inherited
from brainhive_cli.training.alignment.optimisation import is_below
from brainhive_cli.training.alignment.published import compared_with_published
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.set_ups import describe_run
from brainhive_cli.training.alignment.starts import Start, needs_of, starts_of
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.validation import describe_held_out

TRAINED_BYTES, HELD_BYTES = 16, 4
"""Of a weight in float32: with its gradient and AdamW's two moments, and alone."""
VIEW = re.compile(r"-view-(\d+)$")
"""In the name of a store: the one view that is encoded."""


@dataclass(frozen=True)
class Job:
    """A run of train-align, by the recipe as given; each member is resolved once, when it is first used.

    Attributes:
        given: The recipe.
        is_plan: Whether runs and signals may be absent: what they will be is then read in recipes.
    """

    given: Recipe
    is_plan: bool = False

    @cached_property
    def fine_tuned(self) -> AlignRun:
        """The run that is fine-tuned."""
        return find_source(self.given)

    def source(self, recipe: Recipe) -> SignalSource:
        """Return the signals of a variant."""
        return SignalSource(self.dataset, self.recipe.paths, recipe.signal)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; for fine-tuning with the keys that it inherits."""
        if self.given.mode != "finetune":
            return self.given
        try:
            return inherit(self.given, self.fine_tuned)
        except MissingData:
            if not self.is_plan or not self.given.finetune.trained_by:
                raise
            return as_inherited(self.given)

    @cached_property
    def variants(self) -> dict[str, Recipe]:
        """The recipe of every variant of a sweep, by label; otherwise one, labelled ""."""
        return variants(self.recipe)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set whose signals and stimuli are used."""
        built: Dataset = self.recipe.dataset.build(self.recipe.paths)
        return built

    @cached_property
    def cells(self) -> list[Cell]:
        """The trainings, variant by variant."""
        return cells_of(self.variants, self.dataset, self.is_plan)

    @cached_property
    def trained_on(self) -> list[int]:
        """Subjects that some cell is trained on."""
        return sorted({subject for cell in self.cells for subject in cell.trained_on})

    @cached_property
    def subjects(self) -> list[int]:
        """Subjects that some cell is trained or tested on."""
        return sorted({*self.trained_on, *(subject for cell in self.cells for subject in cell.tested_on)})

    @cached_property
    def stores(self) -> dict[str, TargetStore]:
        """The stores of all variants' encoders, by name.

        Raises:
            BrainhiveError: if they are of different stimuli.
            RecipeError: if a variant fuses shapes that cannot be fused.
        """
        encoders = {config.name for each in self.variants.values() for config in each.stored_encoders}
        given = (self.dataset, self.recipe.dataset, "train", self._stored, self.recipe.paths)
        stores = {name: store for name, store in open_stores(*given).items() if name in encoders}
        for each in self.variants.values():
            if each.fused_encoders:
                tokens_of({config.name: stores[config.name].shape for config in each.fused_encoders})
        return stores

    @property
    def _stored(self) -> list[EncoderConfig]:
        """The encoders whose stores are read, those of other views of the same encoder too."""
        used = self.variants.values()
        configs = {config.name: config for each in used for config in each.stored_encoders}
        for name, names in (pair for each in used for pair in each.train.embedding_alternatives.items()):
            views = [int(match[1]) for match in map(VIEW.search, names) if match and name in configs]
            further = [configs[name].model_copy(update={"views": view}) for view in views]
            configs |= {config.name: config for config in further if config.name in names}
        return [*configs.values()]

    def needs(self) -> Iterator[Need]:
        """List all that the training reads and does not make."""
        recipe = self.recipe
        if recipe.mode == "finetune":
            run = self.given.finetune.run or self.given.finetune.trained_by or "train-align"
            yield Need.of(f"run {run}", lambda: self.fine_tuned, key=run)
        yield from self.source(recipe).needs(self.subjects)
        yield from store_needs(self.dataset, recipe.dataset, "train", self._stored, recipe.paths)
        for online in [each for each in recipe.encoders if each not in recipe.stored_encoders]:
            yield from [*online.needs(), *files_of(self.dataset, "train", online.encodes)]
        for start in self.started:
            yield from start.values()

    @cached_property
    def validation(self) -> dict[str, str]:
        """How many training concepts each share of the variants holds out, and why none, in words."""
        concepts = next(iter(self.stores.values())).concepts
        shares = dict.fromkeys(each.train.validation for each in self.variants.values())
        return dict(describe_held_out(concepts, share) for share in shares)

    @property
    def online(self) -> str:
        """The encoders that run at each step, and what is still to be fetched of them, in words."""
        encoders = {each.name: each for each in self.recipe.encoders}
        for stored in self.recipe.stored_encoders:
            del encoders[stored.name]
        missing = [f"{n}, {to_download(each.needs())}" for n, each in encoders.items()]
        return "; ".join(missing)

    @cached_property
    def priors(self) -> dict[str, Description]:
        """The priors whose fusion encoders are targets, by reference; they match the variants' encoders.

        Raises:
            RecipeError: if a variant has another fuser or width of the token than its prior.
        """
        described = {}
        for each in self.variants.values():
            if each.prior:
                described[each.prior] = prior = priors.describe(each.prior)
                match_prior(each.prior, each.fused_encoders)
                _refuse_other_sizes(each, {**prior.fuser, "dropout": each.train.prior_dropout})
        return described

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of each prior's weights, by reference."""
        return {reference: prior.digest for reference, prior in self.priors.items()}

    @cached_property
    def signal(self) -> str:
        """Size of the signals, and what is still to be written, in words."""
        source = self.source(self.recipe)
        source.choose_subjects(self.subjects)
        source.require(self.subjects)
        self._refuse_absent_sessions()
        sections = {repr(each.signal): each for each in self.variants.values()}
        sizes = [self.source(each).store_size(self.subjects) for each in sections.values()]
        (count, most, channels, samples), to_write = sizes[0]
        copies = 1 if self.recipe.signal.repetitions == "average" else 1 + most
        most_subjects = max(len(cell.trained_on) for cell in self.cells)
        size_gb = 4 * copies * count * channels * samples * most_subjects / 1e9
        stores = f"signal stores: {console.size(to_write)} to write" if to_write else "signal stores: done"
        return f"{count}×{most}×{channels}×{samples}; a cell holds at most {size_gb:.2g} GB; {stores}"

    @cached_property
    def targets(self) -> str:
        """The priors, in words; they are loaded, so that a damaged one is found."""
        for reference in self.priors:
            priors.load(reference)
        makers = {True: "a fuser of its own", False: "what encoders give"}
        return ", ".join(
            dict.fromkeys(each.prior or makers[each.is_fused] for each in self.variants.values())
        )

    def work(self, cells: Sequence[Cell]) -> Work:
        """Count what it takes to train some cells."""
        train = self.recipe.train
        epochs = (self.variants[cell.variant].train.epochs * len(cell.trained_on) for cell in cells)
        kind = f"{self.recipe.backbone.kind}, {train.batch_size} a step in {train.precision}"
        return Work(f"{self.dataset.name}, {kind}", sum(epochs), "epochs of a subject")

    @cached_property
    def label(self) -> str:
        """Name of the run's folder, before the fingerprint."""
        return self.recipe.run_label(self.recipe.paths)

    def starts(self, cell: Cell) -> dict[int, tuple[Start, ...]]:
        """Find what stages of a cell's training start from, by the stage's number."""
        recipe = self.variants[cell.variant]
        starts = starts_of(recipe.train.starts, cell, recipe.paths, recipe.backbone)
        if recipe.mode == "finetune":
            is_same = recipe.finetune.run == self.recipe.finetune.run
            source = self.fine_tuned if is_same else find_source(recipe)
            starts[0] = (Start(model_for(source, cell)),)
        return starts

    @cached_property
    def started(self) -> list[dict[str, Need]]:
        """What each stage of the first cell's training starts from, by part."""
        recipe = self.recipe
        first = self.cells[0], recipe.paths, recipe.backbone
        return [needs_of(each, *first) for each in recipe.train.starts if each]

    @property
    def start_line(self) -> str:
        """The same in words."""
        starts = (pair for stage in self.started for pair in stage.items())
        return "; ".join(f"{part}: {need.name}" if part else need.name for part, need in starts)

    @property
    def memory_line(self) -> str:
        """How much device memory the first cell's weights take in training; "" where sizes are not known.

        Sizes are those that are published: with a data set's voxels and encoders' shapes no file is needed.
        """
        cell, recipe = self.cells[0], self.variants[self.cells[0].variant]
        published = getattr(self.dataset, "published_sizes", None)
        voxels = getattr(published, "voxels", {})
        heads: dict[str, Head] = {}
        for name, target in recipe.head_targets.items():
            shape = None if target == FUSED else target.known_shape
            if shape is None or not voxels.keys() >= {*cell.trained_on}:
                return ""
            heads[name] = Head(shape_of(target, shape, images_for_plan(self.dataset, "train")), target.name)
        return memory_of_weights(recipe, heads, cell, voxels)

    def prepare_signals(self, launch: Launch) -> None:
        """Create the signal stores that are missing."""
        for each in self.variants.values():
            needed = self.subjects if each.train.selection == "test" else self.trained_on
            self.source(each).prepare(needed, launch)
        self._refuse_absent_sessions()

    def _refuse_absent_sessions(self) -> None:
        """Refuse first sessions of subjects whose signals, where they are there, have fewer or name none."""
        for cell in self.cells:
            recipe = self.variants[cell.variant]
            count = recipe.finetune.sessions or 0
            trained_on = cell.trained_on if count else ()
            for subject, recording in self.source(recipe).recordings(trained_on, "train").items():
                sessions = recording.sessions
                most = 0 if sessions is None else int(sessions.max(initial=-1)) + 1
                if most < count:
                    known = f"have {most}" if most else "do not say which trial is of which"
                    other = "finetune.share, or signals that `prepare` makes by session"
                    raise RecipeError(
                        f"finetune.sessions is {count}, but training signals of subject {subject} {known}",
                        "fewer sessions" if most else other,
                    )

    def described(self) -> dict[str, Any]:
        """Return the set-up, and what was published, if anything was, with how it differs; by variant."""
        set_ups, published = [], {}
        for label, each in self.variants.items():
            tested = sorted({s for cell in self.cells if cell.variant == label for s in cell.tested_on})
            source = self.source(each)
            try:
                recordings, caveats = source.recordings(tested, "test"), source.caveats(tested)
                set_up = describe_run(each, self.dataset, recordings, tested)
            except BrainhiveError as error:  # of signals of the test, for which no training is thrown away
                console.warn(f"the signals of the test are not described: {error.in_one_line}")
                recordings, caveats = {}, []
                set_up = describe_run(each, self.dataset, recordings, tested)
            set_ups.append(set_up)
            published[label] = compared_with_published(
                each.published, set_up, self.dataset, recordings, caveats
            )
        of_run = published if self.recipe.is_swept else published[""]
        return {SET_UP: merge(set_ups), **({} if self.recipe.published is None else {"published": of_run})}


def _refuse_other_sizes(recipe: Recipe, made: dict[str, float]) -> None:
    """Refuse a fuser, or a width of the token, other than the prior's."""
    for name, value in {"dim": recipe.dim, **recipe.fuser.model_dump(exclude_defaults=True)}.items():
        if value is not None and value != made.get(name, value):
            key = name if name == "dim" else f"fuser.{name}"
            hint = f"train.prior_dropout={value:g}" if name == "dropout" else f"leave {key} out"
            raise RecipeError(f"{key} is {value}, but the prior {recipe.prior} has {made[name]}", hint)


def memory_of_weights(recipe: Recipe, heads: Heads, cell: Cell, voxels: Mapping[int, int]) -> str:
    """Estimate the memory of a cell's backbone in training, before the tensors of a batch, in words.

    Regions are taken to share the voxels equally: a model whose regions have layers alike is as large however
    they share them.
    """
    widths = tuple(voxels[subject] for subject in cell.trained_on)
    step = len(names := [*recipe.signal.region_split])
    shares = [tuple(tuple(range(place, width, step)) for width in widths) for place in range(step)]
    regions = dict(zip(names, shares, strict=True))
    spec = SignalSpec((), 1, cell.trained_on, widths, regions=regions)
    with torch.device("meta"):
        module: Any = backbones.build(recipe.backbone, spec, heads)
    frozen = [{*stage.freeze} for stage in recipe.train.stages] or [set()]
    always = tuple(set.intersection(*frozen))
    is_fitted = getattr(recipe.backbone, "is_closed_form", False)
    total = held = 0
    for name, weight in module.named_parameters():
        is_trained = not is_fitted and not is_below(f"backbone.{name}", always)
        total += weight.numel()
        held += weight.numel() * (TRAINED_BYTES if is_trained else HELD_BYTES)
    what = "weights" if is_fitted else "weights, gradients and moments, without a batch's tensors"
    return f"{in_words(held)} a cell: {total / 1e6:,.0f} million {what}"
