"""Simulated fMRI of somebody looking at pictures or films: one response a voxel and
trial, and much noise.

What a picture looks like (its coarse pixels) drives early visual regions, what it means
(semantic features) higher ones; of a film, where its thing goes drives MT, what it is
LOC, and the place PPA. The two groups of picture regions carry different things, so
that neither replaces the other: early ones where each colour is, higher ones what the
thing is, and hardly where. A group has few voxels for what it carries, so that a part
of it carries less. Subjects share the latent responses of a region; which voxels answer
to them, and how many there are, is each subject's own. The model is fixed: nothing is
fitted to any data.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from brainhive_cli.core.arrays import Array, Bool, Float64, Int64
from brainhive_cli.demo.pictures import Scene
from brainhive_cli.demo.simulation import Floats, semantic

PROVENANCE = "simulated by brainhive_cli.demo.voxels: no brain was recorded"
"""Goes into every file that holds such a signal, and with every figure made of it."""
UNIT = "noise sd"


GAIN = 0.7
"""Typical size of a response; the noise of a single trial has standard deviation 1."""
LATENTS = 32
"""Responses of a region that subjects share."""


class Region(NamedTuple):
    """A region of visual cortex.

    Attributes:
        voxels: How many a subject has at least.
        drives: Feature > share of the variance of its responses that it drives.
        gain: Typical size of a response.
        latents: Responses that subjects share.
    """

    voxels: int
    drives: Mapping[str, float]
    gain: float = GAIN
    latents: int = LATENTS


class Cortex(NamedTuple):
    """Simulated properties of a brain.

    Attributes:
        regions: By name.
        groups: Regions that lie within others: a voxel may belong to several.
        spread: A subject's region has fewer than so many voxels more than
            `Region.voxels`.
    """

    regions: Mapping[str, Region]
    groups: Mapping[str, tuple[str, ...]]
    spread: int


FEATURES = ("looks", "meaning", "motion", "object", "place")
"""Features that may drive a region; the order seeds the model."""
OVERLAP = 0.05
"""Share of V2's variance that meaning drives, and of LOC's that looks drive."""
# Chosen by ridge regression of the targets of demo-havir: top-1 of latent, image and
# text of two subjects among 100 pictures.                             right voxels
# swapped random
#   as below                                      .22 .84 .96       .09 .28 .30
# .11 .62 .73
#   gain .7, 32 latents, twice the voxels,
#   a fifth of the other kind, looks of the EEG   .16 .72 .80       .11 .43 .53
# .14 .64 .76
PICTURES = Cortex(
    {
        "V1": Region(20, {"looks": 1.0}, gain=1.2, latents=96),
        "V2": Region(
            16, {"looks": 1 - OVERLAP, "meaning": OVERLAP}, gain=1.2, latents=96
        ),
        "LOC": Region(
            20, {"looks": OVERLAP, "meaning": 1 - OVERLAP}, gain=0.8, latents=64
        ),
        "FFA": Region(16, {"meaning": 1.0}, gain=0.8, latents=64),
    },
    {"early": ("V1", "V2"), "higher": ("LOC", "FFA")},
    spread=8,
)
FILM_OVERLAP = 0.2
"""Share of the variance of MT and of LOC that looks drive in films."""
FILMS = Cortex(
    {
        "V1": Region(48, {"looks": 1.0}),
        "MT": Region(40, {"looks": FILM_OVERLAP, "motion": 1 - FILM_OVERLAP}),
        "LOC": Region(40, {"looks": FILM_OVERLAP, "object": 1 - FILM_OVERLAP}),
        "PPA": Region(32, {"place": 1.0}),
    },
    {},
    spread=16,
)
FIELDS = 12
"""Rows and columns of the coarse pixels that early regions answer to."""
MEAN_COLOUR, LOOKS_SCALE = 0.57, 0.166
"""Mean of the demo's pixels, and what brings the looks of its pictures to about unit
variance.
"""
TEXTURE_WEIGHT = 1.2
"""Weight of the texture in what higher regions answer to, where shape and colour have
about 2.
"""
# chance that a picture was shown once less than planned, and as much for every further
# time
MISSED = 0.25
# share of the noise's variance that all voxels of a subject have in common
COMMON = 0.3
_MODEL_SEED = 20260207


def sizes(subject: int, cortex: Cortex = PICTURES) -> dict[str, int]:
    """Count the voxels of a subject's regions; neighbouring subjects differ."""
    return {
        name: region.voxels + (7 * subject + 3 * number) % cortex.spread
        for number, (name, region) in enumerate(cortex.regions.items())
    }


def regions(subject: int, cortex: Cortex = PICTURES) -> dict[str, Bool]:
    """Mask each region among a subject's voxels: [V] by name."""
    counts = sizes(subject, cortex)
    owner = np.repeat(list(counts), list(counts.values()))  # [V]
    masks = {name: owner == name for name in counts}
    return masks | {
        name: np.isin(owner, members) for name, members in cortex.groups.items()
    }


def measure_looks(image: Image.Image) -> Floats:
    """Measure what early regions answer to: the picture in coarse pixels, [F], whatever
    its size.
    """
    coarse = image.convert("RGB").resize((FIELDS, FIELDS), Image.Resampling.BOX)
    pixels = np.asarray(coarse, dtype=np.float32) / 255
    centred: Floats = (LOOKS_SCALE * (pixels - MEAN_COLOUR)).astype(np.float32)
    return centred.ravel()


def measure_meaning(scene: Scene) -> Floats:
    """Measure what higher regions answer to: what a scene shows, with its texture,
    [G].
    """
    return semantic(scene, weights={"texture": TEXTURE_WEIGHT})


def simulate(
    features: Mapping[str, Array],
    subject: int,
    repetitions: int,
    seed: int,
    noise: float = 1.0,
    items: Sequence[int] | None = None,
    cortex: Cortex = PICTURES,
) -> Floats:
    """Simulate a subject's responses to pictures or films.

    Args:
        features: What drives the regions, by one of `FEATURES`: [N, F], rows of about
            unit length.
        subject: Whose brain.
        repetitions: R, how often each stimulus is shown.
        seed: Of the trials; use one for training and another for test.
        noise: Size of the noise, 1 as calibrated.
        items: Number of each stimulus in its split; a trial depends on it, not on what
            else is simulated.
        cortex: What answers to what.

    Returns:
        [N, R, V, 1] in standard deviations of a single trial's noise.
    """
    # responses without noise
    count = len(next(iter(features.values())))
    counts = sizes(subject, cortex)
    responses = [
        _respond(number, region, features, subject, counts[name])
        for number, (name, region) in enumerate(cortex.regions.items())
    ]
    evoked = np.concatenate(responses, axis=1)  # [N, V]

    # noise of each trial, in part common to all voxels
    # [V]
    common = np.random.default_rng((_MODEL_SEED, subject)).standard_normal(
        evoked.shape[1]
    )
    signal = np.empty((count, repetitions, evoked.shape[1], 1), np.float32)
    for row, item in enumerate(range(count) if items is None else items):
        for repetition in range(repetitions):
            random = np.random.default_rng(
                (_MODEL_SEED, seed, subject, item, repetition)
            )
            single = random.standard_normal(evoked.shape[1])
            shared = random.standard_normal()
            drawn = (1 - COMMON) ** 0.5 * single + COMMON**0.5 * shared * common
            signal[row, repetition, :, 0] = evoked[row] + noise * drawn
    return signal


def repetitions(subject: int, pictures: int, planned: int, seed: int) -> Int64:
    """Draw how often each picture was shown, [N]: `planned` times or less, once at
    least.
    """
    random = np.random.default_rng((_MODEL_SEED, seed, subject))
    return np.maximum(planned + 1 - random.geometric(1 - MISSED, pictures), 1)


def _respond(
    number: int,
    region: Region,
    features: Mapping[str, Array],
    subject: int,
    voxels: int,
) -> Float64:
    """Respond to stimuli without noise: [N, V of the region]."""
    # project features to latents that are the same for all subjects, [N, latents]
    latents: Any = 0
    for name, share in region.drives.items():
        random = np.random.default_rng((_MODEL_SEED, number, 1 + FEATURES.index(name)))
        weights = random.standard_normal((features[name].shape[1], region.latents))
        latents = latents + share**0.5 * (features[name] @ weights)

    # the voxels of the subject answer to mixtures of latents
    tuning = np.random.default_rng((_MODEL_SEED, subject, number)).standard_normal(
        (region.latents, voxels)
    )
    return region.gain * latents @ tuning / region.latents**0.5
