"""The channels of a subject that are kept, the same of each recording, and bad ones made of good ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._recording_mne import UNITS, Header
from brainhive_cli.data.stores.recordings import Sensors

MEG = ("mag", "grad")
MONTAGES = ("colin27_1005", "standard_1005")
"""What mne calls the positions of electrodes by their names, since 1.13 and before."""
AROUND = re.compile(r"^EEG[ _-]+|[ _-]+(REF|LE|AVG|AR)$|\.+$", re.IGNORECASE)
"""What EDF files write around the name of an electrode: the type, the reference, padding."""

STIFFNESS = 4
TERMS = 50
"""Of Perrin's series of spherical splines, as mne has it."""
REGULARISATION = 1e-5
"""mne's, of bad channels."""
MIN_GOOD = 4
"""Channels that a sphere is fitted to."""
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class KeptChannels:
    """The channels of one subject.

    Attributes:
        headers: Of the subject's recordings, in their order.
        types: As mne names them; None for EEG, or else MEG.
        wanted: Names of channels in order; None for all of `types` that no recording marks as bad.
        exclude: Names of channels that are left out.
        interpolate: Whether channels that were marked as bad are kept, and made of the others.
    """

    headers: Mapping[Path, Header]
    types: Sequence[str] | None
    wanted: Sequence[str] | None
    exclude: Sequence[str]
    interpolate: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names.

        Raises:
            BrainhiveError: if the first recording has none of these types.
        """
        if self.wanted:
            return tuple(name for name in self.wanted if name not in self.exclude)
        bad = () if self.interpolate else (name for header in self.headers.values() for name in header.bad)
        out = {*self.exclude, *bad}
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
            BrainhiveError: if it lacks a channel, has another sampling rate, or a bad channel that cannot be
                interpolated.
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
        if not (bad := self.bad_of(path)):
            return
        if {*self.kinds} != {"eeg"}:
            raise BrainhiveError(
                f"{path}: only EEG is interpolated, not {', '.join(bad)}", "preparation.interpolate=false"
            )
        if without := self.without_position:
            raise BrainhiveError(
                f"{path}: {', '.join(bad)} cannot be interpolated, since no position is known of "
                f"{', '.join(without)}",
                f"preparation.exclude=[{','.join([*self.exclude, *without])}], "
                "or preparation.interpolate=false",
            )

    def bad_of(self, path: Path) -> tuple[str, ...]:
        """Name the channels of a recording that are interpolated."""
        return tuple(name for name in self.names if self.interpolate and name in self.headers[path].bad)

    @property
    def unit(self) -> str:
        """The unit of signals that are not whitened.

        Raises:
            BrainhiveError: if they have several.
        """
        units = {UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in self.kinds}
        if len(units) > 1:
            raise BrainhiveError(
                f"channels of types {' and '.join(units.values())} have different units",
                "preparation.types=ONE, or let them be whitened: preparation.whiten=epochs",
            )
        return next(iter(units))

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Places [C, 3] in the first recording; of electrodes without, the standard ones, NaN if unknown."""
        if self.has_own_positions or {*self.kinds} != {"eeg"}:
            return self._own_positions
        return standard_positions(self.names)

    @property
    def has_own_positions(self) -> bool:
        """Whether the first recording has the positions of all of them."""
        return bool(np.isfinite(self._own_positions).all())

    @property
    def without_position(self) -> list[str]:
        """Those whose position is not known."""
        unknown = np.flatnonzero(~np.isfinite(self.positions).all(axis=1)).tolist()
        return [self.names[place] for place in unknown]

    @property
    def space(self) -> Sensors:
        """Their names, and places where all are known."""
        return Sensors(self.names, None if self.without_position else self.positions)

    @property
    def kinds(self) -> list[str]:
        """[C] their types."""
        header = self._first[1]
        return [header.types[header.names.index(name)] for name in self.names]

    @property
    def _own_positions(self) -> NDArray[np.float64]:
        header = self._first[1]
        return header.positions[[header.names.index(name) for name in self.names]]

    @property
    def _first(self) -> tuple[Path, Header]:
        return next(iter(self.headers.items()))


def standard_positions(names: Sequence[str]) -> NDArray[np.float64]:
    """Place electrodes [C, 3] by their names in the 10-05 system, in the head frame; NaN if it has none."""
    from mne.channels import get_builtin_montages, make_standard_montage, transform_to_head

    montage = next(name for name in MONTAGES if name in get_builtin_montages())
    standard = transform_to_head(make_standard_montage(montage)).get_positions()["ch_pos"]
    known = {name.lower(): at for name, at in standard.items()}
    return np.array([known.get(plain_name(name).lower(), np.full(3, np.nan)) for name in names])


def plain_name(name: str) -> str:
    """Write an electrode's name without what EDF files put around it: `EEG Fp1-REF`, `Fc5.`."""
    return AROUND.sub("", name.strip())


def fit_origin(names: Sequence[str], positions: Floats) -> Floats:
    """Fit a sphere to electrodes [C, 3] in the head frame, in metres; return its centre [3]."""
    import mne

    montage = mne.channels.make_dig_montage(dict(zip(names, positions, strict=True)), coord_frame="head")
    info = mne.create_info(list(names), 100.0, "eeg").set_montage(montage, verbose="ERROR")
    try:
        _, origin, _ = mne.bem.fit_sphere_to_headshape(info, dig_kinds="eeg", units="m", verbose="ERROR")
    except (ValueError, RuntimeError) as error:
        raise BrainhiveError(
            f"the positions of {len(names)} channels do not lie on a head: {error}",
            "preparation.interpolate=false",
        ) from error
    return np.asarray(origin)


def spline_weights(known: Floats, unknown: Floats, regularisation: float = REGULARISATION) -> Floats:
    """Weigh the signals at known positions by which they give those at others.

    Args:
        known: [C, 3] from the centre of the head.
        unknown: [M, 3], likewise.
        regularisation: Added to the diagonal.

    Returns:
        [M, C]; rows sum to 1.
    """
    orders = np.arange(1, TERMS + 1)
    series = [0, *(2 * orders + 1) / (orders**STIFFNESS * (orders + 1.0) ** STIFFNESS * 4 * np.pi)]
    start, goal = (at / np.linalg.norm(at, axis=1, keepdims=True) for at in (known, unknown))
    count = len(start)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = legval(start @ start.T, series) + regularisation * np.eye(count)
    system[count, count] = 0
    to_goal = np.hstack([legval(goal @ start.T, series), np.ones((len(goal), 1))])
    weights: Floats = (to_goal @ np.linalg.pinv(system))[:, :count]
    return weights


def fill_bad(
    epochs: NDArray[np.float32], names: Sequence[str], bad: Sequence[str], positions: Floats
) -> NDArray[np.float32]:
    """Put interpolated channels between the good ones, by spherical splines as mne makes them.

    All steps from a recording to trials are linear and the same for all channels: the trials are as if the
    recording had been interpolated.

    Args:
        epochs: [n, G, T] of the good channels, in the order of `names`.
        names: [C] of all.
        bad: Those that are interpolated.
        positions: [C, 3] of all, in the head frame.

    Returns:
        [n, C, T].

    Source: Perrin et al. 1989; `mne.io.Raw.interpolate_bads`.
    """
    is_bad = np.isin(names, bad)
    if (good := int((~is_bad).sum())) < MIN_GOOD:
        raise BrainhiveError(
            f"{good} good channels are too few to interpolate {', '.join(bad)}",
            "preparation.interpolate=false, or leave out this recording",
        )
    centred = positions - fit_origin(names, positions)
    weights = spline_weights(centred[~is_bad], centred[is_bad]).astype(np.float32)
    whole = np.empty((len(epochs), len(names), epochs.shape[2]), np.float32)
    whole[:, ~is_bad], whole[:, is_bad] = epochs, weights @ epochs
    return whole
