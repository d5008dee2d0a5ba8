"""Files of a trained brain model: which folders hold one, its config and its record."""

from pathlib import Path
from typing import Any

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs import METRICS_FILE
from brainhive_cli.data.stores.learned import TrainingHistory
from brainhive_cli.training.alignment import layout as layouts
from brainhive_cli.training.alignment.layout import FORMAT, FormatVersion

WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""Names of the weight file; the first is what is written, here and upstream."""
WAY = "run train-align --again, or copy it again"
"""Hint for a damaged folder."""


def is_model(path: Path) -> bool:
    """Whether a path is a model's, not a run's."""
    has_config = (path / "config.json").is_file()
    return (
        has_config and not (path / METRICS_FILE).is_file()
    ) or layouts.is_checkpoint(path)


def holds_model(path: Path) -> bool:
    """Whether a path is a model's, by the names of weights where it is a checkpoint."""
    return layouts.holds_model(path) if layouts.is_checkpoint(path) else is_model(path)


def learned_in(folder: Path) -> TrainingHistory:
    """Read what the model of a folder learned from, without its weights.

    Raises:
        BrainhiveError: if a file is damaged, or the format is another.
    """
    if layouts.is_checkpoint(folder):
        return layouts.learned_in(folder)
    return read_config(folder)[1]


def read_config(folder: Path) -> tuple[dict[str, Any], TrainingHistory]:
    """Read a folder's config.json: the fields of the layout, and what the model learned
    from.

    Raises:
        BrainhiveError: if a file is damaged, or the format is another.
    """
    # upstream's folders have neither of these keys
    path = folder / "config.json"
    fields: dict[str, Any] = documents.read(path, hint=WAY)
    documents.check(
        {"format": fields.pop("format", FORMAT)},
        str(path),
        dict[str, FormatVersion],
        WAY,
    )
    block = fields.pop("learned", None)
    return fields, TrainingHistory() if block is None else TrainingHistory.load(
        path, block, find_weights(folder)
    )


def find_weights(folder: Path) -> Path:
    """Find the file of weights in a model folder."""
    # without a weight file the first name, which the error message shows
    return next(
        (folder / name for name in WEIGHTS if (folder / name).is_file()),
        folder / WEIGHTS[0],
    )


def require_weights(folder: Path) -> None:
    """Refuse a model folder whose file of weights is absent or cut short; checkpoints
    of other projects are read as a whole.
    """
    if layouts.is_checkpoint(folder):
        return
    if not (file := find_weights(folder)).is_file():
        raise MissingData(f"there is no file {file}", WAY)
    with weights.reading(file, WAY, BrainhiveError):
        weights.list_names(file)
