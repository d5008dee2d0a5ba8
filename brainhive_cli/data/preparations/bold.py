"""Single-trial betas of BOLD in BIDS that fMRIPrep preprocessed."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, compress, product
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Float64,
    Int64,
    MissingData,
    Table,
    naming,
)
from brainhive_cli.core.files import hint_at_folder, is_file, locate, matches_pattern
from brainhive_cli.core.recipes import NameList, Paths
from brainhive_cli.data.files import (
    BidsIndex,
    SplitSessions,
    SubjectNumbers,
    describe_labels,
    find_pattern,
    get_session_numbers,
    group_by_session,
    number_sessions,
    read_entities,
    read_label,
    read_session,
    to_image_id,
)
from brainhive_cli.data.fmri import (
    BOLD_PATTERNS,
    COPY_HINT,
    Betas,
    BetaSteps,
    BoldRun,
    Mask,
    RunTiming,
    SessionBetas,
    SessionTrials,
    ShownPicture,
    Thresholds,
    TrialRun,
    average_bold,
    count_hemisphere_rows,
    estimate_trials,
    find_anatomy,
    find_onset_unit,
    find_region_files,
    find_runs,
    find_vertices,
    read_anatomy,
    read_bold,
    read_confounds,
    read_events,
    read_regions,
    read_space,
    read_timing,
)
from brainhive_cli.data.recordings import (
    ENTITIES,
    EventNames,
    Overview,
    StimuliKey,
    WhereKey,
    build_stimuli,
    cached_method,
    choose_stimuli,
    fill_subject,
    find_copies,
    find_event_table,
    find_missing_column,
    find_mixed_kinds,
    leave_trials_apart,
    match_pictures,
    read_table,
)
from brainhive_cli.data.signals import Surface, Voxels

PEAK_S = 6.0
"""Approximate time from the onset of a picture to the peak of its response."""
AFTER_END = "pictures that begin after the end of the run"
PEAK_OUTSIDE = (
    f"pictures whose response peaks ({PEAK_S:g} s after onset) outside the run"
)
_BY_RUN = (
    "each run by itself, without labels of stimuli, then scaled by the mean of each "
    "voxel over all runs of the session, training and test"
)
FITTED = {
    "lsa": _BY_RUN,
    "lss": _BY_RUN,
    "hrf": "all runs of a session together, training and test, without labels of "
    "stimuli: the response function of each voxel, and its mean for scaling",
    "denoised": "all runs of a session together, training and test, tuned on stimuli "
    "of the split train that several runs show",
}
"""Trials that each estimator uses together, and for what, for checklists."""
SURFACE_ENDINGS = (".gii", ".dtseries.nii")
"""Endings of BOLD that has vertices in place of voxels."""
OWN_GRID = (
    "the BOLD has no space: each run is on its own grid, which a movement between runs "
    "shifts; fmriprep --output-spaces T1w aligns them"
)
FUNC_FOLDERS = ("sub-*/func", "sub-*/ses-*/func")
"""Folders of functional files in BIDS."""
MODEL_COLUMNS = (
    "subject",
    "session",
    "TR (s)",
    "first volume (s)",
    "timing from",
    "confounds",
    "picture shown (s)",
    "pictures in several runs",
)
"""Columns of the table of models in the overview."""


class Config(BetaSteps):
    """BOLD in BIDS, preprocessed by fMRIPrep, as volumes or surfaces (GIFTI, CIFTI).

    A beta is estimated for each picture of each run, in percent of signal change. Each
    session is fitted by itself.
    """

    called = "a response of each voxel to each trial or block"

    root: str = Field(
        "", description="folder of the BIDS data set; default: bids below paths.data"
    )
    derivatives: str = Field(
        "derivatives/fmriprep",
        description="folder of fMRIPrep's derivatives, below root or anywhere",
    )
    files: str = Field(
        "*",
        # stores name it only if the user sets it
        exclude_if=lambda pattern: pattern == "*",
        description="pattern of the BOLD files to read, such as *_rec-nordic_* if runs "
        "have several versions",
    )
    subject_numbers: SubjectNumbers = Field({})
    task: str = Field(
        "", description="task; default: the only task whose events name pictures"
    )
    space: str = Field(
        "",
        description="space of the BOLD, such as T1w or fsLR:den-91k; default: T1w, or "
        "the only space",
    )
    sessions: SplitSessions = Field(None)
    stimuli: StimuliKey = "image-folder"
    stimulus: str = Field(
        "",
        description="column of the events.tsv that names the picture, or a template "
        "such as stim-{task}{number:05d}; default: stim_file, else stimulus_id",
    )
    where: WhereKey = Field({})
    onset_unit: Literal["", "s", "ms", "volumes"] = Field(
        "",
        exclude_if=lambda unit: not unit,
        description="unit of onsets and durations; default: s, or ms if only they fit "
        "the run",
    )
    stimulus_s: float | None = Field(
        None,
        gt=0,
        description="duration of a picture in seconds; default: as in the events",
    )
    estimator: Literal["lsa", "lss", "hrf", "denoised"] = Field(
        "denoised",
        description="lsa: all trials of a run at once; lss: each trial against the "
        "others; hrf: lsa with the best of 20 HRFs for each voxel; denoised: hrf with "
        "noise removed and betas regularised, tuned on training pictures shown in "
        "several runs; default for categories: lsa",
    )
    hrf: Literal["glover", "spm"] = Field("glover", description="HRF of lsa and lss")
    confounds: NameList | None = Field(
        None,
        description="groups of fMRIPrep's confounds (motion, cosine, non_steady, "
        "motion_outlier, a_comp_cor, t_comp_cor) or columns such as "
        "trans_*_derivative1; default: motion, cosine and non_steady, but only "
        "non_steady for denoised",
    )
    mask: str = Field(
        "",
        description="NIfTI mask, with {subject:02d} or {label} in its path; default: "
        "fMRIPrep's masks",
    )
    regions: dict[str, str] = Field(
        {},
        description="masks and atlases besides aparcaseg as {NAME: FILE}, relative to "
        "root or home, with {subject:02d} or {label} in the path",
    )
    thresholds: Thresholds = Field({}, exclude_if=lambda thresholds: not thresholds)

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.hrf != "glover" and self.estimator not in ("lsa", "lss"):
            raise ValueError(
                f"hrf {self.hrf} applies to lsa and lss; {self.estimator} chooses an "
                "HRF for each voxel"
            )
        groups = self.confounds or ()
        has_comp_cor = any("comp_cor" in name for name in groups)
        if has_comp_cor and "cosine" not in groups:
            raise ValueError(
                "CompCor was computed after a high-pass filter: name cosine in "
                "confounds, too"
            )
        return self

    @property
    def confound_groups(self) -> Sequence[str]:
        """Groups of confounds. By default, `denoised` estimates noise itself."""
        if self.confounds is not None:
            return self.confounds
        if self.estimator == "denoised":
            return ["non_steady"]
        return ["motion", "cosine", "non_steady"]

    def citations(self) -> tuple[str, ...]:
        """Return the paper of the estimator."""
        return ("mumford2012",) if self.estimator in ("lsa", "lss") else ("prince2022",)

    @model_validator(mode="before")
    @classmethod
    def _leave_trials_apart(cls, fields: Any) -> Any:
        """Choose defaults with which trials of categories can be held out."""
        return leave_trials_apart(fields, cls.model_fields)

    def build(self, paths: Paths) -> "Bold":
        """Create the preparation without reading a file."""
        root = paths.dataset("bids", self.root)
        derivatives = locate(self.derivatives)
        if not derivatives.is_dir():
            derivatives = root / self.derivatives
        config = choose_stimuli(self, paths, root)
        stimuli = build_stimuli(config, paths)
        return Bold(config, root, derivatives=derivatives, stimuli=stimuli)


TINY = Config()


@dataclass(frozen=True)
class Bold(Betas):
    """The BOLD of a BIDS data set.

    Attributes:
        derivatives: Folder of the derivatives.
    """

    derivatives: Path = Path()

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects with BOLD of the task in the space, ascending."""
        return tuple(sorted(self._runs))

    def sessions(self, subject: int) -> Sequence[int]:
        """List the recipe's sessions, or all sessions of a subject.

        Raises:
            MissingData: if a session has no BOLD with events.
        """
        # `_runs` has selected labels such as "pre", so select numbers here
        recorded = sorted(self._runs.get(subject, ()))
        sessions = sorted(get_session_numbers(self.config.sessions)) or recorded
        absent = set(sessions) - set(recorded)
        if absent or not recorded:
            advice = "name the folder of fMRIPrep's output"
            override = "derivatives=FOLDER"
            if recorded:
                advice = "choose recorded sessions"
                override = f"sessions={','.join(map(str, recorded))}"
            raise MissingData(
                f"subject {subject} has no BOLD with events of session "
                f"{min(absent, default=1)} in {self.derivatives}",
                f"{advice}: preparation.{override}",
            )
        return sessions

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of runs, masks and regions, and the tables of pictures.

        Raises:
            MissingData: if a file is absent, such as the target of a link.
        """
        paths: list[Path] = []
        for run in self._list_runs(subject):
            paths += run.files
        mask_path = self._find_mask(subject)
        if mask_path is not None:
            paths.append(mask_path)
        for region_paths in self._find_regions(subject).values():
            paths += region_paths
        paths += self._find_anatomy(subject) or ()
        paths = list(dict.fromkeys(paths))
        for path in paths:
            if not is_file(path):
                raise MissingData(f"there is no file {path}", COPY_HINT)

        table = find_event_table(self.root)
        if table is not None:
            paths.append(table)
        return paths + list(filter(Path.is_file, self.stimuli.lists))

    def count_voxels(self, subject: int) -> int:
        """Count the voxels, or the vertices of both hemispheres."""
        space = self._open_space(subject)
        return space.width if isinstance(space, Mask) else len(space.vertices)

    @cached_method
    def load_voxels(self, subject: int) -> Voxels:
        """Read the regions and positions of the voxels or vertices, once."""
        space = self._open_space(subject)
        files = self._find_regions(subject)
        voxels, file_kinds = read_regions(files, space, self.config.thresholds)
        if isinstance(space, Mask) and self.config.mask:
            file_kinds = {"mask": space.kind} | file_kinds
        self.file_kinds[subject] = file_kinds
        if isinstance(space, Surface):
            return voxels

        # maps of voxels are drawn on the anatomy, else on the mean BOLD
        anatomy = self._find_anatomy(subject)
        if anatomy is not None:
            underlay = read_anatomy(*anatomy)
        else:
            underlay = average_bold(self._list_runs(subject)[0].bold_files[0])
        return replace(voxels, underlay=underlay)

    def list_notes(self, subjects: Sequence[int]) -> list[str]:
        """List subjects whose labels are not their numbers, and runs left out."""
        bold_files: dict[int, dict[int, list[Path]]] = {}
        has_space = True
        for subject, sessions in self._runs.items():
            bold_files[subject] = {}
            for session, runs in sessions.items():
                paths = [run.bold_files[0] for run in runs]
                bold_files[subject][session] = paths
                has_space &= all("_space-" in path.name for path in paths)
        numbers = self.config.subject_numbers
        lines = describe_labels(bold_files, self.derivatives, subjects, numbers)
        if not has_space:
            lines.append(OWN_GRID)
        return lines

    def find_left_out(self, subjects: Sequence[int]) -> Collection[str]:
        """Find people with functional files, but without a run that is read."""
        labels = set[str]()
        for root, pattern in product((self.root, self.derivatives), FUNC_FOLDERS):
            labels.update(
                path.relative_to(root).parts[0] for path in root.glob(pattern)
            )
        for sessions in self._runs.values():
            for run in chain(*sessions.values()):
                labels.discard(read_label(run.bold_files[0], self.derivatives))
        return labels

    def list_trials(self, subject: int, session: int) -> SessionTrials:
        """List the modelled pictures, and count the others by reason."""
        return self._design(subject, session)[2]

    def read_betas(self, subject: int, session: int) -> SessionBetas:
        """Estimate the betas of a session."""
        runs, trial_runs, trials = self._design(subject, session)
        space = self._open_space(subject)
        shape = space if isinstance(space, Mask) else count_hemisphere_rows(space)
        series = []  # [T, V] of each run
        for run, trial_run in zip(runs, trial_runs, strict=True):
            series.append(read_bold(run, shape, len(trial_run.frame_times_s)))

        # fit blocks of voxels, each read as [voxels, T]
        with naming(f"session {session} of subject {subject}"):
            return estimate_trials(
                trial_runs,
                lambda run, voxels: series[run][:, voxels].T,
                self.count_voxels(subject),
                self.config.estimator,
                trials.provenance["stimulus_s"],
                self.config.hrf,
            )

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Count the trials, and describe the timing and confounds of the runs."""
        overview = super().look_over(subjects)
        if not overview.tables:
            return overview

        trials_table = overview.tables[0]
        rows = []
        for subject, session, *_ in trials_table.rows:
            facts = self.list_trials(subject, session).provenance
            timing = facts["timing"]
            columns = (
                [f"{run['tr_s']:g}" for run in timing],
                [f"{run['start_s']:g}" for run in timing],
                [run["source"] for run in timing],
                [str(len(names)) for names in facts["confounds"]],
            )
            # equal values of the runs are listed once
            cells = tuple(", ".join(sorted(set(column))) for column in columns)
            stimulus_s = f"{facts['stimulus_s']:g}"
            rows.append((subject, session) + cells + (stimulus_s, facts["repeated"]))
        table = Table("Timing and general linear model (GLM)", MODEL_COLUMNS, rows)
        tables = (trials_table, table) + overview.tables[1:]
        return replace(overview, tables=tables)

    @cached_property
    def _runs(self) -> dict[int, dict[int, list[BoldRun]]]:
        """Runs by subject and session."""
        if not self.root.is_dir():
            raise MissingData(
                f"no folder {self.root}",
                hint_at_folder(
                    self.root, "preparation.root", self.config.root, "a BIDS data set"
                ),
            )
        raw = BidsIndex(self.root)
        derived = BidsIndex(self.derivatives)
        paths = self._choose_task(self._list_bold_files(derived), raw)
        labels = [read_session(path, self.derivatives) for path in paths]
        sessions = self.config.sessions
        # `sessions` selects numbers, and labels are selected here
        session_numbers = number_sessions(
            labels, None if get_session_numbers(sessions) else sessions
        )
        groups = group_by_session(
            self.derivatives, paths, self.config.subject_numbers, session_numbers
        )
        runs: dict[int, dict[int, list[BoldRun]]] = {}
        for subject, session_paths in groups.items():
            for session, bold_files in session_paths.items():
                session_runs = find_runs(raw, derived, bold_files, self.account)
                if session_runs:
                    runs.setdefault(subject, {})[session] = session_runs
        return runs

    def _list_bold_files(self, derived: BidsIndex) -> list[Path]:
        """List the BOLD of all subjects in the recipe's space."""
        fmriprep_hint = (
            "run fmriprep with --level full --output-spaces T1w, or name its output: "
            "preparation.derivatives=FOLDER"
        )
        if not self.derivatives.is_dir():
            raise MissingData(f"there is no folder {self.derivatives}", fmriprep_hint)
        files = []
        other_kinds = Counter[str]()
        folders: list[Path] = []
        for pattern in FUNC_FOLDERS:
            folders += self.derivatives.glob(pattern)
        for folder in sorted(folders):
            for path in derived.list_files(folder.relative_to(self.derivatives)):
                name = path.relative_to(self.derivatives).as_posix()
                description = read_entities(path).get("desc", "")
                suffix = path.name.partition(".")[0].rpartition("_")[2]
                is_bold = any(map(path.match, BOLD_PATTERNS))
                if (
                    is_bold
                    and (
                        description == "preproc"
                        or (read_space(path) and not description)
                    )
                    and matches_pattern(name, self.config.files)
                ):
                    files.append(path)
                elif suffix in ("bold", "boldref") and path.suffix != ".json":
                    other_kinds[f"{description} {suffix}".strip()] += 1
        if not files:
            pattern = self.config.files
            matching = "" if pattern == "*" else f" that matches {pattern}"
            counts = [f"{count} {kind}" for kind, count in other_kinds.items()]
            nested = [path.parent for path in self.derivatives.glob("*/sub-*/")]
            raise MissingData(
                f"there is no preprocessed BOLD{matching} in {self.derivatives}, such "
                f"as space-T1w_desc-preproc_bold: it has {', '.join(counts) or 'none'}",
                f"preparation.derivatives={nested[0]}" if nested else fmriprep_hint,
            )
        # without --output-spaces, there is only the grid of each run
        spaces = set(map(read_space, files))
        if spaces == {""}:
            return files
        space = self._choose("space", spaces - {""}, "T1w")
        return [path for path in files if read_space(path) == space]

    def _choose_task(self, paths: Sequence[Path], raw: BidsIndex) -> list[Path]:
        """Return the files of the recipe's task, or of the task that shows pictures."""
        task_columns = defaultdict[str, list[str]](list)
        for path in paths:
            relative_path = path.relative_to(self.derivatives)
            tables = raw.find_inherited(relative_path, "_events.tsv")
            if tables:
                task = read_entities(path).get("task", "")
                task_columns[task] += read_table(tables[-1])[0]
        stimulus = self.config.stimulus
        tasks = {
            task
            for task, columns in task_columns.items()
            if not find_missing_column(stimulus, columns + list(ENTITIES))
        }
        if not tasks:
            columns = list(dict.fromkeys(chain.from_iterable(task_columns.values())))
            absent = find_missing_column(stimulus, columns + list(ENTITIES)) or stimulus
            raise MissingData(
                f"no events.tsv of BOLD in {self.derivatives} has a column {absent}",
                "name the column of the pictures: preparation.stimulus=COLUMN, one of "
                f"{', '.join(columns) or 'none'}",
            )
        task = self._choose("task", tasks)
        return [path for path in paths if read_entities(path).get("task", "") == task]

    def _choose(self, key: str, options: set[str], default: str = "") -> str:
        """Choose the recipe's task or space, the only option, or the default."""
        name = getattr(self.config, key)
        if not name:
            name = default if len(options) > 1 else min(options)
        # T1w matches T1w:res-2 if that is the only resolution
        matches = [
            option
            for option in options
            if option == name or option.startswith(f"{name}:")
        ]
        if len(matches) != 1 or not name:
            requested = getattr(self.config, key)
            problem = f"BOLD of several {key}s"
            if requested:
                problem = f"no BOLD, or BOLD of several kinds, of {key} {requested}"
            raise MissingData(
                f"{self.derivatives} has {problem}",
                f"choose one: preparation.{key}={' or '.join(sorted(options))}",
            )
        return matches[0]

    @cached_method
    def _open_space(self, subject: int) -> Mask | Surface:
        """Return the voxels in the masks of all runs, or the vertices of the first
        run.
        """
        runs = self._list_runs(subject)
        bold_files = [run.bold_files[0] for run in runs]
        way_out = "name a mask on the grid of the BOLD: preparation.mask=FILE"
        mask_path = self._find_mask(subject)
        if bold_files[0].name.endswith(SURFACE_ENDINGS):
            if mask_path:
                raise BrainhiveError(
                    f"{mask_path} is a mask of volumes, but the BOLD is of a surface",
                    "leave out preparation.mask",
                )
            surface = find_vertices(runs[0].bold_files, COPY_HINT)
            assert surface is not None  # the ending says that it is a surface
            # the cortex without other structures (-1), the left hemisphere first
            hemisphere = surface.vertices[:, 0]
            rows = np.argsort(hemisphere, kind="stable")
            rows = rows[hemisphere[rows] >= 0]
            return replace(surface, vertices=surface.vertices[rows])

        # the recipe's mask, or fMRIPrep's masks, on the grid of all runs
        if mask_path:
            paths = [mask_path]
        else:
            paths = []
            for run in runs:
                if "brain" not in run.image_files:
                    raise MissingData(
                        f"there is no brain mask (desc-brain_mask) next to "
                        f"{run.bold_files[0]}",
                        way_out,
                    )
                paths.append(run.image_files["brain"])
        threshold = self.config.thresholds.get("mask")
        masks = [Mask.open(path, way_out, threshold=threshold) for path in paths]
        for path in paths + bold_files:
            masks[0].require_same_grid(path)
        counts = np.sum([mask.inside for mask in masks], 0)  # [X, Y, Z]
        inside = counts == len(masks)
        if not inside.any():
            raise BrainhiveError(
                f"the brain masks of subject {subject} share no voxel", way_out
            )
        smallest = min(masks, key=lambda mask: mask.width)
        self.account.set_aside(
            "voxels",
            f"which not all {len(masks)} brain masks have",
            smallest.path.name,
            count=int((counts > 0).sum() - inside.sum()),
        )
        return replace(masks[0], inside=inside)

    def _list_runs(self, subject: int) -> list[BoldRun]:
        """List a subject's runs of all sessions."""
        runs = []
        for session in self.sessions(subject):
            runs += self._runs[subject][session]
        return runs

    def _find_mask(self, subject: int) -> Path | None:
        """Return the recipe's mask of a subject, or None."""
        name = fill_subject(self.config.mask, subject, self._read_label(subject))
        return locate(name) if name else None

    def _find_anatomy(self, subject: int) -> tuple[Path, Path] | None:
        """Return fMRIPrep's T1-weighted image in the space of the BOLD, and its brain
        mask, or None.
        """
        path = self._list_runs(subject)[0].bold_files[0]
        if path.name.endswith(SURFACE_ENDINGS):
            return None
        space = read_space(path)
        if not space:
            return None
        folder = Path(path.relative_to(self.derivatives).parts[0])
        return find_anatomy(self.derivatives, folder, space)

    def _read_label(self, subject: int) -> str:
        """Return the label of a subject without `sub-`, such as 07A."""
        path = self._list_runs(subject)[0].bold_files[0]
        return read_label(path, self.derivatives).removeprefix("sub-")

    def _find_regions(self, subject: int) -> dict[str, list[Path]]:
        """Find the recipe's regions, and the aparcaseg of the first run that has it."""
        region_files = find_region_files(
            self.config.regions, subject, self.root, self._read_label(subject)
        )
        for run in self._list_runs(subject):
            if "aparcaseg" in run.image_files:
                return {"aparcaseg": [run.image_files["aparcaseg"]]} | region_files
        return region_files

    @cached_method
    def _design(
        self, subject: int, session: int
    ) -> tuple[list[BoldRun], list[TrialRun], SessionTrials]:
        """Choose the modelled pictures of a session.

        Returns:
            Runs with pictures, their onsets and confounds, and the trials of all runs.
        """
        config = self.config
        position = f"session {session} of subject {subject}"
        session_runs = self._runs[subject][session]
        timings = {run.number: read_timing(run) for run in session_runs}
        pictures, dropped, noted = self._read_pictures(session_runs, timings, position)
        columns = list(zip(*pictures, strict=True))
        numbers, onsets_s, durations_s = map(np.array, columns[:3])

        # pictures that the data set lacks evoke responses, and are modelled, too
        event_names = EventNames(
            find_event_table(self.root), self._pictures[0], self.stimuli.are_categories
        )
        names = event_names.name_pictures(columns[3])
        image_ids, splits, unmatched = match_pictures(
            names, self.stimuli, self._pictures
        )
        dropped.update(unmatched)
        if isinstance(config.sessions, dict):  # sessions by split
            label = read_session(session_runs[0].bold_files[0], self.derivatives)
            split = config.sessions[str(find_pattern(label, config.sessions))]
            is_other = ~np.isin(splits, ["", split])
            reason = f"trials of other splits than {split}, which ses-{label} is of"
            dropped[reason] = int(is_other.sum())
            splits = np.where(is_other, "", splits)

        # trials without a split are modelled, and not stored
        peaks_s = onsets_s + PEAK_S
        ends_s = np.array([timings[number].end_s for number in columns[0]])
        is_peak_outside = (peaks_s < 0) | (peaks_s > ends_s)
        dropped[PEAK_OUTSIDE] += int(((splits != "") & is_peak_outside).sum())

        # `denoised` is tuned on stimuli that several runs show
        stimuli, unknown_names = _number_stimuli(image_ids, names, splits)
        stimulus_runs = np.unique(np.stack([stimuli, numbers], 1), axis=0)
        n_runs = np.unique(stimulus_runs[:, 0], return_counts=True)[1]
        n_repeated = int((n_runs > 1).sum())
        if config.estimator == "denoised" and not n_repeated:
            raise BrainhiveError(
                f"{position} shows no training picture in two runs, and estimator "
                "denoised needs some",
                "preparation.estimator=hrf, which needs no repetitions",
            )
        if config.stimulus_s is None:
            _require_equal_durations(durations_s, position)

        # onsets, pictures and confounds [T] of each run with pictures
        runs = [run for run in session_runs if run.number in numbers]
        trial_runs = []
        confound_names = []
        for run in runs:
            timing = timings[run.number]
            confounds, run_noted = read_confounds(
                run, config.confound_groups, timing.volumes
            )
            noted.update(run_noted)
            confound_names.append(list(confounds))
            is_in_run = numbers == run.number
            frames = np.arange(timing.volumes, dtype=np.float64)
            trial_run = TrialRun(
                frames * timing.tr_s + timing.start_s,
                onsets_s[is_in_run],
                stimuli[is_in_run],
                timing.tr_s,
                confounds=np.stack(list(confounds.values()), 1) if confounds else None,
                has_drift=not any(name.startswith("cosine") for name in confounds),
            )
            trial_runs.append(trial_run)

        # facts for the store
        provenance = {
            "fitted": FITTED[config.estimator],
            "stimulus_s": config.stimulus_s or float(np.median(durations_s)),
            "repeated": n_repeated,
            "timing": [timings[run.number]._asdict() for run in runs],
            "confounds": confound_names,
        }
        trials = SessionTrials(
            image_ids,
            splits=np.where(is_peak_outside, "", splits),
            runs=numbers,
            dropped=+dropped,  # without zeros
            noted=+noted,
            unmatched=unknown_names,
            provenance=provenance,
            onset_s=onsets_s,
        )
        return runs, trial_runs, trials

    def _read_pictures(
        self, runs: Sequence[BoldRun], timings: Mapping[int, RunTiming], position: str
    ) -> tuple[list[tuple[int, float, float, str]], Counter[str], Counter[str]]:
        """Read the pictures of a session whose response can be modelled.

        Args:
            runs: Runs of the session.
            timings: Timing of each run, by its number.
            position: Session and subject, for messages.

        Returns:
            Run, onset and duration in seconds, and name of each picture. Counts of the
            other pictures, by reason. Counts of unusual facts.
        """
        events: list[tuple[int, ShownPicture]] = []
        dropped = Counter[str]()
        for run in runs:
            run_pictures, run_dropped = read_events(
                run.events_file,
                self.config.stimulus,
                self.config.where,
                run.bold_files[0],
            )
            events += [(run.number, picture) for picture in run_pictures]
            dropped.update(run_dropped)
        events = self._join_showings(events, position)

        # the unit of onsets must fit all runs
        onset_times = []  # onset, TR, and duration of the run
        for number, (onset, *_) in events:
            onset_times.append((onset, timings[number].tr_s, timings[number].end_s))
        unit = self.config.onset_unit or find_onset_unit(onset_times, position)
        noted = Counter[str]()
        if unit != "s":
            noted[f"pictures whose onsets are in {unit}"] = len(events)

        dropped.update({AFTER_END: 0, PEAK_OUTSIDE: 0})
        pictures = []
        for number, (onset, duration, name, _) in events:
            timing = timings[number]
            unit_s = {"s": 1, "ms": 1e-3, "volumes": timing.tr_s}[unit]
            onset_s = onset * unit_s
            last_volume_s = (timing.volumes - 1) * timing.tr_s + timing.start_s
            # Shortest time from the onset of a picture to the last volume of a run.
            # Later pictures are not modelled.
            latest_s = min(last_volume_s - 1.0, timing.end_s)
            # Pictures that begin earlier, relative to the start of the run,
            # are not modelled.
            if -20.0 < onset_s < latest_s:
                pictures.append((number, onset_s, duration * unit_s, name))
            else:
                dropped[PEAK_OUTSIDE if onset_s < timing.end_s else AFTER_END] += 1
        used_runs = {number for number, *_ in pictures}
        noted["runs without a picture"] = len(runs) - len(used_runs)
        if not pictures:
            reasons = [f"{count} {reason}" for reason, count in (+dropped).items()]
            raise MissingData(
                f"{position} has no complete trial. Left out: {', '.join(reasons)}",
                "check the onsets, which count from the first volume, and their unit "
                "(preparation.onset_unit=ms), or leave the session out "
                "(preparation.sessions=[…])",
            )
        return pictures, dropped, noted

    def _join_showings(
        self, events: Sequence[tuple[int, ShownPicture]], position: str
    ) -> list[tuple[int, ShownPicture]]:
        """Join events that are one showing, and dispute pictures of several kinds.

        Args:
            events: Run and picture of each event.
            position: Session and subject, for messages.
        """
        # runs are far apart
        times = np.array([1e9 * number + picture[0] for number, picture in events])
        names = [picture[2] for _, picture in events]
        is_copy, lags = find_copies(times, names, self.stimuli.are_categories)
        if is_copy.any():
            reason = f"that repeat the picture before them, after {np.median(lags):.2g}"
            self.account.set_aside("events", reason, position, len(lags))
        showings = list(compress(events, ~is_copy))
        shown_names = [picture[2] for _, picture in showings]
        kinds = [picture[3] for _, picture in showings]
        self.account.disputes.extend(find_mixed_kinds(shown_names, kinds, position))
        return showings


def _require_equal_durations(durations_s: Float64, position: str) -> None:
    """Raise an error if pictures differ in duration, or a duration is unknown (NaN)."""
    if np.isnan(durations_s).any():
        problem = "without a duration"
    # the range of infinite durations is NaN
    # Largest difference of durations that a single HRF models: its time step.
    elif not np.ptp(durations_s) <= 0.1:
        problem = f"for {durations_s.min():g} to {durations_s.max():g} s"
    else:
        return
    raise BrainhiveError(
        f"{position} shows pictures {problem}",
        "preparation.stimulus_s=SECONDS is used for all pictures; "
        "preparation.where={…} selects some of them",
    )


def _number_stimuli(
    image_ids: Sequence[str], names: Sequence[str], splits: Array
) -> tuple[Int64, list[str]]:
    """Number the stimuli of trials, so that repetitions have the same number.

    Each trial of a tested stimulus gets its own number, so that no estimator is tuned
    on its repetitions.

    Returns:
        Numbers [n], and the names of pictures without an image id.
    """
    ids = []
    unknown_names = set()
    for image_id, name in zip(image_ids, names, strict=True):
        ids.append(image_id or to_image_id(name))
        if not image_id:
            unknown_names.add(name)
    stimuli = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    is_tested = ~np.isin(splits, ["train", ""])
    stimuli[is_tested] = -1 - np.flatnonzero(is_tested)
    return stimuli, sorted(unknown_names)
