"""Commands on a cluster: an array of tasks that share the cells of one line, followed and cancelled."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from brainhive_cli.core import console, documents, foreign_code, hub
from brainhive_cli.core.cells import CellCounts, count_cells
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, RecipeError, first_line
from brainhive_cli.core.files import (
    atomic_write,
    home_folder,
    locate,
    read_regular,
    remove,
    shipped_folder,
)
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.results import Plan, read_paces, write_duration
from brainhive_cli.core.runs import SUBMITTED_RUNS, RunFolder, list_submitted

SUBMITTED = ".submitted"
"""The folder below the runs that holds what was submitted."""
JOBS, ENDED, LOGS = "jobs.json", "ended", "logs"
"""Parts of a submission: its jobs; a file for the end of each task, which the script writes, as lines that
several nodes append to one file of a network disk get lost; the tasks' output."""
INPUTS = ("run", "align run", "subjects", "new persons")
"""Items of a plan that may change while the recipe stays as it is: what is newest, or here."""
USUAL_REASONS = ("", "None", "Priority", "Resources", "Dependency", "BeginTime")
"""Why a task waits, as squeue says it, where the wait ends by itself."""
DEFAULT_TIME_S = 4 * 3600
"""Time of a task where no pace is known."""
TIME_MARGIN = 1.5
"""Factor on the measured time of a task, as nodes differ; half an hour of loading comes on top."""
POLL_S = 60.0
"""Time between two lines of `--follow`."""
MAX_FAILURES = 10
"""Times in a row that the scheduler may fail to answer `--follow`."""
ENDED_CODE = 0
"""Exit code of a task that has seen the end of its command, whoever did the work."""
LAST_LINE_BYTES = 1 << 16
"""End of a log in which its last line is looked for."""


class Job(BaseModel):
    """An array job: one step of what was submitted.

    Attributes:
        step: Name of the step of a workflow, else of the command.
        id: The scheduler's number.
        tasks: Number of tasks.
    """

    step: str
    id: str
    tasks: int


class Jobs(BaseModel):
    """Jobs of the last submission of a line.

    Attributes:
        jobs: In the order of their steps.
        inputs: What each step was planned to read, also of steps that were finished before.
    """

    jobs: list[Job]
    inputs: dict[str, dict[str, str]] = {}


class Ended(BaseModel):
    """The end of a task, as its script writes it down."""

    step: str
    task: str
    code: int


@dataclass(frozen=True)
class Step:
    """A job before it is submitted.

    Attributes:
        name: Its name, of which files and the scheduler's job are named too.
        script: Its script.
        tasks: Number of tasks.
        plan: What it would do.
    """

    name: str
    script: str
    tasks: int
    plan: Plan

    @property
    def inputs(self) -> dict[str, str]:
        """What it is planned to read, as far as that is known."""
        return {name: str(self.plan.items[name]) for name in INPUTS if name in self.plan.items}


@dataclass
class State:
    """Tasks of a job by their state.

    Attributes:
        pending: Number of tasks that wait.
        running: Number of those that run, or have just left the queue.
        finished: Number of those that have seen the end.
        failed: Exit code of each other task that has ended, by its id; None of one that was killed.
        reasons: Why tasks wait, where that does not end by itself.
        unseen: Ids of tasks that are not in the queue and have written no end, as far as this machine sees.
    """

    pending: int = 0
    running: int = 0
    finished: int = 0
    failed: dict[str, int | None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def run(command: str, module: Any, recipe: Recipe, common: Mapping[str, Any]) -> int:
    """Submit a command, print what would be submitted, follow what was, or cancel it.

    Args:
        command: Its name.
        module: That of the command.
        recipe: The resolved recipe.
        common: Options of the line.

    Returns:
        The exit code.

    Raises:
        MissingData: if the command lacks something, or something is still to be downloaded; or if there is
            nothing to follow or cancel.
        MissingExtra: if there is no scheduler here.
        BrainhiveError: if the scheduler refuses.
    """
    runs = recipe.paths.under_home("runs")
    folder = Path(os.path.abspath(runs / SUBMITTED / f"{command}-{recipe.fingerprint()}"))
    if common.get("cancel"):
        return _cancel(folder)
    if common.get("submit"):
        if common.get("again") and command in ("embed", "prepare"):
            raise RecipeError(
                f"{command} --again makes each store once more in each task", "--submit without it"
            )
        with console.progress(command):
            plan: Plan = module.plan(recipe)
            steps = _plan_steps(command, module, recipe, plan, folder, common)
        unreachable = [error.hint for error in plan.errors if isinstance(error, hub.Unreachable)]
        lines = [hint.removeprefix(hub.ELSEWHERE) for hint in unreachable]
        lines = [*dict.fromkeys([*(need.line for need in plan.needs if need.line), *lines])]
        if common["check"]:
            return _show(steps, plan, lines, common["json"])
        if plan.errors:
            raise plan.errors[0]
        if lines:
            raise MissingData("compute nodes have no internet, and not all is downloaded", " && ".join(lines))
        for key in ("template", "container"):  # which run what they like, on every node
            if value := getattr(recipe.run.cluster, key):
                foreign_code.require(key, f"run.cluster.{key} {value}")
        _submit(folder, _name_run(recipe, plan), steps, bool(common.get("again")))
    code = _follow(folder, common["json"]) if common.get("follow") else 0
    if common["json"] and (known := _read_jobs(folder)):
        queued, tasks = _list_queued(known), {f"{job.id}_{n}" for job in known.jobs for n in range(job.tasks)}
        states = {job.step: asdict(_find_state(folder, job, queued, tasks)) for job in known.jobs}
        console.show_json({"folder": str(folder), "jobs": known.model_dump()["jobs"], "tasks": states})
    return code


def _name_run(recipe: Recipe, plan: Plan) -> Recipe:
    """Name the run that is the newest now: tasks that start at other times read the same one."""
    newest = plan.items.get("run") or plan.items.get("align run")
    is_named = getattr(recipe, "align_run", "") is not None or getattr(recipe, "is_swept", False)
    if is_named or not newest:
        return recipe
    return type(recipe).model_validate({**recipe.model_dump(mode="json"), "align_run": newest})


def _plan_steps(
    command: str, module: Any, recipe: Recipe, plan: Plan, folder: Path, common: Mapping[str, Any]
) -> list[Step]:
    """Fill in the script of each step: one of a command, those of a workflow."""
    plans = {command: (command, recipe, plan)}
    if command == "workflow":
        plans = {
            name: (recipe.command_of(name), job.recipe, planned)  # type: ignore[attr-defined]
            for name, (job, planned) in module.plan_steps(recipe).items()
        }
    # code that the user's line names is named by a file in the job's
    words = ["--allow-code"] if common["allow_code"] or foreign_code.ran() else []
    words += ["--again"] if common.get("again") else []
    steps = []
    for name, (step_command, step_recipe, planned) in plans.items():
        tasks = max(1, min(recipe.run.cluster.tasks, planned.cells))
        until = [f"until={json.dumps(name)}"] if command == "workflow" else []
        line = [command, "--recipe", str(folder / "line.yaml"), *words, *until]
        limit = recipe.run.cluster.time or _propose_time(step_command, step_recipe, planned, tasks)
        plain = re.sub(r"[^\w.-]+", "-", name)  # a step may be called anything, as *prepare of neurons*
        steps.append(Step(plain, _fill_in(recipe, plain, line, tasks, limit, folder), tasks, planned))
    return steps


def _propose_time(command: str, recipe: Recipe, plan: Plan, tasks: int) -> str:
    """Propose the longest time of a task: by the slowest device that has done such work, in half hours."""
    known: list[float] = []
    if plan.work is not None:
        paces = read_paces(recipe.paths.under_home("runs"))
        begin = plan.work.key(command, "")
        known = [pace.seconds for key, pace in paces.items() if key.startswith(begin)]
    if known and plan.work is not None:
        seconds = max(known) * plan.work.count / tasks
        console.say(f"{command}: {write_duration(seconds)} a task at the pace of the last run of this kind")
        seconds = 1800 * math.ceil(TIME_MARGIN * seconds / 1800 + 1)
    else:
        seconds = DEFAULT_TIME_S
        said = f"{command}: {write_duration(seconds)} a task, as no run of this kind has been timed"
        console.say(f"{said}; run.cluster.time sets another")
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}:00"


def _fill_in(recipe: Recipe, step: str, line: Sequence[str], tasks: int, limit: str, folder: Path) -> str:
    """Fill the template of a job's script.

    Raises:
        MissingData: if there is no such template.
        RecipeError: if it cannot be filled in, with its line.
    """
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    # the program that runs the line: this Python, or the container's
    cluster = recipe.run.cluster
    gpus = (0 if recipe.run.device == "cpu" else 1) if cluster.gpus is None else cluster.gpus
    program = [sys.executable, "-m", "brainhive_cli"]
    if cluster.container:
        # home, the working folder and the hub's cache have the same names inside
        cache = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
        folders = dict.fromkeys(os.path.abspath(path) for path in (home_folder(), Path.cwd(), Path(cache)))
        words = [word for bound in folders for word in ("--bind", bound)] + ["--env", f"HF_HOME={cache}"]
        program = ["apptainer", "exec", *(["--nv"] if gpus else []), *words, cluster.container, "brainhive"]

    # the template sees plain values; to fill it in runs no code, whoever wrote it
    path = locate(cluster.template) if cluster.template else shipped_folder("recipes") / "cluster/slurm.sh.j2"
    if not path.is_file():
        raise MissingData(f"no template {path}", "run.cluster.template names a file, or leave it out")
    values = cluster.model_dump() | {
        "name": f"brainhive-{step}",
        "step": step,
        "line": shlex.join([*program, *line]),
        "tasks": tasks,
        "time": limit,
        "gpus": gpus,
        "machines": recipe.run.machines,
        "folder": str(folder),
        "home": os.path.abspath(home_folder()),
        "working_folder": os.getcwd(),
    }
    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    try:
        return environment.from_string(read_regular(path).decode("utf-8", "replace")).render(values)
    except jinja2.TemplateError as error:
        where = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        known = f"the names it may use are {', '.join(sorted(values))}"
        raise RecipeError(f"{path}{where}: {first_line(error)}", known) from error


def _show(steps: Sequence[Step], plan: Plan, lines: Sequence[str], as_json: bool) -> int:
    """Print the scripts, what is missing, and the line that downloads; the scheduler is not asked."""
    if as_json:
        scripts = {step.name: step.script for step in steps}
        console.show_json({"scripts": scripts, "missing": plan.missing, "downloads": [*lines]})
    else:
        first = f"First, where there is a network: {' && '.join(lines)}" if lines else ""
        for step in steps:
            console.show_text(step.script)
        for missing in plan.missing:
            console.warn(f"missing: {missing}")
        console.show_text(f"# {first or 'Nothing is to be downloaded first'}")
    return MissingData.exit_code if plan.missing else 0


def _submit(folder: Path, recipe: Recipe, steps: Sequence[Step], again: bool) -> None:
    """Write the scripts and queue those of the steps that are not finished, each after the one before."""
    # what was submitted before may still run, or be finished
    known = _read_jobs(folder) or Jobs(jobs=[])
    if queued := _list_queued(known):
        console.say(
            f"{len(queued)} tasks of this line are queued or running: --follow shows them, --cancel ends them"
        )
        return
    open_steps = [*steps]
    while not again and open_steps and _is_finished(folder, open_steps[0], known.inputs):
        open_steps.pop(0)
    if not open_steps:
        console.say("all of this line is finished: nothing is submitted")
        return

    # tasks that start runs again take part in those that others of this submission have started
    for history in (SUBMITTED_RUNS, ENDED) if again else ():
        remove(folder / history)

    # the recipe as it is now: who edits the file later changes no task that waits
    for name in (LOGS, ENDED):  # without the first the scheduler loses the output
        (folder / name).mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "line.yaml") as part:
        part.write_text(recipe.to_yaml(), encoding="utf-8")
    jobs: list[Job] = []
    inputs = {**known.inputs, **{step.name: step.inputs for step in open_steps}}
    for step in open_steps:
        script = folder / f"{step.name}.sh"
        with atomic_write(script) as part:
            part.write_text(step.script, encoding="utf-8")
        # one task that has seen the end of the step before is enough: it has waited for all cells
        ends = [f"afterok:{jobs[-1].id}_{task}" for task in range(jobs[-1].tasks)] if jobs else []
        after = ["--dependency", "?".join(ends), "--kill-on-invalid-dep=yes"] if jobs else []
        number = _ask("sbatch", "--parsable", *after, str(script)).strip().partition(";")[0]
        if not number.isdecimal():
            raise BrainhiveError(f"sbatch answers {number[:80]!r}, no number of a job", f"see {script}")
        jobs.append(Job(step=step.name, id=number, tasks=step.tasks))
        with atomic_write(folder / JOBS) as part:
            part.write_text(Jobs(jobs=jobs, inputs=inputs).model_dump_json(indent=2), encoding="utf-8")
        waits = f", after {jobs[-2].step}" if len(jobs) > 1 else ""
        console.say(
            f"submitted {step.name}: job {number}, {step.tasks} task{'s' if step.tasks > 1 else ''}{waits}"
        )
    console.say(
        f"logs are in {folder / LOGS}; the same line with --follow shows how it goes, --cancel ends it"
    )


def _follow(folder: Path, as_json: bool) -> int:
    """Say once a minute how the jobs go, until all have ended; Ctrl-C leaves them.

    The lines go to stdout, or to stderr where a JSON document follows.

    Returns:
        0 where every step is finished, else 1.
    """
    if (known := _read_jobs(folder)) is None:
        raise MissingData("nothing of this line was submitted", "the same line with --submit")
    named, unseen, failures = set[str](), set[str](), 0
    show = console.say if as_json else console.show_text
    try:
        while True:
            # a scheduler that is busy answers the next time
            try:
                queued, failures = _list_queued(known), 0
            except MissingExtra:
                raise
            except BrainhiveError as error:
                failures += 1
                if failures > MAX_FAILURES:
                    raise
                show(f"{datetime.now():%H:%M} {error.message}")
                time.sleep(POLL_S)
                continue

            # a line for each job, and one for each task that has failed since the last look
            states = {job.step: _find_state(folder, job, queued, unseen) for job in known.jobs}
            for step, state in states.items():
                reasons = f" ({', '.join(dict.fromkeys(state.reasons))})" if state.reasons else ""
                counts = (
                    f"{state.pending} pending{reasons}, {state.running} running, {state.finished} finished, "
                )
                counts += f"{len(state.failed)} failed"
                show(f"{datetime.now():%H:%M} {step}: {counts}{_describe_cells(folder)}")
                for task, code in state.failed.items():
                    if task in named:
                        continue
                    log = folder / LOGS / f"{task}.txt"
                    if code is None and not log.is_file():  # cancelled before, or a step before it has failed
                        show(f"      task {task} did not begin")
                    else:
                        reason = "was killed" if code is None else f"ended with exit code {code}"
                        show(f"      task {task} {reason}: {_last_line(log)}")
                    named.add(task)

            # on a network disk the end of a task is seen up to a minute after it has left the queue
            now_unseen = {task for state in states.values() for task in state.unseen}
            if not queued and now_unseen <= unseen:
                break
            unseen = now_unseen
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.say("the tasks go on: the same line with --follow shows them, --cancel ends them")
        raise

    # a task that has seen the end of its step says that all of the step is finished
    for step, state in states.items():
        if state.finished and state.failed:
            console.say(f"{step} is finished: other tasks have taken over what the failed ones had begun")
    if open_steps := [step for step, state in states.items() if not state.finished]:
        way = "the same line with --submit submits what is open"
        console.fail(BrainhiveError(f"{', '.join(open_steps)}: not finished", way))
        return 1
    return 0


def _cancel(folder: Path) -> int:
    """End the tasks of a line, and say what stays."""
    if (known := _read_jobs(folder)) is None:
        raise MissingData("nothing of this line was submitted", "the same line with --submit")
    queued = _list_queued(known)
    if queued:
        _ask("scancel", *(job.id for job in known.jobs))
    console.say(f"{len(queued)} tasks cancelled{_describe_cells(folder)}; what is finished stays")
    return 0


def _read_jobs(folder: Path) -> Jobs | None:
    """Read the jobs of the last submission; None if there was none."""
    return documents.read(folder / JOBS, Jobs) if (folder / JOBS).is_file() else None


def _list_queued(known: Jobs) -> dict[str, str]:
    """List the tasks that the scheduler has not seen the end of, by id: their state, and why they wait."""
    # a scheduler forgets jobs, and then refuses their numbers
    tasks: dict[str, str] = {}
    for job in known.jobs:
        try:
            text = _ask("squeue", "--noheader", "--array", "--format=%i %T %r", f"--jobs={job.id}")
        except MissingExtra:
            raise
        except BrainhiveError as error:
            if "nvalid job id" not in error.message:
                raise
            continue
        tasks |= dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) > 1)
    return tasks


def _find_state(folder: Path, job: Job, queued: Mapping[str, str], unseen: Set[str]) -> State:
    """Tell the tasks of a job apart: those of the queue, and those that have ended, by what they wrote.

    Args:
        folder: That of the submission.
        job: The job.
        queued: Tasks of the queue.
        unseen: Tasks whose end was not seen at the last look: they are taken for killed.
    """
    state, codes = State(), {end.task: end.code for end in _read_ended(folder)}
    for number in range(job.tasks):
        task = f"{job.id}_{number}"
        if task in queued:
            code, _, reason = queued[task].partition(" ")
            is_waiting = code in ("PENDING", "REQUEUED", "CONFIGURING", "SUSPENDED")
            state.pending += is_waiting
            state.running += not is_waiting
            state.reasons += [reason] if is_waiting and reason not in USUAL_REASONS else []
        elif codes.get(task) == ENDED_CODE:
            state.finished += 1
        else:
            is_new = task not in codes and task not in unseen
            state.running += is_new
            state.unseen += [] if task in codes else [task]
            state.failed |= {} if is_new else {task: codes.get(task)}
    return state


def _is_finished(folder: Path, step: Step, inputs: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a task of a step has seen its end, what it made is still here, and it would read the same."""
    tasks = {end.task for end in _read_ended(folder) if end.step == step.name and end.code == ENDED_CODE}
    before = inputs.get(step.name, {})
    if not tasks or any(before.get(name, value) != value for name, value in step.inputs.items()):
        return False

    # runs, or else stores
    if runs := [listed.run for listed in list_submitted(folder) if listed.job in tasks]:
        return all(RunFolder(Path(run)).is_finished for run in runs)
    return not step.plan.cells


def _read_ended(folder: Path) -> list[Ended]:
    """Read how tasks have ended; of one that was queued again, the last end comes last."""
    ends = []
    for file in sorted((folder / ENDED).glob("*.*.json"), key=lambda file: int(file.name.split(".")[1])):
        with suppress(BrainhiveError, OSError):  # a file that is just being written
            ends.append(documents.read(file, Ended))
    return ends


def _describe_cells(folder: Path) -> str:
    """Count the cells of all runs that the tasks have opened."""
    runs = {Path(listed.run) for listed in list_submitted(folder)}
    counts = [count_cells(run) for run in runs if run.is_dir()]
    total = (
        CellCounts(*(sum(column) for column in zip(*counts, strict=True))) if counts else CellCounts(0, 0, 0)
    )
    return f"; {total.finished} of {sum(total)} cells finished" if sum(total) else ""


def _last_line(log: Path) -> str:
    """Read the last line of a log."""
    if not log.is_file():
        return "it has no log"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_LINE_BYTES))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"{log} is empty"


def _ask(program: str, *words: str) -> str:
    """Run a program of the scheduler, and return what it prints.

    Raises:
        MissingExtra: if it is not on this machine.
        BrainhiveError: if it fails, with its own reason.
    """
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        way = "submit on a login node; --submit --check prints the script anywhere"
        raise MissingExtra(f"no {program} here: SLURM's programs are not on this machine", way) from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[
            -1
        ]
        raise BrainhiveError(f"{program}: {reason}", "check run.cluster; --submit --check prints the script")
    return done.stdout
