"""Losses, ranks and weights of small trainings, compared with recorded values."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.models import FUSED_TARGET, TOKEN_HEAD, FusionEncoder, Head
from brainhive_cli.training.alignment import Layout, Term, Train
from brainhive_cli.training.alignment.training.batches import CellData
from brainhive_cli.training.alignment.training.cell_folder import train_cell
from tests.worlds.alignment_cells import (
    CHANNELS,
    CPU_LAUNCH,
    PICTURES,
    SAMPLES,
    make_batches,
    make_targets,
)
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec

EMBEDDING = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)


def person(subject, count):
    """Make up to three trials of pictures in random order. A row has no picture."""
    random = np.random.default_rng(subject)
    stimulus = random.permutation(PICTURES)[:count]
    clean = EMBEDDING[stimulus] @ np.random.default_rng(9).normal(size=(8, 24))
    clean = clean.reshape(count, 1, len(CHANNELS), SAMPLES)
    noise = random.normal(size=(count, 3, len(CHANNELS), SAMPLES))
    signal = (clean + subject * noise).astype(np.float32)
    counts = random.integers(1, 4, count)
    is_there = np.arange(3) < counts[:, None]
    signal[~is_there] = np.nan
    sessions = np.where(is_there, np.arange(3), -1)
    stimulus[5] = -1
    return make_trials(
        subject, signal, stimulus, CHANNELS, 100.0, counts, sessions=sessions
    )


def cell_of(**changes):
    """Make data of subjects 2 and 4, with three targets of each picture."""
    held_out = np.random.default_rng(3).random(PICTURES) < 0.3
    targets = make_targets(
        {"e": torch.from_numpy(EMBEDDING)}, [-EMBEDDING, EMBEDDING[::-1].copy()]
    )
    alike = StimulusGrouping(
        "concept", {row: f"c{row % 11}" for row in range(PICTURES)}
    )
    data = CellData([person(2, 50), person(4, 37)], targets, held_out, None)
    return replace(data, grouping=alike, **changes)


def layout_of(**changes):
    """Make a layout with a fused token and a head of an embedding."""
    spec = make_signal_spec(CHANNELS, SAMPLES, (2, 4))
    fuser = {"kind": "fusion_encoder", "intermediate_size": 16}
    layout = Layout(
        spec,
        {TOKEN_HEAD: Head((16,), FUSED_TARGET), "plain": Head((8,), "direct")},
        {"kind": "brain_mlp"},
        fuser=fuser,
        dims={"e": 8},
        encoders={"e": "e"},
    )
    return replace(layout, **changes)


LINEAR = {"kind": "linear"}
SMOOTH = {"kind": "smooth", "p": 0.5}
DESIGNS = {
    "as it is": ({}, {}, {}, "clip"),
    "single trials of each subject": (
        {"repetitions": "single", "epoch_trials": 60},
        {"subject_layer": "linear"},
        {"grad_norm": None, "decay": "weights", "betas": (0.8, 0.9)},
        "clip",
    ),
    "random repetitions": (
        {"repetitions": "random", "random_k": 2, "seed": 3},
        {"similarity": "centred_cosine"},
        {
            "augment": {"repetitions": 0.7, "parts": [SMOOTH]},
            "ema": 0.9,
            "last_batch": "keep",
            "init": "reference",
        },
        "clip",
    ),
    "mixed signals": (
        {},
        {"retrieval_heads": (TOKEN_HEAD, "plain")},
        {"last_batch": "drop", "decay": "not_biases", "lr_of": {"fuser": 0.3}},
        "mixco",
    ),
    "chosen targets": (
        {},
        {"backbone": LINEAR},
        {"alternatives": "uncertainty", "gallery_level": 1, "warmup_steps": 3},
        "clip",
    ),
    "stages": (
        {},
        {},
        {
            "stages": [
                {"epochs": 1, "lr": 4e-3, "freeze": ["fuser"], "warmup_epochs": 0.5},
                {"epochs": 1, "lr": 2e-3, "schedule": "one_cycle"},
                {"epochs": 1, "lr": 1e-3, "schedule": "constant"},
            ]
        },
        "clip",
    ),
    "the fuser of a prior": ({}, {}, {"selection": "last"}, "clip"),
    "tested recordings": (
        {},
        {},
        {"selection": "recordings", "validation_recordings": {2: [1]}, "patience": 1},
        "clip",
    ),
    "closed form": ({}, {"backbone": {"kind": "ridge", "alpha": 3.0}}, {}, "clip"),
    "closed form from means": (
        {},
        {
            "backbone": {"kind": "ridge"},
            "similarity": "cosine_from_mean",
            "heads": {TOKEN_HEAD: Head((8,), "e")},
            "fuser": {},
            "dims": {},
        },
        {},
        "clip",
    ),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_three_epochs(recorded, tmp_path, design):
    changes, architecture, settings, loss = DESIGNS[design]
    data, layout = cell_of(**changes), layout_of(**architecture)
    direct = make_targets({"direct": torch.from_numpy(EMBEDDING[:, ::-1].copy())})
    data.targets.sources.update(direct.sources)
    if "alternatives" in settings:
        layout = replace(layout, heads={TOKEN_HEAD: Head((16,), FUSED_TARGET)})
        del data.targets.sources["direct"]
    if design == "the fuser of a prior":
        torch.manual_seed(5)
        data = replace(data, fuser=FusionEncoder({"e": 8}, 16, 16))
    if "validation_recordings" in settings:
        tested_people = [person(4, 20), replace(person(2, 30), subject=7)]
        data = replace(data, test_trials=tested_people, test_targets=data.targets)
    terms = [Term(prediction=TOKEN_HEAD, loss=loss)]
    if "plain" in layout.heads:
        course = {"from": 0.5, "to": 0.1, "epochs": [0, 3], "course": "linear"}
        term = {"prediction": "plain", "loss": "mse", "weight": course}
        terms.append(Term.model_validate(term))
    run_folder, events = RunFolder(tmp_path), list[dict[str, Any]]()
    rates = {} if "stages" in settings else {"lr": 5e-3}
    settings = {"epochs": 3, "batch_size": 12, "precision": "fp32", **settings}
    train = Train(**rates, **settings)

    train_cell(
        "cell", 3, layout, data, terms, train, run_folder, CPU_LAUNCH, events.append
    )

    cell = tmp_path / "cells" / "cell"
    metrics = json.loads((cell / "metrics.json").read_text())
    facts = metrics["facts"]["cells"]["cell"]
    state = load_file(cell / "model" / "model.safetensors")
    for event in events:
        event.pop("samples_per_s")
    recorded(
        digits=4,
        events=events,
        metrics={
            name: [metric[field] for field in ("value", "n", "pool", "low", "high")]
            for name, metric in metrics["scopes"].get("cell", {}).items()
        },
        epoch=facts["epoch"],
        parameters=facts["took"]["parameters"],
        weights={name: value.double().norm() for name, value in state.items()},
    )


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("repetitions", ["average", "single", "random"])
def test_batches_of_two_processes(recorded, repetitions, is_mapped):
    data = cell_of(repetitions=repetitions, is_mapped=is_mapped)
    drawn_once = {"kind": "smooth", "p": 0.6}
    augment = {"parts": [drawn_once, {**SMOOTH, "drawn": "each_step"}]}
    drawn_by_process = {}
    for rank in (0, 1):
        batches = make_batches(
            data, replace(CPU_LAUNCH, rank=rank, processes=2), augment=augment
        )
        parts, targets, context = batches.draw(
            batches.split_epoch(3, 1)[1], 5, (0.4, 0.7)
        )
        assert context.mixing is not None
        drawn_by_process[rank] = {
            "steps": batches.steps,
            "signals": torch.cat([signal for signal, _ in parts]),
            "subjects": torch.cat([subject for _, subject in parts]),
            "targets": targets,
            "stimuli": context.stimuli,
            "partners": context.mixing.partner,
            "shares": context.mixing.share,
        }

    recorded(digits=4, drawn=drawn_by_process)
