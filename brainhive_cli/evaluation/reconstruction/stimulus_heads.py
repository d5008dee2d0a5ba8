"""Heads made from the embeddings of stimuli: what a perfect brain model would decode."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.media_files import Pixels
from brainhive_cli.data.targets.encoder_groups import grouped
from brainhive_cli.data.targets.encoder_keys import match_keys
from brainhive_cli.data.targets.targets import Targets
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import TOKEN, Decoded, comparable
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.trained import AlignRun

BATCH = 8192
"""Stimuli whose heads are made at once, at most."""
NUMBERS = 1 << 26
"""Numbers of all their embeddings at most: 256 MiB in float32, 259 pictures of 257 × 768 + 77 × 768."""
Tensors = Mapping[str, Tensor]


def _of_the_token(heads: Tensors) -> Tensor:
    return comparable(heads[TOKEN])


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
    compare: Callable[[Tensors], Tensor] = _of_the_token
    compared_keys: Collection[str] | None = None

    @classmethod
    def of(cls, align: AlignRun, prior: Prior, device: torch.device) -> Self:
        """Choose what makes the heads.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders; it names both.
        """
        encoders, _ = align.training_settings[align.cells[0].variant]
        fuser = prior.fuser
        if fuser is not None:
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
        sources = {key: each for key, each in opened.sources.items() if keys is None or key in keys}
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
        encoders = [each for each in heads.encoders if compared is None or keys[each.name] in compared]
        self._groups = grouped(encoders, "fp32", launch)

    @torch.inference_mode()
    def similarity(self, pixels: Pixels, decoded: Decoded) -> Tensor:
        """Cosine of the heads of pictures [B, H, W, 3] with decoded ones; [B].

        Raises:
            RecipeError: if they are clips.
        """
        if pixels.ndim != 4:
            raise RecipeError("best_of compares pictures, and the generator makes clips", "best_of=1")
        pictures = [Image.fromarray(each) for each in pixels]
        embeddings: dict[str, Tensor] = {}
        for group in self._groups:
            views = group.encoder.preprocess_all(pictures)
            embeddings |= {self._heads.keys[name]: values for name, values in group.encode(views).items()}
        generated = self._heads.compare(self._heads.of_embeddings(embeddings).tensors)
        return F.cosine_similarity(generated, self._heads.compare(decoded.tensors).to(generated.device))
