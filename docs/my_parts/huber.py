"""my_parts/huber.py: squared error near the target, absolute error far from it."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from brainhive_cli import api


class Config(api.LossConfig):
    """Huber 1964."""

    delta: float = Field(0.5, gt=0, description="where squared error becomes absolute")

    def build(self) -> "Huber":
        """Build the loss."""
        return Huber(self.delta)


TINY = Config()


class Huber(nn.Module):
    """Loss of one prediction; a contrastive loss also has its scale as a parameter."""

    def __init__(self, delta: float) -> None:
        super().__init__()
        self.delta = delta

    def forward(
        self, predicted: Tensor, target: Tensor, context: api.LossContext
    ) -> Tensor:
        """Compare predictions with targets, both [B, *shape]; return a scalar."""
        return huber_loss(predicted, target, delta=self.delta)
