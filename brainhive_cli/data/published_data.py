"""What the publishers of data sets say of them: what is known before any file is here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Published:
    """What is known of a data set.

    Attributes:
        stimuli: How many pictures or clips each split has.
        voxels: How many voxels each subject has, V.
        frames: Frames of each clip; None where stimuli are pictures.
        captions: Captions of each stimulus.
    """

    stimuli: Mapping[str, int]
    voxels: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    frames: int | None = None
    captions: int = 0


PUBLISHED = {
    "things-eeg": Published({"train": 16_540, "test": 200}),
    "things-meg": Published({"train": 19_848, "test": 200}),
    "imagenet": Published({"train": 1_281_167, "validation": 50_000, "test": 100_000}),
    # Allen et al. 2022; voxels of nsdgeneral in func1pt8mm
    "nsd": Published(
        {"train": 72_000, "test": 1_000},
        {1: 15724, 2: 14278, 3: 15226, 4: 13153, 5: 13039, 6: 17907, 7: 12682, 8: 14386},
        captions=5,
    ),
    # gongzx/cc2017_dataset: tensors [N, 2, V] and [N, 10, V] of responses, [N, 6, 3, 224, 224] of frames
    "cc2017": Published({"train": 4_320, "test": 1_200}, {1: 13447, 2: 14828, 3: 9114}, frames=6, captions=1),
}
"""By the name of the data set."""
