"""Recordings of single-trial betas, z-scored, with voxels chosen by noise ceiling."""

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress, product
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    Float32,
    Float64,
    Int64,
    Table,
)
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.files import (
    FOLDERS,
    LazyRows,
    format_ranges,
    read_simulated,
    summarise_names,
)
from brainhive_cli.data.recordings import (
    AcceptKey,
    Account,
    Dispute,
    Overview,
    Preparation,
    cached_method,
    list_pictures,
    list_subjects,
)
from brainhive_cli.data.signals import Trials, Voxels, index_optional, sum_by_picture

MAX_BLOCK_BYTES = 2**27
"""Largest block of signals in memory while noise ceilings are measured."""
NOT_ESTIMATED = "trials without an estimate in all or many voxels"
SPLITS = ("train", "test", "imagery", "artificial")
"""Splits of published trials."""


class BetaSteps(parts.Config):
    """Steps from single-trial betas to recordings.

    Attributes:
        unit: Unit of the betas before they are z-scored.
        keeps_constant: If True, constant voxels are kept, for models that expect a
            fixed order of voxels.
    """

    unit: ClassVar[str] = "% signal change"
    keeps_constant: ClassVar[bool] = False

    zscore: Literal["session", "run", "no"] = Field(
        "session",
        description="z-score each voxel within a session or run by its training "
        "trials, or by all trials if it has no training trials; default for categories "
        "in BOLD: no",
    )
    min_ncsnr: float | None = Field(
        None,
        gt=0,
        description=(
            "least ncsnr of a voxel, measured on repetitions of training stimuli"
        ),
    )
    max_voxels: int | None = Field(
        None, gt=0, description="number of voxels to keep, those of the highest ncsnr"
    )
    accept: AcceptKey = Field({})

    @property
    def scale(self) -> str:
        """Unit within which voxels are z-scored: `session`, `run` or `no`."""
        return self.zscore

    def list_sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, or nothing if only its files name them."""
        return ()


@dataclass(frozen=True)
class SessionTrials:
    """Trials of a session, in the order of its betas.

    Attributes:
        image_ids: Image id [n] of each trial, "" if no stimulus was shown.
        splits: Split [n] of each trial, "" if the trial is left out.
        runs: Run number [n] of each trial, or None if unknown.
        onset_s: Seconds [n] from the start of the run to each stimulus, or None if
            unknown.
        dropped: Number of trials that are left out or have no beta, by reason.
        noted: Number of trials or runs with another unusual fact, by description.
        unmatched: Names of pictures that the data set lacks, without duplicates.
        provenance: Further facts for the store.
    """

    image_ids: Sequence[str]
    splits: NDArray[np.str_]
    runs: Int64 | None
    dropped: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)
    unmatched: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    onset_s: Float64 | None = None


SessionBetas = tuple[Float32, Mapping[str, Array], Mapping[str, Any]]
"""Betas [n, V] of a session in the order of `SessionTrials`, NaN where a voxel was not
recorded. Maps [V] of the estimation, by name. Facts about the estimation.
"""


@dataclass(frozen=True)
class Betas(Preparation):
    """Base of the preparations of betas.

    Attributes:
        file_kinds: Interpretation of each file of masks and regions, such as
            {1: {"V1": "labels without names"}}, by subject and name. Filled when the
            files are read.
        stimuli: Data set of the pictures, if trials name them by path, file or id.
        account: What is set aside, and what does not add up.
        dataset: Name of the data set of the pictures.
    """

    config: Any  # BetaSteps, and the keys of the subclass
    root: Path
    file_kinds: dict[int, Mapping[str, str]] = field(default_factory=dict)
    stimuli: Any = None
    account: Account = field(init=False)
    dataset: str = field(init=False)

    def __post_init__(self) -> None:
        """Set the account, and the name of the data set of the pictures."""
        object.__setattr__(self, "account", Account(accept=self.config.accept))
        name = self.stimuli.recorded_as if self.stimuli else self.config.name
        object.__setattr__(self, "dataset", str(name))

    @cached_property
    def _pictures(self) -> tuple[list[str], NDArray[np.str_]]:
        return list_pictures(self.stimuli)

    @abstractmethod
    def load_voxels(self, subject: int) -> Voxels:
        """Load the regions, maps and positions of a subject's voxels."""

    @abstractmethod
    def count_voxels(self, subject: int) -> int:
        """Count the voxels of a subject."""

    @abstractmethod
    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the trials of a session without reading betas."""

    @abstractmethod
    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Read or estimate the betas of a session."""

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """List facts about the files of subjects, a line each, for the overview."""
        return []

    def find_left_out(self, subjects: Sequence[int]) -> Collection[str]:
        """Find labels of people with files, none of which is read, and count files
        of the subjects that are set aside.
        """
        return ()

    def _require_one_scale(
        self, subject: int, kind: str, spreads: Mapping[int, float]
    ) -> None:
        """Raise an error if a run or session has another scale than the others.

        Args:
            subject: Number of the subject.
            kind: "run" or "session".
            spreads: Standard deviation of the betas, by number of the run or session.
        """
        median = np.median(list(spreads.values()))
        # Largest ratio of spreads of the runs or sessions of a person.
        max_scale_ratio = 5.0
        for number, spread in spreads.items():
            ratio = spread / median if median else 1
            if not 1 / max_scale_ratio < ratio < max_scale_ratio:
                problem = (
                    f"the betas of {kind} {number} vary {ratio:.2g} times as much as "
                    f"those of the median {kind}"
                )
                dispute = Dispute("other-scale", problem, count=1, subject=subject)
                replace(self.account, disputes=[dispute]).require()

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, V, 1] of each split of a session, by split."""
        trials, rows, _ = self._choose_trials(subject, session)
        splits = trials.splits[rows]
        n_voxels = self.count_voxels(subject)
        return {
            split: (int((splits == split).sum()), n_voxels, 1)
            for split in _list_splits(splits)
        }

    def _choose_trials(
        self, subject: int, session: int, missing_rows: Array | None = None
    ) -> tuple[SessionTrials, Array, dict[int, Array]]:
        """Choose the trials of a session, without reading betas.

        Args:
            subject: Subject number.
            session: Session number.
            missing_rows: Rows of trials whose betas were not estimated.

        Returns:
            All trials, the rows that are used, and by run or session the positions in
            these rows that are z-scored together.

        Raises:
            BrainhiveError: if there are too few trials to use, to z-score by, or to
                choose voxels by.
        """
        trials = self.list_trials(subject, session)
        if missing_rows is not None and len(missing_rows):
            splits = trials.splits.copy()
            splits[missing_rows] = ""
            dropped = dict(trials.dropped) | {NOT_ESTIMATED: len(missing_rows)}
            trials = replace(trials, splits=splits, dropped=dropped)
        rows = np.flatnonzero(trials.splits != "")
        if not len(rows):
            reasons = [f"{count} {reason}" for reason, count in trials.dropped.items()]
            raise BrainhiveError(
                f"session {session} of subject {subject} has no trial of a picture: "
                f"{', '.join(reasons)}",
                "correct its events, or leave it out: preparation.sessions=[…]",
            )

        # group the trials by run, or put all of the session into group 0
        numbers = np.zeros(len(rows), np.int64)
        if self.config.scale == "run" and trials.runs is not None:
            numbers = trials.runs[rows]
        groups = {}
        if self.config.scale != "no":
            values = np.unique(numbers).tolist()
            groups = {value: np.flatnonzero(numbers == value) for value in values}
        for number, members in groups.items():
            splits = trials.splits[rows[members]]
            n_trials = int((splits == "train").sum()) or len(splits)
            if n_trials < 2:
                scale = "session" if self.config.scale == "run" else "no"
                raise BrainhiveError(
                    f"session {session} of subject {subject}: {self.config.scale} "
                    f"{number} has one trial to z-score by",
                    f"preparation.zscore={scale}",
                )
        self._require_repetitions(subject)
        return trials, rows, groups

    @cached_method
    def _require_repetitions(self, subject: int) -> None:
        """Raise an error if voxels are chosen by too few repeated stimuli."""
        if self.config.min_ncsnr is None and self.config.max_voxels is None:
            return
        counts = Counter[str]()
        for session in self.sessions(subject):
            trials = self.list_trials(subject, session)
            counts.update(compress(trials.image_ids, trials.splits == "train"))
        n_repeated = sum(count > 1 for count in counts.values())
        # Smallest number of repeated training stimuli from which voxels are chosen.
        # With fewer the choice would follow noise.
        min_repeated_stimuli = 20
        if n_repeated < min_repeated_stimuli:
            raise BrainhiveError(
                f"subject {subject}: {n_repeated} training stimuli were shown twice or "
                f"more, and a choice of voxels needs {min_repeated_stimuli}",
                "leave out preparation.min_ncsnr and preparation.max_voxels, and "
                "choose voxels by region instead",
            )

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the betas of a session by split, z-scored as the recipe says."""
        _, rows, _ = self._choose_trials(subject, session)
        betas, estimated_maps, estimation = self.read_betas(subject, session)
        has_betas, is_sound = choose_estimates(betas[rows])
        missing_rows = rows[~has_betas]
        trials, rows, groups = self._choose_trials(subject, session, missing_rows)
        splits = trials.splits[rows]  # [n]
        values = betas[rows]  # [n, V]
        space = self.load_voxels(subject)

        # voxels that are missing or constant in a session are left out in `finish`
        values[:, ~is_sound] = 0
        is_sound &= np.ptp(values, 0) > 0

        if self.config.scale != "run" and trials.runs is not None:
            numbers = trials.runs[rows]
            spreads = {
                run: values[numbers == run].std() for run in set(numbers.tolist())
            }
            self._require_one_scale(subject, "run", spreads)

        # z-score each group by its training trials, or by all trials without them
        groups_without_training = []
        for number, members in groups.items():
            reference_rows = members[splits[members] == "train"]
            if not len(reference_rows):
                groups_without_training.append(number)
                reference_rows = members
            reference = values[reference_rows]
            mean = reference.mean(0, np.float64)
            spread = reference.std(0, dtype=np.float64)
            varies = np.ptp(reference, 0) > 0
            is_sound &= varies
            # in place, because copies of a whole brain in float64 are large
            values[members] -= mean
            values[members] /= np.where(is_sound, spread, 1)
            if self.config.keeps_constant:
                values[np.ix_(members, np.flatnonzero(~varies))] = 0

        # maps of the subject, of the estimation, and of this session
        all_maps: dict[str, Array] = dict(space.maps) | dict(estimated_maps)
        all_maps["is_sound"] = is_sound
        maps = {name: np.asarray(map_, np.float64) for name, map_ in all_maps.items()}
        space = replace(space, maps=maps)

        # facts for the store
        unit = self.config.unit if self.config.scale == "no" else "z-score"
        provenance: dict[str, Any] = {
            "noted": dict(trials.noted),
            "constant_voxels": int((~is_sound).sum()),
        }
        provenance |= dict(trials.provenance) | dict(estimation)
        if groups_without_training:
            provenance["z_scored_without_training_trials"] = groups_without_training
        accepted = self.account.list_accepted(subject)
        if accepted:
            provenance["accepted"] = accepted
        programs = read_simulated(*self.files(subject))
        if programs:
            provenance["simulated"] = programs

        # a recording for each split
        runs = None if trials.runs is None else trials.runs.astype(np.int16)
        recordings: dict[str, Trials] = {}
        for split in _list_splits(splits):
            split_rows = rows[splits == split]
            # trials without a split are counted in the first recording
            dropped = {} if recordings else dict(trials.dropped)
            recordings[split] = Trials(
                signal=values[splits == split][:, :, None],  # [n, V, 1]
                image_ids=[trials.image_ids[row] for row in split_rows.tolist()],
                space=space,
                times_s=np.zeros(1),
                rate_hz=None,
                unit=unit,
                provenance={"dropped": dropped} | provenance,
                runs=index_optional(runs, split_rows),
                onset_s=index_optional(trials.onset_s, split_rows),
                trial_numbers=split_rows if trials.onset_s is None else None,
            )
        return recordings

    def finish(
        self, subject: int, recordings: Mapping[str, Trials]
    ) -> dict[str, Trials]:
        """Measure the noise ceilings of voxels, and choose voxels by the recipe.

        Raises:
            BrainhiveError: if no voxel is left.
        """
        if self.config.scale == "no":
            spreads = {}
            for recording in recordings.values():
                assert recording.sessions is not None  # as in every joined recording
                for session in np.unique(recording.sessions).tolist():
                    rows = np.flatnonzero(recording.sessions == session)
                    # Largest number of trials of a session and split whose
                    # spread is measured.
                    sample = recording.signal[rows[:16]]
                    spreads[session + 1] = float(np.std(sample))
            self._require_one_scale(subject, "session", spreads)
        space = next(iter(recordings.values())).space
        maps = dict(space.maps)
        min_ncsnr = self.config.min_ncsnr
        max_voxels = self.config.max_voxels
        # `is_sound` is a mean over sessions
        is_sound = (maps.pop("is_sound") == 1) | self.config.keeps_constant

        # data sets that keep constant voxels publish their noise ceilings
        n_repeated = 0
        if "train" in recordings and not self.config.keeps_constant:
            ncsnr, n_repeated = measure_ncsnr(recordings["train"])
            if n_repeated:
                maps["ncsnr"] = ncsnr

        # keep the voxels of the highest ncsnr in their order
        rows = np.flatnonzero(is_sound)
        highest = ""
        if min_ncsnr is not None or max_voxels is not None:
            ratios = maps["ncsnr"]
            highest = f"; the highest ncsnr is {ratios.max():.2g}"
            rows = rows[np.argsort(-ratios[rows], kind="stable")[:max_voxels]]
            rows = np.sort(rows[ratios[rows] >= (min_ncsnr or 0)])
        if not len(rows):
            raise BrainhiveError(
                f"subject {subject}: no voxel is left, {is_sound.sum()} vary in each "
                f"session{highest}",
                "lower preparation.min_ncsnr, or choose other sessions or another mask",
            )

        counts = {
            "read": len(is_sound),
            "constant_or_missing_in_a_session": int((~is_sound).sum()),
            "kept": len(rows),
        }
        if len(rows) < is_sound.sum():
            counts["chosen_by_training_stimuli"] = n_repeated
        space = space.replace_maps(maps).select(rows)
        selected = {}
        for split, recording in recordings.items():
            selected[split] = replace(
                recording,
                signal=_select_voxels(recording.signal, rows),  # [n, kept V, 1]
                space=space,
                provenance=dict(recording.provenance) | {"voxels": counts},
            )
        return selected

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Count the voxels and the trials of each session, and list unusual facts.

        Subjects that cannot be read are left out, as their preparation raises the
        error.
        """
        trial_rows = []
        voxel_rows = []
        warnings = list[str]()
        for subject in subjects:
            try:
                session_trials = {
                    session: self.list_trials(subject, session)
                    for session in self.sessions(subject)
                }
                sizes = []
                for name, mask in self.load_voxels(subject).regions.items():
                    if mask.any():
                        sizes.append(f"{name} ({mask.sum()})")
                regions = summarise_names(sizes) if sizes else "none"
                voxel_rows.append((subject, self.count_voxels(subject), regions))
            except BrainhiveError:
                continue

            for session, trials in session_trials.items():
                trial_rows.append((subject, session, *_count_trials(trials)))
            warnings += self._describe_unusual(subject, session_trials)

        # people whom the recipe leaves out need no yes
        left_out = sorted(self.find_left_out(subjects))
        if left_out and set(self.subjects) <= set(subjects):
            problem = f"files of {', '.join(left_out)} in {self.root} are not read"
            names = tuple(left_out)
            self.account.disputes.append(Dispute("left-out-people", problem, names))

        # notes are complete once all files are read
        warnings = self.list_notes(subjects) + self.account.describe() + warnings

        # interpretations of files, without plain masks
        file_rows = []
        for subject in subjects:
            for name, kind in self.file_kinds.get(subject, {}).items():
                if (name, kind) != ("mask", "mask"):
                    file_rows.append((subject, name, kind))
        trial_columns = (
            "subject",
            "session",
            "runs",
            "train trials",
            "test trials",
            "pictures",
            "repeated trials",
        )
        tables = (
            Table("Trials", trial_columns, trial_rows),
            Table("Voxels", ("subject", "voxels", "regions"), voxel_rows),
            Table(
                "Files of masks and regions", ("subject", "name", "read as"), file_rows
            ),
        )
        shown_tables = tuple(table for table in tables if table.rows)
        return Overview(shown_tables, tuple(warnings), account=self.account)

    def _describe_unusual(
        self, subject: int, session_trials: Mapping[int, SessionTrials]
    ) -> list[str]:
        """Describe unusual facts about the trials of a subject, a line each."""
        counts: dict[str, dict[int, int]] = defaultdict(dict)  # by fact and session
        unmatched: dict[str, None] = {}
        for session, trials in session_trials.items():
            unmatched |= dict.fromkeys(trials.unmatched)
            for fact, count in (dict(trials.dropped) | dict(trials.noted)).items():
                if count > 0:
                    counts[fact][session] = count

        lines = []
        for fact, session_counts in counts.items():
            total = sum(session_counts.values())
            sessions = format_ranges(list(session_counts))
            lines.append(f"subject {subject}, session {sessions}: {total} {fact}")
        if unmatched:
            lines.append(
                f"subject {subject}: pictures that {self.dataset} does not have, "
                f"{summarise_names(list(unmatched))}"
            )
        return lines


Trial = tuple[str, str, int, int | None]
"""Image id, split, session and run of a trial. None is an unknown run. A trial that is
left out has the reason in place of a split.
"""


class Subject(NamedTuple):
    """Files of a subject with published betas.

    Attributes:
        files: All files that are read.
        voxels: Regions, maps and positions of the voxels.
        width: Number of voxels.
        trials: Trials in the order of the betas.
        read_betas: Returns the betas [n, V] of a session.
        facts: Facts for the store, such as `fitted`, the trials whose betas were
            estimated together.
    """

    files: Sequence[Path]
    voxels: Voxels
    width: int
    trials: Sequence[Trial]
    read_betas: Callable[[int], Array]
    facts: Mapping[str, Any] = {}


class PublishedSteps(BetaSteps):
    """Base of the steps of data sets that publish betas.

    Attributes:
        name: Name of the data set.
        patterns: Patterns of files or folders, at most three folders below the root.
            Each subject has at least one of them.
        folder: Name of the folder below paths.data, if it is not the data set's name.
        numbers: Numbers of all subjects, if unrelated files also match `patterns`.
    """

    name: ClassVar[str]
    patterns: ClassVar[Sequence[str]] = ()
    folder: ClassVar[str] = ""
    numbers: ClassVar[Collection[int]] = ()

    root: str = Field(
        "",
        description=(
            "folder of the files; default: folder of the data set below paths.data"
        ),
    )

    def find_subjects(self, root: Path) -> Collection[int]:
        """Find the subjects, or nothing if `patterns` finds them."""
        return ()

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Open the files of a subject, without reading betas.

        Raises:
            MissingData: if a file is missing.
        """
        raise NotImplementedError

    def build(self, paths: Paths) -> "PublishedBetas":
        """Return the preparation, without opening files."""
        root = paths.dataset(self.folder or self.name, self.root)
        return PublishedBetas(self, root, patterns=self.patterns)


@dataclass(frozen=True)
class PublishedBetas(Betas):
    """Published betas below a root.

    Attributes:
        patterns: Patterns of files or folders, of which each subject has at least one.
    """

    patterns: Sequence[str] = ()

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects with files."""
        named_subjects = self.config.find_subjects(self.root)
        if named_subjects:
            return tuple(named_subjects)
        patterns = []
        for pattern, folder in product(self.patterns, FOLDERS):
            patterns.append(folder + pattern)
        subjects = list_subjects(self.root, patterns)
        numbers = self.config.numbers or subjects
        return tuple(subject for subject in subjects if subject in numbers)

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject."""
        return list(dict.fromkeys(self.open_subject(subject).files))

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that have trials."""
        sessions = self.config.list_sessions(subject)
        if sessions:
            return sessions
        trials = self.open_subject(subject).trials
        return sorted({session for _, _, session, _ in trials})

    def load_voxels(self, subject: int) -> Voxels:
        """Load the regions, maps and positions of a subject's voxels."""
        return self.open_subject(subject).voxels

    def count_voxels(self, subject: int) -> int:
        """Count the voxels of a subject."""
        return self.open_subject(subject).width

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the trials of a session."""
        content = self.open_subject(subject)
        trials = [trial for trial in content.trials if trial[2] == session]
        names, splits, _, runs = zip(*trials, strict=True)
        # a trial that is left out has the reason in place of a split
        return SessionTrials(
            image_ids=names,
            splits=np.where(np.isin(splits, SPLITS), splits, ""),
            runs=None if None in runs else np.array(runs),
            dropped=Counter(split for split in splits if split not in SPLITS),
            provenance=content.facts,
        )

    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Read the betas of a session."""
        values = self.open_subject(subject).read_betas(session)
        return values.astype(np.float32, copy=False), {}, {}

    @cached_method
    def open_subject(self, subject: int) -> Subject:
        """Open the files of a subject, without reading betas."""
        return self.config.open_subject(self.root, subject)


def choose_estimates(betas: Float32) -> tuple[Bool, Bool]:
    """Choose trials and voxels without missing betas, so that most betas are kept.

    A beta is missing if it is not finite. A beta of 0 is missing if at least
    a quarter of the trial's betas are 0. Voxels that are 0 in all trials do not
    count.

    Args:
        betas: Betas [n, V].

    Returns:
        Masks of the trials [n] and of the voxels [V] that are kept.
    """
    is_missing = ~np.isfinite(betas)
    is_zero = betas == 0
    varies = ~is_zero.all(0)
    is_zero &= varies
    zero_share = is_zero.sum(1, keepdims=True) / max(1, varies.sum())
    # Smallest share of zeros in a trial at which its zeros count as missing betas.
    is_missing |= is_zero & (zero_share >= 0.25)

    # drop trials one by one, the trial with the most missing betas first, until a voxel
    # has no missing beta
    order = np.argsort(-is_missing.sum(1), kind="stable")
    n_drops = np.zeros(betas.shape[1], np.int64)
    for position, row in enumerate(order, 1):
        n_drops[is_missing[row]] = position

    # the product of trials and voxels that remain is largest
    counts = np.arange(len(order))
    n_voxels = np.searchsorted(np.sort(n_drops), counts, "right")
    best = int(((len(order) - counts) * n_voxels).argmax())
    return ~np.isin(counts, order[:best]), n_drops <= best


def measure_ncsnr(recording: Trials) -> tuple[Float64, int]:
    """Measure the noise-ceiling signal-to-noise ratio of voxels.

    The variance over repetitions, averaged over repeated stimuli, is the noise. The
    rest of the variance of all trials is the signal. NSD z-scores betas by session,
    which makes the variance of all trials 1.

    Returns:
        Ratios [V], 0 without repetitions, and the number of repeated stimuli.

    Source: Allen et al. 2022.
    """
    signal = recording.signal
    counts = recording.counts
    n_repeated = int((counts > 1).sum())

    # sums over blocks of stimuli
    noise, sums, squares = np.zeros((3, signal.shape[1]))  # [V] each
    picture_bytes = 8 * recording.max_repetitions * signal.shape[1]
    step = max(1, MAX_BLOCK_BYTES // picture_bytes)
    for start in range(0, len(counts), step):
        block_counts = counts[start : start + step]
        trials = recording.find_trials(slice(start, start + step))
        values = np.array(signal[trials], np.float64)[..., 0]  # [n, V]
        sums += values.sum(0)
        squares += (values**2).sum(0)
        # variance over the trials of each repeated picture
        is_repeated = np.repeat(block_counts > 1, block_counts)
        repeated_counts = block_counts[block_counts > 1]
        values = values[is_repeated]
        means = sum_by_picture(values, repeated_counts) / repeated_counts[:, None]
        values -= np.repeat(means, repeated_counts, axis=0)
        squared_sums = sum_by_picture(values**2, repeated_counts)
        noise += (squared_sums / (repeated_counts[:, None] - 1)).sum(0)

    # the signal is the total variance without the noise
    noise /= max(1, n_repeated)
    n_trials = counts.sum()
    variance = squares / n_trials - (sums / n_trials) ** 2
    explained = np.maximum(variance - noise, 0)
    ratio = np.zeros_like(noise)
    np.divide(explained, noise, out=ratio, where=noise > 0)
    return np.sqrt(ratio), n_repeated


def _count_trials(trials: SessionTrials) -> tuple[str | int, ...]:
    """Count runs, training and test trials, pictures and repetitions of a session."""
    counts = Counter(trials.splits.tolist())
    image_ids = list(filter(None, trials.image_ids))
    n_pictures = len(set(image_ids))
    return (
        "–" if trials.runs is None else len(np.unique(trials.runs)),
        counts["train"],
        counts["test"],
        n_pictures,
        len(image_ids) - n_pictures,
    )


def _list_splits(splits: NDArray[np.str_]) -> list[str]:
    """List the splits of trials in alphabetical order, but training first."""
    names = set(splits.tolist()) - {""}
    return sorted(names, key=lambda split: (split != "train", split))


def _select_voxels(signal: Any, rows: Int64) -> LazyRows:
    """Select voxels of a signal [n, V, 1] that is read when it is sliced."""

    def read_trials(trials: Any) -> Array:
        return np.asarray(signal[trials])[:, rows]

    return LazyRows((len(signal), len(rows), 1), signal.dtype, read_trials)
