"""Maps of sensors on the head."""

from collections.abc import Mapping

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Point, Topomap
from brainhive_cli.data.signals.spaces import Sensors, Voxels, standard_positions

MIN_SENSORS = 4
"""Fewest sensors with a known position of which a map is drawn."""


def flatten_positions(positions: Float64) -> Float64:
    """Project positions on a head [K, 3] onto a plane [K, 2], nose up, where the ears
    have the distance 1 from the top.

    Distances from the top are angles, as seen from the centre of the sphere that fits
    the positions best.
    """
    # the sphere |p|^2 = 2 p c + k that fits the positions p best has its centre at c
    system = np.column_stack([2 * positions, np.ones(len(positions))])
    centre = np.linalg.lstsq(system, np.square(positions).sum(1), rcond=None)[0][:3]

    # angle from the top, and direction around it
    x, y, z = (positions - centre).T
    angle = np.arctan2(np.hypot(x, y), z)
    direction = np.arctan2(y, x)
    plane: Float64 = (angle / (np.pi / 2))[:, None] * np.stack(
        [np.cos(direction), np.sin(direction)], 1
    )
    return plane


def place_sensors(space: Sensors | Voxels) -> dict[str, tuple[float, float]]:
    """Place the sensors of known position on a plane, by name, as `flatten_positions`.

    Positions are the recording's or, if it has none, those of the 10-05 system. The
    result is empty if too few are known, or if two sensors share one, as gradiometers
    do.
    """
    if not isinstance(space, Sensors):
        return {}
    # [C, 3]
    positions = (
        standard_positions(space.names) if space.positions is None else space.positions
    )

    # sensors at (0, 0, 0) have no position
    known = np.flatnonzero(np.isfinite(positions).all(1) & positions.any(1))
    distinct = np.unique(positions[known].round(4), axis=0)
    if len(known) < MIN_SENSORS or len(distinct) < len(known):
        return {}
    plane = flatten_positions(positions[known]).tolist()
    return {
        space.names[row]: (x, y)
        for row, (x, y) in zip(known.tolist(), plane, strict=True)
    }


def draw_head(
    title: str,
    positions: Mapping[str, tuple[float, float]],
    values: Mapping[str, float],
    value: str,
    is_diverging: bool = True,
) -> Topomap:
    """Draw the values of the sensors that have a position on the head.

    Args:
        title: Title of the map.
        positions: Positions by sensor, as `place_sensors`.
        values: Values by sensor.
        value: Name and unit of the values.
        is_diverging: Whether the values lie around 0.
    """
    points = [
        Point(*positions[name], name, value=values[name])
        for name in values
        if name in positions
    ]
    return Topomap(title, points, value, is_diverging)
