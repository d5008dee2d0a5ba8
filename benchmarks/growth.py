"""How processor seconds and memory of a task grow with its size.

Each size of a case runs in a process of its own.
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
GB, PAUSE_S = 1e9, 0.01


@dataclass(frozen=True)
class Task:
    """Work of one size.

    Attributes:
        run: What is measured. It may return `Measured` where processes that it starts
            do the work.
        compute: The computation alone, which gives the share of pure computing.
        data_bytes: Memory of the data that `run` uses.
    """

    run: Work
    compute: Work | None = None
    data_bytes: int = 0


@dataclass(frozen=True)
class Case:
    """A task that is measured at several sizes.

    Attributes:
        what: Its row in the table.
        count: Items of the published size.
        prepare: Makes the task of a number of items, with a folder to write in.
    """

    what: str
    count: int
    prepare: Callable[[int, Path], Task]


@dataclass(frozen=True)
class Measured:
    """Figures of one size.

    Attributes:
        count: Items.
        cpu_s: Processor seconds of the work.
        compute_s: Processor seconds of the computation alone; NaN if not measured.
        peak_gb: Most memory that the work added.
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
    """Read the memory of this process that no file holds (RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) * 1024 / GB


class Peak:
    """The largest memory while a block runs, by samples of a thread."""

    def __enter__(self) -> Self:
        """Begin to sample."""
        self.most_gb = self.before_gb = read_memory_gb()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.is_over.wait(PAUSE_S):
            self.most_gb = max(self.most_gb, read_memory_gb())

    def __exit__(self, *problem: object) -> None:
        """End, and keep what the block added."""
        self.is_over.set()
        self.thread.join()
        self.added_gb = max(self.most_gb, read_memory_gb()) - self.before_gb


def measure(case: Case, count: int, folder: Path) -> Measured:
    """Run a task of one size in this process."""
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
    """Fit the exponent with which seconds grow with the number of items."""
    counts = np.log([row.count for row in rows])
    seconds = np.log([max(row.cpu_s, 1e-4) for row in rows])
    return float(np.polyfit(counts, seconds, 1)[0]) if len(rows) > 1 else np.nan


def write_row(what: str, row: Measured, exponent: str = "") -> str:
    """Write a row of the table."""
    share = row.compute_s / row.cpu_s
    computing = "–" if np.isnan(share) else f"{share:.0%}"
    return (
        f"{what:44} {row.count:>10,} {row.cpu_s:9.3f} {computing:>9} "
        f"{row.peak_gb:8.2f} {row.data_gb:8.2f}  {exponent}"
    ).rstrip()


def main(doc: str | None, cases: Mapping[str, Case]) -> None:
    """Measure the chosen cases, each size in a process of its own."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--only", nargs="+", choices=cases, default=[*cases])
    parser.add_argument("--shares", nargs="+", default=SHARES, help="of the full size")
    parser.add_argument("--folder", help="where there is room; default: the system's")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count is not None:
        case = cases[args.only[0]]
        print(json.dumps(asdict(measure(case, args.count, Path(args.folder)))))
        return

    heads = ("items", "CPU s", "computing", "peak GB", "data GB")
    print(
        f"{'what':44} {heads[0]:>10} {heads[1]:>9} {heads[2]:>9} {heads[3]} {heads[4]}"
    )
    for name in args.only:
        rows = []
        sizes = [round(Fraction(share) * cases[name].count) for share in args.shares]
        for count in sorted({max(1, size) for size in sizes}):
            rows.append(measure_apart(name, count, args.folder))
            exponent = ""
            if count >= max(sizes) and len(rows) > 1:
                exponent = f"exponent {fit_exponent(rows):.2f}"
            print(write_row(cases[name].what, rows[-1], exponent), flush=True)


def measure_apart(name: str, count: int, folder: str | None) -> Measured:
    """Measure one size of a case in a process of its own.

    Raises:
        SystemExit: if the process fails.
    """
    with tempfile.TemporaryDirectory(dir=folder) as home:
        words = ["--only", name, "--count", str(count), "--folder", home]
        done = subprocess.run(
            [sys.executable, sys.argv[0], *words], capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(f"{name} of {count} failed\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))
