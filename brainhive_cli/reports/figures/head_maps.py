"""Maps of sensors on the head."""

from collections.abc import Mapping

import numpy as np

from brainhive_cli.core.base import Float64, Int64
from brainhive_cli.core.runs import Point, Topomap
from brainhive_cli.data.signals import Sensors, Voxels


def fit_sphere(positions: Float64) -> tuple[Float64, float]:
    """Fit a sphere to positions [K, 3], and return its centre [3] and radius."""
    # centre c and positions p: |p|^2 = 2 p c + constant
    system = np.column_stack([2 * positions, np.ones(len(positions))])
    solution = np.linalg.lstsq(system, np.square(positions).sum(1), rcond=None)[0]
    centre = solution[:3]
    radius = float(np.sqrt(solution[3] + centre @ centre))
    return centre, radius


def flatten_positions(positions: Float64) -> Float64:
    """Project positions on the head onto a plane, with the nose up.

    The distance of a position from the centre of the plane is its angle from the
    top of the head, divided by 90 degrees. The angle is measured at the centre of
    a fitted sphere.

    Args:
        positions: Positions [K, 3] of sensors in any unit. The columns x, y and z point
            to the right, to the front and to the top.

    Returns:
        Positions [K, 2] on the plane. The columns point to the right and to the nose.
    """
    centre, _ = fit_sphere(positions)
    x, y, z = (positions - centre).T
    angle = np.arctan2(np.hypot(x, y), z)
    direction = np.arctan2(y, x)
    distance = angle / (np.pi / 2)
    plane: Float64 = distance[:, None] * np.stack(
        [np.cos(direction), np.sin(direction)], 1
    )
    return plane


def locate_sensors(space: Sensors | Voxels) -> tuple[Int64, Float64]:
    """Find the sensors with a position on the head.

    Sensors without a recorded position are left out. A recording without positions gets
    standard positions by name.

    Args:
        space: Sensors, or voxels of fMRI.

    Returns:
        Indices [K] of the sensors, and their positions [K, 3] in metres. Both are empty
        for voxels, for fewer than 4 positions, and if sensors share a
        position, as pairs of gradiometers do.
    """
    nothing = np.empty(0, np.int64), np.empty((0, 3))
    positions = space.locate()  # [C, 3]

    # (0, 0, 0) stands for a sensor without a position
    has_position = np.isfinite(positions).all(1) & positions.any(1)
    sensors = np.flatnonzero(has_position)
    distinct_positions = np.unique(positions[sensors].round(4), axis=0)
    # Fewest sensors with a known position that make a map.
    if len(sensors) < 4 or len(distinct_positions) < len(sensors):
        return nothing
    return sensors, positions[sensors]


def place_sensors(space: Sensors | Voxels) -> dict[str, tuple[float, float]]:
    """Compute the position of each sensor on a flat map of the head.

    Returns:
        Position (x, y) by sensor name, as in `flatten_positions`, of the sensors that
        `locate_sensors` finds.
    """
    sensors, positions = locate_sensors(space)
    if not len(sensors):
        return {}
    plane = flatten_positions(positions).tolist()
    return {
        space.names[sensor]: (x, y)
        for sensor, (x, y) in zip(sensors.tolist(), plane, strict=True)
    }


def draw_head(
    title: str,
    positions: Mapping[str, tuple[float, float]],
    values: Mapping[str, float],
    value: str,
    is_diverging: bool = True,
) -> Topomap:
    """Make a map of the head that shows a value at each sensor with a position.

    Args:
        title: Title of the map.
        positions: Position by sensor name, from `place_sensors`.
        values: Value by sensor name.
        value: Name and unit of the values.
        is_diverging: True if the colours are centred on 0.
    """
    points = [
        Point(*positions[name], name, value=values[name])
        for name in values
        if name in positions
    ]
    return Topomap(title, points, value, is_diverging)
