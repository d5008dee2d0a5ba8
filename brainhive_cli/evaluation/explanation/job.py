"""An explanation, resolved: which run, cells and subjects, which levels, by which analyses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import torch

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.measurements import NOT_INTERLEAVED, extend_protocol, merge_caveats
from brainhive_cli.core.results import Work
from brainhive_cli.core.set_up import describe_signals
from brainhive_cli.data.datasets import alike_items, require_split
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import open_stores, store_inputs
from brainhive_cli.evaluation.explanation.profiles import Labels, locate
from brainhive_cli.evaluation.explanation.reader import Reader, match_pictures
from brainhive_cli.evaluation.explanation.recipe import (
    ANALYSES,
    OF_SIGNALS,
    OF_TRIALS,
    Explanation,
    Recipe,
)
from brainhive_cli.measurement.units import Items
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun, open_model, refuse_sweep


@dataclass(frozen=True)
class Job:
    """Work of explain.

    Attributes:
        recipe: What the user wrote, with the run as a fingerprint knows it, wherever home lies.
        spec: What is measured; all that the functions which measure get of the recipe.
        align: The run.
        subjects: The cells that are tested on each subject, of several seeds.
        encoders: The levels: encoders of the run, and further ones, each once.
    """

    recipe: Recipe
    spec: Explanation
    align: TrainedRun
    subjects: dict[int, list[Cell]]
    encoders: list[EncoderConfig]

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run that a recipe names, or the newest on its data set.

        Raises:
            RecipeError: if it is a sweep, has no recipe for a control, or its data set lacks the split.
        """
        spec = recipe.select(Explanation)

        # the run, whose trials are held out if trials are analysed
        align = open_model(recipe.align_run, recipe.paths, recipe.dataset, recipe.subjects, recipe.copies)
        refuse_sweep(align)
        has_trials, wanted = align.dataset.holdout.shows_seen, spec.analyses_of(OF_TRIALS)
        if (wanted and not has_trials) or (has_trials and not wanted and spec.analyses != [*ANALYSES]):
            why = "holds out trials" if has_trials else "holds out no trials of seen stimuli"
            way = f"analyses={','.join(OF_TRIALS if has_trials else ANALYSES)}"
            raise RecipeError(f"analyses: {align.name} {why}", way)

        # split and control must go with the run
        require_split(align.dataset, spec.split, "split")
        if spec.control == "trained" and align.recipe is None:
            raise RecipeError("control is trained, and a model folder has no recipe", "control=permuted")

        # cells by subject, and encoders of the levels
        tested = sorted({subject for cell in align.cells for subject in cell.tested_on})
        # seeds of one subject are averaged
        subjects = {one: [cell for cell in align.cells if one in cell.tested_on] for one in tested}
        encoders = [*align.models[0].encoders, *spec.levels]
        recipe = recipe.model_copy(update={"align_run": align.reference})
        return cls(recipe, spec, align, subjects, [*{encoder.name: encoder for encoder in encoders}.values()])

    @property
    def pairs(self) -> list[tuple[Cell, int]]:
        """Cells with the subjects that each is tested on."""
        return [(cell, subject) for subject, cells in self.subjects.items() for cell in cells]

    @property
    def work(self) -> Work:
        """Count what there is to explain."""
        # the analyses decide how long a subject takes
        kind = f"{self.align.dataset.name}, {', '.join(self.spec.analyses)}, control {self.spec.control}"
        return Work(kind, len(self.pairs), "subjects of a cell")

    @property
    def _read_splits(self) -> list[str]:
        """Splits whose embeddings signals are compared with; none where trials are held out."""
        # decoding of trials compares signals with labels, not with embeddings
        if self.align.dataset.holdout.divides_train:
            return []
        splits = [self.spec.split] if self.spec.analyses_of(OF_SIGNALS) else []
        return ["train", *splits] if "encoding" in self.spec.analyses else splits

    def inputs(self) -> Iterator[Input]:
        """List the run, its signals, and the embeddings that they are compared with."""
        align = self.align
        # embeddings are listed below, as further levels are read, too
        yield from align.inputs([])
        for split in self._read_splits:
            yield from store_inputs(align.dataset, align.dataset_config, split, self.encoders, align.paths)

    def open_levels(self) -> dict[str, Mapping[str, TargetStore]]:
        """Open the embeddings that signals are compared with, by split and encoder; only those that are read.

        Raises:
            BrainhiveError: if the run has folds of pictures, with the way out.
            MissingData: if a store is missing, with the line that makes it.
        """
        align = self.align
        # each fold has another model, and no picture is tested by all
        if align.dataset.holdout.by == "pictures":
            raise BrainhiveError(
                f"explain reads one model a subject, and {align.name} has {len(align.folds)} folds of "
                "pictures",
                "a run whose test pictures lie in a folder test; or hold out trials, runs or sessions",
            )
        return {
            split: open_stores(align.dataset, align.dataset_config, split, self.encoders, align.paths)
            for split in self._read_splits
        }

    def find_units(self, device: torch.device) -> tuple[Items, list[str]]:
        """Find the pictures that all subjects were shown and no model learned from, and which are alike.

        Args:
            device: Where models are opened.

        Returns:
            The pictures, in one order for all subjects, exchanged within the parts of the recordings in which
            labels were interleaved for all of them; and caveats of the order in time.

        Raises:
            BrainhiveError: if there are none.
        """
        # which pictures each subject was shown, and which of them may exchange labels
        align, split, shown, orders = self.align, self.spec.split, [], []
        for subject, (cell, *_) in self.subjects.items():
            member = TrainedModel(align, cell, device, self.spec.head)
            trials = member.trials(subject, split)
            shown.append(trials.stimulus)
            orders.append(member.interleaving(trials, split))

        # those that all subjects have in common
        shared = reduce(np.intersect1d, shown)
        if not len(shared):
            raise BrainhiveError("the subjects were shown no picture in common", "explain each: --subjects")
        pictures, follow_time = align.models[0].pictures(split), any(order.follows_time for order in orders)
        orders = [
            order.take(locate(rows.tolist(), shared)) for rows, order in zip(shown, orders, strict=True)
        ]

        # parts of pictures, and of their concepts: none where these came in blocks for anybody
        names = [pictures.image_ids[row] for row in shared]
        parts = zip(*(order.parts for order in orders), strict=True)
        concept_parts = zip(*(order.concept_parts or () for order in orders), strict=False)
        units = alike_items(align.dataset, pictures, [shared] * len(orders)).within(
            dict(zip(names, parts, strict=True)), dict(zip(names, concept_parts, strict=False))
        )
        return units, [NOT_INTERLEAVED] if follow_time else []

    def reader(
        self,
        cell: Cell,
        subject: int,
        units: Items,
        device: torch.device,
        align: TrainedRun | None = None,
    ) -> Reader:
        """Open a cell's model with a subject's signals; labels are permuted alike for all cells and subjects.

        Args:
            cell: Whose model.
            subject: Whose signals.
            units: What `find_units` found.
            device: Where the model is.
            align: Another run with the same cells; default: the one that is explained.
        """
        member, spec = TrainedModel(align or self.align, cell, device, self.spec.head), self.spec
        pictures = member.pictures(spec.split)
        # candidates are all embedded pictures; rows are those that all subjects were shown
        rows, candidates = locate(pictures.image_ids, units.ids[0]), np.flatnonzero(pictures.done)
        # seeds share a subject's signals
        trials = member.once(
            "explained",
            subject,
            spec.split,
            lambda: match_pictures(member.trials(subject, spec.split), rows),
        )
        labels = Labels.of(np.searchsorted(candidates, rows), units, spec.draws, spec.seed)
        return Reader(member, spec.split, trials, candidates, labels, units)

    def describe_protocol(self, caveats: Sequence[str] = ()) -> str:
        """Name the way of measuring, with all that a reader must know; caveats are those of the order."""
        align = self.align

        # what a reader must know to compare numbers of two explanations
        words = [align.mode, align.dataset.name, align.variant]
        words += [f"zero-shot from {align.origin}" if align.tests_new_subjects else ""]
        words += [align.dataset.holdout.words, f"head {self.spec.head}" if self.spec.head else ""]
        words += describe_signals(align.set_up(self.spec.split))
        return extend_protocol(
            ", ".join(filter(None, words)), merge_caveats(align.caveats(self.spec.split), caveats)
        )
