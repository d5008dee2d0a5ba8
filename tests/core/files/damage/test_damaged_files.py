"""Each reader on files that are damaged: one clear error, or the same content as
before; nothing else.
"""

import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results import Facts, Measurements
from brainhive_cli.core.runs import RunFolder, weights
from brainhive_cli.data.datasets import coco
from brainhive_cli.data.exchange.vectors import open_vectors, read_checked_batches
from brainhive_cli.data.files import pickles
from brainhive_cli.data.media import pictures
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores import SignalStore, StorePlan, TargetStore, TargetWriter

COUNT = 20
IDS = [f"train/c{number % 3}/p{number:02d}" for number in range(COUNT)]
VALUES = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
DAMAGES = (
    "emptied",
    "cut",
    "header",
    "payload",
    "zeros",
    "noise",
    "longer",
    "another kind",
    "directory",
)


@dataclass(frozen=True)
class Reader:
    """How a sound file is written, and read as something that can be compared.

    Attributes:
        has_digest: Whether the format tells any damaged byte.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    has_digest: bool = False


def content(value):
    """Turn what was read into plain values."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return (value.shape, str(value.dtype), value.tobytes())
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return value


def targets(path):
    attributes = {
        "encoder": "e",
        "dataset": "set",
        "split": "train",
        "config": {"kind": "timm"},
        "weights": {},
    }
    StorePlan(
        path,
        IDS,
        [image_id.split("/")[1] for image_id in IDS],
        (8,),
        "float32",
        attributes,
    ).create()
    writer = TargetWriter(path)
    writer.write(writer.pending_rows, VALUES)
    writer.close()
    writer.finish()


def read_targets(path):
    target_store = TargetStore.open(path)
    return content(
        [
            np.asarray(target_store.embedding),
            list(target_store.image_ids),
            list(target_store.concepts),
            target_store.done,
            target_store.attributes,
        ]
    )


def signals(path):
    signal = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    space, ids = Sensors(("O1", "Oz", "O2")), IDS[:4]
    trials = Trials.from_repetitions(
        signal, ids, space, np.arange(5) / 250, 250.0, "µV", {"source": "test"}
    )
    SignalStore.write(path, {"train": trials})


def read_signals(path):
    train = SignalStore.open(path)["train"]
    return content(
        [
            np.asarray(train.signal),
            list(train.image_ids),
            train.times_s,
            train.unit,
            train.repetitions,
        ]
    )


def run_command_line(path):
    folder = RunFolder(path.parent)
    folder.write_text("recipe.yaml", "seed: 1\n")
    folder.finish(Measurements(facts=Facts(mode="intra")))


def picture_bytes(form):
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def table(path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads parquet files")
    rows = pyarrow.table({"path": IDS, "emb": [row.tolist() for row in VALUES]})
    pytest.importorskip("pyarrow.parquet").write_table(rows, path)


def read_table(path):
    vectors = open_vectors([path], ["e"])
    return content([list(vectors.names), list(read_checked_batches(vectors))])


def annotations(path):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)]
    areas = [{"image_id": number, "category_id": 1, "area": 2.0} for number in range(3)]
    path.write_text(
        json.dumps(
            {
                "images": images,
                "categories": [{"id": 1, "name": "dog"}],
                "annotations": areas,
            }
        )
    )


STATE = {"layer.weight": torch.from_numpy(VALUES), "layer.bias": torch.arange(8.0)}
READERS = [
    Reader("set/train/e.h5", targets, read_targets, has_digest=True),
    Reader("sub-01.h5", signals, read_signals, has_digest=True),
    Reader(
        "archive.pt",
        partial(torch.save, STATE),
        lambda path: content(weights.read(path)),
        has_digest=True,
    ),
    Reader(
        "metrics.json",
        run_command_line,
        lambda path: RunFolder(path.parent).measurements().as_dict(),
        has_digest=True,
    ),
    Reader(
        "bare.npy",
        lambda path: path.write_bytes(pickle.dumps({"a": VALUES, "b": IDS})),
        lambda path: content(pickles.load(path)),
    ),
    Reader("table.parquet", table, read_table),
    Reader(
        "picture.png",
        lambda path: path.write_bytes(picture_bytes("png")),
        lambda path: pictures.decode(str(path), path).tobytes(),
    ),
    Reader(
        "instances.json", annotations, lambda path: coco._read_main_categories(path)
    ),
]


def damage(path, text, seed):
    """Damage a file."""
    selected_random, content = (
        random.Random(f"{path.name}/{text}/{seed}"),
        path.read_bytes(),
    )
    randrange, size = selected_random.randrange(len(content)), max(1, len(content) // 8)
    changed = bytearray(content)
    if text in ("header", "payload"):
        changed[
            randrange if text == "payload" else randrange % min(len(content), 200)
        ] ^= 1 << selected_random.randrange(8)
    elif text in ("zeros", "noise"):
        changed[randrange : randrange + size] = (
            bytes(size) if text == "zeros" else selected_random.randbytes(size)
        )[: len(content) - randrange]
    elif text == "longer":
        changed += selected_random.randbytes(64)
    elif text == "another kind":
        changed = bytearray(
            picture_bytes("png") if path.suffix != ".png" else pickle.dumps([1])
        )
    path.unlink()
    if text == "directory":
        path.mkdir()
    else:
        path.write_bytes(
            b""
            if text == "emptied"
            else bytes(changed[: randrange if text == "cut" else None])
        )


def test_a_damaged_file_is_one_clear_error_or_reads_as_before(tmp_path):
    """Each reader on two kinds of damage, in turn; `python -m tests.soak --only
    damaged` tries all.
    """
    for turn, reader in enumerate(READERS):
        for seed, how in enumerate((DAMAGES * 2)[2 * turn % len(DAMAGES) :][:2]):
            path = tmp_path / str(seed) / str(turn) / reader.name
            path.parent.mkdir(parents=True)
            reader.write(path)
            original = reader.read(path)
            damage(path, how, seed)
            try:
                content_now = reader.read(path)
            except BrainhiveError as error:
                assert error.exit_code in (1, 2, 3)
                assert error.hint
                assert str(tmp_path) in error.message
                assert "\n" not in error.message
                assert not {"this is a bug", "free space"} & set(error.hint.split("; "))
            else:
                assert content_now == original or not reader.has_digest, (
                    reader.name,
                    how,
                )
