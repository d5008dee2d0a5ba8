"""Lists the golden values that no test reads: `python -m tools.golden_use [ARG …]`.

The golden tests run in this process; arguments are passed to pytest. A tensor counts as
read once an operation takes it: its shape alone does not, nor its loading with all the
others of its file. A JSON value counts once its key is looked up, an array of an npz
file too. Any other file counts once it is opened, though by a copy.

The package parses its documents with pydantic, which notes nothing: the configs of the
fusion prior's parts are read, though they are listed.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).parents[1]
GOLDEN = Path(os.environ.get("BRAINHIVE_GOLDEN") or ROOT.parent / "shared" / "golden")
ABOUT_SHAPES = {
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
"""File below the golden folder, and key in it."""
read_entries = set[Entry]()
"""Entries that were read."""
opened_files = set[str]()
"""Files that Python opened."""
open_file = safetensors.safe_open


def name_of(path: Any) -> str | None:
    """Return the path below the golden folder, or None outside."""
    path = Path(os.fspath(path)).absolute()
    if not path.is_relative_to(GOLDEN):
        return None
    return path.relative_to(GOLDEN).as_posix()


class Notes(dict[str, Any]):
    """Mapping that notes which of its keys are looked up.

    Args:
        content: Its items. Mappings and lists in them become notes, too.
        file: Its file.
        prefix: Keys that lead to it.
    """

    def __init__(self, content: dict[str, Any], file: str, prefix: str = "") -> None:
        self.file, self.prefix = file, prefix
        super().__init__(
            {
                key: note_lookups(value, file, f"{prefix}{key}.")
                for key, value in content.items()
            }
        )

    def __getitem__(self, key: str) -> Any:
        """Look up a value, and note its key."""
        read_entries.add((self.file, self.prefix + key))
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys. Without this method ** would look nothing up."""
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """Look up a value that may be absent."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Take a value out, and note its key."""
        read_entries.add((self.file, self.prefix + key))
        return super().pop(key, *default)

    def __eq__(self, other: object) -> bool:
        """Look up all values, and compare them."""
        return dict(self.items()) == other

    def values(self) -> Any:
        """Look up all values."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """Look up all values, by their keys."""
        return [(key, self[key]) for key in self]


def note_lookups(value: Any, file: str, prefix: str) -> Any:
    """Replace the mappings in a value of a JSON file by notes."""
    if isinstance(value, dict):
        return Notes(value, file, prefix)
    if isinstance(value, list):
        return [note_lookups(item, file, prefix) for item in value]
    return value


def entries_of(value: Any, prefix: str = "") -> Iterator[str]:
    """List the keys in a value of a JSON file, those in lists once."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield prefix + key
            yield from entries_of(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from entries_of(inner, prefix)


class NotingFile:
    """Safetensors file that notes which tensors are read."""

    def __init__(self, path: Any, framework: str, *arguments: Any, **named: Any):
        self.file, self.name = (
            open_file(path, framework, *arguments, **named),
            name_of(path),
        )

    def __enter__(self) -> "NotingFile":
        """Open the file."""
        self.file.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """Close the file."""
        self.file.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        """Leave other methods to the file."""
        return getattr(self.file, name)

    def get_tensor(self, key: str) -> Any:
        """Load a tensor, which is noted when it is used; an array is noted now."""
        value = self.file.get_tensor(key)
        if self.name is None:
            return value
        if isinstance(value, torch.Tensor):
            # noted by `NotingTensors`, when it is used
            value.golden_entry = (self.name, key)
        else:
            read_entries.add((self.name, key))
        return value

    def get_tensors(self) -> dict[str, Any]:
        """Load all tensors; those of torch are noted when they are used."""
        values = self.file.get_tensors()
        if self.name is None:
            return values
        for key, value in values.items():
            if not isinstance(value, torch.Tensor):
                return Notes(values, self.name)
            value.golden_entry = (self.name, key)
        return values

    def get_slice(self, key: str) -> Any:
        """Load a part of a tensor, and note it."""
        if self.name is not None:
            read_entries.add((self.name, key))
        return self.file.get_slice(key)


class NotingTensors(TorchFunctionMode):
    """Notes the golden tensors that operations of torch take."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        """Note the tensors among the arguments, and call the function."""
        name = function.__name__
        if name == "__get__":
            name = function.__self__.__name__  # type: ignore[attr-defined]
        if name not in ABOUT_SHAPES:
            note_tensors((*arguments, *(named or {}).values()))
        return function(*arguments, **(named or {}))


def note_tensors(arguments: Any) -> None:
    """Note the golden tensors among arguments, and in lists among them."""
    for item in arguments:
        if isinstance(item, torch.Tensor):
            if "golden_entry" in item.__dict__:
                read_entries.add(item.golden_entry)  # type: ignore[attr-defined]
        elif isinstance(item, list | tuple):
            note_tensors(item)


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a golden file that Python opens, whoever asks it to."""
    if (
        event == "open"
        and isinstance(arguments[0], str)
        and (name := name_of(arguments[0]))
    ):
        opened_files.add(name)


def watch() -> None:
    """Let the libraries that read golden files note it. Come before their import."""
    safetensors.safe_open = NotingFile
    sys.addaudithook(note_opened)
    documents = {path.read_text(): name_of(path) for path in GOLDEN.rglob("*.json")}
    parse, take = json.loads, np.lib.npyio.NpzFile.__getitem__

    def parse_noting(text: Any, **named: Any) -> Any:
        value = parse(text, **named)
        file = documents.get(text.decode() if isinstance(text, bytes) else text)
        return (
            note_lookups(value, file, "") if file and isinstance(value, dict) else value
        )

    def take_noting(file: Any, key: str) -> Any:
        if file.zip.filename and (name := name_of(file.zip.filename)):
            read_entries.add((name, key.removesuffix(".npy")))
        return take(file, key)

    json.loads = parse_noting
    np.lib.npyio.NpzFile.__getitem__ = take_noting  # type: ignore[method-assign]


def list_entries() -> dict[str, list[str]]:
    """List the keys of each golden file; a file without keys has one, empty."""
    entries = {}
    for path in sorted(GOLDEN.rglob("*")):
        if path.suffix == ".safetensors":
            with open_file(path, "np") as file:
                keys = list(file.keys())
        elif path.suffix == ".npz":
            with np.load(path) as file:
                keys = list(file.files)
        elif path.suffix == ".json":
            keys = list(dict.fromkeys(entries_of(json.loads(path.read_text()))))
        elif path.is_file():
            keys = [""]
        else:
            continue
        entries[path.relative_to(GOLDEN).as_posix()] = keys
    return entries


def main(arguments: list[str]) -> int:
    """Run the golden tests, and print a line for each file and for each unread key."""
    entries = list_entries()
    watch()
    opened_files.clear()
    with NotingTensors():
        status = pytest.main(["-m", "golden", "-p", "no:cacheprovider", *arguments])
    count = defaultdict[str, int](int)
    for name, keys in entries.items():
        unread = [key for key in keys if (name, key) not in read_entries]
        if keys == [""] and name in opened_files:
            unread = []
        count["all"] += len(keys)
        count["unread"] += len(unread)
        print(f"{name}: {len(keys) - len(unread)} of {len(keys)} read")
        for key in unread:
            print(f"    {key or 'never opened'}")
    print(f"{count['unread']} of {count['all']} are not read")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
