"""Set expressions over regions of voxels: which voxels each stream of a brain model reads."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess
from brainhive_cli.data.stores.recordings import Sensors, Voxels

Mask = NDArray[np.bool_]
Control = Literal["none", "swapped", "random", "all"]
WAY = "names of regions, & | - and parentheses, with spaces around -: nsdgeneral - (V1v | V1d)"
_TOKEN = re.compile(r"[&|()]|[^\s&|()]+")
_OPERATIONS: Mapping[str, Callable[[Mask, Mask], Mask]] = {
    "|": operator.or_,
    "&": operator.and_,
    "-": lambda one, other: one & ~other,
}
_BINDS = {"|": 1, "&": 2, "-": 2}


def parsed(expression: str) -> list[str]:
    """Bring a set expression over regions into postfix order; & and - bind tighter than |, from the left.

    Raises:
        RecipeError: if it is none.
    """
    found: list[str] = []
    held: list[str] = []
    wants_region = True
    for token in _TOKEN.findall(expression):
        is_region = token not in (*_BINDS, "(", ")")
        if wants_region != (is_region or token == "("):
            raise RecipeError(f"{expression!r} is no set of regions: {token!r} stands where it cannot", WAY)
        if is_region:
            found.append(token)
        elif token == "(":
            held.append(token)
        else:
            while held and held[-1] != "(" and _BINDS[held[-1]] >= _BINDS.get(token, 0):
                found.append(held.pop())
            if token != ")":
                held.append(token)
            elif not held or held.pop() != "(":
                raise RecipeError(f"{expression!r} closes a parenthesis that it does not open", WAY)
        wants_region = not is_region and token != ")"
    if wants_region or "(" in held:
        raise RecipeError(f"{expression!r} is no set of regions: it ends too early", WAY)
    return found + held[::-1]


def split_masks(
    expressions: Mapping[str, str],
    space: Sensors | Voxels,
    control: Control = "none",
    seed: int = 0,
    where: str = "the recording",
) -> dict[str, Mask]:
    """Find the voxels of each stream: masks [V] by name.

    Args:
        expressions: Set of regions by the stream's name; later ones may use earlier names.
        space: What was recorded.
        control: Exchange the sets among the streams (`swapped`), draw sets of the same sizes and overlaps
            from all of these voxels (`random`), or give each stream all of them (`all`).
        seed: Of `random`.
        where: What the recording is, for errors.

    Raises:
        BrainhiveError: if the recording has sensors.
        RecipeError: naming a region that the recording does not have, or a set without voxels.
    """
    if not expressions:
        return {}
    if isinstance(space, Sensors):
        raise BrainhiveError(
            f"signal.region_split needs voxels, {where} has sensors", "leave region_split out"
        )
    found: dict[str, Mask] = {}
    for name, expression in expressions.items():
        found[name] = _evaluated(expression, {**space.regions, **found}, where)
        if not found[name].any():
            filled = " ".join(region for region, mask in space.regions.items() if mask.any())
            raise RecipeError(
                f"{where}: no voxel lies in region_split.{name}, {expression!r}",
                f"regions with voxels: {filled or 'none'}",
            )
    return _controlled(found, control, seed)


def _evaluated(expression: str, regions: Mapping[str, Mask], where: str) -> Mask:
    known = {name.lower(): mask for name, mask in regions.items()}
    found: list[Mask] = []
    for token in parsed(expression):
        if token in _OPERATIONS:
            other = found.pop()
            found[-1] = _OPERATIONS[token](found[-1], other)
            continue
        if token.lower() not in known:
            spaces = "a difference has spaces around its -; " if "-" in token else ""
            hint = f"{guess(token, regions)}{spaces}regions: {' '.join(regions) or 'none'}"
            raise RecipeError(f"{where}: no region {token!r} in the data, of {expression!r}", hint)
        found.append(known[token.lower()])
    return found[0]


def _controlled(masks: dict[str, Mask], control: Control, seed: int) -> dict[str, Mask]:
    sets = list(masks.values())
    union: Mask = np.any(sets, axis=0)
    if control == "swapped":
        sets = [*sets[1:], sets[0]]
    elif control == "all":
        sets = [union] * len(sets)
    elif control == "random":
        places = np.flatnonzero(union)
        order = np.random.default_rng((seed, len(places))).permutation(places)
        moved = np.arange(len(union))
        moved[places] = order
        sets = [mask[moved] for mask in sets]
    return dict(zip(masks, sets, strict=True))
