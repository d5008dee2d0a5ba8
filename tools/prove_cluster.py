"""Proof that a line submitted to SLURM gives the results of a single process.

    python tools/prove_cluster.py FOLDER [--only kills limits] [--cells 20]

Twenty cells are trained and tested in a single process, then by two arrays of four
tasks, half of which are killed at random moments, then with too short time limits.
Weights, ranks and scores must be equal bit by bit. An epoch may be computed twice only
if a worker has died. It takes about 20 minutes.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from safetensors.numpy import load_file

from brainhive_cli.core.runs.run_folder import RunFolder
from tools import slurm_here

COLOURS = "python:brainhive_cli.models.encoders.python:example"
DATASET = "dataset={kind: demo, noise: 0.3, subjects: 2}"
EMBED = ("embed", DATASET, f"encoders=['{COLOURS}']")
SMALL = (
    "dim=64",
    "fuser.intermediate_size=64",
    "signal.scale=0.2",
    "train.precision=fp32",
)
TRAIN = (
    "train-align",
    DATASET,
    f"encoders=['{COLOURS}']",
    *SMALL,
    "train.batch_size=128",
    "train.lr=2e-3",
)
CLUSTER = ("run.device=cpu", "run.cluster.cpus=1", "run.cluster.time=01:00:00")
PATHS = {"run", "runs", "took", "commands", "seconds"}
"""Keys of documents with paths and durations."""
POLL_S = 0.5


def call(home: Path, *arguments: str) -> str:
    """Print and run a command of brainhive in a home, and return its output."""
    line = shlex.join(["brainhive", *arguments])
    if arguments[-1] == "--submit":  # its settings were printed before
        line = f"brainhive {arguments[0]} … {arguments[-1]}"
    print(f"$ {line}", flush=True)
    variables = {
        "BRAINHIVE_HOME": str(home),
        "BRAINHIVE_ALLOW_CODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",  # as in the tasks, for sums in the same order
    }
    process = subprocess.run(
        [sys.executable, "-m", "brainhive_cli", *arguments],
        env={**os.environ, **variables},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"exit code {process.returncode}\n{process.stderr}")
    return process.stdout + process.stderr


def strip_paths(value: Any) -> Any:
    """Drop paths and durations from a document."""
    if isinstance(value, dict):
        keys = [key for key in value if key not in PATHS]
        return {key: strip_paths(value[key]) for key in keys}
    if isinstance(value, list):
        return list(map(strip_paths, value))
    return value


def read_results(home: Path) -> dict[str, Any]:
    """Read weights, ranks and scores of a home's runs, without paths and durations."""
    results: dict[str, Any] = {}
    for path in sorted((home / "runs").glob("*-*/*/**/*.*")):
        name = path.relative_to(home).as_posix()
        if path.suffix == ".safetensors":
            arrays = load_file(path)
            results[name] = {key: array.tobytes() for key, array in arrays.items()}
        elif path.name == "metrics.json":
            results[name] = strip_paths(json.loads(path.read_text()))
    return results


def list_tasks() -> list[str]:
    """List the tasks that are queued or run."""
    line = ["squeue", "--noheader", "--array", "--format=%i %T"]
    process = subprocess.run(line, capture_output=True, text=True, check=True)
    return process.stdout.split("\n")[:-1]


def kill_task(generator: random.Random) -> str:
    """Kill the processes of a random running task, and sometimes its job script.

    Returns:
        Name of the task, or an empty text if no task runs.
    """
    tasks: dict[str, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command_line = (folder / "cmdline").read_bytes()
            if b"brainhive_cli" in command_line and b"line.yaml" in command_line:
                environment = (folder / "environ").read_bytes().split(b"\0")
                for variable in environment:
                    name, _, value = variable.partition(b"=")
                    if name == b"BRAINHIVE_JOB":
                        tasks.setdefault(value.decode(), []).append(int(folder.name))
    if not tasks:
        return ""
    task = generator.choice(sorted(tasks))
    processes = tasks[task]
    if generator.random() < 0.5:
        # the parent is the script, which then records no end
        status = Path(f"/proc/{processes[0]}/stat").read_text()
        processes.append(int(status.rpartition(")")[2].split()[1]))
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return task


def finish(
    home: Path, line: tuple[str, ...], kills: int = 0, arrays: int = 1, seed: int = 0
) -> None:
    """Submit a command line until all its cells are finished, and kill tasks.

    Args:
        home: Home of the runs.
        line: Arguments of brainhive.
        kills: Number of tasks to kill.
        arrays: Number of arrays that the first submission starts.
        seed: Seed of the moments and tasks.
    """
    generator = random.Random(seed)
    for attempt in range(20):
        output = call(home, *line, "--submit")
        print(output.strip(), flush=True)
        if "nothing is submitted" in output:
            return
        if attempt == 0 and arrays > 1:
            script = next((home / "runs/.submitted").glob(f"{line[0]}-*/{line[0]}.sh"))
            for _ in range(arrays - 1):
                process = subprocess.run(
                    ["sbatch", str(script)], capture_output=True, text=True, check=True
                )
                print(process.stdout)
        next_kill_s = time.monotonic() + 5 + 10 * generator.random()
        while list_tasks():
            task = ""
            if kills and time.monotonic() > next_kill_s:
                task = kill_task(generator)
            if task:
                print(f"  killed task {task}", flush=True)
                kills -= 1
                next_kill_s = time.monotonic() + 10 * generator.random()
            time.sleep(POLL_S)
    sys.exit("not finished after 20 submissions")


def report(home: Path, reference: dict[str, Any], epochs: int) -> bool:
    """Compare a home with the results of a single process.

    Returns:
        True if all results are equal, and only cells of dead workers repeat an epoch.
    """
    results = read_results(home)
    differences = [name for name in reference if results.get(name) != reference[name]]
    run = RunFolder(next((home / "runs/train-align").iterdir()))

    # trainings of each epoch of a cell
    epoch_counts: dict[str, Counter[int]] = {}
    inherited_cells = set()
    for event in run.events():
        if "epoch" in event:
            counter = epoch_counts.setdefault(event["cell"], Counter())
            counter[event["epoch"]] += 1
        if "taken_from" in event:
            inherited_cells.add(event["cell"])
    repeated_cells = set()
    n_complete = 0
    for cell, counts in epoch_counts.items():
        if max(counts.values()) > 1:
            repeated_cells.add(cell)
        n_complete += set(range(epochs)) <= counts.keys()
    print(
        f"  {len(reference)} files of weights, ranks and scores, {len(differences)} "
        f"differ: {differences[:3]}"
    )
    print(
        f"  {n_complete} cells trained; {len(inherited_cells)} taken over from a dead "
        "worker; epochs computed twice"
    )
    print(
        f"  in {len(repeated_cells)} cells, of which "
        f"{len(repeated_cells - inherited_cells)} had no dead worker",
        flush=True,
    )
    has_equal_results = not differences and results.keys() == reference.keys()
    return has_equal_results and repeated_cells <= inherited_cells


def main() -> None:
    """Run the proof."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=("kills", "limits"), default=("kills", "limits")
    )
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    arguments = parser.parse_args()
    absence = slurm_here.explain_absence()
    if absence:
        sys.exit(f"error: {absence}")
    folder, epochs = arguments.folder.resolve(), arguments.epochs
    sizes = (f"train.epochs={epochs}", f"seeds=1-{arguments.cells // 2}")
    train = TRAIN + sizes + CLUSTER
    test = ("eval-retrieval", "sheet_rows=0") + CLUSTER

    # a single process without interruption
    homes = {name: folder / name for name in ["alone"] + list(arguments.only)}
    for home in homes.values():
        home.mkdir(parents=True, exist_ok=True)
        call(home, *EMBED)
    started_s = time.monotonic()
    call(homes["alone"], *train)
    call(homes["alone"], *test)
    print(f"one process: {time.monotonic() - started_s:.0f} s", flush=True)
    reference = read_results(homes["alone"])
    is_proven = True

    with slurm_here.running(folder / "slurm", requeue_s=5) as variables:
        os.environ |= variables
        if "kills" in homes:
            print("\n# two arrays of four tasks with one line; four tasks are killed")
            finish(homes["kills"], train, kills=4, arrays=2)
            finish(homes["kills"], test, kills=2)
            is_proven &= report(homes["kills"], reference, epochs)
        if "limits" in homes:
            print(
                "\n"
                "# a limit of one minute, with a signal half a minute before it, or "
                "earlier"
            )
            path = Path(__file__).parents[1] / "recipes/cluster/slurm.sh.j2"
            template = path.read_text().replace("B:USR1@120", "B:USR1@30")
            (homes["limits"] / "job.sh.j2").write_text(template)
            limits = ("run.cluster.template=job.sh.j2", "run.cluster.time=00:01:00")
            finish(homes["limits"], train + limits)
            finish(homes["limits"], test + limits)
            is_proven &= report(homes["limits"], reference, epochs)
    print("\nproven" if is_proven else "\nNOT proven")
    sys.exit(not is_proven)


if __name__ == "__main__":
    main()
