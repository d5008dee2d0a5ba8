"""Cross-entropy of token ids: each predicted distribution should have its target's id."""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import Loss, LossConfig, LossContext


class Config(LossConfig):
    """Mean over all ids of a batch that are not ignored; as of captions, in NEURONS."""

    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of the target that all ids have in common; NEURONS'."
    )
    ignore: int | None = Field(0, description="Id that is passed over: the padding of captions.")

    def build(self) -> "CrossEntropy":
        """Make the loss."""
        return CrossEntropy(self)


TINY = Config()


class CrossEntropy(Loss):
    """The loss of logits [B, L, K] and ids [B, L]."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare logits [B, L, K] with ids [B, L], as a scalar; 0 where all ids are ignored.

        Raises:
            BrainhiveError: if they are not pairs, an id is not among the K, or signals are mixed.
        """
        if predicted.shape[:-1] != target.shape:
            raise BrainhiveError(
                f"logits {list(predicted.shape)} are not one for each of the ids {list(target.shape)}",
                "cross_entropy is for a head that writes token ids, as `caption` of the backbone neurons",
            )
        if context.mixing is not None:
            raise BrainhiveError(
                "ids cannot be mixed as signals are", "no term with mix_alpha in these epochs"
            )

        # ids of the vocabulary
        ids = target.long()
        if not target.is_meta and len(ids) and (largest := int(ids.max())) >= predicted.shape[-1]:
            raise BrainhiveError(
                f"the target has the id {largest}, and the head knows {predicted.shape[-1]}",
                "a larger vocabulary of the head, or another tokenizer",
            )

        # mean over ids that are not ignored
        ignored = -100 if self.config.ignore is None else self.config.ignore  # torch's own mark
        total = F.cross_entropy(
            *(predicted.flatten(0, -2), ids.flatten()),
            ignore_index=ignored,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )
        return total / (ids != ignored).sum().clamp(min=1)
