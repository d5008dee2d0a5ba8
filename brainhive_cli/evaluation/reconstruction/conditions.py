"""Sources that pictures are generated from: heads of signals or stimuli, shuffled ones, or none."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.media_files import Pixels
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import TOKEN, Decoded, comparable
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun
from brainhive_cli.training.alignment.trained_cell import TrainedCell

BATCH = 8192
"""Stimuli whose heads are made at once, at most."""
NUMBERS = 1 << 26
"""Numbers of all their embeddings at most: 256 MiB in float32, 259 pictures of 257 × 768 + 77 × 768."""
Tensors = Mapping[str, Tensor]
Source = Literal["brain", "images", "shuffled", "zeroed", "mean_embedding", "nearest", "mean", "still"]
"""From the last three nothing is generated: media of the training set, and stills of the brain's clips (see
`baselines`)."""
TRAIN = "train"
"""The split whose embeddings are averaged, and whose pictures are baselines."""
CELL_INDEPENDENT: tuple[Source, ...] = ("images", "zeroed", "mean_embedding")
"""Sources without a brain model: they are generated once for all cells."""


@dataclass(frozen=True)
class StimulusHeads:
    """Makes heads by the prior's fuser; where it has none, by what the brain model's heads predict.

    Attributes:
        align: The run whose stimuli are embedded.
        encoders: Those that embedded them.
        keys: The key of each encoder's embeddings, by its name.
        targets: Embeddings [B, …] by key to heads [B, …] by name.
        device: Where they are made.
        compare: Heads to the vectors [B, D] by which rows are compared; default: the token.
        compared_keys: Keys of the embeddings that these vectors are made from; None for all.
    """

    align: AlignRun
    encoders: Sequence[EncoderConfig]
    keys: Mapping[str, str]
    targets: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    device: torch.device
    compare: Callable[[Tensors], Tensor] = lambda heads: comparable(heads[TOKEN])
    compared_keys: Collection[str] | None = None

    @classmethod
    def of(cls, align: AlignRun, prior: Prior, device: torch.device) -> Self:
        """Choose what makes the heads.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders; it names both.
        """
        encoders, _ = align.training_settings[align.cells[0].variant]
        if (fuser := prior.fuser) is not None:
            keys = match_keys(encoders, prior.dims, "the prior")
            return cls(align, encoders, keys, lambda embeddings: {TOKEN: fuser(embeddings)}, device)
        model = align.model(align.cells[0], device)
        layout = model.layout
        return cls(align, encoders, layout.encoders, model.targets, device, model.join, layout.compared_keys)

    def of_rows(self, split: str, rows: NDArray[np.int64]) -> Decoded:
        """Make the heads of some rows of a split's stores."""
        return Decoded.join([*self._blocks(split, rows)])

    def vectors_of_rows(self, split: str, rows: NDArray[np.int64]) -> Iterator[Tensor]:
        """Make the vectors by which rows are compared, block by block [B, D]."""
        for block in self._blocks(split, rows, self.compared_keys):
            yield self.compare(block.tensors)

    def mean_of(self, split: str) -> Decoded:
        """Average the heads of all stimuli of a split: one row."""
        rows = np.flatnonzero(np.all([store.done for store in self.align.stores(split).values()], axis=0))
        totals: dict[str, Tensor] = {}
        for block in self._blocks(split, rows):
            for name, head in block.tensors.items():
                total = head.double().sum(0, keepdim=True)
                totals[name] = totals[name] + total if name in totals else total
        return Decoded({name: (total / len(rows)).float() for name, total in totals.items()})

    def _blocks(
        self, split: str, rows: NDArray[np.int64], keys: Collection[str] | None = None
    ) -> Iterator[Decoded]:
        """Make the heads of rows block by block, from the embeddings of some keys; None for all."""
        opened = Targets.of(self.align.stores(split), Launch(0, 1, self.device), self.keys, hold=False)
        sources = {key: source for key, source in opened.sources.items() if keys is None or key in keys}
        width = sum(prod(source.shape) for source in sources.values())
        at_once = max(1, min(BATCH, NUMBERS // width))
        for batch in np.array_split(rows, max(1, -(-len(rows) // at_once))):
            yield self.of_embeddings(Targets(sources).gather(batch))

    @torch.inference_mode()
    def of_embeddings(self, embeddings: Mapping[str, Tensor]) -> Decoded:
        """Make the heads of embeddings [B, …] by key."""
        return Decoded(self.targets(dict(embeddings)))


class Reranker:
    """Embeds generated pictures as the stimuli were, and makes heads from them; it never sees the stimulus.

    Args:
        heads: Makes heads from embeddings; its encoders are loaded here.
        launch: Where they run.
    """

    def __init__(self, heads: StimulusHeads, launch: Launch) -> None:
        self._heads = heads
        compared, keys = heads.compared_keys, heads.keys
        encoders = [config for config in heads.encoders if compared is None or keys[config.name] in compared]
        self._groups = grouped(encoders, "fp32", launch)

    @torch.inference_mode()
    def similarity(self, pixels: Pixels, decoded: Decoded) -> Tensor:
        """Cosine of the heads of pictures [B, H, W, 3] with decoded ones; [B].

        Raises:
            RecipeError: if they are clips.
        """
        if pixels.ndim != 4:
            raise RecipeError("best_of compares pictures, and the generator makes clips", "best_of=1")
        pictures = [Image.fromarray(picture) for picture in pixels]
        embeddings: dict[str, Tensor] = {}
        for group in self._groups:
            views = group.encoder.preprocess_all(pictures)
            embeddings |= {self._heads.keys[name]: values for name, values in group.encode(views).items()}
        generated = self._heads.compare(self._heads.of_embeddings(embeddings).tensors)
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
        cell = f"{self.cell.name}/sub-{self.subject:02d}" if self.cell else ""
        return cell if self.source == "brain" else f"{self.source}/{cell}".rstrip("/")

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
        rows = derange(len(self.image_ids), (self.cell.seed, self.subject)).tolist()
        origin_ids = [self.image_ids[row] for row in rows]
        return replace(self, source="shuffled", origin_ids=origin_ids, decoded=self.decoded[rows])


def derange(count: int, seed: int | tuple[int, ...]) -> NDArray[np.int64]:
    """Give each of several places another one, each once: [N] its neighbour in a random order."""
    order = np.random.default_rng(seed).permutation(count)
    neighbours = np.empty_like(order)
    neighbours[order] = np.roll(order, 1)
    return neighbours


def decode_signals(align: AlignRun, cell: Cell, subject: int, split: str, device: torch.device) -> DecodedSet:
    """Decode all signals of a subject in a split, by a cell's brain model."""
    member = TrainedCell.load(align, cell, device)
    decoded, rows = member.decoded(subject, split)
    image_ids = member.pictures(split).image_ids
    ids = [image_ids[row] for row in rows]
    return DecodedSet("brain", cell, subject, ids, ids, decoded)


def make_decoded_sets(
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
    by_source = {"brain": [decoded_set.first(items) for decoded_set in brain]}
    ids = list(dict.fromkeys(image_id for some in by_source["brain"] for image_id in some.image_ids))

    def of_no_cell(source: Source, decoded: Decoded | None) -> list[DecodedSet]:
        return [DecodedSet(source, None, None, ids, ids, decoded)]

    # other items' heads, the stimuli's own, none at all, and their mean
    if "shuffled" in sources:
        by_source["shuffled"] = [decoded_set.shuffled().first(items) for decoded_set in brain]
    if "images" in sources:
        rows = next(iter(heads.align.stores(split).values())).rows(ids)
        by_source["images"] = of_no_cell("images", heads.of_rows(split, rows))
    if "zeroed" in sources:
        by_source["zeroed"] = of_no_cell("zeroed", None)
    if "mean_embedding" in sources:
        means = heads.mean_of(TRAIN).tensors
        repeated = {name: head.expand(len(ids), *head.shape[1:]) for name, head in means.items()}
        by_source["mean_embedding"] = of_no_cell("mean_embedding", Decoded(repeated))
    return [decoded_set for source in dict.fromkeys(sources) for decoded_set in by_source.get(source, [])]
