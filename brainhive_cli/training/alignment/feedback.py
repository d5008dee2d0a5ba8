"""Choice of the alternative of a stimulus that a sample learns from next, by how well it was found before."""

import torch
from torch import Tensor

from brainhive_cli.core.errors import RecipeError

SHARE = 0.3
"""Weight of the newest similarity in a sample's running one; UBP's."""
DEVIATIONS = 1.96
"""Standard deviations from a batch's mean beyond which a sample is found easily, or hardly; UBP's."""
EASY, USUAL, HARD = 0, 1, 2
"""Places among the alternatives."""


class Feedback:
    """The alternative of each sample: the first where it is found easily, the last where hardly.

    Source: the uncertainty-aware blur prior (UBP, arXiv 2503.04207), published repository.

    Args:
        samples: How many there are.
        alternatives: How many targets a stimulus has, by key.
        device: Where they are chosen.

    Attributes:
        running: [samples] running similarity of each sample and its target.
        level: [samples] its alternative.

    Raises:
        RecipeError: if targets have other than three alternatives.
    """

    def __init__(self, samples: int, alternatives: dict[str, int], device: torch.device) -> None:
        if set(alternatives.values()) != {HARD + 1}:
            listed = ", ".join(f"{key} has {count}" for key, count in alternatives.items()) or "none has any"
            raise RecipeError(
                f"train.alternatives=uncertainty chooses among three targets of a stimulus, and {listed}",
                "train.embedding_alternatives={ENCODER: [SECOND, THIRD]}, from weak to strong",
            )
        self.running = torch.ones(samples, dtype=torch.float64, device=device)
        self.level = torch.full((samples,), USUAL, device=device)

    def learn(self, rows: Tensor, similarity: Tensor) -> None:
        """Choose the alternatives of rows [B] anew, by the scaled similarity [B] of their pairs."""
        newest = similarity.detach().double()
        running = SHARE * newest + (1 - SHARE) * self.running[rows]
        self.running[rows] = running
        mean, limit = running.mean(), DEVIATIONS * running.std()
        easier = torch.where(newest > mean + limit, EASY, USUAL)
        self.level[rows] = torch.where(newest < mean - limit, HARD, easier)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that an exact continuation needs."""
        return {"running": self.running, "level": self.level}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        self.running, self.level = (state[name].to(self.level.device) for name in ("running", "level"))
