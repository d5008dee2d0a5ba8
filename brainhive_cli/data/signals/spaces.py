"""Sensors, with their positions, and voxels, with their regions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import Bool, Float64, Int64, RecipeError, find_rows, guess
from brainhive_cli.models import read_template

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""First letters of the channels of each region in the 10-10 system. Channels between
two regions count as one of them. The parietal and occipital channels of THINGS-EEG are
the 17 channels of BrainHiVE.
"""
AMPLIFIER_INPUT = re.compile(r"([A-H])(\d+)")
"""Name of an input of BioSemi's amplifier: bank and number."""
MAX_PRINTED_NAMES = 8
"""Largest number of sensors or regions that `print(space)` names."""


@dataclass(frozen=True)
class Sensors:
    """Sensors of the C channels of a signal.

    They have the attributes of voxels too, which are empty.

    Attributes:
        names: Names [C] in the order of the signal.
        positions: Positions [C, 3] in metres, or None if unknown.
        has_names: True, because sensors are called by their names.
    """

    names: Sequence[str]
    positions: Float64 | None = None
    has_names: ClassVar[bool] = True
    regions: ClassVar[Mapping[str, Bool]] = MappingProxyType({})
    maps: ClassVar[Mapping[str, Float64]] = MappingProxyType({})
    grid: ClassVar[None] = None
    surface: ClassVar[None] = None
    underlay: ClassVar[None] = None

    def __repr__(self) -> str:
        """Return the number of sensors, and the first names."""
        first_names = ", ".join(self.names[:MAX_PRINTED_NAMES])
        dots = ", …" if len(self.names) > MAX_PRINTED_NAMES else ""
        return f"<{len(self.names)} Sensors: {first_names}{dots}>"

    def select(self, rows: Int64) -> "Sensors":
        """Select sensors, in the order of the rows."""
        positions = None if self.positions is None else np.asarray(self.positions)[rows]
        return Sensors([self.names[row] for row in rows], positions)

    def find_rows(self, names: Sequence[str]) -> Int64:
        """Find the rows of channels, or of regions such as "occipital".

        Raises:
            RecipeError: if a channel or region is missing.
        """
        return find_channel_rows(self.names, names)

    def locate(self) -> Float64:
        """Return the positions [C, 3], by default of the names, with NaN if unknown."""
        if self.positions is None:
            return look_up_positions(self.names)
        return self.positions

    def add_regions(self, regions: Mapping[str, Bool]) -> "Sensors":
        """Return the same sensors, because only voxels have regions of their own."""
        return self

    def replace_maps(self, maps: Mapping[str, Float64]) -> "Sensors":
        """Return the same sensors, because only voxels have maps."""
        return self

    def describe_size(self, width: int) -> str:
        """Describe the number of channels that are read."""
        return f"{width:,} channels"

    def name_row(self, row: int, recorded_row: int) -> str:
        """Name a row of the signal in a message."""
        return f"channel {self.names[row]}"

    def list_axis_values(self) -> dict[str, Any]:
        """List the values [C] that all recordings of a subject share.

        Returns:
            Values by their description in messages, such as "channels".
        """
        values: dict[str, Any] = {"channels": self.names}
        if self.positions is not None:
            values["positions"] = self.positions
        return values


@dataclass(frozen=True)
class Grid:
    """Positions of voxels in a volume.

    Attributes:
        indices: Indices [V, 3] of the voxels.
        shape: Shape (X, Y, Z) of the volume.
        affine: Affine [4, 4] from indices to mm.
    """

    indices: NDArray[np.int16]
    shape: tuple[int, ...]
    affine: Float64


@dataclass(frozen=True)
class Surface:
    """Vertices of the cortex at the V rows of a signal.

    Attributes:
        vertices: Hemisphere (0 left, 1 right) and index on its mesh [V, 2]. Both are -1
            for other rows, such as subcortical voxels of CIFTI.
        sizes: Numbers of vertices of the left and the right mesh.
    """

    vertices: NDArray[np.int32]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Underlay:
    """Picture of the brain on which maps of voxels are drawn.

    Attributes:
        values: Brightness [X, Y, Z] from 0 to 255.
        affine: Affine [4, 4] from indices to mm, in the space of the voxels.
        source: Kind of the picture, such as "T1w" or "mean BOLD".
    """

    values: NDArray[np.uint8]
    affine: Float64
    source: str


@dataclass(frozen=True)
class Voxels:
    """Voxels of a signal, with regions that may overlap or leave voxels out.

    They have the attributes of sensors too, which are empty.

    Attributes:
        regions: Mask [V] of each region, by its name.
        maps: Measured values [V] of the voxels, by name, such as `tsnr` or `ncsnr`. The
            latter is the noise-ceiling signal-to-noise ratio: the spread of the signal
            over the spread of the noise.
        grid: Positions in a volume, or None if unknown or on a surface.
        surface: Positions on the cortex, or None if unknown or in a volume.
        underlay: Anatomy below maps of the voxels, or None if there is no picture.
        has_names: False, because voxels are called by their regions.
    """

    regions: Mapping[str, Bool]
    maps: Mapping[str, Float64] = field(default_factory=dict)
    grid: Grid | None = None
    surface: Surface | None = None
    underlay: Underlay | None = None
    has_names: ClassVar[bool] = False
    names: ClassVar[Sequence[str]] = ()
    positions: ClassVar[None] = None

    def __repr__(self) -> str:
        """Return the name of each region with its number of voxels."""
        sizes = [f"{name} ({np.sum(mask)})" for name, mask in self.regions.items()]
        first_sizes = ", ".join(sizes[:MAX_PRINTED_NAMES]) or "no regions"
        dots = ", …" if len(sizes) > MAX_PRINTED_NAMES else ""
        return f"<Voxels: {first_sizes}{dots}>"

    def select(self, rows: Int64) -> "Voxels":
        """Select voxels, in the order of the rows."""
        grid = self.grid
        if grid is not None:
            grid = replace(grid, indices=grid.indices[rows])
        surface = self.surface
        if surface is not None:
            surface = replace(surface, vertices=surface.vertices[rows])
        return Voxels(
            {name: mask[rows] for name, mask in self.regions.items()},
            {name: values[rows] for name, values in self.maps.items()},
            grid,
            surface,
            self.underlay,
        )

    def find_rows(self, names: Sequence[str]) -> Int64:
        """Find the rows of the voxels in any of the regions.

        Raises:
            RecipeError: if a region is missing, or if all regions have no voxels.
        """
        masks = [self.regions[find_region(name, self.regions)] for name in names]
        rows = np.flatnonzero(np.any(masks, 0))
        if not len(rows):
            raise RecipeError(
                f"no voxel lies in {', '.join(names)}",
                f"regions: {' '.join(self.regions)}",
            )
        return rows

    def locate(self) -> Float64:
        """Return no positions [0, 3] on the head."""
        return np.empty((0, 3))

    def add_regions(self, regions: Mapping[str, Bool]) -> "Voxels":
        """Return the voxels with further regions, masks [V] by name."""
        return replace(self, regions={**self.regions, **regions})

    def replace_maps(self, maps: Mapping[str, Float64]) -> "Voxels":
        """Return the voxels with other maps [V] by name."""
        return replace(self, maps=maps)

    def describe_size(self, width: int) -> str:
        """Describe the number of voxels that are read, and of the regions."""
        return f"{width:,} voxels, {len(self.regions)} regions"

    def name_row(self, row: int, recorded_row: int) -> str:
        """Name a row of the signal in a message, as the recording counts it."""
        return f"voxel {recorded_row}"

    def list_axis_values(self) -> dict[str, Any]:
        """List the values [V] that all recordings of a subject share.

        Returns:
            Values by their description in messages, such as "vertices".
        """
        values: dict[str, Any] = {}
        for name, mask in self.regions.items():
            values[f"voxels in the mask of region {name}"] = mask
        if self.grid is not None:
            values["voxel indices"] = self.grid.indices
        if self.surface is not None:
            values["vertices"] = self.surface.vertices
        return values


def find_channel_rows(channels: Sequence[str], names: Sequence[str]) -> Int64:
    """Find the rows of channels by name or region.

    Args:
        channels: Channels of the data.
        names: Names of channels, or of regions such as "occipital".

    Returns:
        Rows in the order of the names, each once.

    Raises:
        RecipeError: if the data lack a channel or region.
    """
    rows = []
    for name in names:
        region = name.lower()
        channel = name if name in channels else standardise_name(name)
        if region in REGIONS:
            name_rows: list[int | None] = [
                row
                for row, candidate in enumerate(channels)
                if find_channel_region(candidate) == region
            ]
        else:
            name_rows = find_rows([channel], channels, "the recording")
        found_rows = [row for row in name_rows if row is not None]
        if not found_rows:
            available = f"there are: {' '.join(channels)}; regions: {' '.join(REGIONS)}"
            raise RecipeError(
                f"no channel {channel!r} in the data",
                guess(channel, list(channels) + list(REGIONS)) + available,
            )
        rows += found_rows
    return np.asarray(list(dict.fromkeys(rows)))


def find_region(
    name: str,
    regions: Mapping[str, Any],
    recording_name: str = "",
    expression: str = "",
) -> str:
    """Find the name of a region as the data write it.

    Args:
        name: Name in any case.
        regions: Regions of the data.
        recording_name: Name of the recording, for the error.
        expression: Set expression that names the region, for the error.

    Raises:
        RecipeError: if the data lack the region.
    """
    names = list(regions)
    row = find_rows([name], names, "the recording")[0]
    if row is not None:
        return names[row]
    message = f"no region {name!r} in the data"
    advice = guess(name, names)
    if expression:
        message += f", of {expression!r}"
        # a difference without spaces reads as a name with a hyphen
        if "-" in name:
            advice += "a difference has spaces around its -; "
    if recording_name:
        message = f"{recording_name}: {message}"
    raise RecipeError(message, f"{advice}regions: {' '.join(names) or 'none'}")


def find_channel_region(channel: str) -> str | None:
    """Return the region of a 10-10 channel, or None for any other name."""
    # Letters, then z or a number, as in POz, FC5 and AFF1h.
    match = re.match(r"([a-z]+?)(z|\d+h?)$", channel, re.IGNORECASE)
    if match is None:
        return None
    for region, prefixes in REGIONS.items():
        if match[1].lower() in map(str.lower, prefixes):
            return region
    return None


def find_sample_range(times_s: Float64, window_ms: tuple[float, float] | None) -> slice:
    """Find the samples of a time window.

    Args:
        times_s: Times [T] of the samples after onset.
        window_ms: Start and stop (excluded) after onset, or None for all samples.

    Raises:
        RecipeError: if the window holds no sample, or reaches a sample or more beyond
            the recording.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    # rounded to µs, above the rounding error of seconds
    times_ms = np.round(times_s * 1000, 3)
    step_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    start_ms, stop_ms = window_ms
    # half-open, so adjoining windows share no sample
    inside = np.flatnonzero((times_ms >= start_ms) & (times_ms < stop_ms))
    hint = f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if not len(inside):
        raise RecipeError(f"no sample in the window {list(window_ms)} ms", hint)
    # the stop is excluded, so it may lie a step further out than the start
    is_longer = (
        start_ms <= times_ms[0] - step_ms or stop_ms >= times_ms[-1] + 2 * step_ms
    )
    # a single sample, as of voxels, has no step
    if is_longer and step_ms:
        raise RecipeError(
            f"the window {list(window_ms)} ms reaches beyond the recording", hint
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def name_electrodes(raw: Any, path: Path, rename: Mapping[str, str], cap: str) -> None:
    """Rename the channels of an MNE recording, and set the positions of a cap.

    - A channel in `rename` gets its new name.
    - An input of BioSemi's amplifier becomes the electrode of the cap at this input.
    - The name of an EEG channel is written as in the 10-05 system.

    Except by `rename`, a name that two channels would have stays as in the file.

    Args:
        raw: Recording that is open in MNE.
        path: File of the recording, for errors.
        rename: New name of channels, keyed by their name in the file.
        cap: Montage of MNE with the positions. Empty for the positions of the file or
            of the 10-05 system.

    Raises:
        RecipeError: if MNE lacks the montage, `rename` gives two channels one name, or
            two channels may be the same electrode of the montage.
    """
    from mne.channels import get_builtin_montages, make_standard_montage

    montage = None
    montage_names = get_builtin_montages()
    if cap:
        if cap not in montage_names:
            raise RecipeError(
                f"preparation.montage is {cap!r}, which mne does not have",
                f"{guess(cap, montage_names)}mne has: {', '.join(montage_names)}",
            )
        montage = make_standard_montage(cap)

    # electrodes of the inputs A1 to A32, B1 …
    electrode_of_input = {}
    # Montages of MNE that list the electrodes of a cap in the order of the inputs.
    if montage is not None and cap in ("biosemi16", "biosemi32", "biosemi64"):
        amplifier_banks = "ABCDEFGH"
        inputs_per_bank = 32
        for index, electrode in enumerate(montage.ch_names):
            bank, number = divmod(index, inputs_per_bank)
            electrode_of_input[f"{amplifier_banks[bank]}{number + 1}"] = electrode

    # new names, where inputs and the 10-05 system are of EEG only
    new_names = {}
    for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True):
        new_name = rename.get(name) or rename.get(strip_electrode_name(name))
        if kind == "eeg":
            new_name = standardise_name(new_name or electrode_of_input.get(name, name))
        new_names[name] = new_name or name

    # rename channels whose new name is unique
    counts = Counter(new_names.values())
    unique_names = {}
    for name, new_name in new_names.items():
        if counts[new_name] == 1:
            unique_names[name] = new_name
        elif name in rename or strip_electrode_name(name) in rename:
            raise RecipeError(
                f"preparation.rename: {path} would have two channels {new_name}",
                "another name for one of them",
            )
    raw.rename_channels(unique_names, verbose="ERROR")

    # positions by the new names
    if montage is not None:
        recorded_names = {}
        rows = find_rows(montage.ch_names, raw.ch_names, str(path))
        for name, row in zip(montage.ch_names, rows, strict=True):
            if row is not None:
                recorded_names[name] = raw.ch_names[row]
        montage.rename_channels(recorded_names)
        raw.set_montage(montage, on_missing="ignore", verbose="ERROR")


def are_amplifier_inputs(names: Sequence[str]) -> bool:
    """Return True if channels have names of BioSemi inputs, not of electrodes."""
    # A1 and A2 may be electrodes at the ears
    for name in names:
        match = AMPLIFIER_INPUT.fullmatch(name)
        # Number of inputs, A1 and A2, that are also electrodes at the ears.
        if match and match[1] == "A" and int(match[2]) > 2:
            return True
    return False


def look_up_positions(names: Sequence[str]) -> Float64:
    """Look up positions of electrodes in the 10-05 system.

    Returns:
        Positions [C, 3] in the head frame in metres, with NaN for other names.
    """
    template = read_template()
    positions = np.full((len(names), 3), np.nan)
    # C3 is an input if channels have names of inputs, else an electrode
    are_inputs = are_amplifier_inputs(names)
    for row, name in enumerate(names):
        electrode = strip_electrode_name(name).lower()
        is_input = are_inputs and AMPLIFIER_INPUT.fullmatch(name)
        if electrode in template and not is_input:
            positions[row] = template[electrode][1]
    return positions


def standardise_name(name: str) -> str:
    """Write an electrode's name as in the 10-05 system, or return any other name."""
    electrode = strip_electrode_name(name).lower()
    # Names of electrodes of the 10-20 system since 1991, keyed by the names before.
    old_electrode_names = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
    electrode = old_electrode_names.get(electrode, electrode)
    template = read_template()
    return template[electrode][0] if electrode in template else name


def standardise_names(names: Sequence[str]) -> list[str]:
    """Standardise names of electrodes, except those that would equal another name."""
    new_names = list(map(standardise_name, names))
    counts = Counter(new_names)
    return [
        new_name if counts[new_name] == 1 else name
        for name, new_name in zip(names, new_names, strict=True)
    ]


def strip_electrode_name(name: str) -> str:
    """Remove the text of EDF files around a name, as in `EEG Fp1-REF` and `Fc5.`."""
    # Text around the electrode name in EDF files: type, reference and padding.
    edf_decoration = re.compile(
        r"^EEG[ _-]+|[ _-]+(REF|LE|AVG|AR)$|\.+$", re.IGNORECASE
    )
    return edf_decoration.sub("", name.strip())
