"""Runs (executions of commands) that are opened from their folders."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.arguments import (
    check_path,
    check_split,
    check_text,
    choose_subject,
)
from brainhive_cli.api.cards import (
    draw_result_card,
    find_page,
    list_first,
    state_result,
)

if TYPE_CHECKING:
    from brainhive_cli.core.base import Float32
    from brainhive_cli.core.results import Measurements
    from brainhive_cli.core.runs import Artifact, RunFolder
    from brainhive_cli.training.alignment import Aligner, Cell
    from brainhive_cli.training.alignment.trained import (
        TestSet,
        TrainedModel,
        TrainedModels,
    )


@dataclass(frozen=True)
class Predictions:
    """Predictions of a brain model for the signals of a subject and split.

    Attributes:
        image_ids: Image ids [N] of the seen pictures.
        heads: Predictions [N, *shape] by the name of the head (output of the model).
        texts: Lists of N captions by the name of the head. Other heads have no list.
        caveats: Texts on the limits of these predictions, such as "simulated".

    Examples:
        >>> predicted = api.open_run("TRAINING").predictions(subject=1, cell="CELL")
        >>> predicted.heads["token"].shape  # [N, D]
        >>> predicted.image_ids[0]
    """

    image_ids: list[str]
    heads: "dict[str, Float32]"
    texts: dict[str, list[str]]
    caveats: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return the number of pictures, and the shape of each head."""
        shapes = [f"{name} {list(head.shape)}" for name, head in self.heads.items()]
        outputs = ", ".join(shapes + list(self.texts))
        return f"<Predictions for {len(self.image_ids)} pictures: {outputs}>"


@dataclass(frozen=True)
class Run:
    """A finished run (one execution) of a command, read from its folder.

    Attributes:
        folder: Folder of the run.

    Examples:
        >>> trained = api.open_run("TRAINING")
        >>> [cell.name for cell in trained.cells]
        >>> predicted = trained.predictions(subject=1, cell="CELL")
        >>> model = trained.member("CELL")
        >>> tests = trained.open_test_set("CELL")  # its data, as evaluations use it
        >>> result = api.open_run("EVALUATION")
        >>> result.recipe()["gallery"]
        >>> [artifact.title for artifact in result.artifacts()]
        >>> result.page()
    """

    folder: "RunFolder"

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @cached_property
    def measurements(self) -> "Measurements":
        """Metrics, facts, missing values and values of single items of the run."""
        return self.folder.measurements()

    def metrics(self) -> list[dict[str, Any]]:
        """Return a row for each metric and scope, such as a subject or all subjects.

        A row has an interval, a chance level and a protocol. `pandas.DataFrame` makes a
        table of the rows.
        """
        return self.measurements.rows()

    def recipe(self) -> dict[str, Any]:
        """Read the settings of the run, with all defaults filled in."""
        return self.folder.recipe()

    def artifacts(self) -> "list[Artifact]":
        """Read the figures, media and tables that the run has written."""
        from brainhive_cli.core.runs import artifacts

        return artifacts.read(self.folder)

    def __repr__(self) -> str:
        """Return the command, the label and the name of the run."""
        label = f"{self.folder.label}, " if self.folder.label else ""
        return f"<Run of {self.folder.command}: {label}{self.name}>"

    def __str__(self) -> str:
        """Return the finding in words, with interval, chance level and caveats."""
        return state_result(self.measurements) or repr(self)

    def _repr_html_(self) -> str:
        """Return a card for a notebook: the finding, the main metrics and the page."""
        notes = []
        if (self.path / "cells").is_dir():
            names = list_first([cell.name for cell in self.cells])
            notes.append(f"Models (cells): {names}")
        page = find_page(self.folder)
        if not page:
            notes.append("The method page() of this run writes its page.")
        title = " · ".join(
            filter(None, [self.folder.command, self.folder.label, self.name])
        )
        return draw_result_card(title, self.measurements, notes, page)

    @property
    def name(self) -> str:
        """Name of the run, as `open_run` takes it."""
        return self.folder.name

    @property
    def finding(self) -> str:
        """Main result of the run in words. Empty if the run has no metric."""
        from brainhive_cli.reports.sentences.sentences import state_finding

        return state_finding(self.measurements)

    def page(self) -> Path:
        """Write the report page of the run into the folder `reports`.

        Returns:
            Path of the page. `IPython.display.IFrame(path, 900, 700)` shows it.
        """
        from brainhive_cli.api.commands import run

        return run("report", runs=[str(self.path)]).files["page"]

    @cached_property
    def cells(self) -> "list[Cell]":
        """Cells (trained models) of the run, with their subjects and seeds."""
        return self._align.cells

    def aligner(self, cell: str = "", device: str = "cpu") -> "Aligner":
        """Load the PyTorch module of a cell (a trained model of the run).

        Args:
            cell: Name of the cell, as in `cells`, or "" for the only cell.
            device: Device, such as `cuda:0`.

        Raises:
            BrainhiveError: if there is no such cell, or if `cell` is "" and there are
                several.
            DeviceError: if there is no such device.
        """
        return self.member(cell, device).module

    def predictions(
        self,
        subject: int | None = None,
        split: str = "test",
        cell: str = "",
        device: str = "cpu",
    ) -> Predictions:
        """Decode the signals of a subject, averaged over the trials of each picture.

        Args:
            subject: Number of the subject. None stands for the only test subject.
            split: Split of the data set, such as `test`. Pictures that the model was
                trained on are left out.
            cell: Name of the cell (trained model), or "" for the only cell.
            device: Device to compute on.

        Returns:
            Predictions for N pictures: an array [N, *shape] for each head (output of
            the model), captions, and the ids [N] of the pictures.
        """
        member = self.member(cell, device)
        tests = self.open_test_set(cell, split)
        subject = choose_subject(member, subject)
        trials = tests.open_person(member, subject).trials
        image_ids = list(tests.open_pictures(split).image_ids[trials.stimulus])
        decoded = member.decode(trials, image_ids)
        heads = {name: tensor.cpu().numpy() for name, tensor in decoded.tensors.items()}
        return Predictions(
            image_ids=image_ids,
            heads=heads,
            texts=decoded.texts,
            caveats=tests.caveats,
        )

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell (a trained model of the run), which encodes, decodes and ranks.

        Args:
            cell: Name of the cell, as in `cells`, or "" for the only cell.
            device: Device, such as `cuda:0`.

        Raises:
            BrainhiveError: if there is no such cell, or if `cell` is "" and there are
                several.
            DeviceError: if there is no such device.
        """
        from brainhive_cli.core.runs import open_device
        from brainhive_cli.training.alignment import choose_cell

        check_text(cell=cell)
        cell_by_name = {trained_cell.name: trained_cell for trained_cell in self.cells}
        trained_cell = choose_cell(cell_by_name, cell, self.path)
        return self._align.open(trained_cell, open_device(device))

    def open_test_set(self, cell: str = "", split: str = "test") -> "TestSet":
        """Open everything that a cell is tested on: pictures, signals and caveats.

        Args:
            cell: Name of the cell, as in `cells`, or "" for the only cell.
            split: Split of the data set, such as `test`.
        """
        from brainhive_cli.training.alignment.trained import test_set

        check_split(self._align.dataset, split)
        return test_set.open_test_set(self._align, split)

    @cached_property
    def _align(self) -> "TrainedModels":
        """The same run, opened with its trained models."""
        from brainhive_cli.core.base import RecipeError
        from brainhive_cli.training.alignment.trained import open_models

        if not (self.path / "cells").is_dir():
            raise RecipeError(f"{self.path} has no models", "open a run of train-align")
        return open_models(self.folder)


def open_run(name: str | Path) -> Run:
    """Open a finished run.

    Args:
        name: The run, as

            - the path of its folder, its name, its label, or the end of its name
            - `hub:owner/name[@revision]`, for a run on the hub, which is downloaded

    Raises:
        BrainhiveError: if there is no such run, or if several runs have this name.

    Examples:
        >>> result = api.open_run("EVALUATION")
        >>> print(result)
        >>> top1 = [row for row in result.metrics() if row["metric"] == "top1"]
    """
    from brainhive_cli.core.recipes import Paths
    from brainhive_cli.core.runs import run_folder as runs

    check_path(name=name)
    runs_folder = Paths().under_home("runs")
    return Run(runs.find(runs_folder, command=None, reference=str(name)))


def open_model(reference: str | Path, cell: str = "", device: str = "cpu") -> "Aligner":
    """Load a trained brain model as a PyTorch module.

    Args:
        reference: The model, as

            - a run of train-align, by name or path (see `open_run`)
            - the name of a recipe of train-align, for the newest run of the recipe
            - the path of a model folder
            - `hub:owner/name[@revision]`, for an uploaded run or model folder
        cell: Name of the cell (trained model), or "" for the only cell.
        device: Device, such as `cuda:0`.

    Returns:
        The model on this device.

    Raises:
        BrainhiveError: if there is no such model, or if `cell` is "" and there are
            several.
        DeviceError: if there is no such device.

    Examples:
        >>> model = api.open_model("TRAINING", cell="CELL")
        >>> model.layout.spec.names  # channels that the model reads
    """
    from brainhive_cli.core.recipes import Paths
    from brainhive_cli.core.runs import open_device
    from brainhive_cli.training.alignment import (
        find_model,
        find_reference,
        model as aligners,
    )

    check_path(reference=reference)
    check_text(cell=cell)
    model_folder = find_model(find_reference(str(reference), Paths()), cell)
    return aligners.load(model_folder).to(open_device(device))
