"""Targets: what encoders give for the stimuli of a split, read from stores or computed at each step."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console, needs, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import free_bytes
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.command_lines import command
from brainhive_cli.data.datasets import Dataset, StimulusSet
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.targets.health_checks import warn_of_problems
from brainhive_cli.data.targets.target_sources import OnlineTargets, Rows, StoreTargets, TargetSource
from brainhive_cli.models.encoders import EncoderConfig


@dataclass(frozen=True)
class Targets:
    """What several encoders give for the same stimuli, row by row.

    Attributes:
        sources: By key: the encoder's name, or the key of a fuser.
    """

    sources: dict[str, TargetSource]

    @classmethod
    def of(
        cls,
        stores: Mapping[str, TargetStore],
        launch: Launch,
        keys: Mapping[str, str] | None = None,
        hold: bool = True,
        further: Mapping[str, Sequence[TargetStore]] = MappingProxyType({}),
    ) -> "Targets":
        """Make targets of stores that are open.

        Args:
            stores: By the encoder's name.
            launch: On whose device targets are used, and how many processes share the memory.
            keys: The key of each encoder; default: its name.
            hold: Copy all to the device where they fit; else each batch is gathered from the files.
            further: Stores whose targets are alternatives, by the encoder's name (see `open_alternatives`).
        """
        every = [*stores.values(), *(each for others in further.values() for each in others)]
        needed = sum(store.embedding.nbytes for store in every) * launch.processes
        if hold and needed > free_bytes(launch.device) / 2:
            console.say(f"the targets need {needed / 1e9:.1f} GB, so they stay on disk")
            hold = False
        sources: dict[str, TargetSource] = {}
        for name, store in stores.items():
            source = StoreTargets.of(store, launch.device, hold, further.get(name, ()))
            sources[(keys or {}).get(name, name)] = source
        return cls(sources)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one target, by key."""
        return {key: source.shape for key, source in self.sources.items()}

    @property
    def dims(self) -> dict[str, int]:
        """Width of each target, by key, where all are vectors.

        Raises:
            BrainhiveError: if one is no vector.
        """
        for key, shape in self.shapes.items():
            if len(shape) != 1:
                raise BrainhiveError(
                    f"the targets of {key} have the shape {list(shape)}, and only vectors [D] can be fused",
                    "name an output that is a vector, or give these targets a head of their own",
                )
        return {key: prod(shape) for key, shape in self.shapes.items()}

    @property
    def ids(self) -> Sequence[str]:
        """Stimulus id of each row, [N]."""
        return next(iter(self.sources.values())).ids

    @property
    def done(self) -> NDArray[np.bool_]:
        """Whether every source has a target for a row, [N]."""
        return np.logical_and.reduce([source.done for source in self.sources.values()])

    @property
    def pixels(self) -> NDArray[np.uint64] | None:
        """Digests of the stimuli's pixels, [N]; None where no store has them."""
        stored = [source for source in self.sources.values() if isinstance(source, StoreTargets)]
        return next((source.pixels for source in stored if source.pixels is not None), None)

    @property
    def groups(self) -> list[EncoderGroup]:
        """The networks that compute targets at each step."""
        online = [source for source in self.sources.values() if isinstance(source, OnlineTargets)]
        return list(dict.fromkeys(source.group for source in online))

    @property
    def alternatives(self) -> dict[str, int]:
        """How many targets each stimulus has, by key, where they are several."""
        return {key: source.alternatives for key, source in self.sources.items() if source.alternatives > 1}

    def gather(
        self,
        rows: Rows | Tensor,
        views: Mapping[str, Tensor] | None = None,
        which: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> dict[str, Tensor]:
        """Give the targets of some rows, float32 [B, *shape] by key; each network runs once.

        Args:
            rows: Which stimuli, [B].
            which: Which alternative of each, [B] by key; the first where none is named.
            views: The stimuli as each of `groups` sees them, [B, 3, H, W] by its name; decoded here if none.
        """
        computed: dict[EncoderGroup, dict[str, Tensor]] = {}
        found = {}
        for key, source in self.sources.items():
            if isinstance(source, OnlineTargets):
                group = source.group
                if group not in computed:
                    given = (views or {}).get(group.name)
                    computed[group] = group.encode(
                        source.views(rows, which.get(key)) if given is None else given
                    )
                values = source.chosen(computed[group][source.name], which.get(key))
                found[key] = values.clone()  # or it could not be used in training
            else:
                found[key] = source.gather(rows, which.get(key))
        return found


def open_targets(
    dataset: Dataset,
    made_of: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    launch: Launch,
    keys: Mapping[str, str] | None = None,
    hold: bool = True,
    compute_missing: bool = False,
    images: StimulusSet | None = None,
) -> Targets:
    """Open the targets of several encoders over the same stimuli, after a health check.

    Args:
        dataset: Whose stimuli.
        made_of: The data set's Config, for the command line that would embed it.
        split: Which of them.
        encoders: One source each.
        paths: Where stores lie.
        launch: On whose device targets are used, and how many processes share the memory.
        keys: The key of each encoder; default: its name.
        hold: Copy all to the device where they fit; else each batch is gathered from the files.
        compute_missing: Compute what has no store at each step.
        images: The stimuli, where they are listed already: of ImageNet that takes a while.

    Raises:
        MissingData: if a store is missing, with the line that makes it.
        BrainhiveError: if a store is another data set's, or of other stimuli than the data set or another
            store.
    """
    stored = list(encoders)
    if compute_missing:
        root = paths.under_home("embeddings")
        stored = [c for c in encoders if target_store.find(root, dataset.name, split, c.name)[0].is_file()]
    stores = open_stores(dataset, made_of, split, stored, paths, images) if stored else {}
    sources = Targets.of(stores, launch, keys, hold).sources
    missing = [config for config in encoders if config not in stored]
    for config in missing:
        if config.pictures:  # at each step, the stimulus itself would be seen
            raise MissingData(f"{config.name} has no store", command("embed", made_of, [config]))
    for group in grouped(missing, "fp32", launch):
        stimuli = images or dataset.images(split)
        for name in group.names:
            sources[(keys or {}).get(name, name)] = OnlineTargets(stimuli, group, name)
    return Targets(sources)


def open_stores(
    dataset: Dataset,
    made_of: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    images: StimulusSet | None = None,
) -> dict[str, TargetStore]:
    """Open the stores of several encoders over the same stimuli, by encoder; arguments as `open_targets`."""
    root, line = paths.under_home("embeddings"), command("embed", made_of, encoders)
    try:
        stores = target_store.open_all(root, dataset.name, split, [config.name for config in encoders])
    except MissingData as error:
        raise MissingData(error.message, line) from error
    first = next(iter(stores.values()))
    with suppress(MissingData):  # the pictures need not be on this machine
        first.refuse_other_pictures((images or dataset.images(split)).image_ids, line)
    for other in stores.values():
        warn_of_problems(other)
        whose = "{dataset}/{split}".format_map(other.attributes)
        if whose != f"{dataset.name}/{split}":
            raise BrainhiveError(
                f"{other.path} holds embeddings of {whose}, not of {dataset.name}/{split}", f"{line} --again"
            )
        if difference := _difference(first, other):
            raise BrainhiveError(f"{first.path} and {other.path} hold {difference}", f"{line} --again")
    return stores


def store_needs(
    dataset: Dataset, made_of: parts.Config, split: str, encoders: Sequence[EncoderConfig], paths: Paths
) -> list[Need]:
    """List the stores of several encoders; arguments as `open_targets`."""
    root, given = paths.under_home("embeddings"), (dataset, made_of, split, encoders, paths)
    files = [target_store.find(root, dataset.name, split, config.name)[0] for config in encoders]
    return needs.stores(files, partial(open_stores, *given))


def _difference(first: TargetStore, other: TargetStore) -> str:
    """Say how the stimuli of two stores differ; empty if row by row they do not."""
    if first.image_ids != other.image_ids:
        is_order = sorted(first.image_ids) == sorted(other.image_ids)
        return "the same pictures in another order" if is_order else "different pictures"
    return "" if np.array_equal(first.done, other.done) else "gaps at different pictures"


def open_alternatives(
    alternatives: Mapping[str, Sequence[str]], stores: Mapping[str, TargetStore], paths: Paths
) -> dict[str, list[TargetStore]]:
    """Open further stores of the same stimuli.

    Args:
        alternatives: Names of further stores, by the encoder whose targets they are alternatives of.
        stores: Its store, by the encoder's name.
        paths: Where stores lie.

    Raises:
        MissingData: if a store is missing.
        BrainhiveError: if one is not of the same stimuli and shape.
    """
    if unknown := set(alternatives) - set(stores):
        raise BrainhiveError(
            f"train.embedding_alternatives names {', '.join(sorted(unknown))}, which is not fused",
            f"encoders: {', '.join(stores)}",
        )
    further = {}
    for name, others in alternatives.items():
        first = stores[name]
        dataset, split = first.attributes["dataset"], first.attributes["split"]
        try:
            opened = target_store.open_all(paths.under_home("embeddings"), dataset, split, others)
        except MissingData as error:
            here = sorted(path.stem for path in first.path.parent.glob("*.h5"))
            raise MissingData(error.message, f"name stores that are there: {', '.join(here)}") from error
        for other in opened.values():
            is_alike = first.shape == other.shape
            if reason := _difference(first, other) or ("" if is_alike else "targets of another shape"):
                raise BrainhiveError(f"{first.path} and {other.path} hold {reason}", "name another store")
        further[name] = list(opened.values())
    return further
