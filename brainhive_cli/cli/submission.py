"""Submission of a command to SLURM, the scheduler of a cluster.

A command becomes an array job, whose tasks share the cells of the command. The steps of
a workflow become a chain of array jobs.
"""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    RecipeError,
    Unfinished,
    console,
    first_line,
)
from brainhive_cli.core.files import (
    Input,
    atomic_write,
    describe_bad_text,
    describe_missing,
    documents,
    foreign_code,
    home_folder,
    hub,
    locate,
    make_portable,
    require_inputs,
    shipped_folder,
    show_value,
)
from brainhive_cli.core.recipes import Recipe
from brainhive_cli.core.runs import READ_ONLY, list_inputs, resolve

LOGS_FOLDER = "logs"
"""Name of the folder with the output of the tasks, in the folder of a submission."""


ClusterSteps = Mapping[str, tuple[str, int]]
"""Job script and number of tasks, by name of the step. A command that is no workflow is
a single step.
"""


def submit(command: str, module: Any, recipe: Recipe, common: Mapping[str, Any]) -> int:
    """Submit a command, or print its job scripts (`--check`).

    Args:
        command: Name of the command.
        module: Module of the command.
        recipe: Resolved recipe.
        common: Values of the options that all commands have, by name.

    Returns:
        The exit code.

    Raises:
        RecipeError: if `--again` is set.
        MissingData: if an input must be downloaded first.
        MissingExtra: if this machine has no scheduler.
        BrainhiveError: if an input is missing, or the scheduler rejects a job.
    """
    if common.get("again"):
        raise RecipeError(
            "--again would repeat the whole work in each task",
            f"remove the finished run ({Line('runs', 'rm', 'NAME')}), then use "
            "--submit without --again",
        )

    # the same recipe and folders give the same name, by which jobs are found again
    identity = json.dumps(
        [recipe.fingerprint(), make_portable(recipe.paths.model_dump())]
    )
    digest = documents.digest_text(identity)[:10]
    # Name of the folder of all submissions, below the folder of the runs.
    submissions = recipe.paths.under_home("runs") / ".submitted"
    folder = Path(os.path.abspath(submissions / f"{command}-{digest}"))

    # a template or container image can run any code
    for key in ("template", "container"):
        value = getattr(recipe.run.cluster, key)
        if value:
            foreign_code.require_permission(key, f"run.cluster.{key} {value}")
    with console.progress(command):
        inputs = list_inputs(module, recipe)
        steps = _plan_steps(command, module, recipe, folder, common["allow_code"])

    download_lines = _list_downloads(inputs)
    if common["check"]:
        missing = describe_missing(inputs)
        return _show_scripts(steps, missing, download_lines, common["json"])
    require_inputs(inputs)
    if download_lines:
        raise MissingData(
            "compute nodes have no internet, and some inputs are not downloaded yet",
            " && ".join(download_lines),
        )

    # ask the scheduler for the jobs of an earlier submission
    jobs: list[dict[str, Any]] = []
    job_name = f"brainhive-{digest}"
    job_names = ",".join(f"{job_name}-{step}" for step in steps)
    queued_tasks = _run_scheduler(
        "squeue", "--me", "--noheader", "--array", "--format=%i", f"--name={job_names}"
    ).split()

    if queued_tasks:
        console.say(
            f"{len(queued_tasks)} tasks of this command are queued or running; "
            f"to stop them: scancel --me --name={job_names}"
        )
    else:
        pending_steps = _select_pending_steps(command, module, recipe, steps)
        if pending_steps:
            pinned_recipe = _pin_run(recipe, inputs)
            jobs = _queue_steps(folder, job_name, pinned_recipe, pending_steps)
            console.say(
                f"logs are in {folder / LOGS_FOLDER}; to list the tasks: squeue --me; "
                f"to stop them: scancel --me --name={job_names}"
            )
        else:
            console.say("the run is finished, so nothing is submitted")
    if common["json"]:
        console.show_json({"folder": str(folder), "jobs": jobs})
    return 0


def _list_downloads(inputs: Sequence[Input]) -> list[str]:
    """List the command lines that download inputs, each once."""
    lines = [item.line for item in inputs if item.line]
    for item in inputs:
        if not item.is_optional and isinstance(item.error, hub.Unreachable):
            lines.append(item.error.hint.removeprefix(hub.DOWNLOAD_ELSEWHERE))
    return list(dict.fromkeys(lines))


def _pin_run(recipe: Recipe, inputs: Sequence[Input]) -> Recipe:
    """Name the run of train-align in a recipe that would read the newest run.

    The tasks of a job start at different times, so they could read different runs.

    Args:
        recipe: Recipe of the submitted command.
        inputs: Inputs of the work. The input of a run has a name such as "run NAME".

    Returns:
        A copy of the recipe with the run, or the recipe itself if it names a run or has
        no key `align_run`, or if no input is a run.
    """
    run_names = []
    for item in inputs:
        if item.name.startswith("run ") and item.reference:
            run_names.append(item.reference)

    # a recipe whose key `align_run` is None reads the newest run
    settings = recipe.model_dump(mode="json")
    reads_newest = "align_run" in settings and settings["align_run"] is None
    if not run_names or not reads_newest:
        return recipe
    return type(recipe).model_validate({**settings, "align_run": run_names[0]})


def _plan_steps(
    command: str, module: Any, recipe: Any, folder: Path, runs_code: bool
) -> ClusterSteps:
    """Write the job script of a command, or of each step of a workflow.

    Args:
        command: Name of the command.
        module: Module of the command.
        recipe: Resolved recipe.
        folder: Folder of the submission.
        runs_code: True if the user's line had `--allow-code`.
    """
    is_workflow = command == "workflow"
    groups = recipe.group_tasks() if is_workflow else {command: [command]}
    steps: dict[str, tuple[str, int]] = {}
    for name, names in groups.items():
        # use at most as many tasks as cells
        n_cells = 0
        for step_name in names:
            step_module, step_recipe = module, recipe
            if is_workflow:
                _, step_module, step_recipe = module.resolve_step(recipe, step_name, {})
            n_cells += _count_cells(step_module, step_recipe)
        tasks = min(recipe.run.cluster.tasks, n_cells)

        # the tasks read a copy of the recipe, and run a workflow up to this step
        line = [command, "--recipe", str(folder / "line.yaml")]
        if runs_code:
            line.append("--allow-code")
        if is_workflow:
            quoted_name = yaml.safe_dump(
                name, default_style='"', width=math.inf, allow_unicode=True
            )
            line.append(f"until={quoted_name.strip()}")

        # a step may have a name such as "prepare of neurons", a script must not
        file_stem = re.sub(r"[^\w.-]+", "-", name) or "-"
        if file_stem in steps:
            raise RecipeError(
                f"two steps have the same script name {file_stem!r}",
                f"rename the step {name!r}",
            )
        script = _fill_template(recipe, file_stem, line, tasks, folder)
        steps[file_stem] = script, tasks
    return steps


def _count_cells(module: Any, recipe: Recipe) -> int:
    """Count the cells (pieces of work such as trained models) of a command.

    Returns 1 if the command counts no work, and the largest allowed number of tasks if
    the work is unknown.
    """
    try:
        work = resolve(module, recipe).count_work()
    except BrainhiveError:
        return recipe.run.cluster.tasks
    return work.cells if work else 1


def _select_pending_steps(
    command: str, module: Any, recipe: Any, steps: ClusterSteps
) -> ClusterSteps:
    """Select the steps of a submission that are not finished.

    Returns the last step of a workflow if only its summary is missing. Empty if the
    whole command is finished.
    """
    with console.progress("checking which steps are finished"):
        # with READ_ONLY, a command raises Unfinished if work remains
        with suppress(Unfinished):
            module.run(recipe, READ_ONLY)
            return {}

        # count the finished jobs until a step raises Unfinished
        n_finished = 0
        if command == "workflow":
            last_names = [names[-1] for names in recipe.group_tasks().values()]
            with suppress(Unfinished):
                for name, _ in module.run_steps(recipe, READ_ONLY, False):
                    n_finished += name in last_names

    # the job of the last step writes the summary of the workflow
    names = list(steps)
    pending_names = names[n_finished:] or names[-1:]
    return {name: steps[name] for name in pending_names}


def _wrap_in_container(container: str, has_gpu: bool) -> list[str]:
    """Return the words of a command line that starts `brainhive` in a container.

    Args:
        container: Apptainer image.
        has_gpu: True if the container needs access to the GPUs of the node.
    """
    cache = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    # these folders have the same paths inside and outside the container
    folders = [os.path.abspath(path) for path in (home_folder(), Path.cwd(), cache)]
    program = ["apptainer", "exec"]
    if has_gpu:
        program.append("--nv")
    for folder in dict.fromkeys(folders):
        program += ["--bind", folder]
    program += ["--env", f"HF_HOME={cache}"]
    return program + [container, "brainhive"]


def _fill_template(
    recipe: Recipe, step: str, line: Sequence[str], tasks: int, folder: Path
) -> str:
    """Fill in the template of the job script.

    Args:
        recipe: Resolved recipe, whose section `run.cluster` describes the job.
        step: Name of the step, which is also the name of the script.
        line: Arguments of the command line that each task runs.
        tasks: Number of tasks of the job.
        folder: Folder of the submission.
    """
    cluster = recipe.run.cluster
    path = shipped_folder("recipes") / "cluster/slurm.sh.j2"
    if cluster.template:
        path = locate(cluster.template)
    if not path.is_file():
        raise MissingData(
            f"no template {path}",
            "name an existing file in run.cluster.template, or leave it out",
        )

    gpus = cluster.gpus
    if gpus is None:
        gpus = 0 if recipe.run.device == "cpu" else 1
    program = [sys.executable, "-m", "brainhive_cli"]
    if cluster.container:
        program = _wrap_in_container(cluster.container, has_gpu=gpus > 0)

    # collect the values for the template, and quote them for the shell
    values = cluster.model_dump() | {
        "name": f"brainhive-{step}",
        "step": step,
        "tasks": tasks,
        "gpus": gpus,
        "folder": str(folder),
        "home": os.path.abspath(home_folder()),
        "working_folder": os.getcwd(),
    }
    for name, value in values.items():
        reason = describe_bad_text(str(value))
        if name == "folder" and "\\" in str(value):
            reason = "has a backslash, after which SLURM replaces nothing in a path"
        if reason:
            raise RecipeError(
                f"{name} of the script {reason}: {show_value(value)}",
                "rename the folder",
            )
        if isinstance(value, str) and value:
            values[name] = shlex.quote(value)
    values["line"] = shlex.join(program + list(line))

    # with StrictUndefined, a name in the template without a value is an error
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # a template may call methods and filters, which raise any kind of error
    try:
        template = environment.from_string(path.read_text("utf-8", "replace"))
        return template.render(values)
    except Exception as error:
        raise RecipeError(
            f"{path}: {first_line(error)}",
            f"the template may use these names: {', '.join(sorted(values))}",
        ) from error


def _show_scripts(
    steps: ClusterSteps,
    missing: Sequence[str],
    download_lines: Sequence[str],
    as_json: bool,
) -> int:
    """Print the job scripts of a submission, and return the exit code.

    Args:
        steps: Job script and number of tasks, by name of the step.
        missing: Descriptions of inputs that the user must still provide.
        download_lines: Command lines that download inputs.
        as_json: If True, print a JSON document.
    """
    exit_code = MissingData.exit_code if missing else 0
    if as_json:
        scripts = {step: script for step, (script, _) in steps.items()}
        console.show_json(
            {
                "scripts": scripts,
                "missing": list(missing),
                "downloads": list(download_lines),
            }
        )
        return exit_code

    for script, _ in steps.values():
        console.show_text(*script.split("\n"))
    for description in missing:
        console.warn(f"missing: {description}")
    if download_lines:
        line = " && ".join(download_lines)
        console.show_text(f"# First, on a machine with a network: {line}")
    else:
        console.show_text("# All inputs are downloaded")
    return exit_code


def _queue_steps(
    folder: Path, job_name: str, recipe: Recipe, steps: ClusterSteps
) -> list[dict[str, Any]]:
    """Write the job scripts, and queue each step after the previous step.

    Args:
        folder: Folder of the submission.
        job_name: Beginning of the names of the jobs.
        recipe: Resolved recipe.
        steps: Steps in their order.

    Returns:
        The step, id and number of tasks (`step`, `id` and `tasks`) of each job.
    """
    # later edits of the user's recipe must not change waiting tasks
    (folder / LOGS_FOLDER).mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "line.yaml") as temporary_file:
        temporary_file.write_text(recipe.to_yaml(), "utf-8")

    jobs: list[dict[str, Any]] = []
    for step, (script, tasks) in steps.items():
        script_file = folder / f"{step}.sh"
        with atomic_write(script_file) as temporary_file:
            temporary_file.write_text(script, "utf-8")

        # A task succeeds only when all cells of its step are finished, so the next step
        # may start after the first success.
        arguments = ["--parsable", f"--job-name={job_name}-{step}"]
        suffix = ""
        if jobs:
            previous_job = jobs[-1]
            conditions = [
                f"afterok:{previous_job['id']}_{task}"
                for task in range(previous_job["tasks"])
            ]
            arguments += ["--dependency", "?".join(conditions)]
            arguments.append("--kill-on-invalid-dep=yes")
            suffix = f", after {previous_job['step']}"
        answer = _run_scheduler("sbatch", *arguments, str(script_file))

        # the answer is the number of the job, which may be followed by ;cluster
        number = answer.strip().partition(";")[0]
        # Pattern of the number that the scheduler gives to a job.
        if not re.fullmatch("[0-9]{1,10}", number):
            raise BrainhiveError(
                f"sbatch answered {number[:80]!r} instead of a job number",
                "list the queued jobs with squeue --me",
            )
        plural = "s" if tasks > 1 else ""
        console.say(f"submitted {step}: job {number}, {tasks} task{plural}{suffix}")
        jobs.append({"step": step, "id": number, "tasks": tasks})
    return jobs


def _run_scheduler(program: str, *arguments: str) -> str:
    """Run a program of SLURM, such as `sbatch`, and return its output on stdout."""
    try:
        process = subprocess.run(
            [program, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise MissingExtra(
            f"no {program} on this machine: the programs of SLURM are not installed",
            "submit on a login node; --submit --check prints the script anywhere",
        ) from None

    # the programs of SLURM write the reason last, to stderr or stdout
    if process.returncode:
        output = process.stderr.strip() or process.stdout.strip()
        reason = output.splitlines()[-1] if output else ""
        raise BrainhiveError(
            f"{program}: {reason or f'exit code {process.returncode}'}",
            "check run.cluster; --submit --check prints the script",
        )
    return process.stdout
