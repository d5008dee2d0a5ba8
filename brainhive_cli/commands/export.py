"""export: a brain model as a file that needs only PyTorch, with its description."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from brainhive_cli.core.base import Line, MissingData, Table, console
from brainhive_cli.core.files import Input, atomic_write, collect_inputs
from brainhive_cli.core.recipes import NameList, OneRunRecipe, flag_field, split_commas
from brainhive_cli.core.runs import Launch, Result, library_versions, weights
from brainhive_cli.measurement import neuralbench
from brainhive_cli.training.alignment import choose_cell, model as aligners
from brainhive_cli.training.alignment.trained import (
    MappingKind,
    PortableModel,
    TestedPerson,
    TestSet,
    TrainedModel,
    open_model,
    open_targets,
    open_test_set,
    save_program,
)

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
"""Text of `submission.py`, in the form of the EEG Foundation Challenge 2026."""


class Recipe(OneRunRecipe):
    """Recipe of export, with the model and the signals that the file takes."""

    can_share_work = False
    skips_finished = False
    summary = (
        "Write a trained model to a file that needs only PyTorch, for other programs."
    )
    example = "RUN --rate 256 --window -200,1000"

    cell: str = Field("", description="cell of the run; default: the only one")
    subject: int | None = Field(
        None,
        description="subject whose signals the file takes; default: the test subject "
        "of the cell, or an unknown person if there are several test subjects",
    )

    # signals that the file takes, if they differ from the signals of the training
    channels: NameList | None = flag_field(
        None, "names of the channels, in order; default: the model's"
    )
    channel_mapping: MappingKind = Field(
        "none",
        description="channels of the model that are missing in `channels`: none is an "
        "error, spline interpolates EEG from the other channels",
    )
    rate_hz: float | None = flag_field(
        None,
        "sampling rate of the signals in Hz; default: the model's",
        flag="--rate",
        gt=0,
    )
    window_ms: Annotated[tuple[float, float] | None, BeforeValidator(split_commas)] = (
        flag_field(
            None,
            "start and stop after stimulus onset, in ms; default: the model's",
            flag="--window",
        )
    )

    # files to write
    to: str = Field("", description="folder for the files; default: exports/RUN/CELL")
    scores: bool = Field(
        False,
        description="also write neuralbench.json: scores of single test trials of the "
        "cell's subjects, with the protocol and names of NeuralBench",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """Return the run of the model, with an error if the model cannot be opened."""

    def list_run() -> list[Input]:
        _open_trained_model(recipe)
        return [Input(recipe.align_run or "the newest run")]

    return collect_inputs(list_run)


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Export a brain model to a folder that can be used without Brainhive.

    - `model.pt2`: the model
    - `model.json`: the description of its input and output
    - `submission.py`: code for the EEG Foundation Challenge
    - `gallery.pt`: embeddings of the test pictures, if they are stored
    - `neuralbench.json`: scores, if the recipe asks for them

    Args:
        recipe: Settings of the command.
        launch: Processes and device. They are not used.
        force: Not used, because existing files are always replaced.

    Returns:
        A table of the signals that the model takes.

    Raises:
        BrainhiveError: if the model cannot take the signals of the recipe, if its
            backbone cannot be exported, or if the file predicts other vectors.
    """
    trained, tests = _open_trained_model(recipe)
    aligner = aligners.load(trained.path)

    # subject 0 is an unknown person
    test_subjects = trained.cell.tested_on
    subject = test_subjects[0] if len(test_subjects) == 1 else 0

    person = tests.open_person(trained, subject)

    # the module prepares signals and applies the model
    module = PortableModel(
        aligner,
        subject,
        normaliser=person.normaliser,
        channels=recipe.channels,
        rate_hz=recipe.rate_hz,
        window_ms=recipe.window_ms,
        mapping=recipe.channel_mapping,
    )
    folder = Path(recipe.to or f"exports/{tests.run.file_name}/{trained.cell.name}")
    with (
        console.progress(f"exporting {folder.name}"),
        # File of the model, in the format of `torch.export`.
        atomic_write(folder / "model.pt2") as new_file,
    ):
        output_shape, largest_difference = save_program(module, new_file)

    # describe the signals that the model takes
    unit = aligner.layout.spec.unit
    if module.is_whitening:
        unit = person.recorded_unit
    signal_facts: dict[str, Any] = {
        "shape": ["batch"] + list(module.example.shape[1:]),
        "channels": module.names,
        "rate_hz": module.rate_hz,
        "window_ms": module.window_ms,
        "unit": unit,
        "subject": subject,
    }
    if not module.names:
        signal_facts["voxels"] = _describe_voxels(person)

    # write the description, the submission and the scores
    contract = {
        "input": signal_facts,
        "output": {
            "shape": ["batch"] + output_shape,
            "largest_difference": largest_difference,
        },
        "model": aligner.layout.as_dict(),
        "caveats": aligner.learned.caveats,
        "versions": library_versions(),
    }
    # File that describes the input and the output of the model.
    texts = {"submission.py": SUBMISSION, "model.json": json.dumps(contract, indent=2)}
    if recipe.scores:
        scores = _score_single_trials(trained, tests)
        # File of the scores by the protocol of NeuralBench.
        texts["neuralbench.json"] = json.dumps(scores, indent=2)
    for file_name, text in texts.items():
        with atomic_write(folder / file_name) as new_file:
            new_file.write_text(text, "utf-8")

    # the gallery is left out if the embeddings of the test pictures are not stored
    with suppress(MissingData):
        # File of the test pictures, encoded as the vectors that the model predicts.
        _write_gallery(trained, tests, folder / "gallery.pt")

    rows = [(name, str(value)) for name, value in signal_facts.items()]
    table = Table(f"Exported {folder.name}", ("signals", "value"), rows)
    return Result(folder, (table,), details=contract)


def _open_trained_model(recipe: Recipe) -> tuple[TrainedModel, TestSet]:
    """Open the cell (trained model) that the recipe names, or else the only cell.

    Its test set is opened, too.

    Raises:
        RecipeError: if the run has no cell of this name, or if the recipe names no cell
            and the run has several.
    """
    subjects = None if recipe.subject is None else [recipe.subject]
    trained_run = open_model(recipe.align_run, recipe.paths, subjects=subjects)
    cells = {cell.name: cell for cell in trained_run.cells}
    run_name = trained_run.reference

    def write_choice(cell: str) -> Line:
        """Write the command line that exports a cell."""
        return Line("export", run_name, f"cell={cell}")

    cell = choose_cell(cells, recipe.cell, run_name, write_choice)
    return trained_run.open(cell), open_test_set(trained_run, "test")


def _write_gallery(trained: TrainedModel, tests: TestSet, file: Path) -> None:
    """Write the embeddings of the test pictures for retrieval.

    The PyTorch file holds a dict of `pictures` (image ids [M]) and `vectors`
    (embeddings [M, D]).

    Raises:
        MissingData: if the embeddings of the pictures are not stored.
    """
    rows = tests.find_rows("test", trained.cell.fold)  # [M]
    image_ids = list(tests.open_pictures("test").image_ids[rows])
    targets = open_targets(tests, trained, "test")
    vectors = trained.encode_pictures(targets, rows)
    gallery = {"pictures": image_ids, "vectors": vectors}
    with atomic_write(file) as new_file:
        new_file.write_bytes(weights.serialise(partial(torch.save, gallery)))


def _describe_voxels(person: TestedPerson) -> dict[str, Any]:
    """Describe the voxels that a model reads from the signals of a subject.

    Returns:
        Lists by name, with a value for each voxel, and the `shape` and `affine` of the
        volume if it is known. Empty if the subject has no stored signals.
    """
    if not person.is_prepared:
        return {}

    # all splits have the same voxels
    store = person.recordings.open_store(person.subject)
    recording = next(iter(store.splits.values()))
    space = person.recordings.select(recording, person.model.run_name).space

    description: dict[str, Any] = {}
    for name, values in space.list_axis_values().items():
        description[name] = np.asarray(values).tolist()
    if space.grid:
        description["shape"] = list(space.grid.shape)
        description["affine"] = space.grid.affine.tolist()
    return description


def _score_single_trials(trained: TrainedModel, tests: TestSet) -> dict[str, Any]:
    """Score predictions from single test trials by the protocol of NeuralBench.

    Returns:
        Scores and a description of the model, keyed by names of NeuralBench.
    """
    picture_rows = tests.find_rows("test", trained.cell.fold)  # [M], ascending
    prediction_blocks = []
    picture_blocks = []
    subject_blocks = []
    for subject in trained.cell.tested_on:
        trials = tests.open_person(trained, subject).trials
        signals = torch.from_numpy(trials.singles)  # [n, C, T]
        prediction_blocks.append(trained.encode(trials, signals))

        # index of each trial's picture among the M test pictures
        picture_indices = np.searchsorted(picture_rows, trials.stimulus)
        trial_pictures = torch.from_numpy(picture_indices.repeat(trials.counts))
        picture_blocks.append(trial_pictures)
        subject_blocks.append(torch.full_like(trial_pictures, subject))
    scores = neuralbench.score(
        targets=trained.encode_pictures(
            open_targets(tests, trained, "test"), picture_rows
        ),
        predictions=torch.cat(prediction_blocks),
        picture_rows=torch.cat(picture_blocks),
        subjects=torch.cat(subject_blocks),
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
