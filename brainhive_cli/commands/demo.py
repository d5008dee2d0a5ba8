"""demo: the steps of a system end to end on the embedded world, and one page that shows what came out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.commands import workflow
from brainhive_cli.commands.workflow import Command, Done
from brainhive_cli.core import console, home
from brainhive_cli.core.caveats import SIMULATED, extend_title
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Names, Run
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

    @property
    def shown(self) -> System:
        """What is run and shown."""
        return SYSTEMS[self.system]

    @property
    def steps(self) -> workflow.Recipe:
        """The steps."""
        found = workflow.Recipe.resolve("workflow", self.shown.recipe, {}, [])
        return found.model_copy(update={"run": self.how, "paths": self.paths})

    @property
    def how(self) -> Run:
        """How steps are run; so few pictures are decoded before a worker has started."""
        is_open = self.quick and self.run.workers is None
        return self.run.model_copy(update={"workers": 0}) if is_open else self.run


def plan(recipe: Recipe) -> Plan:
    """Say which commands the demo runs."""
    steps = recipe.steps
    return Plan({name: steps.line(name, []) for name in steps.steps})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps through their own commands, then write the page."""
    shown, steps = recipe.shown, recipe.steps
    folder = RunFolder.open("demo", shown.recipe, recipe, launch, again)
    for generator in shown.generators:
        generator.assemble(home.root() / generator.place)

    def more(name: str) -> list[str]:
        quick = steps.steps[name].quick if recipe.quick else []
        return [*quick, *recipe.overrides.get(steps.command_of(name), [])]

    done = dict(workflow.run_steps(steps, launch, again, more))
    tables = [workflow.summary(done, f"Demo, on simulated {shown.signals}")]
    found = workflow.measured(done)
    notes: dict[str, Any] = {"caveats": [SIMULATED], "commands": found.notes["commands"]}
    if recipe.system == "havir":
        measured = (
            {head: done[name.format(head=head)].result.metrics for head in HEADS}
            for name in ("{head}", SHUFFLED)
        )
        notes["control_effects"] = control_effects(*measured)
        tables.append(effects_table(notes["control_effects"], EFFECTS))
    found = Measurements(found.scopes, notes=notes)
    if launch.is_main:
        folder.replace("index.html", _page(shown, steps, tables, done).write)
        folder.finish(found)
    launch.barrier()
    commands = [step.line for step in done.values()]
    console.say("\nEach step by hand:\n" + "\n".join(f"  {command}" for command in commands) + "\n")
    files = {name: path for step in done.values() for name, path in step.result.files.items()}
    files["page"] = folder.path / "index.html"
    return Result(folder.path, tuple(tables), found, files)


def _page(shown: System, steps: workflow.Recipe, tables: list[Table], done: Mapping[str, Done]) -> Page:
    """Show the summary, then the run of each step, pictures first; of controls the summary is enough."""
    groups = []
    for name in sorted(done, key=lambda each: PAGE.index(steps.command_of(each))):
        run = ShownRun(name, RunFolder(done[name].result.folder))
        if (run.folder.path / FINISHED).is_file() and not run.found.notes.get("control"):
            groups.append(RunGroup([run], title=steps.steps[name].heading))
    summary = Section("Summary", [Group("", tables)])
    commands = [step.line for step in done.values()]
    made = page_of(groups, extend_title("Brainhive demo", [SIMULATED]), commands, [summary])
    return replace(made, lead=[NOTE.format(provenance=shown.provenance), *made.lead])
