"""The aligner that a cell's training starts with."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import Learned
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.settings import Train

BELOW = "backbone."
"""Before the names of the backbone's weights."""
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
    found, old, new = _adapted(start, aligner), start.layout.spec.subjects, aligner.layout.spec.subjects
    for name in _rows_of_subjects(start):
        rows = [found[name][old.index(each)] if each in old else found[name].mean(0) for each in new]
        found[name] = torch.stack(rows)
    own = {name: initial[name] for name in modules_of_subjects(aligner) if name not in found}
    gone = modules_of_subjects(start) - initial.keys()
    found = {name: each for name, each in found.items() if name not in gone} | own
    shapes, needed = ({name: each.shape for name, each in state.items()} for state in (found, initial))
    if unlike := sorted(name for name, _ in shapes.items() ^ needed.items()):
        raise BrainhiveError(
            f"the architecture does not match the checkpoint {folder}: {unlike[0]}",
            "give the same backbone, fuser, encoders, channels, window and dim as its config.json",
        )
    aligner.load_state_dict(found)
    aligner.losses = start.losses


def refuse_other_voxels(start: Aligner, aligner: Aligner) -> None:
    """Refuse a start that knows a subject of the model by other voxels.

    Raises:
        BrainhiveError: naming what differs.
    """
    spec = aligner.layout.spec
    for place, subject in enumerate(spec.subjects):
        regions = {name: by_subject[place] for name, by_subject in spec.regions.items()}
        given = (spec.widths[place], regions, f"subject {subject}")
        start.layout.spec.refuse_other_voxels(subject, *given)


def _adapted(start: Aligner, aligner: Aligner) -> dict[str, Tensor]:
    """Give the weights of a start as a backbone of other parts takes them, where it says how (`adapted`)."""
    found, adapted = start.state_dict(), getattr(aligner.backbone, "adapted", None)
    if adapted is None:
        return found
    own = {name.removeprefix(BELOW): found.pop(name) for name in list(found) if name.startswith(BELOW)}
    return found | {BELOW + name: value for name, value in adapted(own).items()}


def _rows_of_subjects(aligner: Aligner) -> set[str]:
    """Name the weights that have a row for each subject: those that one more subject makes larger."""
    spec = aligner.layout.spec
    larger = replace(
        spec,
        subjects=(*spec.subjects, max(spec.subjects, default=0) + 1),
        widths=(*spec.widths, max(spec.widths) if spec.widths else spec.channels),
        regions={region: (*by_subject, by_subject[-1]) for region, by_subject in spec.regions.items()},
    )
    shapes = {name: each.shape for name, each in _built(aligner, larger).items()}
    return {name for name, each in aligner.state_dict().items() if each.shape != shapes.get(name, each.shape)}


def modules_of_subjects(aligner: Aligner) -> set[str]:
    """Name the weights that go by a subject's number: those that are gone when subjects have others."""
    spec = aligner.layout.spec
    others = tuple(subject + 1 + max(spec.subjects) for subject in spec.subjects)
    return aligner.state_dict().keys() - _built(aligner, replace(spec, subjects=others)).keys()


def _built(aligner: Aligner, spec: SignalSpec) -> dict[str, Tensor]:
    with torch.device("meta"):  # only names and shapes matter
        return Aligner(replace(aligner.layout, spec=spec)).state_dict()
