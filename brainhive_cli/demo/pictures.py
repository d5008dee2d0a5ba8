"""Pictures of coloured, textured things in places, drawn with integer arithmetic so
that all machines agree.

A *concept* is a shape in a colour and a texture (`red_striped_fish`); background,
position and size vary from picture to picture. Test concepts are combinations that no
training picture shows, of factors that all appear in training.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Bool, Int64, UInt8

PixelArray = NDArray[np.uint32]
Concept = tuple[str, str, str]
Tone = tuple[int, int, int]

Ink = Literal["hole", "body", "shade", "dark", "light", "wood", "leaf", "amber"]
Piece = tuple[Ink, tuple[tuple[int, int], ...]]
"""A piece of a silhouette: an ellipse by its centre and radii, or a polygon by three
corners or more.
"""

SCENERY = documents.read(Path(__file__).with_name("scenery.json"), dict[str, Any])
"""Tones, backgrounds and words of scenes; positions of stars are x and y in percent."""
CATEGORIES = documents.read(
    Path(__file__).with_name("silhouettes.json"),
    dict[str, dict[str, tuple[Piece, ...]]],
)
"""Category > shape > pieces, laid over each other in order, on a grid of 0..100 (x to
the right, y down).

Ink `body` has the scene's colour and texture, `shade` a darker tone; `hole` erases;
others are fixed.
"""
SILHOUETTES = {
    shape: pieces for shapes in CATEGORIES.values() for shape, pieces in shapes.items()
}
"""Shape > pieces, in a fixed order."""
CATEGORY_OF = {
    shape: category for category, shapes in CATEGORIES.items() for shape in shapes
}
"""Shape > category."""
SHAPES = tuple(SILHOUETTES)
TEXTURES = ("plain", "striped", "dotted", "checked")
COLOURS: dict[str, tuple[Tone, Tone]] = SCENERY["colours"]
"""Colour > (main tone, second tone of the texture), RGB."""
BACKGROUNDS: dict[str, list[tuple[int, Tone, Tone]]] = SCENERY["backgrounds"]
"""Background > bands from the top: (start in percent of the height, RGB at its top, RGB
at its bottom).
"""

_INKS = (
    "hole",
    "body",
    "second",
    "edge",
    "shade",
    "dark",
    "light",
    "wood",
    "leaf",
    "amber",
)
_MARGIN = 5  # room for the outline around a silhouette, in units of its grid of 100
_SUPERSAMPLING = 4

TEST_CONCEPTS = 100
TRAIN_CONCEPTS = 160
TRAIN_PICTURES_PER_CONCEPT = 6


@dataclass(frozen=True)
class Scene:
    """All that a picture shows.

    Args:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        texture: One of `TEXTURES`.
        background: One of `BACKGROUNDS`.
        x: Centre of the thing, as a fraction of the picture's width.
        y: Centre of the thing, as a fraction of the picture's height.
        size: Side of the thing's square, as a fraction of the picture's height.
        image_id: The picture's path below the image root without extension; empty for a
            random scene.
    """

    shape: str
    colour: str
    texture: str
    background: str
    x: float
    y: float
    size: float
    image_id: str = ""

    @property
    def concept(self) -> str:
        """The concept's name, as in `red_striped_fish`."""
        return f"{self.colour}_{self.texture}_{self.shape}"

    @property
    def category(self) -> str:
        """Kind of thing that the shape is."""
        return CATEGORY_OF[self.shape]


def scenes(split: Literal["train", "test"]) -> list[Scene]:
    """List the scenes of a split: 160 concepts x 6 pictures to train on, 100 new
    concepts x 1 to test on.

    All test pictures of a shape have one background and place: a gallery of lookalikes,
    which only colour and texture tell apart.
    """
    if split == "train":
        rng = np.random.default_rng(2025)
        concepts = split_concepts()["train"]
        return named_scenes(
            "training_images", concepts, TRAIN_PICTURES_PER_CONCEPT, rng
        )

    # every thing of the test split is where the first of its shape is
    first: dict[str, Scene] = {}
    alike = []
    for scene in named_scenes(
        "test_images", split_concepts()["test"], 1, np.random.default_rng(2026)
    ):
        setting = first.setdefault(scene.shape, scene)
        look: Any = {
            "colour": scene.colour,
            "texture": scene.texture,
            "image_id": scene.image_id,
        }
        alike.append(replace(setting, **look))
    return alike


@lru_cache
def split_concepts() -> dict[str, list[Concept]]:
    """List the concepts of each split, in an order that only their names decide.

    Returns:
        `test`, which nothing is ever trained on, and `train`. The shipped weights
        learned from all concepts but those of `test`.
    """
    # digests shuffle the concepts alike on all machines
    concepts = sorted(
        product(COLOURS, TEXTURES, SHAPES),
        key=lambda concept: hashlib.sha256("_".join(concept).encode()).digest(),
    )
    return {
        "test": concepts[:TEST_CONCEPTS],
        "train": concepts[TEST_CONCEPTS:][:TRAIN_CONCEPTS],
    }


def named_scenes(
    folder: str, concepts: list[Concept], copies: int, rng: np.random.Generator
) -> list[Scene]:
    """Place concepts at random, `copies` times each, with image ids below a folder."""
    scenes = []
    for number, concept in enumerate(concepts, start=1):
        name = "_".join(concept)
        for copy in range(1, copies + 1):
            scenes.append(
                arrange(concept, rng, f"{folder}/{number:05d}_{name}/{name}_{copy:02d}")
            )
    return scenes


def draw(scene: Scene, resolution_px: int = 64) -> Image.Image:
    """Draw a scene as a square RGB picture.

    Args:
        scene: What to show.
        resolution_px: Side of the picture; whatever it is, the picture is drawn at four
            times the size.
    """
    # the background fills the canvas, at four times the size
    # [H, W]
    canvas = _background(scene.background, resolution_px * _SUPERSAMPLING).copy()
    labels, window = _placed(scene, resolution_px)

    # colour the parts of the thing, and average down
    np.copyto(canvas[window], _palette(scene.colour)[labels], where=labels > 0)
    return Image.frombytes("RGB", canvas.shape, canvas, "raw", "RGBX").reduce(
        _SUPERSAMPLING
    )


def mask(scene: Scene, resolution_px: int = 64) -> UInt8:
    """Say where the thing of a scene is: 1 where it covers half of a pixel or more,
    else 0; [H, W].
    """
    covered = np.zeros((resolution_px * _SUPERSAMPLING,) * 2, np.uint8)
    labels, window = _placed(scene, resolution_px)
    covered[window] = labels > 0

    # a pixel belongs to the thing if half of its cells do
    cells = covered.reshape(
        resolution_px, _SUPERSAMPLING, resolution_px, _SUPERSAMPLING
    )
    return (2 * cells.sum((1, 3), dtype=int) >= _SUPERSAMPLING**2).astype(np.uint8)


def _placed(scene: Scene, resolution_px: int) -> tuple[UInt8, tuple[slice, slice]]:
    """Rasterise a scene's thing at its size, and say which window of the canvas it
    takes.
    """
    side = resolution_px * _SUPERSAMPLING
    # rasterised once (cached), then resampled to the size of each scene
    thing = _thing(scene.shape, scene.texture, 3 * resolution_px)

    # the thing with its margin, about its centre
    extent = int(scene.size * side) * (100 + 2 * _MARGIN) // 100
    top = int(scene.y * side) - extent // 2
    left = int(scene.x * side) - extent // 2

    # only the part inside the canvas, nearest neighbour
    rows = np.arange(max(top, 0), min(top + extent, side))
    columns = np.arange(max(left, 0), min(left + extent, side))
    labels = thing[
        (rows - top)[:, None] * len(thing) // extent,
        (columns - left) * len(thing) // extent,
    ]
    return labels, (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))


def arrange(concept: Concept, rng: np.random.Generator, image_id: str = "") -> Scene:
    """Show a concept before a background, at a position and in a size that are drawn at
    random.
    """
    colour, texture, shape = concept
    background = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]

    # things of all sizes stay inside the picture
    size = 0.44 + 0.18 * rng.random()
    # how far the centre may move while the thing stays inside
    reach = (1 - 1.04 * size) / 2
    x = 0.5 + reach * (2 * rng.random() - 1)
    y = 0.5 + reach * (2 * rng.random() - 1)
    return Scene(
        shape,
        colour,
        texture,
        background,
        round(x, 4),
        round(y, 4),
        round(size, 4),
        image_id,
    )


@lru_cache
def _palette(colour: str) -> PixelArray:
    # tones that follow from the colour; the other inks are fixed
    main, second = COLOURS[colour]
    tones = {
        "hole": (0, 0, 0),
        "body": main,
        "second": second,
        "edge": tuple(2 * c // 5 for c in main),
        "shade": tuple(7 * c // 10 for c in main),
    }
    return _pack(np.array([(tones | SCENERY["inks"])[ink] for ink in _INKS]))  # [inks]


@lru_cache
def _background(name: str, side: int) -> PixelArray:
    # bands from the top, each with a gradient from its upper to its lower tone
    canvas = np.empty((side, side, 3), dtype=np.int64)
    bands = BACKGROUNDS[name]
    ends = [start for start, _, _ in bands[1:]] + [100]
    for (start, upper, lower), end in zip(bands, ends, strict=True):
        first = start * side // 100
        last = end * side // 100
        way = np.arange(last - first)[:, None, None]
        canvas[first:last] = np.array(upper) + (
            np.array(lower) - np.array(upper)
        ) * way // (last - first)

    # stars of a fiftieth of the side
    for x, y in SCENERY["stars"] if name == "night" else ():
        canvas[y * side // 100 :, x * side // 100 :][: side // 50, : side // 50] = (
            255,
            250,
            220,
        )
    return _pack(canvas)


def _pack(tones: Int64) -> PixelArray:
    """Put three bytes [..., 3] and one of padding into one number, which is fast to
    copy.
    """
    padded = np.pad(tones.astype(np.uint8), [*[(0, 0)] * (tones.ndim - 1), (0, 1)])
    return padded.view(np.uint32)[..., 0]


@lru_cache
def _thing(shape: str, texture: str, cells: int) -> UInt8:
    """Rasterise a silhouette with its texture and outline: indices of `_INKS`, [cells,
    cells], 0 outside.
    """
    from scipy.ndimage import binary_dilation

    # positions of the cells' centres, in 1 / (2 * cells) of the silhouette's grid
    step = 100 + 2 * _MARGIN
    unit = 2 * cells
    centres = (2 * np.arange(cells) + 1) * step - unit * _MARGIN
    y = centres[:, None]
    x = centres[None, :]

    # the pieces, laid over each other
    labels = np.zeros((cells, cells), dtype=np.uint8)
    for ink, points in SILHOUETTES[shape]:
        labels[_covers(points, x, y, unit)] = _INKS.index(ink)

    # the second tone of the texture, on the grid of 100
    grid_x = x // unit
    grid_y = y // unit
    match texture:
        case "striped":
            is_second = np.broadcast_to(grid_y // 9 % 2 == 1, labels.shape)
        case "dotted":
            is_second = (grid_x % 20 - 10) ** 2 + (grid_y % 20 - 10) ** 2 <= 36
        case "checked":
            is_second = (grid_x // 14 + grid_y // 14) % 2 == 1
        case _:
            is_second = np.zeros(labels.shape, dtype=bool)
    labels[(labels == _INKS.index("body")) & is_second] = _INKS.index("second")

    # an outline around the silhouette
    radius = unit // step
    silhouette = labels > 0
    distance = np.arange(-radius, radius + 1)
    outline = binary_dilation(
        silhouette, distance[:, None] ** 2 + distance**2 <= radius**2
    )
    labels[outline & ~silhouette] = _INKS.index("edge")
    return labels


def _covers(points: Sequence[tuple[int, int]], x: Int64, y: Int64, unit: int) -> Bool:
    """Say where a piece is, by exact products: a float here could differ between
    machines.
    """
    if len(points) == 2:
        # an ellipse, multiplied out so that nothing is divided
        (cx, cy), (rx, ry) = points
        return ((x - cx * unit) * ry) ** 2 + ((y - cy * unit) * rx) ** 2 <= (
            rx * ry * unit
        ) ** 2
    inside = np.zeros((y.size, x.size), dtype=bool)

    # a polygon: a cell is inside if it lies left of an odd number of edges
    corners = [(px * unit, py * unit) for px, py in points]
    # the even-odd rule
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        spans = (y0 <= y) != (y1 <= y)
        left_of_edge = ((x - x0) * (y1 - y0) < (y - y0) * (x1 - x0)) == (y1 > y0)
        inside ^= spans & left_of_edge
    return inside


CAPTIONS_EACH = 5
"""Captions of a picture, as COCO has."""


def captions(scene: Scene) -> list[str]:
    """Describe what a scene shows, but not where or how large, as `CAPTIONS_EACH`
    people might write.
    """
    colour = scene.colour
    texture = scene.texture
    setting = SCENERY["settings"][scene.background]
    a_colour = ("an " if colour[0] in "aeiou" else "a ") + colour
    return [
        f"a {texture} {colour} {scene.shape} {setting}",
        f"{a_colour} {scene.shape} with {SCENERY['patterns'][texture]}",
        f"{setting}, {a_colour} {scene.category}",
        f"the {scene.shape} is {colour} and {texture}",
        f"a picture of {a_colour} {scene.shape} {setting}",
    ]
