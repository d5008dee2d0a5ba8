"""Trainings of the recipes of methods on planted data."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import torch
import yaml

from brainhive_cli.commands import eval_retrieval, train_align
from brainhive_cli.core.files import documents
from brainhive_cli.core.results.measurements import Measurements
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.result import Result
from tools.parity import planted
from tools.parity.planted import Figures


@dataclass(frozen=True)
class Method:
    """Method with a recipe. The file methods.yaml explains the keys."""

    recipe: str
    data: str
    stores: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    loss: str | None = None
    seeds: int | None = None
    golden: str | None = None
    part: str | None = None
    after: str | None = None


METHODS = documents.read(
    Path(__file__).with_name("methods.yaml"), dict[str, Method], is_yaml=True
)


QUICK = ["baseline=none", "sheet_rows=0", "ceiling_splits=0"]
"""Overrides that skip measures of an evaluation that the table does not show."""


@dataclass(frozen=True)
class Training:
    """Figures of our trainings of a method.

    Attributes:
        figures: Top-1, top-5 and the loss by epoch, for each seed.
        seconds: Processor seconds of train-align and eval-retrieval.
        precision: Precision of the trainings.
        folder: The align run.
    """

    figures: list[dict[str, Any]]
    seconds: float
    precision: str
    folder: Path


def golden_path(name: str) -> Path:
    """Return the path of the golden figures of a method by its name."""
    return planted.folder() / f"{METHODS[name].golden or name}.json"


def read_method_figures(name: str) -> Figures:
    """Read the golden figures of a method by its name."""
    return planted.read_figures(golden_path(name), METHODS[name].part)


def train(name: str, figures: Figures, home: Path, seeds: list[int]) -> Training:
    """Write the planted data of a method into a home, train on them and evaluate.

    Call it in a separate process, as it changes the working directory and variables.
    """
    os.environ["BRAINHIVE_HOME"] = str(home)
    home.mkdir(parents=True)
    os.chdir(home)
    torch.set_num_threads(1)
    method, settings = METHODS[name], dict(figures.settings)
    write_data(home, method, settings)

    # a second stage starts from the first seed of the first stage
    started = time.process_time()
    if method.after is not None:
        first_stage = read_method_figures(method.after)
        seed = first_stage.reference[0]["seed"]
        run_folder, _ = train_recipe(home, method.after, first_stage.settings, [seed])
        settings["run"] = str(run_folder)
    folder, precision = train_recipe(home, name, settings, seeds)

    # evaluate with the package's own command
    overrides = [f"align_run={folder}"] + QUICK
    evaluation = run(eval_retrieval, "eval-retrieval", None, overrides)
    seconds = time.process_time() - started
    entries = collect_figures(evaluation.metrics, folder)
    return Training(entries, seconds, precision, folder)


def train_recipe(
    home: Path, name: str, settings: Mapping[str, Any], seeds: list[int]
) -> tuple[Path, str]:
    """Train the recipe of a method, by its name, with the keys of the small training.

    Returns:
        The align run, and the precision in which it was trained.
    """
    method = METHODS[name]
    recipe = home / f"{name}.yaml"
    changes = fill_in(method.changes, settings)
    recipe.write_text(yaml.safe_dump({"extends": method.recipe, **changes}))
    overrides = [str(fill_in(text, settings)) for text in method.overrides]
    overrides.append(f"seeds=[{', '.join(map(str, seeds))}]")
    if method.data == "eeg":
        overrides.append(f"subjects=[{planted.SUBJECT}]")
    if settings.get("channels") == "all 63":
        regions = "frontal, central, temporal, parietal, occipital"
        overrides.append(f"signal.channels=[{regions}]")

    # emulated bf16 is a hundred times slower than float32
    resolved = train_align.Recipe.resolve("train-align", str(recipe), {}, overrides)
    precision = resolved.train.precision
    if resolved.backbone.is_closed_form:
        precision = "closed form"
    elif precision == "bf16" and is_slow_in_bf16():
        precision = "fp32"
        overrides.append("run.mixed_precision=no")
    training = run(train_align, "train-align", str(recipe), overrides)
    return training.folder, precision


def run(module: Any, command: str, recipe: str | None, overrides: list[str]) -> Result:
    """Run a command of the package in this process."""
    resolved = module.Recipe.resolve(command, recipe, {}, overrides)
    result: Result = module.run(resolved, Launch(0, 1, torch.device("cpu")), False)
    return result


def write_data(home: Path, method: Method, settings: Mapping[str, Any]) -> None:
    """Write the planted data of a method into a home."""
    write = {
        "eeg": planted.write_eeg,
        "voxels": planted.write_voxels,
        "clips": planted.write_clips,
    }
    write[method.data](home, settings, method.stores)


def fill_in(value: Any, settings: Mapping[str, Any]) -> Any:
    """Replace every `$NAME` in the keys of a method by that setting."""
    if isinstance(value, dict):
        return {key: fill_in(item, settings) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item, settings) for item in value]
    if not isinstance(value, str):
        return value
    # a setting alone keeps its type
    if value.removeprefix("$") in settings and value.startswith("$"):
        return settings[value.removeprefix("$")]
    return Template(value).substitute(settings)


def collect_figures(metrics: Measurements, folder: Path) -> list[dict[str, Any]]:
    """Collect top-1, top-5 and the loss by epoch of each seed's cell."""
    losses: dict[str, list[float]] = {}
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    for line in lines:
        event = json.loads(line)
        if "loss" in event:
            losses.setdefault(event["cell"], []).append(event["loss"])

    figures = []
    for scope, by_name in metrics.scopes.items():
        cell = scope.partition(" · ")[0]
        if scope.count(" · ") != 1 or "_seed-" not in cell:
            continue
        seed = int(cell.rpartition("_seed-")[2])
        figures.append(
            {
                "seed": seed,
                "top1": by_name["top1"].value,
                "top5": by_name["top5"].value,
                "loss": losses.get(cell, []),
            }
        )
    return figures


@cache
def is_slow_in_bf16() -> bool:
    """Return True if this processor multiplies bf16 slower than float32 matrices."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        started = time.perf_counter()
        for _ in range(3):
            matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return seconds[1] > 2 * seconds[0]
