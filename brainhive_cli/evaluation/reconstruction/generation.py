"""Media generated from decoded heads into the run's folder, each once, from noise that its item decides."""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console, foreign_code
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import Pixels
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.evaluation.reconstruction.start_pictures import StartPictures
from brainhive_cli.evaluation.reconstruction.stimulus_heads import Reranker
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import Media, Sampling
from brainhive_cli.models.heads import PREFIX, Decoded, Heads, refuse_other_target
from brainhive_cli.models.priors import Prior

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WRITERS = 4
"""Threads that write files while the next media are generated."""

Task = tuple[int, int]
"""Row of an item, and number of the repeat."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """Prior and generator; the generator is loaded for the first batch.

    Attributes:
        build: Loads the generator onto a device, in a dtype.
        prior: On `device`.
        output: Size, precision and memory.
        sampling: Steps, guidance, prompts.
        device: Where media are generated.
        heads: Those of the brain model, so that latents of another autoencoder are refused.
    """

    build: Callable[[torch.device, torch.dtype], Any]
    prior: Prior
    output: Output
    sampling: Sampling
    device: torch.device
    heads: Heads = field(default_factory=dict)

    @cached_property
    def generator(self) -> Any:
        """The generator, with the prior attached."""
        output, on_cpu = self.output, self.device.type == "cpu"
        is_offloaded = output.offload and not on_cpu
        generator = self.build(
            torch.device("cpu") if is_offloaded else self.device,
            torch.float32 if on_cpu and output.precision == "fp16" else DTYPES[output.precision],
        )
        generator.spare_memory(self.device if is_offloaded else None, output.tiling)
        self.prior.attach(generator)
        return generator

    @torch.inference_mode()
    def sample(
        self,
        decoded: Decoded | None,
        seeds: Sequence[int],
        start: Tensor | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Media:
        """Generate one picture or clip for each row of decoded heads and its seed.

        Args:
            decoded: Heads of B rows; None for the prior's unconditional ones.
            seeds: [B], of the noise.
            start: Pictures to start from, [B, 3, H, W] in 0..1.
            on_step: Called with the number of each step done.

        Raises:
            BrainhiveError: if sampling would start from decoded latents of another autoencoder, or what prior
                or generator give has not a row for each seed.
        """
        prior, count = self.prior, len(seeds)
        conditioning = prior.null(count, seeds) if decoded is None else prior.condition(decoded, seeds)
        if not isinstance(conditioning, Conditioning) or len(conditioning) not in (0, count):
            is_right_type = isinstance(conditioning, Conditioning)
            seen = f"{len(conditioning)} rows" if is_right_type else type(conditioning).__name__
            who = foreign_code.name_of(prior, "the prior")
            raise BrainhiveError(f"{who} gives {seen} for {count} signals", "return Conditioning of B rows")
        null = prior.null(count, seeds) if self.sampling.guidance > 1 else None
        starts = start is None and conditioning.start is not None
        if start is not None:
            conditioning = replace(conditioning, start=start)
        own = [self.generator.latent_space] if starts else []
        spaces_of = getattr(self.generator, "latent_spaces", lambda name, starts: own)  # a chain has several
        for name, head in self.heads.items():
            spaces = spaces_of(name, starts)
            if spaces and head.digest.startswith(PREFIX) and head.digest not in spaces:
                refuse_other_target(name, head, spaces[0], "the generator")
        media: Media = self.generator.generate(
            conditioning, seeds, self.output.resolution_px, self.sampling, null=null, on_step=on_step
        )
        is_tensor = isinstance(media, Tensor)
        if not is_tensor or media.ndim not in (4, 5) or (len(media), media.shape[-3]) != (count, 3):
            seen = str([*media.shape]) if is_tensor else type(media).__name__
            who = foreign_code.name_of(self.generator, "the generator")
            raise BrainhiveError(
                f"{who} gives {seen} for {count} seeds", "return [B, 3, H, W], or [B, F, 3, H, W] of clips"
            )
        return media


@dataclass(frozen=True)
class GenerationJob:
    """How the media of decoded sets are generated.

    Attributes:
        sampler: Prior and generator.
        repeats: Media kept for each item.
        seed: Seed of the noise.
        start: Pictures to start from; None for noise alone.
        candidates: Media generated for each one kept.
        reranker: Chooses which of them is kept, if there are several.
        rate_hz: Frames a second of clips: those of the stimuli.
    """

    sampler: Sampler
    repeats: int
    seed: int
    start: StartPictures | None = None
    candidates: int = 1
    reranker: Reranker | None = None
    rate_hz: float | None = None

    def generate(self, decoded_set: DecodedSet, folder: RunFolder, launch: Launch) -> None:
        """Generate this process's share of what is not there yet; files are written meanwhile."""
        rows = range(len(decoded_set.image_ids))
        tasks = launch.shard([(row, repeat) for row in rows for repeat in range(self.repeats)])
        files = {task: decoded_set.file(decoded_set.image_ids[task[0]], task[1]) for task in tasks}
        todo = [task for task, file in files.items() if not (folder.path / file).is_file()]
        writing: list[Future[Path]] = []
        at_once = max(1, self.sampler.output.batch_size // self.candidates)
        with (
            ThreadPoolExecutor(WRITERS) as writers,
            console.progress(f"media of {decoded_set.name}", len(todo)) as bar,
        ):
            for start in range(0, len(todo), at_once):
                batch = todo[start : start + at_once]
                media = self._best(decoded_set, batch, bar)
                _finish(writing)  # so that no more than one batch waits
                writing = [
                    writers.submit(
                        folder.replace, files[task], partial(media_files.save, one, rate_hz=self.rate_hz)
                    )
                    for task, one in zip(batch, media, strict=True)
                ]
                bar.advance(len(batch))
            _finish(writing)

    def _best(self, decoded_set: DecodedSet, tasks: Sequence[Task], bar: console.Bar) -> Pixels:
        """Generate the candidates of each task, and keep the one most similar to its decoded head."""
        candidates = [(row, repeat, n) for row, repeat in tasks for n in range(self.candidates)]
        at_once = self.sampler.output.batch_size
        media = np.concatenate(
            [
                self._sample(decoded_set, candidates[start : start + at_once], bar)
                for start in range(0, len(candidates), at_once)
            ]
        )
        if self.reranker is None or decoded_set.decoded is None:
            return media[:: self.candidates]
        decoded = decoded_set.decoded[[row for row, _, _ in candidates]]
        similarity = self.reranker.similarity(media, decoded).view(len(tasks), self.candidates)
        best = similarity.argmax(1).cpu().numpy()
        return media[np.arange(len(tasks)) * self.candidates + best]

    def _sample(
        self, decoded_set: DecodedSet, candidates: Sequence[tuple[int, int, int]], bar: console.Bar
    ) -> Pixels:
        rows = [row for row, _, _ in candidates]
        ids = [decoded_set.image_ids[row] for row in rows]
        seeds = [seed_of(self.seed, i, repeat, n) for i, (_, repeat, n) in zip(ids, candidates, strict=True)]
        media = self.sampler.sample(
            None if decoded_set.decoded is None else decoded_set.decoded[rows],
            seeds,
            self._start(decoded_set, rows),
            on_step=lambda step: bar.advance(0, f"step {step} of {self.sampler.sampling.steps}"),
        )
        return media_files.to_bytes(media)

    def _start(self, decoded_set: DecodedSet, rows: Sequence[int]) -> Tensor | None:
        if self.start is None or decoded_set.source == "zeroed":  # a first guess would be of the brain too
            return None
        return self.start.pictures(decoded_set, rows, self.sampler.generator)


def seed_of(seed: int, image_id: str, repeat: int, candidate: int = 0) -> int:
    """Make the noise of a picture depend on the item and the repeat, and nothing else."""
    name = f"{seed}/{image_id}/{repeat}" + (f"/{candidate}" if candidate else "")
    return zlib.crc32(name.encode())


def _finish(writing: Sequence[Future[Path]]) -> None:
    for each in writing:
        each.result()
