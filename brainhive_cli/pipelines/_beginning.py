"""The aligner that a cell's training begins with."""

from pathlib import Path

import torch
from torch import Tensor

from brainhive_cli import aligner as aligners
from brainhive_cli.aligner import Aligner, Layout
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.pipelines._batches import CellData


def begin(seed: int, layout: Layout, logit_scale: float, data: CellData) -> Aligner:
    """Make the aligner that the seed decides; weights of a model folder and a prior's fuser are taken over.

    Raises:
        BrainhiveError: if the weights of the model folder do not fit.
    """
    torch.manual_seed(seed)
    aligner = Aligner(layout, logit_scale)
    if data.start is not None:
        take_over(aligner, data.start)
    if data.fuser is not None:
        aligner.fuser.load_state_dict(data.fuser.state_dict())
        aligner.fuser.requires_grad_(False)
    return aligner


def take_over(aligner: Aligner, folder: Path) -> None:
    """Begin from the weights of a model folder.

    What is learned a subject (weights whose first size is their number) begins from the mean over the
    subjects of the folder, unless both have as many.

    Raises:
        BrainhiveError: if something else differs.
    """
    learned, fresh = aligners.load(folder).state_dict(), aligner.state_dict()
    unlike = [name for name in sorted(learned.keys() ^ fresh.keys())] or [
        name for name, value in fresh.items() if not _fits(learned[name], value)
    ]
    if unlike:
        raise BrainhiveError(
            f"the model {folder} is made otherwise than what should begin from it: {unlike[0]}",
            "give the same backbone, fuser, encoders, channels, window and dim as its config.json",
        )
    aligner.load_state_dict({name: _widened(learned[name], value) for name, value in fresh.items()})


def _fits(learned: Tensor, fresh: Tensor) -> bool:
    return learned.shape == fresh.shape or (learned.ndim > 1 and learned.shape[1:] == fresh.shape[1:])


def _widened(learned: Tensor, fresh: Tensor) -> Tensor:
    if learned.shape == fresh.shape:
        return learned
    return learned.mean(0, keepdim=True).expand_as(fresh)
