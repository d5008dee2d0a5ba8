"""What a cell learns from, batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainhive_cli.alignment.learned import Learned
from brainhive_cli.alignment.settings import Train
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.device import to_device
from brainhive_cli.data.targets import Targets
from brainhive_cli.data.trials import Repeated, Trials
from brainhive_cli.signals.augmentation import augment, mix_repetitions
from brainhive_cli.signals.repetitions import shuffle_repetitions

Rows = NDArray[np.int64]
Signals = NDArray[np.float32]


@dataclass(frozen=True)
class CellData:
    """What one cell learns from.

    Attributes:
        trials: Signals by subject; the place in the list is the subject index.
        images: Targets of all pictures, by the fuser's key.
        held_out: [M] whether the picture's concept is kept for validation.
        fuser: A prior's frozen fusion encoder, or None.
        alternatives: Further embeddings of the same pictures, [K, M, D_encoder] by the fuser's key.
        start: Model folder whose weights training begins from.
        tested: Test signals by subject, with `tested_images`; only where the test selects the epoch.
        tested_images: Targets of the test pictures, by the fuser's key.
        learned: What is kept of all this with the model; what selects the epoch is added.
    """

    trials: list[Trials]
    images: Targets
    held_out: NDArray[np.bool_]
    fuser: nn.Module | None
    alternatives: dict[str, Tensor] = field(default_factory=dict)
    start: Path | None = None
    tested: list[Trials] | None = None
    tested_images: Targets | None = None
    learned: Learned = field(default_factory=Learned)


@dataclass(frozen=True)
class SignalBank:
    """Signals of several subjects, one after the other, from which rows are gathered.

    Attributes:
        signals: [N_subject, ...] a subject, on the device or mapped.
        first: Row of each subject's first signal.
        picture: [N] row of each signal's picture, on the device.
        subject: [N] subject index, on the device.
    """

    signals: list[Tensor]
    first: Rows
    picture: Tensor
    subject: Tensor

    @classmethod
    def of(cls, signals: Sequence[Signals], pictures: Sequence[Rows], device: torch.device) -> "SignalBank":
        """Put signals on the device, unless they are mapped."""
        counts = [len(signal) for signal in signals]
        return cls(
            [_tensor(signal, device) for signal in signals],
            np.cumsum([0, *counts[:-1]]),
            torch.from_numpy(np.concatenate(pictures)).to(device),
            torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device),
        )

    def gather(self, rows: Rows) -> Tensor:
        """Gather the signals of ascending rows: [B, ...], on the device."""
        ends = [*np.searchsorted(rows, self.first), len(rows)]
        gathered = torch.empty((len(rows), *self.signals[0].shape[1:]), device=self.signals[0].device)
        for signal, first, start, stop in zip(self.signals, self.first, ends, ends[1:], strict=False):
            index = to_device(torch.from_numpy(rows[start:stop] - first), signal.device)
            torch.index_select(signal, 0, index, out=gathered[start:stop])
        return to_device(gathered, self.picture.device)


def _tensor(signal: Signals, device: torch.device) -> Tensor:
    if isinstance(signal, np.memmap):  # a copy would be made only by writing, which nobody does
        signal = np.memmap(str(signal.filename), np.float32, "c", signal.offset, signal.shape)
        return torch.from_numpy(signal)
    return torch.from_numpy(signal).to(device)


@dataclass(frozen=True)
class Batch:
    """What this process sees of a training step.

    Attributes:
        signal: [B, C, T], varied as the recipe says.
        subject: [B] subject indices.
        images: Embeddings [B, D_encoder] by the fuser's key.
        mixing: How the signals of the whole batch, over all processes, were mixed; None when they were not.
    """

    signal: Tensor
    subject: Tensor
    images: dict[str, Tensor]
    mixing: Mixing | None


class Batches:
    """The training samples of a cell: the order of an epoch, and each batch as the recipe varies it.

    Args:
        data: What the cell learns from.
        train: How it is trained.
        mix_alpha: How signals are mixed in pairs for the loss; 0 is not.
        launch: Who shares a batch.

    Raises:
        RecipeError: if the smallest batch has fewer trials than there are processes.
    """

    def __init__(self, data: CellData, train: Train, mix_alpha: float, launch: Launch) -> None:
        self.images, self.alternatives = data.images, data.alternatives
        self.augment, self.mix_alpha, self.launch = train.augment, mix_alpha, launch
        self.rate_hz, self.repeated = data.trials[0].rate_hz, data.trials[0].repeated
        pictures = [each.picture for each in data.trials]
        self.averages = SignalBank.of([each.signal for each in data.trials], pictures, launch.device)
        repeated = [each.repeated for each in data.trials if each.repeated]
        self.samples, self.count = self.averages, None
        if repeated:
            self.samples, self.count = _apart(repeated, pictures, launch.device)
        picture = self.samples.picture.cpu().numpy()
        self.rows = np.flatnonzero((picture >= 0) & ~data.held_out[picture])
        whole, rest = divmod(len(self.rows), train.batch_size)
        self.steps = whole + (rest > 0 and train.last_batch != "drop")
        self.taken = self.steps * train.batch_size  # or all, where they are fewer
        self.cuts: Any = range(train.batch_size, self.taken, train.batch_size)
        if train.last_batch == "even":
            self.cuts = self.steps
        self._check(train)

    def epoch(self, seed: int, epoch: int) -> list[Rows]:
        """Cut an epoch into batches, in an order that seed and epoch decide."""
        order = np.random.default_rng((seed, epoch)).permutation(self.rows)
        return np.array_split(order[: self.taken], self.cuts)

    def _check(self, train: Train) -> None:
        if not len(self.rows):
            raise RecipeError(
                "no trial is left to train on: their pictures are held out for validation",
                f"a smaller train.validation than {train.validation:g}, or more pictures",
            )
        smallest = min(map(len, self.epoch(0, 0)), default=0) if self.steps else 0
        if smallest < self.launch.processes:
            raise RecipeError(
                f"last_batch={train.last_batch} cuts {len(self.rows)} trials into {self.steps} batches, "
                f"the smallest of {smallest}: fewer than one for each of {self.launch.processes} processes",
                "another train.batch_size, or train.last_batch=even",
            )

    def draw(self, rows: Rows, seed: int) -> Batch:
        """Gather this process's share of a batch, and vary it.

        Args:
            rows: Of the whole batch.
            seed: Decides, with the place of this process, what is random.
        """
        # sorted, so that a subject's signals lie together, and a mapped file is read forwards
        mine: Rows = np.sort(self.launch.shard(rows))  # type: ignore[arg-type]
        index = to_device(torch.from_numpy(mine), self.launch.device)
        generator = self._generator(seed, self.launch.rank)
        signal = self._average(self.samples.gather(mine), index, generator)
        signal = augment(signal, self.augment, self.rate_hz, generator)
        images = self._images(self.samples.picture[index], generator)
        mixing = None
        if self.mix_alpha:
            mixings = [self._mixing(len(rows), seed, rank) for rank in range(self.launch.processes)]
            signal, mixing = mixings[self.launch.rank].mix(signal), _joined(mixings)
        return Batch(signal, self.samples.subject[index], images, mixing)

    def _generator(self, *seeds: int) -> torch.Generator:
        return torch.Generator(self.launch.device).manual_seed(derive_seed(*seeds))

    def _mixing(self, count: int, seed: int, rank: int) -> Mixing:
        """Draw partners within the share of a process; each process can do it for all."""
        share = replace(self.launch, rank=rank).shard(range(count))
        return Mixing.draw(len(share), self.mix_alpha, self._generator(seed, rank, 1))

    def _average(self, signal: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        """Average repetitions [B, R, C, T] where there are any: [B, C, T]."""
        if self.repeated is None or self.count is None:
            return signal
        count = self.count[index]
        if self.repeated.how == "random":
            signal, count = shuffle_repetitions(signal, count, self.repeated.most, generator)
        return mix_repetitions(signal, count, self.augment, generator)

    def _images(self, picture: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Look embeddings up; where there are several of one picture, one is drawn."""
        images = self.images.gather(picture)
        for key, others in self.alternatives.items():
            drawn = torch.randint(len(others) + 1, picture.shape, generator=generator, device=picture.device)
            is_other = drawn > 0
            images[key][is_other] = others[drawn[is_other] - 1, picture[is_other]]
        return images


def _apart(
    repeated: list[Repeated], pictures: list[Rows], device: torch.device
) -> tuple[SignalBank, Tensor | None]:
    """Lay out samples made of single trials, and how many of them each has where it has several.

    A trial that is not there has picture -1.
    """
    if repeated[0].how != "single":
        count = torch.from_numpy(np.concatenate([each.count for each in repeated])).to(device)
        return SignalBank.of([each.signal for each in repeated], pictures, device), count
    singles = [each.signal.reshape(-1, *each.signal.shape[2:]) for each in repeated]
    shown = [_shown(each, picture) for each, picture in zip(repeated, pictures, strict=True)]
    return SignalBank.of(singles, shown, device), None


def _shown(repeated: Repeated, picture: Rows) -> Rows:
    """Name the picture of each single trial [N R]."""
    is_there = np.arange(repeated.signal.shape[1]) < repeated.count[:, None]
    return np.where(is_there, picture[:, None], -1).ravel()


def _joined(mixings: list[Mixing]) -> Mixing:
    """Join the mixings of shares that follow each other."""
    first = np.cumsum([0, *(len(each.partner) for each in mixings)]).tolist()
    partner = [each.partner + start for each, start in zip(mixings, first, strict=False)]
    return Mixing(torch.cat(partner), torch.cat([each.share for each in mixings]))
