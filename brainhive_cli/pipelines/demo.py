"""demo: the five steps end to end on the embedded world, and one page that shows what came out."""

import importlib
import shlex
import time
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from brainhive_cli.core import console, recipe
from brainhive_cli.core.caveats import SIMULATED, in_title
from brainhive_cli.core.console import Table
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo.simulation import PROVENANCE
from brainhive_cli.metrics.statistics import interval_text, these_subjects_text
from brainhive_cli.reports.page import Section, write_page

Step = Literal["embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"]
STEPS: tuple[Step, ...] = get_args(Step)
NOTE = f"All signals on this page are simulated, all pictures drawn by a program ({PROVENANCE})."


class Recipe(recipe.Recipe):
    """The demo runs the recipe called `demo` of each step."""

    is_tracked: ClassVar[bool] = True

    overrides: dict[Step, recipe.Names] = Field({}, description="extra key.path=value of a step, by its name")


def plan(what: Recipe) -> Plan:
    """Say which commands the demo runs."""
    return Plan({step: _command(step, []) for step in STEPS})


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the five steps through their own pipelines, then write the page."""
    folder = RunFolder.open("demo", "demo", what, launch, again)
    results: dict[str, Result] = {}
    commands, summary = [], []
    precision = [f"run.mixed_precision={what.run.mixed_precision}"] if what.run.mixed_precision else []
    for number, step in enumerate(STEPS, 1):
        given = [*_from_before(results, step), *what.overrides.get(step, []), *precision]
        commands.append(_command(step, given))
        console.say(f"{number}/{len(STEPS)} {commands[-1]}")
        start = time.monotonic()
        pipeline = importlib.import_module(f"brainhive_cli.pipelines.{step.replace('-', '_')}")
        made = pipeline.Recipe.resolve(step, "demo", {}, given)
        made = made.model_copy(update={"run": what.run, "paths": what.paths})
        results[step] = pipeline.run(made, launch, again)
        summary.append((step, f"{time.monotonic() - start:.0f} s", _headline(step, results[step])))
    table = Table("Demo, on simulated EEG", ("step", "time", "result"), tuple(summary))
    if launch.is_main:
        sections, title = _sections(table, commands, results), in_title("Brainhive demo", [SIMULATED])
        folder.replace("index.html", lambda part: write_page(part, title, NOTE, sections))
        folder.finish(
            {"caveats": [SIMULATED]} | {step: made.as_dict()["metrics"] for step, made in results.items()}
        )
    launch.barrier()
    console.say("\nEach step by hand:\n" + "\n".join(f"  {command}" for command in commands) + "\n")
    files = {name: path for result in results.values() for name, path in result.files.items()}
    files["page"] = folder.path / "index.html"
    return Result(folder.path, (table,), {"caveats": [SIMULATED], "commands": commands}, files)


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


def _headline(step: str, made: Result) -> str:
    """Say in one line what a step achieved."""
    metrics = made.metrics
    if step == "eval-retrieval":
        return _described("top-1", metrics.overall["top1"].as_dict())
    if step == "train-prior":
        return _described("validation loss", metrics.overall["validation_loss"].as_dict())
    if step == "reconstruct":
        name = next(name for name in metrics.overall if name.startswith("two_way"))
        return _described("two-way", metrics.overall[name].as_dict())
    if step == "train-align":
        return f"{len(list(made.folder.glob('cells/**/model')))} brain encoders"
    return "two stores a split"


def _described(name: str, m: dict[str, Any]) -> str:
    chance = "" if m["chance"] is None else f", chance {m['chance']:.3g}"
    these = f"; these subjects {these_subjects_text(m)}" if m.get("these_subjects") else ""
    return f"{name} {m['value']:.3f} ({interval_text(m)}{these}), n {m['n']}{chance}"


def _sections(table: Table, commands: list[str], results: dict[str, Result]) -> list[Section]:
    titles = {
        "reconstruct": "Stimuli and what was drawn from the signals",
        "eval-retrieval": "Which picture was seen?",
        "train-prior": "Fusion Prior: drawn from image tokens",
        "train-align": "Brain encoders",
        "embed": "Embeddings",
    }
    pages = [Section(title, "", results[step].tables, results[step].files) for step, title in titles.items()]
    return [Section("Summary", "", [table], {}, commands), *pages]
