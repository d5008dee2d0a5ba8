"""Retrieval in training: how well a brain model finds stimuli from signals it did not learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from math import ceil

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.measurement.units import Alike, Items
from brainhive_cli.training.alignment.batches import CellData, SignalBank, averages_of
from brainhive_cli.training.alignment.learned import Confirm, LearnedPictures
from brainhive_cli.training.alignment.model import Aligner

Pictures = tuple[str, Sequence[str], UInt64 | None, Confirm]
MAX_COPY_DISTANCE = 8
"""Most bits in which views of copies among training pictures differ. JPEG, squares, bars and apertures change
fewer; there are so many pairs of training pictures that to confirm further candidates would take minutes."""
SIGNALS_AT_ONCE = 1024
"""Signals encoded at once: BrainHiVE's batch, so that what fits in training fits here."""


@dataclass
class ValidationSet:
    """Rows of a signal bank that a model is validated on; the gallery is the stimuli that any of them shows.

    `targets` are those of all stimuli; `subject` are subject indices [N], or None for an unknown one;
    `alike` says which stimuli are, by their rows.
    """

    pool: SignalBank
    rows: Int64
    targets: Targets
    subject: Tensor | None
    alike: Alike = field(default_factory=Alike)

    def __post_init__(self) -> None:
        """Find the stimuli that the signals show, and which of them each does."""
        stimulus = self.pool.stimulus
        index = torch.from_numpy(self.rows).to(stimulus.device)
        self.shown, self.target = torch.unique(stimulus[index], return_inverse=True)

    def ranks(self, aligner: Aligner) -> Tensor:
        """Rank the seen picture of each signal among the pictures: [N]."""
        # the gallery [M, D] is encoded once
        keys = aligner.layout.compared_keys
        targets = Targets({key: source for key, source in self.targets.sources.items() if key in keys})
        gallery = aligner.encode_image(targets.gather(self.shown)).float()

        # signals are encoded in blocks, which bounds the memory
        blocks = np.split(self.rows, range(SIGNALS_AT_ONCE, len(self.rows), SIGNALS_AT_ONCE))
        tokens = []  # [N, D]
        for part in (part for rows in blocks for part in self.pool.split(rows)):
            index = torch.from_numpy(part).to(self.pool.stimulus.device)
            subject = None if self.subject is None else self.subject[index]
            tokens.append(aligner.encode_signal(self.pool.gather(part), subject).float())
        return ranks(torch.cat(tokens), gallery, self.target)

    def by_subject(self, ranks: Tensor) -> tuple[list[Tensor], Items]:
        """Split ranks [N] by subject, and give the stimulus of each: several subjects may have seen one."""
        # subject and stimulus of each rank
        subject, stimulus = self.pool.subject.cpu()[self.rows], self.pool.stimulus.cpu()[self.rows]
        masks = [subject == index for index in subject.unique()]
        return [ranks[mask] for mask in masks], self.alike.items([stimulus[mask].tolist() for mask in masks])


def held_out_of(concepts: Sequence[str], share: float, pictures: Pictures | None = None) -> Bool:
    """Choose whole training concepts for validation: [M]; the same for every cell of every run.

    Copies of these in other concepts are held out too, where the pictures are known: by the name of the data
    set's pictures, ids [M], what pixels are known by [M, 25], and what compares them.
    """
    # a fixed seed, so that all runs hold out the same concepts
    names = np.unique(np.asarray(concepts))
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    held_out = np.isin(concepts, chosen)
    if pictures is None:
        return held_out

    # copies of held-out pictures must not be learned under another concept
    dataset, image_ids, pixels, confirm = pictures
    if pixels is None:
        return held_out
    learned = LearnedPictures.of(dataset, [*compress(image_ids, held_out)], pixels[held_out])
    is_copy: Confirm = lambda row, name: confirm(row, name) or ""  # noqa: E731 (what is not here is learned)
    return learned.contain(dataset, image_ids, pixels, is_copy, MAX_COPY_DISTANCE)


def describe_held_out(concepts: Sequence[str], share: float) -> tuple[str, str]:
    """Say how many training concepts are held out; and why none is and what would, where some were to be."""
    count = len(set(concepts))
    held = round(share * count)
    if held or not share:
        return f"{held:,} of {count:,} training concepts", ""

    # the smallest share that holds out a concept
    least = ceil(1000 / count) / 1000
    way = f"train.validation={least:g} holds {round(least * count)} out" if count > 1 else "it takes two"
    return (
        f"none of {count:,} training concepts",
        f"no validation: a share of {share:g} of {count} training concepts is none; {way}",
    )


def held_out_set(data: CellData, averages: SignalBank) -> list[ValidationSet]:
    """Take the averaged signals of held-out training concepts, if there are any."""
    rows = np.flatnonzero(data.held_out[averages.stimulus.cpu().numpy()])
    return [ValidationSet(averages, rows, data.targets, averages.subject, data.alike)] if len(rows) else []


def test_sets(data: CellData, device: torch.device) -> list[ValidationSet]:
    """Take the test signals, a subject at a time.

    Raises:
        BrainhiveError: if there are none.
    """
    if not data.tested or data.tested_targets is None:
        raise BrainhiveError("no test signals to select the epoch by", "train.selection=best")

    # a known subject keeps its index, a new one has none
    learned, queries = [trials.subject for trials in data.trials], []
    for trials in data.tested:
        pool, subject, index = averages_of(replace(data, trials=[trials]), device), trials.subject, None
        if subject in learned:
            index = torch.full_like(pool.subject, learned.index(subject))
        queries.append(ValidationSet(pool, np.arange(len(trials.stimulus)), data.tested_targets, index))
    return queries


def ranks_of(queries: list[ValidationSet], aligner: Aligner, precision: str, launch: Launch) -> Tensor:
    """Rank the seen pictures of all queries, [N]; as the main process finds them, for all processes."""
    # the main process ranks, with its own statistics of batch normalisation
    ranks = torch.empty(0)
    if launch.is_main and queries:
        aligner.eval()
        with torch.inference_mode(), launch.autocast(precision):
            ranks = torch.cat([query.ranks(aligner) for query in queries])
    return launch.gather(ranks)[0]  # each has running statistics of its own share


def top1(ranks: Tensor) -> float | None:
    """Share of the signals whose picture came first; None when there are none."""
    return float((ranks == 1).double().mean()) if len(ranks) else None
