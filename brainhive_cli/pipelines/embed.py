"""embed: every picture of a data set through frozen encoders, into one store a split and encoder."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli import console, parts, recipe, runs, store
from brainhive_cli.datasets import BadPicture, Dataset, ImageSet
from brainhive_cli.embeddings import EmbeddingStore, EmbeddingWriter, path_of
from brainhive_cli.encoders import Encoder, EncoderConfig, Encoders
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._advice import command
from brainhive_cli.pipelines._decoding import decoded, decoders
from brainhive_cli.pipelines._illness import warn_of_illness


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
    """Say which stores there would be and how large, and what is missing for them."""
    items: dict[str, Any] = {}
    missing = []
    jobs: list[_Job] = []
    try:
        dataset, by_split = _jobs(what)
        jobs = [job for split in by_split.values() for job in split]
        items = {
            f"{dataset.name}/{split}": f"{len(some[0].images)} pictures" for split, some in by_split.items()
        }
    except BrainhiveError as error:
        missing.append(error.in_one_line)
    for config in what.encoders:
        try:
            encoder = config.build()
            items[config.name] = encoder.preprocessing
            for job in (job for job in jobs if job.config.name == config.name):
                items[str(job.path)] = _outlook(job, encoder, what)
        except BrainhiveError as error:
            missing.append(error.in_one_line)
    return Plan(items, missing)


def _outlook(job: _Job, encoder: Encoder, what: Recipe) -> str:
    """Say whether a store is done, or how many bytes it will take."""
    if job.is_done(what.skip_bad):
        return "done"
    values = len(job.images) * prod(_shape(encoder, job.images, Launch(0, 1, torch.device("cpu"))))
    return f"to do, {values * torch.finfo(getattr(torch, what.dtype)).bits // 8 / 1e6:.1f} MB"


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is not set.
    """
    dataset, by_split = _jobs(what)
    encoders: dict[str, Encoder] = {}
    bad: list[str] = []
    for jobs in by_split.values():
        todo = [job for job in jobs if again or not job.is_done(what.skip_bad)]
        for config in (job.config for job in todo if job.config.name not in encoders):
            encoders[config.name] = config.build()
            encoders[config.name].module.to(launch.device)
        if todo:
            bad += _fill(todo, encoders, what, launch, again)
    everything = [job for jobs in by_split.values() for job in jobs]
    if bad and not what.skip_bad:
        raise BrainhiveError(
            f"{len(bad)} pictures cannot be decoded: {'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}",
            "replace them and run again (the rest is done), or accept the gaps with --skip-bad",
        )
    return _result(everything, dataset.name, what)


def _fill(
    jobs: list[_Job], encoders: dict[str, Encoder], what: Recipe, launch: Launch, again: bool
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
        pending = {name: set(writer.pending.tolist()) for name, writer in writers.items()}
        launch.wait()  # nobody writes before everybody knows what is pending
        rows = launch.mine(sorted(set().union(*pending.values())))
        chosen = {name: encoders[name] for name in writers}
        mine = _stream(rows, pending, jobs[0].images, chosen, writers, what, launch)
        bad = [name for share in launch.gather(mine) for name in share]
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
        job.begin(encoder, _shape(encoder, job.images, launch), what.dtype)


def _stream(
    rows: Sequence[int],
    pending: dict[str, set[int]],
    images: ImageSet,
    encoders: dict[str, Encoder],
    writers: dict[str, EmbeddingWriter],
    what: Recipe,
    launch: Launch,
) -> list[str]:
    """Decode in worker processes, encode here, write in a thread; each picture is decoded once."""
    bad: list[str] = []
    writes: list[Future[None]] = []
    label = f"{images.dataset}/{images.split}"
    with ThreadPoolExecutor(1) as writing, console.progress(label, len(rows)) as bar:
        workers = decoders(what.run.workers, launch)
        for batch in decoded(
            rows, images, {n: e.preprocess for n, e in encoders.items()}, what.batch_size, workers
        ):
            bad += [problem for _, problem in batch if isinstance(problem, str)]
            for name, encoder in encoders.items():
                wanted = [(row, of) for row, of in batch if not isinstance(of, str) and row in pending[name]]
                if wanted:
                    pictures = torch.stack([of[name] for _, of in wanted])  # [B, 3, H, W]
                    values = encode(encoder, pictures, what.precision, launch)
                    at = torch.tensor([row for row, _ in wanted]).numpy()
                    writes.append(writing.submit(writers[name].write, at, values.cpu().numpy()))
            while len(writes) > 4 * len(encoders):  # bounds what waits in memory, and raises what failed
                writes.pop(0).result()
            bar.advance(len(batch))
        for write in writes:
            write.result()
    return bad


@torch.inference_mode()
def encode(encoder: Encoder, pictures: Tensor, precision: str, launch: Launch) -> Tensor:
    """Encode preprocessed pictures [B, 3, H, W] as float32 [B, …]."""
    with launch.autocast(precision):
        return encoder.module(pictures.to(launch.device, non_blocking=True)).float()  # type: ignore[no-any-return]


def _shape(encoder: Encoder, images: ImageSet, launch: Launch) -> tuple[int, ...]:
    """Learn the shape of an embedding from the first picture that opens."""
    for index in range(len(images)):
        try:
            picture = encoder.preprocess(images.open(index))
        except BadPicture:
            continue
        return tuple(encode(encoder, picture[None], "fp32", launch).shape[1:])
    raise BrainhiveError(
        f"none of the {len(images)} pictures of {images.dataset} can be decoded", "check the files"
    )


def _result(jobs: list[_Job], dataset: str, what: Recipe) -> Result:
    rows = []
    for found in (EmbeddingStore.open(job.path) for job in jobs):
        shape = "×".join(map(str, found.embedding.shape[1:]))
        cosine = round(found.health.median_pair_cosine, 3)
        rows.append((found.attributes["encoder"], found.attributes["split"], len(found.done), shape, cosine))
        warn_of_illness(found)
    columns = ("encoder", "split", "pictures", "D", "pair cosine")
    return Result(
        what.paths.under_home("embeddings") / dataset,
        (console.Table(f"Embeddings of {dataset}", columns, tuple(rows)),),
        hint=command("train-align", what.dataset, what.encoders),
    )
