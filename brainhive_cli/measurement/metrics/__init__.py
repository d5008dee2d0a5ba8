"""Metric parts: features of media, and a comparison of what was seen with what was
made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Medium = Literal["picture", "clip"]
"""Pictures [B, 3, H, W], or clips [B, F, 3, H, W]."""


@dataclass(frozen=True)
class MetricScale:
    """Meaning of the values of a metric.

    Attributes:
        low: The least value; None where there is none.
        high: The largest.
        chance: Value expected of guessing; None if the metric has none.
        pool: Candidates that each item is compared with; None: all items, if there is a
            chance level.
        ranks: Whether items are sorted by it, from the best to the worst.
    """

    low: float | None = -1.0
    high: float | None = 1.0
    chance: float | None = None
    pool: int | None = None
    ranks: bool = True


@dataclass(frozen=True)
class MetricPart:
    """A metric of single items, ready to compute.

    Attributes:
        features: Media in 0..1 to what is compared, [B, …] on their device. Parts with
            the same `features` share its results.
        compare: `(seen, generated, rows)` to values [B], float64: features of N true
            media [N, …], those of B generated ones [B, …] on the same device, and on
            the CPU the row of each one's stimulus in `seen` [B].
        medium: What it compares.
        scale: What its values mean.
        is_identification: Whether an item is distinguished from others, so that one
            alone has no value.
        takes_originals: Whether `features` takes a sequence of pictures as they are on
            disk, and not a tensor at the protocol's size.
        is_of_one: Whether it describes media by themselves, so that the stimuli have a
            value of their own.
    """

    features: Callable[..., Tensor]
    compare: Callable[[Tensor, Tensor, Tensor], Tensor]
    medium: Medium = "picture"
    scale: MetricScale = MetricScale()
    is_identification: bool = False
    takes_originals: bool = False
    is_of_one: bool = False
