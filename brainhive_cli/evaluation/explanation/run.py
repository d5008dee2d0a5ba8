"""Run of explain: each cell and subject, then all subjects together."""

from collections.abc import Iterator
from functools import cached_property

from brainhive_cli.core.base import console
from brainhive_cli.core.runs import CellStage, Launch, OpenRun, RunJob, Summary, weights
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
from brainhive_cli.training.alignment import Cell


class ExplanationRun(Job, RunJob):
    """Run of explain, which analyses models and signals, or decodes held-out trials.

    1. `stages` stores the profiles of each cell and subject in a file.
    2. `summarise` averages, tests and draws them, or decodes held-out trials.
    """

    command = "explain"
    result_folders = (MAPS,)

    def check(self) -> None:
        """Raise an error if models, signals and embeddings do not fit each other."""
        super().check()
        if self.align.dataset.holdout.divides_train:
            check_folds(self)

    @cached_property
    def parts(self) -> dict[str, tuple[Cell | None, int]]:
        """Cell and subject of each profile file. Signals have None as the cell."""
        # held-out trials of all folds are decoded together
        if self.align.dataset.holdout.divides_train:
            return {}
        parts: dict[str, tuple[Cell | None, int]] = {}
        if MODEL_ANALYSES.keys() & self.recipe.analyses:
            for subject, cells in self.subjects.items():
                for cell in cells:
                    parts[_name_part(cell.name, subject)] = (cell, subject)
        if "encoding" in self.recipe.analyses:
            for subject in self.subjects:
                parts[_name_part("signals", subject)] = (None, subject)
        return parts

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Measure the profiles of each cell, and of the signals of each subject."""
        if not self.parts:
            return
        device = run.launch.device

        def explain(name: str, launch: Launch) -> SubjectProfiles:
            cell, subject = self.parts[name]
            # all cells of a subject have the same signals
            first_cell = self.subjects[subject][0]
            reader = self.open_reader(cell or first_cell, subject, device)
            if cell is None:
                return explain_signals(reader, self.levels, self.recipe)
            return explain_model(reader, self.recipe)

        files = {name: name for name in self.parts}
        yield CellStage("explaining models", files, explain)

    @console.progress("explaining all subjects together")
    def summarise(self, run: OpenRun) -> Summary:
        """Summarise the profiles over all subjects, or decode held-out trials."""
        if self.align.dataset.holdout.divides_train:
            return explain_trials(self)

        readers = []
        for subject, cells in self.subjects.items():
            readers.append(self.open_reader(cells[0], subject, run.launch.device))
        profiles = {}
        for name, cell_and_subject in self.parts.items():
            profiles[cell_and_subject] = weights.load_cell(
                run.folder.path / name, SubjectProfiles, Profile, Axis
            )
        return conclude(self, run.folder, readers, profiles)


def _name_part(folder: str, subject: int) -> str:
    """Name the file of a subject's profiles in a folder below `parts`."""
    return f"parts/{folder}/sub-{subject:02d}.safetensors"
