"""Channels of a subject's recordings: which are kept, and what is unusual of them."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.files.ids import spans
from brainhive_cli.data.recordings.headers import Header
from brainhive_cli.data.recordings.opening import CHANNEL_UNITS
from brainhive_cli.data.signals.cutting import MIN_VARIANCE_SHARE
from brainhive_cli.data.signals.spaces import (
    Sensors,
    are_amplifier_inputs,
    look_up_positions,
    strip_electrode_name,
)

MEG = ("mag", "grad")
MODALITIES = {
    **dict.fromkeys(("mag", "grad", "ref_meg"), "MEG"),
    **dict.fromkeys(("ecog", "seeg", "dbs"), "iEEG"),
}
"""Kind of recordings by mne's type of channels; any other has the type's name."""
RATE_TOLERANCE = 1e-5
"""Share by which sampling rates of one subject may differ: headers round them."""
OTHER_UNIT = 100
"""Times the spread of other recordings that one reaches only if it is in another unit,
or no signal.
"""
NO_EEG = re.compile(
    r".*(EOG|ECG|EKG|EMG|TRIG|STIM|STATUS|MARKER|EVENT|PHOTO|DIODE|AUDIO|PULSE|PLETH|"
    r"RESP|GSR|AUX|COUNTER|BATTERY).*"
    r"|(EXG|HEO|VEO|LO|SO|IO|ERG|BIP|DC|DIN|ACC|GYR|TEMP|SPO|STI|CHIN|EDA|PPG|CMS|DRL)"
    r"[ _-]?[A-Z]?\d*",
    re.IGNORECASE,
)
"""Names that amplifiers give to channels without EEG: eyes, heart, muscles, triggers,
other sensors.
"""
MANY_TIMES = 20
"""Times the median variance that a channel of EEG or MEG reaches only if it is noise,
or something else.
"""
WORKING = {"eeg": (0.01, 10_000), "mag": (0.1, 1e7), "grad": (0.01, 1e6)}
"""Standard deviations within a second of any device that works, by type of channels, in
µV, fT and fT/cm.
"""


@dataclass(frozen=True)
class KeptChannels:
    """The channels of one subject.

    Attributes:
        headers: Headers of the subject's recordings, in their order.
        names: [C].
        kinds: [C] types as mne names them, in the first recording.
        unit: Unit of signals before they are whitened.
        space: Names, and positions if all are known.
        without_position: Names of the channels whose position is not known.
        has_file_positions: Whether the first recording has the positions of all of
            them.
    """

    headers: Mapping[Path, Header]
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    unit: str
    space: Sensors
    names_without_position: Sequence[str]
    has_file_positions: bool

    @property
    def modality(self) -> str:
        """Kind of the recordings, by the types of channels."""
        kinds = (MODALITIES.get(kind, kind.upper()) for kind in self.ch_types)
        return " and ".join(dict.fromkeys(kinds))

    def measure_variances(self, path: Path) -> Float64:
        """Return the variances [C] of a recording in the units of `UNITS`."""
        scales = [CHANNEL_UNITS.get(kind, (1.0, ""))[0] for kind in self.ch_types]
        return self.headers[path].get_variances(self.ch_names) * np.square(scales)

    def require_consistent(self, path: Path) -> None:
        """Compare a recording with the first.

        Raises:
            BrainhiveError: if it lacks a channel, or has another sampling rate, unit or
                compensation.
        """
        # the same channels at the same rate
        first, first_header = next(iter(self.headers.items()))
        header = self.headers[path]
        _require_names(path, header, self.ch_names)
        leave_out = "or leave it out: preparation.files=PATTERN"
        if abs(header.rate_hz / first_header.rate_hz - 1) > RATE_TOLERANCE:
            raise BrainhiveError(
                f"{path} has {header.rate_hz:.10g} Hz, but {first.name} "
                f"{first_header.rate_hz:.10g} Hz",
                f"resample one of them with mne and save it, {leave_out}",
            )

        # signals in the same unit, with the same references taken out; NaN where the
        # first stands still
        ratio = _spread(header, self.ch_names) / (
            _spread(first_header, self.ch_names) or np.nan
        )
        if ratio >= OTHER_UNIT or 0 < ratio <= 1 / OTHER_UNIT:
            raise BrainhiveError(
                f"{path} has signals of {ratio:.2g} times the size of those of "
                f"{first.name}: another unit",
                "mne takes V and T: multiply one of them by raw.apply_function and "
                f"save it, {leave_out}",
            )
        if header.compensation_grade != first_header.compensation_grade:
            raise BrainhiveError(
                f"{path} has CTF compensation of grade {header.compensation_grade}, "
                f"but {first.name} has grade {first_header.compensation_grade}",
                "bring both to one grade with mne's raw.apply_gradient_compensation, "
                f"{leave_out}",
            )


def keep_channels(
    headers: Mapping[Path, Header],
    types: Sequence[str] | None,
    wanted: Sequence[str],
    exclude: Sequence[str],
    whiten: bool,
) -> KeptChannels:
    """Choose the channels of one subject.

    Args:
        headers: Headers of the subject's recordings, in their order.
        types: Types of channels as mne names them; None for EEG, or else MEG.
        wanted: Names of channels in order; none for all of `types` that no recording
            marks as bad.
        exclude: Names of channels that are left out.
        whiten: Whether signals are whitened, which makes units of all channels one.

    Raises:
        BrainhiveError: if the first recording lacks a channel, has none of these types
            that is good, or channels have several units and are not whitened.
    """
    path, header = next(iter(headers.items()))
    kind_of = dict(zip(header.ch_names, header.ch_types, strict=True))
    if wanted:  # the recipe's list, in its order
        names = tuple(name for name in wanted if name not in exclude)
        _require_names(path, header, names)
    else:
        # the good channels of the types, in the order of the first recording
        chosen = types or (("eeg",) if "eeg" in header.ch_types else MEG)
        if not {*header.ch_types} & {*chosen}:
            raise BrainhiveError(
                f"{path} has no channels of type {' or '.join(chosen)}",
                f"preparation.types=…; it has: {', '.join(sorted({*header.ch_types}))}",
            )
        left_out = {*exclude, *chain(*(each.bads for each in headers.values()))}
        names = tuple(
            name
            for name, kind in kind_of.items()
            if kind in chosen and name not in left_out
        )
        if not names:
            raise BrainhiveError(
                f"{path}: all its channels of type {' or '.join(chosen)} are marked as "
                "bad or excluded",
                "preparation.channels='[NAME, …]', or correct the marks",
            )

    # one unit, unless whitening makes one of several
    kinds = tuple(kind_of[name] for name in names)
    units = {CHANNEL_UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in kinds}
    if len(units) > 1 and not whiten:
        raise BrainhiveError(
            f"channels of types {' and '.join(units.values())} have different units",
            "preparation.types=[ONE], or let them be whitened: "
            "preparation.whiten=epochs",
        )

    # positions of the file, or else those that names of EEG have in the 10-05 system
    positions = header.positions[[*map(header.ch_names.index, names)]]
    has_file_positions = not np.isnan(positions).any()
    if not has_file_positions and {*kinds} == {"eeg"}:
        positions = look_up_positions(names)
    without = [*compress(names, np.any(np.isnan(positions), 1))]
    return KeptChannels(
        headers,
        names,
        kinds,
        " and ".join(units),
        Sensors(names, None if without else positions),
        without,
        has_file_positions,
    )


def _require_names(path: Path, header: Header, names: Sequence[str]) -> None:
    if absent := ",".join(name for name in names if name not in header.ch_names):
        raise BrainhiveError(
            f"{path} has no channel {absent}",
            f"preparation.exclude=[{absent}], or rename one of its "
            f"{', '.join(header.ch_names)}",
        )


def _spread(header: Header, names: Sequence[str]) -> float:
    """Compute the median standard deviation of channels, of those that change; 0 if
    none does.
    """
    variances = header.get_variances(names)
    # channels that do not change say nothing about the unit
    variances = variances[np.isfinite(variances) & (variances > 0)]
    return float(np.sqrt(np.median(variances))) if len(variances) else 0.0


def group_by_entry(
    items: Mapping[int, Sequence[tuple[Any, ...]]],
) -> list[tuple[Any, ...]]:
    """Join numbers that have an entry in common: the entries, behind their numbers."""
    groups = defaultdict(list)
    for number, entries in items.items():
        for entry in entries:
            groups[entry].append(number)
    return [(spans(numbers), *entry) for entry, numbers in groups.items()]


def describe_channels(
    channels: KeptChannels,
) -> list[tuple[str, int, int, str, str, str]]:
    """Describe the channels of each type: their number, those that are kept or bad,
    positions and names.
    """
    # source of the positions
    header = next(iter(channels.headers.values()))
    positions = "of the file" if channels.has_file_positions else "10-05, by name"
    if without := channels.names_without_position:
        positions = (
            f"none, without {' '.join(without)}"
            if len(without) < len(channels.ch_names)
            else "none"
        )

    # one row for each type, in the order of the first file
    rows = []
    files = len(channels.headers)
    bad_in = _count_bad(channels)
    for kind in dict.fromkeys(header.ch_types):
        names = [*compress(header.ch_names, np.array(header.ch_types) == kind)]
        count = len({*names} & {*channels.ch_names})
        bad = [
            name
            if bad_in[name] == files
            else f"{name} (in {bad_in[name]} of {files} files)"
            for name in names
            if name in bad_in
        ]
        bad_names = " ".join(bad) or "–"
        located = positions if count else "–"
        rows.append((kind, len(names), count, bad_names, located, " ".join(names)))
    return rows


def _count_bad(channels: KeptChannels) -> Counter[str]:
    """Count the recordings in which each channel was marked as bad."""
    return Counter(chain(*({*header.bads} for header in channels.headers.values())))


def list_unusual_channels(channels: KeptChannels) -> Iterator[tuple[str, list[str]]]:
    """Yield a warning about channels that are probably noise or no signal of the brain,
    and their names.
    """
    # names of eyes, heart, triggers and the like
    names = np.array(channels.ch_names)
    kinds = np.array(channels.ch_types)
    eeg = [*compress(channels.ch_names, kinds == "eeg")]
    if other := [name for name in eeg if NO_EEG.fullmatch(strip_electrode_name(name))]:
        yield f"{', '.join(other)}: EEG by the file, but not by name", other

    # names of an amplifier's inputs say nothing of positions; other names may lie
    # outside the 10-05 system
    if not channels.has_file_positions:
        if are_amplifier_inputs(channels.ch_names):
            yield (
                "channels are called by inputs of BioSemi's amplifier: "
                "preparation.montage=biosemi64, or what the cap is called in mne, "
                "gives their names and positions",
                [],
            )
        is_unknown = ~np.isfinite(look_up_positions(channels.ch_names)).all(1)
        strange = [name for name in names[is_unknown].tolist() if name not in other]
        if eeg and is_unknown.mean() < 0.5 and strange:
            yield (
                f"{', '.join(strange)}: no electrode of the 10-05 system has that name",
                strange,
            )

    bad_in = _count_bad(channels)
    if bad := [name for name in channels.ch_names if name in bad_in]:
        yield f"{', '.join(bad)}: named in preparation.channels, but marked as bad", bad

    # signals of no brain's size
    first = next(iter(channels.headers.values()))
    for kind in dict.fromkeys(channels.ch_types):
        spread = _spread(first, names[kinds == kind].tolist())
        if text := describe_size(kind, spread):
            yield text, []

    # variances far from the median of the channel's type in its file
    for path, header in channels.headers.items():
        if not {*channels.ch_names} <= {*header.ch_names}:
            continue  # which the preparation refuses
        # [C]
        variances = header.get_variances(channels.ch_names)
        # [C]
        medians = np.array([np.median(variances[kinds == kind]) for kind in kinds])
        ratios = np.divide(
            variances, medians, out=np.ones(len(names)), where=medians > 0
        )
        for name, ratio in zip(channels.ch_names, ratios, strict=True):
            if ratio > MANY_TIMES:
                unit = (
                    ", as if it had no unit" if ratio * MIN_VARIANCE_SHARE > 1 else ""
                )
                yield (
                    f"{name} has {ratio:.0f} times the median variance in {path.name}"
                    f"{unit}",
                    [name],
                )
            elif ratio <= MIN_VARIANCE_SHARE**2:
                yield f"{name} is flat in {path.name}", [name]


def describe_size(kind: str, spread: float) -> str:
    """Describe signals of no brain's size; empty where they may be a brain's.

    Args:
        kind: Type of their channels, as mne names it.
        spread: Their standard deviation within a second, in mne's unit.
    """
    factor, unit = CHANNEL_UNITS.get(kind, (1.0, "SI"))
    low, high = WORKING.get(kind, (0.0, np.inf))
    if not spread or low < spread * factor < high:
        return ""
    # read as the unit that mne takes, or turned into it twice
    is_large = spread * factor > high
    si_unit = {"mag": "T", "grad": "T/m"}.get(kind, "V")
    cause = f"{unit} that were read as {si_unit}" if is_large else "scaled twice"
    return (
        f"{kind} channels have a spread of {spread * factor:.2g} {unit}, far from any "
        f"brain's: probably {cause}; multiply them by "
        f"{1 / factor if is_large else factor:.0e} (mne's apply_function)"
    )


def compare_rates_and_references(
    subject_channels: Mapping[int, KeptChannels], rate_hz: float | None
) -> Iterator[str]:
    """Describe how the rates and references of recordings differ.

    Args:
        subject_channels: The channels that are kept of each subject.
        rate_hz: Rate to which faster recordings are resampled; None where none is.
    """
    # first file of each subject, by value
    rates = dict[str, dict[int, str]]()
    references = dict[str, dict[int, str]]()
    for subject, channels in subject_channels.items():
        for path, header in channels.headers.items():
            rate = f"{min(header.rate_hz, rate_hz or np.inf):.5g}"
            rates.setdefault(rate, {}).setdefault(subject, path.name)
            references.setdefault(header.reference, {}).setdefault(subject, path.name)
    for values, text in (
        (
            rates,
            "rates in Hz, and cannot be trained together, but with "
            f"preparation.rate_hz={min(rates, key=float)}",
        ),
        (references, "references, and are not comparable; mne's set_eeg_reference"),
    ):
        if len(values) > 1:
            texts = [
                f"{value} of subject {spans([*files])} ({next(iter(files.values()))})"
                for value, files in values.items()
            ]
            yield f"recordings have different {text}: {'; '.join(texts)}"


def compare_subjects(
    subject_channels: Mapping[int, KeptChannels],
    suspects: Sequence[str],
    exclude: Sequence[str],
) -> tuple[list[str], str]:
    """Describe how the channels of subjects differ, and how all come to the same ones,
    without suspects.

    Args:
        subject_channels: The channels that are kept of each subject.
        suspects: Channels that are probably no signal of the brain.
        exclude: Channels that the recipe leaves out.

    Returns:
        Warnings; and the override, empty where nothing is to be changed.
    """
    # subjects that lack channels of others, or have them in another order
    kept = {
        subject: channels.ch_names for subject, channels in subject_channels.items()
    }
    all_names = dict.fromkeys(name for names in kept.values() for name in names)
    lacking = {
        subject: [(" ".join(name for name in all_names if name not in names),)]
        for subject, names in kept.items()
    }
    texts = [
        f"subject {subjects} {f'lacks {names}' if names else 'has all'}"
        for subjects, names in group_by_entry(lacking)
    ]
    lines = []
    if len(texts) > 1:
        lines = [
            "subjects keep different channels, and cannot be trained together: "
            f"{'; '.join(texts)}"
        ]
    elif len({*kept.values()}) > 1:
        lines = [
            "subjects have their channels in different orders: they cannot be trained "
            "together"
        ]
    if not (suspects or lines):
        return lines, ""

    # channels that all subjects have and are no suspects
    common = [
        name
        for name in all_names
        if name not in suspects and all(name in names for names in kept.values())
    ]
    out = dict.fromkeys([*exclude, *(name for name in all_names if name not in common)])
    override = f"preparation.exclude=[{','.join(out)}]"
    # an exclusion keeps the order of each subject, so different orders need a list
    orders = {tuple(filter(common.__contains__, names)) for names in kept.values()}
    if len(orders) > 1:
        override = f"preparation.channels=[{','.join(common)}]"
    return lines, f"{shlex.quote(override)} leaves them out"
