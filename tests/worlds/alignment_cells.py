"""The data and layout of one small cell: random signals that hold their image's
embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brainhive_cli.core.launch import Launch
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import Batches, CellData
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import one_token, spec_of

PICTURES, REPETITIONS, CHANNELS, SAMPLES = 60, 3, ("P7", "Oz"), 12
HERE = Launch(0, 1, torch.device("cpu"))


def trials_of(subject: int, embedding: np.ndarray) -> Trials:
    """Signals [N, C, T] in which the pictures' embeddings [N, 8] lie, with noise; the
    last lacks trials.
    """
    random = np.random.default_rng(subject)
    clean = (embedding @ random.normal(size=(8, 24))).reshape(len(embedding), 1, 2, 12)
    signal = (
        clean + 0.5 * random.normal(size=(len(clean), REPETITIONS, 2, 12))
    ).astype(np.float32)
    count = np.full(len(signal), REPETITIONS)
    count[-1], signal[-1, 1:] = 1, np.nan
    return make_trials(subject, signal, np.arange(len(signal)), CHANNELS, 100.0, count)


def targets_of(
    tensors: dict[str, torch.Tensor], others: Sequence[np.ndarray] = ()
) -> Targets:
    """Targets in memory; `others` are alternatives of each."""
    further = tuple(map(torch.from_numpy, others))
    return Targets(
        {
            key: StoreTargets(values, other_values=further)
            for key, values in tensors.items()
        }
    )


def data_of(
    embedding: np.ndarray,
    subjects: int = 1,
    how: str | None = None,
    others: Sequence[np.ndarray] = (),
    **more: Any,
) -> CellData:
    trials = [trials_of(subject, embedding) for subject in range(1, subjects + 1)]
    more |= {"repetitions": how} if how else {}
    return CellData(
        trials,
        targets_of({"e": torch.from_numpy(embedding)}, others),
        np.arange(PICTURES) < 15,
        None,
        **more,
    )


def layout_of(data: CellData, kind: str = "brain_mlp") -> Layout:
    spec = spec_of(CHANNELS, SAMPLES, tuple(trials.subject for trials in data.trials))
    fuser = {"kind": "fusion_encoder", "intermediate_size": 16}
    return one_token(spec, 16, {"e": 8}, backbone={"kind": kind}, fuser=fuser)


def batches_of(data: CellData, launch: Launch = HERE, **knobs: Any) -> Batches:
    return Batches(data, Train(**{"batch_size": 16, **knobs}), launch)
