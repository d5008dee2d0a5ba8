"""Commands on a cluster: an array of tasks that share the cells of one line."""

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

from brainhive_cli.core import console, documents, foreign_code, hub
from brainhive_cli.core.command import Input, describe_missing, require
from brainhive_cli.core.documents import show_value
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    RecipeError,
    Unfinished,
    first_line,
)
from brainhive_cli.core.files import (
    atomic_write,
    describe_bad_text,
    home_folder,
    locate,
    make_portable,
    shipped_folder,
)
from brainhive_cli.core.jobs import list_inputs, resolve
from brainhive_cli.core.launch import READ_ONLY
from brainhive_cli.core.recipe import Recipe

SUBMITTED = ".submitted"
"""The folder below the runs that holds what was submitted."""
LOGS = "logs"
"""The folder of the tasks' output in a submission."""
JOB_ID = "[0-9]{1,10}"
"""The scheduler's number of a job."""


ClusterSteps = Mapping[str, tuple[str, int]]
"""Array jobs, by the name of a script (that of a command, or a workflow's step): its
text, and its tasks.
"""


def run(command: str, module: Any, recipe: Recipe, common: Mapping[str, Any]) -> int:
    """Submit a command, or print what would be submitted.

    Args:
        command: Its name.
        module: That of the command.
        recipe: The resolved recipe.
        common: Options of the line.

    Returns:
        The exit code.

    Raises:
        MissingData: if the command lacks something, or something is still to be
            downloaded.
        MissingExtra: if there is no scheduler here.
        BrainhiveError: if the scheduler refuses.
    """
    # a line with other folders is another one
    identity = json.dumps(
        [recipe.fingerprint(), make_portable(recipe.paths.model_dump())]
    )
    name = f"{command}-{documents.digest_text(identity)[:10]}"
    folder = Path(os.path.abspath(recipe.paths.under_home("runs") / SUBMITTED / name))
    if common.get("again"):
        raise RecipeError(
            "--again would make everything once more in each task",
            (
                f"remove what is finished ({Line('runs', 'rm', 'NAME')}), then "
                "--submit without it"
            ),
        )

    # a script or an image runs what it likes on every node
    for key in ("template", "container"):
        if value := getattr(recipe.run.cluster, key):
            foreign_code.require(key, f"run.cluster.{key} {value}")
    with console.progress(command):
        inputs = list_inputs(module, recipe)
        steps = _plan_steps(command, module, recipe, folder, common["allow_code"])

    # what is to be downloaded before
    needed = [one.error for one in inputs if not one.is_optional]
    unreachable = [error.hint for error in needed if isinstance(error, hub.Unreachable)]
    lines = [hint.removeprefix(hub.DOWNLOAD_ELSEWHERE) for hint in unreachable]
    lines = [*dict.fromkeys([*(one.line for one in inputs if one.line), *lines])]
    if common["check"]:
        return _show(steps, describe_missing(inputs), lines, common["json"])
    require(inputs)
    if lines:
        raise MissingData(
            "compute nodes have no internet, and not all is downloaded",
            " && ".join(lines),
        )

    # nothing is queued twice, and nothing that is finished; jobs are known by their
    # names
    jobs = list[dict[str, Any]]()
    job_name = f"brainhive-{name.rpartition('-')[2]}"
    job_names = ",".join(f"{job_name}-{step}" for step in steps)
    queued = _ask(
        "squeue", "--me", "--noheader", "--array", "--format=%i", f"--name={job_names}"
    ).split()
    if queued:
        console.say(
            f"{len(queued)} tasks of this line are queued or running; "
            f"scancel --me --name={job_names} ends them"
        )
    elif (count := _count_finished(command, module, recipe)) < 0:
        console.say("all of this line is finished: nothing is submitted")
    else:
        # the last one finishes the workflow, too
        names = [*steps][count:] or [*steps][-1:]
        open_steps = {step: steps[step] for step in names}
        jobs = _submit(folder, job_name, _name_run(recipe, inputs), open_steps)
        console.say(
            f"logs are in {folder / LOGS}; squeue --me shows what waits and runs, "
            f"scancel --me --name={job_names} ends it"
        )
    if common["json"]:
        console.show_json({"folder": str(folder), "jobs": jobs})
    return 0


def _name_run(recipe: Recipe, inputs: Sequence[Input]) -> Recipe:
    """Name the run that is the newest now: tasks that start at other times read the
    same one.
    """
    newest = next(
        (
            one.reference
            for one in inputs
            if one.name.startswith("run ") and one.reference
        ),
        "",
    )
    # commands without the key, named runs and sweeps stay as they are
    is_named = getattr(recipe, "align_run", "") is not None or getattr(
        recipe, "is_swept", False
    )
    if is_named or not newest:
        return recipe
    return type(recipe).model_validate(
        {**recipe.model_dump(mode="json"), "align_run": newest}
    )


def _plan_steps(
    command: str, module: Any, recipe: Any, folder: Path, runs_code: bool
) -> ClusterSteps:
    """Fill in the script of each step: one of a command, those of a workflow."""
    is_workflow = command == "workflow"
    words = ["--allow-code"] if runs_code else []
    steps = dict[str, tuple[str, int]]()
    for name in recipe.list_steps() if is_workflow else [command]:
        # as many tasks as there are cells, at most
        step_module, step_recipe = module, recipe
        if is_workflow:
            _, step_module, step_recipe = module.resolve_step(recipe, name, {})
        tasks = min(recipe.run.cluster.tasks, _count_cells(step_module, step_recipe))

        # the line reads the recipe as it is now, up to this step of a workflow
        text = yaml.safe_dump(
            name, default_style='"', width=math.inf, allow_unicode=True
        ).strip()
        until = [f"until={text}"] if is_workflow else []
        line = [command, "--recipe", str(folder / "line.yaml"), *words, *until]
        # a step may have any name, as *prepare of neurons*
        plain = re.sub(r"[^\w.-]+", "-", name) or "-"
        if plain in steps:
            raise RecipeError(
                f"two steps have the name {plain!r} in files", f"rename {name!r}"
            )
        steps[plain] = _fill_in(recipe, plain, line, tasks, folder), tasks
    return steps


def _count_cells(module: Any, recipe: Recipe) -> int:
    """Count the cells of a command: one where none are counted.

    Of a command that reads what is still to be made, no work is known: there are as
    many as may be had.
    """
    try:
        work = resolve(module, recipe).count_work()
    except BrainhiveError:
        return recipe.run.cluster.tasks
    return work.cells if work else 1


def _count_finished(command: str, module: Any, recipe: Recipe) -> int:
    """Count the steps, from the first, that the line itself would take for finished; -1
    for all of it.
    """
    count = 0
    with console.progress("looking for what is finished"):
        with suppress(Unfinished):
            module.run(recipe, READ_ONLY)
            return -1
        with suppress(Unfinished):
            for _ in (
                module.run_steps(recipe, READ_ONLY, False)
                if command == "workflow"
                else ()
            ):
                count += 1
    return count


def _fill_in(
    recipe: Recipe, step: str, line: Sequence[str], tasks: int, folder: Path
) -> str:
    """Fill the template of a job's script.

    Raises:
        MissingData: if there is no such template.
        RecipeError: if it cannot be filled in, with its line.
    """
    # the program that runs the line: this Python, or the container's
    cluster = recipe.run.cluster
    gpus = (
        (0 if recipe.run.device == "cpu" else 1)
        if cluster.gpus is None
        else cluster.gpus
    )
    program = [sys.executable, "-m", "brainhive_cli"]
    if cluster.container:
        # home, the working folder and the hub's cache have the same names inside
        cache = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
        folders = dict.fromkeys(
            os.path.abspath(path) for path in (home_folder(), Path.cwd(), Path(cache))
        )
        words = [word for bound in folders for word in ("--bind", bound)] + [
            "--env",
            f"HF_HOME={cache}",
        ]
        program = [
            "apptainer",
            "exec",
            *(["--nv"] if gpus else []),
            *words,
            cluster.container,
            "brainhive",
        ]

    # the template sees values as the shell takes them
    path = (
        locate(cluster.template)
        if cluster.template
        else shipped_folder("recipes") / "cluster/slurm.sh.j2"
    )
    if not path.is_file():
        raise MissingData(
            f"no template {path}", "run.cluster.template names a file, or leave it out"
        )
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
        if reason := describe_bad_text(str(value)):
            raise RecipeError(
                f"{name} of the script {reason}: {show_value(value)}",
                "rename the folder",
            )
        if isinstance(value, str) and value:
            values[name] = shlex.quote(value)
    values["line"] = shlex.join([*program, *line])

    # unknown names are errors
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return environment.from_string(path.read_text("utf-8", "replace")).render(
            values
        )
    except Exception as error:  # of any kind, as the template calls methods and filters
        raise RecipeError(
            f"{path}: {first_line(error)}",
            f"the names it may use are {', '.join(sorted(values))}",
        ) from error


def _show(
    steps: ClusterSteps, missing: Sequence[str], lines: Sequence[str], as_json: bool
) -> int:
    """Print the scripts, what is missing, and the line that downloads; the scheduler is
    not asked.
    """
    if as_json:
        scripts = {step: script for step, (script, _) in steps.items()}
        console.show_json(
            {"scripts": scripts, "missing": [*missing], "downloads": [*lines]}
        )
    else:
        first = (
            f"First, where there is a network: {' && '.join(lines)}" if lines else ""
        )
        for script, _ in steps.values():
            console.show_text(*script.split("\n"))
        for line in missing:
            console.warn(f"missing: {line}")
        console.show_text(f"# {first or 'Nothing is to be downloaded first'}")
    return MissingData.exit_code if missing else 0


def _submit(
    folder: Path, job_name: str, recipe: Recipe, steps: ClusterSteps
) -> list[dict[str, Any]]:
    """Write the scripts and queue the steps, each after the one before; return the
    jobs.
    """
    # the recipe as it is now: who edits the file later changes no task that waits
    # without it the scheduler loses the output
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "line.yaml") as part:
        part.write_text(recipe.to_yaml(), "utf-8")

    jobs = list[dict[str, Any]]()
    for step, (text, tasks) in steps.items():
        script = folder / f"{step}.sh"
        with atomic_write(script) as part:
            part.write_text(text, "utf-8")

        # one task that has seen the end of the step before is enough: it has waited for
        # all cells
        ends = (
            [f"afterok:{jobs[-1]['id']}_{task}" for task in range(jobs[-1]["tasks"])]
            if jobs
            else []
        )
        after = (
            ["--dependency", "?".join(ends), "--kill-on-invalid-dep=yes"]
            if jobs
            else []
        )
        answer = _ask(
            "sbatch", "--parsable", f"--job-name={job_name}-{step}", *after, str(script)
        )
        number = answer.strip().partition(";")[0]
        if not re.fullmatch(JOB_ID, number):
            raise BrainhiveError(
                f"sbatch answers {number[:80]!r}, no number of a job",
                "squeue --me lists what is queued",
            )
        waits = f", after {jobs[-1]['step']}" if jobs else ""
        console.say(
            f"submitted {step}: job {number}, {tasks} "
            f"task{'s' if tasks > 1 else ''}{waits}"
        )
        jobs.append({"step": step, "id": number, "tasks": tasks})
    return jobs


def _ask(program: str, *words: str) -> str:
    """Run a program of the scheduler, and return what it prints.

    Raises:
        MissingExtra: if it is not on this machine.
        BrainhiveError: if it fails, with its own reason.
    """
    try:
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise MissingExtra(
            f"no {program} here: SLURM's programs are not on this machine",
            "submit on a login node; --submit --check prints the script anywhere",
        ) from None

    # programs of SLURM end with their reason, on either stream
    if done.returncode:
        reason = (
            done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        ).splitlines()[-1]
        raise BrainhiveError(
            f"{program}: {reason}",
            "check run.cluster; --submit --check prints the script",
        )
    return done.stdout
