"""What pictures are generated from: heads of signals or stimuli, shuffled ones, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.evaluation.reconstruction.stimulus_heads import StimulusHeads
from brainhive_cli.models.heads import Decoded
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.trained_cell import TrainedCell

Source = Literal["brain", "images", "shuffled", "zeroed", "mean_embedding", "nearest", "mean", "still"]
"""From the last three nothing is generated: media of the training set, and stills of the brain's clips (see
`baselines`)."""
TRAIN = "train"
"""The split whose embeddings are averaged, and whose pictures are baselines."""
CELL_INDEPENDENT: tuple[Source, ...] = ("images", "zeroed", "mean_embedding")
"""Sources without a brain model: they are generated once for all cells."""


@dataclass(frozen=True)
class DecodedSet:
    """The decoded heads of one source, one row for each item.

    Attributes:
        source: Where they come from.
        cell: Whose brain model decoded them; None for those `CELL_INDEPENDENT`.
        subject: Whose signals; None where there are none.
        image_ids: The items, [N].
        origin_ids: The image id of the signal or stimulus that each row comes from: another item's if
            shuffled.
        decoded: Heads of N rows; None for `zeroed`, which conditions on nothing.
    """

    source: Source
    cell: Cell | None
    subject: int | None
    image_ids: list[str]
    origin_ids: list[str]
    decoded: Decoded | None

    @property
    def name(self) -> str:
        """The folder of its pictures below `samples`."""
        of_cell = f"{self.cell.name}/sub-{self.subject:02d}" if self.cell else ""
        return of_cell if self.source == "brain" else f"{self.source}/{of_cell}".rstrip("/")

    def file(self, image_id: str, repeat: int) -> str:
        """The path of a picture below the run's folder."""
        folder = below(Path("samples", self.name), image_id, source="the stimulus id")
        return f"{folder.as_posix()}/{repeat:02d}.png"

    def first(self, items: int | None) -> "DecodedSet":
        """Keep some items, from the start; all when None."""
        return replace(
            self,
            image_ids=self.image_ids[:items],
            origin_ids=self.origin_ids[:items],
            decoded=None if self.decoded is None else self.decoded[:items],
        )

    def shuffled(self) -> "DecodedSet":
        """Give every item another item's signal, each signal once.

        Raises:
            RecipeError: if there is only one.
        """
        if len(self.image_ids) < 2:
            raise RecipeError("one signal cannot be shuffled", "leave `shuffled` out of sources")
        assert self.cell is not None and self.subject is not None and self.decoded is not None
        order = np.random.default_rng((self.cell.seed, self.subject)).permutation(len(self.image_ids))
        giver = np.empty_like(order)
        giver[order] = np.roll(order, 1)  # its neighbour in a random order, and so never itself
        origin_ids = [self.image_ids[n] for n in giver]
        return replace(self, source="shuffled", origin_ids=origin_ids, decoded=self.decoded[giver.tolist()])


def of_brain(align: AlignRun, cell: Cell, subject: int, split: str, device: torch.device) -> DecodedSet:
    """Decode all signals of a subject in a split, by a cell's brain model."""
    member = TrainedCell.load(align, cell, device)
    decoded, rows = member.decoded(subject, split)
    image_ids = member.pictures(split).image_ids
    ids = [image_ids[row] for row in rows]
    return DecodedSet("brain", cell, subject, ids, ids, decoded)


def decoded_sets(
    sources: Sequence[Source],
    brain: Sequence[DecodedSet],
    heads: StimulusHeads,
    split: str,
    items: int | None,
) -> list[DecodedSet]:
    """Make the set of each source that media are generated from, of the same items.

    Args:
        sources: In order.
        brain: The decoded heads of all signals.
        heads: Makes heads from the stimuli.
        split: Whose items.
        items: How many of them, from the start; all when None.
    """
    made = {"brain": [each.first(items) for each in brain]}
    image_ids = list(dict.fromkeys(image_id for each in made["brain"] for image_id in each.image_ids))
    if "shuffled" in sources:
        made["shuffled"] = [each.shuffled().first(items) for each in brain]
    if "images" in sources:
        rows = next(iter(heads.align.stores(split).values())).rows(image_ids)
        made["images"] = [DecodedSet("images", None, None, image_ids, image_ids, heads.of_rows(split, rows))]
    if "zeroed" in sources:
        made["zeroed"] = [DecodedSet("zeroed", None, None, image_ids, image_ids, None)]
    if "mean_embedding" in sources:
        mean = heads.mean_of(TRAIN)
        of_each = {name: head.expand(len(image_ids), *head.shape[1:]) for name, head in mean.tensors.items()}
        one = DecodedSet("mean_embedding", None, None, image_ids, image_ids, Decoded(of_each))
        made["mean_embedding"] = [one]
    return [each for source in dict.fromkeys(sources) for each in made.get(source, [])]
