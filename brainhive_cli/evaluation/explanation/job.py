"""Explanation of a run, and the model and signals that its analyses read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float64, Int64, RecipeError, console
from brainhive_cli.core.files import Input
from brainhive_cli.core.results import describe_signals, extend_protocol
from brainhive_cli.core.runs import Work
from brainhive_cli.data.datasets import group_rows, require_split
from brainhive_cli.data.signals import Trials, list_window_starts
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.data.targets import list_store_inputs, open_stores
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    SPACE_PART,
    Axis,
    Labels,
    Profile,
    find_rows,
)
from brainhive_cli.evaluation.explanation.recipe import (
    ANALYSES,
    MODEL_ANALYSES,
    SIGNAL_ANALYSES,
    TRIAL_ANALYSES,
    WINDOW_ANALYSES,
    Recipe,
)
from brainhive_cli.evaluation.explanation.sensor_space import find_mixture
from brainhive_cli.measurement import Items, rank_first_pictures
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment import Cell
from brainhive_cli.training.alignment.trained import (
    TestedPerson,
    TestJob,
    TestSet,
    TrainedModel,
    check_test_set,
    open_model,
    open_targets,
)


@dataclass(frozen=True)
class Job(TestJob):
    """Explanation of a run.

    Attributes:
        recipe: Recipe, in which `align_run` is the portable name of the run.
        subjects: Cells that are tested on each subject, by subject. The cells of a
            subject differ in seed or fold.
        encoders: Encoders of the run, and those that the key `levels` adds.
        splits: Splits whose embeddings are compared with signals.
    """

    recipe: Recipe
    subjects: dict[int, list[Cell]]
    encoders: list[EncoderConfig]
    splits: list[str]

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run of a recipe, by default the newest run on its data set.

        Raises:
            RecipeError: if the data set of the run lacks the split, or the
                analyses do not fit its held-out trials.
        """
        align = open_model(
            recipe.align_run,
            recipe.paths,
            recipe.dataset,
            recipe.subjects,
            recipe.copies,
        )

        # held-out trials have other analyses, unless the key has its default
        analyses = recipe.analyses
        holdout = align.dataset.holdout
        has_trials = holdout.has_seen_pictures
        requests_trials = bool(TRIAL_ANALYSES.keys() & analyses)
        is_default = analyses == list(ANALYSES)
        if requests_trials and not has_trials:
            raise RecipeError(
                f"analyses: {align.name} holds out no trials of seen stimuli",
                f"analyses={','.join(ANALYSES)}",
            )
        if has_trials and not requests_trials and not is_default:
            raise RecipeError(
                f"analyses: {align.name} holds out trials",
                f"analyses={','.join(TRIAL_ANALYSES)}",
            )
        require_split(align.dataset, recipe.split, "split")

        # embeddings are compared with signals, but not with held-out trials
        splits: list[str] = []
        if not holdout.divides_train:
            if "encoding" in analyses:
                splits.append("train")
            if SIGNAL_ANALYSES.keys() & analyses:
                splits.append(recipe.split)

        # cells of each subject, and each encoder once
        cells_of_subject = defaultdict[int, list[Cell]](list)
        for cell in align.cells:
            for subject in cell.tested_on:
                cells_of_subject[subject].append(cell)
        encoders = chain(align.encoders, recipe.levels)
        encoder_of_name = {encoder.name: encoder for encoder in encoders}
        return cls(
            recipe=recipe.model_copy(update={"align_run": align.reference}),
            align=align,
            subjects=dict(sorted(cells_of_subject.items())),
            encoders=list(encoder_of_name.values()),
            splits=splits,
        )

    def count_work(self) -> Work:
        """Count the cells of all subjects, for an estimate of the time."""
        # the time of a subject depends on the analyses
        kind = f"{self.align.dataset.name}, {', '.join(self.recipe.analyses)}"
        n_cells = sum(map(len, self.subjects.values()))
        return Work(kind, n_cells, "models to explain")

    def inputs(self) -> Iterable[Input]:
        """List the run, its signals, and the embeddings that are compared with them."""
        align = self.align
        # the embeddings below include the embeddings of the run
        yield from align.list_inputs([])
        for split in self.splits:
            yield from list_store_inputs(
                align.dataset, align.dataset_config, split, self.encoders, align.paths
            )

    def check(self) -> None:
        """Raise an error if embeddings, models and signals do not fit the analyses.

        Subjects must share pictures and regions, and windows must fit into the signals.
        """
        _ = self.levels
        recipe = self.recipe
        if self.align.dataset.holdout.divides_train:  # each fold has its own trials
            return
        trials_of_cell = check_test_set(
            self.tests,
            [recipe.split],
            recipe.head,
            compares=bool(MODEL_ANALYSES.keys() & recipe.analyses),
        )
        if not trials_of_cell:
            return

        # the cells of a subject have the same trials
        all_trials = []
        for subject, cells in self.subjects.items():
            all_trials.append(trials_of_cell[cells[0].name, subject])
        find_shared_pictures([trials.stimulus for trials in all_trials])
        window = recipe.window
        for trials in all_trials:
            if trials.channels and WINDOW_ANALYSES.intersection(recipe.analyses):
                times_ms = trials.times_s * 1000
                list_window_starts(times_ms, window.width_ms, window.step_ms)

        # Analyses that use single regions of voxels.
        # values of regions are averaged over subjects
        if not {"regions", "trained", "encoding"}.intersection(recipe.analyses):
            return
        regions = []
        for trials in all_trials:
            regions.append({name for name, rows in trials.regions.items() if rows})
        if all(regions) and not set.intersection(*regions):
            region_lists = [", ".join(sorted(names)) for names in regions]
            raise BrainhiveError(
                f"the subjects have no region in common: {'; '.join(region_lists)}",
                "explain each subject separately: --subjects",
            )

    @cached_property
    def levels(self) -> dict[str, Mapping[str, TargetStore]]:
        """Embeddings that are compared with signals, by split and encoder.

        Raises:
            BrainhiveError: if the run has folds of pictures.
            MissingData: if a store is missing.
        """
        align = self.align
        # each fold has its own model, and no model is tested on all pictures
        if align.dataset.holdout.by in ("pictures", "folders"):
            raise BrainhiveError(
                f"explain needs one model for each subject, but {align.name} has "
                f"{len(align.folds)} folds of pictures",
                (
                    "explain a run with a folder of test pictures, or with held-out "
                    "trials, runs or sessions"
                ),
            )
        stores: dict[str, Mapping[str, TargetStore]] = {}
        for split in self.splits:
            stores[split] = open_stores(
                align.dataset, align.dataset_config, split, self.encoders, align.paths
            )
        return stores

    @cached_property
    @console.progress("matching the pictures of all subjects")
    def units(self) -> Items:
        """Pictures that all subjects saw and no model was trained on.

        They have the same order for each subject, and the odds that the design of the
        study gives to orders of their labels.

        Raises:
            BrainhiveError: if the subjects saw no picture in common.
        """
        # pictures that all subjects saw
        tests = self.tests
        rows_of_subjects = []
        for subject, cells in self.subjects.items():
            model = self.align.open(cells[0], head=self.recipe.head)
            trials = tests.open_person(model, subject).trials
            rows_of_subjects.append(trials.stimulus)
        shared_rows = find_shared_pictures(rows_of_subjects)
        pictures = tests.open_pictures(tests.split)
        items = group_rows(
            tests.dataset, pictures, [shared_rows] * len(rows_of_subjects)
        )
        if tests.study is None:
            return items

        # units are numbered over all subjects, so the last subject's are enough
        names = pictures.image_ids[trials.stimulus]
        unit_of = dict(zip(names, tests.find_units(trials).tolist(), strict=True))
        rows = np.array([unit_of[str(name)] for name in items.names], np.int64)
        return replace(items, design=tests.study.design.take(rows))

    def open_reader(self, cell: Cell, subject: int, device: torch.device) -> "Reader":
        """Open the model of a cell with the signals of a subject.

        The labels of `units` are permuted in the same way for all cells and subjects.
        """
        recipe = self.recipe
        tests = self.tests
        model = self.align.open(cell, device, recipe.head)

        # candidates are all pictures with embeddings
        pictures = tests.open_pictures(recipe.split)
        rows = find_rows(pictures.image_ids, self.units.ids[0])
        candidate_rows = np.flatnonzero(pictures.done)
        seen_indices = np.searchsorted(candidate_rows, rows)

        # the seeds of a subject share the signals
        person = tests.open_person(model, subject)
        if person not in self._explained_trials:
            self._explained_trials[person] = match_pictures(person.trials, rows)
        trials = self._explained_trials[person]
        labels = Labels.draw(seen_indices, self.units, recipe.draws, recipe.seed)
        return Reader(model, tests, person, trials, candidate_rows, labels, self.units)

    @cached_property
    def _explained_trials(self) -> dict[TestedPerson, Trials]:
        """Trials of the pictures that all subjects saw, by person."""
        return {}

    def describe_protocol(self) -> str:
        """Describe the measurement so that two explanations can be compared."""
        align = self.align
        recipe = self.recipe
        phrases = [align.mode, align.dataset.name]
        if align.tests_new_subjects:
            phrases.append(f"zero-shot from {align.origin}")
        phrases.append(align.dataset.holdout.description)
        if recipe.head:
            phrases.append(f"head {recipe.head}")
        phrases += describe_signals(self.tests.set_up)
        protocol = ", ".join(filter(None, phrases))
        return extend_protocol(protocol, self.tests.caveats)


@dataclass
class Reader:
    """Model of a cell, with the signals of a subject and the candidate pictures.

    Attributes:
        model: Model.
        tests: Test set.
        person: Subject, as the model reads the signals.
        trials: Test signals of the pictures that all subjects saw.
        gallery_rows: Rows [M] of the candidates in the target stores.
        labels: Picture of each signal, as an index of a candidate, and permutations.
        items: Pictures of the signals that all subjects saw, with their units.
        times_ms: Times [T] of the samples after stimulus onset.
        mixture: Reason why the channels are unknown mixtures of sensors, or None.
        sensors: Names of the E sensors whose signals are known. If whitening is undone,
            these are all recorded sensors. Empty for voxels and mixtures.
    """

    model: TrainedModel
    tests: TestSet
    person: TestedPerson
    trials: Trials
    gallery_rows: Int64
    labels: Labels
    items: Items

    def __post_init__(self) -> None:
        """Find the times and sensors of the signals."""
        self.times_ms: Float64 = self.trials.times_s * 1000
        self.mixture = find_mixture(self.trials)
        self.sensors = tuple[str, ...]()
        recorded = self.trials.recorded or self.trials
        if not self.mixture:
            is_whitened = recorded.whiteners is not None
            names = recorded.space.names if is_whitened else self.trials.channels
            self.sensors = tuple(names)

    @cached_property
    def gallery(self) -> Tensor:
        """Embeddings [M, D] of the candidates."""
        return self.encode_pictures(self.tests.split, self.gallery_rows)

    def encode_pictures(self, split: str, rows: Int64, without: str = "") -> Tensor:
        """Encode pictures of a split, as `TrainedModel.encode_pictures`."""
        targets = open_targets(self.tests, self.model, split)
        return self.model.encode_pictures(targets, rows, without)

    @cached_property
    def signal(self) -> Tensor:
        """Signals [N, C, T], averaged over repetitions."""
        return torch.from_numpy(self.trials.averages)

    @cached_property
    def baseline(self) -> Tensor:
        """Mean training signal [C, T] of the subject."""
        return torch.from_numpy(self.person.mean_signal)

    @cached_property
    def margins(self) -> Float64:
        """Margins [N, M] of the unchanged signals, as `compute_margins`."""
        return self.measure_margins(self.signal)

    def measure_margins(self, signal: Tensor) -> Float64:
        """Encode signals [N, C, T] and compute their margins [N, M]."""
        return compute_margins(self.model.encode(self.trials, signal), self.gallery)

    def list_spatial_positions(self) -> dict[str, tuple[Axis, list[Any]]]:
        """List the sensors, or the regions of voxels.

        Returns:
            Under the key `SPACE_PART`: the axis, and for each position an index of
            signals [N, E, T] in sensor space. Empty if channels are mixtures of
            sensors.
        """
        if self.mixture:
            return {}

        if self.sensors:
            axis = Axis(SENSOR, self.sensors)
            indices = [np.s_[:, [row]] for row in range(len(self.sensors))]
        else:
            regions = self.list_regions()
            axis = Axis(REGION, list(regions))
            indices = [np.s_[:, list(rows)] for rows in regions.values()]
        return {SPACE_PART: (axis, indices)}

    def list_regions(self) -> dict[str, tuple[int, ...]]:
        """List the rows of each region among the voxels that the model reads, by name.

        Raises:
            BrainhiveError: if the voxels belong to no region.
        """
        # the model may read no voxel of a region
        regions = {name: rows for name, rows in self.trials.regions.items() if rows}
        if not regions:
            raise BrainhiveError(
                "the voxels belong to no region", "prepare the signals with regions"
            )
        return regions

    def rank(self, axis: Axis, tokens: Iterable[Tensor]) -> dict[str, Profile]:
        """Compute retrieval metrics from the tokens [N, D] at each position."""
        # tokens are ranked position by position, to limit memory
        pool = len(self.gallery)
        ranks = (rank_first_pictures(token, self.gallery, pool) for token in tokens)
        return Profile.from_ranks(axis, ranks, self.labels, pool)


def find_shared_pictures(rows_of_subjects: Sequence[Int64]) -> Int64:
    """Find the rows of the pictures that all subjects saw, in ascending order.

    Raises:
        BrainhiveError: if there are none.
    """
    shared_rows = reduce(np.intersect1d, rows_of_subjects)
    if not len(shared_rows):
        raise BrainhiveError(
            "the subjects saw no picture in common",
            "explain each subject separately: --subjects",
        )
    return shared_rows


def match_pictures(trials: Trials, rows: Int64) -> Trials:
    """Select the trials of the pictures in `rows`, in this order.

    All subjects then have the same order, so values can be averaged over subjects.
    """
    return trials.take(find_rows(trials.stimulus.tolist(), rows))


def compute_margins(tokens: Tensor, gallery: Tensor) -> Float64:
    """Compute margins: the similarity with a candidate minus the mean over candidates.

    Args:
        tokens: Tokens [N, D] of signals.
        gallery: Embeddings [M, D] of the candidates.

    Returns:
        Cosine similarities [N, M] minus their mean over the candidates.
    """
    candidates = F.normalize(gallery)
    cosines = F.normalize(tokens.to(candidates)) @ candidates.T
    similarities = cosines.double().cpu().numpy()
    return similarities - similarities.mean(1, keepdims=True)
