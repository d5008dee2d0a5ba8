"""Selection of a part of a recording [N, R, C, T] for a brain model: the section
`signal` and its choices.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from itertools import count
from types import CodeType
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Bool
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.sections import Section, refuse_idle
from brainhive_cli.data.signals.spaces import Sensors, Voxels, find_region
from brainhive_cli.data.signals.trials import Trials

CLOSE_MS = 1e-6
"""Times closer than this are one: above the rounding of seconds to milliseconds."""
CONTROL_SEED = 0
"""Seed of the sets that `region_control: random` draws."""
REGION_NAME = r"(?!-$)[^\s&|()]+"
"""Pattern of the name of a region in a set expression. It may hold hyphens, as in
`prf-visualrois`.
"""
RegionControl = Literal["none", "swapped", "random", "all"]
WAY = (
    "names of regions, & | - and parentheses, with spaces around -: nsdgeneral - (V1v "
    "| V1d)"
)
_TOKEN = re.compile(r"[&|()]|[^\s&|()]+")
_OPERATORS = {"&": "&", "|": "|", "-": "& ~", "(": "(", ")": ")"}
"""Signs of sets as Python's operators on masks, which bind alike."""


def list_window_starts(
    times_ms: NDArray[np.floating], width_ms: float, step_ms: float
) -> list[float]:
    """List where windows begin: from the first sample, as long as they end within the
    signal.

    Args:
        times_ms: [T].
        width_ms: Of each window.
        step_ms: From window to window.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    # the last sample is a step long, as all are
    step = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    last = times_ms[-1] + step - width_ms
    if last < times_ms[0] - CLOSE_MS:
        raise RecipeError(
            f"window.width_ms {width_ms:g} is wider than the signal "
            f"({times_ms[0]:g} to {times_ms[-1] + step:g} ms)",
            "take a narrower window",
        )
    # `arange` leaves out its end, at which a window may begin
    return list(np.arange(times_ms[0], last + CLOSE_MS, step_ms))


def mark_window(
    times_ms: NDArray[np.floating], start_ms: float, width_ms: float
) -> Bool:
    """Mark the samples of a window: [T]."""
    # half-open, so that adjoining windows share no sample
    return (times_ms >= start_ms - CLOSE_MS) & (
        times_ms < start_ms + width_ms - CLOSE_MS
    )


def make_region_masks(
    regions: Mapping[str, Sequence[int]], voxels: int
) -> dict[str, Bool]:
    """Mark the voxels of each region that has any, by name: [V, 1]."""
    rows = np.arange(voxels)[:, None]
    return {
        name: np.isin(rows, [*region]) for name, region in regions.items() if region
    }


def _write_normalisation(config: Any) -> str | dict[str, Any]:
    """Write a part without knobs by its name alone, as tables and protocols show it."""
    fields = {"kind": "none"} if config is None else config.model_dump(mode="json")
    return fields if len(fields) > 1 else fields["kind"]  # type: ignore[no-any-return]


class Signal(Section):
    """Part of the recordings that a brain model sees, and how it is normalised and
    averaged.
    """

    name: str = Field(
        "default",
        description="preparation: the folder of stores below signals/<dataset>",
    )
    channels: NameList | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, "
        "occipital), or voxels by region; default: the data set's for "
        "decoding",
    )
    region_split: dict[str, str] = Field(
        {},
        description="what streams of a model read: name: set of the voxels' regions, "
        "with & | - and parentheses, as {spatial: V1 | V2, semantic: all - "
        "spatial}; later sets may use earlier names",
    )
    region_control: RegionControl = Field(
        "none",
        description="sets of region_split are exchanged (swapped), drawn with the same "
        "sizes from all their voxels (random), or hold all of them (all)",
    )
    window_ms: tuple[float, float] | None = Field(
        None, description="start and stop after stimulus onset, ms"
    )
    scale: float = Field(
        1.0,
        gt=0,
        description="signals are multiplied by this (1 over their usual spread)",
    )
    normalise_trials: bool = Field(
        False,
        description="before trials are averaged, subtract from each channel of each "
        "trial its mean over the window, and divide by its norm before that (AlignVis)",
    )
    normalise: Annotated[
        Any,
        BeforeValidator(
            lambda value: (
                None
                if value in (None, "none")
                else parts.resolve("normalisations", value)
            )
        ),
        PlainSerializer(_write_normalisation),
    ] = Field(
        None,
        description="by the training signals of each subject: none, channel (mean 0, "
        "variance 1), whiten (also no correlation between channels), "
        "template (less the mean response), euclidean or riemannian "
        "(alignment: the mean product of channels over trials becomes the "
        "identity)",
    )
    normalise_by: Literal["subject", "training_subjects"] = Field(
        "subject",
        description="whose statistics normalise a subject who was not trained on: the "
        "subject's own training split, or the mean of those of the "
        "subjects trained on",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="a training sample is the average of a stimulus's trials, each "
        "trial, or the average of some at random; validation and test take "
        "the average of all",
    )
    random_k: int = Field(
        2,
        gt=0,
        le=10_000,
        description="trials that a random average takes, anew each time",
    )

    @field_validator("region_split")
    @classmethod
    def _holds_sets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, expression in value.items():
            if not re.fullmatch(REGION_NAME, name):
                raise ValueError(f"{name!r} is no name of a region")
            compile_set(expression)
        return value

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # keys that would have no effect are refused, not ignored
        if self.repetitions != "random":
            refuse_idle(
                self,
                "random_k",
                f"with repetitions {self.repetitions}",
                "repetitions: random",
            )
        if self.region_split:
            refuse_idle(self, "channels", "with region_split", "leave one of them out")
        if len(self.region_split) < 2:
            refuse_idle(self, "region_control", "without two sets of region_split")
        if self.normalise is None:
            refuse_idle(
                self, "normalise_by", "with normalise none", "normalise: channel"
            )
        return self

    def select(
        self, trials: Trials, default: Sequence[str] | None, where: str
    ) -> Trials:
        """Select what a brain model sees of trials, not normalised.

        Args:
            trials: The trials.
            default: Channels or regions where the recipe names none; None is all.
            where: Name of the trials, for errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the trials do not
                have.
        """
        masks = find_stream_masks(
            self.region_split,
            trials.space,
            self.region_control,
            where,
        )
        channels = self.channels or default
        return trials.select(
            channels, self.window_ms, self.scale, where, masks, self.normalise_trials
        )


def list_regions(expression: str) -> list[str]:
    """List the regions in a set expression, in order."""
    return [token for token in _TOKEN.findall(expression) if token not in _OPERATORS]


def compile_set(expression: str) -> CodeType:
    """Compile a set expression over the masks r0, r1 … of its regions; & and - bind
    tighter than |.

    Raises:
        RecipeError: if it is none.
    """
    # names of regions become r0, r1 …, so that nothing but operators on masks can be
    # written
    numbers = count()
    terms = [
        _OPERATORS.get(token) or f"r{next(numbers)}"
        for token in _TOKEN.findall(expression)
    ]
    try:
        tree = ast.parse(" ".join(terms), mode="eval")
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise RecipeError(f"{expression!r} is no set of regions", WAY) from error
    # V1 (V2) would be a call, and () an empty tuple
    if any(isinstance(node, ast.Call | ast.Tuple) for node in ast.walk(tree)):
        raise RecipeError(
            f"{expression!r} is no set of regions: an operator is missing", WAY
        )
    return compile(tree, "region_split", "eval")


def find_stream_masks(
    expressions: Mapping[str, str],
    space: Sensors | Voxels,
    control: RegionControl = "none",
    where: str = "the recording",
) -> dict[str, Bool]:
    """Find the voxels of each stream: masks [V] by name.

    Args:
        expressions: Set of regions by the stream's name; later ones may use earlier
            names.
        space: What was recorded.
        control: Exchange the sets among the streams (`swapped`), draw sets of the same
            sizes and overlaps from all of these voxels (`random`), or give each stream
            all of them (`all`).
        where: What the recording is, for errors.

    Raises:
        BrainhiveError: if the recording has sensors.
        RecipeError: naming a region that the recording does not have, or a set without
            voxels.
    """
    if not expressions:
        return {}
    if isinstance(space, Sensors):
        raise BrainhiveError(
            f"signal.region_split needs voxels, {where} has sensors",
            "leave region_split out",
        )

    # masks [V] of the sets in order; an earlier set hides a region of its name
    masks: dict[str, Bool] = {}
    for name, expression in expressions.items():
        known = {**space.regions, **masks}
        operands = {
            f"r{index}": known[find_region(region, known, where, expression)]
            for index, region in enumerate(list_regions(expression))
        }
        masks[name] = eval(compile_set(expression), {"__builtins__": {}}, operands)
        # a stream without voxels has nothing to read
        if not masks[name].any():
            filled = " ".join(
                region for region, mask in space.regions.items() if mask.any()
            )
            raise RecipeError(
                f"{where}: no voxel lies in region_split.{name}, {expression!r}",
                f"regions with voxels: {filled or 'none'}",
            )

    # other sets of the same voxels, as a control
    sets = list(masks.values())
    union: Bool = np.any(sets, 0)
    if control == "swapped":
        sets = [*sets[1:], sets[0]]
    elif control == "all":
        sets = [union] * len(sets)
    elif control == "random":
        # one permutation for all sets, so that sizes and overlaps stay
        positions = np.flatnonzero(union)
        moved = np.arange(len(union))
        random = np.random.default_rng((CONTROL_SEED, len(positions)))
        moved[positions] = random.permutation(positions)
        sets = [mask[moved] for mask in sets]
    return dict(zip(masks, sets, strict=True))
