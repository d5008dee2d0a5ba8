"""Training of a cell that writes its files into the folder of its run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from brainhive_cli.core.base import (
    console,
    is_asked_to_stop,
    raise_if_asked_to_stop,
    read_peak_bytes,
    reset_peak,
)
from brainhive_cli.core.results import CellFacts, Measurements, Metric, index_by_name
from brainhive_cli.core.runs import METRICS_FILE, Checkpoint, Launch, RunFolder
from brainhive_cli.training.alignment import Aligner, Layout, Term, Train, TrainingFacts
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.loop import (
    Callbacks,
    fit,
    is_closed_form,
)
from brainhive_cli.training.alignment.training.optimisation import StateContent

CHECKPOINT_INTERVAL_S = 60.0
"""Least time between two checkpoints of a cell. A shorter training starts again."""
OnEpoch = Callable[[dict[str, Any]], None]
"""Function that is called after each epoch with cell, epoch, epochs, loss,
validation_top1 and samples_per_s.
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
    """Train a cell, a model of a run, and write its weights and metrics.

    Training continues from the checkpoint of the cell, if it exists.

    Args:
        name: Name of the cell.
        seed: Seed of all random numbers of the training.
        layout: Architecture of the model.
        data: Signals and targets of the training.
        terms: Terms of the loss.
        train: Settings of the optimisation and of the selection of an epoch.
        folder: Folder of the run.
        launch: Processes that share each batch.
        on_epoch: Function that is called in the main process after each epoch.
    """
    with console.progress(f"training {name}", 0, is_of_item=True) as bar:
        cell = CellFolder(name, folder, launch, on_epoch, bar)
        callbacks = cell if launch.is_main else None
        # the main process fits a closed form alone
        if callbacks is None and is_closed_form(layout):
            return
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
class CellFolder(Callbacks):
    """Callbacks that write the log, checkpoint, model and metrics of a cell.

    Attributes:
        name: Name of the cell.
        folder: Folder of the run.
        launch: Processes that train the cell. One of them writes.
        on_epoch: Function that is called after each epoch, or None.
        bar: Progress bar of the steps.
    """

    name: str
    folder: RunFolder
    launch: Launch
    on_epoch: OnEpoch | None
    bar: console.Bar

    def __post_init__(self) -> None:
        """Find the checkpoint, and start to measure time and memory."""
        self.description = ""
        self.checkpoint = Checkpoint(self.folder.checkpoint_path(self.name))
        self.started_s = time.monotonic()
        self.saved_s = self.started_s
        reset_peak(self.launch.device)

    def at_start(self, steps: int) -> None:
        """Set the number of steps of the progress bar."""
        self.bar.expect(steps)

    def after_step(self, make_checkpoint: Callable[[], StateContent]) -> None:
        """Count a step, and write a checkpoint once a minute or before stopping."""
        self.bar.advance(1, self.description)
        passed_s = time.monotonic() - self.saved_s
        if passed_s > CHECKPOINT_INTERVAL_S or is_asked_to_stop():
            self.checkpoint.save(make_checkpoint())
            self.saved_s = time.monotonic()
        raise_if_asked_to_stop()

    def after_epoch(self, event: StateContent) -> None:
        """Write the facts of an epoch into the log of the run."""
        event = {"cell": self.name, **event}
        self.folder.log(**event)
        self.description = (
            f"epoch {event['epoch'] + 1}/{event['epochs']}, loss {event['loss']:.3f}"
        )
        top1 = event["validation_top1"]
        if top1 is not None:
            self.description += f", validation top-1 {top1:.3f}"
        if self.on_epoch is not None:
            self.on_epoch(event)

    def at_end(self, aligner: Aligner, epoch: int, metrics: Sequence[Metric]) -> None:
        """Write the model and metrics of the selected epoch.

        The metrics file also holds time, memory and size. It marks the cell as
        finished.
        """
        self.folder.replace(f"cells/{self.name}/model", aligner.save)
        resources = {
            "seconds": round(time.monotonic() - self.started_s, 3),
            "peak_memory_bytes": read_peak_bytes(self.launch.device),
            "parameters": sum(parameter.numel() for parameter in aligner.parameters()),
        }
        history = aligner.learned
        cell_facts = CellFacts(
            epoch=epoch,
            selected_on=history.selection,
            caveats=history.caveats,
            took=resources,
        )
        facts = TrainingFacts(caveats=history.caveats, cells={self.name: cell_facts})
        scopes = {self.name: index_by_name(metrics)} if metrics else {}
        self.folder.write_json(
            f"cells/{self.name}/{METRICS_FILE}",
            Measurements(scopes, facts=facts).as_dict(),
        )
        self.checkpoint.remove()
