"""The section `signal` of a recipe."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess
from brainhive_cli.core.recipe import Names, Section, refuse_idle
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import REGION_NAME, Recording, Sensors, Voxels

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


class Signal(Section):
    """Which part of the recordings a brain model sees, and how it is normalised and averaged."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, occipital), or voxels "
        "by region; default: the data set's for decoding",
    )
    region_split: dict[str, str] = Field(
        {},
        description="what streams of a model read: name: set of the voxels' regions, with & | - and "
        "parentheses, as {spatial: V1 | V2, semantic: all - spatial}; later sets may use earlier names",
    )
    region_control: Control = Field(
        "none",
        description="sets of region_split are exchanged (swapped), drawn with the same sizes from all their "
        "voxels (random), or hold all of them (all)",
    )
    region_seed: int = Field(0, ge=0, lt=2**63, description="of region_control: random")
    window_ms: tuple[float, float] | None = Field(None, description="start and stop after stimulus onset, ms")
    scale: float = Field(
        1.0,
        gt=0,
        description="signals are multiplied by this (1 over their usual spread)",
    )
    normalise: Literal["none", "channel", "whiten"] = Field(
        "none",
        description="by the training signals of each subject: channel (mean 0, variance 1), whiten (also "
        "no correlation between channels)",
    )
    normalise_by: Literal["subject", "training_subjects"] = Field(
        "subject",
        description="whose statistics normalise a subject who was not trained on: the subject's own training "
        "split, or the mean of those of the subjects trained on",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="a training sample is the average of a stimulus's trials, each trial, or the average of "
        "some at random; validation and test take the average of all",
    )
    random_k: int = Field(
        2, gt=0, le=10_000, description="trials that a random average takes, anew each time"
    )

    @field_validator("region_split")
    @classmethod
    def _holds_sets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, expression in value.items():
            if not re.fullmatch(REGION_NAME, name):
                raise ValueError(f"{name!r} is no name of a region")
            parsed(expression)
        return value

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions != "random":
            refuse_idle(self, ("random_k",), f"with repetitions {self.repetitions}", "repetitions: random")
        if self.region_split:
            refuse_idle(self, ("channels",), "with region_split", "leave one of them out")
        if len(self.region_split) < 2:
            refuse_idle(self, ("region_control",), "without two sets of region_split", "leave it out")
        if self.region_control != "random":
            refuse_idle(self, ("region_seed",), f"with region_control {self.region_control}", "leave it out")
        if self.normalise == "none":
            refuse_idle(self, ("normalise_by",), "with normalise none", "normalise: channel")
        return self

    def select(self, recording: Recording, default: Sequence[str] | None, where: str) -> Selection:
        """Select what a brain model sees of a recording, not normalised.

        Args:
            recording: The recording.
            default: Channels or regions where the recipe names none; None is all.
            where: What the recording is, for errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does not have.
        """
        split = self.region_split, recording.space, self.region_control, self.region_seed, where
        channels = self.channels or default
        return Selection.of(recording, channels, self.window_ms, self.scale, where, split_masks(*split))


def parsed(expression: str) -> list[str]:
    """Bring a set expression over regions into postfix order; & and - bind tighter than |, from the left.

    Raises:
        RecipeError: if it is none.
    """
    postfix: list[str] = []
    operators: list[str] = []
    wants_region = True
    for token in _TOKEN.findall(expression):
        is_region = token not in (*_BINDS, "(", ")")
        if wants_region != (is_region or token == "("):
            raise RecipeError(f"{expression!r} is no set of regions: {token!r} stands where it cannot", WAY)
        if is_region:
            postfix.append(token)
        elif token == "(":
            operators.append(token)
        else:
            while operators and operators[-1] != "(" and _BINDS[operators[-1]] >= _BINDS.get(token, 0):
                postfix.append(operators.pop())
            if token != ")":
                operators.append(token)
            elif not operators or operators.pop() != "(":
                raise RecipeError(f"{expression!r} closes a parenthesis that it does not open", WAY)
        wants_region = not is_region and token != ")"
    if wants_region or "(" in operators:
        raise RecipeError(f"{expression!r} is no set of regions: it ends too early", WAY)
    return postfix + operators[::-1]


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
    masks: dict[str, Mask] = {}
    for name, expression in expressions.items():
        masks[name] = _evaluated(expression, {**space.regions, **masks}, where)
        if not masks[name].any():
            filled = " ".join(region for region, mask in space.regions.items() if mask.any())
            raise RecipeError(
                f"{where}: no voxel lies in region_split.{name}, {expression!r}",
                f"regions with voxels: {filled or 'none'}",
            )
    return _controlled(masks, control, seed)


def _evaluated(expression: str, regions: Mapping[str, Mask], where: str) -> Mask:
    known = {name.lower(): mask for name, mask in regions.items()}
    masks: list[Mask] = []
    for token in parsed(expression):
        if token in _OPERATIONS:
            second = masks.pop()
            masks[-1] = _OPERATIONS[token](masks[-1], second)
            continue
        if token.lower() not in known:
            spaces = "a difference has spaces around its -; " if "-" in token else ""
            hint = f"{guess(token, regions)}{spaces}regions: {' '.join(regions) or 'none'}"
            raise RecipeError(f"{where}: no region {token!r} in the data, of {expression!r}", hint)
        masks.append(known[token.lower()])
    return masks[0]


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
