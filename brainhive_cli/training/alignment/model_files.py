"""Files of a trained brain model's folder: its config, weights and training history."""

from pathlib import Path
from typing import Any

from brainhive_cli.core.base import BrainhiveError, MissingData
from brainhive_cli.core.files import documents
from brainhive_cli.core.runs import METRICS_FILE, weights
from brainhive_cli.data.stores import ARRAYS_FILE, TrainingHistory
from brainhive_cli.training.alignment import layout as layouts

WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""Possible names of the weight file. Brainhive and BrainHiVE write the first."""
DAMAGE_HINT = "run train-align --again, or copy it again"
"""Advice for a damaged model folder."""


def is_model(path: Path) -> bool:
    """Return True if a path is a model folder or a checkpoint, and not a run."""
    has_config = (path / "config.json").is_file()
    is_run = (path / METRICS_FILE).is_file()
    return (has_config and not is_run) or layouts.is_checkpoint(path)


def holds_model(path: Path) -> bool:
    """Return True if a path is a model folder or the checkpoint of a whole model."""
    if layouts.is_checkpoint(path):
        return layouts.holds_model(path)
    return is_model(path)


def read_history(path: Path) -> TrainingHistory:
    """Read the training history of a model folder or checkpoint.

    Raises:
        BrainhiveError: if a file is damaged, or has another format.
    """
    if layouts.is_checkpoint(path):
        return layouts.describe_history(path)
    _, history = read_config(path)
    return history


def read_config(folder: Path) -> tuple[dict[str, Any], TrainingHistory]:
    """Read the config.json of a model folder.

    Returns:
        Fields of the layout, and the training history, which is empty for BrainHiVE.

    Raises:
        BrainhiveError: if a file is damaged, or has another format.
    """
    path = folder / "config.json"
    fields: dict[str, Any] = documents.read(path, hint=DAMAGE_HINT)

    # folders of BrainHiVE have neither `format` nor `learned`
    version = fields.pop("format", layouts.FORMAT)
    documents.check(
        {"format": version}, str(path), dict[str, layouts.FormatVersion], DAMAGE_HINT
    )
    digest = fields.pop("learned", None)
    if digest is None:
        return fields, TrainingHistory()
    file = folder / ARRAYS_FILE
    with weights.reading(file, DAMAGE_HINT, BrainhiveError, (file,)):
        if weights.read_digest(file) != digest:
            raise ValueError(f"it does not belong to {path.name}")
    return fields, TrainingHistory.read(folder, find_weights(folder))


def find_weights(folder: Path) -> Path:
    """Return the weight file of a model folder, or the usual path if there is none."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    return folder / WEIGHT_FILES[0]


def require_weights(path: Path) -> None:
    """Raise an error if the weight file of a model folder is missing or cut short.

    Checkpoints of other projects are not checked.
    """
    if layouts.is_checkpoint(path):
        return
    file = find_weights(path)
    if not file.is_file():
        raise MissingData(f"there is no file {file}", DAMAGE_HINT)
    with weights.reading(file, DAMAGE_HINT, BrainhiveError):
        weights.list_names(file)
