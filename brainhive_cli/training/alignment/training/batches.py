"""Training batches of a cell, and its validation on other signals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainhive_cli.core.base import (
    Bool,
    Int64,
    RecipeError,
    UInt64,
    copy_to_device,
    derive_seed,
)
from brainhive_cli.core.results import Metric, extend_protocol
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.files import LazyRows
from brainhive_cli.data.media import Likeness
from brainhive_cli.data.signals import (
    Augmentation,
    DrawSettings,
    Trials,
    draw_repetitions,
    mix_repetitions,
)
from brainhive_cli.data.stores import ComparePair, LearnedPictures, TrainingHistory
from brainhive_cli.data.targets import EncoderGroup, Targets
from brainhive_cli.measurement import (
    StimulusGrouping,
    rank_targets as find_ranks,
    summarise_ranks,
)
from brainhive_cli.models import LossContext, Mixing
from brainhive_cli.models.backbones import Tensors
from brainhive_cli.training.alignment import Aligner, Train

EASY, USUAL, HARD = 0, 1, 2
"""Levels of a sample."""
Pictures = tuple[str, Sequence[str], UInt64 | None, ComparePair]
"""Name of the data set of M pictures, their ids [M], digests of their pixels [M, 25] or
None, and the function that compares two of them.
"""
MAX_COPY_DISTANCE = 8
"""Most bits in which digests of copies differ. JPEG, squares, bars and apertures change
fewer. More candidates would take minutes to compare.
"""
SIGNALS_PER_BATCH = 1024
"""Signals that are encoded together, as in a batch of BrainHiVE."""


@dataclass(frozen=True)
class SignalBank:
    """Signals of several subjects, with rows that are numbered through all subjects.

    Attributes:
        signals: Signals [n_subject, C, T] of each subject, on the device or in a file.
        first: Row of the first signal of each subject.
        stimulus: Stimulus row [N] of each signal, on the device. -1 without a stimulus.
        subject: Subject index [N], on the device. -1 for a subject that is new to the
            model.
        tables: Signals [N_subject, R] of each row of each subject. None if each row is
            a signal.
    """

    signals: Sequence[Tensor | LazyRows]
    first: Int64
    stimulus: Tensor
    subject: Tensor
    tables: Sequence[Int64] | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape [N_subject, ...] of the rows of each subject."""
        if self.tables is None:
            return [tuple(signal.shape) for signal in self.signals]
        pairs = zip(self.tables, self.signals, strict=True)
        return [table.shape + tuple(signal.shape[1:]) for table, signal in pairs]

    def split(self, rows: Int64) -> list[Int64]:
        """Split ascending rows into groups of equal shape, all or by subject."""
        if len({shape[1:] for shape in self.shapes}) == 1:
            return [rows]
        subject_rows = np.split(rows, np.searchsorted(rows, self.first[1:]))
        return [group for group in subject_rows if len(group)]

    def gather(self, rows: Int64) -> Tensor:
        """Gather the signals [B, ...] of ascending rows of equal shape."""
        # ascending rows are contiguous by subject: ends[s] to ends[s + 1] in `rows`
        ends = np.append(np.searchsorted(rows, self.first), len(rows))
        subjects = np.flatnonzero(ends[:-1] < ends[1:]).tolist()
        shape = self.shapes[subjects[0] if subjects else 0][1:]
        device = self.stimulus.device

        gathered = torch.empty((len(rows),) + shape, device=device)
        for subject in subjects:
            positions = slice(ends[subject], ends[subject + 1])
            signal = self.signals[subject]
            index = rows[positions] - self.first[subject]
            if self.tables is not None:
                index = self.tables[subject][index].ravel()
            target = gathered[positions].view((-1,) + tuple(signal.shape[1:]))
            if isinstance(signal, LazyRows):
                values = torch.from_numpy(signal[index])
                target[:] = copy_to_device(values, device)
            else:
                device_index = copy_to_device(torch.from_numpy(index), device)
                torch.index_select(signal, 0, device_index, out=target)
        return gathered


def open_bank(
    trials: Sequence[Trials],
    device: torch.device,
    is_mapped: bool,
    rows: Literal["averages", "singles", "stimuli"] = "averages",
) -> SignalBank:
    """Make a bank of the signals of several subjects.

    Args:
        trials: Trials of each subject.
        device: Device of gathered signals.
        is_mapped: If True, signals stay in their files until they are gathered.
        rows: Content of a row: the average [C, T] of a stimulus's trials, a single
            trial [C, T], or all trials [R, C, T] of a stimulus.
    """
    signals: list[Tensor | LazyRows] = []
    stimuli = []
    tables = []
    float32 = np.dtype(np.float32)
    for recording in trials:
        has_averages = rows == "averages"
        if is_mapped:
            read = recording.read if has_averages else recording.read_trials
            n_signals = len(recording.counts if has_averages else recording.signal)
            shape = (n_signals, recording.width, len(recording.times_s))
            signals.append(LazyRows(shape, float32, read))
        else:
            signal = recording.averages if has_averages else recording.singles
            signals.append(torch.from_numpy(signal).to(device))

        stimulus = recording.stimulus
        if rows == "singles":
            stimulus = np.repeat(stimulus, recording.counts)
        stimuli.append(stimulus)
        if rows == "stimuli":
            # stimuli with fewer trials have their last one as padding
            last = recording.counts[:, None] - 1
            repetitions = np.arange(recording.max_repetitions)
            first_trials = recording.first_trials[:, None]
            tables.append(first_trials + np.minimum(repetitions, last))

    # number the rows through all subjects
    counts = list(map(len, stimuli))
    subjects = np.repeat(np.arange(len(counts)), counts)
    return SignalBank(
        signals,
        first=np.cumsum([0] + counts[:-1]),
        stimulus=torch.from_numpy(np.concatenate(stimuli)).to(device),
        subject=torch.from_numpy(subjects).to(device),
        tables=tables or None,
    )


@dataclass(frozen=True)
class CellData:
    """Signals, targets and settings of the training of a cell.

    Attributes:
        trials: Training signals of each subject. The position in the list is the
            subject index.
        targets: Targets of all stimuli, by the fuser's key.
        held_out: True [M] for pictures that are held out for validation.
        fuser: Frozen fusion encoder of a prior, or None.
        start_files: File or folder of the weights that a module gets when a stage
            begins, keyed by the number of the stage, then by the module.
        test_trials: Signals of each subject whose top-1 selects the epoch, if any.
        test_targets: Targets of their stimuli.
        history: Record of the training data for the model folder.
        repetitions: Content of a training sample: the average of a stimulus's trials, a
            single trial, or the average of `random_k` random trials.
        random_k: Number of random trials in an average.
        grouping: Groups of pictures that are alike, by row.
        epoch_trials: Number of samples in an epoch, with equally many of each subject
            in each step. None for each sample once.
        adapted: Encoders that learn with the model, or None.
        validation_by: Unit that is held out.
        seed: Seed of values that are drawn once.
        is_mapped: If True, signals are read from their files batch by batch.
    """

    trials: list[Trials]
    targets: Targets
    held_out: Bool
    fuser: nn.Module | None
    start_files: Mapping[int, Mapping[str, Path]] = field(default_factory=dict)
    test_trials: list[Trials] = field(default_factory=list)
    test_targets: Targets = field(default_factory=lambda: Targets({}))
    history: TrainingHistory = field(default_factory=TrainingHistory)
    repetitions: Literal["average", "single", "random"] = "average"
    random_k: int = 2
    grouping: StimulusGrouping = field(default_factory=StimulusGrouping)
    epoch_trials: int | None = None
    adapted: EncoderGroup | None = None
    validation_by: Literal["concepts", "pictures"] = "concepts"
    seed: int = 0
    is_mapped: bool = False


class Batches:
    """Training batches of a cell, which several processes share.

    Attributes:
        averages: Averaged signals of all stimuli.
        samples: Signals from which the batches are gathered.
        rows: Rows of the samples that are trained on.
        steps: Steps of an epoch.
        feedback: Chooser of targets, or None if they are drawn.

    Raises:
        RecipeError: if an epoch has no step, or if the smallest batch has fewer samples
            than there are processes.
    """

    def __init__(self, data: CellData, train: Train, launch: Launch) -> None:
        self.targets = data.targets
        self.augment = train.augment
        self.launch = launch
        self.random_k = data.random_k if data.repetitions == "random" else None

        # samples are averages, single trials, or stimuli that are averaged in each step
        device = launch.device
        self.averages = open_bank(data.trials, device, data.is_mapped)
        self.samples = self.averages
        self.repetition_counts: Tensor | None = None  # [N]
        if data.repetitions == "single":
            self.samples = open_bank(data.trials, device, data.is_mapped, "singles")
        elif data.repetitions == "random" or train.augment.repetitions > 0:
            self.samples = open_bank(data.trials, device, data.is_mapped, "stimuli")
            counts = np.concatenate([trials.counts for trials in data.trials])
            self.repetition_counts = torch.from_numpy(counts).to(device)

        # some augmentations are drawn once for the whole training
        self.augmentations: list[Augmentation] = []
        self.fixed_draws: dict[int, SignalBank] = {}
        for index, config in enumerate(train.augment.parts):
            self.augmentations.append(config.build(data.trials[0].rate_hz))
            if isinstance(config, DrawSettings) and config.drawn == "once":
                self.fixed_draws[index] = self._draw_once(index, data)

        # train on rows with a stimulus that is not held out
        stimulus = self.samples.stimulus.cpu().numpy()
        self.rows = np.flatnonzero((stimulus >= 0) & ~data.held_out[stimulus])
        row_subjects = self.samples.subject.cpu().numpy()[self.rows]
        self.subject_rows = []
        for subject in range(len(data.trials)):
            self.subject_rows.append(self.rows[row_subjects == subject])

        # count the steps of an epoch, of all trials or of a fixed number
        self.steps, n_remaining = divmod(len(self.rows), train.batch_size)
        if n_remaining > 0 and train.last_batch != "drop":
            self.steps += 1
        self.trials_per_subject: int | None = None  # in each step
        if data.epoch_trials is not None:
            n_subjects = len(self.subject_rows)
            self.trials_per_subject = train.batch_size // n_subjects
            trials_per_step = max(1, self.trials_per_subject * n_subjects)
            self.steps = data.epoch_trials // trials_per_step

        # alternative targets are drawn, or chosen by how well samples are predicted
        self.feedback: Feedback | None = None
        if train.alternatives == "uncertainty":
            self.feedback = Feedback(
                len(self.samples.stimulus),
                self.targets.alternatives,
                device,
                train.gallery_level,
            )

        # positions at which the permuted rows are cut, or the number of equal batches
        self.max_epoch_rows = self.steps * train.batch_size
        self.cuts: Any = range(train.batch_size, self.max_epoch_rows, train.batch_size)
        if train.last_batch == "even":
            self.cuts = self.steps
        self._check(train, data)

    def split_epoch(self, seed: int, epoch: int) -> list[Int64]:
        """Shuffle the rows of an epoch, and split them into batches.

        Seed and epoch decide the order.
        """
        rng = np.random.default_rng((seed, epoch))
        if self.trials_per_subject is None:
            rows = rng.permutation(self.rows)[: self.max_epoch_rows]
            return np.array_split(rows, self.cuts)

        # each step has the same number of trials of each subject, whose rows are
        # permuted again when they are used up
        n_trials = self.steps * self.trials_per_subject
        columns = []
        for rows in self.subject_rows:
            n_rounds = math.ceil(n_trials / len(rows))
            rounds = [rng.permutation(rows) for _ in range(n_rounds)]
            epoch_rows = np.concatenate(rounds)[:n_trials]
            columns.append(epoch_rows.reshape(self.steps, self.trials_per_subject))
        return list(np.concatenate(columns, 1))

    def _check(self, train: Train, data: CellData) -> None:
        """Raise an error if there is nothing to train on in some step or process."""
        n_subjects = len(self.subject_rows)
        has_trials = len(self.rows) > 0
        if self.trials_per_subject is not None:
            has_trials = all(len(rows) > 0 for rows in self.subject_rows)
        if not has_trials:
            raise RecipeError(
                "no trial is left to train on, because all pictures are held out for "
                "validation",
                f"set a smaller train.validation than {train.validation:g}, or use "
                "more pictures",
            )
        if self.trials_per_subject is not None and not (
            self.trials_per_subject and self.steps
        ):
            raise RecipeError(
                f"train.epoch_trials={data.epoch_trials} and train.batch_size="
                f"{train.batch_size} are too small for {n_subjects} subjects, so no "
                "batch can be made",
                "raise train.batch_size to at least one trial per subject, or raise "
                "train.epoch_trials",
            )

        # each process needs at least one trial of every batch
        smallest = 0
        if self.steps:
            smallest = min(map(len, self.split_epoch(0, 0)))
        if smallest < self.launch.processes:
            raise RecipeError(
                f"train.last_batch={train.last_batch} makes a batch of {smallest} "
                f"trials from {len(self.rows)}, which is too few for "
                f"{self.launch.processes} processes",
                "set another train.batch_size, or train.last_batch=even",
            )

    def draw(
        self, rows: Int64, seed: int, mix: tuple[float, float] = (0.0, 1.0)
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensors, LossContext]:
        """Draw this process's share of a batch, augmented.

        Args:
            rows: Rows [B] of the batch, over all processes.
            seed: Seed of the step.
            mix: Parameter alpha of Beta(alpha, alpha) for the weights of mixed signals
                (0 for no mixing), and the share of signals that are mixed.

        Returns:
            Micro-batches of signals [B_part, C, T] and subject indices [B_part]: a
            single micro-batch, or several if subjects have different shapes. Their
            targets [B, *shape] by the fuser's key or name. The mixing and the stimuli
            of the whole batch, over all processes.
        """
        device = self.launch.device

        # sort the rows by subject, and by position in a file
        batch_rows = np.sort(rows)
        shard: Int64 = self.launch.shard(batch_rows)  # type: ignore[arg-type,assignment]
        index = copy_to_device(torch.from_numpy(shard), device)

        # gather and augment the signals [B_part, C, T]
        generator = torch.Generator(device)
        generator.manual_seed(derive_seed(seed, self.launch.rank))
        groups = self.samples.split(shard)
        signals = [self._gather_augmented(group, generator) for group in groups]
        subjects = self.samples.subject[index].split(list(map(len, groups)))

        # draw among the targets of each stimulus, or let feedback choose
        stimulus = self.samples.stimulus[index]
        choices = {}
        for key, count in self.targets.alternatives.items():
            if self.feedback is not None:
                choices[key] = self.feedback.order[self.feedback.level[index]]
            else:
                choices[key] = torch.randint(
                    count, stimulus.shape, generator=generator, device=device
                )
        targets = self.targets.gather(stimulus, choices=choices)

        # the loss compares the stimuli of the whole batch
        batch_index = copy_to_device(torch.from_numpy(batch_rows), device)
        context = LossContext(stimuli=self.samples.stimulus[batch_index])
        alpha, mixed_share = mix
        if alpha:
            signals, mixing = self._mix(signals, batch_rows, seed, alpha, mixed_share)
            context = replace(context, mixing=mixing)
        return list(zip(signals, subjects, strict=True)), targets, context

    def _mix(
        self,
        signals: Sequence[Tensor],
        batch_rows: Int64,
        seed: int,
        alpha: float,
        mixed_share: float,
    ) -> tuple[list[Tensor], Mixing]:
        """Mix the signals of this process within their micro-batches.

        The mixing of all processes is drawn, because the loss compares the whole batch.
        Weights are from Beta(alpha, alpha), for `mixed_share` of the signals.

        Returns:
            The mixed signals [B_part, C, T] of each micro-batch, and the mixing of the
            whole batch.
        """
        mixings = []
        mixed_signals = []
        for rank in range(self.launch.processes):
            shard: Int64 = replace(self.launch, rank=rank).shard(batch_rows)  # type: ignore[arg-type,assignment]
            generator = torch.Generator(self.launch.device)
            generator.manual_seed(derive_seed(seed, rank, 1))
            rank_mixings = [
                Mixing.draw(len(group), alpha, generator, mixed_share)
                for group in self.samples.split(shard)
            ]
            if rank == self.launch.rank:
                for mixing, signal in zip(rank_mixings, signals, strict=True):
                    mixed_signals.append(mixing.mix(signal))
            mixings += rank_mixings

        # number the partners through the whole batch
        partners = []
        first_row = 0
        for mixing in mixings:
            partners.append(mixing.partner + first_row)
            first_row += len(mixing.partner)
        shares = torch.cat([mixing.share for mixing in mixings])
        return mixed_signals, Mixing(torch.cat(partners), shares)

    def _draw_once(self, index: int, data: CellData) -> SignalBank:
        """Draw the random values of an augmentation, once for the whole training."""
        values = []
        is_single = data.repetitions == "single"
        for trials, shape in zip(data.trials, self.samples.shapes, strict=True):
            generator = torch.Generator()
            generator.manual_seed(derive_seed(data.seed, trials.subject, index))
            n_rows = shape[0]
            if is_single:
                n_rows = len(trials.counts) * trials.max_repetitions
            subject_values = self.augmentations[index].draw(
                (n_rows, shape[-2], shape[-1]), generator
            )
            if is_single:
                # values are drawn for as many trials of each picture
                first_rows = trials.picture_of_trial * trials.max_repetitions
                subject_values = subject_values[first_rows + trials.repetition]
            values.append(subject_values.to(self.launch.device))
        return replace(self.samples, signals=values, tables=None)

    def _gather_augmented(self, rows: Int64, generator: torch.Generator) -> Tensor:
        """Gather the signals [B, C, T] of ascending rows, and augment them."""
        signal = self.samples.gather(rows)

        # average or mix the repetitions [B, R, C, T]
        if self.repetition_counts is not None:
            index = copy_to_device(torch.from_numpy(rows), self.launch.device)
            counts = self.repetition_counts[index]
            if self.random_k is not None:
                signal, counts = draw_repetitions(
                    signal, counts, self.random_k, generator
                )
            signal = mix_repetitions(signal, counts, self.augment, generator)

        # augment by values that are drawn now, or were drawn once
        for index_of_part, augmentation in enumerate(self.augmentations):
            if index_of_part in self.fixed_draws:
                values = self.fixed_draws[index_of_part].gather(rows)
            else:
                shape = (len(rows), *signal.shape[1:])
                values = augmentation.draw(shape, generator)
            signal = augmentation.apply(signal, values)
        return signal


class Feedback(nn.Module):
    """Choice among three targets of each sample by how well it is predicted.

    A sample that is easily predicted gets the first level, a hard sample the last.

    Args:
        samples: Number N of samples.
        alternatives: Number of targets of a stimulus, by key.
        device: Device of the buffers.
        gallery_level: Level of the alternative in the gallery.

    Attributes:
        running: Running similarity [N] of each sample to its target.
        level: Level [N] of each sample.

    Raises:
        RecipeError: if the number of targets is not three.

    Source: uncertainty-aware blur prior (UBP, arXiv 2503.04207), published repository.
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
                "set train.embedding_alternatives={ENCODER: [SECOND, THIRD]}, from "
                "weak to strong",
            )
        super().__init__()
        self.register_buffer(
            "running", torch.ones(samples, dtype=torch.float64, device=device)
        )
        self.register_buffer("level", torch.full((samples,), USUAL, device=device))

        # alternative of each level: 0 at the level of the gallery, then 1 and 2
        order = [1, 2]
        order.insert(gallery_level, 0)
        self.order = torch.tensor(order, device=device)

    def update(self, rows: Tensor, similarity: Tensor) -> None:
        """Choose the levels of rows [B] by their scaled similarity [B] to targets."""
        newest = similarity.detach().double()
        # Weight of the newest similarity in the running mean of a sample, as in UBP.
        newest_weight = 0.3
        running = newest_weight * newest + (1 - newest_weight) * self.running[rows]
        self.running[rows] = running
        mean = running.mean()
        # Standard deviations beyond which a sample of a batch is easy or hard,
        # as in UBP.
        limit = 1.96 * running.std()
        levels = torch.where(newest > mean + limit, EASY, USUAL)
        self.level[rows] = torch.where(newest < mean - limit, HARD, levels)


Query = tuple[SignalBank, Int64]
"""Signals, and the rows that are decoded, whose pictures are the gallery."""


def choose_held_out(
    concepts: Sequence[str],
    share: float,
    pictures: Pictures | None = None,
    by: Literal["concepts", "pictures"] = "concepts",
) -> Bool:
    """Choose training pictures for validation, the same in every run.

    Args:
        concepts: Concept [M] of each picture.
        share: Share of concepts, or pictures, that are held out.
        pictures: Data set, names, pixel digests and comparison of the pictures. If
            given, copies of held-out pictures are held out too.
        by: Unit that is held out.

    Returns:
        True [M] for held-out pictures.
    """
    # a fixed seed, so that all runs hold out the same concepts
    if by == "pictures":
        concepts = list(map(str, range(len(concepts))))
    names = np.unique(np.asarray(concepts))
    n_held_out = round(share * len(names))
    held_out_names = np.random.default_rng(0).permutation(names)[:n_held_out]
    held_out = np.isin(concepts, held_out_names)
    if pictures is None:
        return held_out

    # find copies of held-out pictures, which may have another concept
    dataset, image_ids, pixels, compare = pictures
    if pixels is None:
        return held_out
    held_out_pictures = LearnedPictures.from_image_ids(
        dataset, list(compress(image_ids, held_out)), pixels[held_out]
    )

    def find_likeness(row: int, name_hash: int) -> Likeness:
        # pictures that cannot be compared stay in the training
        return compare(row, name_hash) or ""

    return held_out_pictures.find_members(
        dataset, image_ids, pixels, find_likeness, MAX_COPY_DISTANCE
    )


def list_validation_queries(data: CellData, averages: SignalBank) -> list[Query]:
    """List the averaged signals of held-out pictures, as a query if there are any."""
    stimulus = averages.stimulus.cpu().numpy()
    rows = np.flatnonzero((stimulus >= 0) & data.held_out[stimulus])
    return [(averages, rows)] if len(rows) else []


def list_test_queries(data: CellData, device: torch.device) -> list[Query]:
    """List the test signals of each subject, as a query with all rows of a bank."""
    subjects = [trials.subject for trials in data.trials]
    queries = []
    for trials in data.test_trials:
        # a subject of the training keeps its index
        index = -1
        if trials.subject in subjects:
            index = subjects.index(trials.subject)
        bank = open_bank([trials], device, data.is_mapped)
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
    """Rank the picture that each signal shows among all pictures of its query.

    The main process ranks for all processes.

    Returns:
        Ranks [N] of the signals of all queries, from 1.
    """
    if not queries:
        return torch.empty(0)
    aligner.eval()
    keys = aligner.layout.compared_keys
    compared_targets = Targets(
        {key: source for key, source in targets.sources.items() if key in keys}
    )
    # running statistics of batch normalisation may differ between processes
    with torch.inference_mode(), launch.autocast(precision):
        return launch.run_on_main(
            partial(_rank_all, aligner, queries, compared_targets)
        )


def _rank_all(aligner: Aligner, queries: Sequence[Query], targets: Targets) -> Tensor:
    """Rank the seen pictures [N] of all queries."""
    return torch.cat([_rank(aligner, bank, rows, targets) for bank, rows in queries])


def _rank(aligner: Aligner, bank: SignalBank, rows: Int64, targets: Targets) -> Tensor:
    """Return the rank [N] of each row's picture among the pictures of all rows."""
    index = torch.from_numpy(rows).to(bank.stimulus.device)
    # candidates [M], and the candidate [N] that each row shows
    stimuli, target = torch.unique(bank.stimulus[index], return_inverse=True)
    gallery = aligner.encode_image(targets.gather(stimuli)).float()  # [M, D]

    # encode the signals in blocks, which limits the memory
    tokens = []
    has_known_subjects = bool((bank.subject >= 0).all())
    for start in range(0, len(rows), SIGNALS_PER_BATCH):
        for group in bank.split(rows[start : start + SIGNALS_PER_BATCH]):
            subject = None
            if has_known_subjects:
                subject = bank.subject[torch.from_numpy(group).to(bank.subject.device)]
            token = aligner.encode_signal(bank.gather(group), subject)
            tokens.append(token.float())
    return find_ranks(torch.cat(tokens), gallery, target)


def summarise_validation(
    ranks: Tensor,
    queries: Sequence[Query],
    data: CellData,
    seed: int,
    caveats: Sequence[str],
) -> list[Metric]:
    """Compute metrics, such as top-1, of validation ranks [N], if there is a query."""
    if not queries:
        return []

    # group by subject, because subjects may have seen the same picture
    ((bank, rows),) = queries
    subject = bank.subject.cpu()[rows]
    stimulus = bank.stimulus.cpu()[rows]
    subject_ranks = []
    subject_stimuli = []
    for index in subject.unique():
        subject_ranks.append(ranks[subject == index])
        subject_stimuli.append(stimulus[subject == index].tolist())
    items = data.grouping.make_items(subject_stimuli)
    return summarise_ranks(
        subject_ranks,
        len(items.names),
        seeds=(seed,),
        protocol=extend_protocol(f"held-out training {data.validation_by}", caveats),
        caveats=caveats,
        split="validation",
        items=items,
    )


def compute_top1(ranks: Tensor) -> float | None:
    """Return the share of ranks [N] that are 1, or None without ranks."""
    return float((ranks == 1).double().mean()) if len(ranks) else None
