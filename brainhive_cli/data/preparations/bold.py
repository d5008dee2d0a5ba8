"""Your own fMRI: single-trial betas of BOLD in BIDS, preprocessed by fMRIPrep."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import chain, groupby
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.files import hint_at_folder, is_file, locate, matches_pattern
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files.bids_labels import (
    SplitSessions,
    SubjectNumbers,
    chosen_numbers,
    find_pattern,
    number_sessions,
)
from brainhive_cli.data.files.ids import plain_id
from brainhive_cli.data.fmri.betas import Betas, BetaSteps, SessionBetas, SessionTrials
from brainhive_cli.data.fmri.bids_bold import (
    BOLD_PATTERNS,
    COPY_HINT,
    BoldRun,
    find_inherited_files,
    find_onset_unit,
    find_runs,
    list_folder,
    read_bold,
    read_confounds,
    read_events,
    read_timing,
    require_one_version,
)
from brainhive_cli.data.fmri.glm import TrialRun, estimate_trials
from brainhive_cli.data.fmri.regions import (
    Thresholds,
    count_hemisphere_rows,
    find_region_files,
    read_regions,
)
from brainhive_cli.data.fmri.volumes import Mask, find_vertices
from brainhive_cli.data.recordings.contract import Overview, cached_method, fill_subject
from brainhive_cli.data.recordings.event_names import (
    EventNames,
    find_event_table,
)
from brainhive_cli.data.recordings.labels import (
    describe_labels,
    group_by_session,
    read_label,
    read_session,
)
from brainhive_cli.data.recordings.ledger import Ledger
from brainhive_cli.data.recordings.shown_pictures import (
    StimuliKey,
    build_stimuli,
    choose_stimuli,
    match_pictures,
)
from brainhive_cli.data.recordings.tables import (
    ENTITIES,
    find_missing_column,
    read_table,
)
from brainhive_cli.data.signals.spaces import Surface, Voxels

PEAK_S = 6.0
"""Time after the onset of a picture at which its response is about largest."""
LAST_S, FIRST_S = 1.0, -20.0
"""A picture that begins later, seen from the last volume, or earlier, seen from the
start of the run, leaves no response in it that could be modelled.
"""
AFTER_END = "pictures that begin after the end of the run"
PEAK_OUTSIDE = (
    f"pictures whose response peaks ({PEAK_S:g} s after onset) outside the run"
)
DURATION_TOLERANCE_S = 0.1
"""Largest difference of durations that one HRF models; it has steps of this length."""


class Config(BetaSteps):
    """BOLD in BIDS, preprocessed by fMRIPrep: volumes, or surfaces (GIFTI, CIFTI).

    A beta is estimated for each picture of each run, in percent of signal change;
    sessions are fitted apart.
    """

    root: str = Field(
        "", description="folder of the BIDS data set; default: bids below paths.data"
    )
    derivatives: str = Field(
        "derivatives/fmriprep", description="fMRIPrep's, below `root` or anywhere"
    )
    files: str = Field(
        "*",
        exclude_if=lambda files: files == "*",  # stores name it only where it is chosen
        description="pattern of the BOLD that is read, as *_rec-nordic_* where runs "
        "have several versions",
    )
    subject_numbers: SubjectNumbers = Field({})
    task: str = Field(
        "", description="task; default: the only one whose events name pictures"
    )
    space: str = Field(
        "",
        description="of the BOLD, as T1w or fsLR:den-91k; default: T1w, or the only "
        "one",
    )
    sessions: SplitSessions = Field(None)
    stimuli: StimuliKey = "image-folder"
    stimulus: str = Field(
        "",
        description="column of the events.tsv that names the picture, or a template as "
        "stim-{task}{number:05d}; default: stim_file, else stimulus_id",
    )
    where: dict[str, str | float | list[str | float]] = Field(
        {},
        description="only events with these values, as {trial_type: picture} or "
        "{trial_type: [1, 2]}",
    )
    onset_unit: Literal["", "s", "ms", "volumes"] = Field(
        "",
        exclude_if=lambda unit: not unit,
        description="of onsets and durations; default: that which alone fits the run",
    )
    stimulus_s: float | None = Field(
        None, gt=0, description="seconds of a picture; default: as events say"
    )
    estimator: Literal["lsa", "lss", "hrf", "denoised"] = Field(
        "denoised",
        description="lsa: all trials of a run at once; lss: each trial against the "
        "others; hrf: lsa with the best of 20 HRFs by voxel; denoised: "
        "that, less noise, by training pictures shown in several runs",
    )
    hrf: Literal["glover", "spm"] = Field("glover", description="HRF of lsa and lss")
    confounds: NameList | None = Field(
        None,
        description="fMRIPrep's motion, cosine, non_steady, motion_outlier, "
        "a_comp_cor, t_comp_cor, or columns as trans_*_derivative1; "
        "default: motion, cosine and non_steady, or of denoised non_steady",
    )
    mask: str = Field(
        "",
        description="NIfTI of the voxels, with {subject:02d} or {label}; default: "
        "fMRIPrep's masks",
    )
    regions: dict[str, str] = Field(
        {},
        description="masks and atlases besides aparcaseg, below root or else home, "
        "name: file with {subject:02d} or {label}",
    )
    thresholds: Thresholds = Field({}, exclude_if=lambda thresholds: not thresholds)

    @model_validator(mode="after")
    def _has_steps_that_fit(self) -> Self:
        if self.hrf != "glover" and self.estimator not in ("lsa", "lss"):
            raise ValueError(
                f"hrf {self.hrf} is for lsa and lss; {self.estimator} fits one by voxel"
            )
        groups = self.confounds or ()
        if any("comp_cor" in name for name in groups) and "cosine" not in groups:
            raise ValueError(
                "CompCor was computed after the high-pass of cosine: name cosine, too"
            )
        return self

    def citations(self) -> tuple[str, ...]:
        """List the paper of the estimator."""
        return ("mumford2012",) if self.estimator in ("lsa", "lss") else ("prince2022",)

    def build(self, paths: Paths) -> "Bold":
        """Point at the data set; nothing is read yet."""
        root = paths.dataset("bids", self.root)
        folder = locate(self.derivatives)
        # a folder anywhere, else one below the data set
        derived = folder if folder.is_dir() else root / self.derivatives
        config = choose_stimuli(self, paths, root)
        stimuli = build_stimuli(config, paths)
        return Bold(config, root, derived=derived, stimuli=stimuli)


TINY = Config()


@dataclass(frozen=True)
class Bold(Betas):
    """The BOLD of one BIDS data set.

    Attributes:
        derived: The folder of the derivatives.
        ledger: Runs that are left out, once they are listed.
    """

    derived: Path = Path()
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects with BOLD of the task in the space."""
        return tuple(sorted(self._runs))

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, or those of the recipe."""
        # labels were matched when files were listed; numbers select here
        there = sorted(self._runs.get(subject, ()))
        sessions = sorted(chosen_numbers(self.config.sessions)) or there
        if absent := [session for session in sessions or [1] if session not in there]:
            problem = (
                f"no BOLD with events of subject {subject}, session {absent[0]}, in "
                f"{self.derived}"
            )
            listed = (
                f"sessions={','.join(map(str, there))}"
                if there
                else "derivatives=FOLDER"
            )
            raise MissingData(problem, f"preparation.{listed}")
        return sessions

    def files(self, subject: int) -> Sequence[Path]:
        """List BOLD, events, confounds, masks and sidecars of all runs, regions, and
        lists of pictures.
        """
        # each file once; a link may lead to a file that is not there
        runs = (run.files for run in self._all_runs(subject))
        mask = filter(None, [self._mask_file(subject)])
        regions = self._region_files(subject).values()
        files = [*dict.fromkeys(chain(*runs, mask, *regions))]
        if absent := [path for path in files if not is_file(path)]:
            raise MissingData(f"no file {absent[0]}", COPY_HINT)
        table = filter(None, [find_event_table(self.root)])
        return [*files, *table, *filter(Path.is_file, self.stimuli.lists)]

    def count_voxels(self, subject: int) -> int:
        """Count voxels, or vertices of both hemispheres."""
        space = self._space(subject)
        return space.width if isinstance(space, Mask) else len(space.vertices)

    def load_voxels(self, subject: int) -> Voxels:
        """Name the regions of voxels or vertices."""
        return self._voxels(subject)

    @cached_method
    def _voxels(self, subject: int) -> Voxels:
        """Read the regions of a subject, once."""
        space = self._space(subject)
        files = self._region_files(subject)
        voxels, readings = read_regions(files, space, self.config.thresholds)
        # how the recipe's mask was read, as of regions
        if isinstance(space, Mask) and self.config.mask:
            readings = {"mask": space.kind, **readings}
        self.file_kinds[subject] = readings
        return voxels

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """Name the subjects whose labels are not their numbers, and runs left out."""
        paths = {
            subject: {
                session: [run.bold_files[0] for run in runs]
                for session, runs in sessions.items()
            }
            for subject, sessions in self._runs.items()
        }
        numbers = self.config.subject_numbers
        lines = describe_labels(paths, self.derived, subjects, numbers)
        return [*lines, *self.ledger.describe()]

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the pictures that are modelled, and count those that are not."""
        return self._design(subject, session)[2]

    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Estimate the betas of a session."""
        files, trial_runs, trials = self._design(subject, session)
        space = self._space(subject)
        config = self.config
        sides = space if isinstance(space, Mask) else count_hemisphere_rows(space)
        pairs = zip(files, trial_runs, strict=True)
        # [T, V] each
        series = [
            read_bold(run, sides, len(trial_run.frame_times_s))
            for run, trial_run in pairs
        ]

        # fit blocks of voxels, each read as [voxels, T]
        with naming(f"session {session} of subject {subject}"):
            return estimate_trials(
                trial_runs,
                lambda run, voxels: series[run][:, voxels].T,
                self.count_voxels(subject),
                config.estimator,
                trials.provenance["stimulus_s"],
                config.hrf,
            )

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Count trials, and describe the timing of volumes."""
        overview = super().look_over(subjects)
        models = []
        if not overview.tables:
            return overview

        # timing and confounds of each session; runs that are alike are listed once
        trials, *further_tables = overview.tables
        for subject, session, *_ in trials.rows:
            known = self.list_trials(subject, session).provenance
            timing = known["timing"]
            confounds = known["confounds"]
            columns = {
                "TR (s)": [f"{run['tr_s']:g}" for run in timing],
                "first (s)": [f"{run['start_s']:g}" for run in timing],
                "by": [run["source"] for run in timing],
                "confounds": [str(len(names)) for names in confounds],
                "shown (s)": [f"{known['stimulus_s']:g}"],
            }
            texts = (", ".join(sorted({*column})) for column in columns.values())
            models.append((subject, session, *texts, known["repeated"]))
        table = Table(
            "Models", ("subject", "session", *columns, "repeated"), tuple(models)
        )
        return replace(overview, tables=(trials, table, *further_tables))

    @cached_property
    def _runs(self) -> dict[int, dict[int, list[BoldRun]]]:
        """Find the runs of all subjects, by session."""
        if not self.root.is_dir():
            raise MissingData(
                f"no folder {self.root}",
                hint_at_folder(
                    self.root, "preparation.root", self.config.root, "a BIDS data set"
                ),
            )

        # the BOLD of one space
        raw = cache(partial(list_folder, self.root))
        derived = cache(partial(list_folder, self.derived))
        folders = [
            *self.derived.glob("sub-*/func"),
            *self.derived.glob("sub-*/ses-*/func"),
        ]
        files = [
            file
            for folder in sorted(folders)
            for file in derived(folder.relative_to(self.derived))
            if file.space
            and file.entities.get("desc", "preproc") == "preproc"
            and any(map(file.path.match, BOLD_PATTERNS))
            and matches_pattern(
                (file.folder / file.path.name).as_posix(), self.config.files
            )
        ]
        if not files:
            where = f"below {self.derived}, of files={self.config.files}"
            raise MissingData(
                f"no BOLD in a space that runs share {where}",
                "preparation.derivatives=FOLDER, of fmriprep --output-spaces T1w",
            )
        space = self._choose("space", {file.space for file in files}, "T1w")
        files = [file for file in files if file.space == space]

        # the task whose events name pictures
        columns: dict[str, dict[str, None]] = defaultdict(dict)  # of events, by task
        for file in files:
            for path in find_inherited_files(raw, file, ".tsv", "events")[-1:]:
                columns[file.entities.get("task", "")] |= dict.fromkeys(
                    read_table(path)[0]
                )
        stimulus = self.config.stimulus
        tasks = {
            task
            for task, names in columns.items()
            if not find_missing_column(stimulus, [*names, *ENTITIES])
        }
        if not tasks:
            there = dict.fromkeys(chain(*columns.values()))
            absent = find_missing_column(stimulus, [*there, *ENTITIES]) or stimulus
            raise MissingData(
                f"no events.tsv of BOLD in {self.derived} has a column {absent}",
                f"preparation.stimulus=COLUMN, of {', '.join(there) or 'none'}",
            )
        task = self._choose("task", tasks)

        # runs by the subject and session that their folder names
        series = [file for file in files if file.entities.get("task", "") == task]
        require_one_version(series)
        folder_files = {
            folder: [*part]
            for folder, part in groupby(series, lambda file: file.path.parent)
        }
        runs: dict[int, dict[int, list[BoldRun]]] = {}
        # labels of sessions are numbered over all subjects alike
        labels = [read_session(folder, self.derived) for folder in folder_files]
        sessions = self.config.sessions
        numbers = number_sessions(
            labels, None if chosen_numbers(sessions) else sessions
        )
        groups = group_by_session(
            self.derived, folder_files, self.config.subject_numbers, numbers
        )
        for subject, session_paths in groups.items():
            for session, paths in session_paths.items():
                series = [file for path in paths for file in folder_files[path]]
                if session_runs := find_runs(raw, derived, series, self.ledger):
                    runs.setdefault(subject, {})[session] = session_runs
        return runs

    def _choose(self, key: str, options: set[str], usual: str = "") -> str:
        """Choose the recipe's task or space, or the only one, or the usual one."""
        wanted = getattr(self.config, key) or (
            usual if len(options) > 1 else min(options)
        )
        # T1w stands for T1w:res-2, if that alone is there
        matches = [
            option
            for option in options
            if option == wanted or option.startswith(f"{wanted}:")
        ]
        if len(matches) != 1 or not wanted:
            raise MissingData(
                f"{self.derived} has BOLD of the {key}s {', '.join(sorted(options))}",
                f"preparation.{key}=ONE",
            )
        return matches[0]

    @cached_method
    def _space(self, subject: int) -> Mask | Surface:
        """Read the mask of voxels that all runs have; on surfaces, the vertices of the
        first run.
        """
        # surfaces have vertices, not voxels
        runs = self._all_runs(subject)
        way_out = "preparation.mask=FILE, a mask on the grid of the BOLD"
        path = self._mask_file(subject)
        if runs[0].bold_files[0].name.endswith((".gii", ".dtseries.nii")):
            if path:
                raise BrainhiveError(
                    f"{path} is a mask of volumes, the BOLD is of a surface",
                    "leave it out",
                )
            # of grayordinates the cortex is read, the left hemisphere first
            surface = find_vertices(runs[0].bold_files, COPY_HINT)
            assert surface is not None  # by the ending of the file
            side = surface.vertices[:, 0]
            rows = np.concatenate([np.flatnonzero(side == one) for one in (0, 1)])
            return replace(surface, vertices=surface.vertices[rows])

        # the recipe's mask, or those of fMRIPrep, on the grid of all runs
        paths = (
            [path]
            if path
            else [run.image_files.get("brain", run.bold_files[0]) for run in runs]
        )
        if absent := {run.bold_files[0] for run in runs} & {*paths}:
            raise MissingData(
                f"{min(absent)} has no desc-brain_mask next to it", way_out
            )
        masks = [
            Mask.open(path, way_out, threshold=self.config.thresholds.get("mask"))
            for path in paths
        ]
        for image in [*paths, *(run.bold_files[0] for run in runs)]:
            masks[0].require_same_grid(image)
        counts = np.sum([mask.inside for mask in masks], 0)  # [X, Y, Z]
        inside = counts == len(masks)
        if not inside.any():
            raise BrainhiveError(
                f"the brain masks of subject {subject} share no voxel", way_out
            )
        lost = int((counts > 0).sum() - inside.sum())
        smallest = min(masks, key=lambda mask: mask.width)
        reason = f"which not all {len(masks)} brain masks have"
        self.ledger.leave_out("voxels", reason, smallest.path.name, lost)
        return replace(masks[0], inside=inside)

    def _all_runs(self, subject: int) -> list[BoldRun]:
        return [
            run
            for session in self.sessions(subject)
            for run in self._runs[subject][session]
        ]

    def _mask_file(self, subject: int) -> Path | None:
        name = fill_subject(self.config.mask, subject, self._label(subject))
        return locate(name) if name else None

    def _label(self, subject: int) -> str:
        return read_label(
            self._all_runs(subject)[0].bold_files[0], self.derived
        ).removeprefix("sub-")

    def _region_files(self, subject: int) -> dict[str, list[Path]]:
        # fMRIPrep's segmentation, of the first run that has one
        labels = {
            name: [path]
            for run in reversed(self._all_runs(subject))
            for name, path in run.image_files.items()
            if name == "aparcaseg"
        }
        return labels | find_region_files(
            self.config.regions, subject, self.root, self._label(subject)
        )

    @cached_method
    def _design(
        self, subject: int, session: int
    ) -> tuple[list[BoldRun], list[TrialRun], SessionTrials]:
        """Read events, times and confounds of a session, and choose the pictures that
        are modelled.

        Returns:
            The files of its runs, onsets and confounds of each run, and the trials of
            all.
        """
        config = self.config
        where = f"session {session} of subject {subject}"
        session_runs = self._runs[subject][session]
        dropped = Counter[str]()
        noted = Counter[str]()

        # pictures of all runs, and the unit of their onsets
        events_of_run = {}
        timings = {}
        timed = []
        for run in session_runs:
            volumes, tr_s, *_ = timings[run.number] = read_timing(run)
            events_of_run[run.number] = read_events(
                run.events_file, config.stimulus, config.where, run.bold_files[0]
            )
            for onset, *_ in events_of_run[run.number][0]:
                timed.append((onset, tr_s, volumes * tr_s))
        unit = config.onset_unit or find_onset_unit(timed, where)
        if unit != "s":
            noted[f"pictures whose onsets are in {unit}"] = len(timed)

        # pictures with a response in their run that can be modelled
        shown = []
        for run in session_runs:
            volumes, tr_s, start_s, _ = timings[run.number]
            pictures, no_pictures = events_of_run[run.number]
            size_s = {"s": 1, "ms": 1e-3, "volumes": tr_s}[unit]
            pictures = [
                (onset * size_s, duration * size_s, name)
                for onset, duration, name in pictures
            ]
            end_s = volumes * tr_s
            latest_s = (volumes - 1) * tr_s + start_s - LAST_S
            begun = [picture for picture in pictures if picture[0] < end_s]
            modelled = [picture for picture in begun if FIRST_S < picture[0] < latest_s]
            dropped.update(no_pictures)
            dropped[AFTER_END] += len(pictures) - len(begun)
            dropped[PEAK_OUTSIDE] += len(begun) - len(modelled)
            noted["runs without a picture"] += not modelled
            shown += [(run.number, end_s, *picture) for picture in modelled]
        if not shown:
            reasons = ", ".join(
                f"{count} {reason}" for reason, count in (+dropped).items()
            )
            raise MissingData(
                f"{where} shows no picture: {reasons}",
                "onsets count from the first volume: preparation.onset_unit=ms; "
                "preparation.sessions=[…] leaves it out",
            )

        # run, its end, time and name [n] of the pictures of all runs
        *columns, events = zip(*shown, strict=True)
        numbers, ends_s, onsets_s, durations_s = map(np.array, columns)
        names = EventNames(
            find_event_table(self.root), self._pictures[0], self.stimuli.are_categories
        ).name_pictures(events)

        # pictures that the data set lacks are modelled, too: they evoke responses
        image_ids, splits, unmatched = match_pictures(
            names, self.stimuli, self._pictures
        )
        peaks_inside = (onsets_s + PEAK_S >= 0) & (onsets_s + PEAK_S <= ends_s)
        dropped.update(unmatched)
        # sessions that the recipe assigns to one split have no trials of others
        if isinstance(config.sessions, dict):
            label = read_session(session_runs[0].bold_files[0], self.derived)
            split = config.sessions[str(find_pattern(label, config.sessions))]
            is_other = ~np.isin(splits, ["", split])
            dropped[f"trials of other splits than {split}, which ses-{label} is of"] = (
                int(is_other.sum())
            )
            splits = np.where(is_other, "", splits)
        dropped[PEAK_OUTSIDE] += int(((splits != "") & ~peaks_inside).sum())

        # pictures that are shown again; those that will test a model choose nothing
        # here, and count as new
        pairs = zip(image_ids, names, strict=True)
        ids = [image_id or plain_id(name) for image_id, name in pairs]
        stimuli = np.unique(ids, return_inverse=True)[1].astype(np.int64)
        is_tested = ~np.isin(splits, ["train", ""])
        stimuli[is_tested] = -1 - np.flatnonzero(is_tested)
        # stimuli in several runs, by which `denoised` chooses
        counts = Counter(
            stimulus
            for stimulus, _ in {*zip(stimuli.tolist(), numbers.tolist(), strict=True)}
        )
        repeated = sum(count > 1 for count in counts.values())
        if config.estimator == "denoised" and not repeated:
            raise BrainhiveError(
                f"{where} shows no training picture in two runs, by which estimator "
                "denoised chooses",
                "preparation.estimator=hrf, which needs no repetitions",
            )

        # one duration for all pictures
        # of NaN, too
        if (
            config.stimulus_s is None
            and not np.ptp(durations_s) <= DURATION_TOLERANCE_S
        ):
            known = f"for {durations_s.min():g} to {durations_s.max():g} s"
            if np.isnan(durations_s).any():
                known = "without a duration"
            raise BrainhiveError(
                f"{where} shows pictures {known}",
                "preparation.stimulus_s=SECONDS models all alike; "
                "preparation.where={…} takes some",
            )

        # onsets, pictures and confounds [T] of each run with pictures
        groups = config.confounds
        if groups is None:  # the estimator `denoised` finds noise by itself
            further = [] if config.estimator == "denoised" else ["motion", "cosine"]
            groups = [*further, "non_steady"]
        files = [run for run in session_runs if run.number in numbers]
        runs = []
        confounds = []
        timing = []
        for run in files:
            volumes, tr_s, start_s, _ = timings[run.number]
            keys = ("volumes", "tr_s", "start_s", "source")
            timing.append(dict(zip(keys, timings[run.number], strict=True)))
            nuisance = read_confounds(run, groups, volumes, noted)
            confounds.append([*nuisance])
            is_shown = numbers == run.number
            runs.append(
                TrialRun(
                    np.arange(volumes, dtype=np.float64) * tr_s + start_s,
                    onsets_s[is_shown],
                    stimuli[is_shown],
                    tr_s,
                    confounds=np.stack([*nuisance.values()], 1) if nuisance else None,
                    has_drift=not any(name.startswith("cosine") for name in nuisance),
                )
            )

        # facts for the store, and the trials whose response peaks inside their run
        provenance = {
            "fitted": "by session, training and test trials together",
            "stimulus_s": config.stimulus_s or float(np.median(durations_s)),
            "repeated": repeated,
            "timing": timing,
            "confounds": confounds,
        }
        unknown = sorted(
            {
                name
                for name, image_id in zip(names, image_ids, strict=True)
                if not image_id
            }
        )
        # trials without a split are modelled, and not stored
        splits = np.where(peaks_inside, splits, "")
        trials = SessionTrials(
            image_ids, splits, numbers, +dropped, +noted, unknown, provenance, onsets_s
        )
        return files, runs, trials
