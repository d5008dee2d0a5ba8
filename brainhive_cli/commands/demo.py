"""demo: all steps of a decoding system on shipped data, with a page of the results.

A step is a command with its settings, such as `train-align`.
"""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli import demo
from brainhive_cli.commands import workflow
from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.core.base import Line, RecipeError, Table, console
from brainhive_cli.core.files import Input, home_folder, locate
from brainhive_cli.core.recipes import START, BaseRecipe, NameList, flag_field
from brainhive_cli.core.results import SIMULATED, Difference, Measurements, scope
from brainhive_cli.core.runs import (
    METRICS_FILE,
    Launch,
    OpenRun,
    Result,
    RunFolder,
    RunJob,
    Summary,
    driver,
)
from brainhive_cli.demo import (
    joined_generators,
    photographs,
    recordings,
    simulation,
    voxels,
)
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.models.encoders import lite0
from brainhive_cli.reports.pages.page import Page, PageSection
from brainhive_cli.reports.pages.run_page import lay_out_page
from brainhive_cli.reports.tables import RunGroup, ShownRun, difference_table

if TYPE_CHECKING:
    from PIL.Image import Image

RECORDING = Path(demo.__file__).parent / "haxby2001"
"""Folder of the shipped BIDS data set and its licence (CC BY-SA 3.0)."""
HAXBY = (
    "subject 1 of Haxby et al. 2001 (Science 293, 2425), the posterior half of one "
    "axial slice, 12 runs; CC BY-SA 3.0, by way of PyMVPA"
)
N_SUBJECTS = 2
N_SESSIONS = 2
"""Subjects, and sessions of each, that `--write-recordings` writes."""
REPETITIONS = {"train": 2, "test": 8}
"""Repetitions of each picture in a session of these."""
HEADS = ("latent", "image", "text")
"""Heads (outputs) of HAVIR's brain model. The step of the same name compares models
that were trained on different sets of voxels.
"""
SHUFFLED_STEP = "{head}, shuffled"
"""Name of the step that evaluates a head with shuffled trials."""
NO_CONTROL = "none"
"""Value of the sweep whose model was trained on the right voxels."""
SHUFFLED_TRIALS = "shuffled trials"
"""Name of the control with shuffled trials in the table of effects."""


@dataclass(frozen=True)
class System:
    """Decoding system that the demo runs.

    Attributes:
        recipe: Folder in `recipes` with the recipes of the system, such as
            workflow.yaml.
        signals: Kind of the signals, for titles.
        provenance: Program that simulated the signals, or paper that published them.
        generators: Folders of the generators (diffusion models) that the steps use.
        is_simulated: True if a program simulated the signals.
        overrides: Overrides of recipe keys, by the name of the step.
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
        generators=(joined_generators.DUAL_GUIDED,),
    ),
    "neurons": System(
        "demo-neurons",
        "simulated fMRI of films",
        voxels.PROVENANCE,
        generators=(joined_generators.TOKEN_GUIDED, joined_generators.TEXT_GUIDED),
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
    """Recipe of demo, with the system, its size, and overrides of its steps."""

    is_tracked = True
    writes_run = True
    section = START
    summary = (
        "Try Brainhive on shipped data: simulated EEG or fMRI, or recorded fMRI with "
        "--real."
    )
    example = "--real"
    switches = ("open",)

    system: Literal["brainhive", "havir", "neurons", "real"] = flag_field(
        "brainhive",
        "system to run: brainhive (EEG), havir (fMRI, two streams), "
        "neurons (fMRI of films) or real (as --real). brainhive has the Fusion Prior, "
        "havir structure and meaning apart, neurons keyframe and motion",
    )
    real: bool = flag_field(
        False,
        "decode recorded fMRI: the category of the pictures that somebody "
        "saw. Short for system=real",
        exclude=True,
    )
    quick: bool = flag_field(
        False, "train a few epochs on a few pictures, to test that it runs"
    )
    write_recordings: str = flag_field(
        "",
        "folder for the files of the EEG tutorial: photographs, and "
        "simulated recordings as a lab has them. They are BrainVision files. No step "
        "runs then",
    )
    overrides: dict[workflow.StepCommand, NameList] = Field(
        {}, description="extra key.path=value of a step, by its command"
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_real_as_a_system(cls, fields: Any) -> Any:
        """Replace `real=True` by `system=real`, so that `--real` is a short flag.

        Raises:
            RecipeError: if `real` is True and `system` is another system.
        """
        if not isinstance(fields, dict) or fields.get("real") is not True:
            return fields
        fields = {key: value for key, value in fields.items() if key != "real"}
        if fields.get("system", "real") != "real":
            raise RecipeError(
                f"--real contradicts --system {fields['system']}", "give one of them"
            )
        return fields | {"system": "real"}

    @model_validator(mode="after")
    def _refuse_idle_keys(self) -> Self:
        """Raise an error if a key has no effect, because no step runs."""
        has_steps = self.system != "brainhive" or self.overrides
        if self.write_recordings and has_steps:
            raise ValueError(
                "write_recordings runs no step, so system and overrides have no effect"
            )
        return self


def _read_workflow(recipe: Recipe) -> workflow.Recipe:
    """Read the workflow of a system, with the processes and folders of the demo."""
    run_options = recipe.run
    if recipe.quick and run_options.workers is None:
        # starting workers takes longer than decoding a few pictures
        run_options = run_options.model_copy(update={"workers": 0})
    name = SYSTEMS[recipe.system].recipe
    steps = workflow.Recipe.resolve("workflow", name, {}, [])
    return steps.model_copy(update={"run": run_options, "paths": recipe.paths})


def inputs(recipe: Recipe) -> list[Input]:
    """List the command lines of the steps, which make all files that they read."""
    if recipe.write_recordings:
        return [
            Input(str(folder), note="to write") for folder in _list_new_folders(recipe)
        ]
    steps = _read_workflow(recipe)
    overrides = SYSTEMS[recipe.system].overrides
    step_inputs = []
    for name in steps.expanded_steps:
        step_overrides = overrides.get(workflow.get_step_name(name), [])
        line = steps.write_line(name, step_overrides)
        step_inputs.append(Input(f"{name}: {line}", note="a step"))
    return step_inputs


@dataclass(frozen=True)
class DemoRun(RunJob):
    """Work of the demo: the steps of a decoding system."""

    recipe: Recipe
    system: System
    steps: workflow.Recipe
    command = "demo"

    @property
    def short_name(self) -> str:
        """First part of the name of the run folder."""
        return self.system.recipe

    def make_parts(self, run: OpenRun, force: bool) -> dict[str, workflow.FinishedStep]:
        """Run the steps of the workflow, and return them by name.

        Args:
            run: Run of the demo, with the devices of its steps.
            force: If True, run a step again even if a finished run of this step exists.
        """
        # the files of a generator are joined from smaller files in the package
        system, recipe = self.system, self.recipe
        console.say(f"On {system.signals} ({system.provenance}).")
        for generator in system.generators:
            joined_generators.assemble_generator(generator, home_folder() / generator)

        # later overrides of a step win over earlier overrides
        overrides = {}
        for names in self.steps.group_steps():
            name = workflow.get_step_name(names[0])
            step_overrides = list(system.overrides.get(name, []))
            if recipe.quick:
                step_overrides += self.steps.steps[name].quick
            step_overrides += recipe.overrides.get(self.steps.get_command(names[0]), [])
            overrides[name] = step_overrides
        return dict(workflow.run_steps(self.steps, run.launch, force, overrides))

    def summarise(self, run: OpenRun) -> Summary:
        """Write the page of the demo, and collect the measurements of the steps."""
        with console.progress("writing the page"):
            measurements = self._measure(run.parts)
            tables = self._list_tables(run.parts, measurements)
            differences = measurements.facts.comparisons
            page = _lay_out_page(
                self.system, self.steps, tables, run.parts, differences
            )
            run.folder.replace("index.html", page.write)
        return Summary(measurements)

    def _measure(self, steps: Mapping[str, workflow.FinishedStep]) -> Measurements:
        """Collect the measurements of the steps, and the effects of controls.

        A control is an analysis whose accuracy should be lower, such as shuffled
        trials.
        """
        measurements = workflow.measure_steps(self.steps, steps)
        caveats = [SIMULATED] if self.system.is_simulated else measurements.caveats
        measurements = measurements.with_facts(command="demo", caveats=caveats)
        # only HAVIR has controls
        if self.recipe.system == "havir":
            shuffled_draws = {}
            for head in HEADS:
                shuffled_step = SHUFFLED_STEP.format(head=head)
                shuffled_draws[head] = steps[shuffled_step].result.metrics
            effects = list_control_effects(
                measurements.facts.comparisons, shuffled_draws
            )
            measurements = measurements.with_facts(control_effects=effects)
        return measurements

    def _list_tables(
        self, steps: Mapping[str, workflow.FinishedStep], measurements: Measurements
    ) -> list[Table]:
        """List a table of the steps, and a table of the effects of controls if any."""
        tables = [workflow.summarise_steps(steps, f"Demo, on {self.system.signals}")]
        effects = measurements.require_facts(WorkflowFacts).control_effects
        if effects:
            tables.append(
                replace(
                    difference_table(effects),
                    title="Loss of top-1 for each head: trained on other voxels; "
                    "shuffled trials",
                )
            )
        return tables

    def describe(self, run: OpenRun) -> Result:
        """Return the tables, metrics and page, and the commands of other demos."""
        other_demos = []
        for name in SYSTEMS:
            if name != self.recipe.system:
                line = Line("demo", "--real" if name == "real" else ("system", name))
                other_demos.append(str(line))
        measurements = self._measure(run.parts)
        return Result(
            run.folder.path,
            tuple(self._list_tables(run.parts, measurements)),
            metrics=measurements,
            files={"page": run.folder.path / "index.html"},
            hint=", or ".join(other_demos),
        )


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Run all steps of a decoding system on shipped data, and write a page of results.

    Args:
        recipe: Settings of the command, with the name of the system.
        launch: Processes and device.
        force: If True, run all steps again even if the same run is finished.

    Returns:
        Tables and metrics of the steps, and the path of the page.

    Raises:
        RecipeError: if recordings are to be written into folders that exist.
    """
    if recipe.write_recordings:
        return _write_recordings(recipe)
    job = DemoRun(recipe, SYSTEMS[recipe.system], _read_workflow(recipe))
    return driver.run(job, launch, force)


def _list_new_folders(recipe: Recipe) -> tuple[Path, Path]:
    """Return the folders of pictures and recordings that `--write-recordings` makes.

    Raises:
        RecipeError: if one of them exists.
    """
    data = locate(recipe.write_recordings) / "data"
    folders = (data / "image-folder", data / "recordings")
    for folder in folders:
        if folder.exists():
            raise RecipeError(
                f"{folder} exists, and the demo overwrites nothing",
                str(Line("demo", ("write-recordings", "study"))),
            )
    return folders


def _write_recordings(recipe: Recipe) -> Result:
    """Write photographs, and simulated recordings of people who look at them.

    Returns:
        A table of the files, and the command that reads them.
    """
    pictures_folder, recordings_folder = _list_new_folders(recipe)
    # Repetitions with `--quick`, which writes a session of each subject.
    quick_repetitions = {"train": 2, "test": 4}
    repetitions = quick_repetitions if recipe.quick else REPETITIONS
    n_sessions = 1 if recipe.quick else N_SESSIONS
    with console.progress("encoding the photographs"):
        study, pictures = _plan_study(repetitions)
    with console.progress("simulating recordings"):
        pictures_folder.mkdir(parents=True)
        shutil.copy(photographs.FOLDER / "README", pictures_folder)
        for image_id, picture in pictures.items():
            path = pictures_folder / f"{image_id}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=92)
        headers = recordings.write_study(
            recordings_folder, study, N_SUBJECTS, n_sessions
        )

    n_trials = sum(study.repetitions)
    table = Table(
        "Files for the EEG tutorial, with simulated signals",
        ("folder", "content"),
        (
            (str(pictures_folder), f"{len(pictures)} photographs"),
            (
                str(recordings_folder),
                f"{len(headers)} recordings of {N_SUBJECTS} people with {n_trials} "
                "trials each, and events.csv",
            ),
        ),
    )
    line = str(Line("prepare", ("from", "recording"), "--check"))
    folder = locate(recipe.write_recordings)
    if folder.resolve() != home_folder().resolve():
        line = f"cd {shlex.quote(str(folder))} && {line}"
    return Result(folder, (table,), hint=line)


def _plan_study(
    repetitions: Mapping[str, int],
) -> tuple[recordings.SimulatedStudy, "dict[str, Image]"]:
    """Choose pictures, and measure the features that drive the responses to them.

    Args:
        repetitions: Number of repetitions of each picture in a session, by split.

    Returns:
        The study, and its pictures by image id.
    """
    import torch

    pictures: dict[str, Image] = {}
    counts: list[int] = []
    for split in ("train", "test"):
        split_pictures = photographs.cut_pictures(split)
        pictures |= split_pictures
        counts += [repetitions[split]] * len(split_pictures)

    encoder = lite0.Config().build()
    with torch.inference_mode():
        views = encoder.preprocess_all(list(pictures.values()))
        embeddings = encoder.module.eval()(views).numpy()
    is_training = np.array([name.startswith("train/") for name in pictures])
    low_level = np.stack(list(map(simulation.measure_looks, pictures.values())))
    semantic = recordings.choose_components(embeddings, is_training)
    return recordings.SimulatedStudy(
        list(pictures), low_level, semantic, counts
    ), pictures


def _lay_out_page(
    system: System,
    steps: workflow.Recipe,
    tables: list[Table],
    finished_steps: Mapping[str, workflow.FinishedStep],
    differences: Sequence[Difference],
) -> Page:
    """Lay out the page: a summary, and a section for each step that has written runs.

    The sections have the order of `command_order`. Steps with shuffled trials have no
    section, since they only estimate chance.
    """
    groups = []
    # Commands in the order of their sections on the page.
    command_order = (
        "reconstruct",
        "eval-retrieval",
        "train-prior",
        "train-align",
        "embed",
        "prepare",
    )
    names_by_step = sorted(
        steps.group_steps(),
        key=lambda names: command_order.index(steps.get_command(names[0])),
    )
    for names in names_by_step:
        shown_runs = []
        for name in names:
            folder = RunFolder(finished_steps[name].result.folder)
            # commands such as `embed` write stores and no run
            if (folder.path / METRICS_FILE).is_file():
                shown_run = ShownRun(name, folder)
                if not shown_run.is_control:
                    shown_runs.append(shown_run)
        # runs that are compared have tables, and figures on pages of their own
        if len(shown_runs) > 1:
            shown_runs = [replace(run, shows_artifacts=False) for run in shown_runs]
        if shown_runs:
            step_differences = [pair for pair in differences if pair.first in names]
            heading = steps.expanded_steps[names[0]].step.heading
            groups.append(RunGroup(shown_runs, step_differences, title=heading))

    recorded_note = "All signals on this page were recorded: {provenance}."
    simulated_note = (
        "All signals on this page are simulated, all stimuli drawn by a program "
        "({provenance})."
    )
    note = simulated_note if system.is_simulated else recorded_note
    summary = PageSection(
        "Summary", [("", tables)], [note.format(provenance=system.provenance)]
    )
    lines = [step.line for step in finished_steps.values()]
    title = f"Brainhive demo, on {system.signals}"
    return lay_out_page(groups, title, lines, [summary])


def list_control_effects(
    voxel_differences: Sequence[Difference],
    shuffled_draws: Mapping[str, Measurements],
) -> list[Difference]:
    """List by how much each control decreases the top-1 accuracy of each head.

    A head is an output of the brain model. A control is a model that is trained on
    other voxels, or a test on shuffled trials.

    Args:
        voxel_differences: Differences between models that are trained on the right
            voxels (the step `HEAD · none`) and on others.
        shuffled_draws: Measurements of the former, by head, with their accuracy for
            trials in the right order and in many random orders (draws).

    Returns:
        Differences of accuracy: the head minus each of its controls.
    """
    effects = []
    for head, draws in shuffled_draws.items():
        # other voxels
        for pair in voxel_differences:
            if pair.first == scope(head, NO_CONTROL):
                names = {"first": head, "second": pair.second.partition(" · ")[2]}
                effects.append(pair.model_copy(update=names))

        # shuffled trials: the accuracy minus the mean accuracy of the draws
        control = draws.require_facts(RetrievalFacts).control
        assert control is not None
        top1 = control.metrics["top1"]
        cells = draws.facts.cells.values()
        effects.append(
            Difference(
                first=head,
                second=SHUFFLED_TRIALS,
                metric="top1",
                difference=top1["measured"] - top1["mean"],
                # the most accurate draws give the smallest differences
                low=top1["measured"] - top1["high"],
                high=top1["measured"] - top1["low"],
                interval=f"the middle 95 % of {control.draws} draws",
                n=control.n,
                subjects=len({cell.subject for cell in cells}),
                p_value=top1["p"],
                test=f"share of {control.draws} draws that are as good",
                # smallest p that a permutation test with this number of draws can give
                least_p=1 / (control.draws + 1),
                cohens_dz=None,
            )
        )
    return effects
