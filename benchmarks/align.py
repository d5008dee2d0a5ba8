"""How fast `brainhive train-align` is compared with a bare loop and the reference, and what memory it takes.

Random data in the shape of THINGS-EEG; each ratio comes from one run, its sides in turns; `--only` takes the
names of parts.
"""

import argparse
import contextlib
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import show
from numpy.typing import NDArray
from torch import nn

from brainhive_cli.commands import embed, eval_retrieval, train_align
from brainhive_cli.core import parts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets.things_eeg import POSTERIOR
from brainhive_cli.data.responses import Responses, select_responses
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.stores import recordings
from brainhive_cli.data.stores.recordings import Recording, Sensors, SignalStore
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter, path_of
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.models.heads import FUSED, TOKEN, Head
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.settings import Train

PICTURES, SAMPLES, RATE_HZ = 16_540, 250, 250.0
DIMS = {"synclr-b16": 768, "clip-b32": 512, "vae": 1024}
PICTURES_A_CONCEPT = 10
DIM, BATCH = 1024, 1024
"""BrainHiVE's training on THINGS-EEG."""
LOOP = 8 * BATCH
"""Pictures of an epoch where only the rate of steps is looked at."""
REFERENCE = 747.0
"""Samples a second of the published code, whole command, in fp32 on two cores of this kind."""


@dataclass(frozen=True)
class Setting:
    """How everything is measured.

    Attributes:
        home: A folder to write in.
        epochs: Epochs of the whole command.
        repetitions: R of the signal stores.
        kinds: Brain encoders of the loop.
        rounds: Turns of its sides.
        busy: Whether others use the machine: the whole command then runs on one core, and its time is half of
            the seconds that it had it, which is what two free cores would take at best.
    """

    home: Path
    epochs: int
    repetitions: int
    kinds: list[str]
    rounds: int
    busy: bool
    device: torch.device


def layout(kind: str) -> Layout:
    """Describe the aligner that is trained."""
    return Layout(
        SignalSpec(POSTERIOR, SAMPLES, (1,), (len(POSTERIOR),)),
        {TOKEN: Head((DIM,), FUSED)},
        backbone=parts.resolve("backbones", kind).model_dump(),
        fuser=parts.resolve("fusers", "fusion_encoder").model_dump(),
        dims=DIMS,
        encoders={name: name for name in DIMS},
    )


def random_data(count: int, device: torch.device) -> CellData:
    """Make one subject's averaged signals, and embeddings."""
    random = np.random.default_rng(0)
    signal = random.standard_normal((count, len(POSTERIOR), SAMPLES), np.float32)
    images = {
        name: StoreTargets(torch.from_numpy(random.standard_normal((count, width), np.float32)).to(device))
        for name, width in DIMS.items()
    }
    trials = Responses(1, signal, np.arange(count), POSTERIOR, RATE_HZ)
    return CellData([trials], Targets(images), np.zeros(count, bool), None)


def our_rate(on: Setting, kind: str, data: CellData, precision: str, epochs: int = 2) -> float:
    """Train some epochs as a cell does; return samples/s of the fastest."""
    events: list[dict[str, Any]] = []
    train = Train(epochs=epochs, batch_size=BATCH, precision=precision, selection="last", validation=0)  # type: ignore[arg-type]
    folder = RunFolder(Path(tempfile.mkdtemp(dir=on.home)))
    terms, launch = [Term(prediction="token")], Launch(0, 1, on.device)
    train_cell("cell", 1, layout(kind), data, terms, train, folder, launch, events.append)
    return max(event["samples_per_s"] for event in events)


def bare_rate(on: Setting, kind: str, data: CellData, precision: str) -> float:
    """Train two epochs as one writes it by hand; return samples/s of the faster one."""
    aligner = Aligner(layout(kind)).to(on.device).train()
    loss_of = parts.resolve("losses", "clip").build().to(on.device)
    signal = torch.from_numpy(data.responses[0].signal).to(on.device)
    parameters = [*loss_of.parameters(), *aligner.parameters()]
    optimizer = torch.optim.AdamW(parameters, 5e-4, betas=(0.9, 0.995), weight_decay=0.05, fused=True)
    count = len(signal)
    steps = math.ceil(count / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * steps)
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        for rows in torch.randperm(count, device=on.device).tensor_split(steps):
            with torch.autocast(on.device.type, torch.bfloat16, enabled=precision == "bf16"):
                signals = aligner.encode_signal(signal[rows]).float()
                images = aligner.encode_image(data.targets.gather(rows)).float()
                loss = loss_of(signals, images, LossContext())
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        rates.append(count / (time.perf_counter() - start))
    return max(rates)


def loop(on: Setting, pictures: int = LOOP) -> None:
    """Compare the training loop with a bare one, in the same precision."""
    data = random_data(pictures, on.device)
    for kind in on.kinds:
        for precision in ("bf16", "fp32"):
            sides = [
                (our_rate(on, kind, data, precision), bare_rate(on, kind, data, precision))
                for _ in range(on.rounds)
            ]
            ours, bare = (max(rates) for rates in zip(*sides, strict=True))
            show(
                f"{kind} {precision}: of a bare loop",
                ours / bare,
                0.95,
                f"{ours:.0f} of {bare:.0f} samples/s",
            )


def write_stores(
    on: Setting, subjects: int, dims: Mapping[str, int] = DIMS, pictures: int = PICTURES
) -> None:
    """Make the stores that the command reads; all subjects share one file, so that it fits the page cache."""
    random = torch.Generator(on.device).manual_seed(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return torch.randn(shape, generator=random, device=on.device).cpu().numpy()

    ids = [f"training_images/{row // 10:05d}_concept/picture_{row:06d}" for row in range(pictures)]
    for name, width in dims.items():
        path = path_of(on.home / "embeddings", "things-eeg", "train", name)
        if not path.is_file():
            attributes = {"dataset": "things-eeg", "split": "train"}
            Blank(path, ids, [i.split("/")[1] for i in ids], (width,), "float32", attributes).create()
            writer = TargetWriter(path)
            writer.write(np.arange(pictures), normal(pictures, width))
            writer.close()
            writer.finish()
    first = recordings.path_of(on.home / "signals", "things-eeg", "default", 1)
    if not first.is_file():
        signal = normal(pictures, on.repetitions, len(POSTERIOR), SAMPLES)
        times_s = np.arange(SAMPLES) / RATE_HZ
        SignalStore.write(
            first, {"train": Recording(signal, ids, Sensors(POSTERIOR), times_s, RATE_HZ, "random")}
        )
    for subject in range(2, subjects + 1):
        path = recordings.path_of(on.home / "signals", "things-eeg", "default", subject)
        if not path.exists():
            os.link(first, path)


def started(on: Setting, *overrides: str) -> subprocess.Popen[bytes]:
    """Start the command as a user does."""
    argv = [sys.executable, "-m", "brainhive_cli", "train-align", f"encoders={','.join(DIMS)}", "seeds=1"]
    environment = {**os.environ, "BRAINHIVE_HOME": str(on.home)}
    environment |= {"OMP_NUM_THREADS": "1"} if on.busy else {}
    return subprocess.Popen([*argv, *overrides], env=environment, stdout=subprocess.DEVNULL)


def command(on: Setting) -> None:
    """Time the whole command, from its start to its end, for one cell."""
    write_stores(on, 1)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if started(on, "subjects=1", f"train.epochs={on.epochs}").wait():
        raise SystemExit("train-align failed")
    took_s, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if on.busy:
        took_s = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / 2
    learned = PICTURES - PICTURES_A_CONCEPT * round(0.1 * PICTURES / PICTURES_A_CONCEPT)
    rate = on.epochs * learned / took_s
    show("whole command: over the reference", rate / REFERENCE, 8, f"{rate:.0f} samples/s, {took_s:.1f} s")


def opening(on: Setting) -> None:
    """Open and average the signals of ten subjects."""
    write_stores(on, 10)
    paths = Paths(**{name: str(on.home / name) for name in ("data", "embeddings", "signals", "runs")})
    dataset = parts.resolve("datasets", "things-eeg").build(paths)
    pictures = TargetStore.open(path_of(on.home / "embeddings", "things-eeg", "train", "vae"))
    before, most, start, held = held_bytes(os.getpid()), 0, time.perf_counter(), []
    for subject in range(1, 11):
        held.append(
            select_responses(SignalSource(dataset, paths, Signal()), subject, "train", pictures).read()
        )
        most = max(most, held_bytes(os.getpid()) - before)
    took_s, selected = time.perf_counter() - start, sum(trials.signal.nbytes for trials in held)
    rate = f"{on.repetitions * selected / took_s / 1e9:.1f} GB/s from the page cache"
    show("opening 10 subjects, s", took_s, 15, rate, at_most=True)
    show("  memory: of the selected data", most / selected, 1.5, f"{most / 1e9:.2f} GB", at_most=True)


def held_bytes(pid: int) -> int:
    """Count the memory that a process holds for itself, without the pages of files."""
    smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in smaps.splitlines() if line.startswith("Pss_Anon"))


def mapped(on: Setting) -> None:
    """Train on nine subjects at once, as an inter cell does, with the signals on disk."""
    write_stores(on, 9)
    process, most = (
        started(on, "mode=joint", "subjects=1,2,3,4,5,6,7,8,9", "train.epochs=1", "train.memory_map=yes"),
        0,
    )
    start = time.perf_counter()
    while process.poll() is None:
        with contextlib.suppress(OSError):  # it has just ended
            most = max(most, held_bytes(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit("train-align failed")
    took_s = time.perf_counter() - start
    show("9 subjects mapped: GiB held at most", most / 2**30, 4, f"{took_s:.0f} s for an epoch", at_most=True)


def accuracy(on: Setting) -> None:
    """Compare test top-1 of bf16 with fp32 on the demo: every subject, three seeds."""
    os.environ["BRAINHIVE_HOME"] = str(on.home)
    here = Launch(0, 1, on.device)
    embed.run(embed.Recipe.resolve("embed", "demo", {}, []), here)
    hits = {}
    for precision in ("fp32", "bf16"):
        overrides = ["seeds=1,2,3", f"train.precision={precision}"]
        run = train_align.run(train_align.Recipe.resolve("train-align", "demo", {}, overrides), here).folder
        overrides = [f"align_run={run}", "sheet_rows=0"]
        found = eval_retrieval.run(
            eval_retrieval.Recipe.resolve("eval-retrieval", "demo", {}, overrides), here
        )
        top1 = found.metrics.overall["top1"]
        print(f"demo {precision}: top-1 {top1.value:.4f} ({top1.interval_text(4)})")
        ranks = [each["ranks"] for each in found.metrics.items.values()]
        hits[precision] = np.array(ranks) == 1  # [cells, N]
    lost = (hits["fp32"].astype(float) - hits["bf16"]).mean(0)  # [N], over subjects and seeds
    drawn = np.random.default_rng(0).choice(lost, (10_000, len(lost))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = f"{100 * lost.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f}), pictures paired"
    show("bf16 loses points of top-1, at most", 100 * high, 1, found, at_most=True)


PARTS = {part.__name__: part for part in (loop, command, opening, mapped, accuracy)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--epochs", type=int, default=25, help="of the whole command")
    parser.add_argument("--repetitions", type=int, default=4, help="trials of each picture in the stores")
    parser.add_argument(
        "--kinds", nargs="+", default=["brain_mlp", "nice"], help="brain encoders of the loop"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of the sides of the loop")
    parser.add_argument("--busy", action="store_true", help="count seconds on a core: others use the machine")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as home:
        on = Setting(Path(home), args.epochs, args.repetitions, args.kinds, args.rounds, args.busy, device)
        for name in args.only:
            PARTS[name](on)


if __name__ == "__main__":
    main()
