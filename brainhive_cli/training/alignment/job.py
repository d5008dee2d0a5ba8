"""The job of train-align: a recipe, resolved once into what `plan` prints and `run` does."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.core.pace import Work
from brainhive_cli.core.set_up import SET_UP, merge
from brainhive_cli.core.sweep import variants
from brainhive_cli.data import signal_stores as signals
from brainhive_cli.data.datasets import Dataset, files_of, images_for_plan
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import shape_of
from brainhive_cli.data.targets.encoder_keys import match_prior
from brainhive_cli.data.targets.targets import open_stores, store_needs
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import FUSED, Head
from brainhive_cli.models.priors import Description
from brainhive_cli.training.alignment.cells import Cell, cells_of
from brainhive_cli.training.alignment.finetune import Source, inherit
from brainhive_cli.training.alignment.layout import tokens_of
from brainhive_cli.training.alignment.matching_run import as_inherited
from brainhive_cli.training.alignment.memory import memory_of_weights
from brainhive_cli.training.alignment.published import compared_with_published
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.set_ups import describe_run, tested_recordings
from brainhive_cli.training.alignment.starts import Start, needs_of, starts_of
from brainhive_cli.training.alignment.validation import describe_held_out

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
    def source(self) -> Source:
        """The run that is fine-tuned."""
        return Source.find(self.given)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; for fine-tuning with the keys that it inherits."""
        if self.given.mode != "finetune":
            return self.given
        try:
            return inherit(self.given, self.source)
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
            yield Need.of(f"run {run}", lambda: self.source, key=run)
        yield from signals.signal_needs(self.dataset, recipe.paths, recipe.signal, self.subjects)
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
        found = {}
        for each in self.variants.values():
            if each.prior:
                found[each.prior] = prior = priors.describe(each.prior)
                match_prior(each.prior, each.fused_encoders)
                _refuse_other_sizes(each, {**prior.fuser, "dropout": each.train.prior_dropout})
        return found

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of each prior's weights, by reference."""
        return {reference: prior.digest for reference, prior in self.priors.items()}

    @cached_property
    def signal(self) -> str:
        """Size of the signals, and what is still to be written, in words."""
        given = (self.dataset, self.recipe.paths)
        signals.chosen_subjects(*given, self.recipe.signal.name, self.subjects)
        signals.require_signals(*given, self.recipe.signal, self.subjects)
        self._refuse_absent_sessions()
        sections = {repr(each.signal): each.signal for each in self.variants.values()}
        sizes = [signals.size_up(*given, each, self.subjects) for each in sections.values()]
        (count, most, channels, samples), to_write = sizes[0]
        kept = 1 if self.recipe.signal.repetitions == "average" else 1 + most
        held = 4 * kept * count * channels * samples * max(len(cell.trained_on) for cell in self.cells)
        stores = f"signal stores: {console.size(to_write)} to write" if to_write else "signal stores: done"
        return f"{count}×{most}×{channels}×{samples}; a cell holds at most {held / 1e9:.2g} GB; {stores}"

    @cached_property
    def targets(self) -> str:
        """The priors, in words; they are loaded, so that a damaged one is found."""
        for reference in self.priors:
            priors.load(reference)
        own = {True: "a fuser of its own", False: "what encoders give"}
        return ", ".join(dict.fromkeys(each.prior or own[each.is_fused] for each in self.variants.values()))

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
            source = self.source if is_same else Source.find(recipe)
            starts[0] = (Start(source.model_for(cell)),)
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
            signals.prepare_signals(self.dataset, self.recipe.paths, each.signal, needed, launch)
        self._refuse_absent_sessions()

    def _refuse_absent_sessions(self) -> None:
        """Refuse first sessions of subjects whose signals, where they are there, have fewer or name none."""
        for cell in self.cells:
            recipe = self.variants[cell.variant]
            count = recipe.finetune.sessions or 0
            for subject in cell.trained_on if count else ():
                given = (self.dataset, recipe.paths, recipe.signal, subject)
                if not signals.store_path(*given).is_file():
                    continue
                sessions = signals.open_signals(*given)["train"].sessions
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
            stores = (self.dataset, self.recipe.paths, each.signal, tested)
            try:
                recordings, caveats = tested_recordings(*stores, "test"), signals.caveats_of_signals(*stores)
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
