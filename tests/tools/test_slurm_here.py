"""The SLURM of a single node of tools/slurm_here.py."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tools import slurm_here

needs_slurm = pytest.mark.skipif(
    bool(slurm_here.explain_absence()), reason=slurm_here.explain_absence()
)


def run_command(variables: dict[str, str], *arguments: str) -> str:
    process = subprocess.run(
        arguments,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return process.stdout


def list_processes(folder: Path) -> list[str]:
    """List the command lines of this machine that name a folder."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if f"{folder}/" in line:
            lines.append(line)
    return lines


@needs_slurm
def test_two_tasks_of_an_array_run_at_once_and_both_end(
    tmp_path,
):
    folder, logs = tmp_path / "slurm", tmp_path / "logs"
    logs.mkdir()
    with slurm_here.running(folder, cpus=2) as variables:
        # each task waits for the other task, then runs without end
        script = tmp_path / "task.sh"
        wait = f"while [ $(ls {logs}/up-* | wc -l) -lt 2 ]; do sleep 0.1; done"
        task = (
            f"touch {logs}/up-$SLURM_ARRAY_TASK_ID\n"
            f"{wait}\n"
            f"touch {logs}/met-$SLURM_ARRAY_TASK_ID"
        )
        script.write_text(
            f"#!/bin/bash\ntrap '' TERM\n{task}\nwhile true; do sleep 0.2; done\n"
        )
        job = run_command(
            variables,
            "sbatch",
            "--parsable",
            "--array=0-1",
            "--output=/dev/null",
            str(script),
        )
        deadline_s = time.monotonic() + 30
        while len(list(logs.glob("met-*"))) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert len(list(logs.glob("met-*"))) == 2
        assert job.strip() in run_command(variables, "squeue", "--noheader")

    # tasks that ignore SIGTERM do not outlive the block
    assert list_processes(folder) == []
