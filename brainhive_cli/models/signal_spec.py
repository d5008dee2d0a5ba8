"""Signals that a brain model takes: sensors or voxels, samples, unit and subjects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.results import format_setting

if TYPE_CHECKING:
    from torch import Tensor

UNIT_SIZES = {
    "V": (1.0, "V"),
    "mV": (1e-3, "V"),
    "µV": (1e-6, "V"),
    "nV": (1e-9, "V"),
    "T": (1.0, "T"),
    "pT": (1e-12, "T"),
    "fT": (1e-15, "T"),
    "T/m": (1.0, "T/m"),
    "fT/m": (1e-15, "T/m"),
    "fT/cm": (1e-13, "T/m"),
}
"""Factor to the SI unit, and the SI unit, keyed by unit."""
MEG_NAME_PATTERN = re.compile(r"MEG|M[LRZ][A-Z]\d")
"""Beginning of the names of MEG sensors (MEGIN's and CTF's)."""


def _list_spellings() -> dict[str, str]:
    """List other spellings of units, such as `microvolts` for µV.

    Returns:
        Units, keyed by the casefolded spelling.
    """
    spellings = {"uv": "µV"}
    # casefold also turns the micro sign into the Greek letter mu
    for unit in UNIT_SIZES:
        spellings[unit.casefold()] = unit
    # Letters of SI prefixes, keyed by prefix.
    prefix_letters = {
        "": "",
        "milli": "m",
        "micro": "µ",
        "nano": "n",
        "pico": "p",
        "femto": "f",
    }
    for prefix, letter in prefix_letters.items():
        for word, unit in (("volt", "V"), ("tesla", "T")):
            spellings[f"{prefix}{word}"] = letter + unit
            spellings[f"{prefix}{word}s"] = letter + unit
    return spellings


UNIT_SPELLINGS = _list_spellings()
"""Units, keyed by casefolded spelling."""


def guess_modality(names: Sequence[str], unit: str) -> str:
    """Guess the modality of a recording without channel types.

    Args:
        names: Names of the sensors. Without any, the modality is fMRI.
        unit: Unit of the signals, which decides before the names.

    Returns:
        "EEG", "MEG" or "fMRI".
    """
    if not names:
        return "fMRI"
    is_volts = normalise_unit(unit).endswith("V")
    is_meg = "T" in unit or (not is_volts and any(map(MEG_NAME_PATTERN.match, names)))
    return "MEG" if is_meg else "EEG"


@dataclass(frozen=True)
class SignalSpec:
    """Signals for which a brain model is built.

    Attributes:
        names: Names of the C sensors. Empty for voxels.
        samples: Number T of samples. 1 for fMRI.
        subjects: Training subjects. A subject index is a position in this list.
        widths: Number C or V of each subject, the same for all in M/EEG.
        rate_hz: Sampling rate, if known.
        times_s: Times [T] after stimulus onset in seconds, if known.
        regions: Voxel indices of each region and subject, keyed by region.
        positions: Positions [C, 3] of the sensors on the head in metres, if all are
            known.
        unit: Unit of the signals. Empty if unknown.
        preparation: Preparation steps that the stores of all subjects have in common,
            by dotted key.
        signal: Section `signal` of the recipe. Empty if unknown.
        modality: Modality. By default, it is guessed from unit and names.
        scale: Factor [C] of each channel, or [1] of all, by which a model multiplies
            the signals that it reads. Empty for none.

    Raises:
        BrainhiveError: if the lengths of these lists contradict each other.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    names: tuple[str, ...]
    samples: int
    subjects: tuple[int, ...]
    widths: tuple[int, ...]
    rate_hz: float | None = None
    times_s: tuple[float, ...] | None = None
    regions: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    positions: tuple[tuple[float, float, float], ...] | None = None
    unit: str = ""
    preparation: Mapping[str, Any] = field(default_factory=dict)
    signal: Mapping[str, Any] = field(default_factory=dict)
    modality: str = ""
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Guess the modality, and check the lengths of the lists."""
        modality = self.modality or guess_modality(self.names, self.unit)
        object.__setattr__(self, "modality", modality)

        # description, length and expected length of each list
        lengths = [("widths", len(self.widths), len(self.subjects))]
        if self.names:
            for width in self.widths:
                lengths.append(("sensors", len(self.names), width))
        if self.times_s is not None:
            lengths.append(("times", len(self.times_s), self.samples))
        if self.positions is not None:
            lengths.append(("positions", len(self.positions), len(self.names)))
        for region, subject_masks in self.regions.items():
            lengths.append(
                (f"masks of {region}", len(subject_masks), len(self.subjects))
            )
        for description, length, expected_length in lengths:
            if length != expected_length:
                raise BrainhiveError(
                    f"signals have {length} {description}, and need {expected_length}"
                )

    @property
    def channels(self) -> int:
        """Common width of all subjects, or number of sensors without subjects.

        Raises:
            BrainhiveError: if subjects differ in width, or there are neither names nor
                subjects.
        """
        widths = set(self.widths)
        if not widths and self.names:
            widths = {len(self.names)}
        if len(widths) != 1:
            raise BrainhiveError(
                "subjects have different widths: "
                f"{', '.join(map(str, self.widths)) or 'none'}",
                "a backbone that takes a width for each subject, or a selection of "
                "equal width",
            )
        return widths.pop()

    def refuse_other_voxels(
        self,
        subject: int,
        width: int,
        regions: Mapping[str, Sequence[int]],
        source: str,
    ) -> None:
        """Raise an error if a training subject has other voxels than in training.

        Args:
            subject: Subject. New subjects can have any voxels.
            width: Number V of voxels.
            regions: Voxel indices of each region.
            source: Source of the voxels, for the error.

        Raises:
            BrainhiveError: if the number of voxels or a region differs.
        """
        if self.names or subject not in self.subjects:
            return
        row = self.subjects.index(subject)
        hint = (
            "use the masks and the signal.region_split that the model was trained with"
        )
        if width != self.widths[row]:
            raise BrainhiveError(
                f"{source} has {width} voxels, the model was trained on "
                f"{self.widths[row]} of this subject",
                hint,
            )
        for region, subject_masks in self.regions.items():
            voxels = tuple(regions.get(region, ()))
            if voxels != subject_masks[row]:
                counts = f"{len(voxels)} voxels, {len(subject_masks[row])} in training"
                raise BrainhiveError(
                    f"{source} has another mask of {region}: {counts}", hint
                )

    def refuse_other_signals(
        self,
        unit: str,
        rate_hz: float | None,
        preparation: Mapping[str, Any],
        source: str,
        is_same_store: bool,
    ) -> None:
        """Raise an error if signals were prepared in another way than for training.

        Args:
            unit: Unit of the signals.
            rate_hz: Sampling rate, or None.
            preparation: Preparation steps by dotted key. Empty if unknown.
            source: Source of the signals, for the error.
            is_same_store: If True, the signals come from the path of the training
                signals, and all steps are compared. Otherwise only steps that both
                have in common, as other data sets have other steps.

        Raises:
            BrainhiveError: if a value differs that both sides know.
        """
        pairs: dict[str, tuple[Any, Any]] = {}
        if unit and self.unit and normalise_unit(unit) != normalise_unit(self.unit):
            pairs["unit"] = (unit, self.unit)
        if rate_hz and self.rate_hz:
            pairs["rate_hz"] = (round(rate_hz, 3), round(self.rate_hz, 3))

        # models of other projects know neither unit nor steps
        steps = dict(preparation)
        training_steps = dict(self.preparation)
        origin = "simulated" if steps.pop("simulated", False) else "recorded"
        is_simulated = training_steps.pop("simulated", False)
        training_origin = "simulated" if is_simulated else "recorded"
        if is_same_store and self.unit:
            pairs["signals"] = (origin, training_origin)

        if is_same_store and steps and training_steps:
            keys = steps.keys() | training_steps.keys()
        else:
            keys = (steps.keys() & training_steps.keys()) - {"kind"}
        # a recording slower than the rate of its preparation has a lower true rate, so
        # the rates of two preparations replace the true rates
        for key in sorted(keys):
            pairs[key] = (steps.get(key), training_steps.get(key))

        texts = []
        for key, (value, training_value) in pairs.items():
            text = _describe_difference(key, value, training_value)
            if text:
                texts.append(text)
        if texts:
            raise BrainhiveError(
                f"{source} was made in another way than the training signals: "
                f"{'; '.join(texts)}",
                "prepare both in one way, or train again on these signals",
            )


def _describe_difference(key: str, value: Any, training_value: Any) -> str:
    """Describe two different values of a key. Empty if they are equal in JSON."""
    if json.dumps(value) == json.dumps(training_value):
        return ""
    text = format_setting(key, value)
    return f"{key} {text}, not {format_setting(key, training_value)}"


def check_signal(signal: Tensor, channels: int, samples: int) -> None:
    """Raise an error unless signals have the shape [B, channels, samples].

    Raises:
        BrainhiveError: if the shape differs.
    """
    if signal.ndim != 3 or signal.shape[1:] != (channels, samples):
        raise BrainhiveError(
            f"the brain encoder takes signals [B, {channels}, {samples}] (batch, "
            f"channels, samples), got {list(signal.shape)}",
            "choose the channels and the window that it was trained on",
        )


def count_output_samples(samples: int, *filters: tuple[int, int]) -> int:
    """Count the output samples of a sequence of unpadded convolutions and poolings.

    Args:
        samples: Number T of input samples.
        filters: Kernel and stride of each convolution or pooling.

    Raises:
        BrainhiveError: if the window is too short for an output sample.
    """
    # the shortest window with an output sample
    min_samples = 1
    for kernel, stride in reversed(filters):
        min_samples = (min_samples - 1) * stride + kernel
    if samples < min_samples:
        raise BrainhiveError(
            f"the window has {samples} samples, the brain encoder's filters need "
            f"{min_samples}",
            "take a longer window",
        )
    for kernel, stride in filters:
        samples = (samples - kernel) // stride + 1
    return samples


def build_resampling_matrix(samples: int, rate_hz: float, to_rate_hz: float) -> Tensor:
    """Build a matrix that resamples windows with scipy's polyphase filter.

    The filter removes frequencies that the new rate cannot represent. Beyond its ends,
    a window continues along the line through its first and last sample, so that offset
    and drift make no step.

    Args:
        samples: Number T of samples.
        rate_hz: Sampling rate.
        to_rate_hz: New sampling rate.

    Returns:
        Matrix [T', T].
    """
    import torch
    from scipy.signal import resample_poly

    ratio = Fraction(to_rate_hz / rate_hz).limit_denominator(1000)
    # the filter is linear, so the response to each unit impulse is a column
    matrix = resample_poly(
        np.eye(samples), ratio.numerator, ratio.denominator, padtype="line"
    )
    return torch.tensor(matrix, dtype=torch.float32)


def convert_unit(unit: str, target_unit: str) -> float:
    """Return the factor from a unit to another, a power of ten.

    Raises:
        KeyError: if one of the units is unknown, or they measure something else.
    """
    size, si_unit = UNIT_SIZES[normalise_unit(unit)]
    target_size, target_si_unit = UNIT_SIZES[target_unit]
    if si_unit != target_si_unit:
        raise KeyError(unit)
    return float(10.0 ** round(math.log10(size / target_size)))


def normalise_unit(spelling: str) -> str:
    """Return the usual name of a unit, such as µV for uV or microvolts.

    Unknown units are returned unchanged, without surrounding spaces.
    """
    text = spelling.strip()
    return UNIT_SPELLINGS.get(text.casefold(), text)
