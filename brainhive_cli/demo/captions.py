"""Captions of drawn pictures, as five people might write them: some leave out what others name."""

from brainhive_cli.demo.pictures import Scene

EACH = 5
"""Captions of a picture, as COCO has."""
_PLACES = {
    "sky": "in the sky",
    "grass": "on the grass",
    "night": "at night",
    "sand": "on the sand",
    "sunset": "at sunset",
    "sea": "by the sea",
}
_PATTERNS = {"plain": "no pattern", "striped": "stripes", "dotted": "dots", "checked": "checks"}


def captions(scene: Scene) -> list[str]:
    """Describe what a scene shows, but not where in the picture or how large: `EACH` captions."""
    colour, texture, place = scene.colour, scene.texture, _PLACES[scene.background]
    a_colour = ("an " if colour[0] in "aeiou" else "a ") + colour
    return [
        f"a {texture} {colour} {scene.shape} {place}",
        f"{a_colour} {scene.shape} with {_PATTERNS[texture]}",
        f"{place}, {a_colour} {scene.category}",
        f"the {scene.shape} is {colour} and {texture}",
        f"a picture of {a_colour} {scene.shape} {place}",
    ]
