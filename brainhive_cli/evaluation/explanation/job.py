"""An explanation, resolved: which run, cells and subjects, which levels, by which analyses."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core import runs
from brainhive_cli.core.caveats import extend_protocol
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.results import Work
from brainhive_cli.core.set_up import describe_signals
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import open_stores
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_SENSORS, OF_SIGNALS, OF_VOXELS, Explanation, Recipe
from brainhive_cli.evaluation.explanation.sensor_space import refuse_unknown_whitening
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.reports.paper_figures import require_matplotlib
from brainhive_cli.training.alignment.matching_run import RunNeeds
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun, find, refuse_sweep
from brainhive_cli.training.alignment.trained_cell import TrainedCell


@dataclass(frozen=True)
class Job:
    """What explain is going to do; each member is resolved once, when it is first needed.

    Attributes:
        recipe: What to explain.
    """

    recipe: Recipe

    @cached_property
    def spec(self) -> Explanation:
        """What is measured."""
        return self.recipe.spec

    @cached_property
    def align(self) -> AlignRun:
        """The run.

        Raises:
            RecipeError: if it is a sweep, has no recipe for a control, or its data set lacks the split.
        """
        recipe = self.recipe
        needs = RunNeeds(recipe.paths, recipe.dataset, recipe.trained_by, recipe.head)
        found = find(recipe.align_run, recipe.paths, recipe.dataset, recipe.subjects, needs)
        refuse_sweep(found)
        if self.spec.split not in found.dataset.splits:
            raise RecipeError(
                f"split: {found.dataset.name} has no split {self.spec.split!r}",
                f"it has: {', '.join(found.dataset.splits)}",
            )
        if self.spec.control == "trained" and found.recipe is None:
            raise RecipeError("control is trained, and a model folder has no recipe", "control=permuted")
        return found

    @cached_property
    def subjects(self) -> dict[int, list[Cell]]:
        """The cells that are tested on each subject, of several seeds."""
        found: dict[int, list[Cell]] = {}
        for cell in self.align.cells:
            for subject in cell.tested_on:
                found.setdefault(subject, []).append(cell)
        return dict(sorted(found.items()))

    @cached_property
    def pairs(self) -> list[tuple[Cell, int]]:
        """Cells with the subjects that each is tested on."""
        return [(cell, subject) for subject, cells in self.subjects.items() for cell in cells]

    @property
    def work(self) -> Work:
        """Count what there is to explain."""
        kind = f"{self.align.dataset.name}, {', '.join(self.spec.analyses)}, control {self.spec.control}"
        return Work(kind, len(self.pairs), "subjects of a cell")

    @cached_property
    def encoders(self) -> list[EncoderConfig]:
        """The levels: encoders of the run, and further ones, each once."""
        own = self.align.training_settings[self.align.cells[0].variant].encoders
        return list({each.name: each for each in (*own, *self.spec.levels)}.values())

    def levels(self, split: str) -> Mapping[str, TargetStore]:
        """Open the embeddings of all levels.

        Raises:
            MissingData: if a store is missing, with the line that makes it.
        """
        align = self.align
        found: Mapping[str, TargetStore] = align.once(
            ("levels", split),
            lambda: open_stores(align.dataset, align.dataset_config, split, self.encoders, align.paths),
        )
        return found

    def check_levels(self) -> list[str]:
        """Name the levels that signals are compared with; raise `MissingData` if one has no store."""
        if not self.analyses_of(OF_SIGNALS):
            return []
        if "encoding" in self.spec.analyses:
            self.levels("train")
        return [*self.levels(self.spec.split)]

    def analyses_of(self, kind: Collection[str]) -> list[str]:
        """List the chosen analyses of a kind."""
        return [name for name in self.spec.analyses if name in kind]

    def check_figures(self) -> str:
        """Name the formats of figures; raise `MissingExtra` if the library that draws them is missing."""
        if self.spec.figures:
            require_matplotlib()
        return ", ".join(self.spec.figures) or "none"

    def reader(self, cell: Cell, subject: int, device: torch.device, align: AlignRun | None = None) -> Reader:
        """Open a cell's model with a subject's signals.

        Args:
            cell: Whose model.
            subject: Whose signals.
            device: Where the model is.
            align: Another run with the same cells; default: the one that is explained.
        """
        member = TrainedCell.load(align or self.align, cell, device, self.spec.head)
        spec = self.spec
        return Reader.open(member, subject, spec.split, self._shown_to_all(member), spec.draws, spec.seed)

    def _shown_to_all(self, member: TrainedCell) -> NDArray[np.int64]:
        """Find the rows of the pictures that all subjects were shown and no model learned from, ascending.

        Raises:
            BrainhiveError: if there are none.
        """
        return self.align.once(("shown to all", self.spec.split), lambda: self._intersect(member))

    def _intersect(self, member: TrainedCell) -> NDArray[np.int64]:
        align, split = self.align, self.spec.split
        tested, shown = align.tested_pictures(split), []
        for subject in self.subjects:
            recording = align.source(member.cell.variant).open(subject)[split]
            rows = member.pictures(split).rows(recording.image_ids)
            rows = rows[rows >= 0]
            shown.append(rows[tested.are_unseen(subject, rows, f"{align.folder.path}")])
        shared = reduce(np.intersect1d, shown)
        if not len(shared):
            raise BrainhiveError("the subjects were shown no picture in common", "explain each: --subjects")
        return np.asarray(shared, np.int64)

    def left_out(self) -> dict[str, str]:
        """List what cannot be measured of the first subject, and why, as far as the recording says it."""
        cell, subject = self.pairs[0]
        selection = self.reader(cell, subject, torch.device("cpu")).selection
        of_sensors = bool(selection.channels)
        what, idle = ("sensors", OF_VOXELS) if of_sensors else ("voxels", OF_SENSORS)
        missing = {name: f"the signals are of {what}" for name in self.analyses_of(idle)}
        try:
            refuse_unknown_whitening(selection.recording)
        except BrainhiveError as error:
            missing |= dict.fromkeys(self.analyses_of({"sensors"}), error.in_one_line)
        return missing

    @property
    def protocol(self) -> str:
        """The way of measuring, with all that a reader must know."""
        align = self.align
        words = [align.mode, align.dataset.name, align.variant]
        words += [f"zero-shot from {align.origin}"] if align.tests_new_subjects else []
        words += [f"head {self.spec.head}"] if self.spec.head else []
        words += describe_signals(align.set_up(self.spec.split))
        return extend_protocol(", ".join(filter(None, words)), align.caveats(self.spec.split))

    @property
    def pinned(self) -> Recipe:
        """The recipe whose fingerprint names the run, and what is known by its path alone."""
        root = self.recipe.paths.under_home("runs") / "train-align"
        name = runs.reference(self.align.folder, root, self.align.variant)
        return self.recipe.model_copy(update={"align_run": name}).holding(self.align.digests)

    @property
    def control(self) -> Any:
        """The recipe that trains the same cells on shuffled labels, below the runs of explain."""
        made: Any = self.align.recipe
        paths = self.recipe.paths.model_copy(update={"runs": f"{self.recipe.paths.runs}/explain/controls"})
        train = made.train.model_copy(update={"shuffled_labels": True})
        return made.model_copy(update={"paths": paths, "train": train, "run": self.recipe.run})

    def opened_control(self, folder: Path) -> AlignRun:
        """Open the trained control, tested on the same subjects."""
        return find(str(folder), self.control.paths, self.recipe.dataset, self.recipe.subjects)

    @staticmethod
    def part(cell: Cell | None, subject: int) -> str:
        """Name the file that keeps what was found of a cell and subject, or of a subject's signals."""
        return f"parts/{'signals' if cell is None else cell.name}/sub-{subject:02d}.npz"
