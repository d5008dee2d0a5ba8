"""Publishers' weights: where single files lie, networks from their folders, and names
brought to ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import console, hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData, find_error
from brainhive_cli.core.files import locate

if TYPE_CHECKING:
    from torch import Tensor

StateDict = dict[str, "Tensor"]
NameTable = Mapping[str, str | None]
"""What stands for the beginning of a weight's name, by a pattern of it; None: the
weight is left out.
"""


def is_weight_file(reference: str) -> bool:
    """Whether a reference is to one file of weights, not to a folder."""
    return Path(reference.partition("@")[0]).suffix in (
        ".ckpt",
        ".pt",
        ".pth",
        ".safetensors",
    )


def find_weight_file(reference: str) -> Path:
    """Find one file by path or hub reference
    (`hub:[datasets/]OWNER/NAME/FILE[@REVISION]`).

    Raises:
        MissingData: if it is not there.
    """
    path = locate(reference)
    # fetch this file alone, not all files of its repository
    if reference.startswith("hub:"):
        folder, name = _split(reference)
        path = hub.folder(folder, allow=[name]) / name
    if not path.is_file():
        raise MissingData(
            f"no file {reference}", "give a .safetensors file or hub:OWNER/NAME/FILE"
        )
    return path


def find_file_input(reference: str) -> Input:
    """Look for a file that `find_file` would fetch; nothing is fetched."""
    if reference.startswith("hub:"):
        folder, name = _split(reference)
        return hub.find_input(folder, (), (name,))
    return Input(reference, error=find_error(lambda: find_weight_file(reference)))


def load_network(
    network: Any,
    folder: Path,
    where: str = "",
    files: Sequence[Path] = (),
    **options: Any,
) -> Any:
    """Load a network of diffusers or transformers from its folder, frozen.

    Args:
        network: Its class there.
        folder: With its config and weights.
        where: What it is, for messages; default: the folder.
        files: Its weights; default: safetensors, or pickles where there are none.
        options: Further arguments of `from_pretrained`.

    Raises:
        MissingData: if weights are absent, damaged, or not all there: the library would
            draw those.
    """
    # the files of weights, safetensors before pickles
    where = where or str(folder)
    files = files or list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    if not files:
        raise MissingData(
            f"{where} is damaged or half-downloaded: no weights",
            "give a whole folder, or download it again",
        )
    if not any(file.suffix == ".safetensors" for file in files):
        # else diffusers reports their absence as an error
        options["use_safetensors"] = False
    # load, and refuse a network that lacks some of its weights
    with weights.reading(where, files=files), console.mute_libraries():
        model, info = network.from_pretrained(
            folder, output_loading_info=True, **options
        )
        refuse_absent(info["missing_keys"], len(model.state_dict()), where)
        return model.eval().requires_grad_(False)


def refuse_absent(absent: Iterable[str], count: int, where: object) -> None:
    """Raise MissingData if any of a network's `count` weights is absent: libraries fill
    it with noise.
    """
    if unmatched := sorted(absent):
        raise MissingData(
            f"{where}: {weights.describe_match(unmatched, count)}",
            "fetch it again, or give a complete checkpoint",
        )


def rename_weights(state: Mapping[str, Tensor], table: NameTable) -> StateDict:
    """Rename weights by the first pattern of a table that a name begins with; other
    names stay.

    Which of our weights are then missing, and which names are left over, is said by
    `weights.fill`.
    """
    renamed = {}
    for name, value in state.items():
        # the first match decides, so the order of the table matters
        pattern = next((pattern for pattern in table if re.match(pattern, name)), None)
        if pattern is None:
            renamed[name] = value
        elif (replacement := table[pattern]) is not None:  # None leaves the weight out
            renamed[re.sub(pattern, replacement, name, count=1)] = value
    return renamed


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    """Select the weights whose names begin with a prefix, and leave the prefix out."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


def count_indices(state: Mapping[str, Tensor], pattern: str) -> int:
    """Count the numbers that a pattern's group has among the names of weights."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _split(reference: str) -> tuple[str, str]:
    """Split a reference to a file at the hub into one to its folder, and its name."""
    # hub:OWNER/NAME/FILE@REVISION: the revision is that of the repository
    address, at, revision = reference.partition("@")
    folder, _, name = address.rpartition("/")
    return f"{folder}{at}{revision}", name
