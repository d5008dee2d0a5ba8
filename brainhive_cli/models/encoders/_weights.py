"""Weights of encoders: their folders, completeness and description in stores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import documents, hub, locate
from brainhive_cli.models.encoders import EncoderConfig

if TYPE_CHECKING:
    from torch import nn

INCOMPLETE_HINT = "give a complete folder, or the hub reference"
"""Hint for a folder that lacks files."""
PROCESSOR_CONFIG = "*processor_config.json"
"""Pattern of the config of an image processor, which is processor_config.json if
transformers 5 saved the whole processor. `Encoder.preprocessing` describes it.
"""


def fetch_weights(config: EncoderConfig) -> tuple[Path, dict[str, str]]:
    """Find the folder of an encoder's weights, and download it if it is absent.

    Files on this machine are used without a network.

    Args:
        config: Encoder with a source.

    Returns:
        The folder, and a description of the weights for the attributes of a store.

    Raises:
        MissingData: if the folder lacks a config or all weights.
    """
    # prefer the first pattern whose files are complete on this machine
    source = config.weights_source
    patterns = config.weight_files
    is_local = False
    for pattern in config.weight_files:
        if hub.find_weights(source, config.config_files, (pattern,)):
            patterns = (pattern,)
            is_local = True
            break

    # the first pattern with files decides
    for pattern in patterns:
        folder = hub.folder(
            source, allow=(*config.config_files, pattern), local=is_local
        )
        require_files(folder, *config.config_files)
        digest = _digest_configs(folder, config.config_files)
        if any(folder.glob(pattern)):
            description = describe_weights(source, folder, (pattern,))
            description["network"] = digest
            return folder, description
    files = " or ".join(config.weight_files)
    raise MissingData(
        f"{folder} has no {files}{hub.describe_weights(folder)}", INCOMPLETE_HINT
    )


def _digest_configs(folder: Path, names: Sequence[str]) -> str:
    """Hash the keys of config files that determine the network."""
    network = {}
    # Keys of a config without effect on a network in float32, or that describe the
    # preprocessing. Keys that begin with `_` have no effect either.
    idle_keys = {
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "pretrained_cfg",
        "preprocess_cfg",
    }
    for name in names:
        if name.endswith(PROCESSOR_CONFIG[1:]):
            continue
        keys = documents.read_download(folder / name)
        network[name] = {
            key: value
            for key, value in keys.items()
            if not key.startswith("_") and key not in idle_keys
        }
    return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()


def find_folder(source: str, files: Sequence[str], hint: str) -> Path:
    """Find a folder of weights, and download it if it is on the hub.

    Args:
        source: `hub:owner/name`, or a folder.
        files: Paths of the required files, below the folder.
        hint: Advice for the error.

    Raises:
        MissingData: if the folder or a file is absent.
    """
    if not source.startswith("hub:") and not locate(source).is_dir():
        raise MissingData(f"no folder {source!r}", hint)
    folder = hub.folder(source, allow=files)
    # the repository may lack files
    require_files(folder, *files, hint=hint)
    return folder


def require_files(folder: Path, *names: str, hint: str = INCOMPLETE_HINT) -> None:
    """Raise MissingData unless a folder holds all these files.

    Args:
        folder: Folder.
        names: Paths or patterns of the files, below the folder.
        hint: Advice for the error.
    """
    absent = [name for name in names if not any(folder.glob(name))]
    if absent:
        raise MissingData(f"{folder} has no {', '.join(absent)}", hint)


def list_weight_files(config: EncoderConfig, folder: Path) -> list[Path]:
    """List an encoder's weight files, without the indices of shards (.json)."""
    files: list[Path] = []
    for pattern in config.weight_files:
        files.extend(folder.glob(pattern))
    return [file for file in files if file.suffix != ".json"]


def describe_weights(
    source: str, folder: Path, files: Sequence[str] = hub.WEIGHT_PATTERNS
) -> dict[str, str]:
    """Describe weights for the attributes of a store: source, revision and digest.

    Args:
        source: Source of the weights.
        folder: Folder of the weights.
        files: Patterns of the files that are hashed.
    """
    return {
        "source": source,
        "revision": hub.read_revision(folder),
        "digest": hub.digest(folder, files),
    }


def prepare_network(
    config: Any, draw: Callable[[], nn.Module], load: Callable[[Path], nn.Module]
) -> tuple[Callable[[], nn.Module], dict[str, str]]:
    """Choose between random and stored weights, by the `source` of a Config.

    Args:
        config: Config of the encoder.
        draw: Builds the network with random weights, for the source `random`.
        load: Loads the network from a folder.

    Returns:
        A function that makes the network, and a description of its weights.
    """
    if config.source == "random":
        return partial(build_untrained, draw), {"source": "random"}
    folder, weights = fetch_weights(config)
    return partial(load, folder), weights


def build_untrained(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with random weights, which are always the same."""
    import torch

    # without a list of devices, `fork_rng` would start all GPUs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()
