"""The weights that a training and its stages start with: drawn by the seed, or of a
model, run or file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brainhive_cli.core import console, documents, hub, parts, runs, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder, split_variant
from brainhive_cli.data.stores.learned import EpochSelection, TrainingHistory
from brainhive_cli.models.foreign_weights import (
    find_file_input,
    find_weight_file,
    strip_prefix,
)
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment import layout as layouts, model_files
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.references import (
    TRAINING,
    find_model,
    find_recipe_name,
    find_reference,
    list_model_folders,
)
from brainhive_cli.training.alignment.stages import Train

if TYPE_CHECKING:
    import torch
    from torch import nn

    from brainhive_cli.training.alignment.model import Aligner
    from brainhive_cli.training.alignment.training.batches import CellData

REFERENCE_SD = 0.02
"""Spread of initial weights: the default of transformers' `initializer_range`."""
FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth")
"""Weight files of a folder, the best first."""
ENDINGS = tuple(pattern[1:] for pattern in FILES)
OpenedRuns = dict[str, tuple[RunFolder, str]]
"""Runs that were looked for before, each with its variant, by reference."""
StartFiles = dict[str, Path]
"""Model folders, checkpoints or files of weights that a stage starts from, by the part
of the model that they are for; "" is all of it.
"""
References = Sequence[Mapping[str, str]]
"""What each stage starts from, by the part of the model, as `Train.starts` gives it."""


def make_aligner(
    seed: int,
    layout: layouts.Layout,
    data: CellData,
    init: Literal["torch", "reference"],
) -> Aligner:
    """Make an aligner with initial weights by the seed; a prior's fuser is taken over,
    and frozen.
    """
    import torch

    from brainhive_cli.training.alignment.model import Aligner

    # the seed decides every weight that is drawn on construction
    torch.manual_seed(seed)
    aligner = Aligner(layout)
    if init == "reference":
        aligner.apply(_draw_as_reference)

    # parts that bring public weights load them themselves
    for module in aligner.backbone.modules():
        load_pretrained = getattr(module, "load_pretrained", None)
        if load_pretrained is not None:
            load_pretrained()

    copy_fuser(aligner, data)
    return aligner


def copy_fuser(aligner: Aligner, data: CellData) -> None:
    """Take the fuser of a prior over, where there is one; it never learns here.

    Raises:
        BrainhiveError: if the prior was trained on embeddings of another width.
    """
    if data.fuser is None:
        return
    assert aligner.fuser is not None  # which a prior's layout has
    where = f"the fuser of the prior {aligner.layout.prior}"
    weights.fill(aligner.fuser, data.fuser.state_dict(), where)
    aligner.fuser.requires_grad_(False)


def _draw_as_reference(module: nn.Module) -> None:
    """Draw the weights of one module again; normalisations start from 1 and 0 anyway,
    other parts stay.

    Source: `PreTrainedModel._init_weights` of transformers 4.57 and 5, which
    BrainHiVE's model inherits.
    """
    from torch import Tensor, nn

    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding):
        nn.init.normal_(module.weight, std=REFERENCE_SD)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)


def make_history(data: CellData, train: Train) -> TrainingHistory:
    """Return the record of a cell's training data, with that of its starts."""
    stimuli = [trials.stimulus for trials in data.trials]
    is_validated = any(data.held_out[rows[rows >= 0]].any() for rows in stimuli)
    best: EpochSelection = "validation" if is_validated else "last epoch"
    selections: dict[str, EpochSelection] = {
        "best": best,
        "last": "last epoch",
        "test": "test",
        "recordings": "validation",
    }
    learned = replace(data.history, selection=selections[train.selection])
    starts = (
        read_history(path, part)
        for start in data.start_files.values()
        for part, path in start.items()
    )
    for before in filter(None, starts):
        learned = learned.inherit(before)
    return learned


def read_history(path: Path, part: str) -> TrainingHistory | None:
    """Read the record of the training data of a start's weights, by their folder or the
    file next to them.

    Not known where neither says so; None of a public network that has seen no brain:
    parts in the layout of transformers, as GPT-2, and files that are fetched with a
    data set.
    """
    if model_files.holds_model(path):
        return model_files.read_history(path)

    # networks that have seen no brain need no history
    config = path.parent / "config.json"
    is_transformers = config.is_file() and "model_type" in documents.read(
        config, dict[str, Any]
    )
    is_public = is_transformers or parts.is_kind("datasets", path.parent.name)
    if part and is_public and not layouts.is_upstream(weights.read(path)):
        return None
    return TrainingHistory.read_next_to(path)


def load_start(aligner: Aligner, path: Path, part: str = "") -> None:
    """Put weights that a stage starts from into a model, or into one part of it.

    Raises:
        BrainhiveError: if they are of another architecture, or lack the part.
    """
    from brainhive_cli.training.alignment import model as aligners

    if not part:
        copy_weights(aligner, path)
        return

    # a model, or a file of the part or of a module around it: GPT-2's weights, for one,
    # are `wte.weight` in the file of the hub, and `transformer.wte.weight` in one saved
    # with the last layer
    prefix = f"{part}."
    needed = strip_prefix(aligner.state_dict(), prefix)
    start = (
        aligners.load(path) if path.is_dir() or model_files.holds_model(path) else None
    )
    source = weights.read(path) if start is None else start.state_dict()

    # the part by its name, or else the prefix below which most of the needed names lie
    start_prefix = prefix
    if not any(name.startswith(prefix) for name in source):
        counts: Counter[str] = Counter()
        for name in source:
            pieces = name.split(".")
            for depth in range(len(pieces)):
                before = "".join(f"{piece}." for piece in pieces[:depth])
                # of a file, no other network's names
                is_around = start is not None or f".{prefix}".endswith(f".{before}")
                if is_around and ".".join(pieces[depth:]) in needed:
                    counts[before] += 1

        # of equal counts the prefix with the name of the part wins
        last = f".{part.rpartition('.')[2]}."
        start_prefix = max(
            counts,
            key=lambda name: (counts[name], f".{name}".endswith(last)),
            default=prefix,
        )
    renamed = {
        prefix + name: value
        for name, value in strip_prefix(source, start_prefix).items()
    }

    subject_modules = list_subject_weights(aligner)
    if start is not None:
        # a larger part is not taken over in silence
        matching = renamed.keys() & {prefix + name for name in needed}
        if matching and (
            surplus := sorted(renamed.keys() - matching - list_subject_weights(start))
        ):
            console.warn(
                f"{path}: {len(matching)} of {len(renamed)} weights of {part} are "
                f"taken over; first left out {surplus[0]}"
            )

        # weights of a subject fit the same voxels only
        if subject_modules & matching:
            refuse_other_voxels(start, aligner)
    state = {
        name: value
        for name, value in strip_prefix(renamed, prefix).items()
        if name in needed
    }

    # modules of subjects keep their initial weights where there are none for them
    initial = {
        name: value
        for name, value in needed.items()
        if prefix + name in subject_modules
    }
    way = (
        "give the same sizes in the recipe's backbone, or leave the part out of "
        "start_from"
    )
    if not state:
        raise BrainhiveError(f"{path} has no weights for the part {part}", way)
    weights.fill(
        aligner.get_submodule(part), {**initial, **state}, f"{path}: {part}", way
    )


def find_starts(
    references: References, cell: Cell, paths: Paths, opened: OpenedRuns
) -> dict[int, StartFiles]:
    """Find what each stage starts from, by the stage's number.

    `opened` are the runs that were looked for before, by reference; others are added.

    A reference is a model folder or checkpoint, an align run, a file of weights, or
    `hub:owner/name` with one of these. The name of a train-align recipe means its
    newest run. Whether sizes fit is seen where the weights are taken over.

    Raises:
        MissingData: if there is no such run or file.
        RecipeError: if several models of a run could be meant.
    """
    return {
        number: {
            part: _find_path(name, cell, paths, opened) for part, name in names.items()
        }
        for number, names in enumerate(references)
        if names
    }


def pin_starts(
    references: References, paths: Paths, opened: OpenedRuns
) -> dict[str, str]:
    """Pin what changes under one name among what stages start from, by that name;
    `opened` as there.

    A recipe stands for its newest run, a repository of the hub for its newest commit.
    """
    root, names = paths.under_home("runs"), {}
    for reference in dict.fromkeys(
        name for start in references for name in start.values()
    ):
        if reference.startswith(hub.HUB_PREFIX):
            # weights alone keep the name of their repository, next to whose config they
            # lie
            file, variant = _find_weights(reference), split_variant(reference)[1]
            path = (
                _find_once(reference, paths, opened)[0].path if file is None else file
            )
            is_alone = (
                file is not None and file.is_file() and not _names_file(reference)
            )
            commit = hub.name_snapshot(path.parent if is_alone else path)
            names[reference] = commit + (f":{variant}" if variant else "")
        elif find_recipe_name(split_variant(reference)[0], root) is not None:
            run, label = _find_once(reference, paths, opened)
            names[reference] = runs.reference(run, root / TRAINING, label)
    return names


def list_start_inputs(
    references: References, cell: Cell, paths: Paths, backbone: Any, opened: OpenedRuns
) -> list[Input]:
    """Look for what stages start from, and what the backbone itself loads; nothing is
    fetched.
    """
    pretrained = getattr(backbone, "pretrained", None)
    inputs = (
        [hub.find_input(pretrained, (), FILES[:1], ("config.json",))]
        if pretrained
        else []
    )
    for name in (name for start in references for name in start.values()):
        if name.startswith(hub.HUB_PREFIX):
            # the second, of a run
            patterns = (*FILES[:1], f"cells/**/{model_files.WEIGHT_FILES[0]}")
            inputs.append(
                find_file_input(name)
                if _names_file(name)
                else hub.find_input(
                    str(split_variant(name)[0]), (), patterns, ("*.json",)
                )
            )
        else:
            try:
                _find_path(name, cell, paths, opened)
                inputs.append(Input(name))
            except BrainhiveError as error:
                inputs.append(Input(name, error=error))
    return inputs


def _find_once(
    reference: str, paths: Paths, opened: OpenedRuns
) -> tuple[RunFolder, str]:
    if reference not in opened:
        opened[reference] = find_reference(reference, paths)
    return opened[reference]


def _find_path(reference: str, cell: Cell, paths: Paths, opened: OpenedRuns) -> Path:
    """Find a file or a model's folder; of a run the only model, or that of the cell
    with the same name.
    """
    # each model or run is fetched and compared once for all cells
    if reference not in opened and (file := _find_weights(reference)) is not None:
        return file
    (run, variant) = _find_once(reference, paths, opened)
    name = cell.name.rpartition("/")[2]
    return find_model(
        run, variant, name if name in list_model_folders(run, variant) else ""
    )


def _find_weights(reference: str) -> Path | None:
    """Find a file of weights, here or on the hub, where it may be all that a repository
    holds; else None.
    """
    # a file that is named
    is_on_hub = reference.startswith(hub.HUB_PREFIX)
    if _names_file(reference):
        if is_on_hub:
            return find_weight_file(reference)
        if not (path := locate(reference)).is_file():
            # as in data/cc2017/FILE
            is_fetched = parts.is_kind("datasets", path.parent.name)
            way = (
                Line("fetch", path.parent.name)
                if is_fetched
                else "train.stages start_from=FILE"
            )
            raise MissingData(f"no file {path}, which a stage starts from", way)
        return path
    if not is_on_hub:
        return None

    # a repository with weights and no model or run of ours, as a network of
    # transformers
    kind, pinned = hub.inspect_repository(str(split_variant(reference)[0]))
    if kind:
        return None
    folder = hub.folder(pinned, allow=[*FILES[:1], "config.json"])
    return next(iter(sorted(folder.glob(FILES[0]))), folder)


def _names_file(reference: str) -> bool:
    """Whether a reference is of a file of weights, which may have a revision on the
    hub.
    """
    is_on_hub = reference.startswith(hub.HUB_PREFIX)
    return (reference.partition("@")[0] if is_on_hub else reference).endswith(ENDINGS)


def copy_weights(aligner: Aligner, source: Aligner | Path) -> None:
    """Take the weights of another model, or of one's folder, over.

    A new subject's row is the mean of the rows of the other; its own modules keep their
    initial weights.

    Raises:
        BrainhiveError: if the architecture does not match.
    """
    import torch

    from brainhive_cli.training.alignment import model as aligners

    # signals must have the same voxels, and should have the same unit and rate
    start = aligners.load(source) if isinstance(source, Path) else source
    where = source if isinstance(source, Path) else "the model to start from"
    initial = aligner.state_dict()
    refuse_other_voxels(start, aligner)
    spec = aligner.layout.spec
    try:
        start.layout.spec.refuse_other_signals(
            spec.unit, spec.rate_hz, spec.preparation, "what is trained on", False
        )
    except BrainhiveError as error:  # training may adapt to it
        console.warn(f"{where}: {error.message}")

    # rows of subjects: known ones keep theirs, new ones get the mean
    state = start.state_dict()
    old, new = start.layout.spec.subjects, aligner.layout.spec.subjects
    for name in _list_row_weights(start):
        row_of = dict(zip(old, state[name], strict=True))
        state[name] = torch.stack(
            [row_of.get(subject, state[name].mean(0)) for subject in new]
        )

    # modules of subjects: those of absent subjects go, new ones keep their initial
    # weights
    for name in list_subject_weights(start) - initial.keys():
        state.pop(name, None)
    for name in list_subject_weights(aligner) - state.keys():
        state[name] = initial[name]

    # all other names and shapes must agree
    way = (
        "give the same backbone, fuser, encoders, channels, window and dim as its "
        "config.json"
    )
    weights.fill(
        aligner, state, f"the architecture does not match the checkpoint {where}", way
    )
    aligner.losses = start.losses


def refuse_other_voxels(start: Aligner, aligner: Aligner) -> None:
    """Refuse a start that knows a subject of the model by other voxels.

    Raises:
        BrainhiveError: naming what differs.
    """
    spec = aligner.layout.spec
    for index, (subject, width) in enumerate(
        zip(spec.subjects, spec.widths, strict=True)
    ):
        regions = {
            name: subject_regions[index]
            for name, subject_regions in spec.regions.items()
        }
        start.layout.spec.refuse_other_voxels(
            subject, width, regions, f"subject {subject}"
        )


def _list_row_weights(aligner: Aligner) -> set[str]:
    """Name the weights that have a row for each subject: those that one more subject
    makes larger.
    """
    spec = aligner.layout.spec

    # the same aligner with one subject more
    larger = replace(
        spec,
        subjects=(*spec.subjects, max(spec.subjects, default=0) + 1),
        widths=(*spec.widths, max(spec.widths) if spec.widths else spec.channels),
        regions={
            name: (*subjects, subjects[-1]) for name, subjects in spec.regions.items()
        },
    )
    shapes, state = _compute_shapes(aligner, larger), aligner.state_dict()
    return {
        name
        for name, value in state.items()
        if value.shape != shapes.get(name, value.shape)
    }


def list_subject_weights(aligner: Aligner) -> set[str]:
    """Name the weights that go by a subject's number: those that are gone when subjects
    have others.
    """
    spec = aligner.layout.spec
    new_subjects = tuple(subject + 1 + max(spec.subjects) for subject in spec.subjects)
    return (
        aligner.state_dict().keys()
        - _compute_shapes(aligner, replace(spec, subjects=new_subjects)).keys()
    )


def _compute_shapes(aligner: Aligner, spec: SignalSpec) -> dict[str, torch.Size]:
    """Give the names and shapes that the weights of an aligner would have for other
    signals.
    """
    import torch

    from brainhive_cli.training.alignment.model import Aligner

    with torch.device("meta"):
        state = Aligner(replace(aligner.layout, spec=spec)).state_dict()
    return {name: value.shape for name, value in state.items()}
