"""Recordings and the signal store: one subject's signals by split, mapped into memory."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from glob import escape
from math import prod
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from brainhive_cli.core import console, documents, parts
from brainhive_cli.core.arrays import Array, Bool, Float64, Int64, UInt64
from brainhive_cli.core.artifacts import Mark
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.files import below, publish
from brainhive_cli.core.lines import Hint, Line
from brainhive_cli.core.measurements import SIMULATED, WHITENED_BY_TESTED, merge_caveats
from brainhive_cli.core.set_up import flatten
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import NUMBERS, StoredRows, map_numbers, read_flags, read_strings
from brainhive_cli.data.stores.ids import Names

FORMAT = 3
"""Of a signal store; the number that it carries."""
AGAIN = "run the command that needs the signals again"
"""What makes a store."""
COPIED_STIMULI, COPIED_BYTES = 256, 2**26
"""Copied at a time, at most; one stimulus where it is larger."""
MAX_CHANNELS_SHOWN = 5
"""In an error."""
WAYS_OUT = {
    "channels": "preparation.channels=[…] with those that all files have, or correct their channel lists",
    "positions": "give all files the same positions of electrodes",
}
"""What to do about splits of a subject that differ, by what they differ in."""
REGION_NAME = r"(?!-$)[^\s&|()]+"
"""What a region may be called where sets of them are written; it may hold hyphens, as `prf-visualrois`."""
SELECTING = {
    *"root files sessions task derivatives where trials key info stimuli events column onset_unit "
    "stim_channel delay_ms stimulus stimulus_ms stimulus_s channels types exclude mask masks regions voxels "
    "repetitions seed shuffle test_pictures drop_test_categories".split()
}
"""Keys of preparations that say where signals are and which trials, sensors or voxels are taken. All others
change the numbers themselves."""
STEP_TOLERANCE = 0.02
"""Share of the time between samples by which it may differ from 1 / rate, as after resampling."""
OPTIONAL = {"sessions": "i", "whiteners": "f", "runs": "i", "onset_s": "f"}
"""Arrays of a split that a store may lack, and NumPy's letter of the kind of their numbers."""


class Provenance(TypedDict, total=False):
    """Facts that a store gives of the origin of a split; preparations add facts of their own.

    `preparation` holds the keys of its recipe, `sessions` what each session says, `simulated` how a program
    made the signals, `source` the file that others had prepared; `recorded_unit` is that before whitening.
    """

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    preparation: dict[str, Any]
    sessions: list["Provenance"]
    session: int
    trials: int
    dropped: dict[str, int]
    dropped_by_split: dict[str, dict[str, int]]
    simulated: Any
    source: str
    stimulus_ms: float | None
    recorded_unit: str
    dtype: str


class Attributes(BaseModel):
    """Types of the attributes of a signal store."""

    model_config = ConfigDict(strict=True)

    splits: list[str]
    space: Literal["sensors", "voxels"]
    channels: list[str] = []
    regions: list[str] = []
    maps: list[str] = []
    volume_shape: list[int] = []
    affine: list[list[float]] = []
    times_s: list[float]
    rate_hz: float | None = None
    unit: str
    provenance: dict[str, Provenance]


@dataclass(frozen=True)
class Sensors:
    """Sensors that recorded the C channels of a signal.

    Attributes:
        names: [C] in the order of the signal.
        positions: [C, 3] in metres, where they are known.
    """

    names: Sequence[str]
    positions: Float64 | None = None

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a channel."""
        positions = {} if self.positions is None else {"positions": self.positions}
        return {"channels": self.names, **positions}


@dataclass(frozen=True)
class Grid:
    """Positions of voxels in a volume.

    Attributes:
        places: [V, 3] indices.
        shape: Of the volume, X, Y, Z.
        affine: [4, 4] from indices to mm.
    """

    places: NDArray[np.int16]
    shape: tuple[int, ...]
    affine: Float64


@dataclass(frozen=True)
class Voxels:
    """The regions that the V voxels of a signal belong to; a voxel may lie in several, or in none.

    Attributes:
        regions: Mask [V] of each region, by its name.
        maps: What was measured of voxels, [V] by name, as `tsnr`, or `ncsnr`: the noise-ceiling
            signal-to-noise ratio, which is the spread of the signal over that of the noise.
        grid: Where they lie in a volume; None where that is not known, or they lie on a surface.
    """

    regions: Mapping[str, Bool]
    maps: Mapping[str, Float64] = field(default_factory=dict)
    grid: Grid | None = None

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a voxel and is the same in all recordings of a subject."""
        places = {} if self.grid is None else {"places": self.grid.places}
        return {f"voxels in the mask of region {name}": mask for name, mask in self.regions.items()} | places

    def select(self, rows: Int64) -> "Voxels":
        """Keep some voxels, in this order."""
        return Voxels(
            {name: mask[rows] for name, mask in self.regions.items()},
            {name: values[rows] for name, values in self.maps.items()},
            None if self.grid is None else replace(self.grid, places=self.grid.places[rows]),
        )


@dataclass(frozen=True)
class Recording:
    """Recording of one subject while the stimuli of one split were shown.

    Attributes:
        signal: [N, R, C, T], or [N, R, V, 1] of voxels; sliceable along N, of the source's dtype; need not be
            in memory.
        image_ids: [N] stimulus ids, or file stems where the source knows no more; () where nobody knows what
            was seen: such a recording can be decoded, but neither stored nor learned from.
        space: What the third axis is: sensors, or voxels.
        times_s: [T] seconds after stimulus onset.
        rate_hz: Samples a second; None where there is one sample and no rate.
        repetitions: [N] how many of R there are; None when all are.
        sessions: [N, R] index of the session of each repetition, -1 where there is none; None if not known.
        runs: [N, R] number of the run of each repetition within its session, -1 where there is none; None if
            not known.
        onset_s: [N, R] seconds from the start of its run to the stimulus of each repetition, NaN where there
            is none; None if not known.
        whiteners: [S, C, C], Σ^(-1/2) by which the signals of each session were multiplied; None if by none.
        known_digests: [N, R] `digest_trials` of the signal, where a store has them.

    Raises:
        BrainhiveError: if an axis of the signal has another length than one of its lists, or the times do not
            match the rate.
    """

    signal: Any
    image_ids: Sequence[str]
    space: Sensors | Voxels
    times_s: Float64
    rate_hz: float | None
    unit: str
    provenance: dict[str, Any] = field(default_factory=dict)
    repetitions: Int64 | None = None
    sessions: NDArray[np.int8] | None = None
    whiteners: Float64 | None = None
    runs: NDArray[np.int16] | None = None
    onset_s: Float64 | None = None
    known_digests: UInt64 | None = None

    def __post_init__(self) -> None:
        """Check every axis against every list."""
        try:
            self._check_axes()
        except (AttributeError, TypeError, ValueError) as error:
            way_out = "help(brainhive_cli.api.Recording) lists the types of its fields"
            raise BrainhiveError(
                f"a recording has a field of another type: {first_line(error)}", way_out
            ) from error

    def _check_axes(self) -> None:
        documents.check(self.provenance, "provenance of a recording", Provenance, "see help(api.Recording)")
        documents.check(self.unit, "unit of a recording", str, "a unit, as uV")
        shape = list(self.signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        if self.signal.dtype.kind not in NUMBERS:
            raise BrainhiveError(f"signals are {self.signal.dtype}, not real numbers")
        if not isinstance(self.image_ids, Names) and not all(isinstance(one, str) for one in self.image_ids):
            raise BrainhiveError("image ids of a recording are not all text", "str(number)")

        # each list belongs to an axis of the signal
        lists: list[tuple[str, Any, int]] = [
            ("image ids", self.image_ids if len(self.image_ids) else None, 0),
            ("repetitions", self.repetitions, 0),
        ]
        lists += [(name, values, 2) for name, values in self.space.lists.items()]
        if isinstance(self.space, Voxels):
            lists += [(f"values of the map {name}", values, 2) for name, values in self.space.maps.items()]
        for name, values, axis in [*lists, ("times", self.times_s, 3)]:
            if values is not None and len(values) != shape[axis]:
                raise BrainhiveError(f"signals {shape} come with {len(values)} {name}, not {shape[axis]}")

        # counts of repetitions, times, and lists of single trials
        counts = np.asarray(shape[1] if self.repetitions is None else self.repetitions)
        if ((counts < 1) | (counts > shape[1])).any():
            raise BrainhiveError(f"signals {shape} come with counts of repetitions beyond 1 to {shape[1]}")
        if self.rate_hz is None:
            if shape[3] != 1:
                raise BrainhiveError(f"signals of {shape[3]} samples have no sampling rate")
        else:
            steps = np.diff(self.times_s) * self.rate_hz  # [T - 1], 1 each
            if not (np.abs(steps - 1) <= STEP_TOLERANCE).all():  # of NaN, too
                raise BrainhiveError(
                    f"times lie {steps[np.abs(steps - 1).argmax()] * 1000 / self.rate_hz:g} ms apart, "
                    f"not {1000 / self.rate_hz:g} ms as at {self.rate_hz:g} Hz"
                )
        is_there = np.arange(shape[1]) < np.broadcast_to(counts, shape[:1])[:, None]  # [N, R]
        for name, trials in {"runs": self.runs, "onsets": self.onset_s, "sessions": self.sessions}.items():
            if trials is None:
                continue
            is_known = np.isfinite(trials) if name == "onsets" else trials >= 0
            if trials.shape != is_there.shape or (is_known != is_there).any():
                raise BrainhiveError(f"signals {shape} come with {name} that are not one a repetition")

        # a whitener for each session
        if self.whiteners is not None:
            if [*self.whiteners.shape[1:]] != [shape[2]] * 2:
                raise BrainhiveError(f"signals {shape} come with whiteners {list(self.whiteners.shape)}")
            most = len(self.whiteners)
            if self.sessions is not None and self.sessions.max(initial=-1) >= most:
                raise BrainhiveError(f"signals {shape} come with {most} whiteners for more sessions")

    @property
    def is_there(self) -> Bool:
        """[N, R] which repetitions there are."""
        count, most = self.signal.shape[:2]
        counts = np.full(count, most) if self.repetitions is None else self.repetitions
        return np.arange(most) < counts[:, None]

    @cached_property
    def digests(self) -> UInt64:
        """[N, R] digest of each trial, 0 where there is none; of a store without them, all rows are read."""
        digests = self.known_digests
        if digests is None:
            starts = range(0, max(1, len(self.signal)), COPIED_STIMULI)
            blocks = (np.asarray(self.signal[start : start + COPIED_STIMULI]) for start in starts)
            digests = np.concatenate([*map(digest_trials, blocks)])
        return np.where(self.is_there, digests, np.uint64(0))

    def refuse_copies(
        self, others: UInt64, where: str, source: str, hint: str, rows: Any = slice(None)
    ) -> None:
        """Refuse trials that are equal, number by number, to trials that must be others.

        Args:
            others: Digests of those.
            where: What the recording is.
            source: What the others are.
            hint: What to do.
            rows: Stimuli whose trials are compared; default: all.

        Raises:
            BrainhiveError: with the number of copies, and the stimulus, session and run of the first.
        """
        is_known = np.zeros_like(self.is_there)
        is_known[rows] = self.digests[rows] > 0
        is_copy = is_known & np.isin(self.digests, others)
        if is_copy.any():
            row, place = np.argwhere(is_copy)[0]
            words = [f"of {self.image_ids[row]}"]
            words += [] if self.sessions is None else [f"session {self.sessions[row, place] + 1}"]
            words += [] if self.runs is None else [f"run {self.runs[row, place]}"]
            copies = f"{is_copy.sum()} of {is_known.sum()} trials are copies of {source}"
            raise BrainhiveError(f"{where}: {copies}; the first is {', '.join(words)}", hint)

    def take_trials(self, is_chosen: Bool) -> "Recording":
        """Take single trials, each a row of its own whose stimulus others may have, too.

        Args:
            is_chosen: [N, R] which of them.

        Returns:
            A recording [n, 1, C, T], in the order of the N stimuli.
        """
        rows, places = np.nonzero(is_chosen)
        names, trials = self.image_ids, (rows[:, None], places[:, None])
        return replace(
            self,
            signal=ChosenTrials(self.signal, rows, places),
            image_ids=Names.of(names[row] for row in rows.tolist()) if len(names) else (),
            repetitions=None,
            sessions=take(self.sessions, trials),
            runs=take(self.runs, trials),
            onset_s=take(self.onset_s, trials),
            known_digests=self.digests[trials],
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the signals, as their provenance says them.

        The provenance travels with a store, whatever data set or name it is kept under.
        """
        sources = [self.provenance, *self.provenance.get("sessions", ())]
        simulated = [SIMULATED] if any("simulated" in source for source in sources) else []
        steps = [source["preparation"] for source in sources if "preparation" in source]
        whitened = [step for step in steps if step.get("whiten") not in ("no", False)]
        by_tested = any(step.get("whiten_by") == "both" for step in whitened)
        return merge_caveats(simulated, [WHITENED_BY_TESTED] if by_tested else [])

    @property
    def preparation(self) -> dict[str, Any]:
        """Steps that made these numbers, by dotted key, as far as the provenance says them.

        `simulated` is among them. Which trials, sensors or voxels were taken is not.
        """
        sources = [*self.provenance.get("sessions", ()), self.provenance]
        steps: dict[str, Any] = {}
        for source in sources:
            steps |= source.get("preparation", {})
        steps = {key: value for key, value in steps.items() if key not in SELECTING}
        return flatten(steps) | ({"simulated": True} if SIMULATED in self.caveats else {})

    @property
    def made_by(self) -> tuple[str, ...]:
        """Kinds of the preparations that wrote it; or `simulated`, or `unknown` where nothing says it."""
        # of each session, by itself or by what is said of all
        kinds = set()
        for session in self.provenance.get("sessions", ()) or [{}]:
            source = {**self.provenance, **session}
            kinds |= {str(source["preparation"].get("kind", "unknown"))} if "preparation" in source else set()
            kinds |= {"simulated"} if "simulated" in source else set()
            kinds |= set() if {"preparation", "simulated"} & source.keys() else {"unknown"}
        return tuple(sorted(kind.replace("_", "-") for kind in kinds))

    @property
    def stimulus_marks(self) -> dict[str, Mark]:
        """Mark the stimulus in ms after onset: as long as it was shown, where the provenance says it."""
        sources = [self.provenance, *self.provenance.get("sessions", ())]
        shown_ms = {source.get("stimulus_ms") for source in sources} - {None}
        if self.times_s[-1] <= 0:  # as of voxels
            return {}
        return {"stimulus": (0.0, float(shown_ms.pop()))} if len(shown_ms) == 1 else {"onset": 0.0}


@dataclass(frozen=True, eq=False)
class ChosenTrials:
    """Single trials [n, 1, C, T] of signals [N, R, C, T], read when they are sliced along n.

    Attributes:
        signal: The signals.
        rows: [n] stimulus of each trial.
        places: [n] its repetition.
    """

    signal: Any
    rows: Int64
    places: Int64

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [n, 1, C, T]."""
        return (len(self.rows), 1, *self.signal.shape[2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the signals."""
        kind: np.dtype[Any] = self.signal.dtype
        return kind

    def __len__(self) -> int:
        """Count the trials."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Array:
        """Read trials by what indexes an array; the first index is a slice of the n trials."""
        part, *rest = index if isinstance(index, tuple) else (index,)
        trials = np.asarray(self.signal[self.rows[part], self.places[part]])[:, None]
        return trials[(slice(None), *rest)]


@dataclass(frozen=True)
class SignalStore:
    """One subject's finished signal store."""

    path: Path
    splits: Mapping[str, Recording]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store; the signals stay on disk until sliced.

        Raises:
            MissingData: if there is none.
            BrainhiveError: if the file is corrupt or of another format, or an axis does not match its list.
        """
        with hdf5.open_file(path, AGAIN) as file:
            # attributes of the right format and types
            attributes = hdf5.get_attributes(file)
            if attributes.get("format") != FORMAT or attributes.get("holds") != "signal":
                problem = f"{path} is not a signal store of format {FORMAT}"
                raise BrainhiveError(problem, "delete it and run again")
            about = documents.check(attributes, f"{path}: attribute", Attributes, "delete it and run again")

            def read(name: str, kind: str) -> Array | None:
                return np.array(map_numbers(file, name, kind)) if name in file else None

            # sensors, or voxels with their regions, maps and grid
            space: Sensors | Voxels = Sensors(about.channels, read("positions", "f"))
            if about.space == "voxels":
                masks = read_flags(file, "region_masks") if about.regions else ()
                places = read("places", "i")
                space = Voxels(
                    dict(zip(about.regions, masks, strict=True)),
                    {name: np.array(map_numbers(file, f"maps/{name}", "f")) for name in about.maps},
                    None
                    if places is None
                    else Grid(places, tuple(about.volume_shape), np.array(about.affine, np.float64)),
                )

            # one recording a split; signals stay on disk
            recordings = {}
            for split in about.splits:
                way_out = partial(making, path, {**about.provenance.get(split, {})})
                try:
                    recordings[split] = Recording(
                        signal=StoredRows(file, f"{split}/signal", way_out),
                        image_ids=Names(read_strings(file, f"{split}/image_id")),
                        space=space,
                        times_s=np.asarray(about.times_s, np.float64),
                        rate_hz=about.rate_hz,
                        unit=about.unit,
                        provenance={**about.provenance.get(split, {})},
                        repetitions=np.array(map_numbers(file, f"{split}/repetitions", "iu")),
                        known_digests=read(f"{split}/digests", "u"),
                        **{name: read(f"{split}/{name}", kind) for name, kind in OPTIONAL.items()},
                    )
                except BrainhiveError as error:
                    raise BrainhiveError(f"{path}: {error.message}", "delete it and run again") from error
            return cls(path, recordings)

    def __getitem__(self, split: str) -> Recording:
        """Return the recording of a split; MissingData when the store does not have it."""
        if not isinstance(split, str) or split not in self.splits:
            raise MissingData(
                f"{self.path} has no {' '.join(str(split).split())[:80]} signals",
                f"it has: {', '.join(self.splits)}",
            )
        return self.splits[split]

    @cached_property
    def identity(self) -> str:
        """Identity of the signals: 16 hexadecimal digits.

        It is made of the checksums that the store carries, so that no row is read. The same signals written
        again have the same; versions of libraries and names of files have no part in it.
        """
        first = next(iter(self.splits.values()))

        # what the axes mean, then each split: shape, checksums, stimuli and steps
        about = [first.unit, first.rate_hz, first.times_s.tolist()]
        for name, values in first.space.lists.items():
            about.append((name, xxhash.xxh3_64_hexdigest(repr(np.asarray(values).tolist()).encode())))
        for split, recording in self.splits.items():
            arrays = (recording.repetitions, recording.sessions)
            counts = [None if array is None else array.tobytes() for array in arrays]
            known_of_trials = (recording.runs, recording.onset_s)
            counts += [array.tobytes() for array in known_of_trials if array is not None]
            steps = sorted(recording.preparation.items())
            ids = Names.of(recording.image_ids).digest
            about.append((split, recording.signal.shape, recording.signal.digest, ids, counts, steps))
        return xxhash.xxh3_64_hexdigest(repr(about).encode())

    def verify(self) -> None:
        """Verify the checksums of all rows; reads the whole store.

        Raises:
            BrainhiveError: if one does not match.
        """
        made_by = making(self.path, next(iter(self.splits.values())).provenance if self.splits else {})
        with hdf5.open_file(self.path, made_by) as file:
            hdf5.verify_rows(file)

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Recording]) -> None:
        """Write one subject's recordings by split; the final name appears when all is there.

        Signals of float16 stay so; others are kept as float32.

        Raises:
            BrainhiveError: if the splits differ in their channels or regions, times, rate or unit.
        """
        # splits share their axes, and say what was shown
        part, first = hdf5.part_of(path), next(iter(recordings.values()))
        for split, recording in recordings.items():
            if not len(recording.image_ids):
                raise BrainhiveError(
                    f"{path.stem}: nothing says which pictures the {split} signals are of",
                    "Recording(image_ids=[…]), one for each of its N rows",
                )
            if difference := difference_of(first, recording):
                raise BrainhiveError(
                    f"{path.stem}: the {split} signals have other {difference} than the first"
                    f"{_only_in_one(first.space, recording.space)}",
                    WAYS_OUT.get(difference, "prepare the splits with one window, rate and unit"),
                )

        # attributes and arrays of the axes
        space = first.space
        about: dict[str, Any] = {"format": FORMAT, "holds": "signal", "splits": list(recordings)}
        if isinstance(space, Voxels):
            about |= {"space": "voxels", "regions": list(space.regions), "maps": list(space.maps)}
            masks = np.array(list(space.regions.values()), bool) if space.regions else None
            maps = {f"maps/{name}": np.asarray(values, np.float64) for name, values in space.maps.items()}
            arrays = {"region_masks": masks, **maps}
            if space.grid is not None:
                arrays["places"] = space.grid.places
                about |= {"volume_shape": [*space.grid.shape], "affine": space.grid.affine.tolist()}
        else:
            about |= {"space": "sensors", "channels": list(space.names)}
            arrays = {"positions": space.positions}
        about["times_s"] = [float(time_s) for time_s in first.times_s]
        about |= {} if first.rate_hz is None else {"rate_hz": float(first.rate_hz)}
        about |= {"unit": first.unit, "provenance": {}, "pictures": {}}

        # room for the signals of each split, and the lists of its trials
        spaces = {}
        for split, recording in recordings.items():
            count, most = recording.signal.shape[:2]
            spaces[f"{split}/signal"] = (tuple(recording.signal.shape), _dtype(recording))
            spaces[f"{split}/digests"] = ((count, most), "uint64")
            image_ids = Names.of(recording.image_ids)
            repetitions = np.full(count, most) if recording.repetitions is None else recording.repetitions
            arrays |= {f"{split}/image_id": image_ids.packed, f"{split}/repetitions": repetitions}
            arrays |= {f"{split}/{name}": getattr(recording, name) for name in OPTIONAL}
            about["provenance"][split], about["pictures"][split] = recording.provenance, image_ids.digest

        # create the file, then copy signals some stimuli at a time
        lock = Claim.for_path(path, wait=True)
        try:
            known = {name: array for name, array in arrays.items() if array is not None}
            hdf5.create(part, spaces, known, about)
            counts = [len(recording.signal) for recording in recordings.values()]
            with console.progress(f"writing {path.parent.name}/{path.stem}", sum(counts)) as bar:
                for split, recording in recordings.items():
                    signal, writer = recording.signal, hdf5.RowWriter(part, f"{split}/signal")
                    digests = hdf5.RowWriter(part, f"{split}/digests")
                    row_bytes = int(np.prod(signal.shape[1:])) * signal.dtype.itemsize
                    step = min(COPIED_STIMULI, max(1, COPIED_BYTES // max(1, row_bytes)))
                    for start in range(0, len(signal), step):
                        values = np.asarray(signal[start : start + step])
                        rows = np.arange(start, start + len(values))
                        writer.write(rows, values)
                        digests.write(rows, digest_trials(values))
                        bar.advance(len(values), split)
                    writer.close()
                    digests.close()

            # the final name appears with the whole content
            hdf5.seal(part)
            publish(part, path)
        finally:
            lock.release()


def take(values: Array | None, index: Any) -> Array | None:
    """Take a part of an array that may not be known."""
    return None if values is None else values[index]


def digest_trials(signal: Array) -> UInt64:
    """Digest each trial of signals [N, R, C, T] as a store keeps them: [N, R].

    It is 0 where all numbers of a trial are equal, which two trials may well have.
    """
    trials = np.ascontiguousarray(signal, np.float32).reshape(prod(signal.shape[:2]), prod(signal.shape[2:]))
    is_constant = (trials == trials[:, :1]).all(1)
    digests = np.where(is_constant, np.uint64(0), hdf5.row_checksums(trials))
    return digests.reshape(signal.shape[:2])


def is_signal_store(path: Path) -> bool:
    """Whether a store holds signals."""
    with hdf5.open_file(path, AGAIN) as file:
        return hdf5.get_attributes(file).get("holds") == "signal"


def path_of(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Say where a subject's store lies."""
    source = "the data set or preparation of a store,"
    return below(signals, dataset, name, f"sub-{subject:02d}.h5", source=source)


def making(path: Path, provenance: Mapping[str, Any]) -> Hint:
    """Say which command line makes a subject's store, by what the store says that it was prepared from."""
    subject = re.fullmatch(r"sub-0*(\d+)", path.stem)
    try:
        config = parts.resolve("preparations", provenance["preparation"])
    except (KeyError, BrainhiveError):  # of a data set's own files, or by code that may not run here
        return AGAIN
    if subject is None:  # a session, which prepare alone reads
        return AGAIN
    knobs = config.model_dump(mode="json", exclude_defaults=True)
    name = "" if path.parent.name == "default" else path.parent.name
    keys = ("from", knobs.pop("kind")), ("subjects", subject[1]), ("name", name)
    words = [f"preparation.{key}={json.dumps(value)}" for key, value in knobs.items()]
    words += ["dtype=float16"] if provenance.get("dtype") == "float16" else []
    return Line("prepare", *keys, *words)


def subjects_of(signals: Path, dataset: str, preparation: str | None = None) -> tuple[int, ...]:
    """List the subjects who have a store in a preparation of a data set; in any of them where it is None."""
    folder = "*" if preparation is None else escape(preparation)
    names = {path.stem for path in (signals / dataset).glob(f"{folder}/sub-*.h5")}
    matches = [re.fullmatch(r"sub-(\d+)", name) for name in names]
    return tuple(sorted(int(match[1]) for match in matches if match))


def size_of(recording: Recording) -> int:
    """Count the bytes that a recording takes in a store."""
    return int(np.prod(recording.signal.shape)) * np.dtype(_dtype(recording)).itemsize


def _dtype(recording: Recording) -> str:
    return "float16" if recording.signal.dtype == np.float16 else "float32"


def difference_of(first: Recording, other: Recording) -> str:
    """Say in what two recordings differ that a store keeps once; empty if in nothing."""
    if type(first.space) is not type(other.space) or first.space.lists.keys() != other.space.lists.keys():
        return "space"
    pairs = {name: (values, other.space.lists[name]) for name, values in first.space.lists.items()}
    pairs |= {name: (getattr(first, name), getattr(other, name)) for name in ("times_s", "rate_hz", "unit")}
    differing = (name for name, pair in pairs.items() if not np.array_equal(*pair))
    return next(differing, "").removesuffix("_s")


def _only_in_one(first: Sensors | Voxels, other: Sensors | Voxels) -> str:
    """List, in brackets, the channels that one of two has alone; empty where both have the same."""
    names = [set(space.names) if isinstance(space, Sensors) else set() for space in (first, other)]
    alone = sorted(names[0] ^ names[1])
    shown = ", ".join(alone[:MAX_CHANNELS_SHOWN])
    more = f" and {len(alone) - MAX_CHANNELS_SHOWN} more" if len(alone) > MAX_CHANNELS_SHOWN else ""
    return f" ({shown}{more})" if alone else ""


Read = Callable[[slice], Array]


@dataclass(frozen=True)
class Sliced:
    """Signals [N, R, C, T] of a file that are read when they are sliced along N.

    Attributes:
        path: The file whose signals must be finite, for the error; None where they need not be.
        read: Slice to signals [n, R, C, T].
    """

    path: Path | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Read

    def __len__(self) -> int:
        """Count the stimuli."""
        return self.shape[0]

    def __getitem__(self, part: slice) -> Array:
        """Read the signals of some stimuli.

        Raises:
            BrainhiveError: if they are not finite.
        """
        signal = self.read(part)
        if self.path is not None and not np.isfinite(signal).all():
            raise BrainhiveError(f"{self.path} has signals that are not finite", "get or make the file again")
        return signal


def gather_trials(table: Int64, shape: Sequence[int], dtype: DTypeLike, trial: Callable[[int], Any]) -> Read:
    """Read trials one by one, in the order of the file; missing repetitions are zeros.

    Args:
        table: [N, R] trial of each repetition, -1 where there is none.
        shape: Of a trial, C and T.
        dtype: Of the result.
        trial: Number of a trial to its signal [C, T].
    """

    def read(part: slice) -> Array:
        numbers = table[part].ravel()
        trials = np.zeros((len(numbers), *shape), dtype)
        for place in np.argsort(numbers, kind="stable").tolist():
            if numbers[place] >= 0:
                trials[place] = trial(int(numbers[place]))
        return trials.reshape(*table[part].shape, *shape)

    return read


def group_trials(stimuli: Array) -> tuple[Array, Int64, Int64]:
    """Group trials by stimulus.

    Args:
        stimuli: [trials] numbers or names, in the order of time.

    Returns:
        The stimuli [N], ascending; the trials of each [N, R], -1 where there is none; how many there are [N].
    """
    names, place, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    table = np.full((len(names), counts.max(initial=0)), -1, np.int64)
    table[np.arange(table.shape[1]) < counts[:, None]] = np.argsort(place, kind="stable")
    return names, table, counts
