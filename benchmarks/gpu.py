"""What Brainhive does on one large GPU, at full size: every figure in one call, under nine minutes.

    python benchmarks/gpu.py                          # a table, and gpu.json (in $OUT, else here)
    python benchmarks/gpu.py --only cells encoders    # some parts
    python benchmarks/gpu.py --tiny                   # on a CPU, at sizes that say nothing of speed

Data and weights are random and made here: nothing is downloaded. It takes a GPU of 40 GB and 2 GB of disk.
Parts run in order of value, each in a process of its own that is stopped after 90 seconds; the figures found
until then are kept, and the next part starts. The JSON is written anew after each part.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from figures import KEPT, line, show

ROOT = Path(__file__).resolve().parents[1]
CAP_S, BUDGET_S = 90.0, 530.0
"""Seconds of a part, and of all."""
CELLS, CELLS_S = 30, 120.0
"""Of papers/brainhive-intra: ten subjects, three seeds; and the seconds that they should take."""
PAPER = {"clip-rn50": 1024, "clip-b32": 512, "vae": 1024}
"""Its encoders, and the widths of their embeddings."""
SMALL = "resolution_px=32 train.steps=1 train.batch_size=1 prior.hidden_size=32".split()
"""What a prior is trained with at tiny size."""


@dataclass(frozen=True)
class Setting:
    """How a part runs.

    Attributes:
        home: A folder to write in.
        tiny: Whether at sizes for a CPU.
        cap_s: Seconds until it is stopped.
    """

    home: Path
    tiny: bool
    cap_s: float

    @property
    def device(self) -> torch.device:
        """A GPU, or with `--tiny` the CPU."""
        return torch.device("cpu") if self.tiny else torch.device("cuda", 0)


def cells(on: Setting) -> None:
    """Time the 30 cells of papers/brainhive-intra as a user runs them, or extrapolate from those that fit."""
    import align

    setting = align.Setting(on.home, 25, 1, [], 1, False, on.device)
    align.write_stores(setting, 2 if on.tiny else 10, PAPER, 200 if on.tiny else align.PICTURES)
    argv = [sys.executable, "-m", "brainhive_cli", "train-align", "--recipe", "papers/brainhive-intra"]
    if on.tiny:
        argv += "subjects=1,2 seeds=1 train.epochs=1 train.batch_size=64 train.warmup_steps=0".split()
    count, ended, rest_s = 2 if on.tiny else CELLS, [], on.cap_s - 25  # of which the stores took some
    start = time.perf_counter()
    process = subprocess.Popen(argv, env={**os.environ, "BRAINHIVE_HOME": str(on.home)})
    while (code := process.poll()) is None and time.perf_counter() - start < rest_s:
        time.sleep(0.05)
        done = len(list(on.home.glob("runs/train-align/*/cells/*/metrics.json")))
        ended += [time.perf_counter() - start] * (done - len(ended))
    took_s = time.perf_counter() - start
    process.terminate()
    if code or len(ended) < 2:
        raise SystemExit(f"train-align ended with {code}, {len(ended)} cells trained in {took_s:.1f} s")
    cell_s = (ended[-1] - ended[0]) / (len(ended) - 1)
    all_s = took_s if code == 0 else ended[0] + (count - 1) * cell_s
    detail = (
        f"{len(ended)} trained in {took_s:.1f} s: the first after {ended[0]:.1f} s, then {cell_s:.2f} s each"
    )
    show(f"papers/brainhive-intra, {count} cells: seconds", all_s, CELLS_S, detail, at_most=True)


def profile(on: Setting) -> None:
    """Compare a cell's loop with a bare one, and say what the GPU does meanwhile."""
    import align
    from torch.profiler import ProfilerActivity

    pictures = 128 if on.tiny else align.PICTURES
    setting = align.Setting(on.home, 25, 1, ["brain_mlp"], 1 if on.tiny else 3, False, on.device)
    align.loop(setting, pictures)
    data = align.random_data(pictures, on.device)
    kinds = [ProfilerActivity.CPU] + ([] if on.tiny else [ProfilerActivity.CUDA])
    start = time.perf_counter()
    with torch.profiler.profile(activities=kinds) as seen:
        align.our_rate(setting, "brain_mlp", data, "bf16", epochs=2 if on.tiny else 5)
    wall_ms = 1e3 * (time.perf_counter() - start)
    own_ms = {each.key: _own_us(each, on.tiny) / 1e3 for each in seen.key_averages()}
    show("a cell, profiled: share of time that the device is busy", sum(own_ms.values()) / wall_ms)
    for name in sorted(own_ms, key=lambda name: -own_ms[name])[:8]:
        show(f"  {name[:44]}, ms", own_ms[name], detail=f"of {wall_ms:.0f}")


def _own_us(event: Any, on_cpu: bool) -> float:
    """Read the time of an operation itself: on a GPU of its kernels alone, each of which is an event, too."""
    if on_cpu:
        return float(event.self_cpu_time_total)
    is_kernel = event.device_type.name == "CUDA" and not event.is_user_annotation
    return float(event.self_device_time_total) if is_kernel else 0.0


def encoders(on: Setting) -> None:
    """Compare `embed` with bare forwards of BrainHiVE's encoders."""
    import embed

    if not on.tiny:
        workers = min(16, max(1, (os.cpu_count() or 2) - 1))
        embed.gpu(embed.Setting(on.home, workers, 1.0, False))
        return
    with torch.device("meta"):  # that they can be built
        for name, words in embed.SIZES.items():
            weights = sum(each.numel() for each in getattr(embed, name)()[0].parameters())
            show(f"{words}: millions of weights", weights / 1e6)
    embed.gpu(embed.Setting(on.home, 1, 1.0, False), {"light": "mean colours"}, 12, 4)


def prior_step(on: Setting) -> None:
    """Compare `train-prior` with a bare loop."""
    import prior

    setting = prior.Setting(on.home, 0, 1.0, False)
    if on.tiny:
        prior.speed(setting, prior.TINY, *SMALL, count=8)
    else:
        prior.speed(setting)


def prior_memory(on: Setting) -> None:
    """Compare the memory of `prior-24gb` with its estimate."""
    import prior

    setting = prior.Setting(on.home, 0, 1.0, False)
    if on.tiny:
        prior.memory(setting, prior.TINY, *SMALL, count=8)
    else:
        prior.memory(setting)


def drawing(on: Setting) -> None:
    """Compare `reconstruct` with the bare pipeline, and its memory with its estimate."""
    import reconstruct

    setting = reconstruct.Setting(on.home, False)
    if on.tiny:
        output = reconstruct.Output(resolution_px=16, batch_size=2)
        reconstruct.gpu(setting, reconstruct.sdxl.TINY, output, items=1, repeats=4)
    else:
        reconstruct.gpu(setting)


def video(on: Setting) -> None:
    """Compare NEURONS' clips and keyframes with bare diffusers, and their memory with a card of 24 GB."""
    import neurons_video

    full = replace(neurons_video.FULL, made=2, at_once=2, share=0.4)  # in less time
    sizes = neurons_video.TINY if on.tiny else full
    setting = neurons_video.Setting(on.home, sizes, on.device, 1)
    neurons_video.clips(setting)
    neurons_video.keyframes(setting)


def ranking(on: Setting) -> None:
    """Rank among a million vectors: in one stream, and in the two of `eval-retrieval`."""
    import retrieval

    vectors = 20_000 if on.tiny else 1_000_000
    retrieval.against_product(vectors, on.device.type, False)
    retrieval.two_streams(vectors, on.device.type, False)


def equality(on: Setting) -> None:
    """Compare what CPU and GPU compute from the same numbers, in float32."""
    import devices

    for compare in devices.COMPARED:
        compare(on.home, on.device)


PARTS: dict[str, Callable[[Setting], None]] = {
    part.__name__: part
    for part in (equality, cells, prior_step, encoders, drawing, video, prior_memory, profile, ranking)
}
"""In order of value."""


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the figures are of."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "device": name,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def alone(name: str, tiny: bool, cap_s: float) -> dict[str, Any]:
    """Run a part in a process of its own; return its status, seconds, figures and, if it failed, its log."""
    with tempfile.TemporaryDirectory() as folder:
        kept, log = Path(folder, "figures"), Path(folder, "log")
        kept.touch()
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", KEPT: str(kept)}
        argv = [sys.executable, __file__, "--part", name, "--cap", str(cap_s), *["--tiny"] * tiny]
        start, status = time.perf_counter(), "done"
        with log.open("w") as said:
            process = subprocess.Popen(
                argv, env={**environment, "TMPDIR": folder}, stdout=said, stderr=said, start_new_session=True
            )
            try:
                if process.wait(cap_s):
                    status = "failed"
            except subprocess.TimeoutExpired:
                status = "stopped"
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and those that it started
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        figures = [json.loads(each) for each in kept.read_text().splitlines()]
        if tiny:  # at these sizes no target means anything
            figures = [{**each, "target": None, "met": None} for each in figures]
        record = {"status": status, "seconds": round(time.perf_counter() - start, 1), "figures": figures}
        return record if status == "done" else {**record, "log": log.read_text(errors="replace")[-4000:]}


def main() -> None:
    """Run the chosen parts; exit 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="on a CPU, at sizes that say nothing of speed")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder of gpu.json"
    )
    parser.add_argument("--cap", type=float, default=CAP_S, help="seconds of a part")
    parser.add_argument("--part", choices=PARTS, help="run this one here, as the others' parent does")
    args = parser.parse_args()
    if args.part:
        with tempfile.TemporaryDirectory() as home:
            PARTS[args.part](Setting(Path(home), args.tiny, args.cap))
        return
    if not (args.tiny or torch.cuda.is_available()):
        parser.error("no CUDA device is visible; --tiny runs on a CPU")
    found = rehearse(args.only, args.tiny, args.cap, args.out / "gpu.json")
    sys.exit(any(each["status"] != "done" for each in found.values()))


def rehearse(names: list[str], tiny: bool, cap_s: float, out: Path) -> Mapping[str, Any]:
    """Run parts one after the other (two at once if tiny), and write what is known after each."""
    start = time.perf_counter()
    found: dict[str, Any] = {}
    writing = Lock()
    report = {"tiny": tiny, "machine": machine(torch.device("cpu" if tiny else "cuda")), "parts": found}
    out.parent.mkdir(parents=True, exist_ok=True)

    def run(name: str) -> None:
        left_s = BUDGET_S - (time.perf_counter() - start)
        found[name] = (
            alone(name, tiny, min(cap_s, left_s)) if left_s > 5 else {"status": "no time", "figures": []}
        )
        with writing:  # or an older report could replace a newer one
            report["seconds"] = round(time.perf_counter() - start, 1)
            written = out.with_name(f"{out.name}.part")
            written.write_text(json.dumps(report, indent=1))
            written.replace(out)
        print(f"{name}: {found[name]['status']}, {found[name].get('seconds', 0)} s", flush=True)
        for figure in found[name]["figures"]:
            print(f"  {line(figure)}", flush=True)
        if "log" in found[name]:
            print(found[name]["log"], flush=True)

    with ThreadPoolExecutor(2 if tiny else 1) as pool:
        list(pool.map(run, names))
    return found


if __name__ == "__main__":
    main()
