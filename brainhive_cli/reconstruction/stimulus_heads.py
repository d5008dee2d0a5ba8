"""Heads made from the embeddings of stimuli: what a perfect brain model would decode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.heads import TOKEN, comparable
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_groups import grouped
from brainhive_cli.data.encoder_keys import match_keys
from brainhive_cli.data.media_files import Pixels
from brainhive_cli.data.targets import Targets
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.priors import Prior

BATCH = 8192
"""Stimuli whose embeddings are fused at once."""


@dataclass(frozen=True)
class StimulusHeads:
    """Makes heads by the prior's fuser; where it has none, by what the brain model's heads predict.

    Attributes:
        align: The run whose stimuli are embedded.
        encoders: Those that embedded them.
        keys: The key of each encoder's embeddings, by its name.
        targets: Embeddings [B, …] by key to heads [B, …] by name.
        device: Where they are made.
    """

    align: AlignRun
    encoders: Sequence[EncoderConfig]
    keys: Mapping[str, str]
    targets: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    device: torch.device

    @classmethod
    def of(cls, align: AlignRun, prior: Prior, device: torch.device) -> Self:
        """Choose what makes the heads.

        Raises:
            BrainhiveError: if the prior fuses embeddings of other encoders; it names both.
        """
        encoders, _ = align.made_with[align.cells[0].variant]
        fuser = prior.fuser
        if fuser is not None:
            keys = match_keys(encoders, prior.dims, "the prior")
            return cls(align, encoders, keys, lambda embeddings: {TOKEN: fuser(embeddings)}, device)
        model = align.model(align.cells[0], device)
        keys = model.layout.encoders
        return cls(align, encoders, keys, model.targets, device)

    def of_rows(self, split: str, rows: NDArray[np.int64]) -> Decoded:
        """Make the heads of some rows of a split's stores."""
        launch = Launch(0, 1, self.device)
        targets = Targets.of(self.align.stores(split), launch, self.keys, hold=False)
        batches = np.array_split(rows, max(1, -(-len(rows) // BATCH)))
        return Decoded.join([self.of_embeddings(targets.gather(batch)) for batch in batches])

    @torch.inference_mode()
    def of_embeddings(self, embeddings: Mapping[str, Tensor]) -> Decoded:
        """Make the heads of embeddings [B, …] by key."""
        return Decoded(self.targets(dict(embeddings)))


def compared(decoded: Decoded) -> Tensor:
    """Flatten the token, or else the first head, to the vectors [N, D] by which rows are compared."""
    name = TOKEN if TOKEN in decoded.tensors else next(iter(decoded.tensors))
    return comparable(decoded.tensors[name])


class Reranker:
    """Embeds generated pictures as the stimuli were, and makes heads from them; it never sees the stimulus.

    Args:
        heads: Makes heads from embeddings; its encoders are loaded here.
        launch: Where they run.
    """

    def __init__(self, heads: StimulusHeads, launch: Launch) -> None:
        self._heads = heads
        self._groups = grouped(heads.encoders, "fp32", launch)

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
            views = torch.stack([group.encoder.preprocess(picture) for picture in pictures])
            embeddings |= {self._heads.keys[name]: values for name, values in group.encode(views).items()}
        generated = compared(self._heads.of_embeddings(embeddings))
        return F.cosine_similarity(generated, compared(decoded).to(generated.device))
