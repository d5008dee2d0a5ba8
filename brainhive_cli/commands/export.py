"""export: a brain model as one file that needs torch alone, and what the file takes and
gives.
"""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from brainhive_cli.core import console, weights
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.key_types import NameList, OneRun, split_commas
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.core.recipe import TrainedRunRecipe
from brainhive_cli.core.tables import Table
from brainhive_cli.data.signals.spaces import Voxels, axis_lists
from brainhive_cli.measurement import neuralbench
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.references import choose_cell
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.portable import (
    Mapping,
    PortableModel,
    save_program,
)
from brainhive_cli.training.alignment.trained.run import open_model

FILE, CONTRACT, SCORES = "model.pt2", "model.json", "neuralbench.json"
GALLERY = "gallery.pt"
SUBMISSION = '''"""A brain model of Brainhive, which needs torch alone."""

import json
from pathlib import Path

import benchmark_utils  # noqa: F401
import torch
from compet_core.base_solver import CompetSolver
from torch.export.passes import move_to_device_pass


class Model:
    """Predicts embeddings [B, D] of signals [B, C, T]."""

    def __init__(self, module, rows):
        self.module, self.rows = module, rows

    def predict(self, X):
        with torch.no_grad():
            return self.module(torch.as_tensor(X)[:, self.rows].float())


class Solver(CompetSolver):
    """Opens the exported file, next to its contract."""

    name = "brainhive"

    def load_model(self, meta):
        folder = Path(meta["submission_dir"])
        takes = json.loads((folder / "model.json").read_text("utf-8"))["input"]
        samples, rate_hz = takes["shape"][2], takes["rate_hz"]
        if (meta["sfreq"], meta["n_times"]) != (rate_hz, samples):
            raise ValueError(f"the model takes {samples} samples at {rate_hz:g} Hz")
        program = torch.export.load(folder / "model.pt2")
        program = move_to_device_pass(program, str(meta["device"]))
        names = [name.lower() for name in meta["ch_names"]]
        rows = [names.index(name.lower()) for name in takes["channels"]]
        return Model(program.module(), rows)
'''
"""Form of the EEG Foundation Challenge 2026 (benchopt): `load_model(meta)` of a
CompetSolver, and `predict`.
"""


class Recipe(TrainedRunRecipe):
    """Recipe of export: the model, and the signals that the file takes."""

    can_share_work = False

    align_run: OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; default: the "
        "newest run (key: run)",
    )
    cell: str = Field("", description="cell of the run; default: the only one")
    subject: int | None = Field(
        None,
        description="whose signals the file takes; default: the only subject that the "
        "cell is tested on; of several, somebody whom the model does not know",
    )

    # the signals that the file takes, as far as they differ from the model's
    channels: NameList | None = Field(
        None, description="names of the channels, in order; default: the model's"
    )
    channel_mapping: Mapping = Field(
        "none",
        description="channels of the model that are not named: none refuses them, "
        "spline interpolates EEG between those that are",
    )
    rate_hz: float | None = Field(
        None, gt=0, description="sampling rate; default: the model's"
    )
    window_ms: Annotated[tuple[float, float] | None, BeforeValidator(split_commas)] = (
        Field(
            None,
            description="start and stop after stimulus onset, ms; default: the model's",
        )
    )

    # the files
    to: str = Field("", description="folder for the files; default: exports/RUN/CELL")
    scores: bool = Field(
        False,
        description="also write neuralbench.json: how well single test trials of the "
        "cell's subjects are decoded, in NeuralBench's protocol and names",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the model."""

    def look() -> list[Input]:
        _open(recipe)
        return [Input(recipe.align_run or "the newest run")]

    return collect(look)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Write the model, read it back, and compare it with the model.

    Raises:
        BrainhiveError: if the model cannot take such signals, its backbone cannot be
            exported, or tokens differ.
    """
    trained = _open(recipe)
    aligner = aligners.load(trained.path)
    tested = trained.cell.tested_on
    subject = tested[0] if len(tested) == 1 else 0
    unit = aligner.layout.spec.unit
    takes = recipe.channels, recipe.rate_hz, recipe.window_ms, recipe.channel_mapping
    normaliser = trained.find_normaliser(subject, "test")
    module = PortableModel(aligner, subject, normaliser, *takes)
    to = Path(recipe.to or f"exports/{trained.run.label}/{trained.cell.name}")
    with console.progress(f"exporting {to.name}"), atomic_write(to / FILE) as part:
        shape, difference = save_program(module, part)

    # the contract: what the file takes and gives, and what the model's folder says
    given: dict[str, Any] = {
        "shape": ["batch", *module.example.shape[1:]],
        "channels": module.names,
        "rate_hz": module.rate_hz,
        "window_ms": module.window_ms,
        "unit": trained.recorded_unit(subject) if module.is_whitening else unit,
        "subject": subject,
    }
    if not module.names:
        given["voxels"] = _describe_voxels(trained, subject)
    contract = {
        "input": given,
        "output": {"shape": ["batch", *shape], "largest_difference": difference},
        "model": aligner.layout.as_dict(),
        "caveats": aligner.learned.caveats,
        "versions": library_versions(),
    }
    written = {"submission.py": SUBMISSION, CONTRACT: json.dumps(contract, indent=2)}
    if recipe.scores:
        written[SCORES] = json.dumps(_score(trained), indent=2)
    for file_name, text in written.items():
        with atomic_write(to / file_name) as part:
            part.write_text(text, "utf-8")
    # vectors of the test pictures, where their embeddings are here
    with suppress(MissingData):
        pictures, listed = trained.pictures("test"), trained.rows("test")
        vectors = trained.images("test", listed)
        gallery = {"pictures": [*pictures.image_ids[listed]], "vectors": vectors}
        with atomic_write(to / GALLERY) as part:
            part.write_bytes(weights.serialise(partial(torch.save, gallery)))
    rows = [(name, str(value)) for name, value in given.items()]
    table = Table(f"Exported {to.name}", ("signals", "value"), rows)
    return Result(to, (table,), details=contract)


def _open(recipe: Recipe) -> TrainedModel:
    """Open the model of the cell.

    Raises:
        RecipeError: if there is no such cell, or several could be meant.
    """
    subjects = None if recipe.subject is None else [recipe.subject]
    run = open_model(recipe.align_run, recipe.paths, subjects=subjects)
    models = {model.cell.name: model for model in run.models}
    return choose_cell(models, recipe.cell, run.name)


def _describe_voxels(trained: TrainedModel, subject: int) -> dict[str, Any]:
    """Describe the voxels that a model reads, in their order, as far as a store says
    it.
    """
    if not trained.source.path(subject).is_file():
        return {}
    recording = next(iter(trained.source.open(subject).splits.values()))
    space = trained.source.select(recording, trained.run.name).space
    assert isinstance(space, Voxels)
    lists = axis_lists(space).items()
    described = {name: np.asarray(values).tolist() for name, values in lists}
    if space.grid:
        affine = space.grid.affine.tolist()
        described |= {"shape": [*space.grid.shape], "affine": affine}
    return described


def _score(trained: TrainedModel) -> dict[str, Any]:
    """Decode each test trial of a cell's subjects, and score them as NeuralBench
    does.
    """
    rows = trained.rows("test")
    tokens = []
    shown = []
    people = []
    for subject in trained.cell.tested_on:
        trials = trained.trials(subject, "test")
        singles = torch.from_numpy(trials.singles[trials.is_there])  # [n, C, T]
        tokens.append(trained.encode(trials, singles))
        picture = np.searchsorted(rows, trials.stimulus).repeat(trials.counts)
        shown.append(torch.from_numpy(picture))
        people.append(torch.full((len(picture),), subject))
    images = trained.images("test", rows)
    return {
        "device": "eeg",
        "task": "image",
        "brain_model_name": trained.layout.backbone["kind"],
        "seed": trained.cell.seed,
        "n_total_params": sum(p.numel() for p in trained.module.backbone.parameters()),
        **neuralbench.score(images, *map(torch.cat, (tokens, shown, people))),
    }
