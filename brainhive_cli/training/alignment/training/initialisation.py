"""Weights from which a model and its stages start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    console,
    find_error,
)
from brainhive_cli.core.files import Input, documents, hub, locate
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs import (
    RunFolder,
    find_labelled,
    run_folder as runs,
    weights,
)
from brainhive_cli.data.stores import EpochSelection, TrainingHistory
from brainhive_cli.models import (
    SignalSpec,
    find_file_input,
    find_weight_file,
    strip_prefix,
)
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.training.alignment import (
    TRAINING,
    Cell,
    Train,
    choose_cell,
    find_recipe_name,
    find_reference,
    layout as layouts,
    list_model_folders,
    model_files,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from brainhive_cli.training.alignment import Aligner
    from brainhive_cli.training.alignment.training.batches import CellData

REFERENCE_SD = 0.02
"""Standard deviation of initial weights: `initializer_range` of transformers."""
WEIGHT_PATTERN = "*.safetensors"
"""Pattern of the weight files of repositories."""
OpenedRuns = dict[str, RunFolder]
"""Runs that were found before, by reference."""
StartFiles = dict[str, Path]
"""Model folder, checkpoint or file of weights, by the module that starts from it. "" is
the whole model.
"""
References = Sequence[Mapping[str, str]]
"""Reference of the weights of each stage, by module, as `Train.starts` returns them."""


@runtime_checkable
class HasPretrainedWeights(Protocol):
    """Config of a backbone with a key for pretrained weights."""

    pretrained: str | None


@runtime_checkable
class LoadsPretrainedWeights(Protocol):
    """Module that loads pretrained weights itself."""

    def load_pretrained(self) -> None:
        """Load the weights."""


def make_aligner(
    seed: int,
    layout: layouts.Layout,
    data: CellData,
    init: Literal["torch", "reference"],
) -> Aligner:
    """Make a model with initial weights.

    With `init` "reference", they are drawn as BrainHiVE's. Then the pretrained weights
    of the backbone are loaded, and the fuser of a prior is copied from `data`.
    """
    import torch

    from brainhive_cli.training.alignment import Aligner

    torch.manual_seed(seed)
    aligner = Aligner(layout)
    if init == "reference":
        aligner.apply(_draw_reference_weights)
    for module in aligner.backbone.modules():
        if isinstance(module, LoadsPretrainedWeights):
            module.load_pretrained()
    copy_fuser(aligner, data)
    return aligner


def copy_fuser(aligner: Aligner, data: CellData) -> None:
    """Copy and freeze the fuser of a prior, if the cell has a prior.

    Raises:
        BrainhiveError: if the prior was trained on embeddings of another width.
    """
    if data.fuser is None:
        return
    assert aligner.fuser is not None
    source = f"the fuser of the prior {aligner.layout.prior}"
    weights.fill(aligner.fuser, data.fuser.state_dict(), source)
    aligner.fuser.requires_grad_(False)


def _draw_reference_weights(module: nn.Module) -> None:
    """Draw the weights of linear layers, convolutions and embeddings again.

    Source: `PreTrainedModel._init_weights` of transformers 4.57 and 5, which
    BrainHiVE's model inherits.
    """
    from torch import Tensor, nn

    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.Embedding):
        nn.init.normal_(module.weight, std=REFERENCE_SD)
        # an embedding has no bias
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def make_history(data: CellData, train: Train) -> TrainingHistory:
    """Make the training history of a cell, and of the models it starts from."""
    # without held-out pictures, no validation selects the best epoch
    best: EpochSelection = "last epoch"
    for trials in data.trials:
        if data.held_out[trials.stimulus[trials.stimulus >= 0]].any():
            best = "validation"
    selections: dict[str, EpochSelection] = {
        "best": best,
        "last": "last epoch",
        "test": "test",
        "recordings": "validation",
    }
    history = replace(data.history, selection=selections[train.selection])
    for start_files in data.start_files.values():
        for module_name, path in start_files.items():
            start_history = read_history(path, module_name)
            if start_history is not None:
                history = history.inherit(start_history)
    return history


def list_pretrained_weights(backbone: BackboneConfig) -> list[str]:
    """List the published weights that a backbone and backbones inside it start from.

    Returns:
        The kind of the backbone for its default weights, or the reference of others.
    """
    names = []
    for value in vars(backbone).values():
        if isinstance(value, BackboneConfig):
            names += list_pretrained_weights(value)
    if isinstance(backbone, HasPretrainedWeights) and backbone.pretrained:
        default = type(backbone).model_fields["pretrained"].default
        is_default = backbone.pretrained == default
        names.append(backbone.kind if is_default else backbone.pretrained)
    return names


def read_history(path: Path, module_name: str) -> TrainingHistory | None:
    """Read the training history of the weights from which a module starts.

    Args:
        path: Model folder, checkpoint or file of weights.
        module_name: Name of the module, or "" for the whole model.

    Returns:
        The history, which may be unknown, or None for a public network that was not
        trained on brain signals: a network in the layout of transformers, or a file
        that is fetched with a data set.
    """
    if model_files.holds_model(path):
        return model_files.read_history(path)
    config_file = path.parent / "config.json"
    is_public = parts.is_kind("datasets", path.parent.name)
    if config_file.is_file():
        config = documents.read(config_file, dict[str, Any])
        is_public = is_public or "model_type" in config
    if module_name and is_public and not layouts.is_upstream(weights.read(path)):
        return None
    return TrainingHistory.read(path.parent, path)


def load_start(aligner: Aligner, path: Path, module_name: str = "") -> None:
    """Load the weights from which a stage starts.

    Args:
        aligner: Model, which is changed in place.
        path: Model folder, checkpoint, or file of weights of the module or of a module
            around it.
        module_name: Name of the module, or "" for the whole model.

    Raises:
        BrainhiveError: if the weights have another architecture, or lack the module.
    """
    from brainhive_cli.training.alignment import model as aligners

    if not module_name:
        copy_weights(aligner, aligners.load(path), path)
        return
    prefix = f"{module_name}."
    target_weights = strip_prefix(aligner.state_dict(), prefix)
    start = None
    if path.is_dir() or model_files.holds_model(path):
        start = aligners.load(path)
    source_weights = weights.read(path) if start is None else start.state_dict()
    source_prefix = _find_prefix(
        module_name, target_weights, source_weights, is_model=start is not None
    )
    loaded_weights = strip_prefix(source_weights, source_prefix)
    matching_names = loaded_weights.keys() & target_weights.keys()
    subject_weights = list_subject_weights(aligner)
    subject_names = {
        name for name in target_weights if prefix + name in subject_weights
    }
    if start is not None:
        surplus = {prefix + name for name in loaded_weights.keys() - matching_names}
        surplus -= list_subject_weights(start)
        if matching_names and surplus:
            console.warn(
                f"{path}: {len(matching_names)} of {len(loaded_weights)} weights of "
                f"{module_name} are loaded, but for example not {min(surplus)}"
            )
        # weights of a subject fit the same voxels only
        if subject_names & matching_names:
            refuse_other_voxels(start, aligner)

    # modules of new subjects keep their initial weights
    state = {name: target_weights[name] for name in subject_names}
    state |= {name: loaded_weights[name] for name in matching_names}
    hint = (
        "set the same sizes in the recipe's backbone, or leave the module out of "
        "start_from"
    )
    if not matching_names:
        raise BrainhiveError(f"{path} has no weights of the module {module_name}", hint)
    module = aligner.get_submodule(module_name)
    weights.fill(module, state, f"{path}: {module_name}", hint)


def _find_prefix(
    module_name: str,
    target_names: Collection[str],
    source_names: Collection[str],
    is_model: bool,
) -> str:
    """Find the prefix of a module's weights in a model or file.

    Without the module's own name, it is the prefix with most of its weights. GPT-2's
    are `wte.weight` in the file of the hub, and `transformer.wte.weight` in a file with
    the last layer.

    Args:
        target_names: Names of the module's weights, without prefix.
        is_model: If False, the prefix must be part of the module's name.
    """
    prefix = f"{module_name}."
    if any(name.startswith(prefix) for name in source_names):
        return prefix
    counts: Counter[str] = Counter()
    for name in source_names:
        pieces = name.split(".")
        for depth in range(len(pieces)):
            candidate = "".join(f"{piece}." for piece in pieces[:depth])
            is_possible = is_model or f".{prefix}".endswith(f".{candidate}")
            if is_possible and ".".join(pieces[depth:]) in target_names:
                counts[candidate] += 1

    # of equal counts, the prefix that ends in the name of the module wins
    last_name = f".{module_name.rpartition('.')[2]}."
    return max(
        counts,
        key=lambda name: (counts[name], f".{name}".endswith(last_name)),
        default=prefix,
    )


def find_starts(
    references: References, cell: Cell, paths: Paths, opened: OpenedRuns
) -> dict[int, StartFiles]:
    """Find the weights from which each stage starts, by the number of the stage.

    A reference is a model folder, a checkpoint, a run of train-align, a recipe (for its
    newest run), a file of weights, or `hub:owner/name` with one of these.

    If a run has several models, the model with the name of the cell is taken.

    Raises:
        MissingData: if a run or file does not exist.
        RecipeError: if several models of a run could be meant.
    """
    starts = {}
    for number, names in enumerate(references):
        if names:
            starts[number] = {
                module_name: _find_path(reference, cell, paths, opened)
                for module_name, reference in names.items()
            }
    return starts


def pin_starts(
    references: References, paths: Paths, opened: OpenedRuns
) -> dict[str, str]:
    """Find the current version of each reference that can change.

    Returns:
        The newest run of a recipe and the newest commit of a repository, by reference.
    """
    root = paths.under_home("runs")
    versions: dict[str, str] = {}
    for reference in chain.from_iterable(start.values() for start in references):
        if reference in versions:
            continue
        if reference.startswith(hub.HUB_PREFIX):
            path = _find_weights(reference)
            if path is None:
                path = _find_run(reference, paths, opened).path
            # weights without a model lie next to their config in the repository
            elif path.is_file() and not _is_weight_file(reference):
                path = path.parent
            versions[reference] = hub.name_snapshot(path)
        elif find_recipe_name(reference, root) or find_labelled(
            root, TRAINING, reference
        ):
            run = _find_run(reference, paths, opened)
            versions[reference] = runs.reference(run, root / TRAINING)
    return versions


def list_start_inputs(
    references: References, cell: Cell, paths: Paths, backbone: Any, opened: OpenedRuns
) -> list[Input]:
    """List the weights that the stages and the backbone load, without downloads."""
    inputs = []
    if isinstance(backbone, HasPretrainedWeights) and backbone.pretrained:
        inputs.append(
            hub.find_input(backbone.pretrained, (), (WEIGHT_PATTERN,), ("config.json",))
        )
    for reference in chain.from_iterable(start.values() for start in references):
        if not reference.startswith(hub.HUB_PREFIX):
            find_path = partial(_find_path, reference, cell, paths, opened)
            inputs.append(Input(reference, error=find_error(find_path)))
        elif _is_weight_file(reference):
            inputs.append(find_file_input(reference))
        else:
            # weights of a network or of the models of a run
            patterns = (WEIGHT_PATTERN, f"cells/**/{model_files.WEIGHT_FILES[0]}")
            inputs.append(hub.find_input(reference, (), patterns, ("*.json",)))
    return inputs


def _find_run(reference: str, paths: Paths, opened: OpenedRuns) -> RunFolder:
    """Find a run, once for all cells."""
    if reference not in opened:
        opened[reference] = find_reference(reference, paths)
    return opened[reference]


def _find_path(reference: str, cell: Cell, paths: Paths, opened: OpenedRuns) -> Path:
    """Find the weights that a reference names, from which a cell starts.

    Returns:
        The file, or a model folder. A run's model with the cell's name is preferred.
    """
    if reference not in opened:
        file = _find_weights(reference)
        if file is not None:
            return file
    run = _find_run(reference, paths, opened)
    folders = list_model_folders(run)
    name = cell.name if cell.name in folders else ""
    return choose_cell(folders, name, run.name)


def _find_weights(reference: str) -> Path | None:
    """Find the file of weights that a reference names, such as `hub:owner/name`.

    Returns:
        The file. For a repository without weights, its snapshot folder. None if the
        reference is a model or run.

    Raises:
        MissingData: if the file does not exist.
    """
    is_on_hub = reference.startswith(hub.HUB_PREFIX)
    if _is_weight_file(reference):
        if is_on_hub:
            return find_weight_file(reference)
        path = locate(reference)
        if path.is_file():
            return path
        # files of a data set are fetched with it, such as data/cc2017/FILE
        hint: Line | str = "set train.stages start_from=FILE"
        if parts.is_kind("datasets", path.parent.name):
            hint = Line("fetch", path.parent.name)
        raise MissingData(f"no file {path}, from which a stage starts", hint)
    if not is_on_hub:
        return None

    # a repository may hold the weights of a network without our model or run
    kind, pinned = hub.inspect_repository(reference)
    if kind:
        return None
    folder = hub.folder(pinned, allow=[WEIGHT_PATTERN, "config.json"])
    files = sorted(folder.glob(WEIGHT_PATTERN))
    return files[0] if files else folder


def _is_weight_file(reference: str) -> bool:
    """Return True if a reference is a file of weights, on the hub with any revision."""
    if reference.startswith(hub.HUB_PREFIX):
        reference = reference.partition("@")[0]
    # Ends of the names of weight files.
    return reference.endswith((".safetensors", ".bin", ".pt", ".pth"))


def copy_weights(
    aligner: Aligner, start: Aligner, source: object = "the model to start from"
) -> None:
    """Copy the weights of another model.

    In weights with a row for each subject, a new subject's row becomes the mean of the
    rows. Modules of a new subject keep their initial weights.

    Args:
        aligner: Model, which is changed in place.
        start: Other model.
        source: Folder or description of the other model, for messages.

    Raises:
        BrainhiveError: if the architectures differ.
    """
    import torch

    # voxels must be the same, but training may adapt to another unit or rate
    refuse_other_voxels(start, aligner)
    spec = aligner.layout.spec
    try:
        start.layout.spec.refuse_other_signals(
            spec.unit, spec.rate_hz, spec.preparation, "what is trained on", False
        )
    except BrainhiveError as error:
        console.warn(f"{source}: {error.message}")

    # weights with a row for each subject
    state = start.state_dict()
    for name in _list_row_weights(start):
        mean = state[name].mean(0)
        row_of = dict(zip(start.layout.spec.subjects, state[name], strict=True))
        rows = [row_of.get(subject, mean) for subject in spec.subjects]
        state[name] = torch.stack(rows)

    # modules of single subjects
    initial_state = aligner.state_dict()
    for name in list_subject_weights(start) - initial_state.keys():
        state.pop(name, None)
    for name in list_subject_weights(aligner) - state.keys():
        state[name] = initial_state[name]
    weights.fill(
        aligner,
        state,
        f"the architecture does not match the checkpoint {source}",
        "set the same backbone, fuser, encoders, channels, window and dim as its "
        "config.json",
    )
    aligner.losses = start.losses


def refuse_other_voxels(start: Aligner, aligner: Aligner) -> None:
    """Raise an error if two models know a subject by different voxels.

    Raises:
        BrainhiveError: with the name of the subject.
    """
    spec = aligner.layout.spec
    for index, subject in enumerate(spec.subjects):
        regions = {name: regions[index] for name, regions in spec.regions.items()}
        start.layout.spec.refuse_other_voxels(
            subject, spec.widths[index], regions, f"subject {subject}"
        )


def _list_row_weights(aligner: Aligner) -> set[str]:
    """List the names of weights with a row for each subject, such as an embedding.

    Their shape changes if the same model is built with an additional subject.
    """
    spec = aligner.layout.spec
    width = max(spec.widths) if spec.widths else spec.channels
    larger_spec = replace(
        spec,
        subjects=spec.subjects + (max(spec.subjects, default=0) + 1,),
        widths=spec.widths + (width,),
        regions={
            name: regions + regions[-1:] for name, regions in spec.regions.items()
        },
    )
    shapes = _compute_shapes(aligner, larger_spec)
    return {
        name
        for name, value in aligner.state_dict().items()
        if value.shape != shapes.get(name, value.shape)
    }


def list_subject_weights(aligner: Aligner) -> set[str]:
    """List the names of weights in modules of a single subject.

    They change if the same model is built with other subject numbers.
    """
    spec = aligner.layout.spec
    new_subjects = tuple(subject + 1 + max(spec.subjects) for subject in spec.subjects)
    shapes = _compute_shapes(aligner, replace(spec, subjects=new_subjects))
    return aligner.state_dict().keys() - shapes.keys()


def _compute_shapes(aligner: Aligner, spec: SignalSpec) -> dict[str, torch.Size]:
    """Compute the shapes of the weights of a model for other signals, by name."""
    import torch

    from brainhive_cli.training.alignment import Aligner

    with torch.device("meta"):
        state = Aligner(replace(aligner.layout, spec=spec)).state_dict()
    return {name: value.shape for name, value in state.items()}
