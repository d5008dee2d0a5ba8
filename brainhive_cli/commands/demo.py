"""demo: the steps of a system end to end on the embedded world, and one page that shows what came out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.commands import workflow
from brainhive_cli.commands.workflow import Command, FinishedStep
from brainhive_cli.core import console
from brainhive_cli.core.files import home_folder
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SIMULATED, Measurements, extend_title
from brainhive_cli.core.recipe import Names
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.demo import joined_generators, simulation, voxels
from brainhive_cli.reports.page import Group, Page, Section
from brainhive_cli.reports.run_page import page_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import control_effects, effects_table

NOTE = "All signals on this page are simulated, all stimuli drawn by a program ({provenance})."
EFFECTS = "What controls cost each head: other voxels, trained anew; trials shuffled (95 % of draws)"
PAGE: tuple[Command, ...] = ("reconstruct", "eval-retrieval", "train-prior", "train-align", "embed")
"""Whose sections come first."""
HEADS = ("latent", "image", "text")
"""Of HAVIR's brain model."""
SHUFFLED = "{head}, shuffled"
"""Name of the step that measures a head with shuffled trials; that for all sets of voxels is named by it."""


@dataclass(frozen=True)
class System:
    """What is shown; the steps are those of `recipes/RECIPE/workflow.yaml`.

    Attributes:
        recipe: Name of the shipped recipe of each command.
        signals: What is simulated.
        provenance: What made the signals.
        generators: Those that are joined from what the wheel holds.
    """

    recipe: str
    signals: str
    provenance: str
    generators: tuple[joined_generators.JoinedFolder, ...] = ()


SYSTEMS: Mapping[str, System] = {
    "brainhive": System("demo", "EEG", simulation.PROVENANCE),
    "havir": System("demo-havir", "fMRI", voxels.PROVENANCE, (joined_generators.DUAL_GUIDED,)),
    "neurons": System(
        "demo-neurons",
        "fMRI of films",
        voxels.PROVENANCE,
        (joined_generators.TOKEN_GUIDED, joined_generators.TEXT_GUIDED),
    ),
}


class Recipe(BaseRecipe):
    """The demo runs the recipe called `demo` of each step, or that of another system."""

    is_tracked: ClassVar[bool] = True

    system: Literal["brainhive", "havir", "neurons"] = Field(
        "brainhive",
        description="brainhive: EEG and the Fusion Prior; havir: fMRI, structure and meaning apart; neurons: "
        "fMRI of films, keyframe and motion",
    )
    quick: bool = Field(False, description="few epochs and pictures: does it run?")
    overrides: dict[Command, Names] = Field({}, description="extra key.path=value of a step, by its command")


def _steps(recipe: Recipe) -> workflow.Recipe:
    """Read the steps of the system that is shown."""
    run = recipe.run
    if recipe.quick and run.workers is None:  # so few pictures are decoded before a worker has started
        run = run.model_copy(update={"workers": 0})
    steps = workflow.Recipe.resolve("workflow", SYSTEMS[recipe.system].recipe, {}, [])
    return steps.model_copy(update={"run": run, "paths": recipe.paths})


def plan(recipe: Recipe) -> Plan:
    """Say which commands the demo runs."""
    steps = _steps(recipe)
    return Plan({name: steps.line(name, []) for name in steps.steps})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps through their own commands, then write the page."""
    system, steps = SYSTEMS[recipe.system], _steps(recipe)
    folder = RunFolder.open("demo", system.recipe, recipe, launch, again)
    console.say(f"On simulated {system.signals} ({system.provenance}).")
    for generator in system.generators:
        generator.assemble(home_folder() / generator.place)
    overrides = {}
    for name, step in steps.steps.items():
        quick = step.quick if recipe.quick else []
        overrides[name] = [*quick, *recipe.overrides.get(steps.command_of(name), [])]
    finished = workflow.run_steps(steps, launch, again, overrides)
    tables = [workflow.summarise_steps(finished, f"Demo, on simulated {system.signals}")]
    measurements = workflow.measure_steps(finished)
    notes: dict[str, Any] = {"caveats": [SIMULATED], "commands": measurements.notes["commands"]}
    if recipe.system == "havir":
        whole, shuffled = (
            {head: finished[name.format(head=head)].result.metrics for head in HEADS}
            for name in ("{head}", SHUFFLED)
        )
        notes["control_effects"] = control_effects(whole, shuffled)
        tables.append(effects_table(notes["control_effects"], EFFECTS))
    measurements = Measurements(measurements.scopes, notes=notes)
    if launch.is_main:
        with console.progress("writing the page"):
            folder.replace("index.html", _page(system, steps, tables, finished).write)
        folder.finish(measurements)
    launch.barrier()
    files = {"page": folder.path / "index.html"}
    hint = ", or ".join(f"brainhive demo --system {name}" for name in SYSTEMS if name != recipe.system)
    return Result(folder.path, tuple(tables), measurements, files, hint)


def _page(
    system: System, steps: workflow.Recipe, tables: list[Table], finished: Mapping[str, FinishedStep]
) -> Page:
    """Show the summary, then the run of each step, pictures first; of controls the summary is enough."""
    groups = []
    for name in sorted(finished, key=lambda step: PAGE.index(steps.command_of(step))):
        run = ShownRun(name, RunFolder(finished[name].result.folder))
        if (run.folder.path / FINISHED).is_file() and not run.measured.notes.get("control"):
            groups.append(RunGroup([run], title=steps.steps[name].heading))
    summary = Section("Summary", [Group("", tables)], [NOTE.format(provenance=system.provenance)])
    lines = [step.line for step in finished.values()]
    return page_of(groups, extend_title("Brainhive demo", [SIMULATED]), lines, [summary])
