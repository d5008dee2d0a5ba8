"""Single-trial betas of any origin: recordings by split, z-scored, of voxels that
repetitions choose.
"""

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.key_types import yaml_no_as_text
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files.bids_labels import read_simulated
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import (
    spans,
    summarise_names,
)
from brainhive_cli.data.files.published_files import FOLDERS
from brainhive_cli.data.recordings.contract import (
    Overview,
    Preparation,
    cached_method,
    list_subjects,
)
from brainhive_cli.data.recordings.shown_pictures import list_pictures
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.signals.trials import Trials, index_optional

BLOCK_BYTES = 2**27
"""Limit of the signals in memory while voxels are measured."""
MIN_ZEROS = 0.25
"""Share of zeros in a trial from which on they are no estimates."""
NOT_ESTIMATED = "trials without an estimate in all or many voxels"
REPEATED = 20
"""Training stimuli shown twice or more, below which a choice of voxels would be one of
noise.
"""
SPLITS = ("train", "test", "imagery", "artificial")
"""Splits of published trials; in place of another stands the reason why a trial is left
out.
"""


class BetaSteps(parts.Config):
    """Steps from single-trial betas of any origin to recordings.

    Attributes:
        unit: Unit of the betas before they are z-scored.
        keeps_constant: Whether voxels that do not vary are kept, for models that know
            voxels by their order.
    """

    unit: ClassVar[str] = "% signal change"
    keeps_constant: ClassVar[bool] = False

    zscore: Annotated[Literal["session", "run", "no"], yaml_no_as_text] = Field(
        "session",
        description="z-score each voxel within a session or run, by its training "
        "trials; of one without training trials by all of its own",
    )
    min_ncsnr: float | None = Field(
        None,
        gt=0,
        description=(
            "keep voxels of at least this ncsnr, by the repetitions of training stimuli"
        ),
    )
    max_voxels: int | None = Field(
        None, gt=0, description="keep so many voxels, those of the highest ncsnr"
    )

    @property
    def scale(self) -> str:
        """Trials within which voxels are z-scored: `session`, `run` or `no`."""
        return self.zscore

    def list_sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject where they are known without files; else
        none.
        """
        return ()


@dataclass(frozen=True)
class SessionTrials:
    """The trials of a session, in the order of its betas.

    Attributes:
        image_ids: [n] of the stimuli that were shown; "" where none was.
        splits: [n] of the split of each; "" where a trial is left out.
        runs: [n] number of the run; None where that is not known.
        onset_s: [n] seconds from its start to each stimulus; None where that is not
            known.
        dropped: Number of trials that are left out, or have no beta at all, by reason.
        noted: Other unusual facts, with counts, in words: each is a line of the plan.
        unmatched: Names in the trials of pictures that the data set does not have, each
            once.
        provenance: Further facts on the session for the store.
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
"""Betas of a session [n, V], in the order of `SessionTrials`, NaN where a voxel was not
recorded; measures of voxels by their estimation, [V] by name; and facts on it.
"""


@dataclass(frozen=True)
class Betas(Preparation):
    """A preparation of betas: subclasses say where they are, all else is the same for
    all.

    Attributes:
        file_kinds: What the files of a subject's regions were taken for, by name, once
            they are read.
        stimuli: The data set of the pictures, where trials name them by path, file or
            id.
    """

    config: Any  # BetaSteps, and the keys of the subclass
    root: Path
    file_kinds: dict[int, Mapping[str, str]] = field(default_factory=dict)
    stimuli: Any = None
    dataset: str = field(init=False)

    def __post_init__(self) -> None:
        """Name the data set of the pictures."""
        vars(self)["dataset"] = str(
            self.stimuli.recorded_as if self.stimuli else self.config.name
        )

    @cached_property
    def _pictures(self) -> tuple[list[str], NDArray[np.str_]]:
        return list_pictures(self.stimuli)

    @abstractmethod
    def load_voxels(self, subject: int) -> Voxels:
        """Give the V voxels of a subject: regions, maps of all sessions, and their
        positions.
        """

    @abstractmethod
    def count_voxels(self, subject: int) -> int:
        """Count the voxels of a subject."""

    @abstractmethod
    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the trials of a session; no beta is read."""

    @abstractmethod
    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Read, or estimate, the betas of a session."""

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """List facts about the files of subjects that the overview has, a line each."""
        return []

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session by split."""
        trials, rows, _ = self._choose_trials(subject, session)
        splits = trials.splits[rows]
        width = self.count_voxels(subject)
        return {
            split: (int((splits == split).sum()), width, 1)
            for split in _list_splits(splits)
        }

    def _choose_trials(
        self, subject: int, session: int, missing: Array | None = None
    ) -> tuple[SessionTrials, Array, dict[int, Array]]:
        """List the trials of a session, the rows that are used, and by run or session
        those of them that are z-scored together; none is read.

        Args:
            subject: By number.
            session: By number.
            missing: Rows of trials whose betas were not estimated.

        Raises:
            BrainhiveError: if there are too few to use, to z-score by, or to choose
                voxels by.
        """
        # trials of a picture
        trials = self.list_trials(subject, session)
        if missing is not None and len(missing):
            splits = trials.splits.copy()
            splits[missing] = ""
            dropped = {**trials.dropped, NOT_ESTIMATED: len(missing)}
            trials = replace(trials, splits=splits, dropped=dropped)
        where = f"session {session} of subject {subject}"
        rows = np.flatnonzero(trials.splits != "")
        if not len(rows):
            reasons = [f"{count} {why}" for why, count in trials.dropped.items()]
            raise BrainhiveError(
                f"{where} has no trial of a picture: {', '.join(reasons)}",
                "correct its events, or leave it out: preparation.sessions=[…]",
            )

        # two trials or more to z-score by, in each run or in the session
        numbers = np.zeros(len(rows), np.int64)
        if self.config.scale == "run" and trials.runs is not None:
            numbers = trials.runs[rows]
        groups = {}
        if self.config.scale != "no":
            runs = np.unique(numbers).tolist()
            groups = {run: np.flatnonzero(numbers == run) for run in runs}
        for group, members in groups.items():
            splits = trials.splits[rows[members]]
            if ((splits == "train").sum() or len(splits)) < 2:
                problem = (
                    f"{where}: {self.config.scale} {group} has one trial to z-score by"
                )
                way = "session" if self.config.scale == "run" else "no"
                raise BrainhiveError(problem, f"preparation.zscore={way}")

        # enough repetitions for a choice of voxels
        chooses_voxels = (
            self.config.min_ncsnr is not None or self.config.max_voxels is not None
        )
        if chooses_voxels and (repeated := self._count_repeated(subject)) < REPEATED:
            raise BrainhiveError(
                f"subject {subject}: {repeated} training stimuli were shown twice or "
                f"more, too few to choose voxels by, which takes {REPEATED}",
                "leave out preparation.min_ncsnr and preparation.max_voxels; choose by "
                "region instead",
            )
        return trials, rows, groups

    @cached_method
    def _count_repeated(self, subject: int) -> int:
        """Count, once, the training stimuli of a subject that were shown twice or
        more.
        """
        shown = Counter[str]()
        for session in self.sessions(subject):
            trials = self.list_trials(subject, session)
            shown.update(compress(trials.image_ids, trials.splits == "train"))
        return sum(number > 1 for number in shown.values())

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read the betas of a session, by split, z-scored."""
        _, rows, _ = self._choose_trials(subject, session)
        betas, estimated_maps, estimation = self.read_betas(subject, session)
        is_kept, is_sound = choose_estimates(betas[rows])
        trials, rows, groups = self._choose_trials(subject, session, rows[~is_kept])
        # [n], [n, V]
        splits = trials.splits[rows]
        values = betas[rows]
        space = self.load_voxels(subject)

        # a voxel that was not recorded, or never changes, in some session is left out
        # of all in the end
        values[:, ~is_sound] = 0
        is_sound &= np.ptp(values, 0) > 0

        # z-score each group by its training trials, or by all where it has none
        untrained = []
        for group, members in groups.items():
            training = members[splits[members] == "train"]
            if not len(training):
                untrained.append(group)
            known = values[training if len(training) else members]
            mean = known.mean(0, np.float64)
            spread = known.std(0, dtype=np.float64)
            varies = np.ptp(known, 0) > 0
            is_sound &= varies
            # in place: of all voxels of a brain, copies in float64 are large
            values[members] -= mean
            values[members] /= np.where(is_sound, spread, 1)
            if self.config.keeps_constant:
                values[np.ix_(members, np.flatnonzero(~varies))] = 0

        # maps of the subject, of the estimation, and of this session
        maps = {**space.maps, **estimated_maps, "is_sound": is_sound}
        space = replace(
            space,
            maps={name: np.asarray(map_, np.float64) for name, map_ in maps.items()},
        )

        # facts on the session that the store keeps
        unit = self.config.unit if self.config.scale == "no" else "z-score"
        facts = {"noted": dict(trials.noted), "constant_voxels": int((~is_sound).sum())}
        provenance: dict[str, Any] = {**facts, **trials.provenance, **estimation}
        if untrained:
            provenance["z_scored_without_training_trials"] = untrained
        if programs := read_simulated(*self.files(subject)):
            provenance["simulated"] = programs

        # one recording for each split, training first
        runs = None if trials.runs is None else trials.runs.astype(np.int16)
        recordings: dict[str, Trials] = {}
        for split in _list_splits(splits):
            split_rows = rows[splits == split]
            recordings[split] = Trials(
                values[splits == split][:, None, :, None],  # [n, 1, V, 1]
                [trials.image_ids[row] for row in split_rows.tolist()],
                space,
                np.zeros(1),
                None,
                unit,
                # of no split: the first has them
                {"dropped": {} if recordings else dict(trials.dropped), **provenance},
                runs=index_optional(runs, split_rows[:, None]),  # [n, 1]
                onset_s=index_optional(trials.onset_s, split_rows[:, None]),
                trial_numbers=split_rows[:, None] if trials.onset_s is None else None,
            )
        return recordings

    def finish(
        self, subject: int, recordings: Mapping[str, Trials]
    ) -> dict[str, Trials]:
        """Measure voxels by the repetitions of training stimuli, and keep those that
        are wanted.
        """
        space = next(iter(recordings.values())).space
        assert isinstance(space, Voxels)
        maps = {**space.maps}
        least = self.config.min_ncsnr
        most = self.config.max_voxels
        # the mean over sessions
        is_sound = (maps.pop("is_sound") == 1) | self.config.keeps_constant

        # noise ceilings by the repetitions of training stimuli; voxels that all stay
        # have published ones
        repeated = 0
        highest = ""
        rows = np.flatnonzero(is_sound)
        if "train" in recordings and not self.config.keeps_constant:
            ncsnr, repeated = measure_ncsnr(recordings["train"])
            maps |= {"ncsnr": ncsnr} if repeated else {}

        # the voxels with the highest ncsnr, in their own order
        if least is not None or most is not None:
            ratios = maps["ncsnr"]
            highest = f"; the highest ncsnr is {ratios.max():.2g}"
            rows = rows[np.argsort(-ratios[rows], kind="stable")[:most]]
            rows = np.sort(rows[ratios[rows] >= (least or 0)])
        if not len(rows):
            raise BrainhiveError(
                f"subject {subject}: no voxel is left, {is_sound.sum()} vary in each "
                f"session{highest}",
                "a lower preparation.min_ncsnr; or other sessions or mask",
            )

        # counts for the store, and the signals of the chosen voxels alone
        counts = {
            "read": len(is_sound),
            "constant_or_missing_in_a_session": int((~is_sound).sum()),
            "kept": len(rows),
        }
        if len(rows) < is_sound.sum():
            counts["chosen_by_training_stimuli"] = repeated
        space = replace(space, maps=maps).select(rows)
        return {
            split: replace(
                recording,
                signal=_select_voxels(recording.signal, rows),  # [N, R, kept V, 1]
                space=space,
                provenance={**recording.provenance, "voxels": counts},
            )
            for split, recording in recordings.items()
        }

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Count voxels and the trials of each session, and list unusual facts about
        them.
        """
        rows = []
        widths = []
        lines = list[str]()
        for subject in subjects:
            try:
                session_trials = {
                    session: self.list_trials(subject, session)
                    for session in self.sessions(subject)
                }
                sizes = [
                    f"{name} ({mask.sum()})"
                    for name, mask in self.load_voxels(subject).regions.items()
                    if mask.any()
                ]
                regions = summarise_names(sizes) if sizes else "none"
                widths.append((subject, self.count_voxels(subject), regions))
            except BrainhiveError:
                continue  # the preparation of this subject raises it

            # one row for each session; unusual facts are joined over sessions
            # count by session, by fact
            unusual: dict[str, dict[int, int]] = defaultdict(dict)
            unmatched: dict[str, None] = {}
            for session, trials in session_trials.items():
                shown = [*filter(None, trials.image_ids)]
                pictures = len({*shown})
                counts = Counter(trials.splits.tolist())
                rows.append(
                    (
                        subject,
                        session,
                        "–" if trials.runs is None else len(np.unique(trials.runs)),
                        counts["train"],
                        counts["test"],
                        pictures,
                        len(shown) - pictures,
                    )
                )
                unmatched |= dict.fromkeys(trials.unmatched)
                for reason, count in {**trials.dropped, **trials.noted}.items():
                    if count > 0:
                        unusual[reason][session] = count
            lines += [
                (
                    f"subject {subject}, session {spans([*sessions])}: "
                    f"{sum(sessions.values())} {reason}"
                )
                for reason, sessions in unusual.items()
            ]
            if unmatched:
                lines.append(
                    f"subject {subject}: pictures that {self.dataset} does not have, "
                    f"{summarise_names([*unmatched])}"
                )

        # what was left out of all subjects, once their files are known
        lines = [*self.list_notes(subjects), *lines]

        # trials by session, voxels, and how files of regions were read; a plain mask
        # needs no row
        readings = (
            (n, *pair) for n in subjects for pair in self.file_kinds.get(n, {}).items()
        )
        files = [row for row in readings if row[1:] != ("mask", "mask")]
        columns = (
            "subject",
            "session",
            "runs",
            "train trials",
            "test trials",
            "pictures",
            "shown again",
        )
        tables = (
            Table("Trials listed", columns, rows),
            Table(
                "Voxels read", ("subject", "voxels", "regions that have any"), widths
            ),
            Table(
                "Files of masks and regions", ("subject", "name", "taken for"), files
            ),
        )
        return Overview(tuple(table for table in tables if table.rows), tuple(lines))


Trial = tuple[str, str, int, int | None]
"""Picture, split, session and run, which may not be known; or in place of a split why
it is left out.
"""


class Subject(NamedTuple):
    """Content of the files of a subject.

    Attributes:
        files: All files that are read.
        voxels: Regions, maps and positions.
        width: Number of voxels.
        trials: The trials, as many as there are betas.
        read_betas: Reader of the betas [n, V] of a session.
        facts: Facts for the store, as the trials over which betas were estimated
            together (`fitted`).
    """

    files: Sequence[Path]
    voxels: Voxels
    width: int
    trials: Sequence[Trial]
    read_betas: Callable[[int], Array]
    facts: Mapping[str, Any] = {}


class PublishedSteps(BetaSteps):
    """Published betas of a data set: names of its files, what they hold, and the steps
    from there.

    Attributes:
        name: Name of the data set.
        patterns: Files or folders, at most three folders below the root, one of which
            each subject has.
        folder: Name of the folder below paths.data, where it is not that of the data
            set.
        numbers: Numbers of its subjects, where other files of such names are none of
            its own.
    """

    name: ClassVar[str]
    patterns: ClassVar[Sequence[str]] = ()
    folder: ClassVar[str] = ""
    numbers: ClassVar[Collection[int]] = ()

    root: str = Field(
        "",
        description=(
            "folder of the files; default: the data set's name below paths.data"
        ),
    )

    def find_subjects(self, root: Path) -> Collection[int]:
        """Find the subjects whose files have names instead of numbers."""
        return ()

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Find all of a subject but the values of betas; MissingData where a file is
        not there.
        """
        raise NotImplementedError

    def build(self, paths: Paths) -> "PublishedBetas":
        """Point at the data; nothing is read yet."""
        root = paths.dataset(self.folder or self.name, self.root)
        return PublishedBetas(self, root, patterns=self.patterns)


@dataclass(frozen=True)
class PublishedBetas(Betas):
    """The betas below one root.

    Attributes:
        patterns: Files or folders, at most three folders below the root, one of which
            each subject has.
    """

    patterns: Sequence[str] = ()

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""
        if known := self.config.find_subjects(self.root):
            return tuple(known)
        patterns = self.patterns
        numbers = self.config.numbers
        labels = list_subjects(
            self.root, [folder + pattern for pattern in patterns for folder in FOLDERS]
        )
        return tuple(subject for subject in labels if subject in (numbers or labels))

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject."""
        return [*dict.fromkeys(self.open_subject(subject).files)]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials."""
        return self.config.list_sessions(subject) or sorted(
            {session for _, _, session, _ in self.open_subject(subject).trials}
        )

    def load_voxels(self, subject: int) -> Voxels:
        """Give regions, maps and positions of the voxels."""
        return self.open_subject(subject).voxels

    def count_voxels(self, subject: int) -> int:
        """Count the voxels."""
        return self.open_subject(subject).width

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the trials of a session."""
        about = self.open_subject(subject)
        trials = [trial for trial in about.trials if trial[2] == session]
        names, splits, _, runs = zip(*trials, strict=True)
        # a split that is none of SPLITS is the reason why a trial is left out
        return SessionTrials(
            names,
            np.where(np.isin(splits, SPLITS), splits, ""),
            None if None in runs else np.array(runs),
            Counter(split for split in splits if split not in SPLITS),
            provenance=about.facts,
        )

    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Read the betas of a session."""
        values = self.open_subject(subject).read_betas(session)
        return values.astype(np.float32, copy=False), {}, {}

    @cached_method
    def open_subject(self, subject: int) -> Subject:
        """Find all of a subject but the values of betas, once."""
        return self.config.open_subject(self.root, subject)


def choose_estimates(betas: Float32) -> tuple[Bool, Bool]:
    """Choose trials and voxels that all have estimates, so that most betas are kept.

    A beta that is not finite is no estimate, nor is 0 in a trial of which at least
    `MIN_ZEROS` of the voxels are 0 that others are not. The trials that lack most are
    left out, as many as leave most betas, and then the voxels that others lack.

    Args:
        betas: [n, V].

    Returns:
        Whether each trial [n] and each voxel [V] is kept.
    """
    is_missing = ~np.isfinite(betas)
    is_zero = betas == 0
    varies = ~is_zero.all(0)
    is_zero &= varies
    share = is_zero.sum(1, keepdims=True) / max(1, varies.sum())
    is_missing |= is_zero & (share >= MIN_ZEROS)

    # trials that lack most first: how many must go so that each voxel is there
    order = np.argsort(-is_missing.sum(1), kind="stable")
    needed = np.zeros(betas.shape[1], np.int64)
    for position, row in enumerate(order, 1):
        needed[is_missing[row]] = position
    numbers = np.arange(len(order))
    widths = np.searchsorted(np.sort(needed), numbers, "right")
    number = int(((len(order) - numbers) * widths).argmax())
    return ~np.isin(numbers, order[:number]), needed <= number


def measure_ncsnr(recording: Trials) -> tuple[Float64, int]:
    """Measure the noise-ceiling signal-to-noise ratio of voxels.

    The variance of the noise is the mean, over stimuli that were shown twice or more,
    of that over repetitions; what it leaves of the variance of all trials is the
    signal's. Of betas that are z-scored by session, as NSD's, that is 1.

    Returns:
        [V], 0 where no stimulus was shown twice; and the number of stimuli that were.

    Source: Allen et al. 2022.
    """
    signal = recording.signal
    counts = recording.repetitions
    assert counts is not None  # as in every joined recording
    repeated = int((counts > 1).sum())

    # sums over blocks of stimuli: of values, of squares, and of variances over
    # repetitions
    noise, sums, squares = np.zeros((3, signal.shape[2]))  # [V] each
    step = max(1, BLOCK_BYTES // (8 * int(np.prod(signal.shape[1:]))))
    for start in range(0, len(signal), step):
        shown = counts[start : start + step, None]  # [n, 1]
        values = np.array(signal[start : start + step], np.float64)[..., 0]  # [n, R, V]
        # absent repetitions count in no sum
        values[np.arange(values.shape[1]) >= shown] = np.nan
        sums += np.nansum(values, (0, 1))
        squares += np.nansum(values**2, (0, 1))
        noise += np.nanvar(values[shown[:, 0] > 1], 1, ddof=1).sum(0)

    # signal variance is total variance less noise variance
    noise /= max(1, repeated)
    explained = np.maximum(
        squares / counts.sum() - (sums / counts.sum()) ** 2 - noise, 0
    )
    return np.sqrt(
        np.divide(explained, noise, out=np.zeros_like(noise), where=noise > 0)
    ), repeated


def _list_splits(splits: NDArray[np.str_]) -> list[str]:
    """List the splits of trials, training first whatever was shown first."""
    return sorted(
        {*splits.tolist()} - {""}, key=lambda split: (split != "train", split)
    )


def _select_voxels(signal: Any, rows: Int64) -> LazyRows:
    """Select voxels of a signal [N, R, V, 1]; values are read where the result is
    sliced.
    """
    shape = (*signal.shape[:2], len(rows), 1)
    return LazyRows(
        shape, signal.dtype, lambda part: np.asarray(signal[part])[:, :, rows]
    )
