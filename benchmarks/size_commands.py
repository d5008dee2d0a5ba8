"""Whole commands at published sizes: trainings, evaluations, lists of runs, starts."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import harness
import numpy as np
import synthetic
from growth import GB, Case, Measured, Task

from brainhive_cli.core.files.documents import digest_text
from brainhive_cli.core.results.measurements import Measurements, Metric
from brainhive_cli.core.runs.run_folder import RunFolder

TRAINING = (
    "train-align encoders=vae subjects=1 seeds=1 train.warmup_steps=0 "
    "backbone=brain-projection dim=256 fuser.intermediate_size=256"
)
"""A small model of THINGS-EEG2. The default model takes fifteen times as long."""
DEMO_TRAINING = "train-align --recipe demo"


def run_brainhive(command: str, home: Path) -> float:
    """Run a command in a new process, and return its processor seconds."""
    return measure_brainhive(command.split(), home).cpu_s


def measure_brainhive(arguments: Sequence[str], home: Path) -> harness.Usage:
    """Run a command in a new process, and return its usage."""
    return harness.run_command(**harness.prepare_command(arguments, home))


def write_things(count: int, home: Path) -> int:
    """Write a subject of THINGS-EEG2, with embeddings of 64 numbers.

    Returns:
        Bytes of the averages of 17 channels and 250 samples in float32.
    """
    ids = {
        "train": synthetic.make_things_ids("train", max(2, count // 10)),
        "test": synthetic.make_things_ids("test"),
    }
    synthetic.write_published(home, 1, ids)
    for split, names in ids.items():
        synthetic.write_targets(home, "things-eeg", split, names, {"vae": 64})
    return count * 17 * 250 * 4


def train_published(count: int, home: Path) -> Task:
    """Train on THINGS-EEG2 for an epoch, next to the loop of that epoch."""
    data_bytes = write_things(count, home)
    run_brainhive(f"{TRAINING} train.epochs=2", home)

    def measure() -> Measured:
        usage = measure_brainhive(f"{TRAINING} train.epochs=1".split(), home)
        loops_s = run_brainhive(f"{TRAINING} train.epochs=4", home) - usage.cpu_s
        peak_gb = usage.own_gib * 2**30 / GB
        return Measured(count, usage.cpu_s, loops_s / 3, peak_gb, data_bytes / GB)

    return Task(measure)


def evaluate_published(count: int, home: Path) -> Task:
    """Prepare the evaluation of a model of THINGS-EEG2 with its ridge."""
    data_bytes = write_things(count, home)
    run_brainhive(f"{TRAINING} train.epochs=1", home)
    # without picture files there is no sheet
    arguments = ["eval-retrieval", "sheet_rows=0"]
    return Task(partial(evaluate, count, home, arguments, data_bytes))


def train_demo(count: int, folder: Path) -> Task:
    """Prepare the evaluation of models of the demo's simulated subjects."""
    dataset = f"dataset={{kind: demo, subjects: {count}}}"
    for command in ("embed", "train-align"):
        measure_brainhive([command, "--recipe", "demo", dataset], folder)
    # averages of 864 pictures, 17 channels and 75 samples, in float32
    data_bytes = count * 864 * 17 * 75 * 4
    arguments = ["eval-retrieval", "--recipe", "demo", "align_run=null", dataset]
    return Task(partial(evaluate, count, folder, arguments, data_bytes))


def evaluate(
    count: int, folder: Path, arguments: list[str], data_bytes: int
) -> Measured:
    """Evaluate the newest run with its ridge. Without it is the computation alone."""
    usages = {}
    for baseline in ("ridge", "none"):
        command = arguments + [f"baseline={baseline}"]
        usages[baseline] = measure_brainhive(command, folder)
    usage = usages["ridge"]
    peak_gb = usage.own_gib * 2**30 / GB
    compute_s = usages["none"].cpu_s
    return Measured(count, usage.cpu_s, compute_s, peak_gb, data_bytes / GB)


def prepare_runs(count: int, folder: Path) -> Task:
    """Make a home of finished evaluations, and list them with a command."""
    run = make_run(folder / "runs")
    digests = (run / "SHA256SUMS").read_text()
    environment = (run / "environment.json").read_text()
    finished = json.loads(environment)["finished"]

    # copy the run. Each copy ends a second before the previous copy
    for number in range(1, count):
        copy = run.with_name(f"{run.name}-{number:04d}")
        shutil.copytree(run, copy)
        time = datetime.fromisoformat(finished) - timedelta(seconds=number)
        text = environment.replace(finished, time.isoformat())
        (copy / "environment.json").write_text(text)
        new_digests = digests.replace(digest_text(environment), digest_text(text))
        (copy / "SHA256SUMS").write_text(new_digests)

    def list_runs() -> Measured:
        usage = measure_brainhive(["runs"], folder)
        return Measured(count, usage.cpu_s, np.nan, usage.own_gib * 2**30 / GB, 0.0)

    return Task(list_runs)


def make_run(runs: Path) -> Path:
    """Make an evaluation of four subjects with the pictures of its sheet.

    Returns:
        The folder of the run.
    """
    run = RunFolder(runs / "eval-retrieval" / "evaluation")
    (run.path / "artifacts" / "gallery").mkdir(parents=True)
    for number in range(40):
        picture = run.path / f"artifacts/gallery/{number}.webp"
        picture.write_bytes(bytes(4000))
    run.write_text("recipe.yaml", "align_run: [training]\n")
    run.write_json("environment.json", {"versions": {}, "device": "cpu"})

    # metrics of 200 pictures, by subject
    metric = Metric("top1", 0.25, 200, 200, 0.005, 0.2, 0.3, (1,), "cosine", "test", "")
    subjects = [f"sub-{subject:02d}" for subject in range(1, 5)]
    image_ids = [str(row) for row in range(200)]
    ranks = list(range(1, 201))
    items = {name: {"image_ids": image_ids, "ranks": ranks} for name in subjects}
    scopes = {name: {"top1": metric} for name in ["all"] + subjects}
    run.finish(Measurements(scopes, items=items))
    return run.path


def prepare_start_up(
    words: str, preparation: Sequence[str], _: int, home: Path
) -> Task:
    """Measure a command in a home that other commands have prepared."""
    for command in preparation:
        run_brainhive(command, home)

    def measure() -> Measured:
        return Measured(1, run_brainhive(words, home), np.nan, 0.0, 0.0)

    return Task(measure)


def prepare_epoch(_: int, home: Path) -> Task:
    """Measure a training of an epoch of the demo, next to the loop of that epoch."""
    run_brainhive("embed --recipe demo", home)
    # prepare the signals, too
    run_brainhive(f"{DEMO_TRAINING} train.epochs=2", home)

    def measure() -> Measured:
        cpu_s = run_brainhive(f"{DEMO_TRAINING} train.epochs=1", home)
        loops_s = run_brainhive(f"{DEMO_TRAINING} train.epochs=11", home) - cpu_s
        return Measured(1, cpu_s, loops_s / 10, 0.0, 0.0)

    return Task(measure)


FIRST_EPOCH = f"{DEMO_TRAINING} train.epochs=1"
PREPARATION = ("embed --recipe demo", FIRST_EPOCH, "eval-retrieval --recipe demo")
START_UP = {
    "start_up_help": ("--help", ()),
    "start_up_check": ("eval-retrieval --recipe demo --check", PREPARATION),
    "start_up_check_with_prior": (f"{FIRST_EPOCH} --check", PREPARATION[:1]),
    "start_up_finished_training": (FIRST_EPOCH, PREPARATION[:2]),
    "start_up_finished_evaluation": ("eval-retrieval --recipe demo", PREPARATION),
}
"""Commands whose start is measured, with the commands that prepare their home."""
CASES: Mapping[str, Case] = {
    "training": Case("train THINGS-EEG2 for an epoch", 16_540, train_published),
    "evaluation": Case(
        "evaluate THINGS-EEG2 with its ridge", 16_540, evaluate_published
    ),
    "demo_evaluation": Case("evaluate the demo's subjects", 4, train_demo),
    "list_runs": Case("runs: list the runs of a home", 3000, prepare_runs),
    **{
        name: Case(words, 1, partial(prepare_start_up, words, preparation))
        for name, (words, preparation) in START_UP.items()
    },
    "start_up_epoch": Case("train-align of one epoch, the demo's", 1, prepare_epoch),
}
