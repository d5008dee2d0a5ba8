"""Sources that pictures are generated from: heads of signals or stimuli, shuffled ones, or none."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from brainhive_cli.core.arrays import Int64, UInt8
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import TOKEN, Decoded, comparable
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

MAX_BATCH = 8192
"""Stimuli whose heads are computed at once, at most."""
MAX_NUMBERS = 1 << 26
"""Numbers of all their embeddings at most: 256 MiB in float32, 259 pictures of 257 × 768 + 77 × 768."""
Tensors = Mapping[str, Tensor]
Source = Literal["brain", "images", "shuffled", "zeroed", "mean_embedding", "nearest", "mean", "still"]
"""From the last three nothing is generated: media of the training set, and stills of the brain's clips (see
`baselines`)."""
TRAIN = "train"
"""The split whose embeddings are averaged, and whose pictures are baselines."""
CELL_INDEPENDENT = ("images", "zeroed", "mean_embedding")
"""Sources without a brain model: they are generated once for all cells."""


@dataclass(frozen=True)
class StimulusHeads:
    """Heads of stimuli, from the prior's fuser; where it has none, the targets of the brain model's heads.

    Attributes:
        align: The run whose stimuli are embedded.
        encoders: Those that embedded them.
        keys: The key of each encoder's embeddings, by its name.
        targets: Embeddings [B, …] by key to heads [B, …] by name.
        device: Where heads are computed.
        compare: Heads to the vectors [B, D] by which rows are compared; default: the token.
        compared_keys: Keys of the embeddings that these vectors are made from; None for all.
    """

    align: TrainedRun
    encoders: Sequence[EncoderConfig]
    keys: Mapping[str, str]
    targets: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    device: torch.device
    compare: Callable[[Tensors], Tensor] = lambda heads: comparable(heads[TOKEN])
    compared_keys: Collection[str] | None = None

    @classmethod
    def of(cls, align: TrainedRun, prior: Prior, device: torch.device) -> Self:
        """Choose the function that computes the heads.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders; it names both.
        """
        # the fuser takes embeddings by the names that the prior was trained with
        encoders = align.models[0].encoders
        if (fuser := prior.fuser) is not None:
            keys = match_keys(encoders, prior.dims, "the prior")
            return cls(align, encoders, keys, lambda embeddings: {TOKEN: fuser(embeddings)}, device)

        # without a fuser, heads are the targets of the brain model
        model = TrainedModel(align, align.cells[0], device).module
        layout = model.layout
        return cls(align, encoders, layout.encoders, model.targets, device, model.join, layout.compared_keys)

    def iterate_blocks(
        self, split: str, rows: Int64, keys: Collection[str] | None = None
    ) -> Iterator[Decoded]:
        """Compute the heads of rows of a split's stores, block by block.

        Args:
            split: Part of the data set.
            rows: Of its stores, [N].
            keys: Keys of the embeddings that the heads are computed from; None for all.
        """
        # embeddings of these keys, and the rows that fit in memory
        opened = Targets.of(self.align.stores(split), Launch(0, 1, self.device), self.keys, hold=False)
        sources = {key: source for key, source in opened.sources.items() if keys is None or key in keys}
        # numbers of one stimulus in all embeddings
        width = sum(prod(source.shape) for source in sources.values())
        batch_size = max(1, min(MAX_BATCH, MAX_NUMBERS // width))

        # at least one block, also of no rows
        for batch in np.array_split(rows, max(1, -(-len(rows) // batch_size))):
            embeddings = dict(Targets(sources).gather(batch))
            with torch.inference_mode():
                heads = Decoded(self.targets(embeddings))
            yield heads

    def average(self, split: str) -> Decoded:
        """Average the heads of all stimuli of a split: one row."""
        # sums in float64: float32 would lose digits over many thousands of stimuli
        rows = np.flatnonzero(np.all([store.done for store in self.align.stores(split).values()], 0))
        totals: dict[str, Tensor] = {}
        for block in self.iterate_blocks(split, rows):
            for name, head in block.tensors.items():
                total = head.double().sum(0, keepdim=True)  # [1, …]
                totals[name] = totals[name] + total if name in totals else total
        return Decoded({name: (total / len(rows)).float() for name, total in totals.items()})


class Reranker:
    """Similarity of generated pictures, embedded as the stimuli were, to decoded heads.

    It never sees the stimulus.

    Args:
        heads: Computes heads from embeddings; its encoders are loaded here.
        launch: Where they run.
    """

    def __init__(self, heads: StimulusHeads, launch: Launch) -> None:
        # encoders that the comparison does not use are not loaded
        self._heads = heads
        compared, keys = heads.compared_keys, heads.keys
        encoders = [config for config in heads.encoders if compared is None or keys[config.name] in compared]
        self._groups = grouped(encoders, "fp32", launch)

    @torch.inference_mode()
    def similarity(self, pixels: UInt8, decoded: Decoded) -> Tensor:
        """Compute the cosine [B] of the heads of pictures [B, H, W, 3] with decoded ones.

        Raises:
            RecipeError: if they are clips.
        """
        if pixels.ndim != 4:
            raise RecipeError("best_of compares pictures, and the generator makes clips", "best_of=1")

        # embeddings of each encoder by key
        pictures = [Image.fromarray(picture) for picture in pixels]
        embeddings: dict[str, Tensor] = {}
        for group in self._groups:
            views = group.encoder.preprocess_all(pictures)
            embeddings |= {self._heads.keys[name]: values for name, values in group.encode(views).items()}

        # vectors [B, D] of generated pictures and of decoded heads
        generated = self._heads.compare(self._heads.targets(embeddings))
        return F.cosine_similarity(generated, self._heads.compare(decoded.tensors).to(generated.device))


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
        # sources without a brain model have no folder for each cell
        cell = f"{self.cell.name}/sub-{self.subject:02d}" if self.cell else ""
        return cell if self.source == "brain" else f"{self.source}/{cell}".rstrip("/")

    def file(self, image_id: str, repeat: int) -> str:
        """The path of a picture below the run's folder."""
        folder = below(Path("samples", self.name), image_id, source="the stimulus id")
        return f"{folder.as_posix()}/{repeat:02d}.png"

    def first(self, items: int | None) -> "DecodedSet":
        """Keep the first items; all when None."""
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
        # seed and subject decide the order, which is the same in every run
        rows = derange(len(self.image_ids), (self.cell.seed, self.subject)).tolist()
        origin_ids = [self.image_ids[row] for row in rows]
        return replace(self, source="shuffled", origin_ids=origin_ids, decoded=self.decoded[rows])


def derange(count: int, seed: int | tuple[int, ...]) -> Int64:
    """Draw a permutation [N] without fixed points: the neighbour of each index in a random order."""
    order = np.random.default_rng(seed).permutation(count)

    # each index gets its predecessor in the order, so none gets itself
    neighbours = np.empty_like(order)
    neighbours[order] = np.roll(order, 1)
    return neighbours


def decode_signals(model: TrainedModel, subject: int, split: str) -> DecodedSet:
    """Decode all signals of a subject in a split, by a brain model."""
    # heads in the order of the signals, whose rows say which stimuli these showed
    decoded, rows = model.decoded(subject, split)
    image_ids = model.pictures(split).image_ids
    ids = [image_ids[row] for row in rows]
    return DecodedSet("brain", model.cell, subject, ids, ids, decoded)


def make_decoded_sets(
    sources: Sequence[Source],
    brain: Sequence[DecodedSet],
    heads: StimulusHeads,
    split: str,
    items: int | None,
) -> list[DecodedSet]:
    """Collect the set of each source that media are generated from, of the same items.

    Args:
        sources: In order.
        brain: The decoded heads of all signals.
        heads: Computes heads of the stimuli.
        split: Whose items.
        items: How many of them, from the start; all when None.
    """
    sets: dict[Source, list[DecodedSet]] = {"brain": [decoded_set.first(items) for decoded_set in brain]}
    ids = list(dict.fromkeys(image_id for decoded_set in sets["brain"] for image_id in decoded_set.image_ids))

    # heads of other items
    if "shuffled" in sources:
        sets["shuffled"] = [decoded_set.shuffled().first(items) for decoded_set in brain]

    # heads without a brain model: the stimuli's, none at all, and the mean of the training split
    without_cell: dict[Source, Decoded | None] = {}
    if "images" in sources:
        # stores of a split have the same rows
        rows = next(iter(heads.align.stores(split).values())).rows(ids)
        without_cell["images"] = Decoded.join([*heads.iterate_blocks(split, rows)])
    if "zeroed" in sources:
        without_cell["zeroed"] = None
    if "mean_embedding" in sources:
        # one row, repeated for every item
        means = heads.average(TRAIN).tensors
        repeated = {name: head.expand(len(ids), *head.shape[1:]) for name, head in means.items()}
        without_cell["mean_embedding"] = Decoded(repeated)
    for source, decoded in without_cell.items():
        sets[source] = [DecodedSet(source, None, None, ids, ids, decoded)]
    return [decoded_set for source in dict.fromkeys(sources) for decoded_set in sets.get(source, [])]
