"""An explanation, resolved, and what its analyses read: a model with the signals of a
subject.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.command import Input, Work
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.facts import describe_signals
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import extend_protocol
from brainhive_cli.data.datasets import group_rows, require_split
from brainhive_cli.data.signals.selection import list_window_starts
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.encoder_stores import list_store_inputs, open_stores
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
    REGION_ANALYSES,
    SIGNAL_ANALYSES,
    TRIAL_ANALYSES,
    WINDOW_ANALYSES,
    Recipe,
)
from brainhive_cli.evaluation.explanation.sensor_space import find_mixture
from brainhive_cli.measurement.ranks import rank_first_pictures
from brainhive_cli.measurement.units import Items
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import (
    TrainedRun,
    open_model,
    refuse_sweep,
)


@dataclass(frozen=True)
class Job:
    """Work of explain.

    Attributes:
        recipe: What the user wrote, with the run as a fingerprint knows it, wherever
            home lies.
        align: The run.
        subjects: The cells that are tested on each subject, of several seeds.
        encoders: The levels: encoders of the run, and further ones, each once.
        splits: Splits whose embeddings signals are compared with; none where trials are
            held out.
    """

    recipe: Recipe
    align: TrainedRun
    subjects: dict[int, list[Cell]]
    encoders: list[EncoderConfig]
    splits: list[str]

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run that a recipe names, or the newest on its data set.

        Raises:
            RecipeError: if it is a sweep, or its data set lacks the split.
        """
        # the run, whose trials are held out if trials are analysed
        align = open_model(
            recipe.align_run,
            recipe.paths,
            recipe.dataset,
            recipe.subjects,
            recipe.copies,
        )
        refuse_sweep(align)
        analyses = recipe.analyses
        holdout = align.dataset.holdout
        has_trials = holdout.has_seen_pictures
        wants_trials = bool(TRIAL_ANALYSES.keys() & analyses)
        if has_trials != wants_trials and (wants_trials or analyses != [*ANALYSES]):
            why = (
                "holds out trials"
                if has_trials
                else "holds out no trials of seen stimuli"
            )
            way = f"analyses={','.join(TRIAL_ANALYSES if has_trials else ANALYSES)}"
            raise RecipeError(f"analyses: {align.name} {why}", way)
        require_split(align.dataset, recipe.split, "split")

        # decoding of trials compares signals with labels, not with embeddings
        splits = [recipe.split] if SIGNAL_ANALYSES.keys() & analyses else []
        splits = ["train", *splits] if "encoding" in analyses else splits

        # cells by subject, whose seeds are averaged, and encoders of the levels
        tested = sorted({subject for cell in align.cells for subject in cell.tested_on})
        encoders = [*align.models[0].encoders, *recipe.levels]
        return cls(
            recipe.model_copy(update={"align_run": align.reference}),
            align,
            {
                one: [cell for cell in align.cells if one in cell.tested_on]
                for one in tested
            },
            [*{encoder.name: encoder for encoder in encoders}.values()],
            [] if holdout.divides_train else splits,
        )

    def count_work(self) -> Work:
        """Count what there is to explain."""
        # the analyses decide how long a subject takes
        kind = f"{self.align.dataset.name}, {', '.join(self.recipe.analyses)}"
        return Work(kind, sum(map(len, self.subjects.values())), "subjects of a cell")

    def inputs(self) -> Iterable[Input]:
        """List the run, its signals, and the embeddings that they are compared with."""
        align = self.align
        # embeddings are listed below, as further levels are read, too
        yield from align.inputs([])
        for split in self.splits:
            yield from list_store_inputs(
                align.dataset, align.dataset_config, split, self.encoders, align.paths
            )

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.align.label

    def check(self) -> None:
        """Refuse embeddings, models and signals that do not fit each other or the
        analyses; raises as `levels` and `TrainedRun.check`.
        """
        _ = self.levels
        recipe, align = self.recipe, self.align
        if align.dataset.holdout.divides_train:  # each fold has its own trials
            return
        has_model = bool(MODEL_ANALYSES.keys() & recipe.analyses)
        opened = align.check([recipe.split], recipe.head, compares=has_model)
        if not opened:
            return
        first = [opened[cells[0].name, one] for one, cells in self.subjects.items()]
        find_shared_pictures([trials.stimulus for trials in first])
        for trials in first:
            if WINDOW_ANALYSES & {*recipe.analyses} and trials.channels:
                window = recipe.window
                times_ms = trials.times_s * 1000
                list_window_starts(times_ms, window.width_ms, window.step_ms)

        # values of regions are averaged over people
        regions = [
            {name for name, rows in trials.regions.items() if rows} for trials in first
        ]
        is_by_region = bool(REGION_ANALYSES & {*recipe.analyses})
        if is_by_region and all(regions) and not set.intersection(*regions):
            raise BrainhiveError(
                "the subjects have no region in common: "
                + "; ".join(", ".join(sorted(names)) for names in regions),
                "explain each: --subjects",
            )

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        self.align.prepare_signals(launch)

    @cached_property
    def levels(self) -> dict[str, Mapping[str, TargetStore]]:
        """Embeddings that signals are compared with, by split and encoder; only those
        that are read.

        Raises:
            BrainhiveError: if the run has folds of pictures, with the way out.
            MissingData: if a store is missing, with the line that makes it.
        """
        align = self.align
        # each fold has another model, and no picture is tested by all
        if align.dataset.holdout.by == "pictures":
            raise BrainhiveError(
                f"explain reads one model a subject, and {align.name} has "
                f"{len(align.folds)} folds of pictures",
                (
                    "a run whose test pictures lie in a folder test; or hold out "
                    "trials, runs or sessions"
                ),
            )
        return {
            split: open_stores(
                align.dataset, align.dataset_config, split, self.encoders, align.paths
            )
            for split in self.splits
        }

    def find_units(self, device: torch.device) -> Items:
        """Find the pictures, once, see `_find_units`."""
        return self.align.once("explained units", lambda: self._find_units(device))

    @console.progress("matching the pictures of all subjects")
    def _find_units(self, device: torch.device) -> Items:
        """Find the pictures that all subjects were shown and no model learned from, and
        which are alike.

        Args:
            device: Where models are opened.

        Returns:
            The pictures, in one order for all subjects, exchanged within the parts of
            the recordings in which labels were interleaved for all of them.

        Raises:
            BrainhiveError: if there are none.
        """
        # which pictures each subject was shown, and which of them may exchange labels
        align = self.align
        split = self.recipe.split
        shown = []
        orders = []
        for subject, (cell, *_) in self.subjects.items():
            member = TrainedModel(align, cell, device, self.recipe.head)
            trials = member.trials(subject, split)
            shown.append(trials.stimulus)
            orders.append(member.interleaving(trials, split))

        shared = find_shared_pictures(shown)
        pictures = align.models[0].pictures(split)
        orders = [
            order.take(find_rows(rows.tolist(), shared))
            for rows, order in zip(shown, orders, strict=True)
        ]

        # parts of pictures, and of their concepts: none where these came in blocks for
        # anybody
        names = [pictures.image_ids[row] for row in shared]
        parts = zip(*(order.parts for order in orders), strict=True)
        concept_parts = zip(
            *(order.concept_parts or () for order in orders), strict=False
        )
        return group_rows(
            align.dataset, pictures, [shared] * len(orders)
        ).exchange_within(
            dict(zip(names, parts, strict=True)),
            dict(zip(names, concept_parts, strict=False)),
            next((order.problem for order in orders if order.problem), ""),
        )

    def open_reader(
        self, cell: Cell, subject: int, units: Items, device: torch.device
    ) -> "Reader":
        """Open a cell's model with a subject's signals; labels are permuted alike for
        all cells and subjects.

        Args:
            cell: Whose model.
            subject: Whose signals.
            units: Those of `find_units`.
            device: Where the model is.
        """
        recipe = self.recipe
        split = self.recipe.split
        member = TrainedModel(self.align, cell, device, recipe.head)
        pictures = member.pictures(split)
        # candidates are all embedded pictures; rows are those that all subjects were
        # shown
        rows = find_rows(pictures.image_ids, units.ids[0])
        candidates = np.flatnonzero(pictures.done)
        # seeds share a subject's signals
        trials = member.once(
            "explained",
            subject,
            split,
            lambda: match_pictures(member.trials(subject, split), rows),
        )
        labels = Labels.draw(
            np.searchsorted(candidates, rows), units, recipe.draws, recipe.seed
        )
        return Reader(member, split, trials, candidates, labels, units)

    def describe_protocol(self) -> str:
        """Name the way of measuring, with all that a reader must know."""
        align, recipe = self.align, self.recipe

        # what a reader must know to compare numbers of two explanations
        words = [align.mode, align.dataset.name, align.variant]
        words += [f"zero-shot from {align.origin}" if align.tests_new_subjects else ""]
        words += [
            align.dataset.holdout.description,
            f"head {recipe.head}" if recipe.head else "",
        ]
        words += describe_signals(align.set_up(recipe.split))
        caveats = align.caveats(recipe.split)
        return extend_protocol(", ".join(filter(None, words)), caveats)


@dataclass
class Reader:
    """A cell's model, one subject's signals, and the pictures among which the seen ones
    are searched.

    Attributes:
        member: The model.
        split: Whose signals.
        trials: These signals as the model reads them.
        gallery_rows: [M] rows of the candidates.
        labels: Index of each signal's picture among the candidates, and permutations.
        pictures: Those that all subjects were shown, in the order of the signals, and
            which are alike.
        times_ms: [T] times of the samples after stimulus onset.
        mixture: Reason why channels are unknown mixtures of sensors; None where they
            are not.
        sensors: [E] whose signals are known, all where whitening is undone; () of
            voxels and mixtures.
    """

    member: TrainedModel
    split: str
    trials: Trials
    gallery_rows: Int64
    labels: Labels
    items: Items

    def __post_init__(self) -> None:
        """Find times and sensors of the signals."""
        self.times_ms: Float64 = self.trials.times_s * 1000
        recorded = self.trials.recorded or self.trials
        self.mixture = find_mixture(self.trials)
        self.sensors = tuple[str, ...]()
        # unmixed signals have all recorded sensors, others those that the model reads
        if isinstance(recorded.space, Sensors) and not self.mixture:
            names = (
                self.trials.channels
                if recorded.whiteners is None
                else recorded.space.names
            )
            self.sensors = tuple(names)

    @cached_property
    def gallery(self) -> Tensor:
        """[M, D] the candidates' vectors."""
        return self.member.images(self.split, self.gallery_rows)

    @cached_property
    def signal(self) -> Tensor:
        """[N, C, T] repetitions averaged."""
        return torch.from_numpy(self.trials.averages)

    @cached_property
    def train_trials(self) -> Trials:
        """The subject's training trials."""
        return self.member.trials(self.trials.subject, "train", is_tested=False)

    @cached_property
    def baseline(self) -> Tensor:
        """[C, T] the subject's mean training signal, in which no tested picture has a
        part.
        """
        return torch.from_numpy(self.member.mean_training_signal(self.trials.subject))

    @cached_property
    def margins(self) -> Float64:
        """[N, M] margins of the signals as they are."""
        return self.measure_margins(self.signal)

    def measure_margins(self, signal: Tensor) -> Float64:
        """Compute the cosine similarity of signals with candidates, less its mean over
        candidates: [N, M].
        """
        return compute_margins(self.member.encode(self.trials, signal), self.gallery)

    def list_spatial_positions(self) -> dict[str, tuple[Axis, list[Any]]]:
        """List sensors, or regions of voxels, with their indices of signals [N, E, T]
        in sensor space.

        Returns:
            By the part of an analysis that they are; nothing of mixtures.
        """
        if self.mixture:
            return {}

        # a sensor is one row of the signal, a region several
        if self.sensors:
            rows = [[row] for row in range(len(self.sensors))]
            return {
                SPACE_PART: (
                    Axis(SENSOR, self.sensors),
                    [np.s_[:, part] for part in rows],
                )
            }
        regions = self.list_regions()
        return {
            SPACE_PART: (
                Axis(REGION, [*regions]),
                [np.s_[:, [*part]] for part in regions.values()],
            )
        }

    def list_regions(self) -> dict[str, tuple[int, ...]]:
        """List the regions that have voxels, by name, as rows among those that the
        model reads.

        Raises:
            BrainhiveError: if there are none.
        """
        # regions may lie outside of the voxels that the model reads
        regions = {name: rows for name, rows in self.trials.regions.items() if rows}
        if not regions:
            raise BrainhiveError(
                "the voxels belong to no region", "prepare the signals with regions"
            )
        return regions

    def rank(self, axis: Axis, tokens: Iterable[Tensor]) -> dict[str, Profile]:
        """Rank all candidates by the tokens [N, D] of each position."""
        # ranks are computed position by position, to bound memory
        pool = len(self.gallery)
        # [N, M] each
        ranks = (rank_first_pictures(part, self.gallery, pool) for part in tokens)
        return Profile.from_ranks(axis, ranks, self.labels, pool)


def find_shared_pictures(shown: Sequence[Int64]) -> Int64:
    """Find the rows of the pictures that all subjects were shown.

    Raises:
        BrainhiveError: if there are none.
    """
    shared = reduce(np.intersect1d, shown)
    if not len(shared):
        raise BrainhiveError(
            "the subjects were shown no picture in common", "explain each: --subjects"
        )
    return shared


def match_pictures(trials: Trials, rows: Int64) -> Trials:
    """Bring a subject's trials into the order of the pictures of some rows; other
    trials are left out.
    """
    # all subjects have one order of pictures, so that values can be averaged
    return trials.take(find_rows(trials.stimulus.tolist(), rows))


def compute_margins(tokens: Tensor, gallery: Tensor) -> Float64:
    """Compute cosine similarities [N, M] of tokens with candidates, less their mean
    over candidates.
    """
    # the mean over candidates says how close a signal is to any picture
    candidates = F.normalize(gallery)
    # [N, M]
    cosine = (F.normalize(tokens.to(candidates)) @ candidates.T).double().cpu().numpy()
    return cosine - cosine.mean(1, keepdims=True)
