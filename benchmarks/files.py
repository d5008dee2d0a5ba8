"""Speed of stores, of weights, and of the start of the command."""

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import h5py
import numpy as np
import synthetic
import torch
from harness import Bench, main, prepare_command
from safetensors.torch import load_file, save_file

from brainhive_cli.core.runs import weights
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.data.stores.target_writer import StorePlan, TargetWriter

DIM = 1024
"""Width of BrainHiVE's token."""
BATCH_SIZE = 1024
"""Batch size of BrainHiVE's training."""


def writing(bench: Bench) -> None:
    """Compare writing with checksums with h5py, which writes none."""
    rows = bench.pick(640, 40_000, 40_000)
    batch = np.random.default_rng(0).random((64, DIM), np.float32)
    ids = [f"{row:08d}" for row in range(rows)]

    def ours() -> float:
        path = bench.make_folder() / "ours.h5"
        StorePlan(path, ids, ids, (DIM,), "float32", {}).create()
        writer = TargetWriter(path)

        def write() -> None:
            for start in range(0, rows, 64):
                writer.write(np.arange(start, start + 64), batch)
            writer.close()

        return bench.measure_seconds(write)

    def peer() -> float:
        with h5py.File(bench.make_folder() / "raw.h5", "w") as file:
            embedding = file.create_dataset("embedding", (rows, DIM), "float32")

            def write() -> None:
                for start in range(0, rows, 64):
                    embedding[start : start + 64] = batch
                file.flush()

            return bench.measure_seconds(write)

    bench.compare(
        "writing with checksums: of raw h5py",
        ours,
        peer,
        rows * DIM * 4 / 1e9,
        "GB/s",
        0.8,
    )


def write_large_store(bench: Bench) -> TargetStore:
    """Write a store of about the size of ImageNet, and open it."""
    ids = []
    for row in range(bench.pick(2000, 200_000, 200_000)):
        ids.append(f"training_images/{row // 10:05d}_concept/picture_{row:06d}")
    synthetic.write_targets(bench.home, "large", "train", ids, {"vae": DIM})
    path = build_store_path(bench.home / "embeddings", "large", "train", "vae")
    return TargetStore.open(path)


def opening(bench: Bench) -> None:
    """Time the opening of a large store."""
    path = write_large_store(bench).path
    seconds = []
    for _ in range(7):
        seconds.append(bench.measure_seconds(lambda: TargetStore.open(path)))
    bench.show(
        "opening a store, fastest of 7",
        1000 * min(seconds),
        unit="ms",
        target=50,
        at_most=True,
    )


def reading(bench: Bench) -> None:
    """Compare reading rows, each verified once, with reading them unverified."""
    store = write_large_store(bench)
    rows = len(store.image_ids)
    size_gb = store.embedding.nbytes / 1e9
    order = np.random.default_rng(0).permutation(rows)

    def read_epoch(values: Any) -> None:
        for start in range(0, rows, BATCH_SIZE):
            batch_rows = order[start : start + BATCH_SIZE]
            torch.from_numpy(np.asarray(values[batch_rows], np.float32))

    def read_verified(read: Any) -> float:
        embedding = TargetStore.open(store.path).embedding
        return bench.measure_seconds(lambda: read(embedding))

    def read_unverified(read: Any) -> float:
        values = TargetStore.open(store.path).embedding.read(...)
        return bench.measure_seconds(lambda: read(values))

    for name, read in (
        ("loading a store", np.array),
        ("first epoch of mapped rows", read_epoch),
    ):
        bench.compare(
            f"{name}: of unverified reading",
            partial(read_verified, read),
            partial(read_unverified, read),
            size_gb,
            "GB/s",
        )
    bench.compare(
        "further epochs: of unverified reading",
        partial(read_epoch, store.embedding),
        partial(read_epoch, store.embedding.read(...)),
        size_gb,
        "GB/s",
        0.9,
    )


def gathering(bench: Bench) -> None:
    """Compare random batches with parquet, read as lists by `datasets`, or by Arrow."""
    import pyarrow
    from pyarrow import parquet

    store = write_large_store(bench)
    path = bench.home / "large.parquet"
    count = len(store.image_ids)
    values = pyarrow.ListArray.from_arrays(
        pyarrow.array(np.arange(0, (count + 1) * DIM, DIM, np.int32)),
        pyarrow.array(np.ravel(np.asarray(store.embedding))),
    )
    content = pyarrow.table({"image_id": store.image_ids, "emb": values})
    parquet.write_table(content, path, use_dictionary=False, compression="none")
    table = parquet.read_table(path)

    def gather(rows: Any) -> torch.Tensor:
        return torch.from_numpy(store.embedding[rows])

    def gather_lists(rows: Any) -> torch.Tensor:
        return torch.tensor(table.take(rows)["emb"].to_pylist())

    def gather_by_arrow(rows: Any) -> torch.Tensor:
        column = table.take(rows)["emb"].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(flat.reshape(-1, DIM).copy())

    random = np.random.default_rng(0)
    rows = random.integers(0, count, BATCH_SIZE)
    assert torch.equal(gather(rows), gather_lists(rows))
    assert torch.equal(gather(rows), gather_by_arrow(rows))

    def gather_randomly(gather_rows: Any) -> None:
        gather_rows(random.integers(0, count, BATCH_SIZE))

    for name, peer, target in (
        ("as lists", gather_lists, 150),
        ("by Arrow alone", gather_by_arrow, 1),
    ):
        bench.compare(
            f"gathering 1,024 rows: of parquet {name}",
            partial(gather_randomly, gather),
            partial(gather_randomly, peer),
            target=target,
            rounds=10,
        )


def digests(bench: Bench) -> None:
    """Compare writing and reading weights and their digest with safetensors alone."""
    layers, width = bench.pick((2, 64), (8, 4096), (8, 4096))
    state = {f"layer.{number}": torch.randn(width, width) for number in range(layers)}
    path = bench.home / "ours.safetensors"
    peer_path = bench.home / "plain.safetensors"
    size_gb = layers * width**2 * 4 / 1e9

    def add_up(tensors: Mapping[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor.sum()

    bench.compare(
        "writing weights with a digest: of safetensors",
        lambda: weights.save(path, state),
        lambda: save_file(state, peer_path, {"format": "pt"}),
        size_gb,
        "GB/s",
    )
    bench.compare(
        "reading weights with a digest: of safetensors",
        lambda: add_up(weights.read(path)),
        lambda: add_up(load_file(peer_path)),
        size_gb,
        "GB/s",
    )


def start(bench: Bench) -> None:
    """Compare `brainhive --help` with `import typer`, its lower limit."""
    options: Any = {"stdout": subprocess.DEVNULL, "check": True}
    command = prepare_command(["--help"], bench.home)
    peer_command = [sys.executable, "-c", "import typer"]
    bench.compare(
        "brainhive --help: of import typer",
        partial(subprocess.run, **command, **options),
        partial(subprocess.run, peer_command, **options),
        unit="a second",
        in_children=True,
        rounds=bench.pick(1, 15, 15),
    )


CASES = (writing, opening, reading, gathering, digests, start)

if __name__ == "__main__":
    main(__doc__, CASES, {})
