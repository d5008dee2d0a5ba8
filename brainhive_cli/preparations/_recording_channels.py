"""The channels of a subject that are kept, the same of each recording: their names, unit and places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.preparations._recording_mne import UNITS, Header
from brainhive_cli.stores.recordings import Sensors

MEG = ("mag", "grad")
MONTAGES = ("colin27_1005", "standard_1005")
"""What mne calls the positions of electrodes by their names, since 1.13 and before."""


@dataclass(frozen=True)
class KeptChannels:
    """The channels of one subject.

    Attributes:
        headers: Of the subject's recordings, in their order.
        types: As mne names them; None for EEG, or else MEG.
        wanted: Names of channels in order; None for all of `types` that no recording marks as bad.
        exclude: Names of channels that are left out.
    """

    headers: Mapping[Path, Header]
    types: Sequence[str] | None
    wanted: Sequence[str] | None
    exclude: Sequence[str]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names.

        Raises:
            BrainhiveError: if the first recording has none of these types.
        """
        if self.wanted:
            return tuple(name for name in self.wanted if name not in self.exclude)
        out = {*self.exclude, *(name for header in self.headers.values() for name in header.bad)}
        path, header = self._first
        wanted = self.types or (("eeg",) if "eeg" in header.types else MEG)
        if not {*header.types} & {*wanted}:
            hint = f"preparation.types=…; it has: {', '.join(sorted({*header.types}))}"
            raise BrainhiveError(f"{path} has no channels of type {' or '.join(wanted)}", hint)
        pairs = zip(header.names, header.types, strict=True)
        return tuple(name for name, kind in pairs if kind in wanted and name not in out)

    def check(self, path: Path) -> None:
        """Compare a recording with the first.

        Raises:
            BrainhiveError: if it lacks a channel, or has another sampling rate.
        """
        (first, of_first), header = self._first, self.headers[path]
        if absent := [name for name in self.names if name not in header.names]:
            hint = f"preparation.exclude=[{','.join(absent)}], or rename one of its {', '.join(header.names)}"
            raise BrainhiveError(f"{path} has no channel {', '.join(absent)}", hint)
        if header.rate_hz != of_first.rate_hz:
            raise BrainhiveError(
                f"{path} has {header.rate_hz:g} Hz, but {first.name} {of_first.rate_hz:g} Hz",
                "resample one of them with mne and save it, or leave it out: preparation.files=PATTERN",
            )

    @property
    def unit(self) -> str:
        """The unit of signals that are not whitened.

        Raises:
            BrainhiveError: if they have several.
        """
        units = {UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in self._kinds}
        if len(units) > 1:
            raise BrainhiveError(
                f"channels of types {' and '.join(units.values())} have different units",
                "preparation.types=ONE, or let them be whitened: preparation.whiten=epochs",
            )
        return next(iter(units))

    @property
    def space(self) -> Sensors:
        """Their places in the first recording; of electrodes without, the standard ones."""
        header = self._first[1]
        places = header.positions[[header.names.index(name) for name in self.names]]
        if not np.isfinite(places).all() and {*self._kinds} == {"eeg"}:
            from mne.channels import get_builtin_montages, make_standard_montage, transform_to_head

            montage = next(name for name in MONTAGES if name in get_builtin_montages())
            standard = transform_to_head(make_standard_montage(montage)).get_positions()["ch_pos"]
            known = {name.lower(): at for name, at in standard.items()}
            places = np.array([known.get(name.lower(), np.full(3, np.nan)) for name in self.names])
        return Sensors(self.names, places if np.isfinite(places).all() else None)

    @property
    def _first(self) -> tuple[Path, Header]:
        return next(iter(self.headers.items()))

    @property
    def _kinds(self) -> list[str]:
        header = self._first[1]
        return [header.types[header.names.index(name)] for name in self.names]
