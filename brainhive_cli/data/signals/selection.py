"""Recipe section `signal`: the part of a recording that a brain model reads."""

import ast
import re
from collections.abc import Mapping, Sequence
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

from brainhive_cli.core.base import Bool, BrainhiveError, RecipeError
from brainhive_cli.core.recipes import NameList, Section, parts, refuse_idle
from brainhive_cli.core.results import NORMALISED_BY_TESTED
from brainhive_cli.data.signals.brain_channels import (
    list_eye_channels,
    refuse_stimulus_channels,
)
from brainhive_cli.data.signals.spaces import Sensors, Voxels, find_region
from brainhive_cli.data.signals.trials import Trials

TIME_TOLERANCE_MS = 1e-6
"""Largest difference of times that count as equal, above the rounding of seconds."""
RegionControl = Literal["none", "swapped", "random", "all"]
SET_HINT = (
    "names of regions, & | - and parentheses, with spaces around -: nsdgeneral - (V1v "
    "| V1d)"
)
TOKEN = re.compile(r"[&|()]|[^\s&|()]+")
PYTHON_OPERATORS = {"&": "&", "|": "|", "-": "& ~", "(": "(", ")": ")"}
"""Operators on masks in Python, keyed by the operators of set expressions."""


def list_window_starts(
    times_ms: NDArray[np.floating], width_ms: float, step_ms: float
) -> list[float]:
    """List the starts of sliding windows that lie within the signal.

    Args:
        times_ms: Times [T] of the samples. The first window starts at the first sample.
        width_ms: Width of each window.
        step_ms: Time from one start to the next.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    # each sample lasts a step, also the last
    sample_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    end_ms = times_ms[-1] + sample_ms
    last_start_ms = end_ms - width_ms
    if last_start_ms < times_ms[0] - TIME_TOLERANCE_MS:
        raise RecipeError(
            f"window.width_ms {width_ms:g} is wider than the signal "
            f"({times_ms[0]:g} to {end_ms:g} ms)",
            "take a narrower window",
        )
    # `arange` excludes its end, at which a window may start
    return list(np.arange(times_ms[0], last_start_ms + TIME_TOLERANCE_MS, step_ms))


def mark_window(
    times_ms: NDArray[np.floating], start_ms: float, width_ms: float
) -> Bool:
    """Mark the samples [T] of a window, whose end is excluded."""
    stop_ms = start_ms + width_ms
    is_after_start = times_ms >= start_ms - TIME_TOLERANCE_MS
    return is_after_start & (times_ms < stop_ms - TIME_TOLERANCE_MS)


def make_region_masks(
    regions: Mapping[str, Sequence[int]], voxels: int
) -> dict[str, Bool]:
    """Convert the voxel indices of regions to masks [V, 1], without empty regions."""
    rows = np.arange(voxels)[:, None]
    masks = {}
    for name, indices in regions.items():
        if indices:
            masks[name] = np.isin(rows, list(indices))
    return masks


def _resolve_normalisation(value: Any) -> Any:
    """Resolve a normalisation by its kind, or return None for "none"."""
    if value in (None, "none"):
        return None
    return parts.resolve("normalisations", value)


def _write_normalisation(config: Any) -> str | dict[str, Any]:
    """Write a normalisation with its keys, or its kind only if it has no keys."""
    fields = {"kind": "none"} if config is None else config.model_dump(mode="json")
    return fields if len(fields) > 1 else fields["kind"]  # type: ignore[no-any-return]


class Signal(Section):
    """Part of the recordings that a brain model reads, and its normalisation."""

    name: str = Field(
        "default",
        description="name of the preparation, a folder of stores in signals/<dataset>",
    )
    channels: NameList | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, "
        "occipital), or voxels by region; default: the data set's channels for "
        "decoding",
    )
    region_split: dict[str, str] = Field(
        {},
        description="voxels of each stream of a model, as a set of regions with & | - "
        "and parentheses, as {spatial: V1 | V2, semantic: all - spatial}; later sets "
        "may use earlier names",
    )
    region_control: RegionControl = Field(
        "none",
        description="control: sets of region_split are exchanged (swapped), drawn in "
        "equal sizes from all their voxels (random), or hold all of them (all)",
    )
    window_ms: tuple[float, float] | None = Field(
        None, description="start and stop after stimulus onset, ms"
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="factor of the signals; by default, one of each kind of channel "
        "(EEG, magnetometers, gradiometers, voxels), with which training signals have "
        "a spread of 1, unless a normalisation or whitening gives them one, or "
        "pretrained weights take µV",
    )
    normalise_trials: bool = Field(
        False,
        description="before trials are averaged, subtract from each channel of each "
        "trial its mean over the window, then divide it by its norm before the "
        "subtraction (AlignVis)",
    )
    normalise: Annotated[
        Any,
        BeforeValidator(_resolve_normalisation),
        PlainSerializer(_write_normalisation),
    ] = Field(
        None,
        description="normalisation that is fitted to the training signals of each "
        "subject: none, channel (mean 0, variance 1), whiten (also no correlation "
        "between channels), template (the mean response is subtracted), euclidean or "
        "riemannian (alignment: the mean product of channels over trials becomes the "
        "identity)",
    )
    normalise_by: Literal["subject", "training_subjects", "tested_trials"] = Field(
        "subject",
        description="statistics for a subject without training: of the subject's own "
        "training split, or the mean over the training subjects; tested_trials: the "
        "tested trials of each fold are normalised by their own statistics, as in "
        "EEG2Video's code, and all numbers are marked",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="training sample: the average of all trials of a stimulus, a "
        "single trial, or the average of random trials; validation and test use the "
        "average of all",
    )
    random_k: int = Field(
        2,
        gt=0,
        le=10_000,
        description="number of trials in a random average, drawn anew each time",
    )

    @field_validator("region_split")
    @classmethod
    def _check_sets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, expression in value.items():
            # Pattern of the name of a region in a set expression. It may hold hyphens,
            # as in `prf-visualrois`.
            if not re.fullmatch(r"(?!-$)[^\s&|()]+", name):
                raise ValueError(f"{name!r} is not a name of a region")
            compile_set(expression)
        return value

    @model_validator(mode="after")
    def _refuse_idle_keys(self) -> Self:
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

    @property
    def caveats(self) -> list[str]:
        """List the caveats of numbers on tested trials that are read by these keys."""
        is_own = self.normalise_by == "tested_trials"
        return [NORMALISED_BY_TESTED] if is_own else []

    def select(
        self, trials: Trials, default: Sequence[str] | None, recording_name: str
    ) -> Trials:
        """Select the part of trials that a brain model reads, without normalisation.

        Args:
            trials: Trials.
            default: Channels or regions if the recipe names none, or None for all but
                eye channels, unless the preparation asked for these.
            recording_name: Name of the trials, for errors.

        Raises:
            BrainhiveError: if the trials lack channels, regions or the window, or a
                channel records the stimuli.
        """
        channels = self.channels or default
        if trials.space.has_names:
            names = trials.channels
            eyes = set(list_eye_channels(names))
            if eyes and not channels and not trials.has_chosen_channels:
                channels = [name for name in names if name not in eyes]
            refuse_stimulus_channels(channels or names, recording_name)
        masks = find_stream_masks(
            self.region_split, trials.space, self.region_control, recording_name
        )
        return trials.select(
            channels=channels,
            window_ms=self.window_ms,
            scale=self.scale or 1.0,
            where=recording_name,
            sets=masks,
            normalises_trials=self.normalise_trials,
        )


def list_regions(expression: str) -> list[str]:
    """List the regions in a set expression, in order."""
    return [
        token for token in TOKEN.findall(expression) if token not in PYTHON_OPERATORS
    ]


def compile_set(expression: str) -> CodeType:
    """Compile a set expression to Python code on the masks r0, r1 … of its regions.

    & and - bind tighter than |.

    Raises:
        RecipeError: if the text is not a set expression.
    """
    # regions become r0, r1 …, so the code can only combine masks
    terms = []
    n_regions = 0
    for token in TOKEN.findall(expression):
        if token in PYTHON_OPERATORS:
            terms.append(PYTHON_OPERATORS[token])
        else:
            terms.append(f"r{n_regions}")
            n_regions += 1
    message = f"{expression!r} is no set of regions"
    try:
        tree = ast.parse(" ".join(terms), mode="eval")
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise RecipeError(message, SET_HINT) from error
    # V1 (V2) would be a call, and () an empty tuple
    if any(isinstance(node, ast.Call | ast.Tuple) for node in ast.walk(tree)):
        raise RecipeError(f"{message}: an operator is missing", SET_HINT)
    return compile(tree, "region_split", "eval")


def find_stream_masks(
    expressions: Mapping[str, str],
    space: Sensors | Voxels,
    control: RegionControl = "none",
    recording_name: str = "the recording",
) -> dict[str, Bool]:
    """Find the voxels of each stream of a model.

    Args:
        expressions: Set expression of each stream by its name. Later expressions may
            use earlier names.
        space: Space of the recording.
        control: Exchange the sets between streams (`swapped`), draw sets of the same
            sizes and overlaps from their voxels (`random`), or give each stream all of
            these voxels (`all`).
        recording_name: Name of the recording, for errors.

    Returns:
        Masks [V] by the name of the stream.

    Raises:
        BrainhiveError: if the recording has sensors.
        RecipeError: if the recording lacks a region, or a set has no voxels.
    """
    if not expressions:
        return {}
    if space.has_names:
        raise BrainhiveError(
            f"signal.region_split needs voxels, {recording_name} has sensors",
            "leave region_split out",
        )

    # an earlier set hides a region of its name
    masks: dict[str, Bool] = {}
    for name, expression in expressions.items():
        all_masks = {**space.regions, **masks}
        operands = {}
        for index, region in enumerate(list_regions(expression)):
            mask_name = find_region(region, all_masks, recording_name, expression)
            operands[f"r{index}"] = all_masks[mask_name]
        masks[name] = eval(compile_set(expression), {"__builtins__": {}}, operands)
        if not masks[name].any():
            filled_regions = " ".join(
                region for region, mask in space.regions.items() if mask.any()
            )
            raise RecipeError(
                f"{recording_name}: no voxel lies in region_split.{name}, "
                f"{expression!r}",
                f"regions with voxels: {filled_regions or 'none'}",
            )

    # other sets of the same voxels, as a control
    sets = list(masks.values())
    union: Bool = np.any(sets, 0)
    if control == "swapped":
        sets = sets[1:] + sets[:1]
    elif control == "all":
        sets = [union] * len(sets)
    elif control == "random":
        # one permutation for all sets, so sizes and overlaps stay
        positions = np.flatnonzero(union)
        source = np.arange(len(union))
        # Seed of the sets that `region_control: random` draws.
        rng = np.random.default_rng((0, len(positions)))
        source[positions] = rng.permutation(positions)
        sets = [mask[source] for mask in sets]
    return dict(zip(masks, sets, strict=True))
