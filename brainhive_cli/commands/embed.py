"""embed: every picture of a data set through frozen encoders, into one store a split
and encoder.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import WORKERS, announce, claiming
from brainhive_cli.core.command import Input, Result, Work, collect
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError, naming
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import BaseRecipe, Names, Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import Dataset, describe_unread, list_stimuli
from brainhive_cli.data.media.decoding import decoders
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    filling,
    find_own,
    finish_stores,
    path_of,
)
from brainhive_cli.data.targets.embedding import StoreJob, stream
from brainhive_cli.data.targets.picture_splits import HeldOut, write_split
from brainhive_cli.data.targets.target_stores import (
    next_command,
    warn_of_problems,
    with_usual_encoders,
    write_embedding,
)
from brainhive_cli.data.targets.targets import EncoderGroup, grouped
from brainhive_cli.models.encoders import (
    IMPORTED,
    USUAL,
    EncoderConfig,
    Encoders,
    own_names,
)


class Recipe(BaseRecipe):
    """Recipe of embed: a data set and its encoders."""

    LESS_MEMORY = "a smaller batch_size"

    dataset: Any = parts.key("datasets", "things-eeg", "whose pictures")
    encoders: Encoders = Field(
        [*USUAL],
        validate_default=True,
        min_length=1,
        description="frozen encoders",
    )
    splits: Names | None = Field(None, description="splits to embed; default: all")
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
        return with_usual_encoders(fields)

    @model_validator(mode="after")
    def _has_encoders_that_encode(self) -> Self:
        if imported := [config for config in self.encoders if config.kind == IMPORTED]:
            raise RecipeError(
                (
                    f"{imported[0].name} was imported as vectors, so nothing here can "
                    "embed pictures by it"
                ),
                write_embedding(self.dataset, imported[:1]),
            )
        return self


@dataclass(frozen=True)
class Job:
    """Stores that are filled.

    Attributes:
        recipe: Its settings.
        dataset: Data set of the stimuli.
        stores: Stores split by split, one per encoder.
        absent: Why stimuli cannot be listed; no stores are known then.
    """

    recipe: Recipe
    dataset: Dataset
    stores: list[StoreJob]
    absent: BrainhiveError | None = None

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Resolve the stores, each with its encoder, stimuli, path and dtype.

        Stimuli without their files are as many as are published.
        """
        dataset: Dataset = recipe.dataset.build(recipe.paths)
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
                        path_of(root, dataset.name, split, config.name),
                        recipe.precision,
                        config.store_dtype or recipe.dtype,
                        recipe.skip_bad,
                    )
                    for config in recipe.encoders
                ]
        except BrainhiveError as error:
            # `inputs` lists weights nevertheless
            return cls(recipe, dataset, [], error)
        return cls(recipe, dataset, stores)

    def require(self) -> None:
        """Raise the error of the first stimuli that are absent."""
        for error in [self.absent, *(store.images.missing for store in self.stores)]:
            if error is not None:
                raise error

    def list_due_encoders(self) -> list[EncoderConfig]:
        """List encoders of which a store is to be filled, or weights are here to be
        compared with stores.
        """
        due = {store.config.name for store in self.stores if store.reason(None)}
        return [
            one
            for one in self.recipe.encoders
            if not self.stores or one.is_here or one.name in due
        ]

    def work(self, due: Collection[Path]) -> Work | None:
        """Count the pictures to embed over all splits, and name their networks; None if
        nothing is due.
        """
        # the kind of work decides which earlier pace estimates this one
        todo = [store for store in self.stores if store.path in due]
        names = dict.fromkeys(store.config.name for store in todo)
        kind = (
            f"{' + '.join(names)} of {self.recipe.dataset.kind} in "
            f"{self.recipe.precision}"
        )
        counts = {store.images.split: len(store.images) for store in todo}
        # a cell is a split and a network, as in `run`
        cells = {
            (store.images.split, store.config.network_key) for store in self.stores
        }
        return (
            Work(kind, sum(counts.values()), "pictures", cells=len(cells))
            if names
            else None
        )


def inputs(recipe: Recipe) -> list[Input]:
    """List the files of the stimuli, and the weights of encoders whose stores are not
    all done.
    """
    job = cache(lambda: Job.resolve(recipe))
    dataset = recipe.dataset.build(recipe.paths)
    # pixels, and what else of a stimulus the encoders read
    reads = dict.fromkeys(["pixels", *(config.encodes for config in recipe.encoders)])

    def list_files() -> list[Input]:
        splits = recipe.splits or dataset.splits
        files = [
            one
            for split in splits
            for what in reads
            for one in dataset.files(split, what)
        ]
        if not any(one.is_missing for one in files):
            job().require()  # of a data set that does not list its files
        return files

    def check() -> None:
        """Build the encoders that are here, which loads no network."""
        for group in grouped(recipe.encoders, recipe.precision, Launch(0, 1, "cpu")):
            if group.configs[0].is_here:
                with naming(", ".join(group.names)):
                    _ = group.encoder.preprocessing

    return collect(
        list_files,
        lambda: [
            one for config in job().list_due_encoders() for one in config.inputs()
        ],
        checks=[check],
    )


def preview(recipe: Recipe) -> list[Table]:
    """Lay out the stores: done, or why not and how large they become."""
    stores = Job.resolve(recipe).stores
    root = recipe.paths.under_home("embeddings").parent
    rows = [
        (str(store.path.relative_to(root)), len(store.images), store.describe())
        for store in stores
    ]
    return [Table("Stores", ("store", "stimuli", "state"), rows)] if rows else []


def work(recipe: Recipe) -> Work | None:
    """Count the pictures to embed."""
    job = Job.resolve(recipe)
    return job.work({store.path for store in job.stores if store.reason(None)})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is
            not set.
    """
    # list the stimuli, and say which files among them are not read
    with console.progress("listing pictures"):
        job = Job.resolve(recipe)
        job.require()
    for images in {store.images.split: store.images for store in job.stores}.values():
        if unread := describe_unread(images.unread):
            console.say(
                f"files among the {images.split} pictures of {job.dataset.name}: "
                f"{unread}"
            )

    # the stores to be filled, each with its network; encoders whose weights are on this
    # machine are built in any case, and compared with their stores
    groups = {}
    with console.progress("comparing stores with their encoders"):
        for group in grouped(recipe.encoders, recipe.precision, launch):
            stores = [store for store in job.stores if store.config in group.configs]
            if not (
                again
                or group.configs[0].is_here
                or any(store.reason(None) for store in stores)
            ):
                continue
            for store in stores:
                reason = "" if again else store.reason(group)
                if reason and store.path.is_file():
                    console.say(f"{store.path} {reason}: it is embedded again")
                if again or reason:
                    groups[store.path] = group
    for store in job.stores:
        if store.path not in groups and store.imported:
            console.say(f"{store.path} {store.imported}")

    # tasks share cells, a split and a network each; alone, a split is one cell, so that
    # its pictures are decoded once for all networks
    work = job.work(groups)
    cells = defaultdict[str, list[StoreJob]](list)
    for store in job.stores:
        if store.path in groups:
            network = f" by {groups[store.path].name}" if WORKERS in os.environ else ""
            cells[f"{store.images.split}{network}"].append(store)
    files = {name: stores[0].path for name, stores in cells.items()}
    done = set[Path]()
    bad = list[str]()

    def is_filled(name: str) -> bool:
        # with `again`, a store is due until this launch has filled it
        return {
            store.path
            for store in cells[name]
            if again or store.reason(groups[store.path])
        } <= done

    if work:
        announce(work, "embed", recipe.paths.under_home("runs"), launch)
    with (
        console.progress(
            f"embedding {job.dataset.name}", work.count if work else 0
        ) as bar,
        claiming(files, launch, is_finished=is_filled) as free,
    ):
        for name in free:
            bad += _fill(cells[name], groups, recipe, launch, again, bar)
            done |= {store.path for store in cells[name]}
    if not {*groups} <= done:  # no pace is known of what others have shared
        work = None
    # raised at the end: all other pictures are stored by now
    if bad and not recipe.skip_bad:
        raise BrainhiveError(
            (
                f"{len(bad)} pictures cannot be decoded: "
                f"{'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}"
            ),
            (
                "replace them and run again (the rest is done), or accept the gaps "
                "with --skip-bad"
            ),
        )
    if not groups:
        console.say("all stores are done; --again embeds again")

    # report the shape and health of each store
    rows = []
    with console.progress("checking the stores", len(job.stores)) as bar:
        for filled in (TargetStore.open(store.path) for store in job.stores):
            shape = "×".join(map(str, filled.embedding.shape[1:]))  # [N, *shape]
            cosine = round(filled.health.median_pair_cosine, 3)
            encoder = filled.attributes["encoder"]
            split = filled.attributes["split"]
            rows.append((encoder, split, len(filled.done), shape, cosine))
            warn_of_problems(filled)
            bar.advance()
    table = Table(
        f"Embeddings of {job.dataset.name}",
        ("encoder", "split", "pictures", "D", "pair cosine"),
        rows,
    )
    # the split by these embeddings, which other encoders are tested with
    root = recipe.paths.under_home("embeddings") / job.dataset.name
    files = {}
    if recipe.held_out and launch.is_main:
        name = recipe.encoders[0].name
        embedded = TargetStore.open(path_of(root.parent, root.name, "train", name))
        files["split"] = write_split(embedded, recipe.held_out, root / "splits")
    return Result(
        root,
        (table,),
        files=files,
        hint=next_command(recipe.dataset, recipe.encoders, recipe.paths),
        work=work,
    )


def _fill(
    stores: Sequence[StoreJob],
    groups: Mapping[Path, EncoderGroup],
    recipe: Recipe,
    launch: Launch,
    again: bool,
    bar: console.Bar,
) -> list[str]:
    """Embed the pictures of one split with all its encoders; return the names that
    cannot be decoded.
    """
    # note the rows that each store lacks
    images = stores[0].images
    workers = decoders(recipe.run.workers, launch)
    with filling(
        [store.blank(groups[store.path]) for store in stores], launch, again
    ) as store_writers:
        writers = {
            store.config.name: writer
            for store, writer in zip(stores, store_writers, strict=True)
        }
        indices = np.arange(len(images))
        # [N]
        pending = {
            name: np.isin(indices, writer.pending) for name, writer in writers.items()
        }

        # each process decodes and encodes its share of the rows that any store lacks
        rows = np.flatnonzero(np.logical_or.reduce(list(pending.values())))
        bar.expect(len(rows) - len(images))  # less what an earlier command stored
        share = rows[np.asarray(launch.shard(range(len(rows))), int)]
        # a shared network runs once
        used = list(dict.fromkeys(groups[store.path] for store in stores))
        undecodable = stream(
            share,
            images,
            used,
            writers,
            pending,
            recipe.batch_size,
            workers,
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
            finish_stores(store_writers, launch)
    return bad


def list_encoders() -> Result:
    """List encoders by name, then the families that take any source; no network is used
    (`embed --list`).
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    # one row a kind; a family without a source of its own takes any
    rows = []
    for kind in parts.kinds("encoders"):
        config = parts.load("encoders", kind).Config()
        shape: tuple[int, ...] = config.known_shape or ()
        size = shape[0] if len(shape) == 1 else "×".join(map(str, shape))
        # a family without a source has no weights that could be here
        state = (
            "yes" if config.is_here else "no" if config.weights_from or size else "–"
        )
        source = config.weights_from or f"{{kind: {config.name}, source: …}}"
        side_px = config.image_px or "–"
        licence = config.licence or "–"
        rows.append((config.name, size or "–", side_px, source, licence, state))

    # own vectors of home, whose width a store says
    for name in own_names():
        if path := find_own(Paths().under_home("embeddings"), name):
            rows.append(
                (
                    name,
                    "×".join(map(str, TargetStore.open(path).shape)),
                    "–",
                    IMPORTED,
                    "–",
                    "yes",
                )
            )

    # families of any source come last
    rows.sort(key=lambda row: row[1] == "–")
    return Result(
        Path(HF_HUB_CACHE),
        (
            Table(
                "Encoders", ("encoder", "D", "px", "weights", "licence", "here"), rows
            ),
        ),
        hint=(
            f"{Line('embed', '--encoders', 'NAME,NAME:OUTPUT')} (class, mean, patches, "
            "block-I.class …)"
        ),
    )
