"""Pictures of coloured, textured objects, drawn with exact integer arithmetic.

A *concept* is a shape with a colour and a texture, such as `red_striped_fish`. Its
pictures differ in background, position and size. Test concepts are combinations that no
training picture shows, but their factors all occur in training.
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

from brainhive_cli.core.base import Bool, Int64, UInt8
from brainhive_cli.core.files import documents

PixelArray = NDArray[np.uint32]
Concept = tuple[str, str, str]
Tone = tuple[int, int, int]

Ink = Literal["hole", "body", "shade", "dark", "light", "wood", "leaf", "amber"]
Piece = tuple[Ink, tuple[tuple[int, int], ...]]
"""Piece of a silhouette: an ellipse by its centre and radii, or a polygon by at least
three corners.
"""

SCENERY = documents.read(Path(__file__).with_name("scenery.json"), dict[str, Any])
"""Tones, backgrounds and words of scenes, and star positions (x, y) in percent."""
CATEGORIES = documents.read(
    Path(__file__).with_name("silhouettes.json"),
    dict[str, dict[str, tuple[Piece, ...]]],
)
"""Pieces of each shape, by category, on a grid of 0..100 (x to the right, y down).
Later pieces cover earlier ones. The ink `body` has the colour and texture of the scene,
`shade` a darker tone, and `hole` erases. The tones of the other inks are fixed.
"""
SILHOUETTES: dict[str, tuple[Piece, ...]] = {}
"""Pieces of each shape."""
CATEGORY_OF_SHAPE: dict[str, str] = {}
for _category, _shapes in CATEGORIES.items():
    SILHOUETTES |= _shapes
    CATEGORY_OF_SHAPE |= dict.fromkeys(_shapes, _category)
SHAPES = tuple(SILHOUETTES)
TEXTURES = ("plain", "striped", "dotted", "checked")
COLOURS: dict[str, tuple[Tone, Tone]] = SCENERY["colours"]
"""Main tone and second tone of the texture, in RGB, of each colour."""
BACKGROUNDS: dict[str, list[tuple[int, Tone, Tone]]] = SCENERY["backgrounds"]
"""Bands of each background, from the top: start in percent of the height, RGB at the
top of the band, and RGB at its bottom.
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
_MARGIN = 5
"""Width of the outline around a silhouette, in units of its grid of 100."""
_SUPERSAMPLING = 4

N_TEST_CONCEPTS = 100
N_TRAIN_CONCEPTS = 160
TRAIN_PICTURES_PER_CONCEPT = 6
N_CAPTIONS = 5
"""Number of captions of a picture, as in COCO."""


@dataclass(frozen=True)
class Scene:
    """Content of a picture.

    Args:
        shape: Shape, among `SHAPES`.
        colour: Colour, among `COLOURS`.
        texture: Texture, among `TEXTURES`.
        background: Background, among `BACKGROUNDS`.
        x: Centre of the object, as a fraction of the picture's width.
        y: Centre of the object, as a fraction of the picture's height.
        size: Side of the object's square, as a fraction of the picture's height.
        image_id: Path below the image root without extension. Empty for a random scene.
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
        """Name of the concept, such as `red_striped_fish`."""
        return f"{self.colour}_{self.texture}_{self.shape}"

    @property
    def category(self) -> str:
        """Category of the shape."""
        return CATEGORY_OF_SHAPE[self.shape]


def list_scenes(split: Literal["train", "test"]) -> list[Scene]:
    """List the scenes of a split.

    Training has 6 scenes of each of 160 concepts, and test a scene of each of 100
    others. All test pictures of a shape have the same background, position and size, so
    that only colour and texture distinguish them.
    """
    concepts = split_concepts()[split]
    if split == "train":
        rng = np.random.default_rng(2025)
        return arrange_scenes(
            "training_images", concepts, TRAIN_PICTURES_PER_CONCEPT, rng
        )

    # place all test objects like the first object of their shape
    first_scenes: dict[str, Scene] = {}
    scenes = []
    for scene in arrange_scenes(
        "test_images", concepts, 1, np.random.default_rng(2026)
    ):
        first_scene = first_scenes.setdefault(scene.shape, scene)
        scenes.append(
            replace(
                first_scene,
                colour=scene.colour,
                texture=scene.texture,
                image_id=scene.image_id,
            )
        )
    return scenes


@lru_cache
def split_concepts() -> dict[str, list[Concept]]:
    """List the concepts of each split, in an order that depends only on their names.

    Returns:
        Concepts by `train` and `test`. The shipped weights were trained on all concepts
        except the test concepts.
    """
    # digests shuffle the concepts alike on all machines
    concepts = sorted(
        product(COLOURS, TEXTURES, SHAPES),
        key=lambda concept: hashlib.sha256("_".join(concept).encode()).digest(),
    )
    return {
        "test": concepts[:N_TEST_CONCEPTS],
        "train": concepts[N_TEST_CONCEPTS:][:N_TRAIN_CONCEPTS],
    }


def arrange_scenes(
    folder: str, concepts: list[Concept], n_copies: int, rng: np.random.Generator
) -> list[Scene]:
    """Arrange `n_copies` random scenes of each concept, with ids below a folder."""
    scenes = []
    for number, concept in enumerate(concepts, start=1):
        name = "_".join(concept)
        for copy in range(1, n_copies + 1):
            image_id = f"{folder}/{number:05d}_{name}/{name}_{copy:02d}"
            scenes.append(arrange_scene(concept, rng, image_id))
    return scenes


def draw_scene(scene: Scene, resolution_px: int = 64) -> Image.Image:
    """Draw a scene as a square RGB picture, drawn four times larger and averaged.

    Args:
        scene: Scene.
        resolution_px: Height and width of the picture.
    """
    # the background fills the canvas [H, W]
    side_px = resolution_px * _SUPERSAMPLING
    canvas = _draw_background(scene.background, side_px).copy()
    ink_indices, window = _place_object(scene, resolution_px)
    tones = _make_palette(scene.colour)[ink_indices]
    np.copyto(canvas[window], tones, where=ink_indices > 0)
    picture = Image.frombytes("RGB", canvas.shape, canvas, "raw", "RGBX")
    return picture.reduce(_SUPERSAMPLING)


def draw_mask(scene: Scene, resolution_px: int = 64) -> UInt8:
    """Return the mask [H, W] of the object: 1 where it covers at least half a pixel."""
    side_px = resolution_px * _SUPERSAMPLING
    canvas = np.zeros((side_px, side_px), np.uint8)
    ink_indices, window = _place_object(scene, resolution_px)
    canvas[window] = ink_indices > 0
    cells = canvas.reshape(resolution_px, _SUPERSAMPLING, resolution_px, _SUPERSAMPLING)
    n_covered = cells.sum((1, 3), dtype=int)
    return (2 * n_covered >= _SUPERSAMPLING**2).astype(np.uint8)


def _place_object(
    scene: Scene, resolution_px: int
) -> tuple[UInt8, tuple[slice, slice]]:
    """Rasterise a scene's object at its size.

    Returns:
        Inks [h, w] as indices in `_INKS`, and the slices of the canvas that they fill.
    """
    side_px = resolution_px * _SUPERSAMPLING
    # a cached raster is resampled to the size of each scene
    raster = _rasterise_silhouette(scene.shape, scene.texture, 3 * resolution_px)

    # square of the object with its outline
    extent_px = int(scene.size * side_px) * (100 + 2 * _MARGIN) // 100
    top = int(scene.y * side_px) - extent_px // 2
    left = int(scene.x * side_px) - extent_px // 2

    # sample the nearest cell, inside of the canvas
    rows = np.arange(max(top, 0), min(top + extent_px, side_px))
    columns = np.arange(max(left, 0), min(left + extent_px, side_px))
    raster_rows = (rows - top)[:, None] * len(raster) // extent_px
    raster_columns = (columns - left) * len(raster) // extent_px
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return raster[raster_rows, raster_columns], window


def arrange_scene(
    concept: Concept, rng: np.random.Generator, image_id: str = ""
) -> Scene:
    """Make a scene of a concept with a random background, position and size."""
    colour, texture, shape = concept
    background = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    size = 0.44 + 0.18 * rng.random()
    # largest distance of the centre from the middle, for an object inside the picture
    reach = (1 - 1.04 * size) / 2
    x = 0.5 + reach * (2 * rng.random() - 1)
    y = 0.5 + reach * (2 * rng.random() - 1)
    return Scene(
        shape=shape,
        colour=colour,
        texture=texture,
        background=background,
        x=round(x, 4),
        y=round(y, 4),
        size=round(size, 4),
        image_id=image_id,
    )


@lru_cache
def _make_palette(colour: str) -> PixelArray:
    """Make the palette of a colour, a packed RGB tone for each ink such as `edge`."""
    main, second = COLOURS[colour]
    tones = {
        "hole": (0, 0, 0),
        "body": main,
        "second": second,
        "edge": tuple(2 * channel // 5 for channel in main),
        "shade": tuple(7 * channel // 10 for channel in main),
    }
    tones |= SCENERY["inks"]
    return _pack_tones(np.array([tones[ink] for ink in _INKS]))


@lru_cache
def _draw_background(name: str, side_px: int) -> PixelArray:
    """Draw a background as packed tones [side, side]."""
    # bands from the top, each with a gradient from its upper to its lower tone
    canvas = np.empty((side_px, side_px, 3), dtype=np.int64)
    bands = BACKGROUNDS[name]
    ends = [start for start, _, _ in bands[1:]] + [100]
    for (start, upper_tone, lower_tone), end in zip(bands, ends, strict=True):
        first = start * side_px // 100
        last = end * side_px // 100
        upper = np.array(upper_tone)
        lower = np.array(lower_tone)
        steps = np.arange(last - first)[:, None, None]
        canvas[first:last] = upper + (lower - upper) * steps // (last - first)

    # the side of a star is a fiftieth of the canvas
    if name == "night":
        star_px = side_px // 50
        for x, y in SCENERY["stars"]:
            corner = canvas[y * side_px // 100 :, x * side_px // 100 :]
            corner[:star_px, :star_px] = (255, 250, 220)
    return _pack_tones(canvas)


def _pack_tones(tones: Int64) -> PixelArray:
    """Pack RGB values [..., 3] and a byte of padding into numbers, which copy fast."""
    padding = [(0, 0)] * (tones.ndim - 1) + [(0, 1)]
    padded = np.pad(tones.astype(np.uint8), padding)
    return padded.view(np.uint32)[..., 0]


@lru_cache
def _rasterise_silhouette(shape: str, texture: str, n_cells: int) -> UInt8:
    """Rasterise a silhouette with its texture and outline.

    Returns:
        Indices in `_INKS` [n_cells, n_cells]. They are 0 outside of the silhouette.
    """
    from scipy.ndimage import binary_dilation

    # centres of the cells, in 1 / (2 * n_cells) of the silhouette's grid
    step = 100 + 2 * _MARGIN
    unit = 2 * n_cells
    centres = (2 * np.arange(n_cells) + 1) * step - unit * _MARGIN
    y = centres[:, None]
    x = centres[None, :]

    # later pieces cover earlier ones
    ink_indices = np.zeros((n_cells, n_cells), dtype=np.uint8)
    for ink, points in SILHOUETTES[shape]:
        ink_indices[_is_inside(points, x, y, unit)] = _INKS.index(ink)

    # second tone of the texture, on the grid of 100
    grid_x = x // unit
    grid_y = y // unit
    match texture:
        case "striped":
            is_second = np.broadcast_to(grid_y // 9 % 2 == 1, ink_indices.shape)
        case "dotted":
            is_second = (grid_x % 20 - 10) ** 2 + (grid_y % 20 - 10) ** 2 <= 36
        case "checked":
            is_second = (grid_x // 14 + grid_y // 14) % 2 == 1
        case _:
            is_second = np.zeros(ink_indices.shape, dtype=bool)
    is_body = ink_indices == _INKS.index("body")
    ink_indices[is_body & is_second] = _INKS.index("second")

    # outline around the silhouette
    radius = unit // step
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
    silhouette = ink_indices > 0
    outline = binary_dilation(silhouette, disc)
    ink_indices[outline & ~silhouette] = _INKS.index("edge")
    return ink_indices


def _is_inside(
    points: Sequence[tuple[int, int]], x: Int64, y: Int64, unit: int
) -> Bool:
    """Return True for cells inside a polygon or ellipse, in integers to be exact.

    Args:
        points: Corners of the polygon, or centre and radii of the ellipse, on the grid
            of 100.
        x: Columns [1, cells] of the centres, in steps of 1 / `unit`.
        y: Rows [cells, 1] of the centres, in steps of 1 / `unit`.
        unit: Number of steps from a line of the grid to the next.
    """
    if len(points) == 2:
        # ellipse, with its equation multiplied by the radii
        (centre_x, centre_y), (radius_x, radius_y) = points
        term_x = ((x - centre_x * unit) * radius_y) ** 2
        term_y = ((y - centre_y * unit) * radius_x) ** 2
        return term_x + term_y <= (radius_x * radius_y * unit) ** 2

    # polygon: a cell is inside if it lies left of an odd number of edges
    is_inside = np.zeros((y.size, x.size), dtype=bool)
    corners = [(corner_x * unit, corner_y * unit) for corner_x, corner_y in points]
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        spans_row = (y0 <= y) != (y1 <= y)
        is_left = ((x - x0) * (y1 - y0) < (y - y0) * (x1 - x0)) == (y1 > y0)
        is_inside ^= spans_row & is_left
    return is_inside


def write_captions(scene: Scene) -> list[str]:
    """Write `N_CAPTIONS` captions of a scene, without position and size."""
    colour = scene.colour
    texture = scene.texture
    setting = SCENERY["settings"][scene.background]
    article = "an" if colour[0] in "aeiou" else "a"
    return [
        f"a {texture} {colour} {scene.shape} {setting}",
        f"{article} {colour} {scene.shape} with {SCENERY['patterns'][texture]}",
        f"{setting}, {article} {colour} {scene.category}",
        f"the {scene.shape} is {colour} and {texture}",
        f"a picture of {article} {colour} {scene.shape} {setting}",
    ]
