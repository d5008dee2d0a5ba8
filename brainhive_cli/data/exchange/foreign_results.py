"""Retrieval results of other projects, read from a folder of files."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    Float64,
    Int64,
    MissingData,
    RecipeError,
    console,
    first_line,
)
from brainhive_cli.core.files import documents, read_lines, report_damage
from brainhive_cli.data.files import (
    normalise_name,
    pickles,
    summarise_names,
    to_image_id,
)
from brainhive_cli.measurement import COSINE, ForeignResult, compute_similarities

ROLES_FILE = "audit.yaml"
"""File that names the array of a role, as `similarities: file.npz:key`, and claims."""
SAVE_HINT = "save it again, as an array or table of numbers or names"
MAX_ARRAYS_PER_FILE = 100_000
MAX_MESSAGE_CHARACTERS = 1000
"""Largest length of the names in a message."""
MAX_MAGNITUDE = 1e30
"""Largest absolute value of a number. Squares of larger ones overflow in float32."""
MATRIX_PATTERNS = {
    "train_vectors": r"train",
    "similarities": r"(?<!dis)sim|logits",
    "predicted": r"pred|eeg|meg|fmri|brain",
    "gallery": r"gallery|ima?ge?|clip",
}
"""Pattern in the names of arrays [N, M] or [N, D], keyed by role. The first match
counts.
"""
LIST_PATTERNS = {
    "log": r"(test|val|dev|train).*(acc|top|loss|auc|rank)",
    "train_ids": r"train",
    "gallery_ids": r"gallery|candidate",
    "seen": r"seen|test|label|target|(id|name)s?\b",
}
"""Pattern in the names of lists of names, row numbers or scores, keyed by role."""
CLAIM_NAMES = {
    "top3": r"(top|acc|recall)[\W_]?3",
    "top5": r"(top|acc|recall)[\W_]?5",
    "top1": r"(top|acc|recall)[\W_]?1|acc(uracy)?",
    "pool": r"pool(_size)?|n?[\W_]?ways?",
    "trainings": r"(n|num)?_?(seeds|subjects|folds|runs)",
    "spread": r"(top|acc|recall)\w*_(std|sd)",
    "interval": r"ci|interval",
}
CLAIM_PATTERNS = {
    role: rf"^((test|mean|best|metrics|results?)_)*({name})$"
    for role, name in CLAIM_NAMES.items()
}
"""Pattern of the whole name of a claimed value, keyed by role."""


@dataclass(frozen=True)
class _ResultFiles:
    """Arrays of a folder, keyed by labels such as "run.npz:similarities".

    Attributes:
        roles: Content of `audit.yaml`, with labels keyed by role.
    """

    folder: Path
    arrays: dict[str, Array]
    roles: Mapping[str, Any]

    def list_labels(self) -> str:
        """Join the keys of all arrays for a message."""
        return _join_labels(self.arrays) or "nothing"

    def find_all(self, role: str, size: int = 0) -> list[Array]:
        """Find the arrays of a role, for example an array for each seed.

        Args:
            role: Role such as "similarities".
            size: Length of the arrays, or 0 for any.

        Raises:
            MissingData: if unlike arrays have the role, or if the array that
                `audit.yaml` names is absent or unfit.
        """
        if role in self.roles:
            labels = [str(self.roles[role])]
        else:
            labels = [
                label
                for label, array in self.arrays.items()
                if _has_role(array, label, role) and size in (0, len(array))
            ]
        arrays = [self.arrays[label] for label in labels if label in self.arrays]

        # labels of seeds differ in digits only
        kinds = {re.sub(r"\d+", "", label) for label in labels}
        shapes = {array.shape for array in arrays}
        # Roles that may have an array for each seed or subject.
        are_seeds = (
            role in ("similarities", "predicted") and len(kinds) == len(shapes) == 1
        )
        # arrays with NaN never count as equal
        are_equal = all(np.array_equal(array, arrays[0]) for array in arrays[1:])
        is_absent = len(arrays) < len(labels)
        if is_absent or not (are_equal or are_seeds):
            raise MissingData(
                f"{self.folder}: {role} could be {_join_labels(labels)}, and the "
                f"folder holds {self.list_labels()}",
                f"name an array in {self.folder / ROLES_FILE}: {role}: FILE:KEY",
            )
        for label, array in zip(labels, arrays, strict=True):
            _require_role(array, role, f"{self.folder / label}")
        return arrays[:1] if are_equal else arrays

    def find(self, role: str, size: int = 0) -> Array:
        """Find the array of a role as `find_all` does, or an empty array [0, 0]."""
        arrays = self.find_all(role, size)
        return arrays[0] if arrays else np.empty((0, 0))

    def find_names(self, role: str, size: int = 0) -> list[str]:
        """Find a list of names without folders and endings, or an empty list."""
        texts = self.find(role, size).astype(str)
        return [normalise_name(to_image_id(text)) for text in texts]


def open_result(folder: Path) -> ForeignResult:
    """Read a folder, and recognise arrays, lists and claims by their names.

    Raises:
        MissingData: if the folder, the similarities or the labels are absent, or if
            several arrays have one role.
        RecipeError: if `audit.yaml` has unknown keys or values of another type.
    """
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}", "name a folder of results")
    files = _ResultFiles(folder, _read_folder(folder), _read_roles(folder))

    gallery = _convert_to_matrix(files.find("gallery"))
    predictions = []
    for array in files.find_all("predicted"):
        matrix = _convert_to_matrix(array)
        if matrix.shape[1] == gallery.shape[1]:
            predictions.append(matrix)
    matrices = _find_similarities(files, predictions, gallery)
    n_signals, n_candidates = matrices[0].shape

    # read lists of names, or name the candidates by row number
    train_ids = files.find_names("train_ids")
    gallery_ids = files.find_names("gallery_ids", n_candidates)
    seen_names = files.find_names("seen", n_signals)
    if not seen_names and n_signals == n_candidates:
        seen_names = gallery_ids or list(map(str, range(n_candidates)))
    targets = _find_targets(seen_names, gallery_ids, n_signals, n_candidates)
    if not targets:
        raise MissingData(
            f"{folder} has {n_signals} signals and {n_candidates} candidates, but no "
            "list of the pictures that were seen",
            f"add the lists of names, and name them in {ROLES_FILE}: seen, gallery_ids",
        )
    first_meaning = next(iter(targets))
    first_targets = targets.pop(first_meaning)

    for name, claim in _flatten("", files.roles.get("claims", {})):
        with suppress(TypeError, ValueError, OverflowError):
            files.arrays[f"{ROLES_FILE}:{name}"] = _read_array(claim)
    claims = _read_claims(files.arrays)
    log = _read_log(files.arrays)
    train_embeddings = _convert_to_matrix(files.find("train_vectors"))
    if len(predictions) != len(matrices):
        predictions = []
    results = []
    for similarities, predicted in zip_longest(matrices, predictions):
        result = ForeignResult(
            similarities=similarities,
            targets=first_targets,
            seen_names=seen_names,
            train_ids=train_ids,
            gallery=gallery if len(gallery) == n_candidates else None,
            train_embeddings=train_embeddings,
            log=log,
            claims=claims,
            predictions=predicted,
            alternative_targets=targets,
        )
        results.append(result)
    return replace(results[0], other_trainings=results[1:])


def _read_folder(folder: Path) -> dict[str, Array]:
    """Read the arrays of all files, with a warning for files that cannot be read."""
    arrays: dict[str, Array] = {}
    for path in sorted(folder.iterdir()):
        try:
            with report_damage(path, SAVE_HINT):
                for name, array in _read_arrays(path).items():
                    arrays[f"{path.name}:{name}".rstrip(":")] = array
        except BrainhiveError as error:
            console.warn(f"not read: {error.message}")
    return arrays


def _read_roles(folder: Path) -> dict[str, Any]:
    """Read `audit.yaml`, or return an empty dict if it is absent."""
    path = folder / ROLES_FILE
    if not path.is_file():
        return {}

    content: dict[str, Any] = documents.read(path, hint=f"correct {path}")
    roles = {"claims"}.union(MATRIX_PATTERNS, LIST_PATTERNS)
    for role in content.keys() - roles:
        raise RecipeError(
            f"{path} has the key {role!r}, which is no role",
            f"roles: {', '.join(sorted(roles))}",
        )
    for role, value in content.items():
        if not isinstance(value, dict if role == "claims" else str):
            raise RecipeError(
                f"{path}: {role} is {documents.show_value(value)}",
                "write claims as {top1: 41.0 %, pool: 200}, and roles as FILE:KEY",
            )
    return content


def _find_similarities(
    files: _ResultFiles, predictions: Sequence[Tensor], gallery: Tensor
) -> list[Tensor]:
    """Find the similarities [N, M] of each training, or compute cosines.

    Args:
        files: Arrays of the folder.
        predictions: Embeddings [N, D] of each training.
        gallery: Embeddings [M, D] of the candidates.
    """
    matrices = []
    for array in files.find_all("similarities"):
        trainings = array if array.ndim == 3 else array[None]
        matrices += [_convert_to_matrix(similarities) for similarities in trainings]
    if not matrices:
        for predicted in predictions:
            dtype = torch.promote_types(predicted.dtype, gallery.dtype)
            cosines = compute_similarities(predicted, gallery, COSINE)
            matrices.append(cosines.to(dtype))
    if not matrices or not matrices[0].numel():
        raise MissingData(
            f"{files.folder.resolve()} has neither similarities [N, M] nor predictions "
            f"[N, D] with a gallery [M, D]. It holds {files.list_labels()}",
            f"name a folder of results, or name its arrays in {ROLES_FILE}: "
            "similarities: FILE.npz:KEY",
        )

    # transpose matrices [M, N], with a column for each seen picture
    n_rows, n_columns = matrices[0].shape
    if len(files.find("seen", n_rows)) or n_rows == n_columns:
        return matrices
    if len(files.find("seen", n_columns)):
        return [matrix.T for matrix in matrices]
    return matrices


def _find_targets(
    seen_names: Sequence[str],
    gallery_ids: Sequence[str],
    n_signals: int,
    n_candidates: int,
) -> dict[str, Tensor]:
    """Find the right candidates [N, K] of each signal, padded with -1.

    Returns:
        Candidates keyed by the meaning of the labels, without meanings by which a
        signal has no right candidate, or all candidates are right.
    """
    meanings: dict[str, Sequence[str]] = {"names": gallery_ids}
    if not gallery_ids:
        meanings = {
            "labels that count from 0": list(map(str, range(n_candidates))),
            "labels that count from 1": list(map(str, range(1, n_candidates + 1))),
            "candidates in the order of signals": seen_names,
        }
    targets = {}
    for meaning, names in meanings.items():
        if len(names) != n_candidates or len(seen_names) != n_signals:
            continue
        rows_of_name = defaultdict[str, list[int]](list)
        for row, name in enumerate(names):
            rows_of_name[name].append(row)
        target_rows = [torch.tensor(rows_of_name.get(name, [])) for name in seen_names]
        counts = set(map(len, target_rows))
        if 0 not in counts and counts != {n_candidates}:
            targets[meaning] = pad_sequence(
                target_rows, batch_first=True, padding_value=-1
            )
    return targets


def _read_arrays(path: Path) -> dict[str, Array]:
    """Read the arrays of a file by name, with a warning for values of other types."""
    arrays = {}
    problems = {}
    for count, (name, content) in enumerate(_flatten("", _read_file(path))):
        if count >= MAX_ARRAYS_PER_FILE:
            raise ValueError(f"it holds more than {MAX_ARRAYS_PER_FILE:,} values")
        if content is None:
            continue
        try:
            arrays[name] = _read_array(content)
        except (TypeError, ValueError, OverflowError) as error:
            problems[name or path.name] = first_line(error)
    if problems:
        names = summarise_names(list(problems))[:MAX_MESSAGE_CHARACTERS]
        problem = next(iter(problems.values()))
        console.warn(f"not read: {path}: values without use, {names} ({problem})")
    return arrays


def _read_file(path: Path) -> Any:
    """Read an array, a list of names or a dict of these. Return None for others."""
    if path.suffix in pickles.ENDINGS:
        return pickles.load(path, way_out=SAVE_HINT)
    if path.suffix == ".json":
        return documents.read(path, TypeAdapter(Any), SAVE_HINT, has_nan=True)
    if path.suffix not in (".csv", ".txt"):
        return None

    lines = list(filter(None, read_lines(path)))
    if path.suffix == ".txt":
        return lines
    if not lines:
        return {}
    heading, *rows = csv.reader(lines)
    n_cells = sum(map(len, rows))
    # Largest number of cells in a table for each cell in its file.
    if len(rows) * len(heading) > 10 * n_cells:
        raise ValueError("most of its rows are shorter than its heading")
    columns = {}
    for name, *cells in zip_longest(heading, *rows, fillvalue=""):
        if name:
            columns[name] = [cell or "nan" for cell in cells]
    return columns


def _flatten(name: str, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts with names such as "metrics_top1".

    Values with too long names are None.
    """
    if not isinstance(content, Mapping) or not content:
        yield name, content
        return
    for key, value in content.items():
        full_name = f"{name}_{key}".strip("_")
        # Largest length of an array's name. Arrays with longer names are not read.
        is_short = len(full_name) <= 256
        yield from _flatten(full_name, value if is_short else None)


def _read_array(content: Any) -> Array:
    """Convert a value to an array of text or of numbers in native byte order.

    Raises:
        TypeError: if it holds other types, such as dates or complex numbers.
        ValueError: if it is empty or ragged, or text that is not UTF-8.
    """
    try:
        values = pickles.to_array(content)
    except TypeError:  # None among numbers becomes NaN
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


def _convert_to_matrix(array: Array) -> Tensor:
    """Convert an array to floats [N, M] or [N, D]."""
    return torch.from_numpy(_convert_to_floats(array)).flatten(1)


def _convert_to_floats(values: Array) -> Array:
    """Copy numbers as floats, with NaN for infinite or too large values.

    Raises:
        ValueError: if they are names.
    """
    floats = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
    limit = min(MAX_MAGNITUDE, float(np.finfo(floats.dtype).max))
    is_valid = np.abs(floats) <= limit
    floats[~is_valid] = np.nan
    return floats


def _find_role(patterns: Mapping[str, str], label: str) -> str:
    """Find the role of a label such as "run.npz:img", or return an empty text."""
    name = label.rpartition(":")[2].lower()
    for role, pattern in patterns.items():
        if re.search(pattern, name):
            return role
    return ""


def _has_role(array: Array, label: str, role: str) -> bool:
    """Return True if an array has a role by its dimensions and name."""
    patterns = MATRIX_PATTERNS if array.ndim > 1 else LIST_PATTERNS
    return array.ndim > 0 and _find_role(patterns, label) == role


def _read_log(arrays: Mapping[str, Array]) -> dict[str, Float64]:
    """Read the scores [E] of each training, if they have at least two epochs."""
    log = {}
    for label, array in arrays.items():
        if array.ndim != 1 or _find_role(LIST_PATTERNS, label) != "log":
            continue
        with suppress(ValueError):  # text, or mixed trainings
            scores = _convert_to_floats(array).astype(np.float64)
            starts = _find_training_starts(arrays, label)
            for number, training_scores in enumerate(np.split(scores, starts)):
                if np.isfinite(training_scores).sum() > 1:
                    prefix = f"training {number} " if len(starts) else ""
                    log[f"{prefix}{label}".lower()] = training_scores
    return log


def _find_training_starts(arrays: Mapping[str, Array], label: str) -> Int64:
    """Find the rows at which trainings after the first begin.

    Raises:
        ValueError: if the rows of trainings are mixed.
    """
    file = label.rpartition(":")[0]
    # Columns that number the rows of a table of scores.
    for column in ("epoch", "epochs", "step"):
        epochs = arrays.get(f"{file}:{column}")
        if epochs is None or epochs.shape != arrays[label].shape:
            continue
        steps = np.diff(_convert_to_floats(epochs))
        starts = 1 + np.flatnonzero(steps <= 0)
        # a training has each epoch once
        _, counts = np.unique(epochs, return_counts=True)
        if len(starts) >= counts.max():
            raise ValueError("epochs of trainings are mixed")
        return starts
    return np.empty(0, np.int64)


def _read_claims(arrays: Mapping[str, Array]) -> dict[str, float]:
    """Read claimed values: shares in percent, and half the width of intervals.

    The value `rounding` is half a unit of the last decimal of the top-k scores.
    """
    claims: dict[str, float] = {}
    is_percent = False
    max_claim = 1e9
    # Claims that are numbers of items. Other claims are shares.
    count_roles = {"pool", "trainings"}
    for label, array in arrays.items():
        role = _find_role(CLAIM_PATTERNS, label)
        if role == "trainings" and array.size > 1:
            claims[role] = array.size
        elif role == "spread":
            # a spread needs two trainings
            claims.setdefault("trainings", 2)
        elif role and array.size == (2 if role == "interval" else 1):
            with suppress(ValueError):
                texts = np.char.strip(array.astype(str), " %")
                numbers = texts.astype(np.float64)
                is_interval = array.size == 2
                claim = float(np.ptp(numbers / 2) if is_interval else numbers.max())
                min_claim = 1 if role in count_roles else 0
                if not min_claim <= claim <= max_claim:
                    console.warn(f"not read: {label} claims {claim:g} as {role}")
                    continue
                claims[role] = claim
                if role.startswith("top"):
                    decimals = texts.item().partition(".")[2]
                    claims["rounding"] = 0.5 / 10 ** len(decimals)
                is_percent |= role not in count_roles and (
                    "%" in str(array) or claim > 1
                )
    for role in claims.keys() - count_roles:
        if not is_percent:
            claims[role] *= 100
    return claims


def _join_labels(labels: Iterable[str]) -> str:
    """Join labels for a message, cut to its largest length."""
    return ", ".join(labels)[:MAX_MESSAGE_CHARACTERS]


def _require_role(array: Array, role: str, label: str) -> None:
    """Raise an error if an array lacks the dimensions of its role, or any number."""
    is_matrix = role in MATRIX_PATTERNS
    hint = f"save it again, or name another in {ROLES_FILE}: {role}: FILE:KEY"
    if is_matrix == (array.ndim < 2) or not array.ndim:
        kind = "a matrix of numbers" if is_matrix else "a list of names or numbers"
        raise MissingData(
            f"{label} is {array.dtype} {list(array.shape)}, and {role} is {kind}", hint
        )
    if is_matrix and array.size and not np.isfinite(_convert_to_floats(array)).any():
        raise MissingData(
            f"{label}: none of its {array.size:,} values is a number up to "
            f"{MAX_MAGNITUDE:g}",
            hint,
        )
