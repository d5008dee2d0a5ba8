"""Electrodes: names as files write them, brought to those of the 10-05 system, and
positions.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import RecipeError, find_rows, guess

STANDARD = ("colin27_1005", "standard_1005")
"""Names of mne's template of electrode positions, since 1.13 and before."""
AROUND = re.compile(r"^EEG[ _-]+|[ _-]+(REF|LE|AVG|AR)$|\.+$", re.IGNORECASE)
"""Text that EDF files write around the name of an electrode: the type, the reference,
padding.
"""
INPUT = re.compile(r"([A-H])(\d+)")
"""Name of an input of BioSemi's amplifier, of which a bank has 32."""
BANK, EARS = 32, 2
"""Inputs of a bank; those whose names are also electrodes of the 10-05 system, A1 and
A2 at the ears.
"""
BY_INPUT = ("biosemi16", "biosemi32", "biosemi64")
"""Montages of mne that list the electrodes of a cap, by their names, in the order of
the inputs.
"""


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

    montage, known = None, get_builtin_montages()
    if cap:
        if cap not in known:
            hint = f"{guess(cap, known)}mne has: {', '.join(known)}"
            raise RecipeError(
                f"preparation.montage is {cap!r}, which mne does not have", hint
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
        new = rename.get(name) or (
            electrode_of_input.get(name, name) if kind == "eeg" else name
        )
        names[name] = standard_name(new) if kind == "eeg" else new

    # a name that two channels would have stays as the file has it
    counts = Counter(names.values())
    if twice := [
        name for name, new in names.items() if counts[new] > 1 and name in rename
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


def are_inputs(names: Sequence[str]) -> bool:
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


def standard_positions(names: Sequence[str]) -> Float64:
    """Look up positions [C, 3] of electrodes in the 10-05 system, in the head frame;
    NaN for other names.
    """
    unknown = "", np.full(3, np.nan)
    # C3 is an input where channels are called by inputs, else an electrode
    are_all_inputs = are_inputs(names)
    known = [
        unknown
        if are_all_inputs and INPUT.fullmatch(name)
        else _read_template().get(plain_name(name).lower(), unknown)
        for name in names
    ]
    return np.array([position for _, position in known])


def standard_name(name: str) -> str:
    """Write the name of an electrode as the 10-05 system does; any other name stays as
    it is.
    """
    return _read_template().get(plain_name(name).lower(), (name, None))[0]


def plain_name(name: str) -> str:
    """Write an electrode's name without what EDF files put around it: `EEG Fp1-REF`,
    `Fc5.`.
    """
    return AROUND.sub("", name.strip())
