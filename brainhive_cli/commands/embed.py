"""embed: every picture of a data set through frozen encoders, into one store a split and encoder."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from brainhive_cli.core import console, hub, parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.needs import Need, require
from brainhive_cli.core.pace import Work
from brainhive_cli.core.recipe import Names, Savings
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.command_lines import next_command
from brainhive_cli.data.datasets import Dataset, StimulusSet, files_of, images_for_plan
from brainhive_cli.data.media.decoding import decoders
from brainhive_cli.data.stores.target_store import TargetStore, filling, path_of
from brainhive_cli.data.targets.embedding import StoreJob, stream
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.targets.target_stores import warn_of_problems
from brainhive_cli.models.encoders import Encoders

CPU = Launch(0, 1, torch.device("cpu"))
"""Where `plan` measures the shapes of small networks that are on this machine."""


class Recipe(BaseRecipe):
    """What to embed with what."""

    LESS_MEMORY: ClassVar[Savings] = ({"batch_size": 0.5},)

    dataset: Annotated[Any, parts.part("datasets", "things-eeg")] = Field(
        "things-eeg", validate_default=True, description="whose pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, min_length=1, description="frozen encoders"
    )
    splits: Names | None = Field(None, description="splits to embed; default: all")
    batch_size: int = Field(64, gt=0, le=2**16, description="pictures a forward pass, on each process")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast dtype of the forward pass"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="dtype of the store")
    skip_bad: bool = Field(False, description="accept pictures that cannot be decoded as gaps")


@dataclass(frozen=True)
class Job:
    """What an embed recipe comes to: the stores, and the networks that fill them."""

    recipe: Recipe
    list_images: Callable[[Dataset, str], StimulusSet] = lambda dataset, split: dataset.images(split)

    @cached_property
    def dataset(self) -> Dataset:
        """Whose pictures."""
        dataset: Dataset = self.recipe.dataset.build(self.recipe.paths)
        return dataset

    @cached_property
    def by_split(self) -> dict[str, list[StoreJob]]:
        """The stores of each split."""
        recipe, name = self.recipe, self.dataset.name
        root, stores = recipe.paths.under_home("embeddings"), {}
        for split in recipe.splits or self.dataset.splits:
            images = self.list_images(self.dataset, split)
            how = (recipe.precision, recipe.dtype, recipe.skip_bad)
            stores[split] = [
                StoreJob(config, images, path_of(root, name, split, config.name), *how)
                for config in recipe.encoders
            ]
        return stores

    @property
    def stores(self) -> list[StoreJob]:
        """All stores."""
        return [store for stores in self.by_split.values() for store in stores]


def plan(recipe: Recipe) -> Plan:
    """Say which stores there would be and how large, what would be fetched for them, and what is missing."""
    job, root = Job(recipe, images_for_plan), recipe.paths.under_home("embeddings").parent
    items: dict[str, Any] = {}
    errors: list[BrainhiveError] = []
    stores: list[StoreJob] = []
    needs: list[Need] = []
    reads = dict.fromkeys(["pixels", *(config.encodes for config in recipe.encoders)])
    for split in recipe.splits or job.dataset.splits:
        needs += [need for what in reads for need in files_of(job.dataset, split, what)]
    try:
        for split, own in job.by_split.items():
            items[f"{job.dataset.name}/{split}"] = f"{len(own[0].images)} {own[0].images.medium}s"
        stores = job.stores
    except BrainhiveError as error:
        errors.append(error)
    for group in grouped(recipe.encoders, "fp32", CPU):
        names, known = ", ".join(group.names), None
        own = [store for store in stores if store.config in group.configs]
        try:
            items[names], known, weights = _weights(group, own)
            needs += weights
        except NotRun as error:
            items[names] = error.message
        except BrainhiveError as error:
            errors.append(type(error)(f"{names}: {error.message}", error.hint))
        planned = Plan.of({str(store.path.relative_to(root)): partial(store.plan, known) for store in own})
        items, errors = {**items, **planned.items}, [*errors, *planned.errors]
    listed = Plan.of(
        {}, needs=lambda: needs, makes=[key for store in stores for key in store.keys], raised=errors
    )
    if listed.missing:
        return replace(listed, items=items)
    todo = [due for own in job.by_split.values() if (due := [each for each in own if each.reason(None)])]
    return replace(listed, items=items, work=_work(todo, recipe))


def _work(todo: Sequence[Sequence[StoreJob]], recipe: Recipe) -> Work | None:
    """Count the pictures that are to be embedded, by the networks that see them."""
    names = dict.fromkeys(store.config.name for stores in todo for store in stores)
    kind = f"{' + '.join(names)} of {recipe.dataset.kind} in {recipe.precision}"
    return Work(kind, sum(len(stores[0].images) for stores in todo), "pictures") if todo else None


def _weights(group: EncoderGroup, stores: Sequence[StoreJob]) -> tuple[str, EncoderGroup | None, list[Need]]:
    """Say how pictures are preprocessed, or that weights are not here (no group); and list the weights."""
    config = group.configs[0]
    if stores and not config.is_here and not any(store.reason(None) for store in stores):
        return "not needed: its stores exist", None, []
    needs = config.needs()
    if any(isinstance(need.error, hub.Unreachable) for need in needs):
        return "weights are missing", None, needs
    if fetched := require(needs):
        source = getattr(config, "source", "")
        return f"weights to download, {console.size(fetched)} from {source}", None, needs
    return f"on this machine; {group.encoder.preprocessing}", group, needs


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is not set.
    """
    job = Job(recipe)
    groups = _due(job, launch, again)
    todo = [due for own in job.by_split.values() if (due := [store for store in own if store.path in groups])]
    bad: list[str] = []
    start = time.monotonic()
    with console.progress(job.dataset.name, sum(len(stores[0].images) for stores in todo)) as bar:
        for stores in todo:
            bad += _fill(stores, groups, recipe, launch, again, bar)
    if bad and not recipe.skip_bad:
        raise BrainhiveError(
            f"{len(bad)} pictures cannot be decoded: {'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}",
            "replace them and run again (the rest is done), or accept the gaps with --skip-bad",
        )
    work = _work(todo, recipe)
    if work is None:
        console.say("found all stores done; --again embeds again")
    return replace(_result(job), work=(work, time.monotonic() - start) if work else None)


def _due(job: Job, launch: Launch, again: bool) -> dict[Path, EncoderGroup]:
    """Find the stores to be filled, each with its network, and say which are replaced.

    Encoders whose weights are on this machine are built in any case, and compared with their stores.
    """
    due: dict[Path, EncoderGroup] = {}
    for group in grouped(job.recipe.encoders, job.recipe.precision, launch):
        own = [store for store in job.stores if store.config in group.configs]
        if not (again or group.configs[0].is_here or any(store.reason(None) for store in own)):
            continue
        for store in own:
            reason = "" if again else store.reason(group)
            if reason and store.path.is_file():
                console.say(f"{store.path} {reason}: it is embedded again")
            if again or reason:
                due[store.path] = group
    for store in job.stores:
        if store.path not in due and store.imported:
            console.say(f"{store.path} {store.imported}")
    return due


def _fill(
    stores: Sequence[StoreJob],
    groups: Mapping[Path, EncoderGroup],
    recipe: Recipe,
    launch: Launch,
    again: bool,
    bar: console.Bar,
) -> list[str]:
    """Embed the pictures of one split with all its encoders; return what could not be decoded."""
    images, workers = stores[0].images, decoders(recipe.run.workers, launch)
    with filling([store.blank(groups[store.path]) for store in stores], launch, again) as filled:
        writers = {store.config.name: writer for store, writer in zip(stores, filled.writers, strict=True)}
        pending = {name: np.zeros(len(images), bool) for name in writers}
        for name, writer in writers.items():
            pending[name][writer.pending] = True
        rows = np.flatnonzero(np.logical_or.reduce(list(pending.values())))
        bar.expect(len(rows) - len(images))
        share = rows[np.asarray(launch.shard(range(len(rows))), int)]
        used = list(dict.fromkeys(groups[store.path] for store in stores))
        found = stream(share, images, used, writers, pending, recipe.batch_size, workers, launch, bar)
        bad = [name for each in launch.gather(found) for name in each]
        if len(bad) == len(images):
            raise BrainhiveError(
                f"none of the {len(bad)} pictures of {images.dataset} can be decoded; {bad[0]}",
                "check the files",
            )
        if recipe.skip_bad or not bad:
            filled.finish()
    return bad


def _result(job: Job) -> Result:
    rows = []
    for found in (TargetStore.open(store.path) for store in job.stores):
        shape = "×".join(map(str, found.embedding.shape[1:]))
        cosine = round(found.health.median_pair_cosine, 3)
        rows.append((found.attributes["encoder"], found.attributes["split"], len(found.done), shape, cosine))
        warn_of_problems(found)
    columns = ("encoder", "split", "pictures", "D", "pair cosine")
    return Result(
        job.recipe.paths.under_home("embeddings") / job.dataset.name,
        (console.Table(f"Embeddings of {job.dataset.name}", columns, tuple(rows)),),
        hint=next_command(job.recipe.dataset, job.recipe.encoders, job.recipe.paths),
    )
