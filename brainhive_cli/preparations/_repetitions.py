"""Which trials of a stimulus are kept, as the published preparations draw them."""

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.seeds import shuffled
from brainhive_cli.stores.sliced import grouped


def drawn(stimuli: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw `count` trials of each stimulus, as THINGS-EEG2's authors, NICE and AlignVis do.

    Args:
        stimuli: [trials], the stimulus of each trial, in the order of time.
        count: Trials to keep of each stimulus.
        seed: Of a generator that is made anew for each stimulus.

    Returns:
        [stimuli × count], the trials of each stimulus in the order drawn, the stimuli in ascending order. Of
        a stimulus with fewer trials all are returned.
    """
    _, table, counts = grouped(stimuli)
    return np.concatenate(
        [trials[shuffled(n, seed)[:count]] for trials, n in zip(table, counts.tolist(), strict=True)]
    )
