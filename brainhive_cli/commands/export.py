"""export: a brain model as one file that needs torch alone, and what the file takes and
gives.
"""

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from brainhive_cli.core import console, documents, hub
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.launch import Launch, library_versions
from brainhive_cli.core.recipe import Names, OneRun, TrainedRunRecipe, split
from brainhive_cli.core.tables import Table
from brainhive_cli.measurement import neuralbench
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.portable import (
    Mapping,
    PortableModel,
    Recorded,
    compare_tokens,
    save_program,
)
from brainhive_cli.training.alignment.references import find_model, find_reference
from brainhive_cli.training.alignment.trained import (
    DEFAULT_UNIT,
    TrainedModel,
    TrainedRun,
)

FILE, CONTRACT, SCORES = "model.pt2", "model.json", "neuralbench.json"
NO_STEPS = {"kind", "simulated", "keep_ms", "rate_hz"}
"""Keys of a preparation that users of the file need not follow."""
PICTURES_AT_ONCE = 20
"""Pictures whose trials are decoded at once: of THINGS-EEG2 1,600 trials."""
SUBMISSION = '''"""A brain model of Brainhive, which needs torch alone."""

import benchmark_utils  # noqa: F401
import torch
from compet_core.base_solver import CompetSolver
from torch.export.passes import move_to_device_pass

CHANNELS = {channels}


class Model:
    """Predicts embeddings [B, {width}] of signals [B, C, T]."""

    def __init__(self, module, rows):
        self.module, self.rows = module, rows

    def predict(self, X):
        with torch.no_grad():
            return self.module(torch.as_tensor(X)[:, self.rows].float())


class Solver(CompetSolver):
    """Opens the exported file."""

    name = {name}

    def load_model(self, meta):
        if (meta["sfreq"], meta["n_times"]) != ({rate_hz}, {samples}):
            raise ValueError("the model takes {samples} samples at {rate_hz:g} Hz")
        program = torch.export.load(f"{{meta['submission_dir']}}/model.pt2")
        program = move_to_device_pass(program, str(meta["device"]))
        names = [name.lower() for name in meta["ch_names"]]
        return Model(program.module(), [names.index(name) for name in CHANNELS])
'''
"""Form of the EEG Foundation Challenge 2026 (benchopt): `load_model(meta)` of a
CompetSolver, and `predict`.
"""


class Recipe(TrainedRunRecipe):
    """Recipe of export: the model, and the signals that the file takes."""

    computes = False

    align_run: OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; or a model "
        "folder; or hub:owner/name[@revision]; default: the newest run (key: run)",
    )
    cell: str = Field("", description="cell of the run; default: the only one")
    subject: int | Literal["new"] | None = Field(
        None,
        description="whose signals the file takes: a number, or new for nobody the "
        "model knows; default: the only subject that the cell is tested on",
    )
    head: str | None = Field(
        None,
        description="the head that the file gives; default: the vector that "
        "eval-retrieval compares",
    )

    # the signals that the file takes, as far as they differ from the model's
    channels: Names | None = Field(
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
    window_ms: Annotated[tuple[float, float] | None, BeforeValidator(split)] = Field(
        None,
        description="start and stop after stimulus onset, ms; default: the model's",
    )
    unit: str = Field("", description="unit of the signals, as V; default: the model's")
    whiten: bool = Field(
        True,
        description="whiten by the noise of the subject's last training session, "
        "where the model has it; false: signals are whitened before",
    )

    # the files
    to: str = Field("", description="folder for the files; default: exports/RUN")
    scores: bool = Field(
        False,
        description="also write neuralbench.json: how well single test trials of the "
        "cell's subjects are decoded, in NeuralBench's protocol and names",
    )
    submission: bool = Field(
        False,
        description="also write submission.zip, in the form of the EEG Foundation "
        "Challenge 2026",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the model."""
    return [Input.of(recipe.align_run or "the newest run", partial(_open, recipe))]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Write the model, read it back, and compare it with the model on real signals.

    Raises:
        BrainhiveError: if the model cannot take such signals, its backbone cannot be
            exported, or tokens differ.
    """
    folder, name, trained = _open(recipe)
    aligner, subject = aligners.load(folder), _choose_subject(recipe, folder, trained)
    layout, learned = aligner.layout, aligner.learned
    spec, folded = layout.spec, dict[str, Any]()
    before = {k: v for k, v in spec.preparation.items() if k not in NO_STEPS}
    if recipe.head is not None and recipe.head not in layout.heads:
        raise RecipeError(
            f"no head called {recipe.head!r}", f"there are: {', '.join(layout.heads)}"
        )

    if recipe.submission and not (spec.names and spec.rate_hz):
        raise RecipeError(
            "a submission takes sensors at a known rate", "leave submission out"
        )

    # the subject's whitener and normaliser, or what has to be done before
    whitener, unit = None, spec.unit
    if spec.unit == "whitened":
        matrices = None if subject is None else learned.whiteners.get(subject)
        if recipe.whiten and subject is not None and matrices is not None:
            whitener = matrices[-1].astype(np.float64)
            unit = trained.recorded_unit(subject) if trained else DEFAULT_UNIT
            folded["whiten"] = f"noise of training session {len(matrices)}"
            before = {k: v for k, v in before.items() if not k.startswith("whiten")}
        else:
            before.setdefault("whiten", "by the noise of the subject's own session")
    normaliser = None
    if (normalise := spec.signal.get("normalise", "none")) != "none":
        if trained and subject is not None:
            normaliser = trained.find_normaliser(subject, "test")
        else:
            normaliser = (
                learned.normaliser
                if subject is None
                else learned.normaliser_of(subject)
            )
        steps = before if normaliser is None else folded
        steps["normalise"] = normalise

    # the file, compared with the model
    own = learned.recorded_channels if whitener is not None else None
    options = recipe.channels or own, recipe.rate_hz, recipe.window_ms
    recorded = Recorded.of(spec, *options, recipe.unit or unit)
    module = PortableModel(
        aligner,
        subject,
        recorded,
        unit,
        recipe.head,
        recipe.channel_mapping,
        whitener,
        normaliser,
    )
    label = "-".join(filter(None, [name, recipe.cell.replace("/", "-")]))
    to = Path(recipe.to) if recipe.to else Path("exports") / label
    with console.progress(f"exporting {label}"), atomic_write(to / FILE) as part:
        save_program(module, part)
        check = compare_tokens(part, module, trained, subject)
    folded |= {"channel_mapping": module.mapped} if module.mapped else {}
    if recorded.rate_hz and recorded.rate_hz != spec.rate_hz:
        folded["rate_hz"] = f"{recorded.rate_hz:g} to {spec.rate_hz:g}"

    # the contract
    gives = {recipe.head} if recipe.head else {*layout.compared}
    gallery = layout.keys_of(gives)
    shape = [*module.shape]
    output = check.pop("shape")
    contract: dict[str, Any] = {
        "file": FILE,
        "sha256": documents.digest_file(to / FILE),
        "input": {
            "shape": ["batch", *shape],
            "channels": [*recorded.channels],
            "rate_hz": recorded.rate_hz,
            "window_ms": _window(recorded),
            "unit": recorded.unit,
            "subject": "new" if subject is None else subject,
        },
        "before": before,
        "folded": folded,
        "output": {
            "shape": ["batch", *output],
            "heads": [head for head in layout.heads if head in gives],
            "similarity": layout.similarity,
        },
        "gallery": {
            "encoders": [n for n, key in layout.encoders.items() if key in gallery],
            "fuser": layout.fuser.get("kind", "none"),
        },
        "trained_on": learned.dataset,
        "weights": hub.digest(folder) if folder.is_dir() else "",
        "versions": library_versions(),
        "caveats": learned.caveats,
        "check": check,
    }
    written = {CONTRACT: contract}
    if recipe.scores:
        if trained is None:
            raise RecipeError("a model folder names no test trials", "scores=false")
        contract["scores"] = written[SCORES] = _score(trained)
    for file_name, document in written.items():
        with atomic_write(to / file_name) as part:
            text = json.dumps(document, indent=2, ensure_ascii=False)
            part.write_text(text, "utf-8")
    files = {each: to / each for each in (FILE, *written)}
    if recipe.submission:
        files["submission.zip"] = _write_submission(to, label, recorded, contract)
    rows = [
        ("takes", f"{shape} channels and samples, {recorded.unit or 'unit unknown'}"),
        ("gives", f"{output} of {', '.join(sorted(gives))}"),
        ("to do before", ", ".join(before) or "nothing that is known"),
        ("checked", f"{check['signals']}: {check['largest_difference']:.1e} apart"),
    ]
    table = Table(f"Exported {label}", ("item", "value"), rows)
    return Result(to, (table,), files=files, details=contract)


def _open(recipe: Recipe) -> tuple[Path, str, TrainedModel | None]:
    """Find the model's folder, the name of its run, and the cell of a run that it is
    of.
    """
    run, variant = find_reference(recipe.align_run, recipe.paths)
    folder = find_model(run, variant, recipe.cell)
    if folder == run.path:
        return folder, folder.name, None
    models = TrainedRun(run, variant, recipe.paths).models
    return folder, run.name, next(each for each in models if each.path == folder)


def _choose_subject(
    recipe: Recipe, folder: Path, trained: TrainedModel | None
) -> int | None:
    """Choose whose signals the file takes; None for a new subject.

    Raises:
        RecipeError: if several could be meant, or a model folder knows no such subject.
    """
    known = aligners.load(folder).layout.spec.subjects
    tested = trained.cell.tested_on if trained else known
    listed = ", ".join(map(str, {**dict.fromkeys(known), **dict.fromkeys(tested)}))
    if recipe.subject == "new":
        return None
    if recipe.subject is None and len(tested) != 1:
        raise RecipeError(
            "several subjects could be meant", f"subject={listed}, or new"
        )
    subject = tested[0] if recipe.subject is None else recipe.subject
    if subject not in (*known, *tested):
        raise RecipeError(
            f"the model knows no subject {subject}", f"subject={listed}, or new"
        )
    return subject


def _score(trained: TrainedModel) -> dict[str, Any]:
    """Decode each test trial of a cell's subjects, and score them as NeuralBench
    does.
    """
    rows = trained.rows("test")
    targets = trained.images("test", rows).float().cpu()
    predicted, shown, people = [], [], []
    for subject in trained.cell.tested_on:
        trials = trained.trials(subject, "test")
        pictures = np.searchsorted(rows, trials.stimulus)
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            part = slice(start, start + PICTURES_AT_ONCE)
            is_there = trials.is_there[part]
            singles = trials.read(part, as_singles=True)[is_there]  # [n, C, T]
            predicted.append(trained.encode(trials, torch.from_numpy(singles)).cpu())
            seen = np.broadcast_to(pictures[part, None], is_there.shape)[is_there]
            shown.append(torch.from_numpy(seen.copy()))
            people.append(torch.full((len(singles),), subject))
    stated = {
        "device": "eeg",
        "task": "image",
        "brain_model_name": trained.module.layout.backbone["kind"],
        "seed": trained.cell.seed,
        "n_total_params": sum(p.numel() for p in trained.module.backbone.parameters()),
    }
    tensors = torch.cat(predicted), targets, torch.cat(shown), torch.cat(people)
    return stated | neuralbench.score(*tensors)


def _window(recorded: Recorded) -> list[float] | None:
    if recorded.rate_hz is None:
        return None
    start_ms = 1000 * recorded.start_s
    return [start_ms, start_ms + 1000 * recorded.samples / recorded.rate_hz]


def _write_submission(
    to: Path, label: str, recorded: Recorded, contract: dict[str, Any]
) -> Path:
    """Write a zip of the file and the class that opens it."""
    text = SUBMISSION.format(
        channels=[name.lower() for name in recorded.channels],
        width=contract["output"]["shape"][-1],
        name=repr(label),
        rate_hz=recorded.rate_hz,
        samples=recorded.samples,
    )
    with (
        atomic_write(to / "submission.zip") as part,
        zipfile.ZipFile(part, "w") as file,
    ):
        file.writestr("submission.py", text)
        file.write(to / FILE, FILE)
    return to / "submission.zip"
