"""Recipe and job of embed, which fills target stores with embeddings."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.core.base import BrainhiveError, RecipeError, Table, console, naming
from brainhive_cli.core.files import Input, collect_inputs
from brainhive_cli.core.recipes import BaseRecipe, Flag, NameList, flag_field, parts
from brainhive_cli.core.runs import (
    READ_ONLY,
    WORKERS_VARIABLE,
    Job as CommandJob,
    Launch,
    Work,
)
from brainhive_cli.data.datasets import Dataset, list_stimuli
from brainhive_cli.data.media import count_decoders, describe_unread
from brainhive_cli.data.stores import finish_stores, open_writers
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.targets.embedding import StoreJob, embed_stimuli
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, group_encoders
from brainhive_cli.data.targets.encoder_keys import add_usual_encoders
from brainhive_cli.data.targets.next_commands import write_embed_commands
from brainhive_cli.data.targets.picture_splits import HeldOut
from brainhive_cli.models.encoders import DEFAULT_ENCODERS, IMPORTED, Encoders


class Recipe(BaseRecipe):
    """Recipe of embed."""

    MEMORY_HINT = "a smaller batch_size"
    summary = (
        "Compute embeddings of the pictures of a data set with vision models "
        "(encoders)."
    )
    example = "--encoders clip-h14,vae --dataset things-eeg"
    switches = ("list_encoders",)

    dataset: Annotated[Any, Flag()] = parts.part_field(
        "datasets",
        "things-eeg",
        "data set of the pictures, such as image-folder or demo",
    )
    encoders: Encoders = flag_field(
        list(DEFAULT_ENCODERS),
        "frozen encoders, by name or reference, separated by commas",
        validate_default=True,
        min_length=1,
    )
    splits: NameList | None = flag_field(
        None, "splits to embed, as in train,test; default: all"
    )
    batch_size: int = Field(
        64, gt=0, le=2**16, description="pictures per forward pass and process"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast dtype of the forward pass"
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="dtype of the store"
    )
    skip_bad: bool = flag_field(False, "leave gaps for pictures that cannot be decoded")
    held_out: HeldOut | None = Field(
        None,
        description="split of the training pictures by the first encoder, such as {by: "
        "clusters, folds: 5}, as a file for dataset.holdout.split",
    )

    @model_validator(mode="before")
    @classmethod
    def _add_usual_encoders(cls, fields: Any) -> Any:
        return add_usual_encoders(fields)

    @model_validator(mode="after")
    def _refuse_imported_vectors(self) -> Self:
        for config in self.encoders:
            if config.kind == IMPORTED:
                raise RecipeError(
                    f"{config.name} was imported as vectors, so it has no encoder that "
                    "can embed pictures",
                    write_embed_commands(self.dataset, [config]),
                )
        return self


@dataclass(frozen=True)
class Job(CommandJob):
    """The target stores of a recipe.

    Attributes:
        recipe: Settings.
        dataset: Data set of the stimuli.
        groups: Encoders by network. A network is loaded when it is first used.
        stores: A store per encoder, split by split.
        listing_error: Reason why stimuli cannot be listed. `stores` is then empty.
        force: If True, finished stores are filled again.
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

        Without the files of the stimuli, their published number is used.
        """
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        groups = group_encoders(recipe.encoders, recipe.precision, launch)
        root = recipe.paths.under_home("embeddings")
        stores = list[StoreJob]()
        try:
            for split in dict.fromkeys(recipe.splits or dataset.splits):
                # encoders of a split share its list of stimuli
                images = list_stimuli(dataset, split)
                for config in recipe.encoders:
                    store = StoreJob(
                        config,
                        images,
                        build_store_path(root, dataset.name, split, config.name),
                        precision=recipe.precision,
                        dtype=config.store_dtype or recipe.dtype,
                        skip_bad=recipe.skip_bad,
                    )
                    stores.append(store)
        except BrainhiveError as error:
            # `inputs` still lists the weights
            return cls(recipe, dataset, groups, [], error, force)
        return cls(recipe, dataset, groups, stores, force=force)

    def inputs(self) -> list[Input]:
        """List the files of the stimuli, and the weights of encoders with an unfinished
        store.
        """
        return collect_inputs(
            self._list_files, self._list_weights, checks=[self._build_encoders]
        )

    def _list_files(self) -> list[Input]:
        # pixels, and the captions, masks or labels that encoders read
        media = ["pixels"] + [config.content for config in self.recipe.encoders]
        files = list[Input]()
        for split in self.recipe.splits or self.dataset.splits:
            for medium in dict.fromkeys(media):
                files += self.dataset.files(split, medium)
        if any(file.is_missing for file in files):
            return files

        # not every data set lists its files
        if self.listing_error is not None:
            raise self.listing_error
        for store in self.stores:
            if store.images.missing_error is not None:
                raise store.images.missing_error
        return files

    def _list_weights(self) -> list[Input]:
        # present weights are compared with the stores
        due_names = {store.config.name for store in self.stores if self.is_due(store)}
        weights = list[Input]()
        for config in self.recipe.encoders:
            if not self.stores or config.is_available or config.name in due_names:
                weights += config.inputs()
        return weights

    def _build_encoders(self) -> None:
        """Build the encoders whose weights are on this machine."""
        for group in self.groups:
            if group.configs[0].is_available:
                with naming(", ".join(group.names)):
                    _ = group.encoder.preprocessing  # builds the encoder

    def preview(self) -> list[Table]:
        """Tabulate the stores with their number of stimuli and their state."""
        root = self.recipe.paths.under_home("embeddings").parent
        rows = []
        for store in self.stores:
            name = str(store.path.relative_to(root))
            rows.append((name, len(store.images), store.describe()))
        return [Table("Stores", ("store", "stimuli", "state"), rows)] if rows else []

    def is_due(self, store: StoreJob, group: EncoderGroup | None = None) -> bool:
        """Return True if a store must be filled.

        Args:
            store: The store.
            group: Encoder to compare with the store, if any.
        """
        return self.force or bool(store.describe_reason(group))

    def count_work(self, due: Collection[Path] | None = None) -> Work | None:
        """Count the pictures to embed over all splits, or return None if there are
        none.

        Args:
            due: Paths of the stores to fill. The default is all unfinished stores.
        """
        names = list[str]()
        counts = {}  # pictures by split
        cells = set()  # pairs of a split and a network
        for store in self.stores:
            split = store.images.split
            cells.add((split, store.config.network_key))
            is_due = self.is_due(store) if due is None else store.path in due
            if is_due:
                counts[split] = len(store.images)
                if store.config.name not in names:
                    names.append(store.config.name)
        if not counts:
            return None
        return Work(
            # earlier work of this name estimates the pace
            f"{' + '.join(names)} of {self.recipe.dataset.kind} in "
            f"{self.recipe.precision}",
            sum(counts.values()),
            "pictures",
            cells=len(cells),
        )

    def report_unread_files(self) -> None:
        """Print the files among the pictures that are not read."""
        splits = {store.images.split: store.images for store in self.stores}
        for images in splits.values():
            unread = describe_unread(images.unread_counts)
            if unread:
                console.say(
                    f"files among the {images.split} pictures of {self.dataset.name}: "
                    f"{unread}"
                )

    @console.progress("comparing stores with their encoders")
    def find_due_networks(self) -> dict[Path, EncoderGroup]:
        """Find the network of each store that must be filled.

        Encoders whose weights are on this machine are always built, and compared with
        their stores.
        """
        groups = {}
        for group in self.groups:
            stores = [store for store in self.stores if store.config in group.configs]
            if not group.configs[0].is_available and not any(map(self.is_due, stores)):
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
        """Divide the stores to fill into named cells.

        On a cluster a cell is a split and a network. Otherwise a cell is a split,
        so that its pictures are decoded once for all networks.

        Args:
            groups: Network with its outputs for each store to fill, by path.
        """
        cells = defaultdict[str, list[StoreJob]](list)
        for store in self.stores:
            if store.path in groups:
                cell = store.images.split
                if WORKERS_VARIABLE in os.environ:
                    cell += f" by {groups[store.path].name}"
                cells[cell].append(store)
        return cells

    def fill_stores(
        self,
        stores: Sequence[StoreJob],
        groups: Mapping[Path, EncoderGroup],
        launch: Launch,
        bar: console.Bar,
    ) -> list[str]:
        """Embed the pictures of a split with all its encoders.

        Args:
            stores: Stores of the split.
            groups: Network of each store, by path.
            launch: Processes that share the work.
            bar: Progress bar that counts pictures.

        Returns:
            Descriptions of the pictures that cannot be decoded.
        """
        recipe = self.recipe
        images = stores[0].images
        plans = []
        names = []
        split_groups: dict[EncoderGroup, None] = {}  # a shared network runs once
        for store in stores:
            group = groups[store.path]
            plans.append(store.make_plan(group))
            names.append(store.config.name)
            split_groups[group] = None
        with open_writers(plans, launch, self.force) as writers:
            local_problems = embed_stimuli(
                images,
                list(split_groups),
                dict(zip(names, writers, strict=True)),
                recipe.batch_size,
                count_decoders(recipe.run.workers, launch),
                launch,
                bar,
            )
            problems = list[str]()
            for process_problems in launch.gather(local_problems):
                problems += process_problems
            if len(problems) == len(images):
                raise BrainhiveError(
                    f"no picture of {images.dataset} can be decoded, out of "
                    f"{len(problems)}. The first: {problems[0]}",
                    "replace the files, or check that they are pictures",
                )
            # gaps are accepted only with `skip_bad`
            if recipe.skip_bad or not problems:
                finish_stores(writers, launch)
        return problems
