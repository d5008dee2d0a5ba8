"""Mapping of the channels of a recording to the channels of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from brainhive_cli.core.base import BrainhiveError, Float32, Float64, find_rows
from brainhive_cli.data.signals.spaces import Sensors, Voxels, look_up_positions
from brainhive_cli.models import MEG_NAME_PATTERN

ChannelChoice = Literal["none", "spline", "common"]
"""Treatment of channels that a recording lacks: an error, interpolation between its
sensors, or the mean.
"""
SPLINE_REGULARISATION = 1e-5
"""Regularisation of MNE for bad channels. `Raw.interpolate_to` has 0."""


@dataclass(frozen=True)
class ChannelMapping:
    """Channels of a model as weighted sums of recorded channels.

    Attributes:
        kind: Treatment of channels that the recording lacks.
        names: Names [C] of the channels of the model.
        sources: Names [C'] of the recorded channels that are read.
        matrix: Weights [C, C']. A channel whose row is zero is filled with the mean.
        shared: Number of the C channels that were recorded.
    """

    kind: ChannelChoice
    names: tuple[str, ...]
    sources: tuple[str, ...]
    matrix: Float32
    shared: int

    @property
    def description(self) -> str:
        """Description for protocols."""
        method_names = {"spline": "splines", "common": "name"}
        return (
            f"channels mapped by {method_names[self.kind]}: {self.shared} of "
            f"{len(self.matrix)} recorded"
        )

    def __call__(self, signal: Float32, mean: Float32 | None = None) -> Float32:
        """Map signals [..., C', T] to [..., C, T].

        Channels without a source become the mean [C, 1] or [C, T], or zero without one.
        """
        mapped = self.matrix @ signal
        if mean is not None:
            # the normaliser maps the mean to 0
            is_empty = ~self.matrix.any(1)
            mapped[..., is_empty, :] = mean[is_empty]
        return mapped


def map_channels(
    kind: ChannelChoice,
    names: Sequence[str],
    positions: ArrayLike | None,
    recorded: Sensors | Voxels,
    recording_name: str,
) -> ChannelMapping:
    """Map the channels of a recording to the channels of a model.

    Channels of equal names are copied. The other channels depend on `kind`.

    Args:
        kind: `spline` interpolates between all sensors with a known position. `common`
            fills with the mean of the training signals, or zero without normalisation.
        names: Channels [C] of the model.
        positions: Their positions [C, 3] in the head frame in metres, or None for the
            positions in the 10-05 system.
        recorded: Sensors of the recording. If their positions are None, they are looked
            up in the same way.
        recording_name: Name of the recording, for errors.

    Raises:
        BrainhiveError: if no channel is shared (`common`), or a position is unknown or
            a sensor is of MEG (`spline`).
    """
    # row of each model channel in the recording, or None
    shared_rows = find_rows(names, recorded.names, recording_name)
    n_shared = len(names) - shared_rows.count(None)
    matrix = np.zeros((len(names), len(recorded.names)))
    if kind == "spline":
        for name in list(names) + list(recorded.names):
            if MEG_NAME_PATTERN.match(name):
                raise BrainhiveError(
                    f"{recording_name}: splines are of EEG, and {name} is a sensor of "
                    "MEG",
                    "channel_mapping=common",
                )
        model_m = _find_positions(names, positions, "the model", is_complete=True)
        recorded_m = _find_positions(
            recorded.names,
            recorded.positions,
            recording_name,
            is_complete=recorded.positions is None,
        )
        has_position = np.isfinite(recorded_m).all(1)
        sensors_m = recorded_m[has_position]
        centre_m = fit_head_centre(sensors_m, recording_name)
        matrix[:, has_position] = compute_spline_weights(
            sensors_m - centre_m, model_m - centre_m
        )
    elif not n_shared:
        raise BrainhiveError(
            f"{recording_name} has no channel of the model",
            "use a data set of the same sensors",
        )

    # copy channels of equal names
    for row, column in enumerate(shared_rows):
        if column is not None:
            matrix[row] = np.arange(len(recorded.names)) == column

    # recorded channels without a weight are not read
    is_read = np.any(matrix, 0)
    return ChannelMapping(
        kind,
        names=tuple(names),
        sources=tuple(compress(recorded.names, is_read)),
        matrix=matrix[:, is_read].astype(np.float32),
        shared=n_shared,
    )


def _find_positions(
    names: Sequence[str], positions: ArrayLike | None, owner: str, is_complete: bool
) -> Float64:
    """Return positions [C, 3] in the head frame, with NaN for unknown positions.

    Args:
        names: Names [C] of the sensors.
        positions: Positions [C, 3], or None for the positions of the 10-05 system.
        owner: Owner of the sensors, for the error.
        is_complete: If True, raise an error if a position is unknown.
    """
    if positions is None:
        positions_m = look_up_positions(names)
    else:
        positions_m = np.array(positions, np.float64)
    positions_m[~positions_m.any(1)] = np.nan  # files have zeros for unknown positions
    is_unknown = ~np.all(np.isfinite(positions_m), axis=1)
    if is_complete and is_unknown.any():
        unknown_names = list(compress(names, is_unknown))
        raise BrainhiveError(
            f"no position on the head is known of {', '.join(unknown_names[:3])} of "
            f"{owner}",
            "prepare with positions (preparation.montage), without these channels, "
            "or channel_mapping=common",
        )
    return positions_m


def fit_head_centre(
    positions: Float64, recording_name: str = "the recording"
) -> Float64:
    """Fit a sphere to sensors by least squares, and return its centre [3].

    Sensors in the face are left out, as in MNE.

    Args:
        positions: Positions [C, 3] in the head frame in metres.
        recording_name: Name of the recording, for the error.

    Raises:
        BrainhiveError: if the sensors do not lie around a head.
    """
    # |p|^2 = 2 p c + k, with the centre c and k = r^2 - |c|^2
    scalp = positions[~((positions[:, 2] < -1e-6) & (positions[:, 1] > 1e-6))]
    system = np.column_stack([2 * scalp, np.ones(len(scalp))])
    solution = np.linalg.lstsq(system, np.square(scalp).sum(1), rcond=1e-6)[0]
    centre = solution[:3]
    radius_m = np.sqrt(max(0.0, solution[3] + centre @ centre))
    # Smallest and largest radius of a sphere around a head, newborns included.
    # Positions in millimetres give other radii.
    head_radii_m = (0.05, 0.15)
    # positions in another unit than metres give another radius
    smallest_m, largest_m = head_radii_m
    # Smallest number of positions to which a sphere is fitted. It has four unknowns.
    if len(scalp) < 4 or not smallest_m < radius_m < largest_m:
        raise BrainhiveError(
            f"{recording_name}: positions of {len(scalp)} sensors do not lie around "
            f"a head (radius {radius_m:.3g} m)",
            "positions in metres of sensors all over the head; or "
            "channel_mapping=common",
        )
    return centre


def compute_spline_weights(
    from_positions: Float64,
    to_positions: Float64,
    alpha: float = SPLINE_REGULARISATION,
) -> Float64:
    """Compute weights that interpolate potentials on the head by spherical splines.

    Args:
        from_positions: Positions [C', 3] of the sensors, from the centre of the head
            (`fit_head_centre`), in any unit.
        to_positions: Positions [C, 3] to interpolate at.
        alpha: Regularisation, added to the diagonal.

    Returns:
        Weights [C, C'], whose rows add up to 1.

    Source: Perrin et al. 1989, equations 1 to 3.
    """
    # the function that all interpolations of MNE use
    from mne.channels.interpolation import _make_interpolation_matrix

    weights: Float64 = _make_interpolation_matrix(from_positions, to_positions, alpha)
    return weights
