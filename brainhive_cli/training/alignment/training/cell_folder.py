"""Files that the training of a cell keeps in the folder of its run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from brainhive_cli.core import console
from brainhive_cli.core.device_memory import read_peak_bytes, reset_peak
from brainhive_cli.core.errors import is_asked_to_stop, raise_if_asked_to_stop
from brainhive_cli.core.facts import CellFacts, TrainingFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, Metric, index_by_name
from brainhive_cli.core.runs import METRICS_FILE, RunFolder
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.terms import Term
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.loop import fit, is_closed_form
from brainhive_cli.training.alignment.training.optimisation import StateContent

CHECKPOINT_S = 60.0
"""Least time between two checkpoints of a cell; shorter cells start again."""
OnEpoch = Callable[[dict[str, Any]], None]
"""Is called after each epoch with cell, epoch, epochs, loss, validation_top1,
samples_per_s.
"""


def train_cell(
    name: str,
    seed: int,
    layout: Layout,
    data: CellData,
    terms: Sequence[Term],
    train: Train,
    folder: RunFolder,
    launch: Launch,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train one cell to its end, continuing from its checkpoint, and write model and
    metrics.

    Args:
        name: The cell's, in file names and events.
        seed: Decides all that is random in training.
        layout: Architecture of the aligner.
        data: What it learns from.
        terms: The loss.
        train: Optimisation and selection.
        folder: Where model, metrics and checkpoint go.
        launch: The processes that share each batch.
        on_epoch: Called after each epoch, in the main process, with what the run's log
            has of it.
    """
    with console.progress(f"training {name}", 0, is_of_item=True) as bar:
        cell = CellFolder(name, folder, launch, on_epoch, bar)
        callbacks = cell if launch.is_main else None
        if callbacks is None and is_closed_form(layout):
            return  # one process fits alone
        fit(
            layout,
            data,
            terms,
            train,
            seed=seed,
            checkpoint=cell.checkpoint,
            callbacks=callbacks,
            launch=launch,
        )


@dataclass
class CellFolder:
    """Callbacks that keep the log, checkpoint, model and metrics of a cell in the
    folder of its run.

    Attributes:
        name: The cell's.
        folder: Of the run.
        launch: The processes that train the cell; one of them writes.
        on_epoch: Called after each epoch with what the log has of it.
        bar: Counts the steps.
    """

    name: str
    folder: RunFolder
    launch: Launch
    on_epoch: OnEpoch | None
    bar: console.Bar

    def __post_init__(self) -> None:
        """Open the checkpoint, and begin to measure time and memory."""
        self.score = ""
        self.checkpoint = Checkpoint(self.folder.checkpoint_path(self.name))
        self.started_s = self.saved_s = time.monotonic()
        reset_peak(self.launch.device)

    def at_start(self, steps: int) -> None:
        """Count the steps that are to be done."""
        self.bar.expect(steps)

    def after_step(self, content: Callable[[], StateContent]) -> None:
        """Count the step, and write a checkpoint once a minute, and before the process
        is stopped.

        Args:
            content: Makes the checkpoint that training continues from.
        """
        self.bar.advance(1, self.score)
        if time.monotonic() - self.saved_s > CHECKPOINT_S or is_asked_to_stop():
            self.checkpoint.save(content())
            self.saved_s = time.monotonic()
        raise_if_asked_to_stop()

    def after_epoch(self, event: StateContent) -> None:
        """Write a line of the log.

        Args:
            event: `epoch`, from 0, `epochs`, `loss`, `validation_top1` and
                `samples_per_s`.
        """
        event = {"cell": self.name, **event}
        self.folder.log(**event)
        self.score = (
            f"epoch {event['epoch'] + 1}/{event['epochs']}, loss {event['loss']:.3f}"
        )
        if (top1 := event["validation_top1"]) is not None:
            self.score += f", validation top-1 {top1:.3f}"
        if self.on_epoch is not None:
            self.on_epoch(event)

    def at_end(self, aligner: Aligner, epoch: int, metrics: Sequence[Metric]) -> None:
        """Write model and metrics of the selected epoch, and what it took since it
        began or went on.

        Args:
            aligner: The model.
            epoch: The selected epoch, counted from 1.
            metrics: Of the held-out training pictures; none where none is held out.
        """
        # the model folder, written at once
        name, caveats = self.name, aligner.learned.caveats
        self.folder.replace(f"cells/{name}/model", aligner.save)

        # time, memory and size, then the metrics file, which marks the cell as finished
        took = {
            "seconds": round(time.monotonic() - self.started_s, 3),
            "peak_memory_bytes": read_peak_bytes(self.launch.device),
            "parameters": sum(parameter.numel() for parameter in aligner.parameters()),
        }
        selection = aligner.learned.selection
        cell = CellFacts(epoch=epoch, selected_on=selection, caveats=caveats, took=took)
        facts = TrainingFacts(caveats=caveats, cells={name: cell})
        scopes = {name: index_by_name(metrics)} if metrics else {}
        self.folder.write_json(
            f"cells/{name}/{METRICS_FILE}", Measurements(scopes, facts=facts).as_dict()
        )
        self.checkpoint.remove()
