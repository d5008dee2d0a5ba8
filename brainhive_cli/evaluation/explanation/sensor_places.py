"""Positions of sensors on the head, for maps of their values."""

from collections.abc import Mapping

import numpy as np

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.artifacts import Map, Point
from brainhive_cli.data.electrodes import standard_positions
from brainhive_cli.data.spaces import Sensors, Voxels

MIN_SENSORS = 4
"""Fewest sensors with a known position of which a map is drawn."""


def known_places(sensors: Sensors) -> tuple[Int64, Float64] | None:
    """Find which channels have a known place on the head.

    Those are the recording's positions; of recordings without any, the electrodes of the 10-05 system.

    Returns:
        Which channels [K], and their places [K, 3] in metres; None where there are too few, or two in one
        place, as gradiometers have.
    """
    positions = sensors.positions  # [C, 3]
    if positions is None:
        positions = standard_positions(sensors.names)

    # sensors at (0, 0, 0) have no position
    known = np.flatnonzero(np.isfinite(positions).all(1) & positions.any(1))
    _, first = np.unique(positions[known].round(4), axis=0, return_index=True)
    if len(known) < MIN_SENSORS or len(first) < len(known):
        return None
    return known, positions[known]


def flattened(places: Float64) -> Float64:
    """Project places on a head [K, 3] on a plane [K, 2], nose up; 1 is the height of the ears.

    Distances from the top are angles, as seen from the centre of the sphere that fits the places best.
    """
    # the sphere |p|^2 = 2 p c + k that fits the positions p best has its centre at c
    system = np.column_stack([2 * places, np.ones(len(places))])
    centre = np.linalg.lstsq(system, np.square(places).sum(1), rcond=None)[0][:3]

    # angle from the top, and direction around it
    x, y, z = (places - centre).T
    angle, direction = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    plane: Float64 = (angle / (np.pi / 2))[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    return plane


def place_sensors(space: Sensors | Voxels) -> dict[str, tuple[float, float]]:
    """Place sensors with a known place on the head on a plane, by name; none where these are too few."""
    if not isinstance(space, Sensors) or (known := known_places(space)) is None:
        return {}
    names = [space.names[row] for row in known[0]]
    return {name: (x, y) for name, (x, y) in zip(names, flattened(known[1]).tolist(), strict=True)}


def draw_head(
    title: str,
    places: Mapping[str, tuple[float, float]],
    values: Mapping[str, float],
    value: str,
    is_diverging: bool = True,
) -> Map:
    """Draw the values of sensors on the head, of those that have a place.

    Args:
        title: Of the map.
        places: As `place_sensors`.
        values: By sensor.
        value: What they are.
        is_diverging: Whether they lie around 0.
    """
    points = [Point(*places[name], name, value=values[name]) for name in values if name in places]
    return Map(title, points, "head", value, is_diverging)
