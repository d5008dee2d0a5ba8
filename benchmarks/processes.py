"""What a command takes, seen from outside: time, and the memory of each of its processes as /proc says it.

The ru_maxrss of a child is no use: on Linux it begins at the peak of the process that started it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[1]
POLL_S = 0.02


@dataclass
class Used:
    """What a command took.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: Of all processes.
        own_gib: Most memory of one process that no file holds (RssAnon and RssShmem), as seen each 20 ms.
        resident_gib: Most of one process with mapped pages of files (VmHWM).
        together_gib: Most that all processes had of their own at one time.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    own_gib: float = 0.0
    resident_gib: float = 0.0
    together_gib: float = 0.0


def command(arguments: list[str], home: Path, **variables: str) -> dict[str, Any]:
    """Say what starts `brainhive`, as subprocess wants it."""
    environment = {**os.environ, "BRAINHIVE_HOME": str(home), "PYTHONPATH": str(CHECKOUT), **variables}
    return {"args": [sys.executable, "-m", "brainhive_cli", *arguments], "env": environment}


def run(arguments: list[str], home: Path, **variables: str) -> Iterator[Used]:
    """Run `brainhive` and yield what it has taken so far, again and again; at last what it took.

    Raises:
        SystemExit: if the command fails.
    """
    used, began = Used(), time.monotonic()
    process = subprocess.Popen(**command(arguments, home, **variables))
    status = pid = 0
    while not pid:
        pid, status, spent = os.wait4(process.pid, os.WNOHANG)
        fields = [each for one in _tree(process.pid) if (each := _status(one))]
        own = [each["RssAnon"] + each["RssShmem"] for each in fields]
        used.own_gib = max(used.own_gib, *own, 0)
        used.together_gib = max(used.together_gib, sum(own))
        used.resident_gib = max([used.resident_gib, *(each["VmHWM"] for each in fields)])
        used.wall_s, used.cpu_s = time.monotonic() - began, spent.ru_utime + spent.ru_stime
        yield used
        time.sleep(POLL_S)
    if status:
        raise SystemExit(f"brainhive {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _status(pid: int) -> Mapping[str, float]:
    """Read the memory of a process in GiB; nothing where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.startswith(("Rss", "VmHWM")))
    return {name: int(value.split()[0]) / 2**20 for name, value in pairs}
