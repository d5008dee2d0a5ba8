"""tools/slurm_here.py: a SLURM of one node starts, runs an array and stops; several may run side by side."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import slurm_here

SCRIPT = Path(slurm_here.__file__)
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


@needs_slurm
def test_it_starts_over_what_a_killed_one_left_behind(tmp_path: Path) -> None:
    with slurm_here.running(tmp_path) as variables:
        munged = (tmp_path / "munged.pid").read_text()
        for name in slurm_here.DAEMONS:
            os.kill(int((tmp_path / f"{name}.pid").read_text()), 9)
        (tmp_path / "slurmd.pid").write_text(f"{os.getpid()}\n")  # a number that another process has by now

        assert slurm_here.start(tmp_path) == variables == slurm_here.start(tmp_path)

        assert ask(variables, "sinfo", "--noheader", "--format=%T %c") == "idle 4\n"
        assert (tmp_path / "munged.pid").read_text() != munged


@needs_slurm
def test_the_command_prints_what_a_shell_needs_and_two_run_side_by_side(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    line = f'eval "$({sys.executable} {SCRIPT} start "$1")" && sinfo --noheader --format=%T'
    try:
        with slurm_here.running(second):
            for folder in (first, second):
                assert ask({}, "bash", "-c", line, "-", str(folder)) == "idle\n"
    finally:
        ask({}, sys.executable, str(SCRIPT), "stop", str(first))
    assert processes_of(first) == []
    assert ask({}, sys.executable, str(SCRIPT), "stop", str(first)) == ""


def test_where_slurm_is_not_installed_two_lines_say_what_to_install(tmp_path: Path) -> None:
    program = f"""if True:
        import runpy, shutil, sys
        shutil.which = lambda *words, **options: None
        sys.argv = ["slurm_here.py", "start", {str(tmp_path)!r}]
        runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and not any(tmp_path.iterdir())
    problem, way = ended.stderr.splitlines()
    assert problem.startswith("error: SLURM is not installed: munged, ") and "slurmctld slurmd" in way


@needs_slurm
def test_a_folder_that_its_configuration_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(slurm_here.SlurmError, match="cannot name"):
        slurm_here.start(tmp_path / "first one")
