"""Measure two sides in turns, and print one table: what | ours | peer | ratio | target.

A benchmark is a list of cases, each a function of a `Bench`; `main` gives all of them
the same options.
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
from pathlib import Path
from typing import Any

import psutil
import torch

CHECKOUT = Path(__file__).resolve().parents[1]
FIGURES = "BRAINHIVE_FIGURES"
"""Names a file that takes every figure at once, as a line of JSON, so that a crash
loses none.
"""
OVERHEAD = "loop overhead only: the peer runs our model"
SIZES = ("tiny", "small", "full")
"""For tests, whose speed says nothing; for a CPU; for a GPU, or as published."""
POLL_S = 0.05
Work = Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """Where and how cases are measured.

    Attributes:
        home: A folder to write in.
        size: One of SIZES.
        rounds: Turns of the sides.
        is_busy: Whether others use the machine: seconds are then those that this
            process, or its children, had a core.
        options: Those of the script.
    """

    home: Path
    size: str = "small"
    rounds: int = 3
    is_busy: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """A GPU where one is, unless the sizes are those of tests."""
        return torch.device(
            "cuda" if torch.cuda.is_available() and self.size != "tiny" else "cpu"
        )

    @property
    def precision(self) -> str:
        """What trainings take on the device."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    def pick(self, tiny: Any, small: Any, full: Any) -> Any:
        """Choose by the size."""
        return dict(zip(SIZES, (tiny, small, full), strict=True))[self.size]

    def folder(self) -> Path:
        """Make an empty folder."""
        return Path(tempfile.mkdtemp(dir=self.home))

    def now(self, of_children: bool = False) -> float:
        """Read the clock, when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        times = os.times()
        if self.is_busy and of_children:
            return times.children_user + times.children_system
        return time.process_time() if self.is_busy else time.perf_counter()

    def seconds(self, work: Work, of_children: bool = False) -> float:
        """Time some work; work that returns a float has measured itself."""
        start = self.now(of_children)
        measured_s = work()
        return (
            measured_s
            if isinstance(measured_s, float)
            else self.now(of_children) - start
        )

    def compare(
        self,
        what: str,
        ours: Work,
        peer: Work,
        count: float = 1,
        unit: str = "a second",
        target: float | None = None,
        note: str = "",
        rounds: int | None = None,
        of_children: bool = False,
        warm: bool = True,
    ) -> None:
        """Show the median rates of two sides that do `count` units of the work in
        turns.

        A warm round comes first and is not counted; `of_children` says that processes
        do the work, which this one waits for; `target` is the least ratio.
        """
        for side in (ours, peer) if warm else ():
            side()
        pairs = [
            [self.seconds(side, of_children) for side in (ours, peer)]
            for _ in range(rounds or self.rounds)
        ]
        rates = [count / statistics.median(times) for times in zip(*pairs, strict=True)]
        self.show(what, *rates, unit=unit, target=target, note=note)

    def show(
        self,
        what: str,
        ours: float,
        peer: float | None = None,
        unit: str = "",
        target: float | None = None,
        at_most: bool = False,
        note: str = "",
    ) -> None:
        """Print a row, and keep it; the target is of the ratio, or of our figure where
        there is no peer.
        """
        value = ours if peer is None else ours / peer
        target = None if self.size == "tiny" else target
        met = (
            None if target is None else value <= target if at_most else value >= target
        )
        row = {
            "what": what,
            "ours": ours,
            "peer": peer,
            "unit": unit,
            "ratio": peer and value,
        }
        row |= {"target": target, "at_most": at_most, "met": met, "note": note}
        print(line(row), flush=True)
        if file := os.environ.get(FIGURES):
            with Path(file).open("a") as kept:
                kept.write(json.dumps(row) + "\n")

    def leave_out(self, what: str, why: str) -> None:
        """Say which row is missing, and why."""
        print(f"{what:56} left out: {why}", flush=True)


def line(row: Mapping[str, Any]) -> str:
    """Write a row of the table."""
    sign, verdict = "≤" if row["at_most"] else "≥", "met" if row["met"] else "MISSED"
    target = "" if row["target"] is None else f"{sign} {row['target']:g} {verdict}"
    peer, ratio = (
        "–" if row[name] is None else f"{row[name]:.4g}" for name in ("peer", "ratio")
    )
    ours = f"{row['ours']:.4g} {row['unit']}"
    return (
        f"{row['what']:56} {ours:>18} {peer:>9} {ratio:>7}  {target:14} {row['note']}"
    ).rstrip()


def main(
    doc: str | None,
    cases: Sequence[Callable[[Bench], None]],
    options: Mapping[str, Mapping[str, Any]],
) -> None:
    """Run the chosen cases.

    Args:
        doc: The script's.
        cases: In order.
        options: Further options, as argparse takes them.
    """
    parts = {case.__name__: case for case in cases}
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
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
        "--folder", help="where there is room for a while; default: the system's"
    )
    for name, settings in options.items():
        parser.add_argument(name, **settings)
    args = parser.parse_args()
    print(f"{'what':56} {'ours':>18} {'peer':>9} {'ratio':>7}  target")
    for name in args.only:
        with tempfile.TemporaryDirectory(dir=args.folder) as home:
            parts[name](
                Bench(Path(home), args.size, args.rounds, args.busy, vars(args))
            )


def reset_peak() -> None:
    """Forget the peak of the GPU's memory, and give back what is cached."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> tuple[int, int]:
    """Read the most bytes of tensors, and of what was reserved for them; without a GPU,
    of the process.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    resident = psutil.Process().memory_info().rss
    return resident, resident


@dataclass
class Used:
    """What a command took until now, seen from outside.

    The ru_maxrss of a child begins at the peak of the process that started it; VmHWM is
    the same figure without that.

    Attributes:
        wall_s: From its start.
        cpu_s: Of all processes, at its end.
        peak_gib: Most of one process, pages of mapped files included (VmHWM).
        own_gib: Most that all processes had at one time and no file holds (RssAnon and
            RssShmem).
        now_gib: That at this time.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_gib: float = 0.0
    own_gib: float = 0.0
    now_gib: float = 0.0


def brainhive(arguments: Sequence[str], home: Path, **variables: str) -> dict[str, Any]:
    """Say what starts `brainhive`, as subprocess wants it."""
    path = os.pathsep.join(
        [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {
        **os.environ,
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": path,
        **variables,
    }
    return {
        "args": [sys.executable, "-m", "brainhive_cli", *arguments],
        "env": environment,
    }


def watch(
    args: Sequence[str], pause_s: float = POLL_S, **options: Any
) -> Iterator[Used]:
    """Run a command and yield what it has taken so far, again and again; at last what
    it took.

    Raises:
        SystemExit: if the command fails.
    """
    used, start, said = Used(), time.monotonic(), tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=said, **options)
    status = pid = 0
    while not pid:
        pid, status, spent = os.wait4(process.pid, os.WNOHANG)
        fields = [fields for one in _tree(process.pid) if (fields := _memory_gib(one))]
        used.now_gib = sum(each["RssAnon"] + each["RssShmem"] for each in fields)
        used.own_gib = max(used.own_gib, used.now_gib)
        used.peak_gib = max([used.peak_gib, *(each["VmHWM"] for each in fields)])
        used.wall_s, used.cpu_s = (
            time.monotonic() - start,
            spent.ru_utime + spent.ru_stime,
        )
        yield used
        time.sleep(pause_s)
    process.returncode = os.waitstatus_to_exitcode(status)
    said.seek(0)
    log = said.read().decode(errors="replace")
    said.close()
    if status:
        raise SystemExit(
            f"{' '.join(args)} ended with {process.returncode}\n{log[-2000:]}"
        )


def run(args: Sequence[str], **options: Any) -> Used:
    """Run a command; return what it took."""
    *_, used = watch(args, **options)
    return used


def _tree(pid: int) -> list[int]:
    try:
        return [
            pid,
            *(child.pid for child in psutil.Process(pid).children(recursive=True)),
        ]
    except psutil.NoSuchProcess:
        return []


def _memory_gib(pid: int) -> Mapping[str, float]:
    """Read the memory of a process; nothing where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.startswith(("Rss", "VmHWM")))
    return {name: int(value.split()[0]) / 2**20 for name, value in pairs}
