"""Weights of other publishers: finding files, loading networks and renaming weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.base import MissingData, console, find_error
from brainhive_cli.core.files import Input, hub, locate
from brainhive_cli.core.runs import weights

if TYPE_CHECKING:
    from torch import Tensor

StateDict = dict[str, "Tensor"]
NameTable = Mapping[str, str | None]
"""New beginnings of names of weights, keyed by a pattern of the old beginning. Weights
with the value None are left out.
"""


def is_weight_file(reference: str) -> bool:
    """Return True if a reference names a file of weights, and not a folder."""
    return Path(reference.partition("@")[0]).suffix in (
        ".ckpt",
        ".pt",
        ".pth",
        ".safetensors",
    )


def find_weight_file(reference: str) -> Path:
    """Find a file, and download it if it is on the hub.

    Args:
        reference: Path, or `hub:[datasets/]OWNER/NAME/FILE[@REVISION]`.

    Raises:
        MissingData: if there is no such file.
    """
    path = locate(reference)
    if reference.startswith("hub:"):
        folder, name = _split_reference(reference)
        path = hub.folder(folder, allow=[name]) / name
    if not path.is_file():
        raise MissingData(
            f"no file {reference}", "give a .safetensors file or hub:OWNER/NAME/FILE"
        )
    return path


def find_file_input(reference: str) -> Input:
    """Look for the file of `find_weight_file`, without a download from the hub."""
    if reference.startswith("hub:"):
        folder, name = _split_reference(reference)
        return hub.find_input(folder, (), (name,))
    return Input(reference, error=find_error(lambda: find_weight_file(reference)))


def load_network(
    network_class: Any,
    folder: Path,
    description: str = "",
    files: Sequence[Path] = (),
    **options: Any,
) -> Any:
    """Load a network of diffusers or transformers from its folder, frozen.

    Args:
        network_class: Class of the network.
        folder: Folder with its config and weights.
        description: Description of the network for errors, by default the folder.
        files: Files of its weights, by default safetensors, or else pickles.
        options: Further arguments of `from_pretrained`.

    Raises:
        MissingData: if weights are absent or damaged. The library would replace absent
            weights by random ones.
    """
    description = description or str(folder)
    files = files or list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    if not files:
        raise MissingData(
            f"{description} is damaged or half-downloaded: no weights",
            "give a whole folder, or download it again",
        )
    if not any(file.suffix == ".safetensors" for file in files):
        # without this, diffusers reports absent safetensors as an error
        options["use_safetensors"] = False
    # Pattern of the name of a weight file with a variant, as model.fp16.safetensors.
    variants = [re.match(r"\w+\.([a-z]+\d+)[.-]", file.name) for file in files]
    if variants[0] and all(variants):
        options["variant"] = variants[0][1]
    with weights.reading(description, files=files), console.mute_libraries():
        network, info = network_class.from_pretrained(
            folder, output_loading_info=True, **options
        )
        n_weights = len(network.state_dict())
        refuse_absent(info["missing_keys"], n_weights, description)
        return network.eval().requires_grad_(False)


def refuse_absent(names: Iterable[str], n_weights: int, source: object) -> None:
    """Raise an error if weights of a network are absent.

    Args:
        names: Names of the absent weights.
        n_weights: Number of all weights of the network.
        source: Source of the weights, for the error.

    Raises:
        MissingData: if there are names.
    """
    absent = sorted(names)
    if absent:
        raise MissingData(
            f"{source}: {weights.describe_match(absent, n_weights)}",
            "fetch it again, or give a complete checkpoint",
        )


def rename_weights(state: Mapping[str, Tensor], table: NameTable) -> StateDict:
    """Rename weights by a table. Names without a pattern stay the same.

    Args:
        state: Weights, keyed by name.
        table: Table of names, of which the first matching pattern applies.
    """
    renamed = {}
    for name, value in state.items():
        new_name: str | None = name
        for pattern, replacement in table.items():
            if not re.match(pattern, name):
                continue
            new_name = None
            if replacement is not None:
                new_name = re.sub(pattern, replacement, name, count=1)
            break
        if new_name is not None:
            renamed[new_name] = value
    return renamed


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    """Select the weights whose names begin with a prefix, and remove the prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def count_indices(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different indices in names of weights, such as the layers of a network.

    Args:
        state: Weights, keyed by name.
        pattern: Pattern of the beginning of a name, whose group is the index.
    """
    indices = set()
    for name in state:
        match = re.match(pattern, name)
        if match:
            indices.add(match[1])
    return len(indices)


def _split_reference(reference: str) -> tuple[str, str]:
    """Split `hub:OWNER/NAME/FILE@REV` into `hub:OWNER/NAME@REV` and `FILE`."""
    address, at_sign, revision = reference.partition("@")
    folder, _, name = address.rpartition("/")
    return f"{folder}{at_sign}{revision}", name
