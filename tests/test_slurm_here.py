"""tools/slurm_here.py: a SLURM of one node starts, runs an array and stops."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tools import slurm_here

needs_slurm = pytest.mark.skipif(bool(slurm_here.explain_absence()), reason=slurm_here.explain_absence())


def ask(variables: dict[str, str], *words: str) -> str:
    environment = {**os.environ, **variables}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout


def processes_of(folder: Path) -> list[str]:
    """List the command lines of this machine that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return [line for line in lines if f"{folder}/" in line]


@needs_slurm
def test_four_tasks_of_an_array_run_at_once_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder, logs = tmp_path / "slurm", tmp_path / "logs"
    logs.mkdir()
    with slurm_here.running(folder, cpus=4) as variables:
        # each task waits for the other three: on fewer CPUs this array would not end
        script = tmp_path / "task.sh"
        wait = f"while [ $(ls {logs}/up-* | wc -l) -lt 4 ]; do sleep 0.1; done"
        task = f"touch {logs}/up-$SLURM_ARRAY_TASK_ID\n{wait}"
        script.write_text(f"#!/bin/bash\n{task}\necho done $SLURM_ARRAY_TASK_ID\n")
        output = f"--output={logs}/%A_%a.txt"
        job = ask(variables, "sbatch", "--wait", "--parsable", "--array=0-3", output, str(script)).strip()
        assert [(logs / f"{job}_{task}.txt").read_text() for task in range(4)] == [
            f"done {task}\n" for task in range(4)
        ]

        # a job that ignores SIGTERM, and one that waits for it, do not outlive the block
        script.write_text(f"#!/bin/bash\ntrap '' TERM\ntouch {logs}/runs\nwhile true; do sleep 0.2; done\n")
        for _ in range(2):
            ask(variables, "sbatch", "--cpus-per-task=4", "--output=/dev/null", str(script))
        deadline_s = time.monotonic() + 20
        while not (logs / "runs").exists() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert len(ask(variables, "squeue", "--noheader").splitlines()) == 2
    assert processes_of(folder) == []
