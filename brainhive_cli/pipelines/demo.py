"""demo: the steps of a system end to end on the embedded world, and one page that shows what came out."""

import importlib
import shlex
import time
from typing import Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core import console, home
from brainhive_cli.core.caveats import SIMULATED, extend_title
from brainhive_cli.core.console import Table
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements, Metric, scope
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo import dual_guided
from brainhive_cli.demo.systems import ALIGN, HEADS, PRIOR, SHUFFLED, SYSTEMS, Command, Step, System
from brainhive_cli.reports.control_effects import RIGHT, control_effects, effects_table
from brainhive_cli.reports.page import Section, write_page

NOTE = "All signals on this page are simulated, all stimuli drawn by a program ({provenance})."
EFFECTS = "What controls cost each head: other voxels, trained anew; trials shuffled (95 % of draws)"
PAGE: tuple[Command, ...] = ("reconstruct", "eval-retrieval", "train-prior", "train-align", "embed")
"""Whose sections come first."""
CONTROLLED = ("swapped: ", "swapped ", "random: ", "random ")
"""How titles of tables and names of pictures begin that are of a variant with a control."""
DUAL_GUIDED = "models/demo-dual-guided"
"""Where HAVIR's generator is put, below home; its recipe names it."""


class Recipe(BaseRecipe):
    """The demo runs the recipe called `demo` of each step, or that of another system."""

    is_tracked: ClassVar[bool] = True

    system: Literal["brainhive", "havir"] = Field(
        "brainhive",
        exclude_if=lambda system: system == "brainhive",  # runs of older versions do not name it
        description="brainhive: EEG and the Fusion Prior; havir: fMRI, structure and meaning apart",
    )
    quick: bool = Field(
        False, exclude_if=lambda quick: not quick, description="few epochs and pictures: does it run?"
    )
    overrides: dict[Command, Names] = Field({}, description="extra key.path=value of a step, by its command")

    @property
    def shown(self) -> System:
        """What is run and shown."""
        return SYSTEMS[self.system]

    @property
    def how(self) -> Run:
        """How steps are run; so few pictures are decoded before a worker has started."""
        is_open = self.quick and self.run.workers is None
        return self.run.model_copy(update={"workers": 0}) if is_open else self.run

    def overrides_of(self, step: Step, results: dict[str, Result]) -> list[str]:
        """List the overrides of a step, which name the runs of earlier steps."""
        made = {}
        if "train-align" in results:
            made[ALIGN] = results["train-align"].folder.name
        if "train-prior" in results:
            made[PRIOR] = str(results["train-prior"].folder / "model")
        own = list(step.overrides)
        for place, name in made.items():
            own = [each.replace(place, name) for each in own]
        quick = self.shown.quick.get(step.command, ()) if self.quick else ()
        mixed = self.run.mixed_precision
        precision = [f"run.mixed_precision={mixed}"] if mixed else []
        given = [*own, *quick, *self.overrides.get(step.command, []), *precision]
        return list(dict.fromkeys(given))


def plan(recipe: Recipe) -> Plan:
    """Say which commands the demo runs."""
    shown = recipe.shown
    return Plan({name: _line(shown, step, []) for name, step in shown.steps.items()})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps through their own pipelines, then write the page."""
    shown = recipe.shown
    folder = RunFolder.open("demo", shown.recipe, recipe, launch, again)
    if recipe.system == "havir":
        dual_guided.assemble(home.root() / DUAL_GUIDED)
    results: dict[str, Result] = {}
    commands, summary = [], []
    for number, (name, step) in enumerate(shown.steps.items(), 1):
        overrides = recipe.overrides_of(step, results)
        commands.append(_line(shown, step, overrides))
        console.say(f"{number}/{len(shown.steps)} {commands[-1]}")
        start = time.monotonic()
        pipeline = importlib.import_module(f"brainhive_cli.pipelines.{step.command.replace('-', '_')}")
        resolved = pipeline.Recipe.resolve(step.command, shown.recipe, {}, overrides)
        resolved = resolved.model_copy(update={"run": recipe.how, "paths": recipe.paths})
        results[name] = pipeline.run(resolved, launch, again)
        summary.append((name, f"{time.monotonic() - start:.0f} s", _headline(step, results[name])))
    tables = [Table(f"Demo, on simulated {shown.signals}", ("step", "time", "result"), tuple(summary))]
    scopes = {name: result.metrics.overall for name, result in results.items() if result.metrics.overall}
    notes: dict[str, Any] = {"caveats": [SIMULATED], "commands": commands}
    if recipe.system == "havir":
        measured = (
            {head: results[name.format(head=head)].metrics for head in HEADS} for name in ("{head}", SHUFFLED)
        )
        notes["control_effects"] = control_effects(*measured)
        tables.append(effects_table(notes["control_effects"], EFFECTS))
    found = Measurements(scopes, notes=notes)
    if launch.is_main:
        title = extend_title("Brainhive demo", [SIMULATED])
        note = NOTE.format(provenance=shown.provenance)
        sections = _sections(shown, tables, commands, results)
        folder.replace("index.html", lambda path: write_page(path, title, note, sections))
        folder.finish(found)
    launch.barrier()
    console.say("\nEach step by hand:\n" + "\n".join(f"  {command}" for command in commands) + "\n")
    files = {name: path for result in results.values() for name, path in result.files.items()}
    files["page"] = folder.path / "index.html"
    return Result(folder.path, tuple(tables), found, files)


def _line(shown: System, step: Step, overrides: list[str]) -> str:
    return shlex.join(["brainhive", step.command, "--recipe", shown.recipe, *overrides])


def _headline(step: Step, result: Result) -> str:
    """Describe in one line what a step achieved."""
    metrics = result.metrics.overall or result.metrics.scopes.get(scope(RIGHT, ALL), {})
    if step.command == "eval-retrieval":
        return _describe("top-1", metrics["top1"])
    if step.command == "train-prior":
        return _describe("validation loss", metrics["validation_loss"])
    if step.command == "reconstruct":
        return _describe("two-way", next(m for name, m in metrics.items() if name.startswith("two_way")))
    if step.command == "train-align":
        return f"{len(result.metrics.notes['cells'])} brain encoders"
    return f"{len(result.tables[0].rows)} stores"


def _describe(name: str, metric: Metric) -> str:
    chance = "" if metric.chance is None else f", chance {metric.chance:.3g}"
    these = f"; these subjects {metric.these_subjects_text()}" if metric.these_subjects else ""
    return f"{name} {metric.value:.3f} ({metric.interval_text()}{these}), n {metric.n}{chance}"


def _sections(
    shown: System, tables: list[Table], commands: list[str], results: dict[str, Result]
) -> list[Section]:
    """Show the summary, then what each step made, pictures first; of controls the summary is enough."""
    pages = []
    for name, step in sorted(shown.steps.items(), key=lambda each: PAGE.index(each[1].command)):
        found = [table for table in results[name].tables if not table.title.startswith(CONTROLLED)]
        files = {key: file for key, file in results[name].files.items() if not key.startswith(CONTROLLED)}
        pages.append(Section(step.heading, found, files))
    return [Section("Summary", tables, {}, commands), *pages]
