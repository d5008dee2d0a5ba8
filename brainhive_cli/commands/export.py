"""export: a brain model as a file that needs only PyTorch, with its description."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from brainhive_cli.core import console, weights
from brainhive_cli.core.command import Input, Result, collect_inputs
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

MODEL_FILE = "model.pt2"
CONTRACT_FILE = "model.json"
SCORES_FILE = "neuralbench.json"
GALLERY_FILE = "gallery.pt"
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
"""Text of `submission.py`, in the form of the EEG Foundation Challenge 2026 (benchopt).
A subclass of CompetSolver has `load_model(meta)`, which returns a model with `predict`.
"""


class Recipe(TrainedRunRecipe):
    """Recipe of export: the model, and the signals that it will receive."""

    can_share_work = False

    align_run: OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; default: the "
        "newest run (key: run)",
    )
    cell: str = Field("", description="cell of the run; default: the only one")
    subject: int | None = Field(
        None,
        description="subject whose signals the file takes; default: the test subject "
        "of the cell, or an unknown person if there are several test subjects",
    )

    # the signals that the file takes, where they differ from the model's
    channels: NameList | None = Field(
        None, description="names of the channels, in order; default: the model's"
    )
    channel_mapping: Mapping = Field(
        "none",
        description="channels of the model that are missing in `channels`: none is an "
        "error, spline interpolates EEG from the other channels",
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
        description="also write neuralbench.json: scores of single test trials of the "
        "cell's subjects, with the protocol and names of NeuralBench",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the run of the model, or why the model cannot be opened."""

    def list_run() -> list[Input]:
        _open_trained_model(recipe)
        return [Input(recipe.align_run or "the newest run")]

    return collect_inputs(list_run)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Write the model to a file, and check that the file gives the same tokens.

    Args:
        recipe: Settings of the command.
        launch: Processes and device, which are not used.
        again: Unused, because files are replaced every time.

    Returns:
        A table of the signals that the file takes. The folder has the model, its
        description (`model.json`), `submission.py`, the tokens of the test pictures if
        their embeddings are stored, and scores if the recipe asks for them.

    Raises:
        BrainhiveError: if the model cannot take the signals of the recipe, if its
            backbone cannot be exported, or if the tokens differ.
    """
    trained = _open_trained_model(recipe)
    aligner = aligners.load(trained.path)

    # with several test subjects, the file is for a person whom the model does not know
    test_subjects = trained.cell.tested_on
    subject = test_subjects[0] if len(test_subjects) == 1 else 0
    module = PortableModel(
        aligner,
        subject,
        normaliser=trained.find_normaliser(subject, "test"),
        channels=recipe.channels,
        rate_hz=recipe.rate_hz,
        window_ms=recipe.window_ms,
        mapping=recipe.channel_mapping,
    )
    folder = Path(recipe.to or f"exports/{trained.run.label}/{trained.cell.name}")
    with (
        console.progress(f"exporting {folder.name}"),
        atomic_write(folder / MODEL_FILE) as unfinished,
    ):
        output_shape, largest_difference = save_program(module, unfinished)

    # describe the signals that the file takes
    unit = aligner.layout.spec.unit
    if module.is_whitening:
        unit = trained.recorded_unit(subject)
    signal_facts: dict[str, Any] = {
        "shape": ["batch", *module.example.shape[1:]],
        "channels": module.names,
        "rate_hz": module.rate_hz,
        "window_ms": module.window_ms,
        "unit": unit,
        "subject": subject,
    }
    if not module.names:
        signal_facts["voxels"] = _describe_voxels(trained, subject)

    # write the description, the submission and the scores
    contract = {
        "input": signal_facts,
        "output": {
            "shape": ["batch", *output_shape],
            "largest_difference": largest_difference,
        },
        "model": aligner.layout.as_dict(),
        "caveats": aligner.learned.caveats,
        "versions": library_versions(),
    }
    texts = {"submission.py": SUBMISSION, CONTRACT_FILE: json.dumps(contract, indent=2)}
    if recipe.scores:
        scores = _score_single_trials(trained)
        texts[SCORES_FILE] = json.dumps(scores, indent=2)
    for file_name, text in texts.items():
        with atomic_write(folder / file_name) as unfinished:
            unfinished.write_text(text, "utf-8")

    # the gallery is optional: the embeddings of the pictures may not be here
    with suppress(MissingData):
        _write_gallery(trained, folder / GALLERY_FILE)

    rows = [(name, str(value)) for name, value in signal_facts.items()]
    table = Table(f"Exported {folder.name}", ("signals", "value"), rows)
    return Result(folder, (table,), details=contract)


def _open_trained_model(recipe: Recipe) -> TrainedModel:
    """Open the model of the cell that the recipe names.

    Raises:
        RecipeError: if there is no such cell, or if the run has several cells and the
            recipe names none.
    """
    subjects = None if recipe.subject is None else [recipe.subject]
    trained_run = open_model(recipe.align_run, recipe.paths, subjects=subjects)
    models = {model.cell.name: model for model in trained_run.models}
    return choose_cell(models, recipe.cell, trained_run.name)


def _write_gallery(trained: TrainedModel, file: Path) -> None:
    """Write the image ids [M] and tokens [M, D] of the test pictures.

    Raises:
        MissingData: if the embeddings of the pictures are not stored.
    """
    rows = trained.rows("test")
    image_ids = list(trained.pictures("test").image_ids[rows])
    gallery = {"pictures": image_ids, "vectors": trained.images("test", rows)}
    with atomic_write(file) as unfinished:
        unfinished.write_bytes(weights.serialise(partial(torch.save, gallery)))


def _describe_voxels(trained: TrainedModel, subject: int) -> dict[str, Any]:
    """Describe the voxels that a model reads, in their order.

    Returns:
        Lists with a value for each voxel, keyed by name, and the shape and affine of
        the volume if the store has them. Empty if the subject has no store.
    """
    if not trained.source.path(subject).is_file():
        return {}
    recording = next(iter(trained.source.open(subject).splits.values()))
    space = trained.source.select(recording, trained.run.name).space
    assert isinstance(space, Voxels)
    description: dict[str, Any] = {}
    for name, values in axis_lists(space).items():
        description[name] = np.asarray(values).tolist()
    if space.grid:
        description["shape"] = list(space.grid.shape)
        description["affine"] = space.grid.affine.tolist()
    return description


def _score_single_trials(trained: TrainedModel) -> dict[str, Any]:
    """Decode each single test trial, and score the tokens as NeuralBench does.

    Args:
        trained: Model, which is tested on all test subjects of its cell.

    Returns:
        Fields of a result of NeuralBench, by name.
    """
    rows = trained.rows("test")
    token_blocks = []
    picture_blocks = []
    subject_blocks = []
    for subject in trained.cell.tested_on:
        trials = trained.trials(subject, "test")
        signals = torch.from_numpy(trials.singles[trials.is_there])  # [n, C, T]
        token_blocks.append(trained.encode(trials, signals))
        picture_indices = np.searchsorted(rows, trials.stimulus)
        trial_pictures = torch.from_numpy(picture_indices.repeat(trials.counts))
        picture_blocks.append(trial_pictures)
        subject_blocks.append(torch.full_like(trial_pictures, subject))
    scores = neuralbench.score(
        trained.images("test", rows),
        torch.cat(token_blocks),
        torch.cat(picture_blocks),
        torch.cat(subject_blocks),
    )
    parameters = trained.module.backbone.parameters()
    header = {
        "device": "eeg",
        "task": "image",
        "brain_model_name": trained.layout.backbone["kind"],
        "seed": trained.cell.seed,
        "n_total_params": sum(parameter.numel() for parameter in parameters),
    }
    return header | scores
