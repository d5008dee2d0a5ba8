"""Retrieval in training: how well a brain model finds stimuli from signals it did not
learn from.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Metric, extend_protocol
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.measurement.ranks import ranks as find_ranks
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.batches import CellData, SignalBank, open_bank
from brainhive_cli.training.alignment.learned import Confirm, LearnedPictures
from brainhive_cli.training.alignment.model import Aligner

Pictures = tuple[str, Sequence[str], UInt64 | None, Confirm]
Query = tuple[SignalBank, Int64]
"""Signals and the rows of those that are decoded; their gallery is the pictures that
any of them shows.
"""
MAX_COPY_DISTANCE = 8
"""Most bits in which views of copies among training pictures differ. JPEG, squares,
bars and apertures change fewer; there are so many pairs of training pictures that to
confirm further candidates would take minutes.
"""
SIGNALS_AT_ONCE = 1024
"""Signals encoded at once: BrainHiVE's batch, so that what fits in training fits
here.
"""


def held_out_of(
    concepts: Sequence[str], share: float, pictures: Pictures | None = None
) -> Bool:
    """Choose whole training concepts for validation: [M]; the same for every cell of
    every run.

    Copies of these in other concepts are held out too, where the pictures are known: by
    the name of the data set's pictures, ids [M], what pixels are known by [M, 25], and
    what compares them.
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
    learned = LearnedPictures.of(
        dataset, [*compress(image_ids, held_out)], pixels[held_out]
    )
    is_copy: Confirm = lambda row, name: confirm(row, name) or ""  # noqa: E731 (what is not here is learned)
    return learned.contain(dataset, image_ids, pixels, is_copy, MAX_COPY_DISTANCE)


def select_held_out(data: CellData, averages: SignalBank) -> list[Query]:
    """List the averaged signals of held-out training concepts, if there are any."""
    rows = np.flatnonzero(data.held_out[averages.stimulus.cpu().numpy()])
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
    # the main process ranks, with its own statistics of batch normalisation
    ranks = torch.empty(0)
    if launch.is_main and queries:
        aligner.eval()
        keys = aligner.layout.compared_keys
        compared = Targets(
            {key: source for key, source in targets.sources.items() if key in keys}
        )
        with torch.inference_mode(), launch.autocast(precision):
            ranks = torch.cat(
                [_rank(aligner, bank, rows, compared) for bank, rows in queries]
            )
    return launch.gather(ranks)[0]  # each has running statistics of its own share


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
    alike: Alike,
    seed: int,
    caveats: Sequence[str],
) -> list[Metric]:
    """Measure the retrieval of held-out training concepts by their ranks [N]; nothing
    where none is held out.

    Args:
        ranks: Of `rank_queries`.
        queries: Of `select_held_out`.
        alike: Which pictures are, by their rows.
        seed: Of the training.
        caveats: Of the model.
    """
    if not queries:
        return []

    # ranks and pictures by subject: several subjects may have seen one picture
    ((bank, rows),) = queries
    subject, stimulus = bank.subject.cpu()[rows], bank.stimulus.cpu()[rows]
    masks = [subject == index for index in subject.unique()]
    items = alike.items([stimulus[mask].tolist() for mask in masks])
    protocol = extend_protocol("held-out training concepts", caveats)
    return summarise(
        [ranks[mask] for mask in masks],
        len(items.names),
        seeds=(seed,),
        protocol=protocol,
        split="validation",
        items=items,
    )


def top1(ranks: Tensor) -> float | None:
    """Share of the signals whose picture came first; None when there are none."""
    return float((ranks == 1).double().mean()) if len(ranks) else None
