"""Simulated fMRI of somebody looking at pictures: one response a voxel and trial, and much noise.

What a picture looks like (low-level features) drives early visual regions, what it means (semantic features)
higher ones. Subjects share the latent responses of a region; which voxels answer to them, and how many there
are, is each subject's own. The model is fixed: nothing is fitted to any data.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.demo.simulation import Floats

PROVENANCE = "simulated by brainhive_cli.demo.voxels: no brain was recorded"
"""Goes into every file that holds such a signal, and with every figure made of it."""
UNIT = "noise sd"


class Region(NamedTuple):
    """A region of visual cortex.

    Attributes:
        voxels: How many a subject has at least.
        low_level: Share of the variance of its responses that low-level features drive; meaning drives the
            rest.
    """

    voxels: int
    low_level: float


OVERLAP = 0.2
"""Share of V2's variance that meaning drives, and of LOC's that looks drive: no stream has one kind alone."""
REGIONS = {
    "V1": Region(48, 1.0),
    "V2": Region(40, 1 - OVERLAP),
    "LOC": Region(40, OVERLAP),
    "FFA": Region(32, 0.0),
}
GROUPS = {"early": ("V1", "V2"), "higher": ("LOC", "FFA")}
"""Regions that lie within others: a voxel may belong to several."""
LATENTS = 32  # responses of a region that subjects share
SPREAD = 16  # a subject's region has up to so many voxels more than `Region.voxels`
GAIN = 0.7  # typical size of a response; the noise of a single trial has standard deviation 1
MISSED = 0.25  # chance that a picture was shown once less than planned, and as much for every further time
COMMON = 0.3  # share of the noise's variance that all voxels of a subject have in common
_MODEL_SEED = 20260207


def sizes(subject: int) -> dict[str, int]:
    """Count the voxels of a subject's regions; neighbouring subjects differ."""
    return {
        name: region.voxels + (7 * subject + 3 * number) % SPREAD
        for number, (name, region) in enumerate(REGIONS.items())
    }


def regions(subject: int) -> dict[str, NDArray[np.bool_]]:
    """Mask each region among a subject's voxels: [V] by name."""
    found = sizes(subject)
    owner = np.repeat(list(found), list(found.values()))  # [V]
    masks = {name: owner == name for name in found}
    return masks | {name: np.isin(owner, members) for name, members in GROUPS.items()}


def simulate(
    low: NDArray[Any],
    semantic: NDArray[Any],
    subject: int,
    repetitions: int,
    seed: int,
    noise: float = 1.0,
    items: Sequence[int] | None = None,
) -> Floats:
    """Simulate a subject's responses to pictures; arguments as `demo.simulation.simulate`.

    Returns:
        [N, R, V, 1] in standard deviations of a single trial's noise.
    """
    evoked = np.concatenate(
        [_respond(name, low, semantic, subject, count) for name, count in sizes(subject).items()], axis=1
    )  # [N, V]
    common = np.random.default_rng((_MODEL_SEED, subject)).standard_normal(evoked.shape[1])  # [V]
    signal = np.empty((len(low), repetitions, evoked.shape[1], 1), np.float32)
    for row, item in enumerate(range(len(low)) if items is None else items):
        for repetition in range(repetitions):
            random = np.random.default_rng((_MODEL_SEED, seed, subject, item, repetition))
            own, shared = random.standard_normal(evoked.shape[1]), random.standard_normal()
            drawn = (1 - COMMON) ** 0.5 * own + COMMON**0.5 * shared * common
            signal[row, repetition, :, 0] = evoked[row] + noise * drawn
    return signal


def repetitions(subject: int, pictures: int, planned: int, seed: int) -> NDArray[np.int64]:
    """Draw how often each picture was shown, [N]: `planned` times or less, once at least."""
    random = np.random.default_rng((_MODEL_SEED, seed, subject))
    return np.maximum(planned + 1 - random.geometric(1 - MISSED, pictures), 1)


def _respond(
    name: str, low: NDArray[Any], semantic: NDArray[Any], subject: int, voxels: int
) -> NDArray[np.float64]:
    """Respond to pictures without noise: [N, V of the region]."""
    number, share = list(REGIONS).index(name), REGIONS[name].low_level
    latents = share**0.5 * _project(low, number, 1) + (1 - share) ** 0.5 * _project(semantic, number, 2)
    tuning = np.random.default_rng((_MODEL_SEED, subject, number)).standard_normal((LATENTS, voxels))
    return GAIN * latents @ tuning / LATENTS**0.5


def _project(features: NDArray[Any], *seeds: int) -> NDArray[np.float64]:
    """Project features [N, F] to latents [N, LATENTS] that are the same for all subjects."""
    weights = np.random.default_rng((_MODEL_SEED, *seeds)).standard_normal((features.shape[1], LATENTS))
    return features @ weights
