"""The silhouettes of the drawn pictures, as plain tables of ellipses and polygons.

Every silhouette lives on a grid of 0..100 (x to the right, y down). Its pieces are laid over each other in
order; each has an ink: `body` takes the scene's colour and texture, `shade` a darker tone of that colour, and
`hole` erases; the rest are fixed colours. An ellipse is (centre x, centre y, radius x, radius y).
"""

from typing import Literal, NamedTuple

Ink = Literal["hole", "body", "shade", "dark", "light", "wood", "leaf", "amber"]


class Ellipse(NamedTuple):
    """An axis-aligned ellipse."""

    ink: Ink
    centre: tuple[int, int]
    radii: tuple[int, int]


class Polygon(NamedTuple):
    """A closed polygon, filled by the even-odd rule."""

    ink: Ink
    corners: tuple[tuple[int, int], ...]


Piece = Ellipse | Polygon


def _box(ink: Ink, left: int, top: int, right: int, bottom: int) -> Polygon:
    return Polygon(ink, ((left, top), (right, top), (right, bottom), (left, bottom)))


_FISH: tuple[Piece, ...] = (
    Polygon("shade", ((66, 50), (98, 22), (88, 50), (98, 78))),
    Polygon("shade", ((30, 30), (52, 10), (60, 34))),
    Ellipse("body", (40, 50), (38, 26)),
    Ellipse("light", (20, 44), (7, 7)),
    Ellipse("dark", (19, 44), (4, 4)),
)
_BIRD: tuple[Piece, ...] = (
    _box("dark", 40, 74, 44, 98),
    _box("dark", 53, 74, 57, 98),
    Polygon("amber", ((86, 24), (100, 32), (86, 38))),
    Polygon("body", ((24, 50), (0, 36), (4, 62), (26, 70))),
    Polygon("body", ((56, 42), (64, 26), (88, 38), (70, 68))),
    Ellipse("body", (45, 58), (30, 22)),
    Ellipse("body", (75, 28), (16, 16)),
    Ellipse("shade", (38, 57), (17, 9)),
    Ellipse("light", (79, 25), (6, 6)),
    Ellipse("dark", (80, 25), (3, 3)),
)
_CAT: tuple[Piece, ...] = (
    Polygon("shade", ((68, 96), (96, 88), (98, 52), (87, 52), (86, 76), (68, 82))),
    Ellipse("body", (50, 74), (27, 24)),
    Polygon("body", ((26, 34), (26, 0), (48, 16))),
    Polygon("body", ((74, 34), (74, 0), (52, 16))),
    Ellipse("body", (50, 34), (27, 22)),
    Ellipse("light", (39, 30), (7, 7)),
    Ellipse("light", (61, 30), (7, 7)),
    Ellipse("dark", (39, 31), (3, 5)),
    Ellipse("dark", (61, 31), (3, 5)),
    Polygon("dark", ((45, 41), (55, 41), (50, 47))),
)
_BUTTERFLY: tuple[Piece, ...] = (
    Ellipse("body", (26, 32), (25, 25)),
    Ellipse("body", (74, 32), (25, 25)),
    Ellipse("shade", (31, 72), (20, 20)),
    Ellipse("shade", (69, 72), (20, 20)),
    Polygon("dark", ((48, 24), (32, 2), (37, 0), (51, 20))),
    Polygon("dark", ((52, 24), (68, 2), (63, 0), (49, 20))),
    Ellipse("dark", (50, 54), (6, 36)),
)
_CAR: tuple[Piece, ...] = (
    Polygon("body", ((2, 46), (18, 42), (32, 16), (70, 16), (84, 42), (98, 48), (98, 74), (2, 74))),
    Polygon("light", ((36, 23), (49, 23), (49, 42), (27, 42))),
    Polygon("light", ((54, 23), (67, 23), (76, 42), (54, 42))),
    Ellipse("dark", (24, 75), (14, 14)),
    Ellipse("dark", (76, 75), (14, 14)),
    Ellipse("light", (24, 75), (5, 5)),
    Ellipse("light", (76, 75), (5, 5)),
)
_BOAT: tuple[Piece, ...] = (
    _box("dark", 46, 2, 51, 66),
    Polygon("body", ((53, 6), (53, 58), (94, 58))),
    Polygon("light", ((44, 16), (44, 58), (12, 58))),
    Polygon("body", ((2, 64), (98, 64), (82, 94), (18, 94))),
)
_ROCKET: tuple[Piece, ...] = (
    Polygon("amber", ((38, 74), (62, 74), (50, 100))),
    Polygon("shade", ((36, 46), (10, 84), (38, 78))),
    Polygon("shade", ((64, 46), (90, 84), (62, 78))),
    Polygon("body", ((50, 0), (64, 16), (70, 40), (64, 78), (36, 78), (30, 40), (36, 16))),
    Ellipse("light", (50, 36), (10, 10)),
    Ellipse("dark", (50, 36), (5, 5)),
)
_BALLOON: tuple[Piece, ...] = (
    Polygon("dark", ((34, 66), (38, 66), (44, 86), (40, 86))),
    Polygon("dark", ((66, 66), (62, 66), (56, 86), (60, 86))),
    Polygon("body", ((18, 48), (82, 48), (62, 74), (38, 74))),
    Ellipse("body", (50, 36), (36, 36)),
    _box("wood", 39, 82, 61, 99),
)
_FLOWER: tuple[Piece, ...] = (
    _box("leaf", 47, 50, 53, 100),
    Ellipse("leaf", (66, 82), (14, 7)),
    Ellipse("leaf", (34, 88), (14, 7)),
    Ellipse("body", (50, 14), (14, 14)),
    Ellipse("body", (70, 26), (14, 14)),
    Ellipse("body", (70, 48), (14, 14)),
    Ellipse("body", (50, 59), (14, 14)),
    Ellipse("body", (30, 48), (14, 14)),
    Ellipse("body", (30, 26), (14, 14)),
    Ellipse("amber", (50, 37), (13, 13)),
)
_TREE: tuple[Piece, ...] = (
    Polygon("wood", ((42, 56), (58, 56), (62, 99), (38, 99))),
    Ellipse("body", (28, 48), (25, 20)),
    Ellipse("body", (72, 48), (25, 20)),
    Ellipse("body", (50, 28), (29, 28)),
)
_MUSHROOM: tuple[Piece, ...] = (
    Polygon("light", ((38, 50), (62, 50), (68, 97), (32, 97))),
    Polygon("body", ((2, 56), (8, 32), (24, 13), (42, 5), (58, 5), (76, 13), (92, 32), (98, 56))),
)
_CACTUS: tuple[Piece, ...] = (
    _box("body", 38, 14, 62, 86),
    Ellipse("body", (50, 14), (12, 13)),
    Polygon("body", ((8, 36), (22, 36), (22, 52), (40, 52), (40, 66), (8, 66))),
    Ellipse("body", (15, 36), (7, 8)),
    Polygon("body", ((78, 24), (92, 24), (92, 54), (60, 54), (60, 41), (78, 41))),
    Ellipse("body", (85, 24), (7, 8)),
    Polygon("wood", ((26, 80), (74, 80), (66, 100), (34, 100))),
)
_HOUSE: tuple[Piece, ...] = (
    _box("dark", 70, 6, 82, 40),
    _box("body", 13, 44, 87, 97),
    Polygon("shade", ((50, 2), (100, 48), (0, 48))),
    _box("dark", 42, 66, 58, 97),
    _box("light", 20, 56, 35, 72),
    _box("light", 65, 56, 80, 72),
)
_CASTLE: tuple[Piece, ...] = (
    _box("body", 26, 44, 74, 97),
    _box("body", 36, 34, 46, 46),
    _box("body", 54, 34, 64, 46),
    _box("body", 2, 22, 30, 97),
    _box("body", 2, 8, 11, 24),
    _box("body", 21, 8, 30, 24),
    _box("body", 70, 22, 98, 97),
    _box("body", 70, 8, 79, 24),
    _box("body", 89, 8, 98, 24),
    _box("dark", 41, 72, 59, 97),
    Ellipse("dark", (50, 72), (9, 10)),
    _box("dark", 12, 36, 20, 52),
    _box("dark", 80, 36, 88, 52),
)
_TENT: tuple[Piece, ...] = (
    _box("dark", 48, 0, 52, 16),
    Polygon("amber", ((52, 0), (70, 6), (52, 12))),
    Polygon("body", ((50, 12), (100, 94), (0, 94))),
    Polygon("dark", ((50, 44), (66, 94), (34, 94))),
)
_MUG: tuple[Piece, ...] = (
    Ellipse("shade", (72, 52), (26, 26)),
    Ellipse("hole", (72, 52), (14, 15)),
    Polygon("body", ((8, 16), (72, 16), (68, 94), (12, 94))),
    Ellipse("light", (40, 16), (32, 9)),
)
_BOTTLE: tuple[Piece, ...] = (
    Polygon("body", ((41, 4), (59, 4), (59, 28), (76, 46), (76, 98), (24, 98), (24, 46), (41, 28))),
    _box("wood", 39, 0, 61, 12),
    _box("light", 24, 58, 76, 80),
)
_TEAPOT: tuple[Piece, ...] = (
    Ellipse("shade", (16, 56), (16, 20)),
    Ellipse("hole", (16, 56), (8, 11)),
    Polygon("shade", ((72, 58), (92, 28), (100, 32), (86, 82), (66, 82))),
    Ellipse("body", (48, 60), (33, 30)),
    Ellipse("shade", (48, 31), (20, 7)),
    Ellipse("dark", (48, 22), (6, 6)),
    _box("shade", 32, 86, 64, 94),
)

CATEGORIES: dict[str, dict[str, tuple[Piece, ...]]] = {
    "creature": {"fish": _FISH, "bird": _BIRD, "cat": _CAT, "butterfly": _BUTTERFLY},
    "vehicle": {"car": _CAR, "boat": _BOAT, "rocket": _ROCKET, "balloon": _BALLOON},
    "plant": {"flower": _FLOWER, "tree": _TREE, "mushroom": _MUSHROOM, "cactus": _CACTUS},
    "building": {"house": _HOUSE, "castle": _CASTLE, "tent": _TENT},
    "vessel": {"mug": _MUG, "bottle": _BOTTLE, "teapot": _TEAPOT},
}
"""Category > shape > pieces."""

SILHOUETTES: dict[str, tuple[Piece, ...]] = {
    shape: pieces for shapes in CATEGORIES.values() for shape, pieces in shapes.items()
}
"""Shape > pieces, in a fixed order."""

CATEGORY_OF: dict[str, str] = {shape: category for category, shapes in CATEGORIES.items() for shape in shapes}
"""Shape > category."""
