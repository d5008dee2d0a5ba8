"""Vectors of pictures as other projects keep them, recognised by layout and read in batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.plain_files import read_regular, require_regular
from brainhive_cli.data.exchange import parquet as _parquet
from brainhive_cli.data.exchange.parquet import AGAIN
from brainhive_cli.data.stores import hdf5, pickles
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.mapping import numbers

BATCH = 1024
"""Vectors read at a time."""
NAMES = "file_names.txt"
"""Where thingsvision keeps the order of its features."""


@dataclass(frozen=True)
class Vectors:
    """Vectors in somebody else's files.

    Attributes:
        layout: Whose way of keeping them it is.
        files: The files that hold them.
        names: [N] what the files call the pictures.
        batches: Reads the vectors, [n, D] or [n, S, D] at a time, in the order of `names`.
        says_encoder: Whether the files' names say which encoder made them.
    """

    layout: str
    files: Sequence[Path]
    names: Sequence[str]
    batches: Callable[[], Iterator[NDArray[Any]]]
    says_encoder: bool = False


def open_vectors(
    files: Sequence[Path], known_as: Sequence[str], suffix: str = "", keys: tuple[str, str] = ("", "")
) -> Vectors:
    """Recognise the layout of files or folders; the vectors stay on disk where the layout allows.

    Args:
        files: Files, or one folder.
        known_as: Names of the encoder, which choose among BrainHiVE's parquet files.
        suffix: What follows the picture's name in the names of files that hold one vector each.
        keys: The keys of the ids and of the vectors in a dictionary; empty where it has one of each.

    Raises:
        MissingData: if nothing there is known.
        BrainhiveError: if a file is broken, unsafe or of another layout.
    """
    with described(files[0], AGAIN):
        found = _recognised(files, known_as, suffix, keys)
    idle = {"suffix": suffix, "keys.ids": keys[0], "keys.vectors": keys[1]}
    for key, value in idle.items():
        if value and key.partition(".")[0] != {"dictionary": "keys", f"*{suffix}.npy": "suffix"}.get(
            found.layout
        ):
            raise RecipeError(
                f"{key} is {value!r}, which has no effect on the layout {found.layout}", f"no {key}"
            )
    return found


def _recognised(
    files: Sequence[Path], known_as: Sequence[str], suffix: str, keys: tuple[str, str]
) -> Vectors:
    if len(files) == 1 and (files[0] / NAMES).is_file():
        return _thingsvision(files[0])
    below = [below for file in files for below in (sorted(file.rglob("*")) if file.is_dir() else [file])]
    if tables := [file for file in below if file.suffix == ".parquet"]:
        return _cache(tables, known_as)
    if all(file.is_dir() for file in files):
        return _tree(files, suffix)
    if all(file.suffix in pickles.ENDINGS for file in files):
        return _dictionaries(files, keys)
    raise MissingData(
        f"{files[0]} is in no known layout",
        f"known: .parquet, {', '.join(pickles.ENDINGS)}, a folder of .npy, a folder of thingsvision",
    )


def _cache(files: Sequence[Path], known_as: Sequence[str]) -> Vectors:
    """BrainHiVE's cache; its files' names say which encoder made them."""
    made_by = {file: _parquet.made_by(file) for file in files}
    ours = [file for file, made in made_by.items() if made.endswith(tuple(f"_{name}" for name in known_as))]
    if any(made_by.values()) and not ours:
        raise MissingData(
            f"no parquet of {' or '.join(known_as)}, only {', '.join(sorted({*made_by.values()})[:6])}",
            "give the encoder that made them: --encoders NAME",
        )
    names = [name for file in ours or files for name in _parquet.names(file)]
    return Vectors("parquet", ours or files, names, partial(_from_parquet, ours or files), bool(ours))


def _from_parquet(files: Sequence[Path]) -> Iterator[NDArray[Any]]:
    for file in files:
        yield from _parquet.vectors(file, BATCH)


def _dictionaries(files: Sequence[Path], keys: tuple[str, str]) -> Vectors:
    """Dicts of {name: vector}, or of a list of names with an array of vectors."""
    read = [_named(pickles.load(file), keys, file) for file in files]
    names = [name for names, _ in read for name in names]
    return Vectors("dictionary", files, names, partial(_in_batches, [values for _, values in read]))


def _named(content: Any, keys: tuple[str, str], file: Path) -> tuple[list[str], Sequence[Any]]:
    if not isinstance(content, Mapping):
        raise BrainhiveError(
            f"{file} holds a {type(content).__name__} without ids, not a dict",
            f"save a dict, or put the names of its rows into {NAMES} next to features{file.suffix}",
        )
    ids = {key: names for key, value in content.items() if (names := _strings(value))}
    if not ids:
        return [str(key) for key in content], list(content.values())
    chosen = _the_one(ids, keys[0], "ids", file)
    vectors = {key: v for key, v in content.items() if key not in ids and _length(v) == len(chosen)}
    return chosen, _the_one(vectors, keys[1], "vectors", file)


def _strings(value: Any) -> list[str]:
    """Read a list or array of strings; empty if it is none."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        value = (value if value.dtype.kind != "S" else np.char.decode(value)).tolist()
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return list(value) if is_list else []


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") and getattr(value, "ndim", 2) > 1 else -1


def _the_one(found: Mapping[str, Any], key: str, what: str, file: Path) -> Any:
    if key in found or (not key and len(found) == 1):
        return found[key or next(iter(found))]
    names = ", ".join(map(str, found)) or "nothing"
    raise BrainhiveError(f"{file}: its {what} could be {names}", f"say which: keys.{what}=KEY")


def _tree(folders: Sequence[Path], suffix: str) -> Vectors:
    """One `.npy` a picture, in the pictures' own folders (AlignVis: `<stem>_<encoder>.npy`)."""
    ending = f"{suffix}.npy"
    found = {
        file: file.relative_to(folder).as_posix().removesuffix(ending)
        for folder in folders
        for file in sorted(folder.rglob(f"*{escape(ending)}"))
    }
    if not found:
        raise MissingData(f"{folders[0]} has no *{ending}", "give the folder that holds the vectors")
    return Vectors(f"*{ending}", list(found), list(found.values()), partial(_from_tree, list(found)))


def _from_tree(files: Sequence[Path]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(files), BATCH):
        yield from _in_batches([[pickles.load(file) for file in files[start : start + BATCH]]])


def _thingsvision(folder: Path) -> Vectors:
    """`file_names.txt` next to `features.npy` (or .pt, .hdf5, .txt), or to `features_01.npy` and so on."""
    names = read_regular(folder / NAMES).decode().split("\n")
    files = sorted(folder.glob("features*.*"))
    readers: dict[str, Callable[[Path], Any]] = {
        **{".npy": pickles.load, ".pt": pickles.load},
        **{".hdf5": _from_hdf5, ".txt": _from_text},
    }
    if len({file.suffix for file in files}) != 1 or files[0].suffix not in readers:
        found = ", ".join(file.name for file in files) or "none"
        raise BrainhiveError(
            f"{folder}: needs features of one kind, found {found}", f"known: {', '.join(readers)}"
        )
    read = partial(_read_all, readers[files[0].suffix], files)
    return Vectors("thingsvision", files, [name for name in names if name], read)


def _read_all(read: Callable[[Path], Any], files: Sequence[Path]) -> Iterator[NDArray[Any]]:
    for file in files:
        require_regular(file)
        content = read(file)
        yield from _in_batches(content if isinstance(content, list | Iterator) else [content])


def _from_hdf5(file: Path) -> Iterator[Any]:
    with hdf5.open_file(file, AGAIN, MissingData) as opened:
        for name in sorted(opened):
            yield numbers(opened, name)


def _from_text(file: Path) -> list[Any]:
    return [np.loadtxt(file, np.float64, ndmin=2)]


def _in_batches(arrays: Iterable[Any]) -> Iterator[NDArray[Any]]:
    """Cut arrays, tensors, or lists of either, into batches [n, D]; one vector of a list may be [1, D]."""
    for array in arrays:
        for start in range(0, len(array), BATCH):
            some = array[start : start + BATCH]
            yield _stacked(some) if isinstance(some, list) else pickles.array(some)


def _stacked(vectors: Sequence[Any]) -> NDArray[Any]:
    read = [pickles.array(vector) for vector in vectors]
    if len(shapes := {vector.shape for vector in read}) > 1:
        raise BrainhiveError(f"the vectors differ in shape: {sorted(shapes)[:4]}", "give one encoder's only")
    stacked = np.stack(read)
    return stacked[:, 0] if stacked.ndim > 2 and stacked.shape[1] == 1 else stacked
