"""Planted data sets, written into a home as stores and tiny pictures.

The generators `plant.py` and `plantn.py` lie beside their golden figures.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import signal_store
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter
from tools.shared_folders import GOLDEN

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = 1
POSTERIOR = slice(-17, None)
"""Posterior channels of THINGS-EEG2, which all trainings use."""
RATE_HZ = 250.0
TOKENS = (4, 64)
"""Shape of the planted tokens: the first 256 numbers of an embedding."""
VIEW_NOISE = 0.1
"""Standard deviation of the noise of view 1. View n has n times as much.

Embeddings have a standard deviation of about 1.2.
"""
VOXEL_STEP = 5
"""Every fifth sample of the posterior channels becomes a voxel."""
FOLDERS = {
    "things-eeg": {"train": "training_images", "test": "test_images"},
    "image-folder": {"train": "train", "test": "test"},
}
"""Picture folder of each split, by data set."""
Split = dict[str, Any]
"""`eeg` [N, R, C, T], and `emb`: embeddings [N, D] by letter."""


class Figures(NamedTuple):
    """Figures of the trainings of a method.

    Attributes:
        settings: Settings of the trainings. `plant` holds the generator's settings.
        reference: Entries of the authors' code, an entry a seed.
        path: File of the figures.
    """

    settings: dict[str, Any]
    reference: list[dict[str, Any]]
    path: Path


def folder() -> Path:
    """Return the folder of golden figures and generators."""
    return GOLDEN.absolute() / "trainings"


def read_figures(path: Path, part: str | None = None) -> Figures:
    """Read the golden figures of a method from its file, or from a part of it."""
    content = json.loads(path.read_text())
    if part is not None:
        content = content[part]
    if "figures" in content:  # a regression has no random draws
        entry = {"seed": 0, **content["figures"]["reference raw"]}
        return Figures(content, [entry], path)
    return Figures(content["settings"], content["reference"], path)


@cache
def generator(name: str) -> Any:
    """Import a generator of planted data: `plant` or `plantn`."""
    spec = spec_from_file_location(name, folder() / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(settings: Mapping[str, Any], letters: Sequence[str]) -> dict[str, Split]:
    """Make the EEG and embeddings of each split.

    Args:
        settings: Settings of the golden figures.
        letters: Embeddings of the generator, as `d`, and views of them, as `d3`.
    """
    arguments = settings.get("plant", {})
    encoders = tuple(dict.fromkeys(letter[0] for letter in letters))
    splits: dict[str, Split] = generator("plant").plant(**arguments, encoders=encoders)
    for number, split in enumerate(splits.values()):
        planted_embeddings, split["emb"] = split["emb"], {}
        for letter in letters:
            values, view = planted_embeddings[letter[0]], letter[1:]
            if view:
                seed = [arguments.get("seed", 1), 3, number, ord(letter[0]), int(view)]
                values = add_view_noise(values, int(view), seed)
            split["emb"][letter] = values
    return splits


def add_view_noise(
    values: NDArray[np.float16], view: int, seed: list[int]
) -> NDArray[np.float16]:
    """Add the noise of a view to an embedding [N, D].

    Views stand for layers or degradations of a network. View 1 is the most informative.
    """
    noise = np.random.default_rng(seed).standard_normal(values.shape)
    return (values + VIEW_NOISE * view * noise).astype(np.float16)


def picture_ids(dataset: str, split: str, count: int) -> list[str]:
    """Return the picture ids of a split in the form of a data set, a concept each."""
    ids = []
    for number in range(1, count + 1):
        name = f"{number:05d}_{split}/{split}_{number:05d}"
        ids.append(f"{FOLDERS[dataset][split]}/{name}")
    return ids


def write_pictures(home: Path, dataset: str, ids: Sequence[str]) -> None:
    """Write a picture of 16 × 16 random pixels for each id."""
    random = np.random.default_rng(len(ids))
    for name in ids:
        path = home / "data" / dataset / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)


def write_targets(
    home: Path, dataset: str, split: str, ids: Sequence[str], stores: Mapping[str, Any]
) -> None:
    """Write target stores of one split: arrays [N, *shape] by the store's name."""
    concepts = [name.split("/")[-2] if "/" in name else name for name in ids]
    for encoder, values in stores.items():
        path = build_store_path(home / "embeddings", dataset, split, encoder)
        attributes = {"encoder": encoder, "dataset": dataset, "split": split}
        shape = values.shape[1:]
        StorePlan(path, ids, concepts, shape, str(values.dtype), attributes).create()
        writer = TargetWriter(path)
        writer.write(np.arange(len(ids)), values)
        writer.close()
        writer.finish()


def write_signals(home: Path, dataset: str, recordings: Mapping[str, Trials]) -> None:
    """Write the signal store of the planted subject."""
    root = home / "signals"
    path = signal_store.build_store_path(root, dataset, "default", SUBJECT)
    SignalStore.write(path, recordings)


def make_eeg_trials(eeg: NDArray[np.float32], ids: Sequence[str]) -> Trials:
    """Make trials of planted EEG [N, R, C, T]."""
    times_s = np.arange(eeg.shape[-1]) / RATE_HZ
    return Trials.from_repetitions(
        eeg, list(ids), Sensors(MONTAGE), times_s, RATE_HZ, "planted"
    )


def make_voxel_trials(voxels: NDArray[np.float32], ids: Sequence[str]) -> Trials:
    """Make trials of planted voxels [N, R, V], all in the region `nsdgeneral`."""
    space = Voxels({"nsdgeneral": np.ones(voxels.shape[-1], bool)})
    return Trials.from_repetitions(
        voxels[..., None], list(ids), space, np.zeros(1), None, "planted"
    )


def make_voxels(splits: Mapping[str, Split]) -> dict[str, NDArray[np.float32]]:
    """Average EEG over repetitions, and z-score it by the training split.

    Returns:
        Voxels [N, V] of each split.
    """
    flat = {}
    for name, split in splits.items():
        posterior = split["eeg"][:, :, POSTERIOR, ::VOXEL_STEP]
        flat[name] = posterior.mean(1).reshape(len(posterior), -1)
    mean, sd = flat["train"].mean(0), flat["train"].std(0)
    return {name: ((values - mean) / sd).astype("f4") for name, values in flat.items()}


def write_eeg(
    home: Path, settings: Mapping[str, Any], stores: Mapping[str, str]
) -> None:
    """Write planted EEG as the data set `things-eeg`.

    Args:
        home: Folder of the data.
        settings: Settings of the golden figures.
        stores: Name of the store of each planted embedding, by its letter.
    """
    recordings = {}
    for split, content in plant(settings, list(stores)).items():
        ids = picture_ids("things-eeg", split, len(content["eeg"]))
        recordings[split] = make_eeg_trials(content["eeg"], ids)
        write_pictures(home, "things-eeg", ids)
        targets = {stores[letter]: values for letter, values in content["emb"].items()}
        write_targets(home, "things-eeg", split, ids, targets)
    write_signals(home, "things-eeg", recordings)


def write_voxels(
    home: Path, settings: Mapping[str, Any], stores: Mapping[str, str]
) -> None:
    """Write planted EEG as voxels of `image-folder`, and its embeddings as tokens."""
    splits, recordings = plant(settings, list(stores)), {}
    n_values = TOKENS[0] * TOKENS[1]
    for split, voxels in make_voxels(splits).items():
        ids = picture_ids("image-folder", split, len(voxels))
        recordings[split] = make_voxel_trials(voxels[:, None], ids)
        write_pictures(home, "image-folder", ids)
        targets = {}
        for letter, values in splits[split]["emb"].items():
            targets[stores[letter]] = values[:, :n_values].reshape(-1, *TOKENS)
        write_targets(home, "image-folder", split, ids, targets)
    write_signals(home, "image-folder", recordings)


def write_clips(
    home: Path, settings: Mapping[str, Any], stores: Mapping[str, str]
) -> None:
    """Write planted clips as the data set `cc2017`, with all targets of NEURONS.

    Args:
        home: Folder of the data.
        settings: Settings of the golden figures.
        stores: Name of the store of each planted target.
    """
    splits = generator("plantn").plant(**settings.get("plant", {}))
    root, recordings = home / "data" / "cc2017", {}
    root.mkdir(parents=True)
    projection = torch.from_numpy(splits.pop("proj"))
    torch.save({"proj": projection}, root / "coco_tokens_avg_proj.pth")
    for split, content in splits.items():
        count, frames = content["tokens"].shape[:2]
        pixels = torch.randint(0, 256, (count, frames, 3, 8, 8), dtype=torch.uint8)
        torch.save(pixels, root / f"GT_{split}_3fps.pt")
        ids = [f"{split}/{number}" for number in range(count)]
        tokens = content["tokens"].astype("f2")  # [N, F, S, D]
        targets = {
            "third frame": tokens[:, 2],
            "fourth frame": tokens[:, 3],
            "frames": tokens,
            "text": content["text"],
            "mask": content["mask"][:, :, None],  # [N, F, 1, H, W]
            "latents": content["latents"].astype("f4"),
            "concepts": content["concepts"],
            "caption": content["caption"].astype("f4"),
        }
        stored_targets = {store: targets[name] for name, store in stores.items()}
        write_targets(home, "cc2017", split, ids, stored_targets)
        recordings[split] = make_voxel_trials(content["voxels"], ids)
    write_signals(home, "cc2017", recordings)
