"""A control as a null distribution: what is measured when signals or pictures are permuted, many times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.seeds import derive_seed
from brainhive_cli.evaluation.retrieval.rankings import Gallery, Queries, controlled
from brainhive_cli.measurement.retrieval import ranks_of_all

DRAWS = 1000
"""Number of permutations; the smallest p is 1 / (DRAWS + 1)."""
METRICS: Mapping[str, Callable[[NDArray[Any]], float]] = {
    "top1": lambda ranks: float((ranks == 1).mean()),
    "top5": lambda ranks: float((ranks <= 5).mean()),
    "mean_rank": lambda ranks: float(ranks.mean()),
    "mrr": lambda ranks: float((1 / ranks).mean()),
}


@dataclass(frozen=True)
class ControlDraws:
    """One subject's metrics as they are, and in every draw of a control.

    Attributes:
        measured: By metric, without the control.
        drawn: By metric, of each draw.
        n: Number of signals.
    """

    measured: dict[str, float]
    drawn: dict[str, list[float]]
    n: int

    @classmethod
    def draw(cls, gallery: Gallery, queries: Queries, control: str, seed: int) -> Self:
        """Rank all pictures of the split once, and look up the permuted ones of each draw.

        Args:
            gallery: The candidates.
            queries: The subject's signals and what they showed.
            control: See `controlled`.
            seed: Of the draws, which are the same for all subjects.
        """
        size = len(gallery.rows)
        ranks = ranks_of_all(queries.tokens, gallery.tokens, size, gallery.distractors())
        signal = np.arange(len(queries.seen))
        seeds = (derive_seed(seed, draw) for draw in range(DRAWS))
        found = [
            _measure(ranks[signal, target]) for target in controlled(queries.seen, gallery, control, seeds)
        ]
        drawn = {name: [each[name] for each in found] for name in METRICS}
        return cls(_measure(ranks[signal, queries.seen]), drawn, len(signal))


def _measure(ranks: NDArray[np.int64]) -> dict[str, float]:
    return {name: metric(ranks) for name, metric in METRICS.items()}


def describe_control(kind: str, draws: Sequence[Sequence[ControlDraws]], pool: int) -> dict[str, Any]:
    """Describe what was measured and the control's distribution of it, over all subjects.

    Args:
        kind: Of the control.
        draws: One list a subject, of its cells.
        pool: Number of candidates.

    Returns:
        kind, draws, n, pool, and by metric: measured, mean, low and high (of the middle 95 % of draws), and
        p: the share of draws that are at least as good, the measured value counted among them.
    """
    metrics = {}
    for name in METRICS:
        measured = float(np.mean([np.mean([each.measured[name] for each in group]) for group in draws]))
        drawn = np.mean([np.mean([each.drawn[name] for each in group], axis=0) for group in draws], axis=0)
        as_good = drawn <= measured if name == "mean_rank" else drawn >= measured
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        metrics[name] = {"measured": measured, "mean": float(drawn.mean()), "low": low, "high": high}
        metrics[name]["p"] = (1 + int(as_good.sum())) / (1 + len(drawn))
    n = sum(group[0].n for group in draws)
    return {"kind": kind, "draws": DRAWS, "n": n, "pool": pool, "metrics": metrics}
