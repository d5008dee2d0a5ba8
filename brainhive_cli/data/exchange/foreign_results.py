"""Other people's retrieval results in a folder: similarities or embeddings, ids, scores
by epoch and claims, by their usual names.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import read_regular
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import plain_id, plain_name
from brainhive_cli.measurement.audit import ForeignResult
from brainhive_cli.measurement.ranks import unit

NAMED = "audit.yaml"
"""The file that names arrays, as `similarities: file.npz:key`, and `claims`."""
AGAIN = "save it again, as an array or table of numbers or names"
MATRICES = {
    "train_vectors": r"train",
    "similarities": r"(?<!dis)sim|logits",
    "predicted": r"pred|eeg|meg|fmri|brain",
    "gallery": r"gallery|ima?ge?|clip",
}
"""Pattern of the names of each array [N, M], [N, D]; the first that fits counts."""
LISTS = {
    "log": r"(test|val).*(acc|top|loss|auc|rank)",
    "train_ids": r"train",
    "gallery_ids": r"gallery|candidate",
    "seen": r"seen|test|label|target|(id|name)s?\b",
}
"""Pattern of the names of each list of names, row numbers or scores."""
CLAIMS = {
    role: rf"^((test|mean|best|metrics|results?)_)*({pattern})$"
    for role, pattern in {
        **{f"top{k}": rf"(top|acc|recall)[\W_]?{k}" for k in (3, 5)},
        "top1": r"(top|acc|recall)[\W_]?1|acc(uracy)?",
        "pool": r"pool(_size)?|n?[\W_]?ways?",
        "interval": r"ci|interval",
    }.items()
}
"""Pattern of the name of each claimed value."""


def open_result(folder: Path) -> ForeignResult:
    """Read the files of a folder, and find what each array, list and value is.

    Raises:
        MissingData: if there are no similarities or embeddings, or no such folder.
        BrainhiveError: if arrays do not belong together, or several have one role.
    """
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}", "name a folder of results")

    # what is there, by file:name
    values: dict[str, Array] = {}
    for path in sorted(folder.iterdir()):
        try:
            with reading(path, AGAIN):
                for name, value in _flatten("", _read(path)):
                    values[f"{path.name}:{name}".rstrip(":")] = value
        except BrainhiveError as error:
            console.warn(f"not read: {error.message}")
    named: dict[str, Any] = {}
    if (folder / NAMED).is_file():
        named = documents.read(folder / NAMED, hint=f"correct {folder / NAMED}")
    for role in named.keys() - (roles := {*MATRICES, *LISTS, "claims"}):
        raise RecipeError(
            f"{folder / NAMED} names {role!r}, which is no role",
            f"roles: {', '.join(sorted(roles))}",
        )

    def choose(role: str, size: int = 0) -> Array:
        """Find the value of a role, of a size if there is one; else an empty one."""
        labels = [
            label
            for label, value in values.items()
            if value.ndim
            and size in (0, len(value))
            and _find_role(MATRICES if value.ndim > 1 else LISTS, label) == role
        ]
        if role in named:
            labels = [str(named[role])]
        arrays = [values[label] for label in labels if label in values]
        is_clear = all(np.array_equal(array, arrays[0]) for array in arrays)
        if not is_clear or len(arrays) < len(labels):
            raise MissingData(
                f"{folder}: {role} could be {', '.join(labels)}, of {[*values]}",
                f"name one in {folder / NAMED}: {role}: FILE:KEY",
            )
        return arrays[0] if arrays else np.empty((0, 0))

    def read_matrix(role: str) -> Tensor:
        """Read an array [N, M] or [N, D]; what is no number is similar to nothing."""
        tensor = torch.as_tensor(choose(role).copy()).flatten(1).nan_to_num(0.0)
        return tensor if tensor.is_floating_point() else tensor.double()

    # similarities are of a file, or cosines of embeddings, as precise as these
    similarities, gallery = read_matrix("similarities"), read_matrix("gallery")
    predicted = read_matrix("predicted")
    if not len(similarities) and predicted.shape[1] == gallery.shape[1]:
        precision = torch.promote_types(predicted.dtype, gallery.dtype)
        similarities = (unit(predicted) @ unit(gallery).T).to(precision)
    if not similarities.numel():
        problem = f"{folder} has no similarities [N, M], or predictions [N, D] and a "
        raise MissingData(
            f"{problem}gallery [M, D] that match, but {', '.join(values) or 'nothing'}",
            f"name the arrays in {folder / NAMED}: similarities: FILE.npz:KEY",
        )
    count, width = similarities.shape

    # names by role; row numbers are names of the rows of a gallery without any
    train_ids, gallery_ids, seen = (
        [plain_name(plain_id(text)) for text in choose(role, size).astype(str)]
        for role, size in (("train_ids", 0), ("gallery_ids", width), ("seen", count))
    )
    numbers = [str(row) for row in range(width)]
    gallery_ids = gallery_ids or (numbers if {*seen} <= {*numbers} else seen)
    seen = seen or (gallery_ids if count == width else [])
    listed = np.array(gallery_ids)
    targets = [torch.from_numpy(np.flatnonzero(listed == name)) for name in seen]
    if len(listed) != width or len(seen) != count or not all(map(len, targets)):
        raise MissingData(
            f"{folder}: nothing says which of {width} candidates {count} signals show",
            f"add lists of names, and name them in {NAMED}: seen, gallery_ids",
        )
    return ForeignResult(
        similarities,
        pad_sequence(targets, batch_first=True, padding_value=-1),
        seen,
        train_ids,
        gallery if len(gallery) == width else None,
        read_matrix("train_vectors"),
        _read_log(values),
        _read_claims({**values, **dict(_flatten("", named.get("claims")))}),
    )


def _read(path: Path) -> Any:
    """Read an array, a list of names, or a document or table of these by name."""
    if path.suffix in pickles.ENDINGS:
        return pickles.load(path, way_out=AGAIN)
    if path.suffix == ".json":
        return documents.read(path, TypeAdapter(Any), AGAIN)
    if path.suffix not in (".csv", ".txt"):
        return None
    lines = [*filter(None, read_regular(path).decode("utf-8-sig").splitlines())]
    if path.suffix == ".txt":
        return lines
    rows = [*csv.DictReader(lines)]
    return {name: [row[name] or "nan" for row in rows] for name in rows[0]}


def _flatten(name: str, content: Any) -> Iterator[tuple[str, Array]]:
    """Give arrays, lists and values with their names."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(f"{name}_{key}".strip("_"), value)
    else:
        # anything else is no number, name or array
        with suppress(TypeError, ValueError):
            yield name, pickles.array(content)


def _find_role(patterns: Mapping[str, str], label: str) -> str:
    """Find what a value is by its name in the file, else by that of the file."""
    name = label.rpartition(":")[2].lower()
    return next((role for role in patterns if re.search(patterns[role], name)), "")


def _read_log(values: Mapping[str, Array]) -> dict[str, Float64]:
    """Read scores by epoch, of two epochs or more."""
    log = dict[str, Float64]()
    for label, value in values.items():
        if value.ndim == 1 and _find_role(LISTS, label) == "log":
            with suppress(ValueError):
                scores = value.astype(np.float64)
                if np.isfinite(scores).sum() > 1:
                    log[label.rpartition(":")[2].lower()] = scores
    return log


def _read_claims(values: Mapping[str, Array]) -> dict[str, float]:
    """Read claimed values, shares in percent; of an interval half its width."""
    claims, is_percent = dict[str, float](), False
    for label, value in values.items():
        role = _find_role(CLAIMS, label)
        if role and value.size == (2 if role == "interval" else 1):
            with suppress(ValueError):
                numbers = np.char.strip(value.astype(str), " %").astype(np.float64)
                claims[role] = float(
                    numbers.max() if value.size == 1 else np.ptp(numbers) / 2
                )
                is_percent |= role != "pool" and ("%" in str(value) or claims[role] > 1)
    return {
        role: value if is_percent or role == "pool" else 100 * value
        for role, value in claims.items()
    }
