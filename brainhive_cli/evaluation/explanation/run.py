"""The run of explain: a part for each cell and subject, then all subjects together."""

from collections.abc import Iterator
from functools import cached_property

from brainhive_cli.core import artifacts, console, weights
from brainhive_cli.core.command import Result
from brainhive_cli.core.errors import Line
from brainhive_cli.core.jobs import CellStage, OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.explanation.conclusion import MAPS, conclude
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.profiles import Axis, Profile, SubjectProfiles
from brainhive_cli.evaluation.explanation.recipe import MODEL_ANALYSES
from brainhive_cli.evaluation.explanation.trial_decoding import (
    check_folds,
    explain_trials,
)
from brainhive_cli.training.alignment.cells import Cell


class ExplanationRun(Job, RunJob):
    """Run of explain: profiles of models and signals, or held-out trials decoded."""

    def check(self) -> None:
        """Refuse what does not fit, in each fold where trials are held out."""
        super().check()
        if self.align.dataset.holdout.divides_train:
            check_folds(self)

    @cached_property
    def parts(self) -> dict[str, tuple[Cell | None, int]]:
        """The cell and subject of each part, by its file; signals have no cell."""
        # held-out trials are decoded fold by fold, all in one part
        if self.align.dataset.holdout.divides_train:
            return {}
        listed: list[tuple[Cell | None, int]] = []
        if MODEL_ANALYSES.keys() & self.recipe.analyses:
            for subject, cells in self.subjects.items():
                listed += [(cell, subject) for cell in cells]
        if "encoding" in self.recipe.analyses:
            listed += [(None, subject) for subject in self.subjects]
        parts = {}
        for cell, subject in listed:
            folder = cell.name if cell else "signals"
            parts[f"parts/{folder}/sub-{subject:02d}.safetensors"] = cell, subject
        return parts

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Explain each cell and subject, and the signals of each subject."""
        if not self.parts:
            return
        device = run.launch.device
        units = self.find_units(device)

        def explain(name: str, launch: Launch) -> SubjectProfiles:
            cell, subject = self.parts[name]
            # signals are the same in all cells of a subject: the first cell reads them
            shown = cell or self.subjects[subject][0]
            reader = self.open_reader(shown, subject, units, device)
            if cell is None:
                return explain_signals(reader, self.levels, self.recipe)
            return explain_model(reader, self.recipe)

        files = {name: name for name in self.parts}
        yield CellStage("explaining cells and subjects", files, explain)

    @console.progress("explaining all subjects together")
    def summarise(self, run: OpenRun) -> Summary:
        """Decode held-out trials, or put the parts of all subjects together."""
        folder, device = run.folder, run.launch.device
        if self.align.dataset.holdout.divides_train:
            return explain_trials(self)
        units = self.find_units(device)
        readers = [
            self.open_reader(cells[0], subject, units, device)
            for subject, cells in self.subjects.items()
        ]
        loaded = {
            part: weights.load_cell(folder.path / name, SubjectProfiles, Profile, Axis)
            for name, part in self.parts.items()
        }
        levels = self.levels.get(self.recipe.split, {})
        return conclude(self, folder, readers, loaded, levels)

    def describe(self, run: OpenRun) -> Result:
        """Show the tables, and the maps of voxels and sensors."""
        folder = run.folder
        maps = folder.path / MAPS
        return Result(
            folder.path,
            artifacts.read_tables(folder),
            folder.measurements(),
            {"maps": maps} if maps.is_dir() else {},
            Line("report", folder.path),
        )
