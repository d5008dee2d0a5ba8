"""The planted data in the file layouts that the authors' loaders read.

Every writer writes a single subject, sub-01, with all 63 channels. Each picture has a
concept of its own, as in the training data of our recipes.
"""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.core.base.errors import MissingExtra, install_line
from brainhive_cli.data.published.things_eeg import MONTAGE
from tools.parity.planted import RATE_HZ, Split

Splits = Mapping[str, Split]
"""The splits `train` and `test`, as `planted.plant` returns them."""
Names = Mapping[str, str]
"""Name of each embedding in the authors' files, by the letter of the planted one."""
Float = NDArray[np.float32]

SUBJECT_FOLDER = "sub-01"
BASELINE_SAMPLES = 50
"""Samples before the picture (0.2 s) in the times of NICE's preparation, but not in its
signals.
"""
PICTURES_PER_CONCEPT = 10
"""Training pictures of a concept in THINGS-EEG2, which ATM's loader expects."""
PICKLE_PROTOCOL = {"nice": 4, "ubp": 5}
"""Pickle protocols of the authors' preparations."""


def write_samga(folder: Path, splits: Splits, names: Names) -> None:
    """Write SAMGA's arrays: signals, and a file for each layer and split.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Number of the layer, by the letter.
    """
    write_npy_signals(folder / "preprocessed_eeg", splits)
    features = folder / "image_feature"
    features.mkdir()
    for split, content in splits.items():
        for letter, layer in names.items():
            values = content["emb"][letter]  # [N, D] float16
            # [objects, pictures of an object, D]
            np.save(features / f"image_{split}_layer{layer}.npy", values[:, None])


def write_neurobridge(folder: Path, splits: Splits, names: Names) -> None:
    """Write NeuroBridge's arrays: signals, and the mean of the degraded pictures.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Name of the degradation, by the letter.
    """
    write_npy_signals(folder / "preprocessed_eeg", splits)
    features = folder / "image_feature" / "RN50"
    averaged = features / "-".join(names.values())
    averaged.mkdir(parents=True)
    for split, content in splits.items():
        views = [content["emb"][letter].astype("f4") for letter in names]
        mean = np.mean(views, 0)[:, None]  # [objects, pictures of an object, D]
        # the first axis counts repeated degradations
        np.save(averaged / f"{split}.npy", mean[None])
        # the loader reads only the width of this file
        np.save(features / f"image_{split}.npy", mean)


def write_npy_signals(folder: Path, splits: Splits) -> None:
    """Write signals as SAMGA and NeuroBridge read them.

    Shape [objects, pictures of an object, R, C, T], in float32.
    """
    subject = folder / SUBJECT_FOLDER
    subject.mkdir(parents=True)
    channels = json.dumps({"ch_names": list(MONTAGE)}, indent=1)
    (folder / "info.json").write_text(channels)
    for split, content in splits.items():
        np.save(subject / f"{split}.npy", content["eeg"][:, None])


def write_blur_perception(folder: Path, splits: Splits, names: Names) -> None:
    """Write the files of Visual Blur Perception: signals, and embeddings of every blur.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Width of the blur's kernel in pixels, by the letter.
    """
    root = folder / "data" / "things-eeg"
    write_whitened_signals(root / "Preprocessed_data", splits)
    features = root / "Image_feature"
    (features / "UniformBlur").mkdir(parents=True)
    for split, content in splits.items():
        blurs = {}
        for letter, kernel in names.items():
            blurs[kernel] = embeddings_by_path(split, content["emb"][letter])
        # the later code reads the first file, the first commit reads the second
        torch.save(blurs, features / f"MultiBlur_RN50_{split}.pt")
        torch.save(blurs, features / "UniformBlur" / f"UniBlur_RN50_{split}.pt")


def write_ubp(folder: Path, splits: Splits, names: Names) -> None:
    """Write UBP's files: signals, and its cache of embeddings.

    Our recipe searches in the weakest blur, the authors' code in `medium`. So `medium`
    of the test is the weakest blur.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Level of the blur, by the letter: low, medium, high.
    """
    root = folder / "data" / "things-eeg"
    write_whitened_signals(root / "Preprocessed_data_250Hz_whiten", splits)
    features = root / "Image_feature" / "FoveaBlur"
    features.mkdir(parents=True)
    name = "eeg_intra-subject_ubp_EEGProjectLayer_RN50"
    for split, content in splits.items():
        levels = {}
        for letter, level in names.items():
            levels[level] = content["emb"][letter].astype("f4")
        if split == "test":
            levels["medium"] = levels["low"]
        levels["avg"] = np.mean(list(levels.values()), 0)
        pictures = {}
        for level, values in levels.items():
            pictures[level] = embeddings_by_path(split, values)

        # the loader reads texts, but does not use them
        texts = {}
        for text in describe_pictures(split, len(content["eeg"])):
            texts[text] = torch.zeros(levels["low"].shape[1])
        cache = {"img_features": pictures, "text_features": texts}
        torch.save(cache, features / f"{name}_{split}.pt")


def write_brainhive(folder: Path, splits: Splits, names: Names) -> None:
    """Write BrainHiVE's files: signals, and a parquet file for each network.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Name of the network, by the letter.
    """
    root = folder / "data" / "things-eeg"
    write_whitened_signals(root / "Preprocessed_data_250Hz_whiten", splits)
    for split, content in splits.items():
        for letter, network in names.items():
            path = root / "embeddings" / parquet_name(split, network)
            write_parquet(path, split, content["emb"][letter])


def write_bridge(folder: Path, splits: Splits, names: Names) -> None:
    """Write BRIDGE's files: signals, and a parquet file with all depths joined.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Name of the depth, by the letter, in the order in which they are joined.
    """
    root = folder / "data" / "things-eeg"
    write_whitened_signals(root / "Preprocessed_data_250Hz_whiten", splits)
    for split, content in splits.items():
        joined = np.concatenate([content["emb"][letter] for letter in names], 1)
        name = parquet_name(split, "CLIP-ViT-B-32-laion2B-s34B-b79K")
        write_parquet(root / "embeddings_multiscale" / name, split, joined)


def parquet_name(split: str, network: str) -> str:
    """Name the only file of the embeddings of a network."""
    return f"things_{split}_{network}-part-00000-of-00000.parquet"


def write_parquet(path: Path, split: str, values: NDArray[Any]) -> None:
    """Write embeddings [N, D] with the columns `image_id` and `emb`."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra(
            "pyarrow is not installed, which writes parquet", install_line("parquet")
        ) from error
    path.parent.mkdir(exist_ok=True)
    ids = [Path(name).stem for name in picture_paths(split, len(values))]
    rows = pa.array(list(values.astype("f4")), pa.list_(pa.float32()))
    table = pa.table({"image_id": pa.array(ids, pa.string()), "emb": rows})
    parquet.write_table(table, path)


def write_whitened_signals(folder: Path, splits: Splits) -> None:
    """Write signals as UBP's preparation does.

    A torch file for each split holds a dictionary with signals [N, R, C, T] in float16
    and a text for each repetition.
    """
    subject = folder / SUBJECT_FOLDER
    subject.mkdir(parents=True)
    for split, content in splits.items():
        signals = content["eeg"].astype(np.float16)
        count, repetitions, _, samples = signals.shape
        columns: dict[str, Any] = {
            "label": np.arange(count),
            "img": np.array(picture_paths(split, count)),
            "text": np.array(describe_pictures(split, count)),
            "session": np.zeros(count, int),
        }
        recording: dict[str, Any] = {"eeg": signals}
        for key, values in columns.items():
            recording[key] = np.repeat(values[:, None], repetitions, 1)  # [N, R]
        recording["times"] = np.arange(samples) / RATE_HZ
        recording["ch_names"] = list(MONTAGE)
        path = subject / f"{split}.pt"
        torch.save(recording, path, pickle_protocol=PICKLE_PROTOCOL["ubp"])


def write_nice(folder: Path, splits: Splits, names: Names) -> None:
    """Write NICE's files: signals, and embeddings of pictures as concept centres.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Name of the network, by the letter.
    """
    write_pickled_signals(folder / "Preprocessed_data_250Hz", splits)
    features = folder / "dnn_feature"
    features.mkdir()
    for letter, network in names.items():
        values = {}
        for split, content in splits.items():
            values[split] = unit_length(content["emb"][letter])
        maps = f"{network}_feature_maps"
        np.save(features / f"{maps}_training.npy", values["train"][:, None])
        np.save(features / f"{maps}_test.npy", values["test"][:, None])
        # the test pictures replace the centres of other pictures
        np.save(features / f"center_{network}.npy", values["test"])


def write_alignvis(folder: Path, splits: Splits, names: Names) -> None:
    """Write AlignVis' files: signals, a list of pictures, and a file for each picture.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Name of the network, by the letter.
    """
    root = folder / "things_eeg_2"
    write_pickled_signals(root / "Preprocessed_data_250Hz", splits)
    embeddings, metadata = root / "image_embeddings", {}
    for split, content in splits.items():
        paths = [Path(path) for path in picture_paths(split, len(content["eeg"]))]
        metadata[f"{split}_img_concepts"] = [path.parent.name for path in paths]
        metadata[f"{split}_img_files"] = [path.name for path in paths]
        pictures = embeddings / LONG_FOLDERS[split]
        for row, path in enumerate(paths):
            concept = pictures / path.parent.name
            concept.mkdir(parents=True)
            for letter, network in names.items():
                values = content["emb"][letter][row].astype("f4")[None]  # [1, D]
                np.save(concept / f"{path.stem}_{network}.npy", values)
    # an array without dimensions that holds the dictionary
    np.save(embeddings / "image_metadata.npy", np.array(metadata, object))


def write_atm(folder: Path, splits: Splits, names: Names) -> None:
    """Write ATM's files: signals, its cache of embeddings, and folders of pictures.

    Its loader expects ten training pictures and a text in each concept. So ten planted
    pictures share the mean of their planted texts.

    Args:
        folder: Output folder.
        splits: Planted data.
        names: Key of the cache, by the letter: img_features, text_features.
    """
    write_pickled_signals(folder / "Preprocessed_data_250Hz", splits)
    # paths relative to `folder`, in which the code must run
    paths = {
        "data_path": "Preprocessed_data_250Hz",
        "img_directory_training": LONG_FOLDERS["train"],
        "img_directory_test": LONG_FOLDERS["test"],
        "features_path": ".",
    }
    (folder / "data_config.json").write_text(json.dumps(paths, indent=1))
    for split, content in splits.items():
        n_pictures = PICTURES_PER_CONCEPT if split == "train" else 1
        count = len(content["eeg"])
        cache = {}
        for letter, key in names.items():
            values = unit_length(content["emb"][letter])
            if key == "text_features":
                starts = range(n_pictures, count, n_pictures)
                means = [texts.mean(0) for texts in np.array_split(values, starts)]
                values = unit_length(np.stack(means))
            cache[key] = torch.from_numpy(values)
        torch.save(cache, folder / f"ViT-H-14_features_{split}.pt")

        # the loader lists these files without opening them
        picture = Image.new("RGB", (8, 8))
        for row in range(count):
            number = row // n_pictures + 1
            concept = folder / LONG_FOLDERS[split] / concept_name(split, number)
            concept.mkdir(parents=True, exist_ok=True)
            picture.save(concept / f"{split}_{row + 1:05d}.jpg")


def write_pickled_signals(folder: Path, splits: Splits) -> None:
    """Write signals as NICE's preparation does.

    A pickle named .npy for each split holds a dictionary with signals [N, R, C, T] in
    float64.
    """
    subject = folder / SUBJECT_FOLDER
    subject.mkdir(parents=True)
    file_names = {"train": "training", "test": "test"}
    for split, content in splits.items():
        samples = content["eeg"].shape[-1]
        recording = {
            "preprocessed_eeg_data": content["eeg"].astype(np.float64),
            "ch_names": list(MONTAGE),
            "times": np.arange(-BASELINE_SAMPLES, samples) / RATE_HZ,
        }
        path = subject / f"preprocessed_eeg_{file_names[split]}.npy"
        with path.open("wb") as file:
            pickle.dump(recording, file, protocol=PICKLE_PROTOCOL["nice"])


LONG_FOLDERS = {"train": "training_images", "test": "test_images"}
"""Folders of pictures, as THINGS-EEG2 names them."""
SHORT_FOLDERS = {"train": "train_images", "test": "test_images"}
"""Folders of pictures in the paths of UBP's preparation."""


def concept_name(split: str, number: int) -> str:
    """Name a concept as THINGS-EEG2 does: its number, and a word."""
    return f"{number:05d}_{split}"


def picture_paths(split: str, count: int) -> list[str]:
    """Return the paths of the pictures of a split, a concept each."""
    paths = []
    for number in range(1, count + 1):
        concept = concept_name(split, number)
        paths.append(f"{SHORT_FOLDERS[split]}/{concept}/{split}_{number:05d}.jpg")
    return paths


def describe_pictures(split: str, count: int) -> list[str]:
    """Return a text for each picture of a split."""
    return [f"{split} {number}" for number in range(1, count + 1)]


def embeddings_by_path(split: str, values: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Return embeddings [N, D] as tensors [D] of unit length, by the picture's path."""
    rows = unit_length(values)
    paths: Sequence[str] = picture_paths(split, len(values))
    # copy each row, as torch saves a view with all rows
    return {path: torch.tensor(row) for path, row in zip(paths, rows, strict=True)}


def unit_length(values: NDArray[Any]) -> Float:
    """Scale rows [N, D] to unit length, in float32."""
    rows = values.astype("f4")
    unit: Float = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


WRITERS: dict[str, Callable[[Path, Splits, Names], None]] = {
    "samga": write_samga,
    "neurobridge": write_neurobridge,
    "visual-blur-perception": write_blur_perception,
    "bridge": write_bridge,
    "brainhive": write_brainhive,
    "ubp": write_ubp,
    "nice": write_nice,
    "atm-s": write_atm,
    "alignvis": write_alignvis,
}
"""The writer of each method that can be exported."""
