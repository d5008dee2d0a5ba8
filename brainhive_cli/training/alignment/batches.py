"""What a cell learns from, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.memory_estimate import to_device
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.signal_bank import Rows, SignalBank, averages_of
from brainhive_cli.data.signals.augmentation import augment, mix_repetitions, shuffle_repetitions
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models.mixing import Mixing
from brainhive_cli.training.alignment.learned import Learned
from brainhive_cli.training.alignment.settings import Train


@dataclass(frozen=True)
class CellData:
    """What one cell learns from.

    Attributes:
        trials: Signals by subject; the place in the list is the subject index.
        images: Targets of all pictures, by the fuser's key.
        held_out: [M] whether the picture's concept is kept for validation.
        fuser: A prior's frozen fusion encoder, or None.
        starts: What a stage of the training starts from, by the stage's number.
        tested: Test signals by subject, with `tested_images`; only where the test selects the epoch.
        learned: What the model folder records of all this, without what selects the epoch.
        repetitions: A training sample is the average of a stimulus's trials, each single trial, or an average
            of `random_k` trials at random. Trials' single repetitions are used where they are given.
        augmented: Further targets, by name, of augmented pictures; computed at each step.
        alike: Which pictures are, by their rows.
        epoch_trials: Samples of an epoch, as many of each subject in every step; None: each sample once.
    """

    trials: list[Trials]
    images: Targets
    held_out: NDArray[np.bool_]
    fuser: nn.Module | None
    starts: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    tested: list[Trials] | None = None
    tested_images: Targets | None = None
    learned: Learned = field(default_factory=Learned)
    repetitions: Literal["average", "single", "random"] = "average"
    random_k: int = 2
    augmented: Targets | None = None
    alike: Alike = field(default_factory=Alike)
    epoch_trials: int | None = None

    @property
    def has_validation(self) -> bool:
        """Whether a subject saw a picture of a held-out concept."""
        shown = [trials.stimulus[trials.stimulus >= 0] for trials in self.trials]
        return any(self.held_out[rows].any() for rows in shown)


@dataclass(frozen=True)
class Batch:
    """This process's share of a training step.

    Attributes:
        parts: Micro-batches: signals [B_part, C, T] and subject indices [B_part]. One holds all B rows where
            subjects have one width; else there is one for each subject in the step.
        images: Targets [B, ...] by the fuser's key, in the order of the micro-batches.
        mixing: How the signals of the whole batch, over all processes, were mixed; None when they were not.
        augmented: Targets [B, *shape] of augmented pictures, by name.
    """

    parts: list[tuple[Tensor, Tensor]]
    images: dict[str, Tensor]
    mixing: Mixing | None
    augmented: dict[str, Tensor] = field(default_factory=dict)

    def predict(self, model: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Let a model predict its heads of each micro-batch; join them in the order of the targets."""
        found = [model(*part) for part in self.parts]
        if len(found) == 1:
            return found[0]
        return {head: torch.cat([each[head] for each in found]) for head in found[0]}


class Batches:
    """The training samples of a cell: the order of an epoch, and each batch, augmented.

    Pairs of signals are mixed with shares from Beta(mix_alpha, mix_alpha); 0: they are not. A share
    `mix_share` of them is mixed.

    Raises:
        RecipeError: if the smallest batch has fewer trials than there are processes.
    """

    def __init__(self, data: CellData, train: Train, mix_alpha: float, launch: Launch) -> None:
        self.images, self.augmented = data.images, data.augmented
        self.augment, self.mix_alpha, self.launch = train.augment, mix_alpha, launch
        self.mix_share = 1.0
        self.rate_hz = data.trials[0].rate_hz
        self.random_k = data.random_k if data.repetitions == "random" else None
        self.averages = averages_of(data.trials, launch.device)
        self.samples, self.counts = _samples(data, self.averages, launch.device)
        stimulus = self.samples.stimulus.cpu().numpy()
        self.rows = np.flatnonzero((stimulus >= 0) & ~data.held_out[stimulus])
        whose = self.samples.subject.cpu().numpy()[self.rows]
        self.rows_of = [self.rows[whose == place] for place in range(len(data.trials))]
        whole, rest = divmod(len(self.rows), train.batch_size)
        self.steps = whole + (rest > 0 and train.last_batch != "drop")
        self.share: int | None = None  # of each subject in a step
        if data.epoch_trials is not None:
            self.share = train.batch_size // len(self.rows_of)
            self.steps = data.epoch_trials // max(1, self.share * len(self.rows_of))
        self.taken = self.steps * train.batch_size  # or all, where they are fewer
        self.cuts: Any = range(train.batch_size, self.taken, train.batch_size)
        if train.last_batch == "even":
            self.cuts = self.steps
        self._check(train, data)

    def epoch(self, seed: int, epoch: int) -> list[Rows]:
        """Cut an epoch into batches, in an order that seed and epoch decide."""
        random = np.random.default_rng((seed, epoch))
        if self.share is None:
            return np.array_split(random.permutation(self.rows)[: self.taken], self.cuts)
        count, drawn = self.steps * self.share, []
        for rows in self.rows_of:  # in as many rounds as it takes
            rounds = [random.permutation(rows) for _ in range(-(-count // len(rows)))]
            drawn.append(np.concatenate(rounds)[:count].reshape(self.steps, self.share))
        return list(np.concatenate(drawn, axis=1))

    def _check(self, train: Train, data: CellData) -> None:
        fewest = min(map(len, self.rows_of)) if self.share is not None else len(self.rows)
        if not fewest:
            raise RecipeError(
                "no trial is left to train on: their pictures are held out for validation",
                f"a smaller train.validation than {train.validation:g}, or more pictures",
            )
        if self.share is not None and not (self.share and self.steps):
            raise RecipeError(
                f"train.epoch_trials of {data.epoch_trials} and train.batch_size of {train.batch_size} give "
                f"{len(self.rows_of)} subjects no step",
                "a larger train.batch_size, of at least one trial a subject, or more train.epoch_trials",
            )
        smallest = min(map(len, self.epoch(0, 0)), default=0) if self.steps else 0
        if smallest < self.launch.processes:
            raise RecipeError(
                f"last_batch={train.last_batch} cuts {len(self.rows)} trials into {self.steps} batches, "
                f"the smallest of {smallest}: fewer than one for each of {self.launch.processes} processes",
                "another train.batch_size, or train.last_batch=even",
            )

    def draw(self, rows: Rows, seed: int) -> Batch:
        """Gather and augment this process's share of a batch, whose rows are given for all processes.

        The seed decides, with this process's rank, what is random.
        """
        # sorted, so that a subject's signals lie together, and a mapped file is read forwards
        own: Rows = self.launch.shard(np.sort(rows))  # type: ignore[arg-type,assignment]
        generator = self._generator(seed, self.launch.rank)
        drawn = [self._signals(each, generator) for each in self.samples.split(own)]
        index = to_device(torch.from_numpy(own), self.launch.device)
        stimulus, mixing = self.samples.stimulus[index], None
        images = self._images(stimulus, generator)
        augmented = {} if self.augmented is None else self.augmented.gather(stimulus)
        subjects = self.samples.subject[index].split([len(each) for each in drawn])
        if self.mix_alpha:
            mixings = [self._mixings(rows, seed, rank) for rank in range(self.launch.processes)]
            own_mixings = mixings[self.launch.rank]
            drawn = [each.mix(signal) for each, signal in zip(own_mixings, drawn, strict=True)]
            mixing = _joined([each for of_rank in mixings for each in of_rank])
        return Batch(list(zip(drawn, subjects, strict=True)), images, mixing, augmented)

    def _generator(self, *seeds: int) -> torch.Generator:
        return torch.Generator(self.launch.device).manual_seed(derive_seed(*seeds))

    def _mixings(self, rows: Rows, seed: int, rank: int) -> list[Mixing]:
        """Draw partners within each micro-batch of a process; each process can do it for all."""
        share: Rows = replace(self.launch, rank=rank).shard(np.sort(rows))  # type: ignore[arg-type,assignment]
        generator = self._generator(seed, rank, 1)
        mixed = (self.mix_alpha, generator, self.mix_share)
        return [Mixing.draw(len(each), *mixed) for each in self.samples.split(share)]

    def _signals(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Gather the signals of ascending rows, and vary them: [B, C, T]."""
        signal = self.samples.gather(rows)
        if self.counts is not None:  # [B, R, C, T]
            counts = self.counts[to_device(torch.from_numpy(rows), self.launch.device)]
            if self.random_k is not None:
                signal, counts = shuffle_repetitions(signal, counts, self.random_k, generator)
            signal = mix_repetitions(signal, counts, self.augment, generator)
        return augment(signal, self.augment, self.rate_hz, generator)

    def _images(self, stimulus: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Gather targets; where a stimulus has several, one is drawn."""
        which = {
            key: torch.randint(count, stimulus.shape, generator=generator, device=stimulus.device)
            for key, count in self.images.alternatives.items()
        }
        return self.images.gather(stimulus, which=which)


def _samples(data: CellData, averages: SignalBank, device: torch.device) -> tuple[SignalBank, Tensor | None]:
    """Return the averages; or single trials [N R, C, T], where missing ones have stimulus -1.

    Or all trials of each stimulus [N, R, C, T], and then also how many of R there are [N].
    """
    single = [each.single for each in data.trials if each.single is not None]
    counts = [each.counts for each in data.trials if each.counts is not None]
    pictures = [each.stimulus for each in data.trials]
    if not single:
        return averages, None
    if data.repetitions != "single":
        return SignalBank.of(single, pictures, device), torch.from_numpy(np.concatenate(counts)).to(device)
    shown = [
        np.where(np.arange(each.shape[1]) < count[:, None], stimulus[:, None], -1).ravel()
        for each, count, stimulus in zip(single, counts, pictures, strict=True)
    ]
    return SignalBank.of(single, shown, device, are_single=True), None


def _joined(mixings: list[Mixing]) -> Mixing:
    """Join the mixings of micro-batches that follow each other."""
    first = np.cumsum([0, *(len(each.partner) for each in mixings)]).tolist()
    partner = [each.partner + start for each, start in zip(mixings, first, strict=False)]
    return Mixing(torch.cat(partner), torch.cat([each.share for each in mixings]))
