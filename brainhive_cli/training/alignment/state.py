"""How far the training of a cell is, and its checkpoint."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from brainhive_cli.core import documents
from brainhive_cli.core.checkpoints import ANEW, Checkpoint
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.alignment.optimisation import Learner

Count = Annotated[int, Field(ge=0)]
HOLDS_TENSORS = ConfigDict(arbitrary_types_allowed=True)


@with_config(HOLDS_TENSORS)
class Kept(TypedDict):
    """The epoch that is kept: its number, score, weights (the losses' too) and validation ranks."""

    epoch: Count
    score: float | None
    weights: dict[str, Tensor]
    losses: dict[str, Tensor]
    ranks: Tensor


@dataclass
class State:
    """How far a cell is.

    Attributes:
        epoch: Epochs that are done.
        step: Steps of the next one that are done; `loss` is the sum of their losses.
        best: Highest validation top-1 so far, and the epoch that reached it last (0: none yet).
        kept: The epoch that is kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    epoch: Count = 0
    step: Count = 0
    loss: Tensor | float = 0.0
    best: tuple[float, Count] = (0.0, 0)
    kept: Kept | None = None

    @classmethod
    def load(cls, checkpoint: Checkpoint, launch: Launch) -> tuple[Self, dict[str, Any] | None]:
        """Read a checkpoint, where there is one: how far the cell is, and the state of its learner.

        Raises:
            BrainhiveError: if it is whole, but no cell's.
        """
        saved = checkpoint.load(launch)
        if saved is None:
            return cls(), None
        learner = documents.check(saved.pop("learner", None), f"{checkpoint.path}: learner", dict, ANEW)
        return documents.check(saved, str(checkpoint.path), cls, ANEW), learner

    def content(self, learner: Learner) -> dict[str, Any]:
        """Return a checkpoint, as `load` reads it."""
        return {**vars(self), "learner": learner.state_dict()}

    def count_step(self, loss: Tensor) -> None:
        """Count a step."""
        self.step, self.loss = self.step + 1, self.loss + loss.detach()

    def count_epoch(
        self, learner: Learner, found: Tensor, validated: float | None, score: float | None
    ) -> None:
        """Count an epoch; keep its weights and validation ranks if none before had a better score.

        Without a score the last epoch is kept. `validated` is validation top-1.
        """
        self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0
        if validated is not None and validated >= self.best[0]:
            self.best = (validated, self.epoch)
        if self.kept is None or score is None or score >= (self.kept["score"] or 0.0):
            weights, losses = _copied(learner.result), _copied(learner.losses)
            self.kept = Kept(epoch=self.epoch, score=score, weights=weights, losses=losses, ranks=found)

    def has_stalled(self, patience: int | None) -> bool:
        """Whether validation top-1 has not risen for `patience` epochs."""
        return patience is not None and bool(self.best[1]) and self.epoch - self.best[1] >= patience


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
