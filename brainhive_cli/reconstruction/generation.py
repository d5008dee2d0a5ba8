"""Pictures of a take on disk: each is drawn once, from noise that its item and repeat decide."""

import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.reconstruction.conditions import TokenSet
from brainhive_cli.reconstruction.initial_images import Initial
from brainhive_cli.reconstruction.reranker import Reranker
from brainhive_cli.reconstruction.sampler import Sampler

WRITERS = 4
"""Threads that write PNG files while the next pictures are drawn."""

Task = tuple[int, int]
"""Which item of a take, and which repeat."""


@dataclass(frozen=True)
class GenerationJob:
    """How the pictures of takes are drawn.

    Attributes:
        painter: Draws them.
        repeats: Pictures kept an item.
        batch_size: Pictures drawn at once.
        steps: Denoising steps, for the progress bar.
        seed: Seed of the noise.
        initial: Gives pictures to start from; None for noise alone.
        candidates: Pictures drawn for each one kept.
        judge: Says which of them is kept, if there are several.
    """

    painter: Sampler
    repeats: int
    batch_size: int
    steps: int
    seed: int
    initial: Initial | None = None
    candidates: int = 1
    judge: Reranker | None = None

    def draw(self, take: TokenSet, folder: RunFolder, launch: Launch) -> None:
        """Draw my share of a take's pictures that are not there yet; they are written meanwhile."""
        tasks = launch.shard([(n, r) for n in range(len(take.image_ids)) for r in range(self.repeats)])
        todo = [task for task in tasks if not (folder.path / self._file(take, task)).is_file()]
        saving: list[Future[Path]] = []
        at_once = max(1, self.batch_size // self.candidates)
        with (
            ThreadPoolExecutor(WRITERS) as writers,
            console.progress(f"pictures of {take.name}", len(todo)) as bar,
        ):
            for start in range(0, len(todo), at_once):
                batch = todo[start : start + at_once]
                pictures = self._best(take, batch, bar)
                _finish(saving)  # so that no more than one batch waits
                saving = [
                    writers.submit(folder.replace, self._file(take, task), partial(p.save, compress_level=1))
                    for task, p in zip(batch, pictures, strict=True)
                ]
                bar.advance(len(batch))
            _finish(saving)

    def _file(self, take: TokenSet, task: Task) -> str:
        return take.file(take.image_ids[task[0]], task[1])

    def _best(self, take: TokenSet, tasks: Sequence[Task], bar: console.Bar) -> list[Image.Image]:
        """Draw the candidates of each task, and keep the one most like its token."""
        drawn = [(n, repeat, candidate) for n, repeat in tasks for candidate in range(self.candidates)]
        pictures = [
            picture
            for start in range(0, len(drawn), self.batch_size)
            for picture in self._draw(take, drawn[start : start + self.batch_size], bar)
        ]
        if self.judge is None:
            return pictures
        similarity = self.judge.similarity(pictures, self._tokens(take, drawn))
        best = similarity.view(len(tasks), self.candidates).argmax(1).tolist()
        return [pictures[place * self.candidates + which] for place, which in enumerate(best)]

    def _draw(
        self, take: TokenSet, drawn: Sequence[tuple[int, int, int]], bar: console.Bar
    ) -> list[Image.Image]:
        seeds = [seed_of(self.seed, take.image_ids[n], repeat, candidate) for n, repeat, candidate in drawn]
        start: dict[str, Any] = {}
        if self.initial is not None and take.source != "zeroed":  # a first guess would be of the brain too
            pictures = self.initial.pictures(take, [n for n, _, _ in drawn], self.painter.generator)
            start = {"initial": pictures, "strength": self.initial.strength}
        return self.painter.draw(
            self._tokens(take, drawn),
            seeds,
            on_step=lambda step: bar.advance(0, f"step {step} of {self.steps}"),
            **start,
        )

    def _tokens(self, take: TokenSet, drawn: Sequence[tuple[int, int, int]]) -> Tensor:
        return torch.stack([take.tokens[n] for n, _, _ in drawn])


def seed_of(seed: int, image_id: str, repeat: int, candidate: int = 0) -> int:
    """Make the noise of a picture depend on the item and the repeat, and nothing else."""
    name = f"{seed}/{image_id}/{repeat}" + (f"/{candidate}" if candidate else "")
    return zlib.crc32(name.encode())


def _finish(saving: Sequence[Future[Path]]) -> None:
    for each in saving:
        each.result()
