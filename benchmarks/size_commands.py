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

from brainhive_cli.core.documents import digest_text
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.runs import RunFolder

TRAINING = (
    "train-align encoders=vae subjects=1 seeds=1 train.warmup_steps=0 "
    "backbone=brain-projection dim=256 fuser.intermediate_size=256"
)
"""A small model of THINGS-EEG2: the default one takes fifteen times as long."""
DEMO_TRAINING = "train-align --recipe demo"


def run_brainhive(words: str, home: Path) -> float:
    """Run a command in a process of its own; return its processor seconds."""
    return harness.run_command(**harness.prepare_command(words.split(), home)).cpu_s


def write_things(count: int, home: Path) -> int:
    """Write the files of a subject of THINGS-EEG2, with embeddings of 64 numbers.

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
    """Train a model on THINGS-EEG2 for one epoch, next to the loop of that epoch."""
    data_bytes = write_things(count, home)
    run_brainhive(f"{TRAINING} train.epochs=2", home)

    def measure() -> Measured:
        command = harness.prepare_command(f"{TRAINING} train.epochs=1".split(), home)
        used = harness.run_command(**command)
        loops_s = run_brainhive(f"{TRAINING} train.epochs=4", home) - used.cpu_s
        peak_gb = used.own_gib * 2**30 / GB
        return Measured(count, used.cpu_s, loops_s / 3, peak_gb, data_bytes / GB)

    return Task(measure)


def evaluate_published(count: int, home: Path) -> Task:
    """Train a model on THINGS-EEG2 for one epoch, to be evaluated with its ridge."""
    data_bytes = write_things(count, home)
    run_brainhive(f"{TRAINING} train.epochs=1", home)
    # no pictures are here to be drawn on a sheet
    return Task(
        partial(evaluate, count, home, ["eval-retrieval", "sheet_rows=0"], data_bytes)
    )


def train_demo(count: int, folder: Path) -> Task:
    """Train models on the demo's simulated subjects, to be evaluated."""
    words = ["--recipe", "demo", f"dataset={{kind: demo, subjects: {count}}}"]
    for command in ("embed", "train-align"):
        harness.run_command(**harness.prepare_command([command, *words], folder))
    # averages of 864 pictures, 17 channels and 75 samples, in float32
    data_bytes = count * 864 * 17 * 75 * 4
    words = ["eval-retrieval", "--recipe", "demo", "align_run=null"]
    return Task(partial(evaluate, count, folder, [*words, words[-1]], data_bytes))


def evaluate(
    count: int, folder: Path, words: Sequence[str], data_bytes: int
) -> Measured:
    """Evaluate the newest run with its ridge, and without it as the computation."""
    # as in a new home
    used = {}
    for name in ("ridge", "none"):
        (folder / ".likenesses").unlink(missing_ok=True)
        command = harness.prepare_command([*words, f"baseline={name}"], folder)
        used[name] = harness.run_command(**command)
    cpu_s = used["ridge"].cpu_s
    peak_gb = used["ridge"].own_gib * 2**30 / GB
    return Measured(count, cpu_s, used["none"].cpu_s, peak_gb, data_bytes / GB)


def prepare_runs(count: int, folder: Path) -> Task:
    """Make a home of finished evaluations, which are listed by a command."""
    run = make_run(folder / "runs")
    digests = (run / "SHA256SUMS").read_text()
    environment = (run / "environment.json").read_text()
    finished = json.loads(environment)["finished"]

    # copies, each finished a second before the last one
    for number in range(1, count):
        copied = run.with_name(f"{run.name}-{number:04d}")
        shutil.copytree(run, copied)
        time = datetime.fromisoformat(finished) - timedelta(seconds=number)
        text = environment.replace(finished, time.isoformat())
        (copied / "environment.json").write_text(text)
        listed = digests.replace(digest_text(environment), digest_text(text))
        (copied / "SHA256SUMS").write_text(listed)

    def list_runs() -> Measured:
        used = harness.run_command(**harness.prepare_command(["runs"], folder))
        return Measured(count, used.cpu_s, np.nan, used.own_gib * 2**30 / GB, 0.0)

    return Task(list_runs)


def make_run(runs: Path) -> Path:
    """Make an evaluation of four subjects, with pictures of its sheet.

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
    names = ["all", *(f"sub-{subject:02d}" for subject in range(1, 5))]
    items = {
        name: {"image_ids": [*map(str, range(200))], "ranks": [*range(1, 201)]}
        for name in names[1:]
    }
    scopes = {name: {"top1": metric} for name in names}
    run.finish(Measurements(scopes, items=items))
    return run.path


def prepare_start_up(words: str, made_by: Sequence[str], _: int, home: Path) -> Task:
    """Make a home by some commands, in which a command is then measured."""
    for command in made_by:
        run_brainhive(command, home)

    def measure() -> Measured:
        return Measured(1, run_brainhive(words, home), np.nan, 0.0, 0.0)

    return Task(measure)


def prepare_epoch(_: int, home: Path) -> Task:
    """Embed the demo, for a training of one epoch next to the loop of that epoch."""
    run_brainhive("embed --recipe demo", home)
    # this also makes the signals
    run_brainhive(f"{DEMO_TRAINING} train.epochs=2", home)

    def measure() -> Measured:
        one_s = run_brainhive(f"{DEMO_TRAINING} train.epochs=1", home)
        loops_s = run_brainhive(f"{DEMO_TRAINING} train.epochs=11", home) - one_s
        return Measured(1, one_s, loops_s / 10, 0.0, 0.0)

    return Task(measure)


FIRST_EPOCH = f"{DEMO_TRAINING} train.epochs=1"
MADE = ("embed --recipe demo", FIRST_EPOCH, "eval-retrieval --recipe demo")
START_UP = {
    "start_up_help": ("--help", ()),
    "start_up_check": ("eval-retrieval --recipe demo --check", MADE),
    "start_up_check_with_prior": (f"{FIRST_EPOCH} --check", MADE[:1]),
    "start_up_finished_training": (FIRST_EPOCH, MADE[:2]),
    "start_up_finished_evaluation": ("eval-retrieval --recipe demo", MADE),
}
"""Commands whose start is measured, and those that make what they find."""
CASES: Mapping[str, Case] = {
    "training": Case("train THINGS-EEG2 for an epoch", 16_540, train_published),
    "evaluation": Case(
        "evaluate THINGS-EEG2 with its ridge", 16_540, evaluate_published
    ),
    "demo_evaluation": Case("evaluate the demo's subjects", 4, train_demo),
    "list_runs": Case("runs: list the runs of a home", 3000, prepare_runs),
    **{
        name: Case(words, 1, partial(prepare_start_up, words, made_by))
        for name, (words, made_by) in START_UP.items()
    },
    "start_up_epoch": Case("train-align of one epoch, the demo's", 1, prepare_epoch),
}
