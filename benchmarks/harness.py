"""Measurements of our code and a peer in turns, printed as a table.

A benchmark is a list of functions of a `Bench`. `main` parses their options.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import torch

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.append(str(CHECKOUT))
SHARED = import_module("tools.shared_folders").SHARED
"""Folder of recordings and pictures outside the project."""
FIGURES_VARIABLE = "BRAINHIVE_FIGURES"
"""Environment variable that names a JSON Lines file. Each figure is appended to it at
once, so a crash loses none.
"""
OVERHEAD_NOTE = "loop overhead only: the peer runs our model"
SIZES = ("tiny", "small", "full")
"""Sizes for tests, for a CPU, and for a GPU or as published."""
POLL_INTERVAL_S = 0.05
Work = Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """Settings and clock of a measurement.

    Attributes:
        home: Folder to write in.
        size: Name from SIZES.
        rounds: Number of times that each side is measured.
        is_busy: If True, others use the machine, and processor seconds are measured
            instead of wall time.
        options: Values of the script's own options, keyed by name.
    """

    home: Path
    size: str = "small"
    rounds: int = 3
    is_busy: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The GPU if there is one and the size is not tiny, else the CPU."""
        return torch.device(
            "cuda" if torch.cuda.is_available() and self.size != "tiny" else "cpu"
        )

    @property
    def precision(self) -> str:
        """Precision of trainings on the device."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    def pick(self, tiny: Any, small: Any, full: Any) -> Any:
        """Return the value for the current size."""
        return dict(zip(SIZES, (tiny, small, full), strict=True))[self.size]

    def make_folder(self) -> Path:
        """Make an empty folder in the home."""
        return Path(tempfile.mkdtemp(dir=self.home))

    def read_clock(self, in_children: bool = False) -> float:
        """Wait for the device, then return the time in seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if self.is_busy and in_children:
            times = os.times()
            return times.children_user + times.children_system
        return time.process_time() if self.is_busy else time.perf_counter()

    def measure_seconds(self, work: Work, in_children: bool = False) -> float:
        """Time some work. A float that the work returns is its own measurement."""
        start_s = self.read_clock(in_children)
        result = work()
        if isinstance(result, float):
            return result
        return self.read_clock(in_children) - start_s

    def compare(
        self,
        label: str,
        ours: Work,
        peer: Work,
        count: float = 1,
        unit: str = "a second",
        target: float | None = None,
        note: str = "",
        rounds: int | None = None,
        in_children: bool = False,
        warm_up: bool = True,
    ) -> None:
        """Measure two sides in turns, and print their median rates.

        A side does `count` units of work, and first runs once unmeasured (`warm_up`).
        With `in_children`, child processes do the work. `target` is the least ratio.
        """
        if warm_up:
            ours()
            peer()
        our_times: list[float] = []
        peer_times: list[float] = []
        for _ in range(rounds or self.rounds):
            our_times.append(self.measure_seconds(ours, in_children))
            peer_times.append(self.measure_seconds(peer, in_children))
        our_rate = count / statistics.median(our_times)
        peer_rate = count / statistics.median(peer_times)
        self.show(label, our_rate, peer_rate, unit=unit, target=target, note=note)

    def show(
        self,
        label: str,
        ours: float,
        peer: float | None = None,
        unit: str = "",
        target: float | None = None,
        at_most: bool = False,
        note: str = "",
    ) -> None:
        """Print a row, and append it to the file of figures.

        The target limits the ratio, or our figure without a peer. It is a lower limit
        unless `at_most` is True.
        """
        value = ours if peer is None else ours / peer
        if self.size == "tiny":
            target = None
        is_met = None
        if target is not None:
            is_met = value <= target if at_most else value >= target
        row = {
            "what": label,
            "ours": ours,
            "peer": peer,
            "unit": unit,
            "ratio": peer and value,
            "target": target,
            "at_most": at_most,
            "met": is_met,
            "note": note,
        }
        print(format_row(row), flush=True)
        path = os.environ.get(FIGURES_VARIABLE)
        if path:
            with Path(path).open("a") as file:
                file.write(json.dumps(row) + "\n")

    def leave_out(self, label: str, reason: str) -> None:
        """Print why a row is missing."""
        print(f"{label:56} left out: {reason}", flush=True)


def format_row(row: Mapping[str, Any]) -> str:
    """Write a row of the table."""
    peer = "–" if row["peer"] is None else f"{row['peer']:.4g}"
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.4g}"
    target = ""
    if row["target"] is not None:
        sign = "≤" if row["at_most"] else "≥"
        verdict = "met" if row["met"] else "MISSED"
        target = f"{sign} {row['target']:g} {verdict}"
    ours = f"{row['ours']:.4g} {row['unit']}"
    return (
        f"{row['what']:56} {ours:>18} {peer:>9} {ratio:>7}  {target:14} {row['note']}"
    ).rstrip()


def main(
    doc: str | None,
    cases: Sequence[Callable[[Bench], None]],
    options: Mapping[str, Mapping[str, Any]],
) -> None:
    """Parse the command line, and run the requested cases.

    Args:
        doc: Docstring of the script.
        cases: Cases in the order of the table.
        options: Keyword arguments of `add_argument`, keyed by option.
    """
    case_of = {case.__name__: case for case in cases}
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=case_of, default=list(case_of))
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="full" if torch.cuda.is_available() else "small",
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of the two sides")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="count seconds on a core: others use the machine",
    )
    parser.add_argument(
        "--folder", help="folder for temporary files; default: the system's"
    )
    for name, settings in options.items():
        parser.add_argument(name, **settings)
    args = parser.parse_args()
    print(f"{'what':56} {'ours':>18} {'peer':>9} {'ratio':>7}  target")
    for name in args.only:
        with tempfile.TemporaryDirectory(dir=args.folder) as home:
            bench = Bench(Path(home), args.size, args.rounds, args.busy, vars(args))
            case_of[name](bench)


def reset_peak() -> None:
    """Reset the peak of GPU memory, and empty its cache."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def read_peak_bytes() -> tuple[int, int]:
    """Read the peaks of allocated and of reserved GPU memory.

    Without a GPU, both are the memory of the process.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    resident = psutil.Process().memory_info().rss
    return resident, resident


@dataclass
class Usage:
    """Time and memory of a command so far, read from outside.

    The ru_maxrss of a child begins at the peak of its parent. VmHWM does not.

    Attributes:
        wall_s: Seconds since its start.
        cpu_s: Processor seconds of all processes, known at the end.
        peak_gib: Largest memory of a single process with its mapped files (VmHWM).
        own_gib: Largest memory that all processes together held outside files (RssAnon
            and RssShmem).
        current_gib: Value of the same sum now.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_gib: float = 0.0
    own_gib: float = 0.0
    current_gib: float = 0.0


def prepare_command(
    arguments: Sequence[str], home: Path, **variables: str
) -> dict[str, Any]:
    """Build the arguments of `subprocess.Popen` that start `brainhive` in a home."""
    folders = [str(CHECKOUT)]
    if os.environ.get("PYTHONPATH"):
        folders.append(os.environ["PYTHONPATH"])
    environment = dict(os.environ)
    environment["BRAINHIVE_HOME"] = str(home)
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    environment.update(variables)
    command = [sys.executable, "-m", "brainhive_cli"]
    command.extend(arguments)
    return {"args": command, "env": environment}


def watch(
    args: Sequence[str], interval_s: float = POLL_INTERVAL_S, **options: Any
) -> Iterator[Usage]:
    """Run a command, and yield its usage at intervals and at its end.

    Raises:
        SystemExit: if the command fails.
    """
    usage = Usage()
    start_s = time.monotonic()
    errors = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        args, stdout=subprocess.DEVNULL, stderr=errors, **options
    )
    status = 0
    pid = 0
    while not pid:
        pid, status, resources = os.wait4(process.pid, os.WNOHANG)
        usage.current_gib = 0.0
        for process_id in _list_processes(process.pid):
            memory = _read_memory_gib(process_id)
            if memory:
                usage.current_gib += memory["RssAnon"] + memory["RssShmem"]
                usage.peak_gib = max(usage.peak_gib, memory["VmHWM"])
        usage.own_gib = max(usage.own_gib, usage.current_gib)
        usage.wall_s = time.monotonic() - start_s
        usage.cpu_s = resources.ru_utime + resources.ru_stime
        yield usage
        time.sleep(interval_s)
    process.returncode = os.waitstatus_to_exitcode(status)
    errors.seek(0)
    log = errors.read().decode(errors="replace")
    errors.close()
    if status:
        raise SystemExit(
            f"{' '.join(args)} ended with {process.returncode}\n{log[-2000:]}"
        )


def run_command(args: Sequence[str], **options: Any) -> Usage:
    """Run a command, and return its usage."""
    *_, usage = watch(args, **options)
    return usage


def _list_processes(pid: int) -> list[int]:
    """List a process and its descendants, or nothing if it has ended."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [pid] + [child.pid for child in children]


def _read_memory_gib(pid: int) -> Mapping[str, float]:
    """Read VmHWM and the Rss fields of a process, or nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    memory = {}
    for line in lines:
        if line.startswith(("Rss", "VmHWM")):
            name, value = line.split(":")
            memory[name] = int(value.split()[0]) / 2**20
    return memory
