"""Mapping of the channels of a recording to those of a model of another cap, by splines
or by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError, find_rows
from brainhive_cli.data.signals.spaces import Sensors, look_up_positions
from brainhive_cli.models.signal_spec import MEG

ChannelChoice = Literal["none", "spline", "common"]
"""Channels that a recording lacks are refused, interpolated between its sensors, or
filled with the mean.
"""
ALPHA = 1e-5
"""Regularisation of mne where it interpolates bad channels; `Raw.interpolate_to` has
0.
"""
FEWEST_SENSORS = 4
"""Positions that a sphere is fitted to, at least: it has four unknowns."""
RADII_M = (0.05, 0.15)
"""Radii of spheres around a head, newborns' included; positions in millimetres give
others.
"""
WORDS = {"spline": "splines", "common": "name"}


@dataclass(frozen=True)
class ChannelMapping:
    """Channels of a model as weighted sums of those of a recording.

    Attributes:
        kind: How the weights were made.
        names: [C] of the model.
        sources: [C'] names of the recorded channels that are read.
        matrix: [C, C'] weights; a row of zeros is a channel that is filled with the
            mean.
        shared: How many of the C channels were recorded.
    """

    kind: ChannelChoice
    names: tuple[str, ...]
    sources: tuple[str, ...]
    matrix: Float32
    shared: int

    @property
    def description(self) -> str:
        """Description for protocols."""
        return (
            f"channels mapped by {WORDS[self.kind]}: {self.shared} of "
            f"{len(self.matrix)} recorded"
        )

    def __call__(self, signal: Float32, mean: Float32 | None = None) -> Float32:
        """Map [..., C', T] to [..., C, T]; what has no source is the mean [C, 1 or T],
        or zero.
        """
        mapped = self.matrix @ signal
        if mean is not None:
            # channels without a source are the mean, which the normaliser maps to 0
            is_empty = ~self.matrix.any(1)
            mapped[..., is_empty, :] = mean[is_empty]
        return mapped


def map_channels(
    kind: ChannelChoice,
    names: Sequence[str],
    positions: ArrayLike | None,
    recorded: Sensors,
    where: str,
) -> ChannelMapping:
    """Map the channels of a recording to those of a model; channels of equal names are
    copied.

    Args:
        kind: `spline`: other channels are interpolated between all sensors whose
            position is known. `common`: they are filled with the mean of the signals
            that the normalisation was fitted on, or zero.
        names: [C] channels of the model.
        positions: [C, 3] of these in the head frame, in metres; None: by name in the
            10-05 system.
        recorded: Sensors of the recording; without positions they are those of the
            10-05 system, too.
        where: What the recording is, for errors.

    Raises:
        BrainhiveError: if the two have no channel in common, a position is not known,
            or sensors are MEG's.
    """
    # the recorded channel with the name of each of the model's, and None where there is
    # none
    shared = find_rows(names, recorded.names, where)
    chosen = sorted(row for row in shared if row is not None)
    count = len(chosen)
    matrix = np.zeros((len(names), len(recorded.names)))
    if kind == "spline":
        # positions of both, from the centre of the head
        if meg := next(filter(MEG.match, [*names, *recorded.names]), None):
            raise BrainhiveError(
                f"{where}: splines are of EEG, and {meg} is a sensor of MEG",
                "channel_mapping=common",
            )
        to_m = _locate(names, positions, "the model", is_whole=True)
        from_m = _locate(
            recorded.names, recorded.positions, where, recorded.positions is None
        )
        chosen = np.flatnonzero(np.isfinite(from_m).all(1)).tolist()
        origin = fit_head_centre(from_m[chosen], where)
        matrix[:, chosen] = compute_spline_weights(
            from_m[chosen] - origin, to_m - origin
        )
    elif not chosen:
        raise BrainhiveError(
            f"{where} has no channel of the model", "use a data set of the same sensors"
        )

    # equal names are copied
    for row, column in enumerate(shared):
        if column is not None:
            matrix[row] = np.arange(len(recorded.names)) == column

    # recorded channels without weight are not read
    read = np.any(matrix, 0)
    sources = tuple(compress(recorded.names, read))
    return ChannelMapping(
        kind, tuple(names), sources, matrix[:, read].astype(np.float32), count
    )


def _locate(
    names: Sequence[str], positions: ArrayLike | None, whose: str, is_whole: bool
) -> Float64:
    """Return positions [C, 3] in the head frame, or those of the 10-05 system; NaN
    where none is known.
    """
    located = (
        look_up_positions(names)
        if positions is None
        else np.array(positions, np.float64)
    )
    located[~located.any(1)] = np.nan  # where files have no position, they have zeros
    if is_whole and not np.isfinite(located).all():
        unknown = [*compress(names, np.any(np.isnan(located), 1))]
        raise BrainhiveError(
            f"no position on the head is known of {', '.join(unknown[:3])} of {whose}",
            "prepare with positions (preparation.montage), without these channels, "
            "or channel_mapping=common",
        )
    return located


def fit_head_centre(positions: Float64, where: str = "the recording") -> Float64:
    """Fit a sphere to sensors by least squares, and return its centre [3].

    Sensors in the face are left out, as mne does.

    Args:
        positions: [C, 3] in the head frame, in metres.
        where: Whose, for errors.

    Raises:
        BrainhiveError: if they do not lie around a head.
    """
    # |p|^2 = 2 p c + k, with the centre c and k = r^2 - |c|^2
    scalp = positions[~((positions[:, 2] < -1e-6) & (positions[:, 1] > 1e-6))]
    system = np.column_stack([2 * scalp, np.ones(len(scalp))])
    solution = np.linalg.lstsq(system, np.square(scalp).sum(1), rcond=1e-6)[0]
    centre = solution[:3]
    radius_m = np.sqrt(max(0.0, solution[3] + centre @ centre))
    # too few sensors, or positions in another unit than metres
    if len(scalp) < FEWEST_SENSORS or not RADII_M[0] < radius_m < RADII_M[1]:
        raise BrainhiveError(
            f"{where}: positions of {len(scalp)} sensors do not lie around a head "
            f"(radius {radius_m:.3g} m)",
            "positions in metres of sensors all over the head; or "
            "channel_mapping=common",
        )
    return centre


def compute_spline_weights(
    from_positions: Float64, to_positions: Float64, alpha: float = ALPHA
) -> Float64:
    """Compute how potentials elsewhere on the head follow from those at sensors, by
    spherical splines.

    Args:
        from_positions: [C', 3] of the sensors, from the centre of the head
            (`fit_head_centre`); any unit.
        to_positions: [C, 3] of the positions to interpolate at.
        alpha: Regularisation, added to the diagonal.

    Returns:
        [C, C'], whose rows add up to 1.

    Source: Perrin et al. 1989, equations 1 to 3.
    """
    # what all its interpolations use
    from mne.channels.interpolation import _make_interpolation_matrix

    weights: Float64 = _make_interpolation_matrix(from_positions, to_positions, alpha)
    return weights
