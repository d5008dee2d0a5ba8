"""Lists the golden values that no test reads: `python -m tools.golden_use [ARG …]`.

The golden tests run in this process, with arguments for pytest. A tensor is read if an
operation takes it, not if a test only loads it or takes its shape. A JSON value or an
npz array is read if its key is looked up, any other file if it is opened.

Documents that pydantic parses, such as the configs of the fusion prior's parts, are
listed although they are read.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch.overrides import TorchFunctionMode

from tools.shared_folders import GOLDEN

ROOT = Path(__file__).parents[1]
SHAPE_PROPERTIES = {
    "shape",
    "size",
    "dim",
    "ndim",
    "numel",
    "dtype",
    "device",
    "layout",
    "requires_grad",
    "is_contiguous",
    "is_floating_point",
    "is_complex",
    "__len__",
}
"""Properties of tensors that do not depend on their values."""

Entry = tuple[str, str]
"""File below the golden folder, and key in the file."""
read_entries = set[Entry]()
"""Entries that were read."""
opened_files = set[str]()
"""Files that Python opened."""
open_file = safetensors.safe_open


def find_golden_name(path: Any) -> str | None:
    """Return a path relative to the golden folder, or None outside it."""
    path = Path(os.fspath(path)).absolute()
    if not path.is_relative_to(GOLDEN):
        return None
    return path.relative_to(GOLDEN).as_posix()


class NotingDict(dict[str, Any]):
    """Dictionary that notes the keys that are looked up.

    Args:
        content: Items. Dictionaries and lists in them note their keys, too.
        file: File of the dictionary, below the golden folder.
        prefix: Dotted keys that lead to it.
    """

    def __init__(self, content: dict[str, Any], file: str, prefix: str = "") -> None:
        self.file, self.prefix = file, prefix
        super().__init__()
        for key, value in content.items():
            self[key] = note_lookups(value, file, f"{prefix}{key}.")

    def __getitem__(self, key: str) -> Any:
        """Look up a value, and note its key."""
        read_entries.add((self.file, self.prefix + key))
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys. Without this method, ** bypasses `__getitem__`."""
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """Look up a value that may be absent."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a value, and note its key."""
        read_entries.add((self.file, self.prefix + key))
        return super().pop(key, *default)

    def __eq__(self, other: object) -> bool:
        """Look up all values, and compare them."""
        return dict(self.items()) == other

    def values(self) -> Any:
        """Look up all values."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """Look up all keys and values."""
        return [(key, self[key]) for key in self]


def note_lookups(value: Any, file: str, prefix: str) -> Any:
    """Replace the dictionaries in a value of a JSON file by noting ones."""
    if isinstance(value, dict):
        return NotingDict(value, file, prefix)
    if isinstance(value, list):
        return [note_lookups(item, file, prefix) for item in value]
    return value


def list_keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys in a value of a JSON file, without indices of lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield prefix + key
            yield from list_keys(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from list_keys(inner, prefix)


class NotingFile:
    """Safetensors file that notes the tensors that are read."""

    def __init__(self, path: Any, framework: str, *arguments: Any, **options: Any):
        self.file = open_file(path, framework, *arguments, **options)
        self.name = find_golden_name(path)

    def __enter__(self) -> "NotingFile":
        """Open the file."""
        self.file.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """Close the file."""
        self.file.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        """Return any other method of the file."""
        return getattr(self.file, name)

    def get_tensor(self, key: str) -> Any:
        """Load a tensor that is noted when it is used, or note an array."""
        value = self.file.get_tensor(key)
        if self.name is None:
            return value
        if isinstance(value, torch.Tensor):
            # `NotingTensors` notes it
            value.golden_entry = (self.name, key)
        else:
            read_entries.add((self.name, key))
        return value

    def get_tensors(self) -> dict[str, Any]:
        """Load all tensors, which are noted when they are used."""
        values = self.file.get_tensors()
        if self.name is None:
            return values
        for key, value in values.items():
            if not isinstance(value, torch.Tensor):
                return NotingDict(values, self.name)
            value.golden_entry = (self.name, key)
        return values

    def get_slice(self, key: str) -> Any:
        """Load a slice of a tensor, and note the tensor."""
        if self.name is not None:
            read_entries.add((self.name, key))
        return self.file.get_slice(key)


class NotingTensors(TorchFunctionMode):
    """Mode that notes the golden tensors that operations of torch take."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Note the tensors among the arguments, and call the function."""
        options = options or {}
        name = function.__name__
        if name == "__get__":
            name = function.__self__.__name__  # type: ignore[attr-defined]
        if name not in SHAPE_PROPERTIES:
            note_tensors(arguments)
            note_tensors(options.values())
        return function(*arguments, **options)


def note_tensors(arguments: Any) -> None:
    """Note the golden tensors among arguments and in their lists."""
    for item in arguments:
        if isinstance(item, torch.Tensor):
            if "golden_entry" in item.__dict__:
                read_entries.add(item.golden_entry)  # type: ignore[attr-defined]
        elif isinstance(item, list | tuple):
            note_tensors(item)


def note_opened_file(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a golden file that any code opens (an audit hook of Python)."""
    if event == "open" and isinstance(arguments[0], str):
        name = find_golden_name(arguments[0])
        if name:
            opened_files.add(name)


def watch_libraries() -> None:
    """Make libraries note the golden values that they read.

    Call it before the tests import them.
    """
    safetensors.safe_open = NotingFile
    sys.addaudithook(note_opened_file)
    documents = {}
    for path in GOLDEN.rglob("*.json"):
        documents[path.read_text()] = find_golden_name(path)
    parse_json = json.loads
    load_array = np.lib.npyio.NpzFile.__getitem__

    def parse_noting(text: Any, **options: Any) -> Any:
        value = parse_json(text, **options)
        file = documents.get(text.decode() if isinstance(text, bytes) else text)
        if file and isinstance(value, dict):
            return note_lookups(value, file, "")
        return value

    def load_noting(file: Any, key: str) -> Any:
        name = find_golden_name(file.zip.filename) if file.zip.filename else None
        if name:
            read_entries.add((name, key.removesuffix(".npy")))
        return load_array(file, key)

    json.loads = parse_noting
    np.lib.npyio.NpzFile.__getitem__ = load_noting  # type: ignore[method-assign]


def list_entries() -> dict[str, list[str]]:
    """List the keys of each golden file. A file without keys has an empty key."""
    entries = {}
    for path in sorted(GOLDEN.rglob("*")):
        if path.suffix == ".safetensors":
            with open_file(path, "np") as file:
                keys = list(file.keys())
        elif path.suffix == ".npz":
            with np.load(path) as file:
                keys = list(file.files)
        elif path.suffix == ".json":
            keys = list(dict.fromkeys(list_keys(json.loads(path.read_text()))))
        elif path.is_file():
            keys = [""]
        else:
            continue
        entries[path.relative_to(GOLDEN).as_posix()] = keys
    return entries


def main(arguments: list[str]) -> int:
    """Run the golden tests, and print a line for each file and each unread key."""
    entries = list_entries()
    watch_libraries()
    opened_files.clear()
    with NotingTensors():
        options = ["-m", "golden", "-p", "no:cacheprovider"]
        status = pytest.main(options + arguments)
    n_keys = n_unread = 0
    for name, keys in entries.items():
        unread = [key for key in keys if (name, key) not in read_entries]
        if keys == [""] and name in opened_files:
            unread = []
        n_keys += len(keys)
        n_unread += len(unread)
        print(f"{name}: {len(keys) - len(unread)} of {len(keys)} read")
        for key in unread:
            print(f"    {key or 'never opened'}")
    print(f"{n_unread} of {n_keys} are not read")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
