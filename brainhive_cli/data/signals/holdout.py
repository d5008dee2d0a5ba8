"""Trials of a data set that are held out: pictures, trials, runs or sessions, by share,
list or folds.
"""

import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Bool, Float32, Int64
from brainhive_cli.core.command import Input
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError
from brainhive_cli.core.files import locate
from brainhive_cli.core.measurements import NORMALISED_BY_TESTED, SEEN_PICTURES
from brainhive_cli.core.sections import Section
from brainhive_cli.data.files.ids import match_ids
from brainhive_cli.data.signals.trials import Trials, index_optional
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.trial_order import (
    SMALLEST_P,
    TrialOrder,
    p_of_transitions,
)
from brainhive_cli.measurement.units import MIN_UNITS_FOR_POPULATION, StimulusGrouping

STEPS_WITHIN = {
    "run": ("runs",),
    "session": ("sessions",),
    "no": ("pictures", "trials", "runs", "sessions"),
}
"""Z-scoring that has no part in the training trials of a fold, by what may be held
out.
"""
MAX_FOLDS = 1000
"""Folds of a split, each of which is a model."""
SPLIT_HINT = "dataset.holdout.split=FILE.json of variants with train_ids and test_ids"


class Holdout(Section):
    """Choice of the trials that are tested, and the number of models.

    With `pictures` the tested pictures are new to a model (zero-shot). With `trials`,
    `runs` or `sessions` it has seen all pictures or categories in other trials: the
    classical design of M/EEG and fMRI.
    """

    by: Literal["pictures", "trials", "runs", "sessions"] = Field(
        description="what is held out"
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=MAX_FOLDS,
        description="every trial is tested once, by the model of one of so many folds",
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="share that is tested, drawn by `seed`"
    )
    test: list[int | str] | None = Field(
        None,
        min_length=1,
        description="what is tested: numbers of runs or sessions, from 1 in the order "
        "of time, -1 for the last; or image ids, `*` for any letters, as in `shapes/*`",
    )
    split: str | None = Field(
        None,
        description="JSON file of the pictures that are trained on and tested, with a "
        "variant for each fold, as LAION-fMRI publishes it and `embed held_out` writes "
        "it",
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of the order in which pictures or trials are dealt to folds",
    )

    @model_validator(mode="after")
    def _says_once_how_much(self) -> Self:
        keys = "folds", "share", "test", "split"
        set_keys = [key for key in keys if getattr(self, key) is not None]
        if len(set_keys) != 1:
            raise RecipeError(
                "holdout has "
                f"{' and '.join(set_keys) or 'no folds, share, test or split'}",
                f"one of them, as holdout={{by: {self.by}, folds: 5}}",
            )
        listed = [self.split] if self.split else self.test
        if listed is not None:
            # runs and sessions have numbers, pictures have ids, trials neither
            is_numbered = self.by in ("runs", "sessions")
            if self.by == "trials" or any(
                isinstance(name, int) != is_numbered for name in listed
            ):
                raise RecipeError(
                    f"holdout lists {listed} of {self.by}",
                    "numbers of runs or sessions, ids or a split of pictures; "
                    "trials by folds or share",
                )
        return self

    @property
    def divides_train(self) -> bool:
        """Whether a part of the split `train` is tested; else the split `test` is."""
        return bool(self.by)

    @property
    def has_seen_pictures(self) -> bool:
        """Whether the tested pictures were also shown in training trials."""
        return self.by in ("trials", "runs", "sessions")

    @property
    def fold_numbers(self) -> list[int]:
        """Number of each fold, from 1."""
        folds = len(read_split(locate(self.split))) if self.split else self.folds or 1
        return [*range(1, folds + 1)]

    @property
    def description(self) -> str:
        """Name for protocols, as "runs held out, 12 folds"; empty where the split
        `test` is tested.
        """
        if not self.divides_train:
            return ""
        how = f"{self.by} {', '.join(map(str, self.test or ()))}"
        if self.folds:
            how = f"{self.folds} folds"
        elif self.share:
            how = f"a share of {self.share:g}"
        elif self.split:
            how = f"split {Path(self.split).stem}"
        return f"{self.by} held out, {how}"

    def inputs(self) -> list[Input]:
        """List the file of a split, whose content is part of a run's fingerprint."""
        if not self.split:
            return []
        path = locate(self.split)
        read_split(path)
        digest = documents.digest_file(path)
        return [Input(f"split {path.name}", reference=self.split, digest=digest)]

    def name_stored_split(self, split: str) -> str:
        """Name the split in whose stores a split lies: held-out trials lie in those of
        `train`.
        """
        return "train" if self.divides_train and split == "test" else split

    def choose_stimuli(self, stimuli: Any, split: str, fold: int) -> Bool:
        """Choose the stimuli [M] of a target store, or of a data set, that belong to a
        split in a fold.

        Where trials of known stimuli are held out, all do.

        Raises:
            RecipeError: if there are fewer pictures than folds, or a listed picture is
                unknown.
        """
        if not self.divides_train or self.has_seen_pictures:
            return np.ones(len(stimuli.image_ids), bool)
        if self.split:
            # pictures that the file does not list are on neither side
            sides = read_split(locate(self.split))[fold - 1]
            sides_by_row = np.full(len(stimuli.image_ids), "", object)
            rows = match_ids([*sides], stimuli.image_ids, f"{self.split}: the data set")
            sides_by_row[rows] = [*sides.values()]
            return sides_by_row == ("test" if split == "test" else "train")
        is_tested = self.hold_out_pictures(stimuli.image_ids, stimuli.concepts, fold)
        return is_tested if split == "test" else ~is_tested

    def choose_trials(
        self, recording: Trials, split: str, fold: int, where: str
    ) -> Trials:
        """Choose the trials of a recording that a model of a fold learns from (`train`)
        or that test it.

        Of pictures that are held out, all trials: which pictures these are,
        `choose_stimuli` says.

        Raises:
            BrainhiveError: if it does not say what is held out, or was fitted to
                held-out trials.
        """
        if not self.divides_train:
            return recording
        if self.has_seen_pictures:
            return recording.hold_out(
                self.hold_out_trials(recording, fold, where), split
            )
        # held-out pictures: sides are split later, and no step may be fitted to both
        self.refuse_fitted_signals(recording, where)
        return recording

    def list_opposite_trials(
        self, recordings: Mapping[str, Trials], split: str, fold: int, where: str
    ) -> list[Trials]:
        """List the trials that test a model which learns from a split, or that it
        learns from.

        Args:
            recordings: Those of a subject, by split.
            split: `train`, or what is tested.
            fold: Of the model.
            where: Name of the recordings, for errors.

        Returns:
            The trials; none of pictures that are held out, which `choose_stimuli` tells
            apart.
        """
        if self.has_seen_pictures:
            # both sides are trials of the split `train`
            other = "test" if split == "train" else "train"
            return [self.choose_trials(recordings["train"], other, fold, where)]
        if self.divides_train:
            return []
        # the split `train` against all other splits
        return [
            recordings[name]
            for name in recordings
            if (name == "train") == (split != "train")
        ]

    def find_interleaving(
        self,
        recording: Trials,
        stimuli: Any,
        split: str,
        where: str,
        *,
        has_order: bool,
        features: Callable[[], Float32],
    ) -> Interleaving:
        """Find which of a subject's signals may exchange labels, as far as time is
        known; of all folds.

        Args:
            recording: All trials of the split that is stored.
            stimuli: Target store of the split, which names the concepts of the stimuli.
            split: Of the data set.
            where: Name of the recording, for errors.
            has_order: Whether stimuli follow one another, as clips of a film: time then
                says nothing more.
            features: Gives what stimuli show, [M, K]; see `find_features`.

        Returns:
            Of each trial [n] where trials of seen stimuli are held out, else of each
            row [N].
        """
        is_there = recording.is_there
        shown = [*map(str, recording.image_ids)]
        rows = stimuli.find_rows(shown)

        # items and their labels: trials and what they show, or pictures and their
        # concepts
        row = np.nonzero(is_there)[0]  # [n] of each trial
        if self.has_seen_pictures:
            item = np.arange(len(row))
            label = [shown[index] for index in row]
            group = self.number_test_groups(recording, where)[is_there]
        else:
            item = row
            group = np.zeros(len(shown), np.int64)
            label = [
                stimuli.concepts[index] if index >= 0 else name
                for index, name in zip(rows.tolist(), shown, strict=True)
            ]
            has_folds = self.divides_train and split == "test"
            for fold in self.fold_numbers if has_folds else ():
                is_tested = self.choose_stimuli(stimuli, split, fold)[rows]
                group[is_tested & (rows >= 0)] = fold

        # their order in time
        sessions = index_optional(recording.sessions, is_there)
        runs = index_optional(recording.runs, is_there)
        time = index_optional(recording.times_in_run, is_there)
        is_known = time is not None
        if has_order or (sessions is None and runs is None and not is_known):
            return Interleaving(
                group.tolist(), [*range(len(label))], is_known=has_order
            )

        # what each item shows; stimuli without embeddings are like no other
        stimulus = rows[row] if self.has_seen_pictures else rows
        values = np.where((stimulus >= 0)[:, None], features()[stimulus], 0)
        order = TrialOrder.from_trials(item, label, sessions, runs, time, values)
        interleaving = (
            Interleaving.from_trials(order, group, self.by)
            if self.has_seen_pictures
            else Interleaving.from_pictures(order, group)
        )
        # pictures that are held out were never shown before, so no pair repeats
        repeats = self.has_seen_pictures and p_of_transitions(order) <= SMALLEST_P
        return replace(interleaving, is_known=is_known, repeats=repeats)

    def add_fold_groups(
        self,
        alike: StimulusGrouping,
        tested: Iterable[tuple[str, str, Hashable]],
        folds: Sequence[int],
    ) -> StimulusGrouping:
        """Add to what makes items alike that trials of one run, session or fold were
        tested together.

        Args:
            alike: What makes their stimuli alike.
            tested: Name, group and block of each tested trial of seen pictures, of all
                subjects.
            folds: Those that were tested.
        """
        if self.has_seen_pictures:
            group_of = {}
            block_of = {}
            for name, group, block in tested:
                group_of[name], block_of[name] = group, f"{group}, block {block}"
            alike = replace(
                alike, group_kind=self.by, group_of=group_of, block_of=block_of
            )
        return replace(alike, has_folds=len(folds) > 1)

    def describe_claims(self, stimuli: int, subjects: int) -> str:
        """Describe the statements that trials of so many known stimuli allow, tested on
        so many subjects.
        """
        # with few runs or sessions, statements are about these alone
        few = (
            self.by
            if (self.folds or 0) < MIN_UNITS_FOR_POPULATION and self.by != "trials"
            else ""
        )
        who = "this subject" if subjects == 1 else f"these {subjects} subjects"
        about = f"{stimuli} stimuli" + (f" in these {few}" if few else "")
        return (
            f"{self.description}: results hold for other trials of these {about}, and "
            f"{who if subjects else 'who is recorded'}"
        )

    def caveats(self, recording: Trials) -> list[str]:
        """Caveats of every number that was measured on held-out trials of a
        recording.
        """
        # z-scored within the run or session that is tested
        is_own = recording.preparation.get("zscore") in (self.by.removesuffix("s"),)
        return ([SEEN_PICTURES] if self.has_seen_pictures else []) + (
            [NORMALISED_BY_TESTED] if is_own else []
        )

    def hold_out_pictures(
        self, image_ids: Sequence[str], concepts: Sequence[str], fold: int
    ) -> Bool:
        """Choose the pictures [M] that a fold tests: of each concept about as many.

        Folds have equally many, so that chance is the same in all; pictures that are
        left over are training pictures in every fold.

        Raises:
            RecipeError: if there are fewer pictures than folds, or a listed picture is
                unknown.
        """
        # listed pictures are tested in every fold: by name, or all of a pattern
        count = len(image_ids)
        listed = set[str]()
        if self.test is not None:
            for name in map(str, self.test):
                matches = {name} & {*image_ids} or {*fnmatch.filter(image_ids, name)}
                if len(matches) in (0, count):
                    raise RecipeError(
                        f"holdout.test names {name}, {len(matches)} of {count}",
                        f"image ids as {image_ids[0]}",
                    )
                listed |= matches
            return np.isin(np.asarray(image_ids), [*listed])
        # pictures in a random order, concept by concept, are dealt to the folds in turn
        order = np.random.default_rng(self.seed).permutation(count)
        order = order[np.argsort(np.asarray(concepts)[order], kind="stable")]
        if self.folds is None:
            tested = round((self.share or 0) * count)
            # evenly over the order by concept, so that concepts have similar shares
            chosen = order[np.linspace(0, count - 1, tested).astype(int)]
        else:
            tested = count // self.folds
            chosen = order[fold - 1 :: self.folds][:tested]
        if not 0 < tested < count:
            raise RecipeError(
                f"holdout: {self.description} of {count} pictures",
                "fewer folds, or another share",
            )
        is_tested = np.zeros(count, bool)
        is_tested[chosen] = True
        return is_tested

    def hold_out_trials(self, recording: Trials, fold: int, where: str) -> Bool:
        """Choose the trials [N, R] of a recording that a fold tests.

        Raises:
            BrainhiveError: if runs or sessions are not known, or signals were fitted
                with held-out trials.
            RecipeError: if there are fewer runs or sessions than folds, or a listed one
                is unknown.
        """
        # single trials are dealt out, else whole runs or sessions
        self.refuse_fitted_signals(recording, where)
        is_there = recording.is_there
        if self.by == "trials":
            # those of each stimulus in a random order; one trial alone is never tested
            random = np.random.default_rng(self.seed)
            is_tested = np.zeros_like(is_there)
            for row, there in enumerate(is_there):
                order = random.permutation(np.flatnonzero(there))
                if self.folds is None:
                    chosen = order[: round((self.share or 0) * len(order))]
                else:
                    # shifted by row, so that leftover trials are spread over all folds
                    chosen = order[(fold - 1 - row) % self.folds :: self.folds]
                if len(chosen) < len(order):
                    is_tested[row, chosen] = True
            return is_tested

        # the tested groups: listed, by fold, or a random share
        groups = self.number_groups(recording, where)  # [N, R]
        total = int(groups.max()) + 1
        if self.test is not None:
            if unknown := [
                number for number in self.test if not 1 <= abs(int(number)) <= total
            ]:
                raise RecipeError(
                    f"holdout.test names {self.by[:-1]} {unknown[0]}: {where} has "
                    f"{total}",
                    f"numbers from 1 to {total}, in the order of time",
                )
            # -1 is the last
            tested = [int(number) % (total + 1) - 1 for number in self.test]
        elif self.folds is not None:
            tested = [*range(fold - 1, total, self.folds)]
        else:
            drawn = np.random.default_rng(self.seed).permutation(total)
            tested = drawn[: round((self.share or 0) * total)].tolist()
        if not tested or len(tested) == total:
            raise RecipeError(
                f"holdout: {self.description}, and {where} has {total} {self.by}",
                f"at most {total} folds" if total > 1 else "hold out trials",
            )
        return is_there & np.isin(groups, tested)

    def number_groups(self, recording: Trials, where: str) -> Int64:
        """Number the runs or sessions of trials from 0, [N, R]: -1 where there is none.

        Raises:
            BrainhiveError: if the recording does not say them.
        """
        sessions = recording.sessions
        runs = recording.runs if self.by == "runs" else sessions
        if runs is None:
            raise BrainhiveError(
                f"{where}: nothing says which trial is of which {self.by[:-1]}",
                f"prepare the signals again ({Line('prepare', '--again')}), or "
                "hold out trials",
            )
        # runs are numbered within their session
        pairs = runs.astype(np.int64)
        if sessions is not None:
            pairs += sessions.astype(np.int64) * (int(runs.max()) + 1)
        is_there = runs >= 0
        numbers = np.full(runs.shape, -1, np.int64)
        # consecutive numbers, in the order of sessions and runs
        numbers[is_there] = np.unique(pairs[is_there], return_inverse=True)[1]
        return numbers

    def number_test_groups(self, recording: Trials, where: str) -> Int64:
        """Number the fold (from 1, 0 if none), run or session that tests each trial,
        [N, R].
        """
        if self.by != "trials":
            return self.number_groups(recording, where)
        # folds test different trials, so that the sum is the number of one
        numbers = np.zeros(recording.is_there.shape, np.int64)
        for fold in self.fold_numbers:
            numbers += fold * self.hold_out_trials(recording, fold, where)
        return numbers

    def name_groups(self, trials: Trials, whose: str, fold: int) -> list[str]:
        """Name the run, session or fold of each tested trial of seen pictures, [N]."""
        # sessions and runs of the trials; 0 where they are not known
        absent = np.zeros((len(trials.stimulus), 1), np.int64)
        sessions, runs = (
            (absent if known is None else known)[:, 0]
            for known in (trials.sessions, trials.runs)
        )
        return {
            "runs": [
                f"{whose} session {s + 1} run {r}"
                for s, r in zip(sessions, runs, strict=True)
            ],
            "sessions": [f"{whose} session {session + 1}" for session in sessions],
            "trials": [f"{whose} fold {fold}"] * len(absent),
        }[self.by]

    def refuse_fitted_signals(self, recording: Trials, where: str) -> None:
        """Refuse signals whose preparation was fitted to trials that are held out here.

        Raises:
            BrainhiveError: naming the steps, and the line that prepares signals without
                them.
        """
        # steps that were fitted to all trials
        steps = recording.preparation
        fitted = {
            "zscore": self.by not in STEPS_WITHIN.get(steps.get("zscore", "no"), ()),
            "estimator": steps.get("estimator") in ("hrf", "denoised"),
            "min_ncsnr": steps.get("min_ncsnr") is not None,
            "max_voxels": steps.get("max_voxels") is not None,
            "whiten": steps.get("whiten", "no") not in ("no", False),
        }
        instead = {"estimator": "lsa", "min_ncsnr": "null", "max_voxels": "null"}
        if refused := [key for key, is_fitted in fitted.items() if is_fitted]:
            keys = [f"preparation.{key}={instead.get(key, 'no')}" for key in refused]
            raise BrainhiveError(
                f"{where}: {' and '.join(f'{key}={steps[key]}' for key in refused)} "
                f"was fitted to all trials, and {self.by} are held out",
                f"{Line('prepare', ('name', 'unfitted'), *keys)}, then "
                "signal.name=unfitted; signal.normalise=channel or whiten is fitted to "
                "the training trials of each fold",
            )


def read_split(
    path: Path, hint: str = SPLIT_HINT, name_of: Callable[[str], str] = str
) -> list[dict[str, str]]:
    """Read the side, `train` or `test`, of each picture in each variant.

    Source: ViCCo-Group/LAION-fMRI, laion_fmri/splits: `variants` with `train_ids` and
    `test_ids`.

    Args:
        path: The JSON file.
        hint: How to get it.
        name_of: Turns a listed name into an image id.

    Raises:
        MissingData: if it is absent or no split, has a picture twice, or its variants
            test different numbers of pictures, so that they have no common chance.
    """
    with report_damage(path, hint):
        folds = []
        counts = set()
        variants = documents.read(path, dict[str, Any], hint=hint)["variants"]
        if len(variants) > MAX_FOLDS:
            raise ValueError(f"it has {len(variants):,} variants, over {MAX_FOLDS:,}")
        for variant in variants:
            listed = {side: variant[f"{side}_ids"] for side in ("train", "test")}
            sides = {name_of(name): side for side in listed for name in listed[side]}
            folds.append(sides)
            counts.add(len(listed["test"]))
            if len(sides) < sum(map(len, listed.values())):
                raise ValueError("it has a picture twice")
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"variants test {sorted(counts)} pictures")
    return folds


SEPARATE_TEST = Holdout.model_construct(by="")  # type: ignore[arg-type]
"""Nothing of the split `train` is held out: the split `test` is tested."""

HOLDOUT_FIELD: Any = Field(
    None,
    description="what is tested of the pictures or trials of `train`, as {by: runs, "
    "folds: 12}, instead of the split `test`",
)
"""The key `holdout` of data sets."""
