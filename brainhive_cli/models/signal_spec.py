"""Signals as a brain model knows them: sensors or voxels, samples, units, subjects; and
signals of another size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import format_setting

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
"""Factor to the SI unit, and that unit, by name."""
MEG_NAME_PATTERN = re.compile(r"MEG|M[LRZ][A-Z]\d")
"""Beginning of the names of MEG sensors (MEGIN's and CTF's)."""
# written out: microvolt and microvolts are µV
UNIT_WORDS = {
    f"{prefix}{word}{plural}": f"{letter}{unit}"
    for word, unit in (("volt", "V"), ("tesla", "T"))
    for prefix, letter in {
        "": "",
        "milli": "m",
        "micro": "µ",
        "nano": "n",
        "pico": "p",
        "femto": "f",
    }.items()
    for plural in ("", "s")
}
# casefold also turns the micro sign into the Greek letter mu
UNIT_SPELLINGS = (
    UNIT_WORDS | {unit.casefold(): unit for unit in UNIT_SIZES} | {"uv": "µV"}
)


def guess_modality(names: Sequence[str], unit: str) -> str:
    """Name the kind of recordings whose types of channels are not known: by the unit,
    else by the sensors; fMRI where there are none.
    """
    if not names:
        return "fMRI"
    is_volts = normalise_unit(unit).endswith("V")
    is_meg = "T" in unit or (not is_volts and any(map(MEG_NAME_PATTERN.match, names)))
    return "MEG" if is_meg else "EEG"


@dataclass(frozen=True)
class SignalSpec:
    """Signals that a brain model is built for.

    Attributes:
        names: Sensors in the order of the signal's C channels; () for voxels.
        samples: T; 1 for fMRI.
        subjects: Subjects trained on; a signal's subject index is the position in this
            list.
        widths: C or V of each subject; equal for sensors.
        rate_hz: Sampling rate, where it is known.
        times_s: [T] seconds after stimulus onset, where they are known.
        regions: Indices of each region's voxels, by region and then by subject.
        positions: [C, 3] positions of the sensors on the head in metres, where all are
            known.
        unit: Of the signals; empty where it is not known.
        preparation: Steps that made the signals, by dotted key, as far as all subjects'
            stores say the same.
        signal: The section `signal` of the recipe: which part of a recording is read,
            and how it is scaled and normalised; empty where it is not known.
        modality: Kind of the recordings; where it is not given, by unit and names.

    Raises:
        BrainhiveError: if two of these lists contradict each other.
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

    def __post_init__(self) -> None:
        """Check every list against the others."""
        modality = self.modality or guess_modality(self.names, self.unit)
        object.__setattr__(self, "modality", modality)
        # lists of subjects, sensors and samples have matching lengths
        lengths = [("widths", len(self.widths), len(self.subjects))]
        lengths += [
            ("sensors", len(self.names), width) for width in self.widths if self.names
        ]
        if self.times_s is not None:
            lengths.append(("times", len(self.times_s), self.samples))
        if self.positions is not None:
            lengths.append(("positions", len(self.positions), len(self.names)))
        for region, subject_masks in self.regions.items():
            lengths.append(
                (f"masks of {region}", len(subject_masks), len(self.subjects))
            )
        for words, count, expected in lengths:
            if count != expected:
                raise BrainhiveError(
                    f"signals have {count} {words}, and need {expected}"
                )

    @property
    def channels(self) -> int:
        """The width that all subjects have.

        Raises:
            BrainhiveError: if subjects differ in width, or there are neither names nor
                subjects.
        """
        # without subjects, the names of sensors tell the width
        widths = set(self.widths) or ({len(self.names)} if self.names else set())
        if len(widths) != 1:
            raise BrainhiveError(
                "subjects have different widths: "
                f"{', '.join(map(str, self.widths)) or 'none'}",
                "a backbone that takes a width for each subject, or a selection of "
                "equal width",
            )
        return widths.pop()

    def refuse_other_voxels(
        self, subject: int, width: int, regions: Mapping[str, Sequence[int]], where: str
    ) -> None:
        """Refuse voxels of a subject trained on that are not those that the model was
        built for.

        Args:
            subject: A subject; one who was not trained on may have any voxels.
            width: V.
            regions: Indices of each region's voxels among V.
            where: What the voxels are of, for errors.

        Raises:
            BrainhiveError: naming what differs.
        """
        if self.names or subject not in self.subjects:
            return
        # the number of voxels, then the mask of each region
        row = self.subjects.index(subject)
        way = (
            "use the masks and the signal.region_split that the model was trained with"
        )
        if width != self.widths[row]:
            raise BrainhiveError(
                f"{where} has {width} voxels, the model was trained on "
                f"{self.widths[row]} of this subject",
                way,
            )
        for region, subject_masks in self.regions.items():
            voxels = tuple(regions.get(region, ()))
            if voxels != subject_masks[row]:
                counts = f"{len(voxels)} voxels, {len(subject_masks[row])} in training"
                raise BrainhiveError(
                    f"{where} has another mask of {region}: {counts}", way
                )

    def refuse_other_signals(
        self,
        unit: str,
        rate_hz: float | None,
        preparation: Mapping[str, Any],
        where: str,
        is_same_store: bool,
    ) -> None:
        """Refuse signals that were made in another way than those that the model was
        trained on.

        Args:
            unit: Of the signals.
            rate_hz: Their sampling rate; None where there is none.
            preparation: Steps that made them, by dotted key; nothing is compared where
                either side has none.
            where: What they are of, for errors.
            is_same_store: Whether they lie where those of the training lay: all steps
                are then compared. Of other data sets, which have preparations of their
                own, those that both name.

        Raises:
            BrainhiveError: naming what differs.
        """
        # unit and rate, where both sides know them
        rates_hz = tuple(rate and round(rate, 3) for rate in (rate_hz, self.rate_hz))
        pairs = {"unit": (unit, self.unit), "rate_hz": rates_hz}
        if normalise_unit(unit) == normalise_unit(self.unit):
            del pairs["unit"]
        pairs = {key: pair for key, pair in pairs.items() if all(pair)}

        # simulated instead of recorded, and the steps; models of other projects know no
        # unit and no step
        here = dict(preparation)
        trained = dict(self.preparation)
        origins = tuple(
            "simulated" if steps.pop("simulated", False) else "recorded"
            for steps in (here, trained)
        )
        if is_same_store and self.unit:
            pairs["signals"] = origins
        keys = (
            {*here, *trained}
            if is_same_store and here and trained
            else {*here} & {*trained} - {"kind"}
        )
        pairs |= {key: (here.get(key), trained.get(key)) for key in sorted(keys)}

        # name every pair that differs
        differing = [
            f"{key} {format_setting(key, value)}, not {format_setting(key, other)}"
            for key, (value, other) in pairs.items()
            # which a model folder keeps them as
            if json.dumps(value) != json.dumps(other)
        ]
        if differing:
            raise BrainhiveError(
                f"{where} was made in another way than what the model learned "
                f"from: {'; '.join(differing)}",
                "prepare both in one way, or train again on these signals",
            )


def check_signal(signal: Tensor, channels: int, samples: int) -> None:
    """Refuse a signal that is not [B, C, T].

    Raises:
        BrainhiveError: naming both sizes.
    """
    if signal.ndim != 3 or signal.shape[1:] != (channels, samples):
        raise BrainhiveError(
            f"the brain encoder takes signals [B, {channels}, {samples}] (batch, "
            f"channels, samples), got {list(signal.shape)}",
            "choose the channels and the window that it was trained on",
        )


def count_output_samples(samples: int, *filters: tuple[int, int]) -> int:
    """Count the samples that unpadded convolutions and poolings, each (kernel, stride),
    leave of T.

    Raises:
        BrainhiveError: if nothing is left.
    """
    # the shortest window that leaves one sample
    least = 1
    for kernel, stride in reversed(filters):
        least = (least - 1) * stride + kernel
    if samples < least:
        raise BrainhiveError(
            f"the window has {samples} samples, the brain encoder's filters need "
            f"{least}",
            "take a longer window",
        )
    # samples behind each filter in turn
    for kernel, stride in filters:
        samples = (samples - kernel) // stride + 1
    return samples


def build_resampling_matrix(samples: int, rate_hz: float, to_rate_hz: float) -> Tensor:
    """Return the matrix [T', T] by which windows are resampled: scipy's polyphase
    filter.

    It filters out what the new rate cannot hold, which interpolating between samples
    does not; and as windows have one length, the filter with what it does at their ends
    is one product. Beyond its ends a window goes on along the line from its first to
    its last sample, so that an offset or drift makes no step there.
    """
    import torch
    from scipy.signal import resample_poly

    ratio = Fraction(to_rate_hz / rate_hz).limit_denominator(1000)
    # a linear filter: its response to each unit impulse is a column
    filtered = resample_poly(
        np.eye(samples), ratio.numerator, ratio.denominator, padtype="line"
    )
    return torch.tensor(filtered, dtype=torch.float32)


def normalise_unit(spelling: str) -> str:
    """Give a unit's usual name, µV for uV or microvolts; what is not known stays as it
    is.
    """
    text = spelling.strip()
    return UNIT_SPELLINGS.get(text.casefold(), text)
