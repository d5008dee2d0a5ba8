"""Bad channels made of the good ones around them, by spherical splines as mne makes them.

Source: Perrin et al. 1989; `mne.io.Raw.interpolate_bads`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError

STIFFNESS = 4
TERMS = 50
"""Of Perrin's series, as mne has it."""
REGULARISATION = 1e-5
"""mne's, of bad channels."""
LEAST = 4
"""Channels that a sphere is fitted to."""
Floats = NDArray[np.floating]


def fit_origin(names: Sequence[str], positions: Floats) -> Floats:
    """Fit a sphere to electrodes [C, 3] in the head frame, in metres; return its centre [3]."""
    import mne

    montage = mne.channels.make_dig_montage(dict(zip(names, positions, strict=True)), coord_frame="head")
    info = mne.create_info(list(names), 100.0, "eeg").set_montage(montage, verbose="ERROR")
    try:
        _, origin, _ = mne.bem.fit_sphere_to_headshape(info, dig_kinds="eeg", units="m", verbose="ERROR")
    except (ValueError, RuntimeError) as error:
        raise BrainhiveError(
            f"the positions of {len(names)} channels do not lie on a head: {error}",
            "preparation.interpolate=false",
        ) from error
    return np.asarray(origin)


def spline_weights(known: Floats, unknown: Floats, regularisation: float = REGULARISATION) -> Floats:
    """Weigh the signals at known positions by which they give those at others.

    Args:
        known: [C, 3] from the centre of the head.
        unknown: [M, 3], likewise.
        regularisation: Added to the diagonal.

    Returns:
        [M, C]; rows sum to 1.
    """
    orders = np.arange(1, TERMS + 1)
    series = [0, *(2 * orders + 1) / (orders**STIFFNESS * (orders + 1.0) ** STIFFNESS * 4 * np.pi)]
    start, goal = (at / np.linalg.norm(at, axis=1, keepdims=True) for at in (known, unknown))
    count = len(start)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = legval(start @ start.T, series) + regularisation * np.eye(count)
    system[count, count] = 0
    to_goal = np.hstack([legval(goal @ start.T, series), np.ones((len(goal), 1))])
    weights: Floats = (to_goal @ np.linalg.pinv(system))[:, :count]
    return weights


def fill_bad(
    epochs: NDArray[np.float32], names: Sequence[str], bad: Sequence[str], positions: Floats
) -> NDArray[np.float32]:
    """Put interpolated channels between the good ones.

    All steps from a recording to trials are linear and the same for all channels: the trials are as if the
    recording had been interpolated.

    Args:
        epochs: [n, G, T] of the good channels, in the order of `names`.
        names: [C] of all.
        bad: Those that are interpolated.
        positions: [C, 3] of all, in the head frame.

    Returns:
        [n, C, T].
    """
    is_bad = np.isin(names, bad)
    if (good := int((~is_bad).sum())) < LEAST:
        raise BrainhiveError(
            f"{good} good channels are too few to interpolate {', '.join(bad)}",
            "preparation.interpolate=false, or leave out this recording",
        )
    centred = positions - fit_origin(names, positions)
    weights = spline_weights(centred[~is_bad], centred[is_bad]).astype(np.float32)
    whole = np.empty((len(epochs), len(names), epochs.shape[2]), np.float32)
    whole[:, ~is_bad], whole[:, is_bad] = epochs, weights @ epochs
    return whole
