"""Choice of the trials that test a model."""

import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.base import Bool, BrainhiveError, Int64, Line, RecipeError
from brainhive_cli.core.files import Input, documents, locate, report_damage
from brainhive_cli.core.recipes import Section
from brainhive_cli.core.results import NORMALISED_BY_TESTED, SEEN_PICTURES
from brainhive_cli.data.files import match_ids
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.measurement import MIN_UNITS_FOR_POPULATION, StimulusGrouping

MAX_FOLDS = 1000
"""Largest number of folds of a split. Each fold is a model."""


class Holdout(Section):
    """Choice of the trials that are tested, and the number of models.

    With `pictures`, a model has not seen the test pictures (zero-shot). `folders` holds
    out all pictures of a folder, such as a block of a recording. With `trials`,
    `runs` or `sessions`, it has seen all pictures or categories in other trials, as in
    the classical designs of M/EEG and fMRI.
    """

    by: Literal["pictures", "folders", "trials", "runs", "sessions"] = Field(
        description="unit that is held out"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=MAX_FOLDS,
        description="number of folds; the model of each fold tests its share, and "
        "every trial is tested once",
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="share that is tested, drawn with `seed`"
    )
    test: list[int | str] | None = Field(
        None,
        min_length=1,
        description="tested runs or sessions by number, from 1 in the order of time, "
        "-1 for the last; or tested folders or image ids, `*` for any letters, as in "
        "`shapes/*`",
    )
    split: str | None = Field(
        None,
        description="JSON file of training and test pictures, with a variant for each "
        "fold, as LAION-fMRI publishes it and `embed held_out` writes it",
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of the order in which pictures or trials are dealt to folds",
    )

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        keys = ("folds", "share", "test", "split")
        set_keys = [key for key in keys if getattr(self, key) is not None]
        if len(set_keys) != 1:
            keys_text = " and ".join(set_keys) or "no folds, share, test or split"
            raise RecipeError(
                f"holdout has {keys_text}",
                f"one of them, as holdout={{by: {self.by}, folds: 5}}",
            )
        names = self.test
        if self.split:
            names = [self.split]
        if names is not None:
            # runs and sessions have numbers, pictures have ids, trials have neither
            is_numbered = self.by in ("runs", "sessions")
            has_wrong_type = any(isinstance(name, int) != is_numbered for name in names)
            if self.by == "trials" or has_wrong_type:
                raise RecipeError(
                    f"holdout lists {names} of {self.by}",
                    "numbers of runs or sessions, ids or a split of pictures; "
                    "trials by folds or share",
                )
        return self

    @property
    def divides_train(self) -> bool:
        """Return True if a part of the split `train` is tested instead of `test`."""
        return bool(self.by)

    @property
    def has_seen_pictures(self) -> bool:
        """Return True if training trials show the test pictures, too."""
        return self.by in ("trials", "runs", "sessions")

    @property
    def fold_numbers(self) -> list[int]:
        """Number of each fold, from 1."""
        n_folds = self.folds or 1
        if self.split:
            n_folds = len(read_split(locate(self.split)))
        return list(range(1, n_folds + 1))

    @property
    def description(self) -> str:
        """Description for protocols, such as "runs held out, 12 folds".

        Empty if the split `test` is tested.
        """
        if not self.divides_train:
            return ""
        if self.folds:
            amount = f"{self.folds} folds"
        elif self.share:
            amount = f"a share of {self.share:g}"
        elif self.split:
            amount = f"split {Path(self.split).stem}"
        else:
            amount = f"{self.by} {', '.join(map(str, self.test or ()))}"
        return f"{self.by} held out, {amount}"

    def inputs(self) -> list[Input]:
        """List the file of `split`, whose content is part of a run's fingerprint."""
        if not self.split:
            return []
        path = locate(self.split)
        read_split(path)
        digest = documents.digest_file(path)
        return [Input(f"split {path.name}", reference=self.split, digest=digest)]

    def name_stored_split(self, split: str) -> str:
        """Return `train` for a held-out split `test`, and other splits as they are."""
        return "train" if self.divides_train and split == "test" else split

    def choose_stimuli(self, stimuli: Any, split: str, fold: int) -> Bool:
        """Mark the stimuli that belong to a split in a fold.

        Args:
            stimuli: Target store or stimuli of a data set, with M `image_ids`.
            split: "train" or "test".
            fold: Number of the fold.

        Returns:
            Mask [M]. All True if trials of seen stimuli are held out.

        Raises:
            RecipeError: if there are fewer pictures than folds, or a picture of the
                recipe is unknown.
        """
        if not self.divides_train or self.has_seen_pictures:
            return np.ones(len(stimuli.image_ids), bool)
        if self.split:
            # pictures that the file does not list are in neither split
            split_of = read_split(locate(self.split))[fold - 1]
            splits = np.full(len(stimuli.image_ids), "", object)
            rows = match_ids(
                list(split_of), stimuli.image_ids, f"{self.split}: the data set"
            )
            splits[rows] = list(split_of.values())
            return splits == ("test" if split == "test" else "train")
        is_tested = self.hold_out_pictures(stimuli.image_ids, stimuli.concepts, fold)
        return is_tested if split == "test" else ~is_tested

    def choose_trials(
        self, recording: Trials, split: str, fold: int, recording_name: str
    ) -> Trials:
        """Select the training or test trials of a fold.

        If whole pictures are held out, the recording is returned unchanged, because
        `choose_stimuli` selects its pictures.

        Args:
            recording: Recording that holds the trials of the split.
            split: "train" or "test".
            fold: Number of the fold.
            recording_name: Name of the recording, for errors.

        Raises:
            BrainhiveError: if runs or sessions are unknown, or a preparation was fitted
                to held-out trials.
        """
        if not self.divides_train:
            return recording
        if self.has_seen_pictures:
            is_tested = self.hold_out_trials(recording, fold, recording_name)
            return recording.hold_out(is_tested, split)
        self.refuse_fitted_signals(recording, recording_name)
        return recording

    def list_opposite_trials(
        self,
        recordings: Mapping[str, Trials],
        split: str,
        fold: int,
        recording_name: str,
    ) -> list[Trials]:
        """List the test trials for a training split, or the training trials for a test
        split.

        Args:
            recordings: Recordings of a subject, by split.
            split: `train` or a tested split.
            fold: Number of the fold.
            recording_name: Name of the recordings, for errors.

        Returns:
            The trials. Empty if pictures are held out, which `choose_stimuli` divides.
        """
        if self.has_seen_pictures:
            opposite = "test" if split == "train" else "train"
            recording = recordings["train"]
            return [self.choose_trials(recording, opposite, fold, recording_name)]
        if self.divides_train:
            return []
        # the split `train` against all other splits
        is_train = split == "train"
        return [
            recording
            for name, recording in recordings.items()
            if (name == "train") != is_train
        ]

    def number_folds(
        self, recording: Trials, stimuli: Any, split: str, recording_name: str
    ) -> Int64:
        """Number the fold that tests each item of a recording.

        Args:
            recording: Trials of the stored split.
            stimuli: Target store of the split.
            split: Split of the data set.
            recording_name: Name of the recording, for errors.

        Returns:
            Fold of each of the n trials if trials of seen pictures are held out, else
            of each of the N stimuli, and 0 in a split without folds. -1 if an item is
            not tested.
        """
        if self.has_seen_pictures:
            folds = np.full(len(recording.signal), -1, np.int64)
            for fold in self.fold_numbers:
                # training leaves out a fold in which a subject has no trials
                with suppress(RecipeError):
                    folds[self.hold_out_trials(recording, fold, recording_name)] = fold
            return folds
        rows = stimuli.find_rows(list(map(str, recording.pictures)))
        if not (self.divides_train and split == "test"):
            return np.where(rows >= 0, 0, -1)
        folds_of_stimuli = np.full(len(rows), -1)
        for fold in self.fold_numbers:
            is_tested = self.choose_stimuli(stimuli, split, fold)[rows]
            folds_of_stimuli[is_tested & (rows >= 0)] = fold
        return folds_of_stimuli

    def add_fold_groups(
        self,
        grouping: StimulusGrouping,
        tested_trials: Iterable[tuple[str, str, Hashable]],
        folds: Sequence[int],
    ) -> StimulusGrouping:
        """Add the run, session or fold of each test trial to a grouping of stimuli.

        Args:
            grouping: Rules that group the stimuli.
            tested_trials: Name, group and block of each test trial of all subjects.
            folds: Tested folds.
        """
        if self.has_seen_pictures:
            group_of = {}
            block_of = {}
            for name, group, block in tested_trials:
                group_of[name] = group
                block_of[name] = f"{group}, block {block}"
            grouping = replace(
                grouping, group_kind=self.by, group_of=group_of, block_of=block_of
            )
        return replace(grouping, has_folds=len(folds) > 1)

    def describe_claims(self, stimuli: int, subjects: int) -> str:
        """Describe the claims that a test on trials of seen stimuli allows.

        Args:
            stimuli: Number of stimuli.
            subjects: Number of subjects, or 0 if unknown.
        """
        trials = f"these {stimuli} stimuli"
        # results of few runs or sessions hold for these only
        n_folds = self.folds or 0
        if n_folds < MIN_UNITS_FOR_POPULATION and self.by != "trials":
            trials += f" in these {self.by}"
        people = f"these {subjects} people" if subjects else "who is recorded"
        if subjects == 1:
            people = "this person"
        return (
            f"{self.description}: results will generalise to other trials of {trials}, "
            f"but only to {people}"
        )

    def caveats(self, recording: Trials) -> list[str]:
        """List the caveats of numbers on held-out trials of a recording."""
        caveats = []
        if self.has_seen_pictures:
            caveats.append(SEEN_PICTURES)
        # z-scores within the tested run or session
        if recording.preparation.get("zscore") == self.by.removesuffix("s"):
            caveats.append(NORMALISED_BY_TESTED)
        return caveats

    def hold_out_pictures(
        self, image_ids: Sequence[str], concepts: Sequence[str], fold: int
    ) -> Bool:
        """Mark the pictures that a fold tests, with similar numbers of each concept.

        All folds test equal numbers, so chance is the same. Pictures that are left over
        are training pictures in every fold.

        Args:
            image_ids: Ids [M] of the pictures.
            concepts: Concept [M] of each picture.
            fold: Number of the fold.

        Returns:
            Mask [M].

        Raises:
            RecipeError: if there are fewer pictures than folds, or a picture of the
                recipe is unknown.
        """
        count = len(image_ids)
        if self.by == "folders":
            folders = [image_id.rpartition("/")[0] for image_id in image_ids]
            names, folder_sizes = np.unique(folders, return_counts=True)
            if len(set(folder_sizes.tolist())) > 1:
                raise RecipeError(
                    f"holdout by folders: {names[0]} has {folder_sizes[0]} pictures, "
                    f"and others have {folder_sizes.min()} to {folder_sizes.max()}",
                    "folders of equal size, or holdout={by: pictures}",
                )
            by_picture = self.model_copy(update={"by": "pictures"})
            is_tested = by_picture.hold_out_pictures(
                names.tolist(), names.tolist(), fold
            )
            return np.isin(folders, names[is_tested])

        # pictures of the recipe, by id or by pattern
        if self.test is not None:
            tested_ids = set[str]()
            for name in map(str, self.test):
                matches = {name}
                if name not in image_ids:
                    matches = set(fnmatch.filter(image_ids, name))
                if len(matches) in (0, count):
                    raise RecipeError(
                        f"holdout.test names {name}, {len(matches)} of {count}",
                        f"image ids as {image_ids[0]}",
                    )
                tested_ids |= matches
            return np.isin(np.asarray(image_ids), list(tested_ids))

        # pictures in a random order, sorted by concept, are dealt to the folds in turn
        order = np.random.default_rng(self.seed).permutation(count)
        order = order[np.argsort(np.asarray(concepts)[order], kind="stable")]
        if self.folds is None:
            # evenly spaced, so concepts have similar shares
            n_tested = round((self.share or 0) * count)
            rows = order[np.linspace(0, count - 1, n_tested).astype(int)]
        else:
            n_tested = count // self.folds
            rows = order[fold - 1 :: self.folds][:n_tested]
        if not 0 < n_tested < count:
            raise RecipeError(
                f"holdout: {self.description} of {count} pictures",
                "fewer folds, or another share",
            )
        is_tested = np.zeros(count, bool)
        is_tested[rows] = True
        return is_tested

    def hold_out_trials(
        self, recording: Trials, fold: int, recording_name: str
    ) -> Bool:
        """Mark the trials [n] of a recording that a fold tests.

        Raises:
            BrainhiveError: if runs or sessions are unknown, or a preparation was fitted
                to held-out trials.
            RecipeError: if there are fewer runs or sessions than folds, or a run or
                session of the recipe is unknown.
        """
        self.refuse_fitted_signals(recording, recording_name)
        if self.by == "trials":
            return self._deal_trials(recording, fold)

        # tested runs or sessions: by number, by fold, or a random share
        groups = self.number_groups(recording, recording_name)  # [n]
        count = int(groups.max()) + 1
        if self.test is not None:
            test_groups = []
            for number in map(int, self.test):
                if not 1 <= abs(number) <= count:
                    raise RecipeError(
                        f"holdout.test names {self.by[:-1]} {number}: {recording_name} "
                        f"has {count}",
                        f"numbers from 1 to {count}, in the order of time",
                    )
                # -1 is the last
                test_groups.append(number - 1 if number > 0 else count + number)
        elif self.folds is not None:
            test_groups = list(range(fold - 1, count, self.folds))
        else:
            order = np.random.default_rng(self.seed).permutation(count)
            test_groups = order[: round((self.share or 0) * count)].tolist()
        if not test_groups or len(test_groups) == count:
            raise RecipeError(
                f"holdout: {self.description}, and {recording_name} has {count} "
                f"{self.by}",
                f"at most {count} folds" if count > 1 else "hold out trials",
            )
        return np.isin(groups, test_groups)

    def _deal_trials(self, recording: Trials, fold: int) -> Bool:
        """Mark the trials [n] that a fold tests, drawn for each stimulus.

        No trial is tested if none would be left for training.
        """
        rng = np.random.default_rng(self.seed)
        is_tested = np.zeros(len(recording.signal), bool)
        for picture in range(len(recording.counts)):
            order = rng.permutation(recording.find_trials([picture]))
            if self.folds is None:
                trials = order[: round((self.share or 0) * len(order))]
            else:
                # shifted by picture, so leftover trials are spread over all folds
                trials = order[(fold - 1 - picture) % self.folds :: self.folds]
            if len(trials) < len(order):
                is_tested[trials] = True
        return is_tested

    def number_groups(self, recording: Trials, recording_name: str) -> Int64:
        """Number sessions, or runs if `by` is runs, in the order of time.

        Returns:
            Numbers [n] from 0.

        Raises:
            BrainhiveError: if the runs or sessions are unknown.
        """
        sessions = recording.sessions
        runs = recording.runs if self.by == "runs" else sessions
        if runs is None:
            raise BrainhiveError(
                f"{recording_name}: the {self.by[:-1]} of each trial is unknown",
                f"prepare the signals again ({Line('prepare', '--again')}), or "
                "hold out trials",
            )
        # run numbers begin anew in each session
        run_numbers = runs.astype(np.int64)
        if sessions is not None:
            run_numbers += sessions.astype(np.int64) * (int(runs.max()) + 1)
        return np.unique(run_numbers, return_inverse=True)[1]

    def name_groups(self, trials: Trials, subject_name: str, fold: int) -> list[str]:
        """Name the run, session or fold [N] of each test trial of seen pictures."""
        assert self.has_seen_pictures
        count = len(trials.stimulus)
        if self.by == "trials":
            return [f"{subject_name} fold {fold}"] * count
        # unknown sessions and runs count as 0
        zeros = np.zeros(count, np.int64)
        sessions = zeros if trials.sessions is None else trials.sessions
        names = [f"{subject_name} session {number + 1}" for number in sessions]
        if self.by == "sessions":
            return names
        runs = zeros if trials.runs is None else trials.runs
        return [f"{name} run {run}" for name, run in zip(names, runs, strict=True)]

    def refuse_fitted_signals(self, recording: Trials, recording_name: str) -> None:
        """Raise an error if a preparation was fitted to trials that are held out.

        The error names the steps, and a command that prepares signals without them.
        """
        steps = recording.preparation
        # Units that may be held out from z-scored signals, keyed by the range of the
        # z-scores. Test trials then have no part in the z-scores of training trials.
        holdouts_of_zscore = {
            "run": ("runs",),
            "session": ("sessions",),
            "no": ("pictures", "folders", "trials", "runs", "sessions"),
        }
        holdouts = holdouts_of_zscore.get(steps.get("zscore", "no"), ())
        is_fitted = {
            "zscore": self.by not in holdouts,
            "estimator": steps.get("estimator") in ("hrf", "denoised"),
            "min_ncsnr": steps.get("min_ncsnr") is not None,
            "max_voxels": steps.get("max_voxels") is not None,
            "whiten": steps.get("whiten", "no") not in ("no", False),
        }
        unfitted_values = {
            "estimator": "lsa",
            "min_ncsnr": "null",
            "max_voxels": "null",
        }
        fitted_steps = []
        keys = []
        for key, is_step_fitted in is_fitted.items():
            if is_step_fitted:
                fitted_steps.append(f"{key}={steps[key]}")
                keys.append(f"preparation.{key}={unfitted_values.get(key, 'no')}")
        if fitted_steps:
            raise BrainhiveError(
                f"{recording_name}: {' and '.join(fitted_steps)} was fitted to all "
                f"trials, and {self.by} are held out",
                f"{Line('prepare', ('name', 'unfitted'), *keys)}, then "
                "signal.name=unfitted; signal.normalise=channel or whiten is fitted to "
                "the training trials of each fold",
            )


def read_split(
    path: Path,
    hint: str = "dataset.holdout.split=FILE.json of variants with train_ids and"
    " test_ids",
    name_of: Callable[[str], str] = str,
) -> list[dict[str, str]]:
    """Read the split of each picture, `train` or `test`, in each variant of a file.

    Args:
        path: JSON file.
        hint: Advice for errors.
        name_of: Converts a name of the file to an image id.

    Returns:
        A dictionary from image id to split for each variant.

    Raises:
        MissingData: if the file is absent or damaged, has a picture twice, or tests
            different numbers of pictures, which have no common chance.

    Source: ViCCo-Group/LAION-fMRI, laion_fmri/splits: `variants` with `train_ids` and
    `test_ids`.
    """
    with report_damage(path, hint):
        folds = []
        test_counts = set()
        variants = documents.read(path, dict[str, Any], hint=hint)["variants"]
        if len(variants) > MAX_FOLDS:
            raise ValueError(f"it has {len(variants):,} variants, over {MAX_FOLDS:,}")
        for variant in variants:
            split_of = {}
            n_names = 0
            for split in ("train", "test"):
                names = variant[f"{split}_ids"]
                n_names += len(names)
                for name in names:
                    split_of[name_of(name)] = split
            if len(split_of) < n_names:
                raise ValueError("it has a picture twice")
            folds.append(split_of)
            test_counts.add(len(variant["test_ids"]))
        if len(test_counts) != 1 or 0 in test_counts:
            raise ValueError(f"variants test {sorted(test_counts)} pictures")
    return folds


SEPARATE_TEST = Holdout.model_construct(by="")  # type: ignore[arg-type]
"""Holdout that holds out nothing of the split `train`. The split `test` is tested."""

HOLDOUT_FIELD: Any = Field(
    None,
    description="pictures or trials of `train` that are tested instead of the split "
    "`test`, as {by: runs, folds: 12}",
)
"""Key `holdout` of data sets."""
