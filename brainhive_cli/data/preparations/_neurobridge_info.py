"""The info.json of NeuroBridge's and SAMGA's arrays: their channels, times, rate and normalisation."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores.published_signals import CHANNELS, KEYS

NAME = "info.json"
UNITS = {"mvnn": "whitened", "zscore": "z-score"}
DTYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}
AGAIN = "copy it again with its arrays, or prepare them again"


class ArrayInfo(BaseModel):
    """What NeuroBridge's scripts write for all subjects together; what else it holds is not needed.

    Attributes:
        ch_names: Channels in their order; empty in some files of MEG.
        times: Seconds after the picture's onset; in older files also those before it, which the arrays lack.
        sfreq: Samples a second.
        train_data_shape: Of the array, or in older files of one session; the same in its last two axes.

    Source: github.com/feroooooo/NeuroBridge, preprocess_eeg.py and preprocess_meg.py.
    """

    ch_names: list[str] = []
    times: list[float]
    sfreq: float = Field(gt=0)
    normalization: Literal["mvnn", "zscore", "none"] | None
    precision: Literal["fp16", "fp32", "fp64"] | None = None
    train_data_shape: list[int] = []
    test_data_shape: list[int] = []

    @property
    def unit(self) -> str:
        """Of the signal; empty if it was not normalised."""
        return UNITS.get(self.normalization or "", "")

    def content(self, array: NDArray[Any], split: str) -> dict[str, Any]:
        """Join what it says to an array, as other projects' files have it.

        Raises:
            BrainhiveError: if the array is of another precision, or has other channels or samples.
        """
        expected = DTYPES.get(self.precision or "", str(array.dtype))
        if array.dtype != expected:
            raise BrainhiveError(f"signals are {array.dtype}, {NAME} says {expected}")
        shape: list[int] = getattr(self, f"{split}_data_shape")
        if shape and [*array.shape[-2:]] != shape[-2:]:
            raise BrainhiveError(
                f"signals {[*array.shape]} do not have the channels and samples {shape[-2:]} of {NAME}"
            )
        return {KEYS[2]: array, CHANNELS[0]: self.ch_names, "times": np.array(self.times)}


def info_of(path: Path) -> ArrayInfo | None:
    """Read the info.json of an array, in its folder or in that of all subjects.

    Raises:
        BrainhiveError: if it is damaged, or lacks what is needed.
    """
    places = (folder / NAME for folder in (path.parent, path.parent.parent))
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else documents.read(found, ArrayInfo, AGAIN)
