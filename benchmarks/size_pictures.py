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
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.files.ids import match_names
from brainhive_cli.data.media.near_copies import find_candidates
from brainhive_cli.training.alignment.training.batches import MAX_COPY_DISTANCE


def import_vectors(count: int, folder: Path) -> Task:
    """Import the vectors of three encoders of small pictures, which are here."""

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
    """Draw the hashes of square pictures, whose views 0, 7 and 10 are the same."""
    hashes = np.random.default_rng(count).integers(0, 2**63, (count, 24), np.uint64)
    for view in (7, 10):
        hashes[:, 2 * view : 2 * view + 2] = hashes[:, :2]
    return hashes


def compare_tested(tested_count: int) -> Callable[[int, Path], Task]:
    """Make the task of comparing tested pictures with learned ones by their hashes."""

    def prepare(count: int, _: Path) -> Task:
        tested, learned = draw_hashes(tested_count), draw_hashes(count)
        learned[: tested_count // 20] = tested[: tested_count // 20]
        bytes_used = tested.nbytes + learned.nbytes
        return Task(lambda: find_candidates(tested, learned), data_bytes=bytes_used)

    return prepare


def compare_training(count: int, _: Path) -> Task:
    """Compare a tenth of training pictures, held out, with all of them."""
    learned = draw_hashes(count)
    held_out = learned[: count // 10].copy()
    held_out[::2] = draw_hashes(count // 10)[::2]
    bytes_used = held_out.nbytes + learned.nbytes
    return Task(
        lambda: find_candidates(held_out, learned, MAX_COPY_DISTANCE),
        data_bytes=bytes_used,
    )


def name_pictures(count: int) -> list[str]:
    """Name pictures of 1,000 folders, which repeat the names of their files."""
    return [f"n{row % 1000:08}/{row // 1000}" for row in range(count)]


def match_full_names(count: int, _: Path) -> Task:
    """Match names of pictures that are paths in another folder."""
    image_ids = name_pictures(count)
    names = [f"/data/train/{image_id}.JPEG" for image_id in image_ids]
    bytes_used = sum(map(sys.getsizeof, (*image_ids, *names)))
    return Task(lambda: match_names(names, image_ids), data_bytes=bytes_used)


CASES: Mapping[str, Case] = {
    "import_embeddings": Case(
        "Import of three encoders, pictures", 16_540, import_vectors
    ),
    "near_copies": Case(
        "1,000 tested of NSD among learned pictures", 72_000, compare_tested(1000)
    ),
    "near_copies_things": Case(
        "200 tested of THINGS among learned pictures", 26_107, compare_tested(200)
    ),
    "training_copies": Case(
        "A tenth of NSD among training pictures", 73_000, compare_training
    ),
    "match_names": Case("Names of ImageNet, files repeat", 1_281_167, match_full_names),
}
