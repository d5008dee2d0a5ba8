"""Files of what was measured of one cell: plain data and arrays, of classes that are
named.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError


def save(path: Path, measured: Any) -> None:
    """Write dataclasses, mappings, lists and plain values to one file.

    Arrays become tensors, and what refers to them JSON in the header.
    """
    # arrays by number, in the order in which `encode` meets them
    arrays: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # copied: torch warns of read-only arrays and refuses negative strides
            arrays[name := str(len(arrays))] = torch.from_numpy(np.array(value))
            return {"array": name}
        if is_dataclass(value):
            about = {
                item.name: encode(getattr(value, item.name)) for item in fields(value)
            }
            return {"type": type(value).__name__, "fields": about}
        if isinstance(value, Mapping):  # keys may be numbers
            return {
                "items": [[encode(key), encode(item)] for key, item in value.items()]
            }
        # JSON has no tuples, so the type is written beside the items
        if isinstance(value, list | tuple):
            return {type(value).__name__: [encode(item) for item in value]}
        return value.item() if isinstance(value, np.generic) else value

    about = json.dumps(encode(measured))  # which names the arrays
    weights.save(path, arrays, {"measured": about})


def load(path: Path, *types: type) -> Any:
    """Read back what `save` wrote; `types` are the dataclasses that it holds.

    Raises:
        BrainhiveError: if the file is damaged.
    """
    # a file names classes, of which only those of the caller are built
    type_of = {each.__name__: each for each in types}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return arrays[value["array"]].numpy()
        if "type" in value:
            return type_of[value["type"]](
                **{name: decode(item) for name, item in value["fields"].items()}
            )
        if "items" in value:
            return {decode(key): decode(item) for key, item in value["items"]}
        if "tuple" in value:
            return tuple(map(decode, value["tuple"]))
        return [decode(item) for item in value["list"]]

    # content that does not decode is reported as damage of the file
    with weights.reading(path, documents.AGAIN, BrainhiveError):
        arrays = weights.read(path)
        return decode(documents.parse(weights.metadata_of(path)["measured"], str(path)))
