"""The weights of encoders: where they lie, whether they are whole, and what stores say
of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.models.encoders import EncoderConfig

if TYPE_CHECKING:
    from torch import nn

INCOMPLETE_HINT = "give a complete folder, or the hub reference"
"""Hint for a folder that lacks files."""
PROCESSOR_CONFIG = "preprocessor_config.json"
"""Config of an image processor, which an encoder's `preprocessing` says in words."""
IDLE_KEYS = {"architectures", "dtype", "torch_dtype", "transformers_version"}
IDLE_KEYS |= {"pretrained_cfg", "preprocess_cfg"}
"""Keys of a config that change nothing of a network in float32, or are said by
`preprocessing`; nor do those that begin with `_`.
"""


def fetch_weights(config: EncoderConfig) -> tuple[Path, dict[str, str]]:
    """Find the folder of an encoder's weights; what is on this machine is used as it
    is, without a network.

    Returns:
        The folder, and its description for a store's attributes.

    Raises:
        MissingData: if the folder lacks what the encoder needs.
    """
    # prefer the file pattern that is complete on this machine
    source = config.weights_source
    here = [
        p
        for p in config.weight_files
        if hub.find_weights(source, config.config_files, (p,))
    ]
    for pattern in here[:1] or config.weight_files:
        folder = hub.folder(
            source, allow=(*config.config_files, pattern), local=bool(here)
        )
        require_files(folder, *config.config_files)

        # what configs say of the network is part of its identity
        network = {}
        for name in config.config_files:
            written = documents.read_download(folder / name)
            if name.rpartition("/")[2] != PROCESSOR_CONFIG:
                stated = {
                    key: value
                    for key, value in written.items()
                    if not key.startswith("_")
                }
                network[name] = {key: stated[key] for key in stated.keys() - IDLE_KEYS}

        # the first pattern with files decides; a store records digests of files and
        # configs
        if any(folder.glob(pattern)):
            made_by = describe_weights(source, folder, (pattern,))
            stated_digest = hashlib.sha256(
                json.dumps(network, sort_keys=True).encode()
            ).hexdigest()
            return folder, {**made_by, "network": stated_digest}
    raise MissingData(
        f"{folder} has no {' or '.join(config.weight_files)}", INCOMPLETE_HINT
    )


def find_folder(source: str, files: Sequence[str], way: str) -> Path:
    """Find a folder of weights.

    Args:
        source: `hub:owner/name`, or a folder.
        files: What it must hold, as paths below it.
        way: How to get them.

    Raises:
        MissingData: if the folder or one of its files is not there.
    """
    # only the hub's folders can be downloaded, a local one must exist
    if not source.startswith("hub:") and not locate(source).is_dir():
        raise MissingData(f"no folder {source!r}", way)
    folder = hub.folder(source, allow=files)
    # a download may lack files that the repository does not have
    require_files(folder, *files, way=way)
    return folder


def require_files(folder: Path, *names: str, way: str = INCOMPLETE_HINT) -> None:
    """Raise MissingData, with the `way` to get them, unless the folder holds each of
    these files.
    """
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise MissingData(f"{folder} has no {', '.join(absent)}", way)


def list_weight_files(config: EncoderConfig, folder: Path) -> list[Path]:
    """List an encoder's files of weights; indices of split ones hold none."""
    # split weights have an index (.json) next to their shards
    files = [file for pattern in config.weight_files for file in folder.glob(pattern)]
    return [file for file in files if file.suffix != ".json"]


def describe_weights(
    source: str, folder: Path, files: Sequence[str] = hub.WEIGHT_PATTERNS
) -> dict[str, str]:
    """Describe weights, the files of a folder that match the patterns, for a store's
    attributes.
    """
    return {
        "source": source,
        "revision": hub.read_revision(folder),
        "digest": hub.digest(folder, files),
    }


def prepare_network(
    config: Any, draw: Callable[[], nn.Module], load: Callable[[Path], nn.Module]
) -> tuple[Callable[[], nn.Module], dict[str, str]]:
    """Choose how a network is made, of random weights if its source is `random`, and
    describe these.
    """
    # files are located now, the network is made when it is first used
    if config.source == "random":
        return partial(build_untrained, draw), {"source": "random"}
    folder, weights = fetch_weights(config)
    return partial(load, folder), weights


def build_untrained(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network with random weights, the same every time."""
    import torch

    with torch.random.fork_rng(devices=[]):  # by default all GPUs, which would be woken
        torch.manual_seed(0)
        return make()
