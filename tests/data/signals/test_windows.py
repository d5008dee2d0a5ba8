"""Windows lie within the signal."""

import numpy as np
import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.signals.selection import inside, window_starts


def test_windows_lie_within_the_signal():
    times_ms = np.arange(0, 1000, 4.0)

    starts = window_starts(times_ms, 100, 50)

    assert starts == pytest.approx(np.arange(0, 901, 50))
    assert window_starts(times_ms, 1000, 50) == pytest.approx([0])
    assert [inside(times_ms, start, 100).sum() for start in starts] == [25] * 19
    with pytest.raises(RecipeError, match=r"sliding.width_ms 1001 is wider than the signal \(0 to 1000 ms\)"):
        window_starts(times_ms, 1001, 50)
