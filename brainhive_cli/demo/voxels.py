"""Simulated fMRI of a person who looks at pictures or films.

- Pictures: coarse pixels (looks) drive early regions, semantic features (meaning)
  higher regions. Early regions carry colours by position, higher regions carry the
  object with hardly any position, so that neither group replaces the other.
- Films: the direction of motion drives MT, the object LOC, the place PPA.
- Subjects share the latent responses of a region, but not the number and tuning of
  voxels. Groups have few voxels, so that a part of a group carries less.

The model is not fitted to data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from brainhive_cli.core.base import Array, Bool, Float32, Float64, Int64
from brainhive_cli.demo import simulation
from brainhive_cli.demo.pictures import Scene

PROVENANCE = "simulated by brainhive_cli.demo.voxels: no brain was recorded"
"""Note in every file with simulated signals, and with every figure made from them."""
UNIT = "noise sd"


class Region(NamedTuple):
    """Region of visual cortex.

    Attributes:
        min_voxels: Smallest number of voxels of a subject.
        variance_shares: Share of the response variance that each feature drives.
        gain: Typical size of a response.
        n_latents: Number of latent responses, which subjects share.
    """

    min_voxels: int
    variance_shares: Mapping[str, float]
    # Typical size of a response in standard deviations of a single trial's noise.
    gain: float = 0.7
    # Number of latent responses of a region, which subjects share.
    n_latents: int = 32


class Cortex(NamedTuple):
    """Simulated brain.

    Attributes:
        regions: Regions by name.
        groups: Names of the regions in each group.
        voxel_spread: Subjects have up to `voxel_spread` - 1 voxels more than
            `Region.min_voxels`.
    """

    regions: Mapping[str, Region]
    groups: Mapping[str, tuple[str, ...]]
    voxel_spread: int


FEATURES = ("looks", "meaning", "motion", "object", "place")
"""Features that can drive a region. Their order seeds the model."""
OVERLAP = 0.05
"""Share of V2's variance that meaning drives, and of LOC's that looks drive."""
# Chosen by ridge regression to the targets of demo-havir, with the top-1 accuracy for
# latent, image and text, over two subjects and 100 pictures:
#   voxels                                       right         swapped       random
#   as below                                     .22 .84 .96   .09 .28 .30   .11 .62 .73
#   gain .7, 32 latents, twice the voxels,
#   a fifth of the other kind, looks of the EEG  .16 .72 .80   .11 .43 .53   .14 .64 .76
PICTURES = Cortex(
    {
        "V1": Region(20, {"looks": 1.0}, gain=1.2, n_latents=96),
        "V2": Region(
            16, {"looks": 1 - OVERLAP, "meaning": OVERLAP}, gain=1.2, n_latents=96
        ),
        "LOC": Region(
            20, {"looks": OVERLAP, "meaning": 1 - OVERLAP}, gain=0.8, n_latents=64
        ),
        "FFA": Region(16, {"meaning": 1.0}, gain=0.8, n_latents=64),
    },
    {"early": ("V1", "V2"), "higher": ("LOC", "FFA")},
    voxel_spread=8,
)
FILM_OVERLAP = 0.2
"""Share of the variance of MT and LOC that looks drive in films."""
FILMS = Cortex(
    {
        "V1": Region(48, {"looks": 1.0}),
        "MT": Region(40, {"looks": FILM_OVERLAP, "motion": 1 - FILM_OVERLAP}),
        "LOC": Region(40, {"looks": FILM_OVERLAP, "object": 1 - FILM_OVERLAP}),
        "PPA": Region(32, {"place": 1.0}),
    },
    {},
    voxel_spread=16,
)
_MODEL_SEED = 20260207


def count_voxels(subject: int, cortex: Cortex = PICTURES) -> dict[str, int]:
    """Count the voxels of a subject's regions, by name."""
    counts = {}
    for number, (name, region) in enumerate(cortex.regions.items()):
        n_more_voxels = (7 * subject + 3 * number) % cortex.voxel_spread
        counts[name] = region.min_voxels + n_more_voxels
    return counts


def make_region_masks(subject: int, cortex: Cortex = PICTURES) -> dict[str, Bool]:
    """Make a mask [V] over a subject's voxels for each region and group, by name."""
    counts = count_voxels(subject, cortex)
    region_of_voxel = np.repeat(list(counts), list(counts.values()))  # [V]
    masks = {name: region_of_voxel == name for name in counts}
    for group, members in cortex.groups.items():
        masks[group] = np.isin(region_of_voxel, members)
    return masks


def measure_looks(image: Image.Image) -> Float32:
    """Measure the features [F] of early regions: coarse pixels of a picture."""
    # Rows and columns of the coarse pixels that drive early regions.
    grid_size = 12
    coarse = image.convert("RGB").resize((grid_size, grid_size), Image.Resampling.BOX)
    pixels = np.asarray(coarse, dtype=np.float32) / 255
    # Factor that gives the looks of the demo's pictures about unit length.
    looks_scale = 0.166
    # Mean of the demo's pixels in 0..1.
    centred: Float32 = (looks_scale * (pixels - 0.57)).astype(np.float32)
    return centred.ravel()


def measure_meaning(scene: Scene) -> Float32:
    """Measure the features [F] of higher regions: the content of a scene."""
    # Weight of the texture in the meaning. Shape and colour have about 2.
    return simulation.measure_meaning(scene, weights={"texture": 1.2})


def simulate(
    features: Mapping[str, Array],
    subject: int,
    repetitions: int,
    seed: int,
    noise: float = 1.0,
    items: Sequence[int] | None = None,
    cortex: Cortex = PICTURES,
) -> Float32:
    """Simulate a subject's responses to pictures or films.

    Args:
        features: Features [N, F] that drive the regions, by names in `FEATURES`. Rows
            have about unit length.
        subject: Number of the subject.
        repetitions: Number of repetitions R of each stimulus.
        seed: Seed of the trials. Training and test need different seeds.
        noise: Standard deviation of the noise. The model is calibrated for 1.
        items: Number [N] of each stimulus in its split, which seeds its trials, or None
            for 0, 1, …
        cortex: Regions and the features that drive them.

    Returns:
        Signals [N, R, V, 1] in standard deviations of a single trial's noise.
    """
    # responses without noise
    n_items = len(next(iter(features.values())))
    n_voxels_of = count_voxels(subject, cortex)
    region_responses = []
    for number, (name, region) in enumerate(cortex.regions.items()):
        region_responses.append(
            _simulate_region(number, region, features, subject, n_voxels_of[name])
        )
    responses = np.concatenate(region_responses, axis=1)  # [N, V]
    n_voxels = responses.shape[1]

    # noise of each trial, partly common to all voxels
    subject_rng = np.random.default_rng((_MODEL_SEED, subject))
    common_pattern = subject_rng.standard_normal(n_voxels)  # [V]
    signal = np.empty((n_items, repetitions, n_voxels, 1), np.float32)
    # Share of the noise variance that all voxels of a subject have in common.
    common_noise_share = 0.3
    for row, item in enumerate(range(n_items) if items is None else items):
        for repetition in range(repetitions):
            rng = np.random.default_rng((_MODEL_SEED, seed, subject, item, repetition))
            voxel_draws = rng.standard_normal(n_voxels)
            common_draw = rng.standard_normal()
            voxel_noise = (1 - common_noise_share) ** 0.5 * voxel_draws
            common_noise = common_noise_share**0.5 * common_draw * common_pattern
            trial_noise = voxel_noise + common_noise
            signal[row, repetition, :, 0] = responses[row] + noise * trial_noise
    return signal


def draw_repetitions(subject: int, n_pictures: int, n_planned: int, seed: int) -> Int64:
    """Draw how often each picture was shown [N], from 1 to `n_planned` times."""
    rng = np.random.default_rng((_MODEL_SEED, seed, subject))
    # Probability that a planned repetition is missed, and each further one as well.
    n_missed = rng.geometric(1 - 0.25, n_pictures)
    return np.maximum(n_planned + 1 - n_missed, 1)


def _simulate_region(
    number: int,
    region: Region,
    features: Mapping[str, Array],
    subject: int,
    n_voxels: int,
) -> Float64:
    """Simulate the responses [N, V] of a region without noise.

    Args:
        number: Number of the region in its cortex, which seeds its weights.
        region: Region.
        features: Features [N, F] by name.
        subject: Number of the subject.
        n_voxels: Number of voxels V.
    """
    # project the features to latents, with weights that subjects share
    latents: Any = 0  # [N, latents]
    for name, share in region.variance_shares.items():
        seed = (_MODEL_SEED, number, 1 + FEATURES.index(name))
        shape = (features[name].shape[1], region.n_latents)
        weights = np.random.default_rng(seed).standard_normal(shape)
        latents = latents + share**0.5 * (features[name] @ weights)

    # the subject's voxels respond to mixtures of latents
    rng = np.random.default_rng((_MODEL_SEED, subject, number))
    tuning = rng.standard_normal((region.n_latents, n_voxels))
    return region.gain * latents @ tuning / region.n_latents**0.5
