"""embed: every picture of a data set through frozen encoders, into one store a split and encoder."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli import console, hub, parts, recipe, runs, store
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.embeddings import EmbeddingStore, EmbeddingWriter, path_of
from brainhive_cli.encoders import Encoder, EncoderConfig, Encoders
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._advice import command
from brainhive_cli.pipelines._decoding import decoded, decoders
from brainhive_cli.pipelines._pace import WRITING, Pace


class Recipe(recipe.Recipe):
    """What to embed with what."""

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

    def is_done(self, skip_bad: bool) -> bool:
        """Whether there is a finished store of just these pictures; with gaps only if they are accepted."""
        if not self.path.is_file():
            return False
        found = EmbeddingStore.open(self.path)
        same = found.image_ids == list(self.images.image_ids) and found.attributes["config"] == self._config
        return same and (skip_bad or not found.attributes["skipped"])

    @property
    def _config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def begin(self, encoder: Encoder, shape: tuple[int, ...], dtype: str) -> None:
        attributes = {
            "encoder": self.config.name,
            "config": self._config,
            "weights": encoder.weights,
            "preprocessing": encoder.preprocessing,
            "dataset": self.images.dataset,
            "split": self.images.split,
            "versions": runs.versions(),
        }
        EmbeddingWriter.begin(
            self.path, self.images.image_ids, self.images.concepts, shape, dtype, attributes
        )


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
    looks: dict[str, Callable[[], str]] = {}
    missing: list[str] = []
    by_split: dict[str, list[_Job]] = {}
    try:
        dataset, by_split = _jobs(what)
    except BrainhiveError as error:
        missing.append(error.in_one_line)
    for split, some in by_split.items():
        looks[f"{dataset.name}/{split}"] = partial("{} pictures".format, len(some[0].images))
    for config in what.encoders:
        shape = cache(partial(_known_shape, config))
        looks[config.name] = partial(_fetching, config)
        for job in (job for some in by_split.values() for job in some if job.config is config):
            looks[str(job.path)] = partial(_outlook, job, shape, what)
    plan = Plan.of(looks)
    return Plan(plan.items, missing + plan.missing)


def _fetching(config: EncoderConfig) -> str:
    """Say whether an encoder's weights are on this machine, or how many bytes have to come from the hub."""
    source: str = getattr(config, "source", "")
    fetched = hub.bytes_to_fetch(source, allow=config.files)
    return f"weights to download, {_bytes(fetched)} from {source}" if fetched else "weights on this machine"


def _outlook(job: _Job, shape: Callable[[], tuple[int, ...] | None], what: Recipe) -> str:
    """Say whether a store is done, or how many bytes will be written."""
    if job.is_done(what.skip_bad):
        return "done"
    known = shape()
    if known is None:
        return "to do, of a size that only the weights tell"
    return f"to do, {_bytes(len(job.images) * prod(known) * np.dtype(what.dtype).itemsize)} to write"


def _known_shape(config: EncoderConfig) -> tuple[int, ...] | None:
    """Learn the shape of an embedding; None while the weights that tell are not on this machine."""
    if config.dim and config.name == config.kind.replace("_", "-"):
        return (config.dim,)
    try:
        if hub.bytes_to_fetch(getattr(config, "source", ""), allow=config.files):
            return None
    except MissingData:
        return None
    return _shape(config.build(), "fp32", Launch(0, 1, torch.device("cpu")))


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is not set.
    """
    dataset, by_split = _jobs(what)
    todo = [[job for job in jobs if again or not job.is_done(what.skip_bad)] for jobs in by_split.values()]
    todo = [jobs for jobs in todo if jobs]
    configs = {job.config.name: job.config for jobs in todo for job in jobs}
    encoders = {name: _ready(config.build(), what.precision, launch) for name, config in configs.items()}
    bad: list[str] = []
    with console.progress(dataset.name, sum(len(jobs[0].images) for jobs in todo)) as bar:
        for jobs in todo:
            bad += _fill(jobs, encoders, what, launch, again, bar)
    everything = [job for jobs in by_split.values() for job in jobs]
    if bad and not what.skip_bad:
        raise BrainhiveError(
            f"{len(bad)} pictures cannot be decoded: {'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}",
            "replace them and run again (the rest is done), or accept the gaps with --skip-bad",
        )
    return _result(everything, dataset.name, what)


def _ready(encoder: Encoder, precision: str, launch: Launch) -> Encoder:
    """Move an encoder to the device, with the weights that autocast would cast at each call cast once."""
    encoder.module.to(launch.device)
    with launch.autocast(precision):
        if torch.is_autocast_enabled(launch.device.type):
            dtype = torch.get_autocast_dtype(launch.device.type)
            for layer in encoder.module.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(dtype)
    return encoder


def _fill(
    jobs: list[_Job],
    encoders: dict[str, Encoder],
    what: Recipe,
    launch: Launch,
    again: bool,
    bar: console.Bar,
) -> list[str]:
    """Embed the pictures of one split with all its encoders; return what could not be decoded."""
    with ExitStack() as held:
        if launch.is_main:
            for job in jobs:
                claim = store.Claim(job.path.with_name(f".{job.path.name}.claim"), str(job.path))
                held.callback(claim.release)
            _begin(jobs, encoders, what, launch, again)
        launch.wait()
        writers = {job.config.name: EmbeddingWriter(job.path) for job in jobs}
        for writer in writers.values():
            held.callback(writer.close)
        images = jobs[0].images
        pending = {name: np.zeros(len(images), bool) for name in writers}
        for name, writer in writers.items():
            pending[name][writer.pending] = True
        launch.wait()  # nobody writes before everybody knows what is pending
        rows = np.flatnonzero(np.logical_or.reduce(list(pending.values())))
        bar.expect(len(rows) - len(images))
        mine = rows[np.asarray(launch.mine(range(len(rows))), int)]
        chosen = {name: encoders[name] for name in writers}
        bad = _stream(mine, pending, images, chosen, writers, what, launch, bar)
        bad = [name for share in launch.gather(bad) for name in share]
        if len(bad) == len(images):
            raise BrainhiveError(
                f"none of the {len(bad)} pictures of {images.dataset} can be decoded", "check the files"
            )
        if launch.is_main and (what.skip_bad or not bad):
            for writer in writers.values():
                writer.finish()
        launch.wait()
    return bad


def _begin(jobs: list[_Job], encoders: dict[str, Encoder], what: Recipe, launch: Launch, again: bool) -> None:
    """Create the unfinished stores, or keep those that an interrupted command left."""
    for job in jobs:
        if again:
            store.part_of(job.path).unlink(missing_ok=True)
        encoder = encoders[job.config.name]
        job.begin(encoder, _shape(encoder, what.precision, launch), what.dtype)


def _stream(
    rows: NDArray[np.int64],
    pending: dict[str, NDArray[np.bool_]],
    images: ImageSet,
    encoders: dict[str, Encoder],
    writers: dict[str, EmbeddingWriter],
    what: Recipe,
    launch: Launch,
    bar: console.Bar,
) -> list[str]:
    """Decode in worker processes, encode here, write in a thread; each picture is decoded once."""
    bad: list[str] = []
    writes: deque[tuple[str, Future[tuple[float, float]]]] = deque()
    workers, views = decoders(what.run.workers, launch), {n: e.preprocess for n, e in encoders.items()}
    on_gpu = launch.device.type == "cuda"
    batches = decoded(rows, images, views, pending, what.batch_size, workers, pinned=on_gpu)
    pace = Pace(beside=workers > 0)
    with ThreadPoolExecutor(1) as writing:
        for batch in pace.batches(batches):
            bad += batch.bad
            for name, pictures in batch.views.items():
                with pace.at(name):
                    values = encode(encoders[name], pictures, what.precision, launch)
                    values = values.to("cpu", non_blocking=True)
                there = torch.cuda.current_stream(launch.device).record_event() if on_gpu else None
                write = writing.submit(_keep, writers[name], batch.rows[name], values, there)
                writes.append((name, write))
            while len(writes) > 4 * len(encoders):  # bounds what waits in memory, and raises what failed
                _settle(*writes.popleft(), pace)
            bar.advance(batch.read * launch.processes, f"{pace.limit} limits")
        for name, write in writes:
            _settle(name, write, pace)
    return bad


def _keep(
    writer: EmbeddingWriter, rows: NDArray[np.int64], values: Tensor, there: Any
) -> tuple[float, float]:
    """Write embeddings [B, …] once they are `there`; return the seconds that waiting and writing took."""
    start = time.perf_counter()
    if there is not None:
        there.synchronize()
    waited = time.perf_counter()
    writer.write(rows, values.numpy())
    return waited - start, time.perf_counter() - waited


def _settle(name: str, write: Future[tuple[float, float]], pace: Pace) -> None:
    for stage, spent_s in zip((name, WRITING), write.result(), strict=True):
        pace.count(stage, spent_s)


@torch.inference_mode()
def encode(encoder: Encoder, pictures: Tensor, precision: str, launch: Launch) -> Tensor:
    """Encode preprocessed pictures [B, 3, H, W] as float32 [B, …]."""
    with launch.autocast(precision):
        return encoder.module(pictures.to(launch.device, non_blocking=True)).float()  # type: ignore[no-any-return]


def _shape(encoder: Encoder, precision: str, launch: Launch) -> tuple[int, ...]:
    """Learn the shape of an embedding from a blank picture."""
    picture = encoder.preprocess(Image.new("RGB", (256, 256)))
    return tuple(encode(encoder, picture[None], precision, launch).shape[1:])


def _result(jobs: list[_Job], dataset: str, what: Recipe) -> Result:
    rows = []
    for found in (EmbeddingStore.open(job.path) for job in jobs):
        health = found.attributes["health"]
        shape = "×".join(map(str, found.embedding.shape[1:]))
        cosine = round(health["median_pair_cosine"], 3)
        rows.append((found.attributes["encoder"], found.attributes["split"], len(found.done), shape, cosine))
        warn_of_illness(found)
    columns = ("encoder", "split", "pictures", "D", "pair cosine")
    return Result(
        what.paths.under_home("embeddings") / dataset,
        (console.Table(f"Embeddings of {dataset}", columns, tuple(rows)),),
        hint=command("train-align", what.dataset, what.encoders),
    )


def warn_of_illness(found: EmbeddingStore) -> None:
    """Say loudly that a store's vectors hardly differ, or are not numbers."""
    health = found.attributes["health"]
    problems = []
    if found.is_collapsed:
        cosine = health["median_pair_cosine"]
        problems.append(f"embeddings have collapsed, the median cosine of random pairs is {cosine:.4f}")
    if health["non_finite"]:
        problems.append(f"{health['non_finite']} of the values looked at are not finite")
    for problem in problems:
        console.warn(f"{found.path}: {problem}; check weights and preprocessing, then embed again")
