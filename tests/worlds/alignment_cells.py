"""Data and layout of a small cell, whose random signals hold embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.training.alignment import Layout, Train
from brainhive_cli.training.alignment.training.batches import Batches, CellData
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

PICTURES, REPETITIONS, CHANNELS, SAMPLES = 60, 3, ("P7", "Oz"), 12
CPU_LAUNCH = Launch(0, 1, torch.device("cpu"))


def simulate_trials(subject: int, embedding: np.ndarray) -> Trials:
    """Simulate noisy signals [N, R, C, T] that hold embeddings [N, 8].

    The last picture has a single trial.
    """
    random = np.random.default_rng(subject)
    clean = (embedding @ random.normal(size=(8, 24))).reshape(len(embedding), 1, 2, 12)
    noise = 0.5 * random.normal(size=(len(clean), REPETITIONS, 2, 12))
    signal = (clean + noise).astype(np.float32)
    counts = np.full(len(signal), REPETITIONS)
    counts[-1] = 1
    signal[-1, 1:] = np.nan
    return make_trials(subject, signal, np.arange(len(signal)), CHANNELS, 100.0, counts)


def make_targets(
    tensors: dict[str, torch.Tensor], alternatives: Sequence[np.ndarray] = ()
) -> Targets:
    """Make targets in memory, each with the same alternative values."""
    other_values = tuple(map(torch.from_numpy, alternatives))
    return Targets(
        {
            key: StoreTargets(values, other_values=other_values)
            for key, values in tensors.items()
        }
    )


def make_cell_data(
    embedding: np.ndarray,
    subjects: int = 1,
    repetitions: str | None = None,
    alternatives: Sequence[np.ndarray] = (),
) -> CellData:
    trials = [simulate_trials(subject, embedding) for subject in range(1, subjects + 1)]
    return CellData(
        trials,
        make_targets({"e": torch.from_numpy(embedding)}, alternatives),
        np.arange(PICTURES) < 15,
        None,
        **({"repetitions": repetitions} if repetitions else {}),
    )


def make_layout(data: CellData, kind: str = "brain_mlp") -> Layout:
    spec = make_signal_spec(
        CHANNELS, SAMPLES, tuple(trials.subject for trials in data.trials)
    )
    fuser = {"kind": "fusion_encoder", "intermediate_size": 16}
    return make_token_layout(spec, 16, {"e": 8}, backbone={"kind": kind}, fuser=fuser)


def make_batches(data: CellData, launch: Launch = CPU_LAUNCH, **knobs: Any) -> Batches:
    return Batches(data, Train(**{"batch_size": 16, **knobs}), launch)
