"""The aligner that a cell's training starts with."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.models.weight_names import adapt
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import Learned
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.settings import Train

REFERENCE_SD = 0.02
"""Spread of initial weights: the default of transformers' `initializer_range`."""


def initial_aligner(
    seed: int, layout: Layout, data: CellData, init: Literal["torch", "reference"]
) -> Aligner:
    """Make an aligner with initial weights by the seed; a prior's fuser is taken over, and frozen."""
    torch.manual_seed(seed)
    aligner = Aligner(layout)
    if init == "reference":
        aligner.apply(_draw_as_reference)
    if data.fuser is not None:
        assert aligner.fuser is not None  # which a prior's layout has
        aligner.fuser.load_state_dict(data.fuser.state_dict())
        aligner.fuser.requires_grad_(False)
    return aligner


def learned_by(data: CellData, train: Train) -> Learned:
    """Return what a cell's model will have learned from, including what its start learned from."""
    learned = replace(data.learned, selection=train.selected_on(data.has_validation))
    for start in (start for starts in data.starts.values() for start in starts):
        if start.is_model:
            learned = learned.after(aligners.learned_in(start.path))
    return learned


def _draw_as_reference(module: nn.Module) -> None:
    """Draw the weights of one module again; normalisations start from 1 and 0 anyway, other parts stay.

    Source: `PreTrainedModel._init_weights` of transformers 4.57 and 5, which BrainHiVE's model inherits.
    """
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding):
        nn.init.normal_(module.weight, std=REFERENCE_SD)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)


def take_over(aligner: Aligner, folder: Path) -> None:
    """Take the weights of a model folder over.

    A new subject's row is the mean of the rows in the folder; its own modules keep their initial weights.

    Raises:
        BrainhiveError: if the architecture does not match.
    """
    start, initial = aligners.load(folder), aligner.state_dict()
    refuse_other_voxels(start, aligner)
    state = adapt(aligner.backbone, start.state_dict(), "backbone.")
    old, new = start.layout.spec.subjects, aligner.layout.spec.subjects
    for name in _rows_of_subjects(start):
        row_of = dict(zip(old, state[name], strict=True))
        state[name] = torch.stack([row_of.get(subject, state[name].mean(0)) for subject in new])
    for name in modules_of_subjects(start) - initial.keys():
        state.pop(name, None)
    for name in modules_of_subjects(aligner) - state.keys():
        state[name] = initial[name]
    shapes, needed = ({name: value.shape for name, value in each.items()} for each in (state, initial))
    if unlike := sorted(name for name, _ in shapes.items() ^ needed.items()):
        raise BrainhiveError(
            f"the architecture does not match the checkpoint {folder}: {unlike[0]}",
            "give the same backbone, fuser, encoders, channels, window and dim as its config.json",
        )
    aligner.load_state_dict(state)
    aligner.losses = start.losses


def refuse_other_voxels(start: Aligner, aligner: Aligner) -> None:
    """Refuse a start that knows a subject of the model by other voxels.

    Raises:
        BrainhiveError: naming what differs.
    """
    spec = aligner.layout.spec
    for place, (subject, width) in enumerate(zip(spec.subjects, spec.widths, strict=True)):
        regions = {name: by_subject[place] for name, by_subject in spec.regions.items()}
        start.layout.spec.refuse_other_voxels(subject, width, regions, f"subject {subject}")


def _rows_of_subjects(aligner: Aligner) -> set[str]:
    """Name the weights that have a row for each subject: those that one more subject makes larger."""
    spec = aligner.layout.spec
    larger = replace(
        spec,
        subjects=(*spec.subjects, max(spec.subjects, default=0) + 1),
        widths=(*spec.widths, max(spec.widths) if spec.widths else spec.channels),
        regions={region: (*by_subject, by_subject[-1]) for region, by_subject in spec.regions.items()},
    )
    shapes = _shapes(aligner, larger)
    state = aligner.state_dict()
    return {name for name, value in state.items() if value.shape != shapes.get(name, value.shape)}


def modules_of_subjects(aligner: Aligner) -> set[str]:
    """Name the weights that go by a subject's number: those that are gone when subjects have others."""
    spec = aligner.layout.spec
    strangers = tuple(subject + 1 + max(spec.subjects) for subject in spec.subjects)
    return aligner.state_dict().keys() - _shapes(aligner, replace(spec, subjects=strangers)).keys()


def _shapes(aligner: Aligner, spec: SignalSpec) -> dict[str, torch.Size]:
    """Give the names and shapes that the weights of an aligner would have for other signals."""
    with torch.device("meta"):
        state = Aligner(replace(aligner.layout, spec=spec)).state_dict()
    return {name: value.shape for name, value in state.items()}
