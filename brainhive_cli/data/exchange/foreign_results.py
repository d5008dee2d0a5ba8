"""Other people's retrieval results in a folder: similarities or embeddings, ids, scores
by epoch and claims, by their usual names.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    first_line,
)
from brainhive_cli.core.files import read_lines
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.ids import plain_id, plain_name, summarise_names
from brainhive_cli.measurement.foreign_result import ForeignResult
from brainhive_cli.measurement.readings import COSINE, compute_similarities

NAMED = "audit.yaml"
"""The file that names arrays, as `similarities: file.npz:key`, and `claims`."""
AGAIN = "save it again, as an array or table of numbers or names"
MAX_NAME_LETTERS = 256
"""Letters of the longest name of a value; values with longer ones are not read."""
MAX_VALUES = 100_000
"""Most values of one file."""
MAX_PADDING = 10
"""Cells of a table for each one that is in its file, at most."""
MAX_LISTED_LETTERS = 1000
"""Letters of the names that a message lists."""
LARGEST = 1e30
"""Numbers further from zero are missing: their squares are infinite in float32."""
MATRICES = {
    "train_vectors": r"train",
    "similarities": r"(?<!dis)sim|logits",
    "predicted": r"pred|eeg|meg|fmri|brain",
    "gallery": r"gallery|ima?ge?|clip",
}
"""Pattern of the names of each array [N, M], [N, D]; the first that fits counts."""
SEVERAL = ("similarities", "predicted")
"""Roles that have an array of each seed or subject."""
LISTS = {
    "log": r"(test|val|dev|train).*(acc|top|loss|auc|rank)",
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
        "trainings": r"(n|num)?_?(seeds|subjects|folds|runs)",
        "spread": r"(top|acc|recall)\w*_(std|sd)",
        "interval": r"ci|interval",
    }.items()
}
"""Pattern of the name of each claimed value."""
COUNTS = {"pool", "trainings"}
"""Claims that are no shares."""
MAX_CLAIM = 1e9
"""The largest claimed count or share."""


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
            with report_damage(path, AGAIN):
                for name, value in _read_values(path).items():
                    values[f"{path.name}:{name}".rstrip(":")] = value
        except BrainhiveError as error:
            console.warn(f"not read: {error.message}")
    listed = ", ".join(values)[:MAX_LISTED_LETTERS] or "nothing"
    named: dict[str, Any] = {}
    if (folder / NAMED).is_file():
        named = documents.read(folder / NAMED, hint=f"correct {folder / NAMED}")
    for role in named.keys() - (roles := {*MATRICES, *LISTS, "claims"}):
        raise RecipeError(
            f"{folder / NAMED} names {role!r}, which is no role",
            f"roles: {', '.join(sorted(roles))}",
        )
    for role, value in named.items():
        if not isinstance(value, dict if role == "claims" else str):
            raise RecipeError(
                f"{folder / NAMED}: {role} is {documents.show_value(value)}",
                "write claims as {top1: 41.0 %, pool: 200}, and all else as FILE:KEY",
            )

    def choose_all(role: str, size: int = 0) -> list[Array]:
        """Find the values of a role, of a size if there is one. Several differ only by
        the numbers in their names, as those of seeds do.
        """
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
        kinds = {re.sub(r"\d+", "", label) for label in labels}
        are_seeds = len(kinds) == len({array.shape for array in arrays}) == 1
        # NaN is not equal to itself
        is_clear = all(np.array_equal(array, arrays[0]) for array in arrays[1:])
        if not (is_clear or (are_seeds and role in SEVERAL)) or len(arrays) < len(
            labels
        ):
            options = ", ".join(labels)[:MAX_LISTED_LETTERS]
            raise MissingData(
                f"{folder}: {role} could be {options}, of {listed}",
                f"name one in {folder / NAMED}: {role}: FILE:KEY",
            )
        for label, array in zip(labels, arrays, strict=True):
            _check_array(array, role, f"{folder / label}")
        return arrays[:1] if is_clear else arrays

    def choose(role: str, size: int = 0) -> Array:
        """Find the value of a role, of a size if there is one; else an empty one."""
        arrays = choose_all(role, size)
        return arrays[0] if arrays else np.empty((0, 0))

    # similarities are of a file, or cosines of embeddings, as precise as these
    gallery = _as_matrix(choose("gallery"))
    predictions = [_as_matrix(array) for array in choose_all("predicted")]
    predictions = [each for each in predictions if each.shape[1] == gallery.shape[1]]
    matrices = list[Tensor]()
    for array in choose_all("similarities"):
        stack = array if array.ndim == 3 else array[None]
        matrices += [_as_matrix(similarities) for similarities in stack]
    if not matrices:
        for predicted in predictions:
            precision = torch.promote_types(predicted.dtype, gallery.dtype)
            matrices.append(
                compute_similarities(predicted, gallery, COSINE).to(precision)
            )
    if not matrices or not matrices[0].numel():
        problem = f"{folder} has no similarities [N, M], or predictions [N, D] and a "
        raise MissingData(
            f"{problem}gallery [M, D] that match, but {listed}",
            f"name the arrays in {folder / NAMED}: similarities: FILE.npz:KEY",
        )
    if not len(choose("seen", len(matrices[0]))):
        is_turned = (
            matrices[0].shape[0]
            != matrices[0].shape[1]
            == len(choose("seen", matrices[0].shape[1]))
        )
        matrices = [matrix.T if is_turned else matrix for matrix in matrices]
    count, width = matrices[0].shape

    # names by role; row numbers are names of the rows of a gallery without any
    train_ids, gallery_ids, seen = (
        [plain_name(plain_id(text)) for text in choose(role, size).astype(str)]
        for role, size in (("train_ids", 0), ("gallery_ids", width), ("seen", count))
    )
    rows_of = [str(row) for row in range(width)]
    if not seen and count == width:
        seen = gallery_ids or rows_of

    # labels may count from 0, from 1, or be names of candidates in their order
    meanings = {"names": gallery_ids}
    if not gallery_ids:
        meanings = {
            "labels that count from 0": rows_of,
            "labels that count from 1": [str(row + 1) for row in range(width)],
            "candidates in the order of signals": seen,
        }
    targets = dict[str, Tensor]()
    for meaning, names in meanings.items():
        rows_of_name = defaultdict[str, list[int]](list)
        for row, name in enumerate(names):
            rows_of_name[name].append(row)
        rows = [torch.tensor(rows_of_name.get(name, [])) for name in seen]
        if len(names) != width or len(rows) != count or not all(map(len, rows)):
            continue
        if min(map(len, rows)) < width:  # else no candidate is wrong
            targets[meaning] = pad_sequence(rows, batch_first=True, padding_value=-1)
    first = targets.pop(next(iter(targets), ""), None)
    if first is None:
        raise MissingData(
            f"{folder}: nothing says which of {width} candidates {count} signals show",
            f"add lists of names, and name them in {NAMED}: seen, gallery_ids",
        )
    for name, claim in _flatten("", named.get("claims", {})):
        with suppress(TypeError, ValueError, OverflowError):
            values[f"{NAMED}:{name}"] = _read_array(claim)
    claims = _read_claims(values)
    results = list[ForeignResult]()
    if len(predictions) != len(matrices):
        predictions = []
    for similarities, predicted in zip_longest(matrices, predictions):
        results.append(
            ForeignResult(
                similarities=similarities,
                targets=first,
                seen_names=seen,
                train_ids=train_ids,
                gallery=gallery if len(gallery) == width else None,
                train_embeddings=_as_matrix(choose("train_vectors")),
                log=_read_log(values),
                claims=claims,
                predictions=predicted,
                alternative_targets=targets,
            )
        )
    return replace(results[0], other_trainings=results[1:])


def _check_array(array: Array, role: str, where: str) -> None:
    """Refuse what cannot have a role: a list as a matrix, names as numbers, no number.

    Raises:
        MissingData: naming the array, its type and shape.
    """
    is_matrix = role in MATRICES
    if is_matrix == (array.ndim < 2) or not array.ndim:
        kind = "a matrix of numbers" if is_matrix else "a list of names or numbers"
        raise MissingData(
            f"{where} is {array.dtype} {list(array.shape)}, and {role} is {kind}",
            f"save it again, or name another in {NAMED}: {role}: FILE:KEY",
        )
    if is_matrix and array.size and not np.isfinite(_as_numbers(array)).any():
        raise MissingData(
            f"{where}: none of its {array.size:,} values is a number up to {LARGEST:g}",
            f"save it again, or name another in {NAMED}: {role}: FILE:KEY",
        )


def _as_matrix(array: Array) -> Tensor:
    """Make a matrix [N, M] or [N, D]; NaN is a missing value."""
    return torch.from_numpy(_as_numbers(array)).flatten(1)


def _as_numbers(values: Array) -> Array:
    """Copy numbers as floats; NaN where they are missing, infinite or too large.

    Raises:
        ValueError: if they are names.
    """
    numbers = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
    limit = min(LARGEST, float(np.finfo(numbers.dtype).max))
    numbers[~(np.abs(numbers) <= limit)] = np.nan
    return numbers


def _read_values(path: Path) -> dict[str, Array]:
    """Read the arrays, lists and values of a file by name, and warn of what is neither
    numbers nor names.
    """
    values = dict[str, Array]()
    unread = dict[str, str]()
    for count, (name, content) in enumerate(_flatten("", _read(path))):
        if count >= MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        if content is None:
            continue
        try:
            values[name] = _read_array(content)
        except (TypeError, ValueError, OverflowError) as error:
            unread[name or path.name] = first_line(error)
    if unread:
        names = summarise_names([*unread])[:MAX_LISTED_LETTERS]
        reason = next(iter(unread.values()))
        console.warn(f"not read: {path}: values without use, {names} ({reason})")
    return values


def _read(path: Path) -> Any:
    """Read an array, a list of names, or a document or table of these by name."""
    if path.suffix in pickles.ENDINGS:
        return pickles.load(path, way_out=AGAIN)
    if path.suffix == ".json":
        return documents.read(path, TypeAdapter(Any), AGAIN, has_nan=True)
    if path.suffix not in (".csv", ".txt"):
        return None
    lines = [*filter(None, read_lines(path))]
    if path.suffix == ".txt":
        return lines
    heads, *rows = csv.reader(lines) if lines else [[]]
    if len(rows) * len(heads) > MAX_PADDING * sum(map(len, rows)):
        raise ValueError("most of its rows are shorter than its heading")
    columns = zip_longest(heads, *rows, fillvalue="")
    return {head: [cell or "nan" for cell in cells] for head, *cells in columns if head}


def _flatten(name: str, content: Any) -> Iterator[tuple[str, Any]]:
    """Give whatever is no mapping with its name; None instead of what has too long a
    name.
    """
    if not isinstance(content, Mapping) or not content:
        yield name, content
        return
    for key, value in content.items():
        inner = f"{name}_{key}".strip("_")
        is_short = len(inner) <= MAX_NAME_LETTERS
        yield from _flatten(inner, value if is_short else None)


def _read_array(content: Any) -> Array:
    """Make an array of native numbers or of text; null is NaN among numbers.

    Raises:
        TypeError: if it is something else, as dates, complex numbers or structures.
        ValueError: if it is empty or ragged, or text that is not UTF-8.
    """
    try:
        values = pickles.array(content)
    except TypeError:
        values = np.asarray(content, np.float64)
    if not values.size:
        raise ValueError("it is empty")
    if values.dtype.hasobject:
        is_text = all(isinstance(item, str) for item in values.flat)
        values = values.astype(np.str_ if is_text else np.float64)
    kind = values.dtype.kind
    if kind == "S":
        return np.asarray(np.char.decode(values, "utf-8"))
    if kind == "U" and values.ndim > 1:
        return values.astype(np.float64)
    if kind not in "biufU":
        raise TypeError(f"{values.dtype} is neither numbers nor names")
    if values.dtype.itemsize > 8 and kind == "f":
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _find_role(patterns: Mapping[str, str], label: str) -> str:
    """Find what a value is by its name in the file, else by that of the file."""
    name = label.rpartition(":")[2].lower()
    return next((role for role in patterns if re.search(patterns[role], name)), "")


def _read_log(values: Mapping[str, Array]) -> dict[str, Float64]:
    """Read scores by epoch, of two epochs or more, of each training in a table."""
    log = dict[str, Float64]()
    for label, value in values.items():
        if value.ndim != 1 or _find_role(LISTS, label) != "log":
            continue
        with suppress(ValueError):
            scores = _as_numbers(value).astype(np.float64)
            starts = _find_starts(values, label)
            for number, part in enumerate(np.split(scores, starts)):
                if np.isfinite(part).sum() > 1:
                    training = f"training {number} " if len(starts) else ""
                    log[f"{training}{label}".lower()] = part
    return log


def _find_starts(values: Mapping[str, Array], label: str) -> Int64:
    """Find where epochs begin again in a table of several trainings.

    Raises:
        ValueError: if the rows of trainings are mixed.
    """
    for name in ("epoch", "epochs", "step"):
        epochs = values.get(f"{label.rpartition(':')[0]}:{name}")
        if epochs is not None and epochs.shape == values[label].shape:
            starts = 1 + np.flatnonzero(np.diff(_as_numbers(epochs)) <= 0)
            times = np.unique(epochs, return_counts=True)[1].max()
            if len(starts) >= times:
                raise ValueError("epochs of trainings are mixed")
            return starts
    return np.empty(0, np.int64)


def _read_claims(values: Mapping[str, Array]) -> dict[str, float]:
    """Read claimed values, shares in percent; of an interval half its width."""
    claims = dict[str, float]()
    is_percent = False
    for label, value in values.items():
        role = _find_role(CLAIMS, label)
        if role == "trainings" and value.size > 1:
            claims[role] = value.size
        elif role == "spread":
            claims.setdefault("trainings", 2)
        elif role and value.size == (2 if role == "interval" else 1):
            with suppress(ValueError):
                numbers = np.char.strip(value.astype(str), " %").astype(np.float64)
                claim = float(numbers.max() if value.size == 1 else np.ptp(numbers / 2))
                if not (role in COUNTS) <= claim <= MAX_CLAIM:
                    console.warn(f"not read: {label} claims {claim:g} as {role}")
                    continue
                claims[role] = claim
                is_percent |= role not in COUNTS and ("%" in str(value) or claim > 1)
    return {
        role: value if is_percent or role in COUNTS else 100 * value
        for role, value in claims.items()
    }
