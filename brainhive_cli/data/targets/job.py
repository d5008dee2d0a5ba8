"""Job of embed: the stores of a data set's pictures by frozen encoders."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import WORKERS_VARIABLE
from brainhive_cli.core.command import Input, Work, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, RecipeError, naming
from brainhive_cli.core.jobs import Job as CommandJob
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import READ_ONLY, Launch
from brainhive_cli.core.recipe import BaseRecipe
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import Dataset, list_stimuli
from brainhive_cli.data.media.decoding import count_decoders
from brainhive_cli.data.media.stimuli import describe_unread
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.stores.target_writer import finish_stores, open_writers
from brainhive_cli.data.targets.embedding import StoreJob, embed_stimuli
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.targets.encoder_keys import add_usual_encoders
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.data.targets.picture_splits import HeldOut
from brainhive_cli.models.encoders import IMPORTED, USUAL, Encoders


class Recipe(BaseRecipe):
    """Recipe of embed: a data set and its encoders."""

    MEMORY_HINT = "a smaller batch_size"

    dataset: Any = parts.part_field("datasets", "things-eeg", "whose pictures")
    encoders: Encoders = Field(
        [*USUAL],
        validate_default=True,
        min_length=1,
        description="frozen encoders",
    )
    splits: NameList | None = Field(None, description="splits to embed; default: all")
    batch_size: int = Field(
        64, gt=0, le=2**16, description="pictures a forward pass, on each process"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast dtype of the forward pass"
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="dtype of the store"
    )
    skip_bad: bool = Field(
        False, description="accept pictures that cannot be decoded as gaps"
    )
    held_out: HeldOut | None = Field(
        None,
        description="split of the training pictures by the first encoder, as {by: "
        "clusters, folds: 5}, written for dataset.holdout.split",
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_the_encoders_of_its_dataset(cls, fields: Any) -> Any:
        return add_usual_encoders(fields)

    @model_validator(mode="after")
    def _has_encoders_that_encode(self) -> Self:
        if imported := [config for config in self.encoders if config.kind == IMPORTED]:
            raise RecipeError(
                (
                    f"{imported[0].name} was imported as vectors, so nothing here can "
                    "embed pictures by it"
                ),
                write_embed_commands(self.dataset, imported[:1]),
            )
        return self


@dataclass(frozen=True)
class Job(CommandJob):
    """Stores that are filled.

    Attributes:
        recipe: Its settings.
        dataset: Data set of the stimuli.
        groups: Networks of the encoders, which are loaded when they are first used.
        stores: Stores split by split, one per encoder.
        absent: Why stimuli cannot be listed; no stores are known then.
        force: Whether stores that are done are filled again.
    """

    recipe: Recipe
    dataset: Dataset
    groups: list[EncoderGroup]
    stores: list[StoreJob]
    listing_error: BrainhiveError | None = None
    force: bool = False

    @classmethod
    def resolve(
        cls, recipe: Recipe, launch: Launch = READ_ONLY, force: bool = False
    ) -> Self:
        """Resolve the stores, each with its encoder, stimuli, path and dtype.

        Stimuli without their files are as many as are published.
        """
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        groups = grouped(recipe.encoders, recipe.precision, launch)
        root = recipe.paths.under_home("embeddings")
        stores = list[StoreJob]()
        try:
            # encoders of a split share its list of stimuli
            for split in dict.fromkeys(recipe.splits or dataset.splits):
                images = list_stimuli(dataset, split)
                stores += [
                    StoreJob(
                        config,
                        images,
                        build_store_path(root, dataset.name, split, config.name),
                        recipe.precision,
                        config.store_dtype or recipe.dtype,
                        recipe.skip_bad,
                    )
                    for config in recipe.encoders
                ]
        except BrainhiveError as error:
            # `inputs` lists weights nevertheless
            return cls(recipe, dataset, groups, [], error, force)
        return cls(recipe, dataset, groups, stores, force=force)

    def inputs(self) -> list[Input]:
        """List the files of the stimuli, and the weights of encoders whose stores are
        not all done.
        """
        return collect_inputs(
            self._list_files, self._list_weights, checks=[self._build_encoders]
        )

    def _list_files(self) -> list[Input]:
        # pixels, and what else of a stimulus the encoders read
        encoders = self.recipe.encoders
        reads = dict.fromkeys(["pixels", *(config.encodes for config in encoders)])
        files = list[Input]()
        for split in self.recipe.splits or self.dataset.splits:
            for medium in reads:
                files += self.dataset.files(split, medium)
        if any(file.is_missing for file in files):
            return files

        # not every data set lists its files
        for error in [
            self.listing_error,
            *(store.images.missing_error for store in self.stores),
        ]:
            if error is not None:
                raise error
        return files

    def _list_weights(self) -> list[Input]:
        # weights that are here are compared with the stores
        due = {store.config.name for store in self.stores if self.is_due(store)}
        listed = list[Input]()
        for config in self.recipe.encoders:
            if not self.stores or config.is_here or config.name in due:
                listed += config.inputs()
        return listed

    def _build_encoders(self) -> None:
        # of those that are here
        for group in self.groups:
            if group.configs[0].is_here:
                with naming(", ".join(group.names)):
                    _ = group.encoder.preprocessing

    def preview(self) -> list[Table]:
        """Lay out the stores: done, or why not and how large they become."""
        root = self.recipe.paths.under_home("embeddings").parent
        rows = [
            (str(store.path.relative_to(root)), len(store.images), store.describe())
            for store in self.stores
        ]
        return [Table("Stores", ("store", "stimuli", "state"), rows)] if rows else []

    def is_due(self, store: StoreJob, group: EncoderGroup | None = None) -> bool:
        """Return whether a store is to be filled, compared with its encoder if that is
        known.
        """
        return self.force or bool(store.describe_reason(group))

    def count_work(self, due: Collection[Path] | None = None) -> Work | None:
        """Count the pictures to embed over all splits, and name their networks; None if
        nothing is due.

        Args:
            due: Paths of the stores to be filled; default: of those that are not done.
        """
        # the kind of work decides which earlier pace estimates this one
        if due is None:
            due = {store.path for store in self.stores if self.is_due(store)}
        todo = [store for store in self.stores if store.path in due]
        if not todo:
            return None
        names = dict.fromkeys(store.config.name for store in todo)
        kind = (
            f"{' + '.join(names)} of {self.recipe.dataset.kind} in "
            f"{self.recipe.precision}"
        )
        counts = {store.images.split: len(store.images) for store in todo}
        # a cell is a split and a network, as in `divide`
        cells = {
            (store.images.split, store.config.network_key) for store in self.stores
        }
        return Work(kind, sum(counts.values()), "pictures", cells=len(cells))

    def report_unread_files(self) -> None:
        """Say which files among the pictures are not read."""
        splits = {store.images.split: store.images for store in self.stores}
        for images in splits.values():
            if unread := describe_unread(images.unread_counts):
                console.say(
                    f"files among the {images.split} pictures of {self.dataset.name}: "
                    f"{unread}"
                )

    @console.progress("comparing stores with their encoders")
    def find_due_networks(self) -> dict[Path, EncoderGroup]:
        """Find the stores to be filled, each with its network.

        Encoders whose weights are on this machine are built in any case, and compared
        with their stores.
        """
        groups = {}
        for group in self.groups:
            stores = [store for store in self.stores if store.config in group.configs]
            if not (group.configs[0].is_here or any(map(self.is_due, stores))):
                continue
            for store in stores:
                reason = "" if self.force else store.describe_reason(group)
                if reason and store.path.is_file():
                    console.say(f"{store.path} {reason}: it is embedded again")
                if self.force or reason:
                    groups[store.path] = group
        for store in self.stores:
            if store.path not in groups and store.import_note:
                console.say(f"{store.path} {store.import_note}")
        return groups

    def divide_into_cells(
        self, groups: Mapping[Path, EncoderGroup]
    ) -> dict[str, list[StoreJob]]:
        """Divide the stores to be filled into cells, by name.

        Tasks of a cluster share cells, a split and a network each. Alone, a split is
        one cell, so that its pictures are decoded once for all networks.
        """
        cells = defaultdict[str, list[StoreJob]](list)
        for store in self.stores:
            if store.path in groups:
                network = (
                    f" by {groups[store.path].name}"
                    if WORKERS_VARIABLE in os.environ
                    else ""
                )
                cells[f"{store.images.split}{network}"].append(store)
        return cells

    def fill_stores(
        self,
        stores: Sequence[StoreJob],
        groups: Mapping[Path, EncoderGroup],
        launch: Launch,
        bar: console.Bar,
    ) -> list[str]:
        """Embed the pictures of one split with all its encoders; return the names that
        cannot be decoded.
        """
        recipe, images = self.recipe, stores[0].images
        blanks = [store.make_plan(groups[store.path]) for store in stores]
        with open_writers(blanks, launch, self.force) as writers:
            names = [store.config.name for store in stores]
            undecodable = embed_stimuli(
                images,
                # a shared network runs once
                list(dict.fromkeys(groups[store.path] for store in stores)),
                dict(zip(names, writers, strict=True)),
                recipe.batch_size,
                count_decoders(recipe.run.workers, launch),
                launch,
                bar,
            )

            # gather failures of all processes; gaps are accepted only with `skip_bad`
            bad = [name for names in launch.gather(undecodable) for name in names]
            if len(bad) == len(images):
                raise BrainhiveError(
                    (
                        f"none of the {len(bad)} pictures of {images.dataset} can be "
                        f"decoded; {bad[0]}"
                    ),
                    "check the files",
                )
            if recipe.skip_bad or not bad:
                finish_stores(writers, launch)
        return bad
