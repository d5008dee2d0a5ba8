"""doctor: versions, devices, folders and speed, and which tasks would run here."""

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from brainhive_cli.core.base import (
    BrainhiveError,
    DeviceError,
    Line,
    MissingData,
    MissingExtra,
    Table,
    console,
    describe_hidden_libraries,
    first_line,
    format_number,
    install_line,
)
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.recipes import START, BaseRecipe
from brainhive_cli.core.runs import (
    Launch,
    Result,
    find_broken_libraries,
    library_version,
    library_versions,
)

BROKEN_LABEL = "libraries that fail to import"


class Libraries(NamedTuple):
    """Libraries that the package states as its dependencies.

    Attributes:
        lacking: Required libraries that are absent or of another version.
        extras: State of each extra, a group of optional libraries, by name.
    """

    lacking: list[str]
    extras: dict[str, str]


class Recipe(BaseRecipe):
    """Recipe of doctor. It has only the sections `paths` and `run` of all recipes."""

    can_share_work = False
    skips_finished = False
    runs_code = False
    section = START
    summary = (
        "Describe this machine, measure its speed, and list tasks that would run here."
    )


def inputs(recipe: Recipe) -> list[Input]:
    """Return no inputs, because the command needs no files."""
    return []


def check_libraries() -> Libraries:
    """Compare the installed libraries with the metadata of the package.

    Returns:
        The result. It is empty if the package was not installed by pip, because then
        there is no metadata.
    """
    package = "brainhive"
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return Libraries([], {})
    texts = importlib.metadata.requires(package) or []
    requirements = [Requirement(text) for text in texts]

    lacking = _list_lacking(requirements, "")
    extras = {}
    for extra in sorted(metadata.get_all("Provides-Extra") or []):
        lacking_of_extra = _list_lacking(requirements, extra)
        state = "installed"
        if lacking_of_extra:
            names = ", ".join(lacking_of_extra)
            state = f"lacks {names}: {install_line(extra)}"
        extras[extra] = state
    return Libraries(lacking, extras)


def _list_lacking(requirements: list[Requirement], extra: str) -> list[str]:
    """List the libraries that are absent or have another version than is required.

    Args:
        requirements: Requirements of the package and its extras.
        extra: Extra whose libraries are checked, or "" for the required libraries.
    """
    names = []
    for requirement in requirements:
        marker = requirement.marker
        is_always_required = marker is None or marker.evaluate({"extra": ""})
        if extra:
            # a library of an extra is required by the extra alone
            is_checked = bool(marker and marker.evaluate({"extra": extra}))
            is_checked = is_checked and not is_always_required
        else:
            is_checked = is_always_required
        if not is_checked:
            continue

        version = library_version(requirement.name)
        if version == "absent":
            names.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            names.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return names


def judge_machine(
    lacking: list[str],
    broken: list[MissingExtra],
    home: Path,
    is_writable: bool,
    free_gb: float,
    device_name: str,
    n_gpus: int,
    device_error: DeviceError | None,
    n_possible: str,
) -> tuple[str, BrainhiveError | None]:
    """Say in one sentence whether this machine can run the standard commands.

    Args:
        lacking: Required libraries that are absent or of another version.
        broken: Errors of installed libraries that cannot be imported.
        home: Folder of data, stores and runs.
        is_writable: True if files can be written there.
        free_gb: Free disk space there.
        device_name: Name of the GPU, or "cpu".
        n_gpus: Number of GPUs that torch can use.
        device_error: Error of a GPU on which torch cannot compute, or None.
        n_possible: Number of tasks that would run here, as in "3 of 10".

    Returns:
        The sentence, and the first error that prevents the commands, or None.
    """
    error: BrainhiveError | None = None
    # Free disk space that the demo and a study on simulated data need, with a reserve.
    min_free_gb = 1
    if broken:
        error = broken[0]
    elif lacking:
        names = ", ".join(lacking)
        message = f"required libraries are missing: {names}"
        error = MissingExtra(message, describe_hidden_libraries() or install_line())
    elif not is_writable:
        error = MissingData(
            f"{home} cannot be written", "set BRAINHIVE_HOME to a folder of your own"
        )
    elif free_gb < min_free_gb:
        error = MissingData(
            f"{home} has {free_gb:.1f} GB of free space, less than {min_free_gb} GB",
            "free some space, or set BRAINHIVE_HOME to a folder on another disk",
        )
    elif device_error:
        error = device_error
    if error:
        sentence = f"This machine cannot run the standard commands: {error.message}."
        return sentence, error

    device = "CPU" if device_name == "cpu" else device_name
    sentence = f"{n_possible} tasks below would run on the {device}."
    if not n_gpus:
        sentence = f"No usable GPU. {sentence}"
    return sentence, None


def judge_task(
    task: Mapping[str, Any],
    seconds: float | None,
    device_name: str,
    memory_gb: float,
    free_gb: float,
) -> str:
    """Return "yes" if a task would run here, else the reason why not.

    Args:
        task: The task and its needs, in GB (see `machine_speed.read_tasks`).
        seconds: Estimated duration, or None if it is unknown.
        device_name: Name of the GPU, or "cpu".
        memory_gb: Memory of the GPU, or of the machine without a GPU.
        free_gb: Free disk space.
    """
    # Memory that a GPU needs, relative to the estimate from shapes.
    needed_gb = task["memory_gb"] * 1.1
    if needed_gb > memory_gb:
        kind = "memory" if device_name == "cpu" else "GPU memory"
        return f"needs {needed_gb:.0f} GB of {kind}, has {memory_gb:.0f} GB"
    if task["disk_gb"] > free_gb:
        return f"needs {task['disk_gb']:.0f} GB of disk, {free_gb:.0f} GB are free"
    # Longest task that counts as possible.
    max_duration_s = 30 * 86_400
    if seconds and seconds > max_duration_s:
        return "too slow"
    return "yes"


def describe_load() -> str:
    """Describe the load average if it exceeds the number of cores, else return ""."""
    if not hasattr(os, "getloadavg"):
        return ""
    load = os.getloadavg()[0]
    n_cores = os.cpu_count() or 1
    if load <= n_cores:
        return ""
    return f"{load:.1f} on {n_cores} cores: measured times are too long"


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Describe this machine, measure its speed, and list tasks that would run here.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: Not used, because the machine is always described.

    Returns:
        A table of facts, which ends in a verdict, then measured speeds and estimates.
        The exit code is not 0 if this machine cannot run the standard commands.
    """
    start_s = time.perf_counter()
    load = describe_load()
    home = recipe.paths.under_home("data").parent
    errors = find_broken_libraries()
    for error in errors:
        console.warn(error.in_one_line)

    import psutil
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from brainhive_cli.core.runs import machine_speed

    rates = {"starts": 1 / (time.perf_counter() - start_s)}

    # if the home folder does not exist, test its nearest existing parent
    existing_folder = home.resolve()
    while not existing_folder.exists():
        existing_folder = existing_folder.parent

    is_writable = os.access(existing_folder, os.W_OK)
    free_gb = shutil.disk_usage(existing_folder).free / 1e9
    n_gpus = torch.cuda.device_count()
    has_mps = torch.backends.mps.is_available()
    facts: dict[str, Any] = dict(library_versions())
    facts |= {
        BROKEN_LABEL: "; ".join(error.message for error in errors) or "none",
        "libraries that others hide": describe_hidden_libraries() or "none",
        "device": launch.device_name,
        "torch built for CUDA": torch.version.cuda or "no",
        "GPUs": n_gpus,
        "Apple GPU (MPS)": "available, but not used" if has_mps else "none",
        "system": platform.platform(),
        "CPU cores": os.cpu_count(),
        "CPU threads": torch.get_num_threads(),
        "home": home.resolve(),
        "home can be written": is_writable,
        "free at home": f"{free_gb:.1f} GB",
    }
    if load:
        facts["load average"] = load
    if torch.cuda.is_available():
        facts["bf16 on the GPU"] = torch.cuda.is_bf16_supported()

    memory_gb = psutil.virtual_memory().total / 1e9
    facts["memory"] = f"{memory_gb:.0f} GB"
    for number in range(n_gpus):
        gpu = torch.cuda.get_device_properties(number)
        gpu_gb = gpu.total_memory / 1e9
        version = f"compute capability {gpu.major}.{gpu.minor}"
        facts[f"GPU {number}"] = f"{gpu.name}, {gpu_gb:.0f} GB, {version}"
    if launch.device.type == "cuda":
        memory_gb = torch.cuda.get_device_properties(launch.device).total_memory / 1e9
    measured_rates, device_error = measure_rates(launch, existing_folder)
    rates |= measured_rates

    for name in ("data", "embeddings", "signals", "runs"):
        folder = recipe.paths.under_home(name)  # type: ignore[arg-type]
        entries = []
        if folder.is_dir():
            folders = [child for child in folder.iterdir() if child.is_dir()]
            entries = sorted(child.name for child in folders)
        # Largest number of file names that are listed for a folder.
        facts[name] = ", ".join(entries[:6]) or "nothing yet"

    files = [path for path in hub.DEMO_WEIGHTS.rglob("*") if path.is_file()]
    weights_gb = sum(file.stat().st_size for file in files) / 1e9
    facts["hub cache"] = HF_HUB_CACHE
    facts["hub token"] = hub.describe_token()
    facts["demo weights"] = f"{weights_gb:.2f} GB"

    libraries = check_libraries()
    for extra, state in libraries.extras.items():
        facts[f"extra {extra}"] = state
    tasks = list_tasks(rates, launch.device_name, memory_gb, free_gb)
    possible = [task for task in tasks if task["runs here"] == "yes"]
    verdict, problem = judge_machine(
        lacking=libraries.lacking,
        broken=errors,
        home=home.resolve(),
        is_writable=is_writable,
        free_gb=free_gb,
        device_name=launch.device_name,
        n_gpus=n_gpus,
        device_error=device_error,
        n_possible=f"{len(possible)} of {len(tasks)}",
    )
    facts["verdict"] = verdict
    speeds = []
    for name, rate in rates.items():
        label, divisor, unit = machine_speed.UNITS[name]
        speeds.append((label, f"{format_number(rate / divisor)} {unit}"))
    rows = [(task["task"], task["runs here"], task["time"]) for task in tasks]
    return Result(
        home,
        (
            Table("This machine", ("item", "found"), tuple(facts.items())),
            Table("Measured speed", ("quantity", "speed"), speeds),
            Table(
                "What would run here",
                ("task", "runs here", "time"),
                rows,
                note="Times are estimates from the measured speed and the work of "
                "each task, without downloads. On a CPU, demo, embed and "
                "train-align took 0.8 to 1.2 times as long. On a GPU the "
                "estimates have not been compared yet. Disk counts all files of"
                " a task, also those that are here. After a first run, --check "
                "estimates from that run.",
                keeps_columns=True,
            ),
        ),
        details=facts | {"rates": rates, "tasks": tasks},
        hint=problem.hint if problem else Line("demo"),
        exit_code=problem.exit_code if problem else 0,
    )


def measure_rates(
    launch: Launch, folder: Path
) -> tuple[dict[str, float], DeviceError | None]:
    """Measure the decoding of pictures, the first GPU or the CPU, and a disk.

    Args:
        launch: Processes and device.
        folder: Folder on the disk.

    Returns:
        Rates (see `machine_speed.UNITS`) of all that could be measured, and the error
        of a GPU on which torch cannot compute, or None.
    """
    from brainhive_cli.core.runs import machine_speed

    device_error = None
    with console.progress("measuring the speed of this machine"):
        rates = {"pictures": machine_speed.measure_decoding()}
        try:
            rates |= machine_speed.measure_device(launch.device)
        except RuntimeError as error:
            device_error = DeviceError(
                f"torch cannot compute on {launch.device_name}: {first_line(error)}",
                "install a torch that supports this GPU and its driver, free the GPU's "
                "memory (nvidia-smi), or set run.device=cpu",
            )
        with suppress(OSError):
            rates |= machine_speed.measure_disk(folder)
    return rates, device_error


def list_tasks(
    rates: Mapping[str, float], device_name: str, memory_gb: float, free_gb: float
) -> list[dict[str, Any]]:
    """List common tasks with "runs here", "seconds" (or None) and "time".

    Args:
        rates: Measured rates (see `machine_speed.UNITS`).
        device_name: Name of the GPU, or "cpu".
        memory_gb: Memory of the GPU, or of the machine without a GPU.
        free_gb: Free disk space.
    """
    from brainhive_cli.core.runs import machine_speed

    tasks: list[dict[str, Any]] = []
    # Longest duration that is stated as a number.
    max_stated_days = 60
    for task in machine_speed.read_tasks():
        seconds = machine_speed.estimate_seconds(task, rates)
        answer = judge_task(task, seconds, device_name, memory_gb, free_gb)
        time_text = "unknown"
        if seconds and seconds > max_stated_days * 86_400:
            time_text = f"over {max_stated_days} days"
        elif seconds:
            time_text = f"about {console.write_duration(seconds)}"
        facts = {"runs here": answer, "seconds": seconds, "time": time_text}
        tasks.append(task | facts)
    return tasks
