"""Proof on a SLURM of one node that a submitted line ends as in one process, whatever
is killed.

    python tools/prove_cluster.py FOLDER [--only kills limits] [--cells 20]

Twenty cells are trained and tested in one process; then by two arrays of four tasks of
one line, of which half are killed at random moments; then with time limits that are too
short. Weights, ranks and scores must be equal bit by bit, and an epoch may be computed
twice only where a worker has died. Takes some 20 minutes.
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

from brainhive_cli.core.runs import RunFolder
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
"""Keys of documents that say where a run lies and how long it took."""
POLL_S = 0.5


def call(home: Path, *words: str) -> str:
    """Run a line of brainhive in a home, show it, and return what it says."""
    line = [sys.executable, "-m", "brainhive_cli", *words]
    is_known = words[-1] == "--submit"  # its settings were shown before
    shown = (
        f"brainhive {words[0]} … {words[-1]}"
        if is_known
        else shlex.join(["brainhive", *words])
    )
    print(f"$ {shown}", flush=True)
    environment = {
        **os.environ,
        "BRAINHIVE_HOME": str(home),
        "BRAINHIVE_ALLOW_CODE": "1",
    }
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    # as the tasks have: sums are then in the same order
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line, env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"exit code {done.returncode}\n{done.stderr}")
    return done.stdout + done.stderr


def results_of(home: Path) -> dict[str, Any]:
    """Read all weights, ranks and scores below a home's runs, without paths and
    times.
    """

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in PATHS}
        return [strip(item) for item in value] if isinstance(value, list) else value

    results: dict[str, Any] = {}
    for path in sorted((home / "runs").glob("*-*/*/**/*.*")):
        name = path.relative_to(home).as_posix()
        if path.suffix == ".safetensors":
            results[name] = {
                key: array.tobytes() for key, array in load_file(path).items()
            }
        elif path.name == "metrics.json":
            results[name] = strip(json.loads(path.read_text()))
    return results


def queued() -> list[str]:
    """List the tasks that are queued or run."""
    line = ["squeue", "--noheader", "--array", "--format=%i %T"]
    return subprocess.run(
        line, capture_output=True, text=True, check=True
    ).stdout.split("\n")[:-1]


def kill_one(chance: random.Random) -> str:
    """Kill a random task that computes, its command or its script too; return its
    name.
    """
    found: dict[str, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if b"brainhive_cli" in words and b"line.yaml" in words:
                variables = dict(
                    part.split(b"=", 1)
                    for part in (folder / "environ").read_bytes().split(b"\0")
                    if b"=" in part
                )
                found.setdefault(variables[b"BRAINHIVE_JOB"].decode(), []).append(
                    int(folder.name)
                )
    if not found:
        return ""
    task = chance.choice(sorted(found))
    processes = found[task]
    if chance.random() < 0.5:  # the script, too, which then writes down nothing
        processes.append(
            int(
                Path(f"/proc/{processes[0]}/stat")
                .read_text()
                .rpartition(")")[2]
                .split()[1]
            )
        )
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return task


def finish(
    home: Path, line: tuple[str, ...], kills: int = 0, arrays: int = 1, seed: int = 0
) -> None:
    """Submit a line until it is finished, and kill tasks meanwhile."""
    chance = random.Random(seed)
    for attempt in range(20):
        told = call(home, *line, "--submit")
        print(told.strip(), flush=True)
        if "nothing is submitted" in told:
            return
        if attempt == 0 and arrays > 1:
            script = next((home / "runs/.submitted").glob(f"{line[0]}-*/{line[0]}.sh"))
            for _ in range(arrays - 1):
                print(
                    subprocess.run(
                        ["sbatch", str(script)],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
        next_s = time.monotonic() + 5 + 10 * chance.random()
        while queued():
            if kills and time.monotonic() > next_s and (task := kill_one(chance)):
                print(f"  killed task {task}", flush=True)
                kills -= 1
                next_s = time.monotonic() + 10 * chance.random()
            time.sleep(POLL_S)
    sys.exit("not finished after 20 submissions")


def report(home: Path, alone: dict[str, Any], epochs: int) -> bool:
    """Compare a home with the one process, and count how often cells were trained."""
    shared = results_of(home)
    differing = [name for name in alone if shared.get(name) != alone[name]]
    run = RunFolder(next((home / "runs/train-align").iterdir()))
    events = [*run.events()]
    counts = Counter(
        (event["cell"], event["epoch"]) for event in events if "epoch" in event
    )
    twice = {cell for (cell, _), count in counts.items() if count > 1}
    taken = {event["cell"] for event in events if "taken_from" in event}
    complete = {
        cell
        for cell, _ in counts
        if all(counts[cell, epoch] for epoch in range(epochs))
    }
    print(
        f"  {len(alone)} files of weights, ranks and scores, {len(differing)} differ: "
        f"{differing[:3]}"
    )
    print(
        f"  {len(complete)} cells trained; {len(taken)} taken over from a dead worker; "
        "epochs computed twice"
    )
    print(
        f"  in {len(twice)} cells, of which {len(twice - taken)} had no dead worker",
        flush=True,
    )
    return not differing and shared.keys() == alone.keys() and twice <= taken


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
    if reason := slurm_here.explain_absence():
        sys.exit(f"error: {reason}")
    folder, epochs = arguments.folder.resolve(), arguments.epochs
    train = (
        *TRAIN,
        f"train.epochs={epochs}",
        f"seeds=1-{arguments.cells // 2}",
        *CLUSTER,
    )
    test = ("eval-retrieval", "sheet_rows=0", *CLUSTER)

    # one process, without interruption
    homes = {name: folder / name for name in ("alone", *arguments.only)}
    for home in homes.values():
        home.mkdir(parents=True, exist_ok=True)
        call(home, *EMBED)
    started_s = time.monotonic()
    call(homes["alone"], *train)
    call(homes["alone"], *test)
    print(f"one process: {time.monotonic() - started_s:.0f} s", flush=True)
    alone, is_proven = results_of(homes["alone"]), True

    with slurm_here.running(folder / "slurm", requeue_s=5) as variables:
        os.environ |= variables
        if "kills" in homes:
            print("\n# two arrays of four tasks with one line; four tasks are killed")
            finish(homes["kills"], train, kills=4, arrays=2)
            finish(homes["kills"], test, kills=2)
            is_proven &= report(homes["kills"], alone, epochs)
        if "limits" in homes:
            print(
                "\n"
                "# a limit of one minute, with a signal half a minute before it, or "
                "earlier"
            )
            template = (
                Path(__file__).parents[1] / "recipes/cluster/slurm.sh.j2"
            ).read_text()
            (homes["limits"] / "job.sh.j2").write_text(
                template.replace("B:USR1@120", "B:USR1@30")
            )
            short = ("run.cluster.template=job.sh.j2", "run.cluster.time=00:01:00")
            finish(homes["limits"], (*train, *short))
            finish(homes["limits"], (*test, *short))
            is_proven &= report(homes["limits"], alone, epochs)
    print("\nproven" if is_proven else "\nNOT proven")
    sys.exit(not is_proven)


if __name__ == "__main__":
    main()
