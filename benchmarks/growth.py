"""Measurement of how time and memory of a task grow with its size.

Each size of a case runs in its own process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

Work = Callable[[], object]
SHARES = ("1/8", "1/4", "1/2", "1")
"""Shares of the published size."""
GB = 1e9
POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Task:
    """Work of a given size.

    Attributes:
        run: Measured function. It may return `Measured` if it starts processes that do
            the work.
        compute: The computation alone.
        data_bytes: Memory of the data that `run` uses.
    """

    run: Work
    compute: Work | None = None
    data_bytes: int = 0


@dataclass(frozen=True)
class Case:
    """Task that is measured at several sizes.

    Attributes:
        label: First column of the table.
        count: Number of items of the published size.
        prepare: Makes the task for a number of items, with a folder to write in.
    """

    label: str
    count: int
    prepare: Callable[[int, Path], Task]


@dataclass(frozen=True)
class Measured:
    """Figures of a given size.

    Attributes:
        count: Number of items.
        cpu_s: Processor seconds of the work.
        compute_s: Processor seconds of the computation alone, or NaN.
        peak_gb: Peak memory that the work added.
        data_gb: Memory of its data.
    """

    count: int
    cpu_s: float
    compute_s: float
    peak_gb: float
    data_gb: float


def processor_s() -> float:
    """Return the processor seconds of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def read_memory_gb() -> float:
    """Read the memory of this process outside files (RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) * 1024 / GB


class Peak:
    """Peak memory of a block, sampled by a thread."""

    def __enter__(self) -> Self:
        """Start to sample."""
        self.start_gb = read_memory_gb()
        self.peak_gb = self.start_gb
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.is_over.wait(POLL_INTERVAL_S):
            self.peak_gb = max(self.peak_gb, read_memory_gb())

    def __exit__(self, *exception: object) -> None:
        """Stop to sample, and compute the memory that the block added."""
        self.is_over.set()
        self.thread.join()
        self.added_gb = max(self.peak_gb, read_memory_gb()) - self.start_gb


def measure(case: Case, count: int, folder: Path) -> Measured:
    """Measure a size of a task in this process."""
    task = case.prepare(count, folder)
    start_s = processor_s()
    with Peak() as peak:
        result = task.run()
    cpu_s = processor_s() - start_s
    if isinstance(result, Measured):
        return result

    compute_s = np.nan
    if task.compute is not None:
        start_s = processor_s()
        task.compute()
        compute_s = processor_s() - start_s
    return Measured(count, cpu_s, compute_s, peak.added_gb, task.data_bytes / GB)


def fit_exponent(rows: Sequence[Measured]) -> float:
    """Fit the exponent of seconds as a power of the number of items."""
    counts = np.log([row.count for row in rows])
    seconds = np.log([max(row.cpu_s, 1e-4) for row in rows])
    return float(np.polyfit(counts, seconds, 1)[0]) if len(rows) > 1 else np.nan


def write_row(label: str, row: Measured, exponent: str = "") -> str:
    """Write a row of the table."""
    # the processor time of a tiny task is 0
    share = row.compute_s / row.cpu_s if row.cpu_s else np.nan
    computing = "–" if np.isnan(share) else f"{share:.0%}"
    return (
        f"{label:44} {row.count:>10,} {row.cpu_s:9.3f} {computing:>9} "
        f"{row.peak_gb:8.2f} {row.data_gb:8.2f}  {exponent}"
    ).rstrip()


def main(doc: str | None, cases: Mapping[str, Case]) -> None:
    """Parse the command line, and measure each size of the requested cases."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--only", nargs="+", choices=cases, default=list(cases))
    parser.add_argument(
        "--shares", nargs="+", default=SHARES, help="shares of the full size"
    )
    parser.add_argument(
        "--folder", help="folder for temporary files; default: the system's"
    )
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count is not None:
        case = cases[args.only[0]]
        print(json.dumps(asdict(measure(case, args.count, Path(args.folder)))))
        return

    print(f"{'what':44} {'items':>10} {'CPU s':>9} {'computing':>9} peak GB data GB")
    for name in args.only:
        rows = []
        sizes = [round(Fraction(share) * cases[name].count) for share in args.shares]
        for count in sorted({max(1, size) for size in sizes}):
            rows.append(measure_in_process(name, count, args.folder))
            exponent = ""
            if count >= max(sizes) and len(rows) > 1:
                exponent = f"exponent {fit_exponent(rows):.2f}"
            print(write_row(cases[name].label, rows[-1], exponent), flush=True)


def measure_in_process(name: str, count: int, folder: str | None) -> Measured:
    """Measure a size of a case in a new process.

    Raises:
        SystemExit: if the process fails.
    """
    command = [sys.executable, sys.argv[0], "--only", name, "--count", str(count)]
    with tempfile.TemporaryDirectory(dir=folder) as home:
        process = subprocess.run(
            command + ["--folder", home], capture_output=True, text=True
        )
    if process.returncode:
        raise SystemExit(f"{name} of {count} failed\n{process.stderr[-2000:]}")
    return Measured(**json.loads(process.stdout.splitlines()[-1]))
