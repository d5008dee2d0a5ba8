"""demo: the five steps end to end on the embedded world, and one page that shows what came out."""

import importlib
import shlex
import time
from typing import ClassVar, Literal, get_args

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.caveats import SIMULATED, extend_title
from brainhive_cli.core.console import Table
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.recipe import Names
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo.simulation import PROVENANCE
from brainhive_cli.reports.page import Section, write_page

Step = Literal["embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"]
STEPS: tuple[Step, ...] = get_args(Step)
NOTE = f"All signals on this page are simulated, all stimuli drawn by a program ({PROVENANCE})."


class Recipe(BaseRecipe):
    """The demo runs the recipe called `demo` of each step."""

    is_tracked: ClassVar[bool] = True

    overrides: dict[Step, Names] = Field({}, description="extra key.path=value of a step, by its name")


def plan(recipe: Recipe) -> Plan:
    """Say which commands the demo runs."""
    return Plan({step: _command(step, []) for step in STEPS})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the five steps through their own pipelines, then write the page."""
    folder = RunFolder.open("demo", "demo", recipe, launch, again)
    results: dict[str, Result] = {}
    commands, summary = [], []
    precision = [f"run.mixed_precision={recipe.run.mixed_precision}"] if recipe.run.mixed_precision else []
    for number, step in enumerate(STEPS, 1):
        overrides = [*_from_before(results, step), *recipe.overrides.get(step, []), *precision]
        commands.append(_command(step, overrides))
        console.say(f"{number}/{len(STEPS)} {commands[-1]}")
        start = time.monotonic()
        pipeline = importlib.import_module(f"brainhive_cli.pipelines.{step.replace('-', '_')}")
        resolved = pipeline.Recipe.resolve(step, "demo", {}, overrides)
        resolved = resolved.model_copy(update={"run": recipe.run, "paths": recipe.paths})
        results[step] = pipeline.run(resolved, launch, again)
        summary.append((step, f"{time.monotonic() - start:.0f} s", _headline(step, results[step])))
    table = Table("Demo, on simulated EEG", ("step", "time", "result"), tuple(summary))
    scopes = {step: result.metrics.overall for step, result in results.items() if result.metrics.overall}
    found = Measurements(scopes, notes={"caveats": [SIMULATED], "commands": commands})
    if launch.is_main:
        sections, title = _sections(table, commands, results), extend_title("Brainhive demo", [SIMULATED])
        folder.replace("index.html", lambda path: write_page(path, title, NOTE, sections))
        folder.finish(found)
    launch.barrier()
    console.say("\nEach step by hand:\n" + "\n".join(f"  {command}" for command in commands) + "\n")
    files = {name: path for result in results.values() for name, path in result.files.items()}
    files["page"] = folder.path / "index.html"
    return Result(folder.path, (table,), found, files)


def _from_before(results: dict[str, Result], step: str) -> list[str]:
    """Name the runs of earlier steps that a step uses."""
    if step == "eval-retrieval":
        return [f"align_run={results['train-align'].folder.name}"]
    if step == "reconstruct":
        prior = results["train-prior"].folder / "model"
        return [f"align_run={results['train-align'].folder.name}", f"prior={prior}"]
    return []


def _command(step: str, overrides: list[str]) -> str:
    return shlex.join(["brainhive", step, "--recipe", "demo", *overrides])


def _headline(step: str, result: Result) -> str:
    """Describe in one line what a step achieved."""
    metrics = result.metrics.overall
    if step == "eval-retrieval":
        return _describe("top-1", metrics["top1"])
    if step == "train-prior":
        return _describe("validation loss", metrics["validation_loss"])
    if step == "reconstruct":
        return _describe("two-way", next(m for name, m in metrics.items() if name.startswith("two_way")))
    if step == "train-align":
        return f"{len(result.metrics.notes['cells'])} brain encoders"
    return "two stores a split"


def _describe(name: str, metric: Metric) -> str:
    chance = "" if metric.chance is None else f", chance {metric.chance:.3g}"
    these = f"; these subjects {metric.these_subjects_text()}" if metric.these_subjects else ""
    return f"{name} {metric.value:.3f} ({metric.interval_text()}{these}), n {metric.n}{chance}"


def _sections(table: Table, commands: list[str], results: dict[str, Result]) -> list[Section]:
    titles = {
        "reconstruct": "Stimuli and their reconstructions from the signals",
        "eval-retrieval": "Which picture was seen?",
        "train-prior": "Fusion Prior: pictures generated from image tokens",
        "train-align": "Brain encoders",
        "embed": "Embeddings",
    }
    pages = [Section(title, results[step].tables, results[step].files) for step, title in titles.items()]
    return [Section("Summary", [table], {}, commands), *pages]
