"""Spaces of signals: electrodes and sensors with their positions, or voxels with their
regions.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import RecipeError, find_rows, guess

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""Region > letters that its channels' names begin with, in the 10-10 system. What lies
between two regions is counted with one of them; parietal and occipital together are
BrainHiVE's 17 channels of THINGS-EEG.
"""
# lower case, as names of channels are matched without regard to it
_REGION_OF = {
    letters.lower(): region for region, all_of in REGIONS.items() for letters in all_of
}
# letters, then z or a number, as in POz, FC5 and AFF1h
_NAME = re.compile(r"([a-z]+?)(z|\d+h?)$", re.IGNORECASE)
STANDARD = ("colin27_1005", "standard_1005")
"""Names of mne's template of electrode positions, since 1.13 and before."""
AROUND = re.compile(r"^EEG[ _-]+|[ _-]+(REF|LE|AVG|AR)$|\.+$", re.IGNORECASE)
"""Text that EDF files write around the name of an electrode: the type, the reference,
padding.
"""
INPUT = re.compile(r"([A-H])(\d+)")
"""Name of an input of BioSemi's amplifier, of which a bank has 32."""
OLD_NAMES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
"""Electrodes of the 10-20 system by the names that they had before 1991."""
BANK, EARS = 32, 2
"""Inputs of a bank; those whose names are also electrodes of the 10-05 system, A1 and
A2 at the ears.
"""
BY_INPUT = ("biosemi16", "biosemi32", "biosemi64")
"""Montages of mne that list the electrodes of a cap, by their names, in the order of
the inputs.
"""


@dataclass(frozen=True)
class Sensors:
    """Sensors that recorded the C channels of a signal.

    Attributes:
        names: [C] in the order of the signal.
        positions: [C, 3] in metres, where they are known.
    """

    names: Sequence[str]
    positions: Float64 | None = None

    def select(self, rows: Int64) -> "Sensors":
        """Keep some sensors, in this order."""
        positions = None if self.positions is None else np.asarray(self.positions)[rows]
        return Sensors([self.names[row] for row in rows], positions)


@dataclass(frozen=True)
class Grid:
    """Positions of voxels in a volume.

    Attributes:
        indices: [V, 3] of the voxels.
        shape: Of the volume, X, Y, Z.
        affine: [4, 4] from indices to mm.
    """

    indices: NDArray[np.int16]
    shape: tuple[int, ...]
    affine: Float64


@dataclass(frozen=True)
class Surface:
    """Vertices of the cortex that the V rows of a signal are.

    Attributes:
        vertices: [V, 2] hemisphere (0 left, 1 right) and index on its mesh; -1 of rows
            that are no vertices, as of CIFTI's subcortical voxels.
        sizes: Numbers of vertices of the left and the right mesh.
    """

    vertices: NDArray[np.int32]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Voxels:
    """The regions that the V voxels of a signal belong to; a voxel may lie in several,
    or in none.

    Attributes:
        regions: Mask [V] of each region, by its name.
        maps: What was measured of voxels, [V] by name, as `tsnr`, or `ncsnr`: the
            noise-ceiling signal-to-noise ratio, which is the spread of the signal over
            that of the noise.
        grid: Where they lie in a volume; None where that is not known, or they lie on a
            surface.
        surface: Where they lie on the cortex; None where that is not known, or they lie
            in a volume.
    """

    regions: Mapping[str, Bool]
    maps: Mapping[str, Float64] = field(default_factory=dict)
    grid: Grid | None = None
    surface: Surface | None = None

    def select(self, rows: Int64) -> "Voxels":
        """Keep some voxels, in this order."""
        return Voxels(
            {name: mask[rows] for name, mask in self.regions.items()},
            {name: values[rows] for name, values in self.maps.items()},
            None
            if self.grid is None
            else replace(self.grid, indices=self.grid.indices[rows]),
            None
            if self.surface is None
            else replace(self.surface, vertices=self.surface.vertices[rows]),
        )


def list_axis_values(space: Sensors | Voxels) -> dict[str, Any]:
    """Give all that has one entry a channel, or a voxel, and is the same in all
    recordings of a subject.
    """
    if isinstance(space, Sensors):
        positions = {} if space.positions is None else {"positions": space.positions}
        return {"channels": space.names, **positions}
    lists: dict[str, Any] = {
        f"voxels in the mask of region {name}": mask
        for name, mask in space.regions.items()
    }
    lists |= {} if space.grid is None else {"voxel indices": space.grid.indices}
    return lists | (
        {} if space.surface is None else {"vertices": space.surface.vertices}
    )


def find_channel_rows(channels: Sequence[str], names: Sequence[str]) -> Int64:
    """Find channels by name or region (`occipital`), each once.

    Raises:
        RecipeError: naming what the data do not have, and the nearest name.
    """
    chosen = []
    for name in names:
        region = name.lower()
        name = name if name in channels else standardise_name(name)
        # a region stands for all its channels, any other name for one
        if region in REGIONS:
            members = [
                row
                for row, channel in enumerate(channels)
                if find_channel_region(channel) == region
            ]
        else:
            members = [
                row
                for row in find_rows([name], channels, "the recording")
                if row is not None
            ]
        if not members:
            there = f"there are: {' '.join(channels)}; regions: {' '.join(REGIONS)}"
            raise RecipeError(
                f"no channel {name!r} in the data",
                guess(name, [*channels, *REGIONS]) + there,
            )
        chosen += members
    # a channel by name and by region is read once
    return np.asarray(list(dict.fromkeys(chosen)))


def find_region(
    name: str, regions: Mapping[str, Any], where: str = "", expression: str = ""
) -> str:
    """Find a region's name as the data have it; `where` and `expression` say in errors
    what names it.
    """
    names = list(regions)
    row = find_rows([name], names, "the recording")[0]
    if row is not None:
        return names[row]
    # a difference without spaces reads as one name with a hyphen
    spaces = (
        "a difference has spaces around its -; " if "-" in name and expression else ""
    )
    raise RecipeError(
        f"{where}no region {name!r} in the data{expression}",
        f"{guess(name, names)}{spaces}regions: {' '.join(names) or 'none'}",
    )


def find_channel_region(channel: str) -> str | None:
    """Name the region of a channel; None for a name that is not of the 10-10 system."""
    match = _NAME.match(channel)
    return _REGION_OF.get(match[1].lower()) if match else None


def find_sample_range(times_s: Float64, window_ms: tuple[float, float] | None) -> slice:
    """Find the samples whose time lies in [start, stop), in milliseconds after onset;
    all when None.

    Raises:
        RecipeError: if no sample does, or the window reaches a sample or more beyond
            the recording.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    # rounded to µs, above the rounding error of seconds
    times_ms = np.round(times_s * 1000, 3)
    step_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    # half-open, so that adjoining windows share no sample
    inside = np.flatnonzero((times_ms >= window_ms[0]) & (times_ms < window_ms[1]))
    spans = f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if not len(inside):
        raise RecipeError(f"no sample in the window {list(window_ms)} ms", spans)
    # the stop is exclusive, so that it may lie a step further out than the start
    is_longer = (
        window_ms[0] <= times_ms[0] - step_ms
        or window_ms[1] >= times_ms[-1] + 2 * step_ms
    )
    # one sample, as of voxels, has no step
    if is_longer and step_ms:
        raise RecipeError(
            f"the window {list(window_ms)} ms reaches beyond the recording", spans
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def name_electrodes(raw: Any, path: Path, rename: Mapping[str, str], cap: str) -> None:
    """Rename the channels of a recording that is open in mne, and give them the
    positions of a cap.

    Names of EEG that differ from the 10-05 system's in case or in what EDF writes
    around them become those, unless two channels would then have one name. Inputs of
    BioSemi's amplifier become the electrodes that the cap has there.

    Args:
        raw: The recording.
        path: Its file, for errors.
        rename: Name of a channel in the files to its name.
        cap: Name of mne's montage with the positions; empty for those of the files or
            of names.

    Raises:
        RecipeError: if mne has no such montage, two channels would have one name by
            `rename`, or two may be one electrode of the montage.
    """
    # names by the recipe, by the inputs of the cap, and by the 10-05 system
    from mne.channels import get_builtin_montages, make_standard_montage

    montage = None
    known = get_builtin_montages()
    if cap:
        if cap not in known:
            raise RecipeError(
                f"preparation.montage is {cap!r}, which mne does not have",
                f"{guess(cap, known)}mne has: {', '.join(known)}",
            )
        montage = make_standard_montage(cap)
    # montages of BioSemi list electrodes in the order of the inputs A1, A2 …
    electrodes = montage.ch_names if montage is not None and cap in BY_INPUT else []
    inputs = (f"{bank}{number}" for bank in "ABCDEFGH" for number in range(1, BANK + 1))
    electrode_of_input: dict[str, str] = dict(zip(inputs, electrodes, strict=False))
    types: dict[str, str] = dict(
        zip(raw.ch_names, raw.get_channel_types(), strict=True)
    )
    names = {}
    for name, kind in types.items():
        # the recipe comes first; inputs and the 10-05 system are of EEG alone
        new = (
            rename.get(name)
            or rename.get(strip_electrode_name(name))
            or (electrode_of_input.get(name, name) if kind == "eeg" else name)
        )
        names[name] = standardise_name(new) if kind == "eeg" else new

    # a name that two channels would have stays as the file has it
    counts = Counter(names.values())
    if twice := [
        name
        for name, new in names.items()
        if counts[new] > 1 and {name, strip_electrode_name(name)} & {*rename}
    ]:
        raise RecipeError(
            f"preparation.rename: {path} would have two channels {names[twice[0]]}",
            "another name for one of them",
        )
    raw.rename_channels(
        {old: new for old, new in names.items() if counts[new] == 1}, verbose="ERROR"
    )

    # positions, by the names that the recording has now
    if montage is not None:
        rows = zip(
            montage.ch_names,
            find_rows(montage.ch_names, raw.ch_names, str(path)),
            strict=True,
        )
        montage.rename_channels(
            {name: raw.ch_names[row] for name, row in rows if row is not None}
        )
        raw.set_montage(montage, on_missing="ignore", verbose="ERROR")


def are_amplifier_inputs(names: Sequence[str]) -> bool:
    """Whether channels are called by inputs of an amplifier, not by electrodes: more
    than A1 and A2.
    """
    # A1 and A2 may be electrodes at the ears
    numbers = [
        int(match[2])
        for match in map(INPUT.fullmatch, names)
        if match and match[1] == "A"
    ]
    return any(number > EARS for number in numbers)


@cache
def _read_template() -> dict[str, tuple[str, Float64]]:
    """Read the electrodes of the 10-05 system.

    Returns:
        Name and position [3] in the head frame, by lower case.
    """
    from mne.channels import (
        get_builtin_montages,
        make_standard_montage,
        transform_to_head,
    )

    # mne has had two names for this template
    montage = next(name for name in STANDARD if name in get_builtin_montages())
    positions = transform_to_head(make_standard_montage(montage)).get_positions()[
        "ch_pos"
    ]
    return {name.lower(): (name, position) for name, position in positions.items()}


def look_up_positions(names: Sequence[str]) -> Float64:
    """Look up positions [C, 3] of electrodes in the 10-05 system, in the head frame;
    NaN for other names.
    """
    unknown = "", np.full(3, np.nan)
    # C3 is an input where channels are called by inputs, else an electrode
    are_all_inputs = are_amplifier_inputs(names)
    known = [
        unknown
        if are_all_inputs and INPUT.fullmatch(name)
        else _read_template().get(strip_electrode_name(name).lower(), unknown)
        for name in names
    ]
    return np.array([position for _, position in known])


def standardise_name(name: str) -> str:
    """Write the name of an electrode as the 10-05 system does; any other name stays as
    it is.
    """
    plain = strip_electrode_name(name).lower()
    return _read_template().get(OLD_NAMES.get(plain, plain), (name, None))[0]


def standardise_names(names: Sequence[str]) -> list[str]:
    """Standardise names of electrodes, except those that would equal another name."""
    written = [*map(standardise_name, names)]
    counts = Counter(written)
    pairs = zip(names, written, strict=True)
    return [new if counts[new] == 1 else name for name, new in pairs]


def strip_electrode_name(name: str) -> str:
    """Write an electrode's name without what EDF files put around it: `EEG Fp1-REF`,
    `Fc5.`.
    """
    return AROUND.sub("", name.strip())
