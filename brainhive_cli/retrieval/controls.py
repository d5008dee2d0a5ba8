"""A control as a distribution: what is measured when signals and pictures are dealt anew, many times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.metrics.guessing import ranks_of_all
from brainhive_cli.retrieval.rankings import Gallery, Queries, controlled

DRAWS = 1000
"""How often they are dealt; the smallest p is one over one more."""
MEASURED: Mapping[str, Callable[[NDArray[Any]], float]] = {
    "top1": lambda ranks: float((ranks == 1).mean()),
    "top5": lambda ranks: float((ranks <= 5).mean()),
    "mean_rank": lambda ranks: float(ranks.mean()),
    "mrr": lambda ranks: float((1 / ranks).mean()),
}


@dataclass(frozen=True)
class Broken:
    """One subject's metrics as they are, and in every draw of a control.

    Attributes:
        measured: By metric, with what belongs together.
        drawn: By metric, of each draw.
        n: Signals.
    """

    measured: dict[str, float]
    drawn: dict[str, list[float]]
    n: int

    @classmethod
    def of(cls, gallery: Gallery, queries: Queries, control: str, subject: int, seed: int) -> Self:
        """Rank all pictures of the split once, and look up what each draw deals.

        Args:
            gallery: The candidates.
            queries: The subject's signals and what they showed.
            control: As of `controlled`.
            subject: Whose signals.
            seed: Of the draws.
        """
        size = len(gallery.rows)
        ranks = ranks_of_all(queries.tokens, gallery.tokens, size, gallery.distractors())
        signal = np.arange(len(queries.seen))
        dealt = (
            controlled(queries.seen, gallery, control, subject, derive_seed(seed, draw))
            for draw in range(DRAWS)
        )
        found = [_measured(ranks[signal, places]) for places in dealt]
        drawn = {name: [each[name] for each in found] for name in MEASURED}
        return cls(_measured(ranks[signal, queries.seen]), drawn, len(signal))


def _measured(ranks: NDArray[np.int64]) -> dict[str, float]:
    return {name: measure(ranks) for name, measure in MEASURED.items()}


def described_control(kind: str, broken: Sequence[Sequence[Broken]], pool: int) -> dict[str, Any]:
    """Describe what was measured beside a control's distribution, over all subjects.

    Args:
        kind: Of the control.
        broken: One list a subject, of its cells.
        pool: Candidates.

    Returns:
        kind, draws, n, pool, and by metric: measured, mean, low and high (of the middle 95 % of draws), and
        p: the share of draws, with what was measured among them, that are as good as it.
    """
    metrics = {}
    for name in MEASURED:
        measured = float(np.mean([np.mean([each.measured[name] for each in group]) for group in broken]))
        drawn = np.mean([np.mean([each.drawn[name] for each in group], axis=0) for group in broken], axis=0)
        better = drawn <= measured if name == "mean_rank" else drawn >= measured
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        metrics[name] = {"measured": measured, "mean": float(drawn.mean()), "low": low, "high": high}
        metrics[name]["p"] = (1 + int(better.sum())) / (1 + len(drawn))
    n = sum(group[0].n for group in broken)
    return {"kind": kind, "draws": DRAWS, "n": n, "pool": pool, "metrics": metrics}
