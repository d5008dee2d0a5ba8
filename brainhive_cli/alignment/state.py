"""How far the training of a cell is, and its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from brainhive_cli.alignment.optimisation import Learner


@dataclass
class State:
    """How far a cell is.

    Attributes:
        epoch: Epochs that are done.
        step: Steps of the next one that are done; `loss` is the sum of their losses.
        best: Highest validation top-1 so far, and the epoch that reached it last (0: none yet).
        kept: The epoch that is kept: its number, score, weights (the losses' too) and validation ranks.
    """

    epoch: int = 0
    step: int = 0
    loss: Tensor | float = 0.0
    best: tuple[float, int] = (0.0, 0)
    kept: dict[str, Any] | None = None

    @classmethod
    def load(cls, path: Path) -> tuple[Self, dict[str, Any] | None]:
        """Read a checkpoint, where there is one: how far the cell is, and the state of its learner."""
        if not path.is_file():
            return cls(), None
        saved = torch.load(path, weights_only=True, map_location="cpu")
        learner = saved.pop("learner")
        return cls(**saved), learner

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
        if self.kept is None or score is None or score >= self.kept["score"]:
            weights, losses = _copied(learner.result), _copied(learner.losses)
            kept = {"epoch": self.epoch, "score": score, "weights": weights, "losses": losses}
            self.kept = {**kept, "ranks": found}

    def has_stalled(self, patience: int | None) -> bool:
        """Whether validation top-1 has not risen for `patience` epochs."""
        return patience is not None and bool(self.best[1]) and self.epoch - self.best[1] >= patience


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
