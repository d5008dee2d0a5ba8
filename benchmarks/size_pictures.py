"""Pictures and their names at published sizes: imports, near-copies and matching."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from growth import Case, Task
from PIL import Image

from brainhive_cli.commands import import_embeddings
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.files.ids import match_names
from brainhive_cli.data.media.near_copies import find_candidates
from brainhive_cli.training.alignment.training.batches import MAX_COPY_DISTANCE


def import_vectors(count: int, folder: Path) -> Task:
    """Write small pictures and vectors of three encoders, to be imported."""
    os.environ["BRAINHIVE_HOME"] = str(folder)
    random = np.random.default_rng(0)
    names = [f"concept{row // 10}/picture{row}" for row in range(count)]
    for name in names:
        path = folder / f"pictures/train/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
        coarse.resize((96, 96)).save(path)

    widths = {"clip-b32": 512, "dinov2-b14": 768, "vae": 1024}
    for encoder, width in widths.items():
        values = random.standard_normal((count, width), np.float32)
        vectors = pyarrow.FixedSizeListArray.from_arrays(values.ravel(), width)
        table = pyarrow.table({"image_id": names, "emb": vectors})
        file = f"pictures_train_{encoder}-part-00000-of-00000.parquet"
        pyarrow.parquet.write_table(table, folder / file)
    keys = {
        "dataset": {"kind": "image-folder", "root": str(folder / "pictures")},
        "sources": [str(folder / "*.parquet")],
        "encoders": list(widths),
        "splits": ["train"],
    }
    recipe = import_embeddings.Recipe.resolve("import-embeddings", None, keys, [])
    launch = Launch(0, 1, torch.device("cpu"))
    data_bytes = 4 * count * sum(widths.values())
    return Task(lambda: import_embeddings.run(recipe, launch), data_bytes=data_bytes)


def draw_hashes(count: int) -> np.ndarray:
    """Draw the hashes [N, 24] of square pictures, whose views 0, 7 and 10 are equal."""
    hashes = np.random.default_rng(count).integers(0, 2**63, (count, 24), np.uint64)
    for view in (7, 10):
        hashes[:, 2 * view : 2 * view + 2] = hashes[:, :2]
    return hashes


def prepare_test_copies(n_test: int) -> Callable[[int, Path], Task]:
    """Prepare a search for near-copies of test pictures among training pictures."""

    def prepare(count: int, _: Path) -> Task:
        test = draw_hashes(n_test)
        train = draw_hashes(count)
        n_copies = n_test // 20
        train[:n_copies] = test[:n_copies]
        return Task(
            lambda: find_candidates(test, train), data_bytes=test.nbytes + train.nbytes
        )

    return prepare


def prepare_training_copies(count: int, _: Path) -> Task:
    """Prepare a search for near-copies of a held-out tenth of the training pictures."""
    train = draw_hashes(count)
    held_out = train[: count // 10].copy()
    held_out[::2] = draw_hashes(count // 10)[::2]
    return Task(
        lambda: find_candidates(held_out, train, MAX_COPY_DISTANCE),
        data_bytes=held_out.nbytes + train.nbytes,
    )


def prepare_names(count: int, _: Path) -> Task:
    """Prepare the matching of image ids with paths of another folder.

    The pictures lie in 1,000 folders with the same file names.
    """
    image_ids = [f"n{row % 1000:08}/{row // 1000}" for row in range(count)]
    names = [f"/data/train/{image_id}.JPEG" for image_id in image_ids]
    data_bytes = sum(sys.getsizeof(name) for name in image_ids + names)
    return Task(lambda: match_names(names, image_ids), data_bytes=data_bytes)


CASES: Mapping[str, Case] = {
    "import_embeddings": Case(
        "Import of three encoders, pictures", 16_540, import_vectors
    ),
    "near_copies": Case(
        "1,000 tested of NSD among learned pictures", 72_000, prepare_test_copies(1000)
    ),
    "near_copies_things": Case(
        "200 tested of THINGS among learned pictures", 26_107, prepare_test_copies(200)
    ),
    "training_copies": Case(
        "A tenth of NSD among training pictures", 73_000, prepare_training_copies
    ),
    "match_names": Case("Names of ImageNet, files repeat", 1_281_167, prepare_names),
}
