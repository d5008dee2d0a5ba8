"""demo: the steps of a system end to end on shipped data, and one page of the
results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from brainhive_cli import demo
from brainhive_cli.commands import workflow
from brainhive_cli.core import console, driver
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.facts import Difference, RetrievalFacts
from brainhive_cli.core.files import home_folder
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SIMULATED, Measurements
from brainhive_cli.core.recipe import BaseRecipe
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.demo import joined_generators, simulation, voxels
from brainhive_cli.reports.page import Page, PageSection
from brainhive_cli.reports.run_page import lay_out_page
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import difference_table

NOTE = (
    "All signals on this page are simulated, all stimuli drawn by a program "
    "({provenance})."
)
RECORDED_NOTE = "All signals on this page were recorded: {provenance}."
RECORDING = Path(demo.__file__).parent / "haxby2001"
"""BIDS data set that is shipped, with its licence (CC BY-SA 3.0)."""
HAXBY = (
    "subject 1 of Haxby et al. 2001 (Science 293, 2425), the posterior half of one "
    "axial slice, 12 runs; CC BY-SA 3.0, by way of PyMVPA"
)
EFFECTS = "What controls cost each head: other voxels, trained anew; trials shuffled"
PAGE = (
    "reconstruct",
    "eval-retrieval",
    "train-prior",
    "train-align",
    "embed",
    "prepare",
)
"""Commands in the order of their sections on the page."""
HEADS = ("latent", "image", "text")
"""Heads of HAVIR's brain model."""
SHUFFLED = "{head}, shuffled"
"""Name of the step of a head with shuffled trials; the step for all sets of voxels is
named `{head}`.
"""
NO_CONTROL, SHUFFLED_TRIALS = "none", "shuffled trials"
"""Variant without a control, and what the control of shuffled trials is called."""


@dataclass(frozen=True)
class System:
    """System that is shown; its steps are those of `recipes/RECIPE/workflow.yaml`.

    Attributes:
        recipe: Name of the shipped recipe of each command.
        signals: Signals that are simulated, or were recorded, for a title.
        provenance: Program or paper that the signals come from.
        generators: Folders of generators that are joined from files of the wheel.
        is_simulated: Whether a program made the signals.
        overrides: Overrides of steps, by name.
    """

    recipe: str
    signals: str
    provenance: str
    generators: tuple[str, ...] = ()
    is_simulated: bool = True
    overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)


SYSTEMS = {
    "brainhive": System("demo", "simulated EEG", simulation.PROVENANCE),
    "havir": System(
        "demo-havir",
        "simulated fMRI",
        voxels.PROVENANCE,
        (joined_generators.DUAL_GUIDED,),
    ),
    "neurons": System(
        "demo-neurons",
        "simulated fMRI of films",
        voxels.PROVENANCE,
        (joined_generators.TOKEN_GUIDED, joined_generators.TEXT_GUIDED),
    ),
    "real": System(
        "demo-real",
        "recorded fMRI",
        HAXBY,
        is_simulated=False,
        overrides={"prepare": [f"preparation.root={RECORDING}"]},
    ),
}


class Recipe(BaseRecipe):
    """The demo runs the recipe called `demo` of each step, or that of another
    system.
    """

    is_tracked = True

    system: Literal["brainhive", "havir", "neurons", "real"] = Field(
        "brainhive",
        description="brainhive: EEG and the Fusion Prior; havir: fMRI, structure and "
        "meaning apart; neurons: fMRI of films, keyframe and motion; real: "
        "recorded fMRI, the category that was looked at",
    )
    quick: bool = Field(False, description="few epochs and pictures: does it run?")
    overrides: dict[workflow.StepCommand, NameList] = Field(
        {}, description="extra key.path=value of a step, by its command"
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_real_as_a_system(cls, fields: Any) -> Any:
        """Let `--real` be short for `--system real`."""
        if isinstance(fields, dict) and fields.get("real") is True:
            fields = {key: value for key, value in fields.items() if key != "real"}
            # a contradiction is refused: neither flag wins silently
            if fields.get("system", "real") != "real":
                raise RecipeError(
                    f"--real goes with no --system {fields['system']}", "one of them"
                )
            fields["system"] = "real"
        return fields


def _steps(recipe: Recipe) -> workflow.Recipe:
    """Read the workflow of the recipe's system."""
    run = recipe.run
    # so few pictures are decoded before a worker has started
    if recipe.quick and run.workers is None:
        run = run.model_copy(update={"workers": 0})
    # steps use the processes and folders of the demo
    return workflow.Recipe.resolve(
        "workflow", SYSTEMS[recipe.system].recipe, {}, []
    ).model_copy(update={"run": run, "paths": recipe.paths})


def inputs(recipe: Recipe) -> list[Input]:
    """List the commands that the demo runs; it makes all that they read."""
    steps = _steps(recipe)
    overrides = SYSTEMS[recipe.system].overrides
    return [
        Input(
            f"{name}: {steps.write_line(name, overrides.get(name, []))}", note="a step"
        )
        for name in steps.steps
    ]


@dataclass(frozen=True)
class DemoRun(RunJob):
    """Run of the demo, which consists of the runs of its steps.

    Attributes:
        recipe: Its settings.
        system: What is shown.
        steps: The workflow of the system.
    """

    recipe: Recipe
    system: System
    steps: workflow.Recipe

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.system.recipe

    def make_parts(self, run: OpenRun, again: bool) -> dict[str, workflow.FinishedStep]:
        """Join the generators that the wheel ships in parts, and run the steps."""
        system, recipe = self.system, self.recipe
        console.say(f"On {system.signals} ({system.provenance}).")
        for generator in system.generators:
            joined_generators.assemble(generator, home_folder() / generator)

        # with overrides of the system, of a quick run and of the user
        overrides = {}
        for name, step in self.steps.steps.items():
            quick = step.quick if recipe.quick else []
            further = recipe.overrides.get(self.steps.get_command(name), [])
            overrides[name] = [*system.overrides.get(name, []), *quick, *further]
        return dict(workflow.run_steps(self.steps, run.launch, again, overrides))

    def summarise(self, run: OpenRun) -> Summary:
        """Write the page, and collect what the steps measured."""
        with console.progress("writing the page"):
            tables = self._list_tables(run.parts)
            page = _page(self.system, self.steps, tables, run.parts)
            run.folder.replace("index.html", page.write)
        return Summary(self._measure(run.parts))

    def _measure(self, steps: Mapping[str, workflow.FinishedStep]) -> Measurements:
        """Collect what the steps measured, and the effects of HAVIR's controls."""
        measurements = workflow.measure_steps(steps)
        caveats = [SIMULATED] if self.system.is_simulated else measurements.caveats
        measurements = measurements.with_facts(command="demo", caveats=caveats)
        if effects := self._list_effects(steps):
            measurements = measurements.with_facts(control_effects=effects)
        return measurements

    def _list_effects(
        self, steps: Mapping[str, workflow.FinishedStep]
    ) -> list[Difference]:
        """List the effects of HAVIR's controls; none of other systems."""
        if self.recipe.system != "havir":
            return []
        # the sweep over voxels, and the draws with shuffled trials, by head
        swept, shuffled = (
            {head: steps[name.format(head=head)].result.metrics for head in HEADS}
            for name in ("{head}", SHUFFLED)
        )
        return control_effects(swept, shuffled)

    def _list_tables(self, steps: Mapping[str, workflow.FinishedStep]) -> list[Table]:
        """List the summary of the steps, and the effects of controls."""
        title = f"Demo, on {self.system.signals}"
        tables = [workflow.summarise_steps(steps, title)]
        if effects := self._list_effects(steps):
            tables.append(replace(difference_table(effects), title=EFFECTS))
        return tables

    def describe(self, run: OpenRun) -> Result:
        """Show what the steps achieved, and suggest the demos of the other systems."""
        lines = [
            Line("demo", "--real" if name == "real" else ("system", name))
            for name in SYSTEMS
            if name != self.recipe.system
        ]
        return Result(
            run.folder.path,
            tuple(self._list_tables(run.parts)),
            self._measure(run.parts),
            {"page": run.folder.path / "index.html"},
            ", or ".join(map(str, lines)),
        )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Run the steps through their own commands, then write the page."""
    job = DemoRun(recipe, SYSTEMS[recipe.system], _steps(recipe))
    return driver.run("demo", job, launch, again)


def _page(
    system: System,
    steps: workflow.Recipe,
    tables: list[Table],
    finished: Mapping[str, workflow.FinishedStep],
) -> Page:
    """Lay out the summary, then the run of each step, pictures first, without the runs
    of controls.
    """
    # one group per finished run
    groups = []
    for name in sorted(finished, key=lambda step: PAGE.index(steps.get_command(step))):
        folder = RunFolder(finished[name].result.folder)
        if (folder.path / FINISHED).is_file():
            run = ShownRun(name, folder)
            groups += (
                []
                if run.is_control
                else [RunGroup([run], title=steps.steps[name].heading)]
            )

    # the summary tells the origin of the signals
    note = NOTE if system.is_simulated else RECORDED_NOTE
    summary = PageSection(
        "Summary", [("", tables)], [note.format(provenance=system.provenance)]
    )
    lines = [step.line for step in finished.values()]
    title = f"Brainhive demo, on {system.signals}"
    return lay_out_page(groups, title, lines, [summary])


def control_effects(
    swept: Mapping[str, Measurements], shuffled: Mapping[str, Measurements]
) -> list[Difference]:
    """List by how much each control decreases the top-1 of each head.

    Args:
        swept: Measurements of eval-retrieval by head, of a sweep over controls.
        shuffled: Measurements by head without a control, and in draws with shuffled
            trials.

    Returns:
        Differences of heads from their controls; of shuffled trials with the middle 95
        % of the draws.
    """
    effects = []
    for head, measured in swept.items():
        # other voxels: pairs of the sweep that compare with the variant without a
        # control
        pairs = [
            pair for pair in measured.facts.comparisons if pair.first == NO_CONTROL
        ]
        effects += [pair.model_copy(update={"first": head}) for pair in pairs]

        # shuffled trials: the mean and the interval of the draws
        control = shuffled[head].facts_of(RetrievalFacts).control
        assert control is not None
        drawn = control.metrics["top1"]
        effects.append(
            Difference(
                first=head,
                second=SHUFFLED_TRIALS,
                metric="top1",
                difference=drawn["measured"] - drawn["mean"],
                # the best draw gives the smallest difference
                low=drawn["measured"] - drawn["high"],
                high=drawn["measured"] - drawn["low"],
                interval=f"the middle 95 % of {control.draws} draws",
                n=control.n,
                subjects=len(
                    {cell.subject for cell in shuffled[head].facts.cells.values()}
                ),
                p_value=drawn["p"],
                test=f"share of {control.draws} draws that are as good",
                # of a permutation test with so many draws
                least_p=1 / (control.draws + 1),
                cohens_dz=None,
            )
        )
    return effects
