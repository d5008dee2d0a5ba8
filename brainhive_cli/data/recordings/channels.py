"""Channels of a subject's recordings, and unusual facts about them."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Float64
from brainhive_cli.data.files import format_ranges
from brainhive_cli.data.recordings.headers import Header
from brainhive_cli.data.recordings.opening import CHANNEL_UNITS, get_scales
from brainhive_cli.data.signals import (
    EYE_NAME,
    MIN_VARIANCE_SHARE,
    STIMULUS_NAME,
    Sensors,
    are_amplifier_inputs,
    look_up_positions,
    strip_electrode_name,
)

MODALITIES = dict.fromkeys(("mag", "grad", "ref_meg"), "MEG")
MODALITIES |= dict.fromkeys(("ecog", "seeg", "dbs"), "iEEG")
"""Modality by type of channel in mne. Other types have their own: eeg is EEG."""


@dataclass(frozen=True)
class KeptChannels:
    """Channels [C] of a subject that a preparation keeps.

    Attributes:
        headers: Headers of the subject's recordings, in order.
        ch_names: Names [C].
        ch_types: Types [C] in mne, in the first recording.
        unit: Unit of the signals before whitening.
        space: Names, and positions if all positions are known.
        names_without_position: Names of the channels without a position.
        has_file_positions: If True, the first recording has all positions.
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
        """Modality of the channels, such as "MEG"."""
        modalities = [
            MODALITIES.get(ch_type, ch_type.upper()) for ch_type in self.ch_types
        ]
        return " and ".join(dict.fromkeys(modalities))

    def measure_variances(self, path: Path) -> Float64:
        """Return the variances [C] of a recording in the units of `CHANNEL_UNITS`."""
        variances = self.headers[path].get_variances(self.ch_names)
        return variances * np.square(get_scales(self.ch_types))

    def measure_spread(self, path: Path) -> float:
        """Return the median standard deviation of the channels that vary, or 0."""
        names = [name for name in self.ch_names if name in self.headers[path].ch_names]
        return _measure_spread(self.headers[path], names)

    def require_consistent(self, path: Path) -> None:
        """Raise an error if a recording does not fit the first recording.

        It must have the same channels, sampling rate and CTF compensation.
        """
        first_path, first_header = next(iter(self.headers.items()))
        header = self.headers[path]
        _require_names(path, header, self.ch_names)
        hint = "or leave it out: preparation.files=PATTERN"
        # Headers round the sampling rates of a subject.
        if abs(header.rate_hz / first_header.rate_hz - 1) > 1e-5:
            raise BrainhiveError(
                f"{path} was sampled at {header.rate_hz:.10g} Hz, but "
                f"{first_path.name} at {first_header.rate_hz:.10g} Hz",
                f"resample one of them with mne and save it, {hint}",
            )

        if header.compensation_grade != first_header.compensation_grade:
            raise BrainhiveError(
                f"{path} has CTF compensation of grade {header.compensation_grade}, "
                f"but {first_path.name} has grade {first_header.compensation_grade}",
                "bring both to one grade with mne's raw.apply_gradient_compensation, "
                f"{hint}",
            )


def keep_channels(
    headers: Mapping[Path, Header],
    types: Sequence[str] | None,
    names: Sequence[str],
    exclude: Sequence[str],
    whiten: bool,
) -> KeptChannels:
    """Choose the channels of a subject.

    Args:
        headers: Headers of the subject's recordings, in order.
        types: Types of channels in mne, or None for EEG, or for MEG if there is no EEG.
        names: Names of the channels in order. Empty for all channels of `types` that no
            recording marks as bad.
        exclude: Names of channels to leave out.
        whiten: If True, signals are whitened later, so channels may differ in unit.

    Raises:
        BrainhiveError: if no channel or a missing channel is chosen, or if units differ
            without whitening.
    """
    path, header = next(iter(headers.items()))
    type_of = dict(zip(header.ch_names, header.ch_types, strict=True))
    ch_names = [name for name in names if name not in exclude]
    if names:
        _require_names(path, header, ch_names)
    else:
        # good channels of the types, in the order of the first recording
        default_types = ("eeg",) if "eeg" in header.ch_types else ("mag", "grad")
        used_types = types or default_types
        if set(header.ch_types).isdisjoint(used_types):
            raise BrainhiveError(
                f"{path} has no channels of type {' or '.join(used_types)}",
                f"choose a type that it has: preparation.types="
                f"{' or '.join(sorted(set(header.ch_types)))}",
            )
        excluded_names = set(exclude)
        for other_header in headers.values():
            excluded_names.update(other_header.bads)
        for name, ch_type in type_of.items():
            if ch_type in used_types and name not in excluded_names:
                ch_names.append(name)
        if not ch_names:
            raise BrainhiveError(
                f"all channels of type {' or '.join(used_types)} in {path} are marked "
                "as bad or excluded",
                "correct the marks, or name channels: preparation.channels='[NAME, …]'",
            )

    # whitened channels have the same unit
    ch_types = tuple(type_of[name] for name in ch_names)
    type_of_unit = {}
    for ch_type in ch_types:
        unit = CHANNEL_UNITS.get(ch_type, (1.0, "SI"))[1]
        type_of_unit[unit] = ch_type
    if len(type_of_unit) > 1 and not whiten:
        raise BrainhiveError(
            f"channels of types {' and '.join(type_of_unit.values())} have different "
            "units",
            "choose one type (preparation.types=[TYPE]), or whiten the signals "
            "(preparation.whiten=epochs)",
        )

    # positions in the file, or else of the EEG names in the 10-05 system
    positions = header.positions[list(map(header.ch_names.index, ch_names))]
    has_file_positions = not np.isnan(positions).any()
    if not has_file_positions and set(ch_types) == {"eeg"}:
        positions = look_up_positions(ch_names)
    without_position = list(compress(ch_names, np.any(np.isnan(positions), 1)))
    return KeptChannels(
        headers,
        tuple(ch_names),
        ch_types,
        unit=" and ".join(type_of_unit),
        space=Sensors(tuple(ch_names), None if without_position else positions),
        names_without_position=without_position,
        has_file_positions=has_file_positions,
    )


def group_by_entry(
    items: Mapping[int, Sequence[tuple[Any, ...]]],
) -> list[tuple[Any, ...]]:
    """Make a table row of each entry, headed by all numbers that have the entry.

    `{1: [("a", 5)], 2: [("a", 5)]}` becomes `[("1–2", "a", 5)]`.
    """
    groups = defaultdict(list)
    for number, entries in items.items():
        for entry in entries:
            groups[entry].append(number)
    return [(format_ranges(numbers),) + entry for entry, numbers in groups.items()]


def describe_channels(
    channels: KeptChannels,
) -> list[tuple[str, int, int, str, str, str]]:
    """Describe the channels of each type, in the order of the first recording.

    Returns:
        Type, number of channels, number of kept channels, bad channels, source of the
        positions and names of all channels.
    """
    header = next(iter(channels.headers.values()))
    without_position = channels.names_without_position
    if not without_position:
        positions = "of the file" if channels.has_file_positions else "10-05, by name"
    elif len(without_position) < len(channels.ch_names):
        positions = f"none, without {' '.join(without_position)}"
    else:
        positions = "none"

    rows = []
    n_files = len(channels.headers)
    bad_counts = _count_bads(channels)
    for ch_type in dict.fromkeys(header.ch_types):
        names = list(compress(header.ch_names, np.array(header.ch_types) == ch_type))
        n_kept = len(set(names) & set(channels.ch_names))
        bads = []
        for name in names:
            count = bad_counts[name]
            if count == n_files:
                bads.append(name)
            elif count:
                bads.append(f"{name} (in {count} of {n_files} files)")
        kept_positions = positions if n_kept else "–"
        bad_names = " ".join(bads) or "–"
        rows.append(
            (ch_type, len(names), n_kept, bad_names, kept_positions, " ".join(names))
        )
    return rows


def list_unusual_channels(channels: KeptChannels) -> Iterator[tuple[str, list[str]]]:
    """Yield warnings about channels that probably hold no brain signal.

    Yields:
        Text, and names of the channels to leave out.
    """
    # names of sensors of eyes, heart, triggers and the like
    names = np.array(channels.ch_names)
    ch_types = np.array(channels.ch_types)
    non_eeg = []
    for name in names[ch_types == "eeg"].tolist():
        # Names that amplifiers give to channels without EEG: eyes, heart, muscles,
        # triggers, other sensors.
        if re.fullmatch(
            rf"{EYE_NAME.pattern}|{STIMULUS_NAME.pattern}"
            r"|.*(ECG|EKG|EMG|PULSE|PLETH|RESP|GSR|AUX|COUNTER|BATTERY).*"
            r"|(EXG|LO|SO|IO|ERG|BIP|DC|ACC|GYR|TEMP|SPO|CHIN|EDA|PPG|CMS|DRL)"
            r"[ _-]?[A-Z]?\d*",
            strip_electrode_name(name),
            re.IGNORECASE,
        ):
            non_eeg.append(name)
    if non_eeg:
        yield f"{', '.join(non_eeg)}: EEG by the file, but not by name", non_eeg

    # names without a position
    if not channels.has_file_positions:
        if are_amplifier_inputs(channels.ch_names):
            yield (
                "channels are named by inputs of BioSemi's amplifier: "
                "preparation.montage=biosemi64, or another montage of mne, gives their "
                "names and positions",
                [],
            )
        is_unknown = ~np.isfinite(look_up_positions(channels.ch_names)).all(1)
        unknown = [name for name in names[is_unknown].tolist() if name not in non_eeg]
        if "eeg" in ch_types and is_unknown.mean() < 0.5 and unknown:
            yield (
                f"{', '.join(unknown)}: no electrode of the 10-05 system has that name",
                unknown,
            )

    bad_counts = _count_bads(channels)
    bads = [name for name in channels.ch_names if name in bad_counts]
    if bads:
        yield (
            f"{', '.join(bads)}: named in preparation.channels, but marked as bad",
            bads,
        )

    # signals that are too large or too small for a brain
    first_header = next(iter(channels.headers.values()))
    for ch_type in dict.fromkeys(channels.ch_types):
        spread = _measure_spread(first_header, names[ch_types == ch_type].tolist())
        text = describe_size(ch_type, spread)
        if text:
            yield text, []

    # variances far from the median of the channels of the same type
    for path, header in channels.headers.items():
        if not set(channels.ch_names) <= set(header.ch_names):
            continue  # the preparation raises an error
        variances = header.get_variances(channels.ch_names)  # [C]
        medians = np.ones(len(names))  # [C]
        for ch_type in set(channels.ch_types):
            medians[ch_types == ch_type] = np.median(variances[ch_types == ch_type])
        ratios = np.ones(len(names))
        np.divide(variances, medians, out=ratios, where=medians > 0)
        for name, ratio in zip(channels.ch_names, ratios, strict=True):
            # A channel above 20 times the median variance is probably noise.
            if ratio > 20:
                has_unit = ratio * MIN_VARIANCE_SHARE <= 1
                unit = "" if has_unit else ", as if it had no unit"
                yield (
                    f"{name} has {ratio:.0f} times the median variance in {path.name}"
                    f"{unit}",
                    [name],
                )
            elif ratio <= MIN_VARIANCE_SHARE**2:
                yield f"{name} is flat in {path.name}", [name]


def describe_size(ch_type: str, spread: float) -> str:
    """Describe signals that are too large or too small for a brain, else return "".

    Args:
        ch_type: Type of their channels in mne.
        spread: Their standard deviation within a second, in mne's unit.
    """
    factor, unit = CHANNEL_UNITS.get(ch_type, (1.0, "SI"))
    # Limits of the standard deviation within a second for any working device, by type
    # of channel, in µV, fT and fT/cm.
    spread_limits = {"eeg": (0.01, 10_000), "mag": (0.1, 1e7), "grad": (0.01, 1e6)}
    low, high = spread_limits.get(ch_type, (0.0, np.inf))
    if not spread or low < spread * factor < high:
        return ""
    is_large = spread * factor > high
    si_unit = {"mag": "T", "grad": "T/m"}.get(ch_type, "V")
    cause = f"{unit} that were read as {si_unit}" if is_large else "scaled twice"
    correction = 1 / factor if is_large else factor
    return (
        f"{ch_type} channels have a spread of {spread * factor:.2g} {unit}, far from "
        f"any brain's: probably {cause}; multiply them by {correction:.0e} (mne's "
        "apply_function)"
    )


def compare_rates_and_references(
    subject_channels: Mapping[int, KeptChannels], rate_hz: float | None
) -> Iterator[str]:
    """Describe how the rates and references of recordings differ.

    Args:
        subject_channels: Kept channels of each subject.
        rate_hz: Rate to which faster recordings are resampled, or None.
    """
    # name of the first file of each subject, by rate and by reference
    rates: dict[str, dict[int, str]] = {}
    references: dict[str, dict[int, str]] = {}
    for subject, channels in subject_channels.items():
        for path, header in channels.headers.items():
            rate = f"{min(header.rate_hz, rate_hz or np.inf):.5g}"
            rates.setdefault(rate, {}).setdefault(subject, path.name)
            references.setdefault(header.reference, {}).setdefault(subject, path.name)
    if len(rates) > 1:
        yield (
            "recordings have different rates in Hz, and cannot be trained together "
            f"without preparation.rate_hz={min(rates, key=float)}: "
            f"{_join_values(rates)}"
        )
    if len(references) > 1:
        yield (
            "recordings have different references, and are not comparable; use mne's "
            f"set_eeg_reference: {_join_values(references)}"
        )


def compare_subjects(
    subject_channels: Mapping[int, KeptChannels],
    suspects: Sequence[str],
    exclude: Sequence[str],
) -> tuple[list[str], str]:
    """Describe how the channels of subjects differ, and how to make them equal.

    Args:
        subject_channels: Kept channels of each subject.
        suspects: Channels that probably hold no brain signal.
        exclude: Channels that the recipe leaves out.

    Returns:
        Warnings, and the override that makes the channels equal and leaves out the
        suspects, or "" without warnings and suspects.
    """
    # find subjects that lack channels, or have them in another order
    all_names: dict[str, None] = {}
    for channels in subject_channels.values():
        all_names |= dict.fromkeys(channels.ch_names)
    absent_names = {}
    unshared_names = set()
    orders = set()
    for subject, channels in subject_channels.items():
        absent = [name for name in all_names if name not in channels.ch_names]
        absent_names[subject] = [(" ".join(absent),)]
        unshared_names.update(absent)
        orders.add(channels.ch_names)
    texts = []
    for subjects, names in group_by_entry(absent_names):
        texts.append(f"subject {subjects} {f'lacks {names}' if names else 'has all'}")
    lines = []
    if len(texts) > 1:
        lines.append(
            "subjects keep different channels, and cannot be trained together: "
            f"{'; '.join(texts)}"
        )
    elif len(orders) > 1:
        lines.append(
            "subjects have their channels in different orders, and cannot be trained "
            "together"
        )
    if not (suspects or lines):
        return lines, ""

    # keep channels that all subjects have, without suspects
    common = []
    excluded = dict.fromkeys(exclude)
    for name in all_names:
        if name in suspects or name in unshared_names:
            excluded[name] = None
        else:
            common.append(name)
    override = f"preparation.exclude=[{','.join(excluded)}]"
    # exclusion does not change the order, so different orders need a list
    common_orders = set()
    for ch_names in orders:
        common_orders.add(tuple(name for name in ch_names if name in common))
    if len(common_orders) > 1:
        override = f"preparation.channels=[{','.join(common)}]"
    return lines, f"{shlex.quote(override)} leaves them out"


def _require_names(path: Path, header: Header, names: Sequence[str]) -> None:
    """Raise an error if a recording lacks a channel."""
    absent_names = ",".join(name for name in names if name not in header.ch_names)
    if absent_names:
        raise BrainhiveError(
            f"{path} has no channel {absent_names}",
            f"leave it out of all recordings: preparation.exclude=[{absent_names}]; or "
            "choose or rename (preparation.rename) channels that it has: "
            f"{', '.join(header.ch_names)}",
        )


def _measure_spread(header: Header, names: Sequence[str]) -> float:
    """Return the median standard deviation of the channels that vary, or 0."""
    variances = header.get_variances(names)
    is_varying = np.isfinite(variances) & (variances > 0)
    if not is_varying.any():
        return 0.0
    return float(np.sqrt(np.median(variances[is_varying])))


def _count_bads(channels: KeptChannels) -> Counter[str]:
    """Count the recordings that mark each channel as bad."""
    counts = Counter[str]()
    for header in channels.headers.values():
        counts.update(set(header.bads))
    return counts


def _join_values(values: Mapping[str, Mapping[int, str]]) -> str:
    """Describe each value with its subjects and an example file."""
    texts = []
    for value, file_names in values.items():
        file_name = next(iter(file_names.values()))
        texts.append(
            f"{value} of subject {format_ranges(list(file_names))} ({file_name})"
        )
    return "; ".join(texts)
