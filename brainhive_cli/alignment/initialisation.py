"""The aligner that a cell's training begins with."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from brainhive_cli.alignment import model as aligners
from brainhive_cli.alignment.batches import CellData
from brainhive_cli.alignment.learned import Learned
from brainhive_cli.alignment.model import Aligner, Layout
from brainhive_cli.alignment.settings import Train
from brainhive_cli.core.errors import BrainhiveError

REFERENCE_SD = 0.02
"""Spread of initial weights: the default of transformers' `initializer_range`."""


def begin(seed: int, layout: Layout, data: CellData, init: Literal["torch", "reference"]) -> Aligner:
    """Make the aligner that the seed decides; weights of a model folder and a prior's fuser are taken over.

    Args:
        seed: Decides the initial weights.
        layout: What the aligner is made of.
        data: Holds the model folder and the prior's fuser, where there are any.
        init: From which distribution the initial weights are drawn.

    Raises:
        BrainhiveError: if the weights of the model folder do not fit.
    """
    torch.manual_seed(seed)
    aligner = Aligner(layout)
    if init == "reference":
        aligner.apply(_draw_as_reference)
    if data.start is not None:
        take_over(aligner, data.start)
    if data.fuser is not None:
        aligner.fuser.load_state_dict(data.fuser.state_dict())
        aligner.fuser.requires_grad_(False)
    return aligner


def learned_by(data: CellData, train: Train) -> Learned:
    """Say what the model of a cell will have learned from, with all that it begins from."""
    own = replace(data.learned, selection=train.selected_on(bool(data.held_out.any())))
    return own if data.start is None else own.after(aligners.learned_in(data.start))


def _draw_as_reference(module: nn.Module) -> None:
    """Draw the weights of one module anew; normalisations start from 1 and 0 anyway, other parts stay.

    Source: `PreTrainedModel._init_weights` of transformers 4.57 and 5, which BrainHiVE's model inherits.
    """
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding):
        nn.init.normal_(module.weight, std=REFERENCE_SD)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)


def take_over(aligner: Aligner, folder: Path) -> None:
    """Begin from the weights of a model folder.

    What is learned for each subject begins, for a new one, from the mean over those of the folder.

    Raises:
        BrainhiveError: if the model is made otherwise.
    """
    start, wanted = aligners.load(folder), aligner.state_dict()
    learned, old, new = start.state_dict(), start.layout.subjects, aligner.layout.subjects
    for name in _learned_a_subject(start):
        rows = [learned[name][old.index(each)] if each in old else learned[name].mean(0) for each in new]
        learned[name] = torch.stack(rows)
    shapes, wanted_shapes = ({name: each.shape for name, each in s.items()} for s in (learned, wanted))
    if unlike := sorted(name for name, _ in shapes.items() ^ wanted_shapes.items()):
        raise BrainhiveError(
            f"the model {folder} is made otherwise than what should begin from it: {unlike[0]}",
            "give the same backbone, fuser, encoders, channels, window and dim as its config.json",
        )
    aligner.load_state_dict(learned)
    aligner.losses = start.losses


def _learned_a_subject(aligner: Aligner) -> list[str]:
    """Name the weights that have a row for each subject: those that one more subject makes larger."""
    subjects = aligner.layout.subjects
    larger = Aligner(replace(aligner.layout, subjects=(*subjects, max(subjects, default=0) + 1))).state_dict()
    return [name for name, weight in aligner.state_dict().items() if weight.shape != larger[name].shape]
