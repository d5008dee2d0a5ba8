"""Descriptions of metrics that compare stimuli with their reconstructions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Medium = Literal["picture", "clip"]
"""Kind of media: pictures [B, 3, H, W] or clips [B, F, 3, H, W]."""


@dataclass(frozen=True)
class MetricScale:
    """Meaning of the values of a metric.

    Attributes:
        low: Smallest possible value, or None if there is no limit.
        high: Largest possible value, or None if there is no limit.
        chance: Expected value of guessing, or None if the metric has no chance level.
        pool: Number of candidates that each item is compared with. None if it is all
            items, or if the metric has no chance level.
        sorts_items: True if tables sort items by the metric, from best to worst.
    """

    low: float | None = -1.0
    high: float | None = 1.0
    chance: float | None = None
    pool: int | None = None
    sorts_items: bool = True


@dataclass(frozen=True)
class MetricPart:
    """Metric with a value for each reconstruction.

    Attributes:
        features: Function that computes features [B, …] of media with values in 0..1,
            on the device of the media.
        compare: Function `(stimuli, generated, rows)` that computes values [B] in
            float64:

            - `stimuli`: features [N, …] of the stimuli.
            - `generated`: features [B, …] of the reconstructions, on the same device.
            - `rows`: row [B] in `stimuli` of each reconstruction's stimulus, on the
              CPU.
        medium: Kind of media that are compared.
        scale: Limits and chance level of the values.
        is_identification: True if a reconstruction is distinguished from
            reconstructions of other stimuli, so that a single reconstruction has no
            value.
        takes_originals: True if `features` takes a sequence of media with the sizes of
            their files, not a tensor of resized pictures.
        is_reference_free: True if a stimulus has a value without a reconstruction, such
            as the similarity between the frames of a clip.
    """

    features: Callable[..., Tensor]
    compare: Callable[[Tensor, Tensor, Tensor], Tensor]
    medium: Medium = "picture"
    scale: MetricScale = MetricScale()
    is_identification: bool = False
    takes_originals: bool = False
    is_reference_free: bool = False
