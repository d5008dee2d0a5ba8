"""embed: every picture of a data set through frozen encoders, into one store a split and encoder."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from brainhive_cli import console, parts, recipe, runs, store
from brainhive_cli.datasets import BadPicture, Dataset, ImageSet
from brainhive_cli.embeddings import EmbeddingStore, EmbeddingWriter, path_of
from brainhive_cli.encoders import Encoder, EncoderConfig, Encoders, joined
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines import Plan, Result
from brainhive_cli.pipelines._advice import command
from brainhive_cli.pipelines._decoding import decoded, decoders


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

    def to_do(self, what: Recipe, trunk: "_Trunk | None") -> str:
        """Say why there is work to do; empty for a finished store of these pictures, made in this way.

        Weights that are not on this machine (no trunk) are taken to be those of the store.
        """
        if not self.path.is_file():
            return "is not there"
        found = EmbeddingStore.open(self.path)
        stored, asked = found.attributes, self._attributes(what)
        differs = [
            key for key in ("config", "dtype", "precision") if stored.get(key, asked[key]) != asked[key]
        ]
        if found.image_ids != list(self.images.image_ids):
            differs.append("pictures")
        if trunk and stored.get("preprocessing") != trunk.encoder.preprocessing:
            differs.append("preprocessing")
        if trunk and stored.get("weights", {}).get("digest") != trunk.encoder.weights.get("digest"):
            differs.append("weights")
        if differs:
            return f"was made with other {', '.join(differs)}"
        return "has gaps" if stored["skipped"] and not what.skip_bad else ""

    def _attributes(self, what: Recipe) -> dict[str, Any]:
        return {
            "encoder": self.config.name,
            "config": self.config.model_dump(mode="json"),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": what.dtype,
            "precision": what.precision,
        }

    def begin(self, encoder: Encoder, shape: tuple[int, ...], what: Recipe) -> None:
        made_by = {"weights": encoder.weights, "preprocessing": encoder.preprocessing}
        attributes = {**self._attributes(what), **made_by, "versions": runs.versions()}
        EmbeddingWriter.begin(
            self.path, self.images.image_ids, self.images.concepts, shape, what.dtype, attributes
        )


@dataclass(frozen=True)
class _Trunk:
    """A network, and the stores that its outputs fill, in the order of the outputs."""

    encoder: Encoder
    names: list[str]

    @classmethod
    def of(cls, group: Sequence[EncoderConfig]) -> Self:
        """Build the one encoder of a group."""
        return cls(joined(group).build(), [config.name for config in group])

    def encode(self, pictures: Tensor, precision: str, launch: Launch) -> dict[str, Tensor]:
        """Encode preprocessed pictures [B, 3, H, W] in one forward: float32 [B, …] by store."""
        return dict(zip(self.names, encode(self.encoder, pictures, precision, launch), strict=True))

    def shapes(self, images: ImageSet, launch: Launch) -> dict[str, tuple[int, ...]]:
        """Learn the shapes of the embeddings from the first picture that opens."""
        for index in range(len(images)):
            try:
                picture = self.encoder.preprocess(images.open(index))
            except BadPicture:
                continue
            found = self.encode(picture[None], "fp32", launch)
            return {name: tuple(values.shape[1:]) for name, values in found.items()}
        raise BrainhiveError(
            f"none of the {len(images)} pictures of {images.dataset} can be decoded", "check the files"
        )


def _grouped(configs: Sequence[EncoderConfig]) -> list[list[EncoderConfig]]:
    """Put together what one forward can serve."""
    groups: dict[str, list[EncoderConfig]] = {}
    for config in configs:
        groups.setdefault(config.trunk, []).append(config)
    return list(groups.values())


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
    for group in _grouped(what.encoders):
        try:
            trunk = _Trunk.of(group)
            items |= dict.fromkeys(trunk.names, trunk.encoder.preprocessing)
            for job in (job for job in jobs if job.config.name in trunk.names):
                items[str(job.path)] = _outlook(job, trunk, what)
        except BrainhiveError as error:
            missing.append(error.in_one_line)
    return Plan(items, missing)


def _outlook(job: _Job, trunk: _Trunk, what: Recipe) -> str:
    """Say whether a store is done, or why not and how many bytes it will take."""
    reason = job.to_do(what, trunk)
    if not reason:
        return "done"
    shape = trunk.shapes(job.images, Launch(0, 1, torch.device("cpu")))[job.config.name]
    size = len(job.images) * prod(shape) * torch.finfo(getattr(torch, what.dtype)).bits // 8
    return f"to do, {size / 1e6:.1f} MB" + (f" ({reason})" if job.path.is_file() else "")


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is not set.
    """
    dataset, by_split = _jobs(what)
    trunks = _needed(what, [job for jobs in by_split.values() for job in jobs], again)
    bad: list[str] = []
    for jobs in by_split.values():
        lacking = {} if again else {j.path: j.to_do(what, trunks.get(j.config.name)) for j in jobs}
        todo = [job for job in jobs if again or lacking[job.path]]
        for path in (path for path, reason in lacking.items() if reason and path.is_file()):
            console.say(f"{path} {lacking[path]}: it is made anew")
        if todo:
            bad += _fill(todo, trunks, what, launch, again)
    everything = [job for jobs in by_split.values() for job in jobs]
    if bad and not what.skip_bad:
        raise BrainhiveError(
            f"{len(bad)} pictures cannot be decoded: {'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}",
            "replace them and run again (the rest is done), or accept the gaps with --skip-bad",
        )
    return _result(everything, dataset.name, what)


def _needed(what: Recipe, jobs: Sequence[_Job], again: bool) -> dict[str, _Trunk]:
    """Build the encoders with work to do, and those on this machine, whose stores are held against them."""
    trunks: dict[str, _Trunk] = {}
    for group in _grouped(what.encoders):
        names = [config.name for config in group]
        own = [job for job in jobs if job.config.name in names]
        if again or group[0].is_here or any(job.to_do(what, None) for job in own):
            trunks |= dict.fromkeys(names, _Trunk.of(group))
    return trunks


def _fill(
    jobs: list[_Job], trunks: dict[str, _Trunk], what: Recipe, launch: Launch, again: bool
) -> list[str]:
    """Embed the pictures of one split with all its encoders; return what could not be decoded."""
    with ExitStack() as held:
        for job in jobs:
            trunks[job.config.name].encoder.module.to(launch.device)
        if launch.is_main:
            for job in jobs:
                claim = store.Claim(job.path.with_name(f".{job.path.name}.claim"), str(job.path))
                held.callback(claim.release)
            _begin(jobs, trunks, what, launch, again)
        launch.wait()
        writers = {job.config.name: EmbeddingWriter(job.path) for job in jobs}
        for writer in writers.values():
            held.callback(writer.close)
        pending = {name: set(writer.pending.tolist()) for name, writer in writers.items()}
        launch.wait()  # nobody writes before everybody knows what is pending
        rows = launch.mine(sorted(set().union(*pending.values())))
        chosen = list({id(trunks[name]): trunks[name] for name in writers}.values())
        mine = _stream(rows, pending, jobs[0].images, chosen, writers, what, launch)
        bad = [name for share in launch.gather(mine) for name in share]
        if launch.is_main and (what.skip_bad or not bad):
            for writer in writers.values():
                writer.finish()
        launch.wait()
    return bad


def _begin(jobs: list[_Job], trunks: dict[str, _Trunk], what: Recipe, launch: Launch, again: bool) -> None:
    """Create the unfinished stores, or keep those that an interrupted command left."""
    shapes: dict[str, tuple[int, ...]] = {}
    for job in jobs:
        if again:
            store.part_of(job.path).unlink(missing_ok=True)
        trunk = trunks[job.config.name]
        if job.config.name not in shapes:
            shapes |= trunk.shapes(job.images, launch)
        job.begin(trunk.encoder, shapes[job.config.name], what)


def _stream(
    rows: Sequence[int],
    pending: dict[str, set[int]],
    images: ImageSet,
    trunks: Sequence[_Trunk],
    writers: dict[str, EmbeddingWriter],
    what: Recipe,
    launch: Launch,
) -> list[str]:
    """Decode in worker processes, encode here, write in a thread; each picture is decoded once."""
    bad: list[str] = []
    writes: list[Future[None]] = []
    label = f"{images.dataset}/{images.split}"
    views = {trunk.names[0]: trunk.encoder.preprocess for trunk in trunks}
    with ThreadPoolExecutor(1) as writing, console.progress(label, len(rows)) as bar:
        workers = decoders(what.run.workers, launch)
        for batch in decoded(rows, images, views, what.batch_size, workers):
            bad += [problem for _, problem in batch if isinstance(problem, str)]
            for trunk in trunks:
                lacking = {name: pending[name] for name in trunk.names if name in pending}
                for name, at, values in _embedded(trunk, batch, lacking, what.precision, launch):
                    writes.append(writing.submit(writers[name].write, at, values))
            while len(writes) > 4 * len(writers):  # bounds what waits in memory, and raises what failed
                writes.pop(0).result()
            bar.advance(len(batch))
        for write in writes:
            write.result()
    return bad


def _embedded(
    trunk: _Trunk,
    batch: Sequence[tuple[int, Any]],
    lacking: Mapping[str, set[int]],
    precision: str,
    launch: Launch,
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
    """Encode what a store lacks of a batch of (row, views): yield store, rows [B] and embeddings [B, …]."""
    wanted = [
        (row, of)
        for row, of in batch
        if not isinstance(of, str) and any(row in pending for pending in lacking.values())
    ]
    if not wanted:
        return
    pictures = torch.stack([of[trunk.names[0]] for _, of in wanted])  # [B, 3, H, W]
    values = trunk.encode(pictures, precision, launch)
    rows = np.array([row for row, _ in wanted])
    for name, pending in lacking.items():
        is_pending = np.array([row in pending for row in rows.tolist()])
        if is_pending.any():
            yield name, rows[is_pending], values[name].cpu().numpy()[is_pending]


@torch.inference_mode()
def encode(encoder: Encoder, pictures: Tensor, precision: str, launch: Launch) -> list[Tensor]:
    """Encode preprocessed pictures [B, 3, H, W] as float32 [B, …], once for each output."""
    with launch.autocast(precision):
        found = encoder.module(pictures.to(launch.device, non_blocking=True))
    return [one.float() for one in (found if isinstance(found, list) else [found])]


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
