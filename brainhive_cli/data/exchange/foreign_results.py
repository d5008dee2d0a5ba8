"""Other people's retrieval results in a folder: similarities or embeddings, ids, scores
by epoch and claims, by their usual names.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from brainhive_cli.core import console, documents
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import read_regular
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import composed, plain_id
from brainhive_cli.measurement.audit import ForeignResult
from brainhive_cli.measurement.ranks import unit

NAMED = "audit.yaml"
"""The file that names arrays, as `similarities: file.npz:key`, and `claims`."""
ANY = TypeAdapter[Any](Any)
AGAIN = "save it again, as an array or table of numbers or names"
TABLES = (".csv", ".tsv")
MATRICES = {
    "similarities": (r"(?<!dis)sim", r"scores?|logits|cosines?"),
    "distances": (r"dist|dissim",),
    "train_vectors": (r"train",),
    "predicted": (
        r"pred",
        r"(eeg|meg|fmri|brain|signal|neural|query|queries)",
    ),
    "gallery": (r"gallery|candidate", r"(img|image|clip|visual|picture|target)"),
}
"""Roles of arrays [N, M] and [N, D]: patterns of their names, the better ones first."""
LISTS = {
    "train_ids": (r"train",),
    "gallery_ids": (r"gallery|candidate",),
    "seen": (
        r"seen|quer",
        r"^(image|img|picture|stimulus|stim)(_?ids?|_?names?|s)?$",
        r"test|ids?$",
        r"label|target|y_true|name|file|image|img|picture|stim",
    ),
}
"""Roles of lists of names or of row numbers."""
CLAIMS = {
    **{
        f"top{k}": rf"(top|acc(uracy)?|recall|hits?|r)(_?at)?_?{k}(_acc(uracy)?)?{more}"
        for k, more in ((1, "|acc(uracy)?"), (3, ""), (5, ""))
    },
    "pool": r"pool(_size)?|n?_?ways?|gallery_size|n_candidates",
    "low": r"(ci_?|top_?1_)?(95_?)?low(er)?",
    "high": r"(ci_?|top_?1_)?(95_?)?(high|upper)",
}
"""Patterns of the names of claimed values."""
SCOPES = re.compile(
    r"^((test|eval|mean|avg|final|best|retrieval|all|metrics|results?)_)+"
)
"""Beginnings of these names."""
LOGGED = re.compile(
    r"(test|(^|_)val).*(acc|top|loss|auc|rank|recall|score)"
    r"|(acc|top|loss|auc|rank|recall|score).*(test|_val)"
)
"""Names of scores by epoch."""
MOST_ROUNDING = 0.5
"""Percentage points by which a claim is rounded at most."""


def open_result(folder: Path) -> ForeignResult:
    """Read the files of a folder, and find what each array, list and value is.

    Raises:
        MissingData: if there are no similarities or embeddings, or no such folder.
        BrainhiveError: if a file is damaged, or arrays do not belong together.
    """
    if not folder.is_dir():
        raise MissingData(f"there is no folder {folder}", "name a folder of results")

    # what is there: by file and name
    values: dict[tuple[str, str], Any] = {}
    for path in sorted(folder.iterdir()):
        try:
            if path.name != NAMED and path.is_file():
                values |= {(path.name, name): value for name, value in _read(path)}
        except BrainhiveError as error:
            console.warn(f"not read: {error.message}")
    named: dict[str, Any] = {}
    if (folder / NAMED).is_file():
        named = documents.read(folder / NAMED, hint=f"correct {folder / NAMED}")
    roles = (*MATRICES, *LISTS, "claims")
    if unknown := [role for role in named if role not in roles]:
        problem = f"{folder / NAMED} names {unknown[0]!r}, which is no role"
        raise BrainhiveError(problem, f"known: {', '.join(roles)}")

    # arrays by role; similarities are of a file, or cosines of embeddings
    matrices = dict[str, Tensor]()
    for role in MATRICES:
        value = _choose(role, MATRICES, values, named, folder)
        if value is not None:
            matrices[role] = _matrix(value)
    if "distances" in matrices:
        matrices.setdefault("similarities", -matrices["distances"])
    predicted, gallery = matrices.get("predicted"), matrices.get("gallery")
    similarities = matrices.get("similarities")
    has_file = similarities is not None
    if predicted is not None and gallery is not None:
        if predicted.shape[1] != gallery.shape[1]:
            problem = (
                f"{folder}: predictions have {predicted.shape[1]} dimensions, the "
            )
            problem += f"gallery has {gallery.shape[1]}"
            raise BrainhiveError(problem, f"name the right arrays in {NAMED}")
        if similarities is None:
            cosines = unit(predicted) @ unit(gallery).T
            similarities = cosines.to(
                torch.promote_types(predicted.dtype, gallery.dtype)
            )
    if similarities is None:
        listed = ", ".join(":".join(filter(None, key)) for key in values) or "nothing"
        problem = f"{folder} has no similarities [N, M], and no predictions with a "
        raise MissingData(
            f"{problem}gallery, but {listed}",
            f"name the arrays in {folder / NAMED}: similarities: FILE.npz:KEY",
        )
    count, width = similarities.shape
    for role, size in (("predicted", count), ("gallery", width)):
        if role in matrices and len(matrices[role]) != size:
            problem = f"{folder}: similarities are {count} x {width}, {role} has "
            problem += f"{len(matrices[role])} rows"
            raise BrainhiveError(problem, f"name the right arrays in {NAMED}")

    # which row of the gallery each signal's picture is
    gallery_ids = _names(_choose("gallery_ids", LISTS, values, named, folder, width))
    seen = _names(_choose("seen", LISTS, values, named, folder, count))
    numbers = [int(name) for name in seen if name.isdecimal()]
    if not gallery_ids and len(numbers) == count and max(numbers) < width:
        gallery_ids = [str(row) for row in range(width)]
    if not gallery_ids and count == width:
        gallery_ids = seen or [str(row) for row in range(width)]
    seen = seen or (gallery_ids if count == width else [])
    targets = _find_targets(folder, seen, gallery_ids, width)
    log = {
        plain: np.asarray(pickles.array(value), np.float64)
        for (_, name), value in values.items()
        if LOGGED.search(plain := _plain(name)) and _is_numbers(value)
    }
    return ForeignResult(
        similarities,
        targets,
        seen,
        predicted if gallery is not None else None,
        gallery if predicted is not None else None,
        has_file,
        _names(_choose("train_ids", LISTS, values, named, folder)),
        matrices.get("train_vectors"),
        log,
        _claims(values, named),
    )


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    """Read the arrays, lists and values of a file, by name; "" is the name of one
    alone.
    """
    # values of documents and archives by their keys, which may be nested
    content: Any = {}
    if path.suffix in pickles.ENDINGS:
        content = pickles.load(path, way_out=AGAIN)
    elif path.suffix in (".json", ".yaml"):
        content = documents.read(path, ANY, AGAIN)
    elif path.suffix in (*TABLES, ".txt"):
        with reading(path, AGAIN):
            content = _read_text(path)
    yield from _flatten("", content)


def _flatten(name: str, content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(f"{name}_{key}".strip("_"), value)
    elif isinstance(content, list) and content and isinstance(content[0], Mapping):
        # a log as a list of rows
        for key in content[0]:
            yield from _flatten(
                f"{name}_{key}".strip("_"), [row.get(key) for row in content]
            )
    elif content is not None:
        yield name, content


def _read_text(path: Path) -> Any:
    """Read a table by column, a matrix with or without names, or a list of names."""
    text = read_regular(path).decode("utf-8-sig")
    if path.suffix == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    first = text.partition("\n")[0]
    separator = max("\t;,", key=first.count)
    head, *rows = [
        row for row in csv.reader(text.splitlines(), delimiter=separator) if row
    ]
    is_matrix = all(map(_is_number, head)) and len(head) > 1
    if is_matrix:
        return np.array([head, *rows], np.float64)
    columns = {name: [row[n] for row in rows] for n, name in enumerate(head)}
    # similarities with the names of their rows and columns
    if not head[0] and len(head) > 2:
        matrix = np.array([row[1:] for row in rows], np.float64)
        names = {"gallery_ids": head[1:], "seen": [row[0] for row in rows]}
        return {path.stem: matrix, **(names if "sim" in path.stem.lower() else {})}
    read = {
        name: np.array([float(cell or "nan") for cell in cells])
        if all(not cell or _is_number(cell) for cell in cells)
        else cells
        for name, cells in columns.items()
    }
    # one row is of values
    return {name: cells[0] if len(rows) == 1 else cells for name, cells in read.items()}


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_numbers(value: Any) -> bool:
    """Whether a value is a list of at least two numbers."""
    try:
        array = np.asarray(pickles.array(value), np.float64)
    except (TypeError, ValueError):
        return False
    return array.ndim == 1 and len(array) > 1


def _choose(
    role: str,
    patterns: Mapping[str, tuple[str, ...]],
    values: Mapping[tuple[str, str], Any],
    named: Mapping[str, Any],
    folder: Path,
    size: int | None = None,
) -> Any:
    """Find the value of a role: the one that is named, else that of the best name.

    Args:
        role: What it is.
        patterns: Patterns of names by role, of which the first that fits a name counts.
        values: Everything of the folder by file and name.
        named: What `audit.yaml` names.
        folder: Where they are, for errors.
        size: How long a list is.
    """
    if role in named:
        file, _, name = str(named[role]).partition(":")
        if (file, name) not in values:
            listed = ", ".join(":".join(filter(None, key)) for key in values)
            problem = f"{folder / NAMED} names {named[role]}, which is not there"
            raise MissingData(problem, f"name one of {listed}")
        return values[file, name]

    # by the name in the file, else by that of the file
    fits: dict[int, list[tuple[str, str]]] = {}
    for key, value in values.items():
        is_matrix = np.ndim(value) > 1 if hasattr(value, "ndim") else _is_nested(value)
        is_list = not is_matrix and (hasattr(value, "ndim") or isinstance(value, list))
        if not (is_matrix if patterns is MATRICES else is_list):
            continue
        if size is not None and len(value) != size:
            continue
        for text in (key[1], Path(key[0]).stem):
            plain = _plain(text)
            matched = [
                (other, level)
                for other, levels in patterns.items()
                for level, pattern in enumerate(levels)
                if re.search(pattern, plain)
            ]
            if text and matched:
                if matched[0][0] == role:
                    fits.setdefault(matched[0][1], []).append(key)
                break
    if not fits:
        return None
    best = fits[min(fits)]
    if any(not np.array_equal(values[best[0]], values[key]) for key in best[1:]):
        listed = ", ".join(":".join(filter(None, key)) for key in best)
        problem = f"{folder}: {role.replace('_', ' ')} could be {listed}"
        raise BrainhiveError(problem, f"name one in {folder / NAMED}: {role}: FILE:KEY")
    return values[best[0]]


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _matrix(value: Any) -> Tensor:
    """Turn an array [N, ...] into a tensor [N, D] of finite numbers."""
    # what is no number has no direction, and is similar to nothing
    tensor = torch.as_tensor(pickles.array(value).copy()).flatten(1).nan_to_num(0.0)
    return tensor if tensor.is_floating_point() else tensor.double()


def _names(value: Any) -> list[str]:
    """Write names as ids are compared, and row numbers as digits."""
    if value is None:
        return []
    listed = pickles.array(value).tolist()
    texts = [
        name.decode()
        if isinstance(name, bytes)
        else f"{name:.0f}"
        if isinstance(name, float)
        else str(name)
        for name in listed
    ]
    return [composed(plain_id(text)) for text in texts]


def _find_targets(
    folder: Path, seen: list[str], gallery_ids: list[str], width: int
) -> Tensor:
    """Find the gallery rows [N, K] of each seen picture, -1 where fewer than K."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(gallery_ids):
        rows.setdefault(name, []).append(row)
    if not seen or len(gallery_ids) != width or not rows.keys() >= {*seen}:
        absent = next((name for name in seen if name not in rows), "")
        what = (
            f"the gallery has no {absent!r}" if absent else "nothing says which is seen"
        )
        raise MissingData(
            f"{folder}: {what}, of {width} candidates",
            f"add lists of names, and name them in {NAMED}: seen, gallery_ids",
        )
    most = max(len(rows[name]) for name in {*seen})
    listed = [rows[name] + [-1] * (most - len(rows[name])) for name in seen]
    return torch.tensor(listed)


def _claims(
    values: Mapping[tuple[str, str], Any], named: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Read claimed values with their rounding; shares in percent."""
    # those that are named last, which count
    every = [(name, value) for (_, name), value in values.items()]
    every += [*dict(named.get("claims") or {}).items()]
    read: dict[str, tuple[float, float]] = {}
    is_percent = False
    for name, value in every:
        plain = SCOPES.sub("", _plain(name))
        role = next(
            (role for role, pattern in CLAIMS.items() if re.fullmatch(pattern, plain)),
            "",
        )
        if plain in ("ci", "ci95", "interval") and isinstance(value, list):
            every += zip(("low", "high"), value, strict=False)
        text = str(
            value.item() if hasattr(value, "item") and np.size(value) == 1 else value
        )
        number = text.strip().removesuffix("%").strip()
        if role and _is_number(number):
            decimals = (
                len(number.partition(".")[2]) if "e" not in number.lower() else 12
            )
            read[role] = float(number), 0.5 * 10.0**-decimals
            is_percent |= "%" in text or (role != "pool" and float(number) > 1)
    factor = 1 if is_percent else 100
    return {
        role: (value, 0.0)
        if role == "pool"
        else (value * factor, min(MOST_ROUNDING, max(0.05, rounding * factor)))
        for role, (value, rounding) in read.items()
    }
