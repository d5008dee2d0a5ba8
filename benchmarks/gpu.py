"""What Brainhive does on one large GPU, at full size: every figure in one call, under
nine minutes.

    python benchmarks/gpu.py                          # a table, and gpu.json (in $OUT,
    else here) python benchmarks/gpu.py --only cells networks    # some cases
    python benchmarks/gpu.py --tiny                   # on a CPU, at sizes that say
    nothing of speed

Data and weights are random and made here: nothing is downloaded. It takes a GPU of 40
GB and 4 GB of disk. Cases of the other scripts run in order of value, each in a process
of its own that is stopped after 90 s; the figures until then are kept, and the next one
starts. The JSON is written anew after each.
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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import synthetic
import torch
from harness import CHECKOUT, FIGURES_VARIABLE, Bench, format_row, prepare_command

CAP_S, BUDGET_S = 90.0, 530.0
"""Seconds of a case, and of all."""
CELLS_S = 120.0
"""What the 30 cells of papers/brainhive-intra, ten subjects and three seeds, should
take.
"""
PAPER = {"clip-rn50": 1024, "clip-b32": 512, "vae": 1024}
"""Its encoders, and the widths of their embeddings."""


def equality(on: Bench) -> None:
    """Compare what CPU and GPU compute from the same numbers, in float32."""
    import devices

    for case in devices.CASES:
        case(on)


def cells(on: Bench) -> None:
    """Time the 30 cells of papers/brainhive-intra as a user runs them, or extrapolate
    from those that fit.
    """
    subjects, count = on.pick((2, 2), (10, 30), (10, 30))
    ids = synthetic.make_things_ids("train", on.pick(20, 1654, 1654))
    synthetic.write_targets(on.home, "things-eeg", "train", ids, PAPER)
    synthetic.write_signals(on.home, ids, subjects, repetitions=1)
    words = ["train-align", "--recipe", "papers/brainhive-intra"]
    if on.size == "tiny":
        words += (
            "subjects=1,2 seeds=1 train.epochs=1 train.batch_size=64 "
            "train.warmup_steps=0"
        ).split()
    # of which the stores took some
    start, ended, most_s = time.perf_counter(), [], on.options["cap"] - 25
    process = subprocess.Popen(**prepare_command(words, on.home))
    while (code := process.poll()) is None and time.perf_counter() - start < most_s:
        time.sleep(0.05)
        done = len(list(on.home.glob("runs/train-align/*/cells/*/metrics.json")))
        ended += [time.perf_counter() - start] * (done - len(ended))
    took_s = time.perf_counter() - start
    process.terminate()
    if code or len(ended) < 2:
        raise SystemExit(
            f"train-align ended with {code}, {len(ended)} cells trained in "
            f"{took_s:.1f} s"
        )
    cell_s = (ended[-1] - ended[0]) / (len(ended) - 1)
    all_s = took_s if code == 0 else ended[0] + (count - 1) * cell_s
    note = (
        f"{len(ended)} trained in {took_s:.1f} s: the first after {ended[0]:.1f} s, "
        f"then {cell_s:.2f} s each"
    )
    what = f"papers/brainhive-intra, {count} cells"
    on.show(what, all_s, unit="s", target=CELLS_S, at_most=True, note=note)


CASES = (
    *(
        "gpu.equality",
        "gpu.cells",
        "prior.prior_step",
        "embed.networks",
        "generate.pictures",
        "generate.keyframes",
    ),
    *(
        "generate.clips",
        "generate.havir",
        "prior.prior_memory",
        "align.loop",
        "evaluate.ranking",
    ),
)
"""In order of value: script and function."""


def run_case(name: str, on: Bench) -> None:
    """Run one case here."""
    module, function = name.split(".")
    getattr(__import__(module), function)(on)


def run_alone(name: str, is_tiny: bool, cap_s: float) -> dict[str, Any]:
    """Run a case in a process of its own; return its status, seconds, figures and, if
    it failed, its log.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept, log = Path(folder, "figures"), Path(folder, "log")
        kept.touch()
        paths = os.pathsep.join(
            filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])
        )
        variables = {
            "PYTHONPATH": paths,
            "HF_HUB_OFFLINE": "1",
            FIGURES_VARIABLE: str(kept),
            "TMPDIR": folder,
        }
        argv = [
            sys.executable,
            __file__,
            "--case",
            name,
            "--cap",
            str(cap_s),
            *["--tiny"] * is_tiny,
        ]
        start, status = time.perf_counter(), "done"
        with log.open("w") as said:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **variables},
                stdout=said,
                stderr=said,
                start_new_session=True,
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
        record = {
            "status": status,
            "seconds": round(time.perf_counter() - start, 1),
            "figures": figures,
        }
        return (
            record
            if status == "done"
            else {**record, "log": log.read_text(errors="replace")[-4000:]}
        )


def run_all(
    names: list[str], is_tiny: bool, cap_s: float, out: Path
) -> Mapping[str, Any]:
    """Run cases one after the other and write what is known after each."""
    start, records = time.perf_counter(), {}  # type: ignore[var-annotated]
    device = platform.processor() or "cpu" if is_tiny else torch.cuda.get_device_name()
    machine = {"device": device, "cores": os.cpu_count(), "torch": torch.__version__}
    report = {
        "tiny": is_tiny,
        "machine": machine | {"python": platform.python_version()},
        "parts": records,
    }
    out.parent.mkdir(parents=True, exist_ok=True)

    for name in names:
        left_s = BUDGET_S - (time.perf_counter() - start)
        record: dict[str, Any] = {"status": "no time", "figures": []}
        if left_s > 5:
            record = run_alone(name, is_tiny, min(cap_s, left_s))
        records[name], report["seconds"] = record, round(time.perf_counter() - start, 1)
        out.write_text(json.dumps(report, indent=1))
        print(f"{name}: {record['status']}, {record.get('seconds', 0)} s", flush=True)
        for figure in record["figures"]:
            print(format_row(figure), flush=True)
        print(record.get("log") or "", flush=True)

    return records


def main() -> None:
    """Run the chosen cases; exit 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    short = {name.split(".")[1]: name for name in CASES}
    parser.add_argument("--only", nargs="+", choices=short, default=list(short))
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="on a CPU, at sizes that say nothing of speed",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", ".")),
        help="folder of gpu.json",
    )
    parser.add_argument("--cap", type=float, default=CAP_S, help="seconds of a case")
    parser.add_argument(
        "--case", choices=CASES, help="run this one here, as the others' parent does"
    )
    args = parser.parse_args()
    if args.case:
        with tempfile.TemporaryDirectory() as home:
            size, rounds = ("tiny", 1) if args.tiny else ("full", 2)
            run_case(args.case, Bench(Path(home), size, rounds, options=vars(args)))
        return
    if not (args.tiny or torch.cuda.is_available()):
        parser.error("no CUDA device is visible; --tiny runs on a CPU")
    records = run_all(
        [short[name] for name in args.only], args.tiny, args.cap, args.out / "gpu.json"
    )
    sys.exit(any(each["status"] != "done" for each in records.values()))


if __name__ == "__main__":
    main()
