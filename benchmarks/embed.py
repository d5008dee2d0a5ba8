"""How fast `brainhive embed` is, and what limits it: the bare encoder, bare decoding, raw HDF5, parquet.

Each ratio comes from one run, its two sides in turns; `--only` takes the names of parts.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from figures import show
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from brainhive_cli.commands import embed
from brainhive_cli.core import launch
from brainhive_cli.data.datasets import decode
from brainhive_cli.data.responses import in_memory
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import StoredRows
from brainhive_cli.data.stores.recordings import Recording, Sensors, SignalStore
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter
from brainhive_cli.models import encoders
from brainhive_cli.models.generators.sdxl import ARCHITECTURE as SDXL

ROUNDS = 3
ROWS, DIM, BATCH = 200_000, 1024, 1024
"""A store of ImageNet's order of size; a batch of BrainHiVE's training."""
H14 = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
H14 |= {"patch_size": 14, "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu"}
SIZES = {"huge": "CLIP ViT-H/14", "autoencoder": "SDXL's VAE", "base": "SynCLR ViT-B/16"}
"""BrainHiVE's encoders, as functions of this file."""
VIEW = v2.Compose(
    [
        v2.Resize(224, v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(224),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]),
    ]
)


@cache
def heavy() -> tuple[nn.Module, Any]:
    """Return a network that takes far longer than decoding a picture."""
    return vit("vit_small_patch16_224"), VIEW


@cache
def lighter() -> tuple[nn.Module, Any]:
    """Return a second network, a third as heavy."""
    return vit("vit_tiny_patch16_224"), VIEW


@cache
def light() -> tuple[nn.Module, Any]:
    """Return a network that takes next to nothing."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), VIEW


@cache
def huge() -> tuple[nn.Module, Any]:
    """Return CLIP ViT-H/14 with random weights."""
    return built({"kind": "transformers_clip", "source": "random", "architecture": H14})


@cache
def autoencoder() -> tuple[nn.Module, Any]:
    """Return SDXL's autoencoder with random weights."""
    return built({"kind": "diffusers_vae", "source": "random", "architecture": SDXL["vae"]})


@cache
def base() -> tuple[nn.Module, Any]:
    """Return SynCLR's ViT-B/16 with random weights."""
    return built({"kind": "synclr_b16", "source": "random"})


def built(config: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Build an encoder of the package: network and preprocessing."""
    made = encoders.resolve(config).build()
    return made.module, made.preprocess


def vit(name: str) -> nn.Module:
    """Make a timm model with random weights."""
    import timm

    return timm.create_model(name, num_classes=0).eval().requires_grad_(False)


@dataclass(frozen=True)
class Setting:
    """How everything is measured.

    Attributes:
        home: A folder to write in.
        workers: Processes that decode.
        pictures: Share of the usual number of pictures.
        busy: Whether others use the machine: seconds are then those that this process (or, for decoding, its
            children) had a core, which tells the same where a core is free for each.
    """

    home: Path
    workers: int
    pictures: float
    busy: bool

    def timed(self, work: Callable[[], Any], children: bool = False) -> float:
        """Return the seconds that `work` takes."""
        start = self._now(children)
        work()
        return self._now(children) - start

    def _now(self, children: bool) -> float:
        if not self.busy:
            return time.perf_counter()
        used = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


def paint(root: Path, count: int) -> list[Path]:
    """Make JPEG pictures of THINGS' size (500 × 500); 32 differ, the others are links to them."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    files = [root / f"{number:06d}.jpg" for number in range(count)]
    for file in files[:32]:
        coarse = Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).resize((500, 500), 3)
        pixels = np.asarray(coarse) + random.normal(0, 4, (500, 500, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=92)
    for number, file in enumerate(files[32:]):
        os.link(files[number % 32], file)
    return files


def end_to_end(
    on: Setting, folder: Path, names: str, batch_size: int, *more: str, children: bool = False
) -> float:
    """Time `embed` as a command runs it, in seconds; the networks are made already."""
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"BRAINHIVE_HOME": home, "BRAINHIVE_ALLOW_CODE": "1"}  # the networks of this file
        overrides = [f"dataset={{kind: image-folder, root: {folder}}}", f"encoders={names}"]
        overrides += [f"run.workers={on.workers}", f"batch_size={batch_size}", *more]
        what = embed.Recipe.resolve("embed", None, {}, overrides)
        return on.timed(lambda: embed.run(what, launch.start(what.run)), children)


def forward(on: Setting, name: str, files: list[Path], batch_size: int, precision: str = "fp32") -> float:
    """Time the bare loop over decoded pictures, in seconds."""
    module, view = getattr(__import__("embed"), name)()
    here = launch.start(embed.Recipe.resolve("embed", None, {}, []).run)
    module.to(here.device)
    views = torch.stack([view(decode(file, file)) for file in files[:batch_size]]).to(here.device)

    @torch.inference_mode()
    def loop(batches: int = len(files) // batch_size) -> None:
        with here.autocast(precision):
            for _ in range(batches):
                values = module(views)
            values.float().cpu()

    loop(3 if here.device.type == "cuda" else 1)  # warm
    return on.timed(loop)


def in_turns(*sides: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """Return the best seconds of each side: noise hits all."""
    return [min(times) for times in zip(*[[side() for side in sides] for _ in range(rounds)], strict=True)]


def encoder(on: Setting) -> None:
    """Compare with the bare encoder where it is the limit."""
    files = paint(on.home / "few", int(192 * on.pictures))
    ours, bare = in_turns(
        lambda: end_to_end(on, on.home / "few", "python:embed:heavy", 32),
        lambda: forward(on, "heavy", files, 32),
        rounds=2,
    )
    rates = f"{len(files) / ours:.1f} of {len(files) / bare:.1f} pictures/s"
    show("encoder is the limit: of the bare forward loop", bare / ours, 0.95, rates)


def two(on: Setting) -> None:
    """Compare two encoders in one pass with the sum of their bare loops."""
    files = paint(on.home / "two", int(192 * on.pictures))
    both, one, other = in_turns(
        lambda: end_to_end(on, on.home / "two", "[python:embed:heavy, python:embed:lighter]", 32),
        lambda: forward(on, "heavy", files, 32),
        lambda: forward(on, "lighter", files, 32),
        rounds=2,
    )
    show("two encoders in one pass: of their sum", both / (one + other), 1.1, f"{both:.1f} s", at_most=True)


def look(files: list[Path]) -> None:
    """Decode and preprocess, and keep nothing."""
    torch.set_num_threads(1)
    for file in files:
        VIEW(decode(file, file))


def decoding(on: Setting) -> None:
    """Compare with processes that only decode."""
    files = paint(on.home / "many", int(3000 * on.pictures))

    def bare() -> float:
        shares = [files[start : start + 20] for start in range(0, len(files), 20)]
        pool = multiprocessing.get_context("fork").Pool(on.workers)
        pool.map(look, [files[:2]] * on.workers, chunksize=1)  # started and warm

        def decode() -> None:
            pool.map(look, shares, chunksize=1)
            pool.close()
            pool.join()

        return on.timed(decode, children=True)

    ours, only = in_turns(
        lambda: end_to_end(on, on.home / "many", "python:embed:light", 32, children=True), bare
    )
    rates = f"{len(files) / ours:.0f} of {len(files) / only:.0f} pictures/s"
    show("decoding is the limit: of pure decoding", only / ours, 0.9, rates)


def writing(on: Setting) -> None:
    """Compare with h5py's own writing of the same batches, which keeps no checksums; and time these alone."""
    rows, batch = 40_000, np.random.default_rng(0).random((64, DIM), np.float32)
    ids = [f"{row:08d}" for row in range(rows)]

    def ours() -> float:
        path = on.home / "ours.h5"
        path.with_name("ours.h5.part").unlink(missing_ok=True)
        Blank(path, ids, ids, (DIM,), "float32", {}).create()
        writer = TargetWriter(path)

        def write() -> None:
            for start in range(0, rows, 64):
                writer.write(np.arange(start, start + 64), batch)
            writer.close()

        return on.timed(write)

    def raw() -> float:
        with h5py.File(on.home / "raw.h5", "w") as file:
            embedding = file.create_dataset("embedding", (rows, DIM), "float32")

            def write() -> None:
                for start in range(0, rows, 64):
                    embedding[start : start + 64] = batch
                file.flush()

            return on.timed(write)

    def sums() -> float:
        return on.timed(lambda: [hdf5.row_checksums(batch) for _ in range(0, rows, 64)])

    own_s, raw_s, sums_s = in_turns(ours, raw, sums, rounds=5)
    size = rows * DIM * 4 / 1e9
    show("writing with checksums: of raw h5py", raw_s / own_s, 0.8, f"{size / own_s:.2f} GB/s")
    show("checksums: of the time of writing", sums_s / own_s, detail=f"{size / sums_s:.2f} GB/s")


@cache
def large_store(home: Path) -> Path:
    """Make a finished store of 200,000 rows."""
    path = home / "things" / "train" / "large.h5"
    ids = [f"training_images/{row // 10:05d}_concept/picture_{row:06d}" for row in range(ROWS)]
    Blank(path, ids, [name.split("/")[1] for name in ids], (DIM,), "float32", {}).create()
    writer, random = TargetWriter(path), np.random.default_rng(0)
    for rows in np.array_split(np.arange(ROWS), 100):
        writer.write(rows, random.random((len(rows), DIM), np.float32))
    writer.close()
    writer.finish()
    return path


def opening(on: Setting) -> None:
    """Time the opening of a large store, the check of its seal alone, and the check of all rows."""
    store = TargetStore.open(large_store(on.home))
    sides = (lambda: TargetStore.open(store.path), lambda: hdf5.verify_seal(store.path), store.verify)
    open_s, check_s, all_s = in_turns(*[lambda side=side: on.timed(side) for side in sides], rounds=7)
    show("opening 200,000 rows, ms", 1000 * open_s, 50, f"{1000 * check_s:.1f} ms to check", at_most=True)
    show("checking all rows, GB/s", store.embedding.nbytes / all_s / 1e9, detail=f"{all_s:.2f} s")


def reading(on: Setting) -> None:
    """Compare reading rows, each of which is verified once, with reading the same bytes unverified."""
    path, order = large_store(on.home), np.random.default_rng(0).permutation(ROWS)

    def epoch(values: Any) -> None:
        for start in range(0, ROWS, BATCH):
            torch.from_numpy(np.asarray(values[order[start : start + BATCH]], np.float32))

    def opened() -> StoredRows:
        return TargetStore.open(path).embedding

    mapped = opened()
    epoch(mapped)
    whole = {
        "loading 200,000 rows": (lambda rows: np.array(rows), opened),
        "first epoch of mapped rows": (epoch, opened),
        "further epochs of mapped rows": (epoch, lambda: mapped),
    }
    for name, (read, rows_of) in whole.items():
        verified_s, plain_s = in_turns(
            lambda read=read, rows_of=rows_of: timed_on(on, rows_of(), read),
            lambda read=read: timed_on(on, opened().values, read),
            rounds=7,
        )
        detail = (
            f"{1000 * verified_s:.0f} of {1000 * plain_s:.0f} ms, {mapped.nbytes / verified_s / 1e9:.1f} GB/s"
        )
        show(f"{name}: of unverified reading", verified_s / plain_s, detail=detail)
    recording = large_recording(on.home)
    unverified = replace(recording, signal=recording.signal.values)
    verified_s, plain_s = in_turns(
        lambda: timed_on(on, large_recording(on.home), average),
        lambda: timed_on(on, unverified, average),
        rounds=7,
    )
    detail = f"{1000 * verified_s:.0f} of {1000 * plain_s:.0f} ms"
    show("averaging the signals of a subject: of unverified", verified_s / plain_s, detail=detail)


def timed_on(on: Setting, value: Any, read: Callable[[Any], Any]) -> float:
    """Time reading from what was opened before."""
    return on.timed(lambda: read(value))


def average(recording: Recording) -> np.ndarray:
    """Average a recording over repetitions, as training does when it begins."""
    return in_memory(Selection.of(recording, None, None, 1.0, "benchmark"), "averages")


def large_recording(home: Path) -> Recording:
    """Open a recording of 2,000 pictures of 4 repetitions, 63 channels and 250 samples."""
    if not (path := home / "signals/set/default/sub-01.h5").is_file():
        signal = np.random.default_rng(0).random((2000, 4, 63, 250), np.float32)
        sensors = Sensors([f"c{channel}" for channel in range(63)])
        ids = [f"p{row}" for row in range(2000)]
        SignalStore.write(path, {"train": Recording(signal, ids, sensors, np.arange(250) / 250, 250.0, "V")})
    return SignalStore.open(path)["train"]


def gathering(on: Setting) -> None:
    """Compare random batches with those from parquet, as `datasets` reads it: Arrow, then Python lists."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        print("gathering: pip install pyarrow")
        return
    store, path = TargetStore.open(large_store(on.home)), on.home / "large.parquet"
    values = pyarrow.ListArray.from_arrays(
        pyarrow.array(np.arange(0, (ROWS + 1) * DIM, DIM, np.int32)),
        pyarrow.array(np.ravel(np.asarray(store.embedding))),
    )
    table = pyarrow.table({"image_id": store.image_ids, "emb": values})
    parquet.write_table(table, path, use_dictionary=False, compression="none")
    table = parquet.read_table(path)
    random = np.random.default_rng(0)

    def ours(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(store.embedding[rows])

    def lists(rows: np.ndarray) -> torch.Tensor:
        return torch.tensor(table.take(rows)["emb"].to_pylist())

    def arrays(rows: np.ndarray) -> torch.Tensor:
        taken = table.take(rows)["emb"].combine_chunks()
        return torch.from_numpy(taken.flatten().to_numpy(zero_copy_only=False).reshape(-1, DIM).copy())

    rows = random.integers(0, ROWS, BATCH)
    assert torch.equal(ours(rows), lists(rows)) and torch.equal(ours(rows), arrays(rows))
    sides = [
        lambda side=side: on.timed(lambda: side(random.integers(0, ROWS, BATCH)))
        for side in (ours, lists, arrays)
    ]
    own_s, listed, arrow = in_turns(*sides, rounds=10)
    show("gathering 1024 rows: over parquet as lists", listed / own_s, 20, f"{1000 * own_s:.2f} ms")
    print(f"{'  over Arrow without lists':44} {arrow / own_s:8.2f}")


def gpu(
    on: Setting,
    networks: Mapping[str, str] = SIZES,
    pictures: int = 12_288,
    batch_size: int = 128,
    precision: str = "bf16",
) -> None:
    """Compare with the bare loops of BrainHiVE's encoders on a GPU: each alone, and all in one pass.

    Args:
        on: How everything is measured; 16 processes decode unless it says fewer.
        networks: Functions of this file, and what they return; the first is the heaviest.
        pictures: How many the first sees; each other sees a third.
        batch_size: Of a forward pass.
        precision: Autocast dtype.
    """
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # which draws weights faster
        for name in networks:
            globals()[name]()
    files = paint(on.home / "gpu", pictures)
    few = paint(on.home / "gpu-few", pictures // 3)
    bare_s = {}
    for name, words in networks.items():
        chosen = files if not bare_s else few
        forward(on, name, chosen[:batch_size], batch_size, precision)  # on the device, and warm
        ours, bare = in_turns(
            lambda name=name, chosen=chosen: end_to_end(
                on, chosen[0].parent, f"python:embed:{name}", batch_size, f"precision={precision}"
            ),
            lambda name=name, chosen=chosen: forward(on, name, chosen, batch_size, precision),
            rounds=1,
        )
        bare_s[name] = bare / len(chosen)
        rates = f"{len(chosen) / ours:.0f} of {len(chosen) / bare:.0f} pictures/s"
        show(f"embed, {words}: of the bare forward", bare / ours, 0.95, rates)
    decoded_s = end_to_end(on, few[0].parent, "python:embed:light", batch_size) / len(few)
    show("embed, next to no network: pictures/s", 1 / decoded_s, detail=f"{on.workers} processes decode")
    overrides = f"[{', '.join(f'python:embed:{name}' for name in networks)}]"
    together = end_to_end(on, few[0].parent, overrides, batch_size, f"precision={precision}") / len(few)
    alone = sum(bare_s.values())
    rates = f"{1 / together:.0f} of {1 / alone:.0f} pictures/s"
    show("embed, all in one pass: of their bare forwards", alone / together, 0.95, rates)


PARTS = {part.__name__: part for part in (encoder, two, decoding, writing, opening, reading, gathering)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--pictures", type=float, default=1.0, help="share of the usual number of pictures")
    parser.add_argument("--busy", action="store_true", help="count seconds on a core: others use the machine")
    args = parser.parse_args()
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - args.workers))
    with tempfile.TemporaryDirectory() as home:
        on = Setting(Path(home), args.workers, args.pictures, args.busy)
        for name in args.only:
            PARTS[name](on)


if __name__ == "__main__":
    main()
