"""Names and positions of electrodes, where channels differ in case."""

from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.electrodes import name_electrodes

mne = pytest.importorskip("mne")


def put_on(*names: str) -> list[bool]:
    """Put a cap on channels; whether each has got a position."""
    raw = mne.io.RawArray(
        np.zeros((len(names), 10)), mne.create_info(list(names), 100.0, "eeg"), verbose="ERROR"
    )
    name_electrodes(raw, Path("a.fif"), {}, "easycap-M1")
    return [bool(np.isfinite(channel["loc"][:3]).all()) for channel in raw.info["chs"]]


def test_the_channel_with_the_exact_name_gets_the_position_of_the_cap():
    assert put_on("oz", "Oz", "CZ") == [False, True, True]
    with pytest.raises(RecipeError, match=r"a\.fif has 2 names that may be 'Oz': OZ, oz"):
        put_on("OZ", "oz")
