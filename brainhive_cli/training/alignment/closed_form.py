"""The training of a cell whose backbone is fitted in closed form: one pass, without steps or epochs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.launch import Launch
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.initialisation import initial_aligner, learned_by
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.settings import Train


def is_closed_form(layout: Layout) -> bool:
    """Whether a model's backbone is fitted, not trained step by step."""
    return bool(getattr(parts.resolve("backbones", layout.backbone), "is_closed_form", False))


def fit(seed: int, layout: Layout, data: CellData, train: Train, launch: Launch) -> Aligner:
    """Make the aligner of a cell, and fit it to each of its subjects; held-out concepts are not learned."""
    aligner = initial_aligner(seed, layout, data, "torch").to(launch.device)
    aligner.learned = learned_by(data, train.model_copy(update={"selection": "last"}))
    for trials in data.trials:
        is_known = trials.stimulus >= 0
        held_out = is_known & data.held_out[trials.stimulus]
        learned = np.flatnonzero(is_known & ~held_out)
        stimulus = torch.from_numpy(trials.stimulus[learned]).to(launch.device)

        def targets(rows: slice, stimulus: Tensor = stimulus) -> dict[str, Tensor]:
            return aligner.targets(data.images.gather(stimulus[rows]))

        signal, rest = (
            torch.from_numpy(np.asarray(trials.signal[some], np.float32)).to(launch.device)
            for some in (learned, np.flatnonzero(held_out))
        )
        backbone: Any = aligner.backbone
        backbone.fit(trials.subject, signal, targets, rest)
    return aligner.eval()
