"""embed: every picture of a data set through frozen encoders, into one store a split and encoder."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from brainhive_cli.core import console, home, hub, parts, recipe, runs
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.command_lines import after_embedding
from brainhive_cli.data.decoding import decoders
from brainhive_cli.data.encoder_groups import EncoderGroup, grouped
from brainhive_cli.data.health_checks import warn_of_illness
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.embedding.streaming import stream
from brainhive_cli.encoders import EncoderConfig, Encoders
from brainhive_cli.stores import hdf5
from brainhive_cli.stores.target_store import TargetStore, TargetWriter, path_of


class Recipe(recipe.Recipe):
    """What to embed with what."""

    LESS_MEMORY: ClassVar[recipe.Savings] = ({"batch_size": 0.5},)

    dataset: Annotated[Any, parts.part("datasets", "things_eeg")] = Field(
        "things-eeg", validate_default=True, description="whose pictures"
    )
    encoders: Encoders = Field(
        ["clip-h14", "vae"], validate_default=True, min_length=1, description="frozen encoders"
    )
    splits: recipe.Names | None = Field(None, description="splits to embed; default: all")
    batch_size: int = Field(64, gt=0, description="pictures a forward pass, on each process")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="autocast dtype of the forward pass"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="dtype of the store")
    skip_bad: bool = Field(False, description="accept pictures that cannot be decoded as gaps")


@dataclass(frozen=True)
class _Job:
    """One store to be filled."""

    config: EncoderConfig
    images: ImageSet
    path: Path

    @property
    def name(self) -> str:
        return self.config.name

    def to_do(self, what: Recipe, trunk: EncoderGroup | None) -> str:
        """Say why there is work to do; empty for a finished store of these pictures, made in this way.

        Weights that are not on this machine (no trunk) are taken to be those of the store, and so is all that
        made a store which was imported.
        """
        if not self.path.is_file():
            return "is not there"
        found = TargetStore.open(self.path)
        stored, asked = found.attributes, self._attributes(what)
        differs = [
            key for key in ("config", "dtype", "precision") if stored.get(key, asked[key]) != asked[key]
        ]
        if found.image_ids != self.images.image_ids:
            differs.append("pictures")
        if trunk and stored.get("preprocessing") != trunk.encoder.preprocessing:
            differs.append("preprocessing")
        if trunk and stored.get("weights", {}).get("digest") != trunk.encoder.weights.get("digest"):
            differs.append("weights")
        if "imported" in stored:  # nothing is known of what made it
            return "was made with other pictures" if "pictures" in differs else ""
        if differs:
            return f"was made with other {', '.join(differs)}"
        return "has gaps" if stored["skipped"] and not what.skip_bad else ""

    @property
    def imported(self) -> str:
        """Say from where the store was imported, and what follows; empty for one that was made here."""
        files = TargetStore.open(self.path).attributes.get("imported")
        if not files:
            return ""
        origin = f"{files[0]} and others" if len(files) > 1 else files[0]
        return f"was imported from {origin}, so what made it is not known: --again makes it here"

    def _attributes(self, what: Recipe) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "config": home.portable(self.config.model_dump(mode="json")),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": what.dtype,
            "precision": what.precision,
        }

    def begin(self, trunk: EncoderGroup, what: Recipe) -> None:
        """Create the unfinished store, or keep the same one that an interrupted command left."""
        made_by = {"weights": trunk.encoder.weights, "preprocessing": trunk.encoder.preprocessing}
        attributes = {**self._attributes(what), **made_by, "versions": runs.versions()}
        shape, images = trunk.shapes[self.name], self.images
        TargetWriter.begin(self.path, images.image_ids, images.concepts, shape, what.dtype, attributes)


def _jobs(what: Recipe) -> tuple[Dataset, dict[str, list[_Job]]]:
    """List the stores by split."""
    dataset: Dataset = what.dataset.build(what.paths)
    root, jobs = what.paths.under_home("embeddings"), {}
    for split in what.splits or dataset.splits:
        images = dataset.images(split)
        paths = [path_of(root, dataset.name, split, config.name) for config in what.encoders]
        jobs[split] = [_Job(c, images, path) for c, path in zip(what.encoders, paths, strict=True)]
    return dataset, jobs


def plan(what: Recipe) -> Plan:
    """Say which stores there would be and how large, what would be fetched for them, and what is missing."""
    items: dict[str, Any] = {}
    missing: list[str] = []
    jobs: list[_Job] = []
    root = what.paths.under_home("embeddings").parent
    try:
        dataset, by_split = _jobs(what)
        jobs = [job for some in by_split.values() for job in some]
        items = {f"{dataset.name}/{split}": f"{len(js[0].images)} pictures" for split, js in by_split.items()}
    except BrainhiveError as error:
        missing.append(error.in_one_line)
    for group in grouped(what.encoders, "fp32", Launch(0, 1, torch.device("cpu"))):
        names = ", ".join(group.names)
        own, trunk = [job for job in jobs if job.config in group.configs], None
        try:
            told, trunk = _weights(group, own, what)
            items[names] = told
        except BrainhiveError as error:
            missing.append(f"{names}: {error.in_one_line}")
        stores = Plan.of(
            {str(job.path.relative_to(root)): partial(_outlook, job, trunk, what) for job in own}
        )
        items, missing = {**items, **stores.items}, missing + stores.missing
    return Plan(items, list(dict.fromkeys(missing)))


def _weights(group: EncoderGroup, jobs: Sequence[_Job], what: Recipe) -> tuple[str, EncoderGroup | None]:
    """Say what the encoder of some stores does, or where its weights are if they are not here (no trunk)."""
    if jobs and not group.configs[0].is_here and not any(job.to_do(what, None) for job in jobs):
        return "not needed: its stores are there", None
    try:
        fetched = group.configs[0].bytes_to_fetch()
    except hub.Unreachable as error:
        return f"weights of unknown size: {error.in_one_line}", None
    if fetched:
        return (
            f"weights to download, {console.size(fetched)} from {getattr(group.configs[0], 'source', '')}",
            None,
        )
    return f"on this machine; {group.encoder.preprocessing}", group


def _outlook(job: _Job, trunk: EncoderGroup | None, what: Recipe) -> str:
    """Say whether a store is done, or why not and how many bytes will be written."""
    reason = job.to_do(what, trunk)
    if not reason:
        return job.imported or "done"
    dim = job.config.known_dim
    shape = (dim,) if dim else trunk.shapes[job.name] if trunk else None
    why = f" ({reason})" if job.path.is_file() else ""
    if shape is None:
        return f"to do, of a size that only the weights tell{why}"
    size = len(job.images) * prod(shape) * np.dtype(what.dtype).itemsize
    return f"to do{why}, {console.size(size)} to write"


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is not set.
    """
    dataset, by_split = _jobs(what)
    everything = [job for jobs in by_split.values() for job in jobs]
    trunks = _due(everything, what, launch, again)
    todo = [due for jobs in by_split.values() if (due := [job for job in jobs if job.path in trunks])]
    bad: list[str] = []
    with console.progress(dataset.name, sum(len(jobs[0].images) for jobs in todo)) as bar:
        for jobs in todo:
            bad += _fill(jobs, trunks, what, launch, again, bar)
    if bad and not what.skip_bad:
        raise BrainhiveError(
            f"{len(bad)} pictures cannot be decoded: {'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}",
            "replace them and run again (the rest is done), or accept the gaps with --skip-bad",
        )
    return _result(everything, dataset.name, what)


def _due(jobs: Sequence[_Job], what: Recipe, launch: Launch, again: bool) -> dict[Path, EncoderGroup]:
    """Find the stores to be filled, each with its network, and say which are made anew.

    Encoders on this machine are built in any case: their stores are held against them.
    """
    due: dict[Path, EncoderGroup] = {}
    for group in grouped(what.encoders, what.precision, launch):
        own = [job for job in jobs if job.config in group.configs]
        if not (again or group.configs[0].is_here or any(job.to_do(what, None) for job in own)):
            continue
        for job in own:
            reason = "" if again else job.to_do(what, group)
            if reason and job.path.is_file():
                console.say(f"{job.path} {reason}: it is made anew")
            if again or reason:
                due[job.path] = group
    for job in jobs:
        if job.path not in due and job.imported:
            console.say(f"{job.path} {job.imported}")
    return due


def _fill(
    jobs: Sequence[_Job],
    trunks: Mapping[Path, EncoderGroup],
    what: Recipe,
    launch: Launch,
    again: bool,
    bar: console.Bar,
) -> list[str]:
    """Embed the pictures of one split with all its encoders; return what could not be decoded."""
    images = jobs[0].images
    with ExitStack() as held:
        if launch.is_main:
            for job in jobs:
                claim = FileLock.for_path(job.path)
                held.callback(claim.release)
            for job in jobs:
                if again:
                    hdf5.part_of(job.path).unlink(missing_ok=True)
                job.begin(trunks[job.path], what)
        launch.barrier()
        writers = {job.name: TargetWriter(job.path) for job in jobs}
        for writer in writers.values():
            held.callback(writer.close)
        pending = {name: np.zeros(len(images), bool) for name in writers}
        for name, writer in writers.items():
            pending[name][writer.pending] = True
        launch.barrier()  # nobody writes before everybody knows what is pending
        rows = np.flatnonzero(np.logical_or.reduce(list(pending.values())))
        bar.expect(len(rows) - len(images))
        mine = rows[np.asarray(launch.shard(range(len(rows))), int)]
        chosen = list(dict.fromkeys(trunks[job.path] for job in jobs))
        workers = decoders(what.run.workers, launch)
        found = stream(mine, images, chosen, writers, pending, what.batch_size, workers, launch, bar)
        bad = [name for share in launch.gather(found) for name in share]
        if len(bad) == len(images):
            raise BrainhiveError(
                f"none of the {len(bad)} pictures of {images.dataset} can be decoded", "check the files"
            )
        if launch.is_main and (what.skip_bad or not bad):
            for writer in writers.values():
                writer.finish()
        launch.barrier()
    return bad


def _result(jobs: list[_Job], dataset: str, what: Recipe) -> Result:
    rows = []
    for found in (TargetStore.open(job.path) for job in jobs):
        shape = "×".join(map(str, found.embedding.shape[1:]))
        cosine = round(found.health.median_pair_cosine, 3)
        rows.append((found.attributes["encoder"], found.attributes["split"], len(found.done), shape, cosine))
        warn_of_illness(found)
    columns = ("encoder", "split", "pictures", "D", "pair cosine")
    return Result(
        what.paths.under_home("embeddings") / dataset,
        (console.Table(f"Embeddings of {dataset}", columns, tuple(rows)),),
        hint=after_embedding(what.dataset, what.encoders, what.paths),
    )
