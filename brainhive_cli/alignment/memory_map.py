"""Whether training signals are held in memory, or stay on disk and are mapped."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch

from brainhive_cli.core import console
from brainhive_cli.data.device import free_bytes
from brainhive_cli.signals.selection import Selection


def is_memory_mapped(
    setting: Literal["auto", "yes", "no"],
    selections: Sequence[Selection],
    with_single: bool,
    device: torch.device,
    processes: int,
) -> bool:
    """Decide whether signals stay on disk.

    Args:
        setting: `train.memory_map`; auto: they do when they need more than half of the free memory.
        selections: The signals of each subject.
        with_single: Whether single trials are held next to averages.
        device: Where signals would be held.
        processes: How many processes would each hold them.
    """
    if setting != "auto":
        return setting == "yes"
    needed = processes * sum(_bytes(each.shape, with_single) for each in selections)
    is_mapped = needed > free_bytes(device) / 2
    if is_mapped:
        console.say(f"the signals need {needed / processes / 1e9:.1f} GB, so they stay on disk")
    return is_mapped


def _bytes(shape: tuple[int, int, int, int], with_single: bool) -> int:
    count, repetitions, *rest = shape
    return 4 * count * (1 + repetitions * with_single) * prod(rest)
