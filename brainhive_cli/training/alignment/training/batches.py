"""Training samples of a cell, batch by batch; validation by signals that it does not
learn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain, compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.arrays import Bool, Float32, Int64, UInt64
from brainhive_cli.core.device_memory import copy_to_device
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Metric, extend_protocol
from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.signals.augmentations import (
    Augmentation,
    draw_repetitions,
    mix_repetitions,
)
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import (
    ComparePair,
    LearnedPictures,
    TrainingHistory,
)
from brainhive_cli.data.targets.encoder_groups import EncoderGroup
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.measurement.ranks import rank_targets as find_ranks, summarise_ranks
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.models.losses import LossContext, Mixing
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Train

Tensors = dict[str, Tensor]
FLOAT32 = np.dtype(np.float32)
SHARE = 0.3
"""Weight of the newest similarity in a sample's running one; UBP's."""
DEVIATIONS = 1.96
"""Standard deviations from a batch's mean beyond which a sample is found easily, or
hardly; UBP's.
"""
EASY, USUAL, HARD = 0, 1, 2
"""Indices among the alternatives."""
Pictures = tuple[str, Sequence[str], UInt64 | None, ComparePair]
MAX_COPY_DISTANCE = 8
"""Most bits in which views of copies among training pictures differ. JPEG, squares,
bars and apertures change fewer; there are so many pairs of training pictures that to
confirm further candidates would take minutes.
"""
SIGNALS_AT_ONCE = 1024
"""Signals encoded at once: BrainHiVE's batch, so that what fits in training fits
here.
"""


@dataclass(frozen=True)
class SignalBank:
    """Signals of several subjects, one after the other, from which rows are gathered.

    Subjects of one width are gathered together; where widths differ, each by itself.

    Attributes:
        signals: [N_subject, ...] a subject, on the device or in a file.
        first: Row of each subject's first signal.
        stimulus: [N] row of each signal's stimulus, on the device; -1 where there is
            none.
        subject: [N] subject index, on the device; -1 for a subject whom the model does
            not know.
    """

    signals: Sequence[Tensor | LazyRows]
    first: Int64
    stimulus: Tensor
    subject: Tensor

    def split(self, rows: Int64) -> list[Int64]:
        """Split ascending rows into those that `gather` takes together: all, or one
        subject's each.
        """
        if len({signal.shape[1:] for signal in self.signals}) == 1:
            return [rows]
        return [
            part
            for part in np.split(rows, np.searchsorted(rows, self.first[1:]))
            if len(part)
        ]

    def gather(self, rows: Int64) -> Tensor:
        """Gather the signals of ascending rows of one width: [B, ...], on the
        device.
        """
        # ascending rows are contiguous by subject
        ends = [*np.searchsorted(rows, self.first), len(rows)]
        subjects = [
            subject
            for subject in range(len(self.signals))
            if ends[subject] < ends[subject + 1]
        ]
        shape = self.signals[subjects[0] if subjects else 0].shape[1:]
        device = self.stimulus.device

        # [B, ...]
        gathered = torch.empty((len(rows), *shape), device=device)
        for subject in subjects:
            part = slice(ends[subject], ends[subject + 1])
            signal, chosen = self.signals[subject], rows[part] - self.first[subject]
            if isinstance(signal, LazyRows):
                gathered[part] = copy_to_device(
                    torch.from_numpy(signal[chosen]), device
                )
            else:
                index = copy_to_device(torch.from_numpy(chosen), device)
                torch.index_select(signal, 0, index, out=gathered[part])
        return gathered


def open_bank(
    trials: Sequence[Trials],
    device: torch.device,
    is_mapped: bool,
    rows: Literal["averages", "singles", "stimuli"] = "averages",
) -> SignalBank:
    """Lay out the signals of several subjects, on the device or in their files.

    Args:
        trials: Of each subject.
        device: Where gathered signals go.
        is_mapped: Whether signals are read from their files whenever they are gathered.
        rows: Averages [N, C, T]; single trials [N R, C, T], of which absent ones have
            no stimulus; or stimuli with all their trials [N, R, C, T].
    """
    signals: list[Tensor | LazyRows] = []
    stimuli = []
    for recording in trials:
        # shape of the rows of this subject
        count, most = recording.signal.shape[:2]
        leading = {
            "averages": (count,),
            "singles": (count * most,),
            "stimuli": (count, most),
        }[rows]
        shape = *leading, recording.width, len(recording.times_s)

        # signals in their files, or in memory
        if is_mapped:
            signals.append(
                LazyRows(shape, FLOAT32, partial(_read_rows, recording, rows))
            )
        else:
            signal = recording.averages if rows == "averages" else recording.singles
            signals.append(torch.from_numpy(signal.reshape(shape)).to(device))

        # padding has stimulus -1, which is never trained on
        stimulus = recording.stimulus
        if rows == "singles":
            stimulus = np.where(recording.is_there, stimulus[:, None], -1).ravel()
        stimuli.append(stimulus)

    # subjects one after the other
    counts = [len(stimulus) for stimulus in stimuli]
    return SignalBank(
        signals,
        np.cumsum([0, *counts[:-1]]),
        torch.from_numpy(np.concatenate(stimuli)).to(device),
        torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device),
    )


def _read_rows(trials: Trials, rows: str, index: Int64) -> Float32:
    """Read rows of a subject as `open_bank` lays them out."""
    if rows != "singles":
        return trials.read(index, as_singles=rows == "stimuli")
    most = trials.signal.shape[1]
    return trials.read(index // most, as_singles=True)[
        np.arange(len(index)), index % most
    ]


@dataclass(frozen=True)
class CellData:
    """Signals, targets and settings from which a cell learns.

    Attributes:
        trials: Signals by subject; the position in the list is the subject index.
        targets: Targets of all stimuli, by the fuser's key.
        held_out: [M] whether the picture's concept is kept for validation.
        fuser: A prior's frozen fusion encoder, or None.
        starts: Weights from which a stage starts, by the stage's number and the part of
            the model.
        tested: Test signals by subject, with `tested_targets`; only where the test
            selects the epoch.
        learned: Record of all this for the model folder, without what selects the
            epoch.
        repetitions: A training sample is the average of a stimulus's trials, each
            single trial, or an average of `random_k` trials at random.
        alike: Which pictures are, by their rows.
        epoch_trials: Samples of an epoch, as many of each subject in every step; None:
            each sample once.
        adapted: The encoders that learn with the model; their targets are computed at
            each step.
        validation_by: Whether concepts or pictures are held out.
        seed: Of the cell; it decides what is drawn once.
        is_mapped: Whether signals are read from their files batch by batch.
    """

    trials: list[Trials]
    targets: Targets
    held_out: Bool
    fuser: nn.Module | None
    starts: Mapping[int, Mapping[str, Path]] = field(default_factory=dict)
    tested: list[Trials] = field(default_factory=list)
    tested_targets: Targets = field(default_factory=lambda: Targets({}))
    learned: TrainingHistory = field(default_factory=TrainingHistory)
    repetitions: Literal["average", "single", "random"] = "average"
    random_k: int = 2
    alike: StimulusGrouping = field(default_factory=StimulusGrouping)
    epoch_trials: int | None = None
    adapted: EncoderGroup | None = None
    validation_by: Literal["concepts", "pictures"] = "concepts"
    seed: int = 0
    is_mapped: bool = False


class Batches:
    """The training samples of a cell: the order of an epoch, and each batch, augmented.

    Raises:
        RecipeError: if the smallest batch has fewer trials than there are processes.
    """

    def __init__(self, data: CellData, train: Train, launch: Launch) -> None:
        # targets and augmentation settings
        self.targets, self.augment, self.launch = data.targets, train.augment, launch
        self.random_k = data.random_k if data.repetitions == "random" else None

        # training samples: averages, single trials, or stimuli whose trials are
        # averaged in each step
        device = launch.device
        self.averages = self.samples = open_bank(data.trials, device, data.is_mapped)
        self.counts: Tensor | None = None  # of the trials of each stimulus
        if data.repetitions == "single":
            self.samples = open_bank(data.trials, device, data.is_mapped, "singles")
        elif data.repetitions == "random" or train.augment.repetitions > 0:
            self.samples = open_bank(data.trials, device, data.is_mapped, "stimuli")
            counts = np.concatenate([trials.counts for trials in data.trials])
            self.counts = torch.from_numpy(counts).to(device)

        # parts of the augmentation; some are drawn once for the whole training
        self.augmentations: list[Augmentation] = [
            part.build(data.trials[0].rate_hz) for part in train.augment.parts
        ]
        self.drawn_once = {
            index: self._draw_once(index, data)
            for index, config in enumerate(train.augment.parts)
            if getattr(config, "drawn", "each_step") == "once"
        }

        # rows that are trained on: with a stimulus, and not held out
        stimulus = self.samples.stimulus.cpu().numpy()
        self.rows = np.flatnonzero((stimulus >= 0) & ~data.held_out[stimulus])
        sample_subjects = self.samples.subject.cpu().numpy()[self.rows]
        self.rows_of = [
            self.rows[sample_subjects == subject] for subject in range(len(data.trials))
        ]

        # steps of an epoch, with or without the smaller last batch
        full, rest = divmod(len(self.rows), train.batch_size)
        self.steps = full + (rest > 0 and train.last_batch != "drop")
        self.share: int | None = None  # of each subject in a step

        # an epoch of a fixed number of trials takes as many of each subject
        if data.epoch_trials is not None:
            self.share = train.batch_size // len(self.rows_of)
            self.steps = data.epoch_trials // max(1, self.share * len(self.rows_of))

        # feedback chooses among alternative embeddings by how well samples were
        # predicted
        self.feedback: Feedback | None = None
        if train.alternatives == "uncertainty":
            self.feedback = Feedback(
                len(self.samples.stimulus),
                self.targets.alternatives,
                device,
                train.gallery_level,
            )

        # cut positions of the batches in the permuted rows
        self.taken = self.steps * train.batch_size  # or all, where they are fewer
        self.cuts: Any = range(train.batch_size, self.taken, train.batch_size)
        if train.last_batch == "even":
            self.cuts = self.steps
        self._check(train, data)

    def epoch(self, seed: int, epoch: int) -> list[Int64]:
        """Cut an epoch into batches, in an order that seed and epoch decide."""
        random = np.random.default_rng((seed, epoch))
        if self.share is None:
            return np.array_split(
                random.permutation(self.rows)[: self.taken], self.cuts
            )

        # each step has the same number of trials of each subject
        count, drawn = self.steps * self.share, []
        for rows in self.rows_of:  # in as many rounds as it takes
            rounds = [random.permutation(rows) for _ in range(-(-count // len(rows)))]
            drawn.append(np.concatenate(rounds)[:count].reshape(self.steps, self.share))
        return list(np.concatenate(drawn, 1))

    def _check(self, train: Train, data: CellData) -> None:
        # the held-out pictures leave trials to learn from
        fewest = (
            min(map(len, self.rows_of)) if self.share is not None else len(self.rows)
        )
        if not fewest:
            raise RecipeError(
                "no trial is left to train on: their pictures are held out for "
                "validation",
                f"a smaller train.validation than {train.validation:g}, or more "
                "pictures",
            )

        # an epoch has at least one step
        if self.share is not None and not (self.share and self.steps):
            raise RecipeError(
                f"train.epoch_trials of {data.epoch_trials} and train.batch_size of "
                f"{train.batch_size} give {len(self.rows_of)} subjects no step",
                "a larger train.batch_size, of at least one trial a subject, or "
                "more train.epoch_trials",
            )

        # each process gets at least one trial of every batch
        smallest = min(map(len, self.epoch(0, 0)), default=0) if self.steps else 0
        if smallest < self.launch.processes:
            raise RecipeError(
                f"last_batch={train.last_batch} cuts {len(self.rows)} trials into "
                f"{self.steps} batches, the smallest of {smallest}: fewer than one for "
                f"each of {self.launch.processes} processes",
                "another train.batch_size, or train.last_batch=even",
            )

    def draw(
        self, rows: Int64, seed: int, mix: tuple[float, float] = (0.0, 1.0)
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensors, LossContext]:
        """Gather and augment this process's share of a batch, whose rows are given for
        all processes.

        The seed decides, with this process's rank, what is random. Pairs of signals are
        mixed with shares from Beta(alpha, alpha), and a share of them is: `mix` holds
        the two. With alpha 0 none is mixed.

        Returns:
            Micro-batches: signals [B_part, C, T] and subject indices [B_part]. One
            holds all B rows where subjects have one width; else there is one for each
            subject in the step. Targets [B, *shape] by the fuser's key or their name,
            in the order of the micro-batches. How the whole batch, over all processes,
            was mixed, and what it shows.
        """
        # sorted, so that a subject's signals lie together, and a mapped file is read
        # forwards
        ordered = np.sort(rows)

        # gather and augment this process's signals [B, C, T]
        shard: Int64 = self.launch.shard(ordered)  # type: ignore[arg-type,assignment]
        device = self.launch.device
        generator = torch.Generator(device).manual_seed(
            derive_seed(seed, self.launch.rank)
        )
        signals = [self._signals(part, generator) for part in self.samples.split(shard)]
        index = copy_to_device(torch.from_numpy(shard), device)
        subjects = self.samples.subject[index].split(
            [len(signal) for signal in signals]
        )

        # where a stimulus has several targets, one is drawn, or chosen by feedback
        stimulus = self.samples.stimulus[index]
        which = {
            key: torch.randint(
                count, stimulus.shape, generator=generator, device=device
            )
            if self.feedback is None
            else self.feedback.alternative_of(index)
            for key, count in self.targets.alternatives.items()
        }
        targets = self.targets.gather(stimulus, choices=which)

        # mixings of all processes are drawn, since the loss compares over the whole
        # batch
        stimuli = self.samples.stimulus[
            copy_to_device(torch.from_numpy(ordered), device)
        ]
        context = LossContext(stimuli=stimuli)
        alpha, mixed_share = mix
        if alpha:
            rank_mixings = []
            for rank in range(self.launch.processes):
                # partners lie in the same micro-batch of the same process
                share: Int64 = replace(self.launch, rank=rank).shard(ordered)  # type: ignore[arg-type,assignment]
                mixer = torch.Generator(device).manual_seed(derive_seed(seed, rank, 1))
                rank_mixings.append(
                    [
                        Mixing.draw(len(part), alpha, mixer, mixed_share)
                        for part in self.samples.split(share)
                    ]
                )
            pairs = zip(rank_mixings[self.launch.rank], signals, strict=True)
            signals = [part.mix(signal) for part, signal in pairs]

            # partners are rows of the joined batch
            mixings = [*chain(*rank_mixings)]
            firsts = accumulate((len(part.partner) for part in mixings), initial=0)
            partners = [
                part.partner + first
                for part, first in zip(mixings, firsts, strict=False)
            ]
            mixing = Mixing(
                torch.cat(partners), torch.cat([part.share for part in mixings])
            )
            context = replace(context, mixing=mixing)
        return list(zip(signals, subjects, strict=True)), targets, context

    def _draw_once(self, index: int, data: CellData) -> SignalBank:
        """Draw an augmentation for all samples: by seed, subject and row, independent
        of the step.
        """
        # the generator depends on the subject, not on the other subjects of the cell
        drawn = []
        for trials, signal in zip(data.trials, self.samples.signals, strict=True):
            generator = torch.Generator().manual_seed(
                derive_seed(data.seed, trials.subject, index)
            )
            count, (channels, samples) = len(signal), signal.shape[-2:]
            values = self.augmentations[index].draw(
                (count, channels, samples), generator
            )
            drawn.append(values.to(self.launch.device))
        return replace(self.samples, signals=drawn)

    def _signals(self, rows: Int64, generator: torch.Generator) -> Tensor:
        """Gather the signals of ascending rows, and vary them: [B, C, T]."""
        signal = self.samples.gather(rows)

        # repetitions are averaged or mixed anew in each step
        if self.counts is not None:  # [B, R, C, T]
            counts = self.counts[
                copy_to_device(torch.from_numpy(rows), self.launch.device)
            ]
            if self.random_k is not None:
                signal, counts = draw_repetitions(
                    signal, counts, self.random_k, generator
                )
            signal = mix_repetitions(signal, counts, self.augment, generator)

        # vary the averages, by values of this step or by those drawn once
        for index, augmentation in enumerate(self.augmentations):
            if bank := self.drawn_once.get(index):
                drawn = bank.gather(rows)
            else:
                drawn = augmentation.draw((len(rows), *signal.shape[1:]), generator)
            signal = augmentation.apply(signal, drawn)
        return signal


class Feedback(nn.Module):
    """The level of each sample among three targets: the first where the sample is
    found easily, the last where hardly.

    Source: the uncertainty-aware blur prior (UBP, arXiv 2503.04207), published
    repository.

    Args:
        samples: How many there are.
        alternatives: How many targets a stimulus has, by key.
        device: Where they are chosen.
        gallery_level: Level of the first alternative, which is the gallery's.

    Attributes:
        running: [samples] running similarity of each sample and its target.
        level: [samples] its level.

    Raises:
        RecipeError: if targets have other than three alternatives.
    """

    running: Tensor
    level: Tensor

    def __init__(
        self,
        samples: int,
        alternatives: dict[str, int],
        device: torch.device,
        gallery_level: int = 0,
    ) -> None:
        if set(alternatives.values()) != {HARD + 1}:
            raise RecipeError(
                "train.alternatives=uncertainty chooses among three targets of "
                "each stimulus",
                "train.embedding_alternatives={ENCODER: [SECOND, THIRD]}, from "
                "weak to strong",
            )
        super().__init__()
        self.register_buffer(
            "running", torch.ones(samples, dtype=torch.float64, device=device)
        )
        self.register_buffer("level", torch.full((samples,), USUAL, device=device))
        # alternative of each level: the gallery's own target is the first
        order = [1, 2]
        order.insert(gallery_level, 0)
        self.order = torch.tensor(order, device=device)

    def alternative_of(self, rows: Tensor) -> Tensor:
        """Return the index of the alternative that rows [B] learn from."""
        return self.order[self.level[rows]]

    def learn(self, rows: Tensor, similarity: Tensor) -> None:
        """Choose the alternatives of rows [B] anew, by the scaled similarity [B] of
        their pairs.
        """
        newest = similarity.detach().double()
        running = SHARE * newest + (1 - SHARE) * self.running[rows]
        self.running[rows] = running
        mean, limit = running.mean(), DEVIATIONS * running.std()
        easier = torch.where(newest > mean + limit, EASY, USUAL)
        self.level[rows] = torch.where(newest < mean - limit, HARD, easier)


Query = tuple[SignalBank, Int64]
"""Signals and the rows of those that are decoded; their gallery is the pictures that
any of them shows.
"""


def held_out_of(
    concepts: Sequence[str],
    share: float,
    pictures: Pictures | None = None,
    by: Literal["concepts", "pictures"] = "concepts",
) -> Bool:
    """Choose whole training concepts, or pictures, for validation: [M]; the same for
    every cell of every run.

    Copies of these in other concepts are held out too, where the pictures are known: by
    the name of the data set's pictures, ids [M], what pixels are known by [M, 25], and
    what compares them.
    """
    # a fixed seed, so that all runs hold out the same concepts
    if by == "pictures":
        concepts = [str(row) for row in range(len(concepts))]
    names = np.unique(np.asarray(concepts))
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    held_out = np.isin(concepts, chosen)
    if pictures is None:
        return held_out

    # copies of held-out pictures must not be learned under another concept
    dataset, image_ids, pixels, confirm = pictures
    if pixels is None:
        return held_out
    learned = LearnedPictures.from_image_ids(
        dataset, [*compress(image_ids, held_out)], pixels[held_out]
    )
    is_copy: ComparePair = lambda row, name: confirm(row, name) or ""  # noqa: E731 (what is not here is learned)
    return learned.find_members(dataset, image_ids, pixels, is_copy, MAX_COPY_DISTANCE)


def select_held_out(data: CellData, averages: SignalBank) -> list[Query]:
    """List the averaged signals of held-out training pictures, if there are any."""
    # signals without a stimulus validate nothing
    stimulus = averages.stimulus.cpu().numpy()
    rows = np.flatnonzero((stimulus >= 0) & data.held_out[stimulus])
    return [(averages, rows)] if len(rows) else []


def select_tested(data: CellData, device: torch.device) -> list[Query]:
    """List the test signals, a subject at a time."""
    # a known subject keeps its index, a new one has none
    learned, queries = [trials.subject for trials in data.trials], list[Query]()
    for trials in data.tested:
        bank = open_bank([trials], device, data.is_mapped)
        index = learned.index(trials.subject) if trials.subject in learned else -1
        bank = replace(bank, subject=torch.full_like(bank.subject, index))
        queries.append((bank, np.arange(len(trials.stimulus))))
    return queries


def rank_queries(
    aligner: Aligner,
    queries: Sequence[Query],
    targets: Targets,
    precision: str,
    launch: Launch,
) -> Tensor:
    """Rank the seen pictures of all queries, [N]; as the main process finds them, for
    all processes.
    """
    if not queries:
        return torch.empty(0)
    aligner.eval()
    keys = aligner.layout.compared_keys
    compared = Targets(
        {key: source for key, source in targets.sources.items() if key in keys}
    )
    # each process has running statistics of batch normalisation of its own share
    with torch.inference_mode(), launch.autocast(precision):
        return launch.run_on_main(partial(_rank_all, aligner, queries, compared))


def _rank_all(aligner: Aligner, queries: Sequence[Query], targets: Targets) -> Tensor:
    return torch.cat([_rank(aligner, bank, rows, targets) for bank, rows in queries])


def _rank(aligner: Aligner, bank: SignalBank, rows: Int64, targets: Targets) -> Tensor:
    """Rank the seen picture of each signal among the pictures that the rows show:
    [N].
    """
    # the gallery [M, D] is encoded once
    index = torch.from_numpy(rows).to(bank.stimulus.device)
    shown, target = torch.unique(bank.stimulus[index], return_inverse=True)
    gallery = aligner.encode_image(targets.gather(shown)).float()

    # signals are encoded in blocks, which bounds the memory
    tokens, is_known = [], bool((bank.subject >= 0).all())  # [N, D]; of all or of none
    for start in range(0, len(rows), SIGNALS_AT_ONCE):
        for part in bank.split(rows[start : start + SIGNALS_AT_ONCE]):
            subject = bank.subject[torch.from_numpy(part).to(bank.subject.device)]
            tokens.append(
                aligner.encode_signal(
                    bank.gather(part), subject if is_known else None
                ).float()
            )
    return find_ranks(torch.cat(tokens), gallery, target)


def summarise_held_out(
    ranks: Tensor,
    queries: Sequence[Query],
    data: CellData,
    seed: int,
    caveats: Sequence[str],
) -> list[Metric]:
    """Measure the retrieval of held-out training pictures by their ranks [N]; nothing
    where none is held out.

    Args:
        ranks: Of `rank_queries`.
        queries: Of `select_held_out`.
        data: Of the cell.
        seed: Of the training.
        caveats: Of the model.
    """
    if not queries:
        return []

    # ranks and pictures by subject: several subjects may have seen one picture
    ((bank, rows),) = queries
    subject, stimulus = bank.subject.cpu()[rows], bank.stimulus.cpu()[rows]
    masks = [subject == index for index in subject.unique()]
    items = data.alike.make_items([stimulus[mask].tolist() for mask in masks])
    return summarise_ranks(
        [ranks[mask] for mask in masks],
        len(items.names),
        seeds=(seed,),
        protocol=extend_protocol(f"held-out training {data.validation_by}", caveats),
        split="validation",
        items=items,
    )


def top1(ranks: Tensor) -> float | None:
    """Share of the signals whose picture came first; None when there are none."""
    return float((ranks == 1).double().mean()) if len(ranks) else None
