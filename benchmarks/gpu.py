"""Speed and memory on one large GPU at full size, in one call under nine minutes.

    python benchmarks/gpu.py                          # a table, and gpu.json
    python benchmarks/gpu.py --only cells networks    # some cases
    python benchmarks/gpu.py --tiny                   # a test on a CPU

Data and weights are random. The cases need a GPU of 40 GB and 4 GB of disk. Each runs
in its own process, which is stopped after 90 s. The figures until then are kept.
gpu.json is written after each case, in $OUT or here. It describes the machine without
names of the computer, of users or of folders, so it can be published.
"""

import argparse
import getpass
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import synthetic
import torch
from harness import CHECKOUT, FIGURES_VARIABLE, Bench, format_row, prepare_command

from brainhive_cli.core.runs import machine_speed
from brainhive_cli.core.runs.launch import Launch

SCHEMA = {"name": "brainhive-gpu", "version": 1}
"""Name and version of the format of gpu.json."""
FOLDERS = re.compile(r"""(?<![\w.:/])/(?:[^\s/"',:<>]+/)+""")
"""Folders of an absolute path, up to the name of the file."""
CAP_S = 90.0
"""Time limit of a case."""
BUDGET_S = 530.0
"""Time limit of all cases."""
CELLS_S = 120.0
"""Target for the 30 cells of papers/brainhive-intra: ten subjects and three seeds."""
PAPER_DIMS = {"clip-rn50": 1024, "clip-b32": 512, "vae": 1024}
"""Widths of the embeddings of papers/brainhive-intra, keyed by encoder."""


def equality(bench: Bench) -> None:
    """Compare the results of CPU and GPU in float32."""
    import devices

    for case in devices.CASES:
        case(bench)


def probe(bench: Bench) -> None:
    """Measure the speeds from which `brainhive doctor` estimates."""
    rates = machine_speed.measure_device(bench.device)
    rates["pictures"] = machine_speed.measure_decoding()
    rates |= machine_speed.measure_disk(bench.home)
    for name, rate in rates.items():
        label, divisor, unit = machine_speed.UNITS[name]
        bench.show(f"probe: {label}", rate / divisor, unit=unit)


def cells(bench: Bench) -> None:
    """Time the 30 cells of papers/brainhive-intra, or extrapolate from the first."""
    subjects, count = bench.pick((2, 2), (10, 30), (10, 30))
    ids = synthetic.make_things_ids("train", bench.pick(20, 1654, 1654))
    synthetic.write_targets(bench.home, "things-eeg", "train", ids, PAPER_DIMS)
    synthetic.write_signals(bench.home, ids, subjects, repetitions=1)
    arguments = ["train-align", "--recipe", "papers/brainhive-intra"]
    if bench.size == "tiny":
        arguments.extend(["subjects=1,2", "seeds=1", "train.epochs=1"])
        arguments.extend(["train.batch_size=64", "train.warmup_steps=0"])
    start = time.perf_counter()
    end_times: list[float] = []
    # leave time for the stores that were written above
    limit_s = bench.options["cap"] - 25
    process = subprocess.Popen(**prepare_command(arguments, bench.home))
    code = process.poll()
    while code is None and time.perf_counter() - start < limit_s:
        time.sleep(0.05)
        files = list(bench.home.glob("runs/train-align/*/cells/*/metrics.json"))
        n_new = len(files) - len(end_times)
        end_times.extend([time.perf_counter() - start] * n_new)
        code = process.poll()
    seconds = time.perf_counter() - start
    process.terminate()
    if code or len(end_times) < 2:
        raise SystemExit(
            f"train-align ended with {code}, {len(end_times)} cells trained in "
            f"{seconds:.1f} s"
        )
    first_s = end_times[0]
    cell_s = (end_times[-1] - first_s) / (len(end_times) - 1)
    all_s = seconds if code == 0 else first_s + (count - 1) * cell_s
    note = (
        f"{len(end_times)} trained in {seconds:.1f} s: "
        f"the first after {first_s:.1f} s, then {cell_s:.2f} s each"
    )
    label = f"papers/brainhive-intra, {count} cells"
    bench.show(label, all_s, unit="s", target=CELLS_S, at_most=True, note=note)


CASES = (
    "gpu.probe",
    "gpu.equality",
    "gpu.cells",
    "prior.prior_step",
    "embed.networks",
    "generate.pictures",
    "generate.keyframes",
    "generate.clips",
    "generate.havir",
    "prior.prior_memory",
    "align.loop",
    "evaluate.ranking",
)
"""Script and function of each case, the most valuable first."""


def run_case(name: str, bench: Bench) -> None:
    """Run a case in this process."""
    module, function = name.split(".")
    getattr(__import__(module), function)(bench)


def run_alone(name: str, is_tiny: bool, cap_s: float) -> dict[str, Any]:
    """Run a case in its own process.

    Returns:
        Its status, seconds and figures. If it failed, also the reason and its log.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures_path = Path(folder, "figures")
        figures_path.touch()
        log_path = Path(folder, "log")
        folders = [str(CHECKOUT)]
        if os.environ.get("PYTHONPATH"):
            folders.append(os.environ["PYTHONPATH"])
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(folders)
        environment["HF_HUB_OFFLINE"] = "1"
        environment[FIGURES_VARIABLE] = str(figures_path)
        environment["TMPDIR"] = folder
        command = [sys.executable, __file__, "--case", name, "--cap", str(cap_s)]
        if is_tiny:
            command.append("--tiny")
        start = time.perf_counter()
        status = "done"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                if process.wait(cap_s):
                    status = "failed"
            except subprocess.TimeoutExpired:
                status = "stopped"
            # stop the processes that the case has started, too
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        lines = figures_path.read_text().splitlines()
        record: dict[str, Any] = {
            "status": status,
            "seconds": round(time.perf_counter() - start, 1),
            "figures": [json.loads(line) for line in lines],
        }
        if status != "done":
            text = remove_names(log_path.read_text(errors="replace"))
            lines = text.strip().splitlines() or ["no message"]
            reason = lines[-1]
            if status == "stopped":
                reason = f"the limit of {cap_s:.0f} s was reached"
            record["reason"] = reason
            record["log"] = text[-4000:]
        return record


def describe_machine(is_tiny: bool) -> dict[str, Any]:
    """Describe the software and hardware, without names of computers and folders.

    Args:
        is_tiny: If True, the cases run on the CPU.
    """
    environment = Launch(0, 1, "cpu" if is_tiny else "cuda").describe_environment()
    machine: dict[str, Any] = {
        "device": environment["device"],
        "commit": environment["commit"],
        "libraries": environment["versions"],
        "system": environment["platform"],
        "cpu": read_cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
    if not is_tiny:
        gpu = torch.cuda.get_device_properties()
        machine["gpu_memory_gb"] = round(gpu.total_memory / 1e9, 1)
        machine["compute_capability"] = f"{gpu.major}.{gpu.minor}"
        machine["gpus"] = torch.cuda.device_count()
        machine["cuda"] = torch.version.cuda
        machine["driver"] = read_driver_version()
    return machine


def read_cpu_name() -> str:
    """Read the model of the CPU, which Python does not know on Linux."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_driver_version() -> str:
    """Read the version of the NVIDIA driver, or "unknown"."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
        return finished.stdout.splitlines()[0].strip()
    return "unknown"


def remove_names(text: str) -> str:
    """Remove folders of absolute paths, the user's name and the computer's name."""
    text = FOLDERS.sub("", text)
    # the user may have no name in a container
    names = {socket.gethostname()}
    with suppress(OSError, KeyError):
        names.add(getpass.getuser())
    for name in names - {""}:
        text = re.sub(rf"\b{re.escape(name)}\b", "…", text)
    return text


def run_all(
    names: list[str], is_tiny: bool, cap_s: float, out: Path
) -> Mapping[str, Any]:
    """Run cases one after the other, and write the report after each."""
    start = time.perf_counter()
    records: dict[str, Any] = {}
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiny": is_tiny,
        "machine": describe_machine(is_tiny),
        "parts": records,
    }
    out.parent.mkdir(parents=True, exist_ok=True)

    for name in names:
        left_s = BUDGET_S - (time.perf_counter() - start)
        reason = f"the limit of {BUDGET_S:.0f} s for all cases was reached"
        record = {"status": "no time", "figures": [], "reason": reason}
        if left_s > 5:
            record = run_alone(name, is_tiny, min(cap_s, left_s))
        records[name] = record
        report["seconds"] = round(time.perf_counter() - start, 1)
        out.write_text(json.dumps(report, indent=1))
        print(f"{name}: {record['status']}, {record.get('seconds', 0)} s", flush=True)
        for figure in record["figures"]:
            print(format_row(figure), flush=True)
        print(record.get("log") or "", flush=True)

    return records


def main() -> None:
    """Run the requested cases, and exit with 1 if any of them fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    case_of = {name.split(".")[1]: name for name in CASES}
    parser.add_argument("--only", nargs="+", choices=case_of, default=list(case_of))
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
    parser.add_argument("--case", choices=CASES, help="run this case in this process")
    args = parser.parse_args()
    if args.case:
        with tempfile.TemporaryDirectory() as home:
            size, rounds = ("tiny", 1) if args.tiny else ("full", 2)
            run_case(args.case, Bench(Path(home), size, rounds, options=vars(args)))
        return
    if not (args.tiny or torch.cuda.is_available()):
        parser.error("no CUDA device is visible; --tiny runs on a CPU")
    names = [case_of[name] for name in args.only]
    records = run_all(names, args.tiny, args.cap, args.out / "gpu.json")
    sys.exit(any(record["status"] != "done" for record in records.values()))


if __name__ == "__main__":
    main()
