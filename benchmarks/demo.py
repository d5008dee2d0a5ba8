"""What `brainhive demo` costs, step by step: seconds of processor time of all its
processes, and in all.

With `--reference FOLDER`, another checkout of Brainhive, both run in turns in this one
call, and the second figure of a row is that checkout's. The two-way score beside the
drawing's seconds is what they buy.
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

import psutil
from harness import CHECKOUT, Bench, main

OPTIONS: dict[str, dict[str, Any]] = {
    "--reference": {"type": Path, "help": "another checkout, to compare with"},
    "--system": {
        "default": "brainhive",
        "help": "whose demo: brainhive, havir, neurons or real",
    },
}
STEP = re.compile(r"^\d+/\d+ (?P<name>.+)$")
"""The line with which a step of the demo begins."""
START, TOTAL, WALL = "start", "all steps", "wall"
TWO_WAY = "two_way_demo-clip"
TARGET_S = 60.0
"""Most seconds of the demo on two idle cores; with two cores in use, twice as much of
processor time.
"""


def steps(on: Bench) -> None:
    """Run the whole demo of each checkout in an empty home, in turns, and show the
    median of each step.
    """
    system = on.options["system"]
    words = ["demo", "--system", system, *on.pick(["--quick"], [], [])]
    checkouts = [CHECKOUT, *filter(None, [on.options.get("reference")])]
    measured = [
        [_run(on, folder, words) for folder in checkouts] for _ in range(on.rounds)
    ]

    # medians of each step, of ours and of the other checkout
    sides = [[runs[side] for runs in measured] for side in range(len(checkouts))]
    for name in dict.fromkeys(
        name for runs in measured for run in runs for name in run["cpu_s"]
    ):
        figures = [
            median(run["cpu_s"].get(name, 0.0) for run in side) for side in sides
        ]
        note = "" if name != TOTAL else "; ".join(_outcome(side) for side in sides)
        on.show(f"demo {system}, {name}: processor time", *figures, unit="s", note=note)
    if not on.is_busy:
        wall_s = median(run["wall_s"] for run in sides[0])
        on.show(
            f"demo {system}: wall time", wall_s, unit="s", target=TARGET_S, at_most=True
        )


def _run(on: Bench, checkout: Path, words: list[str]) -> dict[str, Any]:
    """Run the demo of a checkout, and read the processor time of its processes where a
    step begins.
    """
    home = on.make_folder()
    environment = {
        **os.environ,
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": str(checkout),
    }
    args, begun = [sys.executable, "-m", "brainhive_cli", *words], time.monotonic()
    process = subprocess.Popen(
        args,
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watched, marks, said = psutil.Process(process.pid), [(START, 0.0)], []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if match := STEP.match(line.rstrip()):
            marks.append((match["name"], _spent_s(watched)))
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(
            f"{' '.join(args)} ended with {process.returncode}\n{''.join(said)[-2000:]}"
        )

    # a step ends where the next begins, the last one with the page
    total_s = used.ru_utime + used.ru_stime
    ends = [*(spent for _, spent in marks[1:]), total_s]
    cpu_s = {
        name: end - start for (name, start), end in zip(marks, ends, strict=True)
    } | {TOTAL: total_s}
    return {
        "cpu_s": cpu_s,
        "wall_s": time.monotonic() - begun,
        "two_way": _two_way(home),
    }


def _spent_s(process: psutil.Process) -> float:
    """Read the processor time of a process, of its children that have ended, and of
    those at work.
    """
    spent_s = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            spent_s += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return spent_s


def _two_way(home: Path) -> dict[str, Any] | None:
    """Read the two-way score of the demo's drawings; None of a demo that draws none."""
    for file in home.glob("runs/reconstruct/*/metrics.json"):
        metric: dict[str, Any] = json.loads(file.read_text())["scopes"]["all"][TWO_WAY]
        return metric
    return None


def _outcome(side: list[dict[str, Any]]) -> str:
    """Write the two-way score of the first run of a side: seeds are the same in all."""
    if (metric := side[0]["two_way"]) is None:
        return "draws nothing"
    return (
        f"two-way {metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f}), n "
        f"{metric['n']}"
    )


CASES = (steps,)

if __name__ == "__main__":
    main(__doc__, CASES, OPTIONS)
