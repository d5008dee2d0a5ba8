"""What files cost: stores next to h5py, parquet and unverified bytes; weights; the
start of the command.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import synthetic
import torch
from harness import Bench, main, prepare_command
from safetensors.torch import load_file, save_file

from brainhive_cli.core import weights
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter

DIM, BATCH = 1024, 1024
"""A batch of BrainHiVE's training."""


def writing(on: Bench) -> None:
    """Compare writing with checksums with h5py's own writing of the same batches, which
    keeps none.
    """
    rows, batch = (
        on.pick(640, 40_000, 40_000),
        np.random.default_rng(0).random((64, DIM), np.float32),
    )
    ids = [f"{row:08d}" for row in range(rows)]

    def ours() -> float:
        path = on.make_folder() / "ours.h5"
        StorePlan(path, ids, ids, (DIM,), "float32", {}).create()
        writer = TargetWriter(path)

        def write() -> None:
            for start in range(0, rows, 64):
                writer.write(np.arange(start, start + 64), batch)
            writer.close()

        return on.measure_seconds(write)

    def peer() -> float:
        with h5py.File(on.make_folder() / "raw.h5", "w") as file:
            embedding = file.create_dataset("embedding", (rows, DIM), "float32")

            def write() -> None:
                for start in range(0, rows, 64):
                    embedding[start : start + 64] = batch
                file.flush()

            return on.measure_seconds(write)

    on.compare(
        "writing with checksums: of raw h5py",
        ours,
        peer,
        rows * DIM * 4 / 1e9,
        "GB/s",
        0.8,
    )


def large_store(on: Bench) -> TargetStore:
    """Make a finished store of ImageNet's order of size."""
    rows = on.pick(2000, 200_000, 200_000)
    ids = [
        f"training_images/{row // 10:05d}_concept/picture_{row:06d}"
        for row in range(rows)
    ]
    synthetic.write_targets(on.home, "large", "train", ids, {"vae": DIM})
    return TargetStore.open(
        build_store_path(on.home / "embeddings", "large", "train", "vae")
    )


def opening(on: Bench) -> None:
    """Time the opening of a large store."""
    path = large_store(on).path
    seconds = [on.measure_seconds(lambda: TargetStore.open(path)) for _ in range(7)]
    on.show(
        "opening a store, fastest of 7",
        1000 * min(seconds),
        unit="ms",
        target=50,
        at_most=True,
    )


def reading(on: Bench) -> None:
    """Compare reading rows, each of which is verified once, with reading the same bytes
    unverified.
    """
    store = large_store(on)
    rows, size = len(store.image_ids), store.embedding.nbytes / 1e9
    order = np.random.default_rng(0).permutation(rows)

    def read_epoch(values: Any) -> None:
        for start in range(0, rows, BATCH):
            torch.from_numpy(
                np.asarray(values[order[start : start + BATCH]], np.float32)
            )

    def read_new(read: Any, is_verified: bool) -> float:
        embedding = TargetStore.open(store.path).embedding
        values = embedding if is_verified else embedding.read(...)
        return on.measure_seconds(lambda: read(values))

    for what, read in (
        ("loading a store", np.array),
        ("first epoch of mapped rows", read_epoch),
    ):
        sides = [partial(read_new, read, is_verified) for is_verified in (True, False)]
        on.compare(f"{what}: of unverified reading", *sides, size, "GB/s")
    sides = [
        partial(read_epoch, values)
        for values in (store.embedding, store.embedding.read(...))
    ]
    on.compare("further epochs: of unverified reading", *sides, size, "GB/s", 0.9)


def gathering(on: Bench) -> None:
    """Compare random batches with those from parquet: as `datasets` gives lists, and by
    Arrow alone.
    """
    import pyarrow
    from pyarrow import parquet

    store, path = large_store(on), on.home / "large.parquet"
    count = len(store.image_ids)
    values = pyarrow.ListArray.from_arrays(
        pyarrow.array(np.arange(0, (count + 1) * DIM, DIM, np.int32)),
        pyarrow.array(np.ravel(np.asarray(store.embedding))),
    )
    table = pyarrow.table({"image_id": store.image_ids, "emb": values})
    parquet.write_table(table, path, use_dictionary=False, compression="none")
    table, random = parquet.read_table(path), np.random.default_rng(0)

    def ours(rows: Any) -> torch.Tensor:
        return torch.from_numpy(store.embedding[rows])

    def lists(rows: Any) -> torch.Tensor:
        return torch.tensor(table.take(rows)["emb"].to_pylist())

    def arrow(rows: Any) -> torch.Tensor:
        flat = (
            table.take(rows)["emb"]
            .combine_chunks()
            .flatten()
            .to_numpy(zero_copy_only=False)
        )
        return torch.from_numpy(flat.reshape(-1, DIM).copy())

    rows = random.integers(0, count, BATCH)
    assert torch.equal(ours(rows), lists(rows)) and torch.equal(ours(rows), arrow(rows))
    for what, peer, target in (("as lists", lists, 150), ("by Arrow alone", arrow, 1)):
        sides = [
            lambda side=side: side(random.integers(0, count, BATCH))
            for side in (ours, peer)
        ]
        on.compare(
            f"gathering 1,024 rows: of parquet {what}", *sides, target=target, rounds=10
        )


def digests(on: Bench) -> None:
    """Compare writing and reading weights with their digest with safetensors alone."""
    layers, width = on.pick((2, 64), (8, 4096), (8, 4096))
    state = {f"layer.{number}": torch.randn(width, width) for number in range(layers)}
    plain, ours = on.home / "plain.safetensors", on.home / "ours.safetensors"
    size = layers * width**2 * 4 / 1e9

    def total(load: Any, path: Path) -> None:
        for tensor in load(path).values():
            tensor.sum()

    sides = (
        lambda: weights.save(ours, state),
        lambda: save_file(state, plain, {"format": "pt"}),
    )
    on.compare("writing weights with a digest: of safetensors", *sides, size, "GB/s")
    sides = (lambda: total(weights.read, ours), lambda: total(load_file, plain))
    on.compare("reading weights with a digest: of safetensors", *sides, size, "GB/s")


def start(on: Bench) -> None:
    """Compare `brainhive --help` with `import typer`, which is its floor."""
    ours, peer = (
        prepare_command(["--help"], on.home),
        {"args": [sys.executable, "-c", "import typer"]},
    )
    sides = [
        partial(subprocess.run, **each, stdout=subprocess.DEVNULL, check=True)  # type: ignore[call-overload]
        for each in (ours, peer)
    ]
    rounds = on.pick(1, 15, 15)
    on.compare(
        "brainhive --help: of import typer",
        *sides,
        unit="a second",
        in_children=True,
        rounds=rounds,
    )


CASES = (writing, opening, reading, gathering, digests, start)

if __name__ == "__main__":
    main(__doc__, CASES, {})
