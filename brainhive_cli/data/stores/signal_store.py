"""The signal stores of a data set: one subject's trials by split, mapped into memory;
whose there are, and their creation.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from glob import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from brainhive_cli.core import console, parts
from brainhive_cli.core.arrays import Array, UInt64
from brainhive_cli.core.cells import claiming
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.command import Input, require
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import below, publish
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SIMULATED, merge_caveats
from brainhive_cli.core.recipe import SIGNALS, Paths
from brainhive_cli.data.datasets import Dataset, Published
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals.overlap import Overlap
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.spaces import Grid, Sensors, Surface, Voxels, axis_lists
from brainhive_cli.data.signals.trials import Trials, digest_trials

FORMAT = 3
"""Of a signal store; the number that it carries."""
AGAIN = "run again what made it: prepare, or the command that needs the signals"
"""Way out of a damaged store."""
COPIED_BYTES = 2**26
"""Copied at a time, at most; one stimulus where it is larger."""
OPTIONAL = {
    "sessions": "i",
    "whiteners": "f",
    "runs": "i",
    "onset_s": "f",
    "trial_numbers": "i",
}
"""Arrays of a split that a store may lack, and NumPy's letter of the kind of their
numbers.
"""
COUNTED = ("split", "pictures", "repetitions", "trials", "dropped")
"""Columns of `count_rows`."""


@dataclass(frozen=True)
class SignalStore:
    """One subject's finished signal store."""

    path: Path
    splits: Mapping[str, Trials]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store; the signals stay on disk until sliced.

        Raises:
            MissingData: if there is none.
            BrainhiveError: if the file is corrupt or of another format, or an axis does
                not match its list.
        """
        with hdf5.open_file(path, AGAIN) as file:
            # attributes of the right format
            about = hdf5.get_attributes(file)
            if about.get("format") != FORMAT or about.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}",
                    "delete it and run again",
                )

            def read(name: str, kind: str) -> Array | None:
                return (
                    np.array(hdf5.map_numbers(file, name, kind))
                    if name in file
                    else None
                )

            # sensors, or voxels with their regions, maps and grid
            if about["space"] == "sensors":
                space: Sensors | Voxels = Sensors(
                    about["channels"], read("positions", "f")
                )
            else:
                # [regions, V]
                masks = (
                    hdf5.read_flags(file, "region_masks") if about["regions"] else ()
                )
                voxel_indices = read("places", "i")  # [V, 3]
                grid = None
                if voxel_indices is not None:
                    affine = np.array(about["affine"], np.float64)
                    grid = Grid(voxel_indices, tuple(about["volume_shape"]), affine)
                surface, vertices = None, read("vertices", "i")  # [V, 2]
                if vertices is not None:
                    surface = Surface(vertices, tuple(about["surface_sizes"]))
                maps = {
                    name: np.array(hdf5.map_numbers(file, f"maps/{name}", "f"))
                    for name in about["maps"]
                }
                space = Voxels(
                    dict(zip(about["regions"], masks, strict=True)), maps, grid, surface
                )

            # one recording a split; signals stay on disk
            recordings = {}
            for split in about["splits"]:
                optional: dict[str, Any] = {
                    n: read(f"{split}/{n}", kind) for n, kind in OPTIONAL.items()
                }
                try:
                    recordings[split] = Trials(
                        signal=hdf5.open_rows(file, f"{split}/signal", AGAIN),
                        image_ids=Names(hdf5.read_strings(file, f"{split}/image_id")),
                        space=space,
                        times_s=np.asarray(about["times_s"], np.float64),
                        rate_hz=about.get("rate_hz"),
                        unit=about["unit"],
                        provenance=about["provenance"][split],
                        repetitions=np.array(
                            hdf5.map_numbers(file, f"{split}/repetitions", "iu")
                        ),
                        known_digests=read(f"{split}/digests", "u"),
                        **optional,
                    )
                except BrainhiveError as error:
                    raise BrainhiveError(
                        f"{path}: {error.message}", "delete it and run again"
                    ) from error
            return cls(path, recordings)

    def __getitem__(self, split: str) -> Trials:
        """Return the recording of a split; MissingData when the store does not have
        it.
        """
        if split not in self.splits:
            raise MissingData(
                f"{self.path} has no {split} signals",
                f"it has: {', '.join(self.splits)}",
            )
        return self.splits[split]

    @cached_property
    def identity(self) -> str:
        """Identity of the signals: 16 hexadecimal digits.

        It is made of the checksums that the store carries, so that no row is read. The
        same signals written again have the same; versions of libraries and names of
        files have no part in it.
        """
        first = next(iter(self.splits.values()))

        # what the axes mean, then each split: shape, checksums, stimuli and steps
        about = [first.unit, first.rate_hz, first.times_s.tolist()]
        for name, values in axis_lists(first.space).items():
            listed = repr(np.asarray(values).tolist()).encode()
            about.append((name, xxhash.xxh3_64_hexdigest(listed)))
        for split, recording in self.splits.items():
            arrays = (recording.repetitions, recording.sessions)
            counts = [None if array is None else array.tobytes() for array in arrays]
            for array in (recording.runs, recording.onset_s, recording.trial_numbers):
                counts += [] if array is None else [array.tobytes()]
            # the order in which steps were recorded has no part in it
            steps = sorted(recording.preparation.items())
            ids = Names.of(recording.image_ids).digest
            checksums = xxhash.xxh3_128_hexdigest(
                np.ascontiguousarray(recording.signal.checksums).data
            )
            about.append((split, recording.signal.shape, checksums, ids, counts, steps))
        return xxhash.xxh3_64_hexdigest(repr(about).encode())

    def verify(self) -> None:
        """Verify the checksums of all rows; reads the whole store.

        Raises:
            BrainhiveError: if one does not match.
        """
        with hdf5.open_file(self.path, AGAIN) as file:
            hdf5.verify_rows(file, AGAIN)

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Trials]) -> None:
        """Write one subject's recordings by split; the final name appears when all is
        there.

        Signals of float16 stay so; others are kept as float32.

        Raises:
            BrainhiveError: if the splits differ in their channels or regions, times,
                rate or unit.
        """
        # splits share their axes, and say what was shown
        part, first = hdf5.part_of(path), next(iter(recordings.values()))
        for split, recording in recordings.items():
            if not len(recording.image_ids):
                raise BrainhiveError(
                    f"{path.stem}: nothing says which pictures the {split} signals "
                    "are of",
                    "Trials(image_ids=[…]), one for each of its N rows",
                )
            if difference := difference_of(first, recording):
                raise BrainhiveError(
                    f"{path.stem}: the {split} signals have other {difference} "
                    "than the first",
                    "prepare the splits with the same channels, positions, window, "
                    "rate and unit",
                )

        # attributes and arrays of the axes
        space = first.space
        about: dict[str, Any] = {
            "format": FORMAT,
            "holds": "signal",
            "splits": list(recordings),
        }
        if isinstance(space, Voxels):
            about |= {
                "space": "voxels",
                "regions": list(space.regions),
                "maps": list(space.maps),
            }
            # [regions, V]
            masks = np.array(list(space.regions.values()), bool)
            arrays = {"region_masks": masks if space.regions else None}
            for name, values in space.maps.items():
                arrays[f"maps/{name}"] = np.asarray(values, np.float64)
            if space.grid is not None:
                arrays["places"] = space.grid.indices
                about |= {
                    "volume_shape": [*space.grid.shape],
                    "affine": space.grid.affine.tolist(),
                }
            if space.surface is not None:
                arrays["vertices"] = space.surface.vertices
                about["surface_sizes"] = [*space.surface.sizes]
        else:
            about |= {"space": "sensors", "channels": list(space.names)}
            arrays = {"positions": space.positions}
        about["times_s"] = [float(time_s) for time_s in first.times_s]
        about |= {} if first.rate_hz is None else {"rate_hz": float(first.rate_hz)}
        about |= {"unit": first.unit, "provenance": {}, "pictures": {}}

        # room for the signals of each split, and the lists of its trials
        spaces = {}
        for split, recording in recordings.items():
            count, most = recording.signal.shape[:2]  # N, R
            spaces[f"{split}/signal"] = (
                tuple(recording.signal.shape),
                _dtype(recording),
            )
            spaces[f"{split}/digests"] = ((count, most), "uint64")
            image_ids = Names.of(recording.image_ids)
            arrays |= {
                f"{split}/image_id": image_ids.packed,
                f"{split}/repetitions": recording.counts,
            }
            arrays |= {f"{split}/{name}": getattr(recording, name) for name in OPTIONAL}
            about["provenance"][split] = recording.provenance
            about["pictures"][split] = image_ids.digest

        # create the file, then copy signals some stimuli at a time
        lock = Claim.for_path(path, wait=True)
        try:
            known = {name: array for name, array in arrays.items() if array is not None}
            hdf5.create(part, spaces, known, about)
            counts = [len(recording.signal) for recording in recordings.values()]
            with console.progress(
                f"writing {path.parent.name}/{path.stem}", sum(counts)
            ) as bar:
                for split, recording in recordings.items():
                    signal = recording.signal
                    writer = hdf5.RowWriter(part, f"{split}/signal")
                    digests = hdf5.RowWriter(part, f"{split}/digests")
                    # at least one stimulus at a time, however large it is
                    row_bytes = int(np.prod(signal.shape[1:])) * signal.dtype.itemsize
                    step = max(1, COPIED_BYTES // max(1, row_bytes))
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


def is_signal_store(path: Path) -> bool:
    """Whether a store holds signals."""
    with hdf5.open_file(path, AGAIN) as file:
        return hdf5.get_attributes(file).get("holds") == "signal"


def path_of(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Say where a subject's store lies."""
    source = "the data set or preparation of a store,"
    return below(signals, dataset, name, f"sub-{subject:02d}.h5", source=source)


def subjects_of(
    signals: Path, dataset: str, preparation: str | None = None
) -> tuple[int, ...]:
    """List the subjects who have a store in a preparation of a data set; in any of them
    where it is None.
    """
    # escaped, since the name of a preparation may hold wildcards
    folder = "*" if preparation is None else escape(preparation)
    names = {path.stem for path in (signals / dataset).glob(f"{folder}/sub-*.h5")}
    matches = [re.fullmatch(r"sub-(\d+)", name) for name in names]
    return tuple(sorted(int(match[1]) for match in matches if match))


def size_of(recording: Trials) -> int:
    """Count the bytes that a recording takes in a store."""
    return int(np.prod(recording.signal.shape)) * np.dtype(_dtype(recording)).itemsize


def _dtype(recording: Trials) -> str:
    return "float16" if recording.signal.dtype == np.float16 else "float32"


def difference_of(first: Trials, other: Trials) -> str:
    """Say in what two recordings differ that a store keeps once; empty if in
    nothing.
    """
    # sensors and voxels, or spaces with different lists
    lists, others = axis_lists(first.space), axis_lists(other.space)
    if lists.keys() != others.keys():
        return "space"
    # lists of the space, then times, rate and unit
    pairs = {name: (values, others[name]) for name, values in lists.items()}
    pairs |= {
        name: (getattr(first, name), getattr(other, name))
        for name in ("times_s", "rate_hz", "unit")
    }
    differing = (name for name, pair in pairs.items() if not np.array_equal(*pair))
    return next(differing, "").removesuffix("_s")


@dataclass(frozen=True)
class Recordings:
    """The signals of a data set as a recipe reads them: one store for each subject.

    Attributes:
        dataset: Whose subjects were recorded.
        paths: Where stores lie.
        signal: Names the preparation, and says which part of a recording a model sees.
        fold: Which trials are held out, where the data set holds out any.
    """

    dataset: Dataset
    paths: Paths
    signal: Signal
    fold: int = 1

    def path(self, subject: int) -> Path:
        """Return where a subject's store lies."""
        root = self.paths.under_home("signals")
        return path_of(root, self.dataset.recorded_as, self.signal.name, subject)

    def open(self, subject: int) -> SignalStore:
        """Open a subject's store; nothing is written.

        Raises:
            MissingData: if `prepare` has not created it.
        """
        path = self.path(subject)
        if not path.is_file():
            raise MissingData(
                f"no signals {path}",
                "train-align, eval-retrieval and reconstruct create them",
            )
        # the file's state is part of the cache's key: a changed store is opened anew
        return _open_once(path, hdf5.state_of(path))

    def recording(self, subject: int, split: str) -> Trials:
        """Open a subject's recording of a split: in the fold, where trials of `train`
        are held out.

        Raises:
            MissingData: if there is no store, or it does not have the split.
            BrainhiveError: if it does not say what is held out, or was fitted to
                held-out trials.
        """
        holdout, where = self.dataset.holdout, f"{self.dataset.name} subject {subject}"
        # held-out trials lie in the stored split `train`
        recording = self.open(subject)[holdout.stored_split(split)]
        return holdout.choose_trials(recording, split, self.fold, where)

    def can_fill_fold(self, subject: int) -> bool:
        """Whether a subject has the runs or sessions that the fold tests, as far as its
        store is there.
        """
        holdout = self.dataset.holdout
        if holdout.by not in ("runs", "sessions") or not self.path(subject).is_file():
            return True
        try:
            self.recording(subject, "test")
        except RecipeError:
            return False
        return True

    def recordings(self, subjects: Sequence[int], split: str) -> dict[int, Trials]:
        """Open the recordings of a split, of those subjects who have a store with
        it.
        """
        stored = self.dataset.holdout.stored_split(split)
        return {
            subject: self.recording(subject, split)
            for subject, store in self._open_stores(subjects).items()
            if stored in store.splits
        }

    def _open_stores(self, subjects: Iterable[int]) -> dict[int, SignalStore]:
        """Open the stores of those subjects who have one."""
        return {
            subject: self.open(subject)
            for subject in subjects
            if self.path(subject).is_file()
        }

    def are_prepared(self, subjects: Iterable[int]) -> bool:
        """Return True if all subjects have a store."""
        return all(self.path(subject).is_file() for subject in subjects)

    def identities(self, subjects: Sequence[int]) -> dict[str, str]:
        """Give what the signals of subjects are known by, of those who have a store, by
        its name.
        """
        stores = self._open_stores(subjects).items()
        return {self.name_of(subject): store.identity for subject, store in stores}

    def name_of(self, subject: int) -> str:
        """Name a subject's store, as recipes and models do among what they have
        read.
        """
        return f"{SIGNALS} {hdf5.short_name(self.path(subject))}"

    def select(self, recording: Trials, where: str) -> Trials:
        """Select what a brain model sees of a recording, not normalised; `where` names
        it in errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does
                not have.
        """
        return self.signal.select(recording, self.dataset.channels, where)

    def list_subjects(self, subjects: Sequence[int] | None) -> list[int]:
        """List the subjects that a recipe names, else those who were recorded, else
        those whom the publisher names.

        Raises:
            MissingData: if a subject is neither recorded nor published, or nobody is.
        """
        recorded = recorded_subjects(self.dataset, self.paths, self.signal.name)
        published = (self.dataset.published_sizes or Published({})).voxels
        absent = [subject for subject in subjects or [] if subject not in recorded]
        listed = list(subjects or recorded or published)
        # signals of published subjects can be prepared later
        if not listed or {*absent} - {*published}:
            raise self._describe_absence(absent)
        return listed

    def _describe_absence(self, absent: Sequence[int]) -> MissingData:
        """Say that the preparation does not have some subjects, or nobody."""
        # names of other preparations, for the hint
        dataset, preparation = self.dataset, self.signal.name
        recorded = recorded_subjects(dataset, self.paths, preparation)
        signals = self.paths.under_home("signals") / dataset.recorded_as
        others = {path.parent.name for path in signals.glob("*/sub-*.h5")}
        prepared = sorted(others - {preparation})

        # the subjects that there are, or the line that prepares signals
        where = "" if dataset.subjects else f"in signals {preparation}"
        whom = " ".join(filter(None, [", ".join(map(str, absent)), where]))
        is_ours = parts.is_kind("preparations", dataset.recorded_as)
        source = dataset.recorded_as if is_ours else "recording"
        way = str(Line("prepare", ("from", source)))
        if recorded:
            way = f"it has: {', '.join(map(str, recorded))}"
        if prepared and not dataset.subjects:
            way += f"; signal.name takes other stores: {', '.join(prepared)}"
        return MissingData(f"{dataset.pictured_as} has no subject {whom}", way)

    def inputs(self, subjects: Sequence[int]) -> list[Input]:
        """List the stores of subjects, each with its identity, or else what it would be
        made from.

        All absent stores have the same error, which names the subjects that are there.
        """
        digests, size = self.identities(subjects), None
        names = {subject: self.name_of(subject) for subject in subjects}
        if self.dataset.subjects:
            errors = find_absent(subjects, self._find_recording)
            published = self.dataset.published_sizes
            size = published.subject_bytes if published else None
        else:
            # only `prepare` makes these stores
            absent = [subject for subject in subjects if names[subject] not in digests]
            errors = dict.fromkeys(absent, self._describe_absence(absent))

        listed = []
        for subject, name in names.items():
            error = errors.get(subject)
            digest = digests.get(name, "")
            listed.append(Input(name, size if error else None, error, digest=digest))
        return listed

    def _find_recording(self, subject: int) -> None:
        """Find the store of a subject, or the recording that it would be made from.

        Raises:
            MissingData: if there is neither.
        """
        path = self.path(subject)
        if path.is_file():
            return
        if self.signal.name != "default":  # which no data set's own files become
            raise MissingData(
                f"no signals {path}", "signal.name=default uses the data set's own"
            )
        self.dataset.find_recording(subject)

    def prepare(self, subjects: Sequence[int], launch: Launch) -> None:
        """Create the stores that are missing from the data set's own files; one process
        does it for all.

        Raises:
            MissingData: if a store and the recording that it would be made from are
                both missing.
        """
        # all recordings must be there before the first store is written
        require(self.inputs(subjects))
        launch.once(partial(self._write_missing, subjects, launch.alone))

    def _write_missing(self, subjects: Sequence[int], launch: Launch) -> None:
        dataset = self.dataset
        files = {str(subject): self.path(subject) for subject in subjects}

        # no other command may write the same stores
        with claiming(files, launch) as free:
            for subject in map(int, free):
                console.say(f"preparing signals of {dataset.name} subject {subject}")
                # the store itself says that it is simulated, wherever it is copied
                stamp = {}
                if dataset.is_simulated:
                    stamp["simulated"] = f"by the data set {dataset.name}"
                stamped = {}
                with console.progress(
                    f"writing signals of subject {subject}", len(dataset.splits)
                ) as bar:
                    for split in dataset.splits:
                        recording = dataset.recording(subject, split)
                        stamped[split] = replace(
                            recording, provenance={**stamp, **recording.provenance}
                        )
                        bar.advance(1, split)
                    SignalStore.write(self.path(subject), stamped)

    def refuse_copied_people(self, subjects: Iterable[int]) -> None:
        """Refuse subjects of whom two have equal trials, so that they are not two
        people.

        Raises:
            BrainhiveError: naming them.
        """
        known: dict[int, UInt64] = {}  # digests of all trials of a subject
        for subject, store in self._open_stores(sorted({*subjects})).items():
            recordings = store.splits.values()
            # each subject is compared with all before
            for other, digests in known.items():
                for recording in recordings:
                    recording.refuse_copies(
                        digests,
                        f"{self.dataset.name} subject {subject}",
                        f"trials of subject {other}",
                        "they are one person, or one was prepared from the other's "
                        "files: leave one out",
                    )
            known[subject] = np.concatenate(
                [recording.digests.ravel() for recording in recordings]
            )

    def caveats(self, subjects: Sequence[int]) -> list[str]:
        """List the caveats of the signals that subjects are tested on."""
        tested = []
        for store in self._open_stores(subjects).values():
            # all splits but `train` are tested; `train` only where there is no other
            names = [split for split in store.splits if split != "train"]
            names = names or [*store.splits]
            tested += [store.splits[name] for name in names]
        held_out = [self.dataset.holdout.caveats(recording) for recording in tested]
        return merge_caveats(caveats_of(self.dataset, tested), *held_out)


@lru_cache(maxsize=256)
def _open_once(path: Path, state: tuple[int, ...]) -> SignalStore:
    """Open a store once for all who read it, as long as its file is the same."""
    return SignalStore.open(path)


def caveats_of(dataset: Dataset, recordings: Iterable[Trials]) -> list[str]:
    """List the caveats of recordings that are kept under a data set: those that their
    stores carry.

    Of a data set that simulates its signals, all are simulated, though files of them do
    not say so.
    """
    simulated = [SIMULATED] if dataset.is_simulated else []
    return merge_caveats(simulated, *(recording.caveats for recording in recordings))


def find_absent(
    subjects: Sequence[int], find: Callable[[int], object]
) -> dict[int, MissingData]:
    """Find the subjects who lack something.

    Args:
        subjects: All subjects.
        find: Finds what a subject needs, and raises MissingData where it is absent.

    Returns:
        One error for all subjects who lack something, by subject. It is the error of
        the first, and names the subjects who lack nothing.
    """
    errors = {}
    for subject in subjects:
        try:
            find(subject)
        except MissingData as error:
            errors[subject] = error
    if not errors:
        return {}

    # the first error stands for all
    first, *others = errors.values()
    there = [str(subject) for subject in subjects if subject not in errors]
    if others:
        first.message += f", nor of {len(others)} more"
    if there:
        first.hint += f", or those that are there: --subjects {','.join(there)}"
    return dict.fromkeys(errors, first)


def recorded_subjects(
    dataset: Dataset, paths: Paths, preparation: str | None = None
) -> tuple[int, ...]:
    """List whose signals there are: a data set's own subjects, or those with a store of
    a preparation.

    Args:
        dataset: The data set.
        paths: Where signal stores lie.
        preparation: The name of the stores; None: any of them.
    """
    signals = paths.under_home("signals")
    # a data set without a list of subjects has those with a store
    return dataset.subjects or subjects_of(signals, dataset.recorded_as, preparation)


def describe_store(store: SignalStore) -> dict[str, Any]:
    """Describe a store in plain values: its trials by split, also of one of which
    nothing was left.
    """
    # what was dropped of each split and session, by reason; a session knows that of
    # splits that it has not
    dropped: dict[str, dict[int, Mapping[str, int]]] = defaultdict(dict)
    for split, recording in store.splits.items():
        for session in recording.provenance.get("sessions", []):
            dropped_of_split = session.get("dropped_by_split") or {
                split: session.get("dropped", {})
            }
            for name, numbers in dropped_of_split.items():
                dropped[name][session.get("session", 0)] = numbers

    # trials of each split, also of one that was dropped as a whole
    splits = {}
    for split in {**store.splits, **dropped}:
        reasons = Counter[str]()
        for dropped_of_session in dropped[split].values():
            reasons.update(dropped_of_session)
        counts = np.zeros(0, np.int64)
        if split in store.splits:
            counts = store.splits[split].counts
        if split in store.splits or any(reasons.values()):
            most = int(counts.max(initial=0))
            splits[split] = {
                "pictures": len(counts),
                "repetitions": [int(counts.min(initial=most)), most],
                "trials": int(counts.sum()),
                "dropped": dict(reasons),
            }

    # axes, caveats and origin are those of all splits
    first = next(iter(store.splits.values()))
    width = first.signal.shape[2]
    overlap = Overlap.of(store.splits.values(), first.times_s)
    if isinstance(first.space, Voxels):
        space = {"voxels": width, "regions": list(first.space.regions)}
    else:
        space = {"channels": width, "names": list(first.space.names)}
    return {
        **space,
        "rate_hz": first.rate_hz,
        "window_ms": [round(float(at) * 1000, 1) for at in first.times_s[[0, -1]]],
        "unit": first.unit,
        "caveats": merge_caveats(
            *(recording.caveats for recording in store.splits.values())
        ),
        "overlap": overlap.description if overlap else "",
        "whiteners": 0 if first.whiteners is None else len(first.whiteners),
        "provenance": {
            key: value for key, value in first.provenance.items() if key != "files"
        },
        "splits": splits,
    }


def count_rows(described: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Write a row a split of a store that `describe_store` described."""
    voxels = _describe_lost_voxels(described["provenance"])
    for split, counts in described["splits"].items():
        least, most = counts["repetitions"]
        repetitions = str(most) if least == most else f"{least} to {most}"
        reasons = [
            f"{count} {reason}" for reason, count in counts["dropped"].items() if count
        ]
        dropped = ", ".join([*reasons, *voxels])
        yield (
            split,
            counts["pictures"],
            repetitions,
            counts["trials"],
            dropped or "none",
        )


def _describe_lost_voxels(provenance: Mapping[str, Any]) -> list[str]:
    """Describe how many voxels a store lacks, and the session that costs most."""
    counts = provenance.get("voxels", {})
    lost = counts.get("constant_or_missing_in_a_session")
    if not lost:
        return []
    worst = max(provenance["sessions"], key=lambda facts: facts["constant_voxels"])
    return [
        f"{lost} of {counts['read']} voxels without an estimate, "
        f"{worst['constant_voxels']} of them in session {worst['session']}"
    ]
