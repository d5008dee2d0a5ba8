"""Windows that slide over a signal: where they begin, and which samples they hold."""

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import RecipeError

CLOSE_MS = 1e-6
"""Times closer than this are one: above the rounding of seconds to milliseconds."""


def window_starts(
    times_ms: NDArray[np.floating], width_ms: float, step_ms: float, key: str = "sliding"
) -> list[float]:
    """List where windows begin: from the first sample, as long as they end within the signal.

    Args:
        times_ms: [T].
        width_ms: Of each window.
        step_ms: From window to window.
        key: The block of the recipe that the width is from, for the error.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    step = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    last = times_ms[-1] + step - width_ms
    if last < times_ms[0] - CLOSE_MS:
        raise RecipeError(
            f"{key}.width_ms {width_ms:g} is wider than the signal "
            f"({times_ms[0]:g} to {times_ms[-1] + step:g} ms)",
            "take a narrower window",
        )
    return list(np.arange(times_ms[0], last + CLOSE_MS, step_ms))


def inside(times_ms: NDArray[np.floating], start_ms: float, width_ms: float) -> NDArray[np.bool_]:
    """Mark the samples of a window: [T]."""
    found: NDArray[np.bool_] = times_ms >= start_ms - CLOSE_MS
    return found & (times_ms < start_ms + width_ms - CLOSE_MS)
