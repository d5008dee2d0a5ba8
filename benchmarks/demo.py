"""Processor time of `brainhive demo`, for each step and in total.

The time of all its processes is added. With `--reference FOLDER`, another checkout of
Brainhive, both run in turns, and the second figure of a row is for that checkout. The
two-way score of the drawings is shown beside their time.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from harness import CHECKOUT, Bench, main

OPTIONS: dict[str, dict[str, Any]] = {
    "--reference": {"type": Path, "help": "another checkout, to compare with"},
    "--system": {
        "default": "brainhive",
        "help": "system of the demo: brainhive, havir, neurons or real",
    },
}
STEP = re.compile(r"^\d+/\d+ (?P<name>.+)$")
"""Line that a step of the demo begins with."""
TOTAL = "all steps"
TWO_WAY = "two_way_demo-clip"
TARGET_S = 60.0
"""Most seconds of the demo on two idle cores. Its processor time may be twice as
long.
"""


def steps(bench: Bench) -> None:
    """Run the demo of each checkout in an empty home, and show the median per step."""
    system = bench.options["system"]
    arguments = ["demo", "--system", system] + bench.pick(["--quick"], [], [])
    runs: dict[Path, list[dict[str, Any]]] = {CHECKOUT: []}
    if bench.options.get("reference"):
        runs[bench.options["reference"]] = []
    for _ in range(bench.rounds):
        for checkout, checkout_runs in runs.items():
            checkout_runs.append(_run_demo(bench, checkout, arguments))

    names: list[str] = []
    for checkout_runs in runs.values():
        for demo_run in checkout_runs:
            names.extend(demo_run["cpu_s"])
    for name in dict.fromkeys(names):
        medians = []
        scores = []
        for checkout_runs in runs.values():
            seconds = [demo_run["cpu_s"].get(name, 0.0) for demo_run in checkout_runs]
            medians.append(median(seconds))
            # all runs have the same seeds
            scores.append(_describe_two_way(checkout_runs[0]["two_way"]))
        label = f"demo {system}, {name}: processor time"
        note = "; ".join(scores) if name == TOTAL else ""
        bench.show(label, *medians, unit="s", note=note)
    if not bench.is_busy:
        wall_s = median(demo_run["wall_s"] for demo_run in runs[CHECKOUT])
        label = f"demo {system}: wall time"
        bench.show(label, wall_s, unit="s", target=TARGET_S, at_most=True)


def _run_demo(bench: Bench, checkout: Path, arguments: list[str]) -> dict[str, Any]:
    """Run the demo of a checkout.

    Returns:
        Processor seconds per step (`cpu_s`), wall time (`wall_s`) and two-way score.
    """
    home = bench.make_folder()
    environment = os.environ | {
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": str(checkout),
    }
    command = [sys.executable, "-m", "brainhive_cli"] + arguments
    start_s = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    monitor = psutil.Process(process.pid)
    names = ["start"]
    boundaries_s = [0.0]
    log = []
    assert process.stderr is not None
    for line in process.stderr:
        log.append(line)
        match = STEP.match(line.rstrip())
        if match:
            names.append(match["name"])
            boundaries_s.append(_read_cpu_s(monitor))
    _, status, resources = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(
            f"{' '.join(command)} ended with {process.returncode}\n"
            f"{''.join(log)[-2000:]}"
        )

    # a step ends where the next step begins, and the last step with the process
    total_s = resources.ru_utime + resources.ru_stime
    boundaries_s.append(total_s)
    cpu_s = dict(zip(names, np.diff(boundaries_s).tolist(), strict=True))
    cpu_s[TOTAL] = total_s
    return {
        "cpu_s": cpu_s,
        "wall_s": time.monotonic() - start_s,
        "two_way": _read_two_way(home),
    }


def _read_cpu_s(process: psutil.Process) -> float:
    """Read the processor time of a process and its children, finished and running."""
    cpu_s = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            cpu_s += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return cpu_s


def _read_two_way(home: Path) -> dict[str, Any] | None:
    """Read the two-way score of the demo's drawings, or None if it draws nothing."""
    for file in home.glob("runs/reconstruct/*/metrics.json"):
        metric: dict[str, Any] = json.loads(file.read_text())["scopes"]["all"][TWO_WAY]
        return metric
    return None


def _describe_two_way(metric: dict[str, Any] | None) -> str:
    """Write the two-way score of a run."""
    if metric is None:
        return "draws nothing"
    interval = ""
    if metric["low"] is not None:
        interval = f" ({metric['low']:.3f}–{metric['high']:.3f})"
    return f"two-way {metric['value']:.3f}{interval}, n {metric['n']}"


CASES = (steps,)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
