"""Values of maps of voxels, read from their files."""

from pathlib import Path

import nibabel
import numpy as np

from brainhive_cli.core.runs.artifacts import BrainMap


def read_drawn_values(brain_map: BrainMap, folder: Path) -> np.ndarray:
    """Read the values of a map that are drawn, which reach its threshold.

    Args:
        brain_map: Map of a run or page.
        folder: Folder of the run or page.
    """
    values = nibabel.load(folder / brain_map.volume).get_fdata()
    is_drawn = np.isfinite(values)
    if brain_map.threshold is not None:
        is_drawn &= np.abs(values) >= brain_map.threshold
    return values[is_drawn]
