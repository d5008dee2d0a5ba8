"""Cross-entropy of token ids: each predicted distribution should have its target's id."""

import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import Loss, LossConfig, LossContext


class Config(LossConfig):
    """Mean over all ids of a batch that are no padding; as of captions, in NEURONS."""

    def build(self) -> "CrossEntropy":
        """Make the loss."""
        return CrossEntropy(self)


TINY = Config()
LABEL_SMOOTHING = 0.1
"""Share of the target that all ids have in common; NEURONS'."""
PADDING = 0
"""Id that is passed over: the padding of captions."""


class CrossEntropy(Loss):
    """The loss of logits [B, L, K] and ids [B, L]."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare logits [B, L, K] with ids [B, L], as a scalar; 0 where all ids are padding.

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

        # mean over ids that are no padding
        total = F.cross_entropy(
            *(predicted.flatten(0, -2), ids.flatten()),
            ignore_index=PADDING,
            label_smoothing=LABEL_SMOOTHING,
            reduction="sum",
        )
        return total / (ids != PADDING).sum().clamp(min=1)
