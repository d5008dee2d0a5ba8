"""Processes, devices and library versions of a command.

The launcher of accelerate starts several processes of a command. Each process has a
rank, a number from 0. The process of rank 0 is the main process.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from brainhive_cli import __version__
from brainhive_cli.core.base import (
    CONTINUE_HINT,
    INTERRUPTED_EXIT_CODE,
    STOPPED_EXIT_CODE,
    BrainhiveError,
    DeviceError,
    LostProcess,
    MissingExtra,
    RecipeError,
    console,
    describe_hidden_libraries,
    first_line,
    install_line,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import RunOptions

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
COMMAND_LINE = ContextVar[Sequence[str]]("COMMAND_LINE")
"""Arguments of a command that Python code started. Otherwise they are in `sys.argv`."""
REPORTS_VARIABLE = "BRAINHIVE_REPORTS"
"""Environment variable with the folder for the errors of launched processes."""
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun and accelerate set for every process, besides
WORLD_SIZE.
"""
LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "timm",
    "open_clip_torch",
    "accelerate",
    "h5py",
    "numpy",
    "scipy",
    "pillow",
    "safetensors",
    "mne",
    "mne-bids",
    "nibabel",
    "scikit-learn",
)
"""Libraries whose version can change the numeric results."""
GPU_DRIVER_FILES = ("nvidiactl", "nvmap", "kfd", "dxg")
"""Files in /dev that the drivers of GPUs create: NVIDIA, NVIDIA Jetson, AMD and WSL
(Linux in Windows).
"""
IMPORT_PROBES = {
    "torchvision": "",
    "torchaudio": "",
    "transformers": "CLIPVisionModelWithProjection",
    "diffusers": "UNet2DConditionModel",
    "timm": "",
    "accelerate": "",
}
"""Name to import from each library as a test, keyed by the library.

transformers and diffusers import lazily, so they are tested with a class. torchvision
and torchaudio come first, because the other libraries import them.
"""


@dataclass(frozen=True)
class Launch:
    """This process of a command, among the processes that share the work.

    Attributes:
        rank: Number of this process, from 0.
        processes: Number of processes that share the work.
        device_or_name: Device of this process, or its name, which needs no torch.
        is_read_only: True if the process only reads finished work.
    """

    rank: int
    processes: int
    device_or_name: "str | torch.device"
    is_read_only: bool = False

    @cached_property
    def device(self) -> "torch.device":
        """Device of this process. The first access imports torch."""
        import torch

        return torch.device(self.device_or_name)

    @property
    def is_main(self) -> bool:
        """True if this process writes the files that all processes share."""
        return self.rank == 0 and not self.is_read_only

    @property
    def single_process(self) -> "Launch":
        """Launch with only this process, for work that the process does alone."""
        return replace(self, rank=0, processes=1)

    @property
    def device_name(self) -> str:
        """Name of the GPU model, or "cpu"."""
        if self.device_or_name == "cpu" or self.device.type != "cuda":
            return "cpu"
        import torch

        return torch.cuda.get_device_name(self.device)

    def describe_environment(self) -> dict[str, Any]:
        """Describe the software and hardware, for a run's `environment.json`."""
        import torch  # the run is about to compute, so torch is needed anyway

        command_line = ["brainhive"]
        command_line += COMMAND_LINE.get(sys.argv[1:])
        return {
            "command_line": command_line,
            **self._software,
            "device": self.device_name,
            "processes": self.processes,
            # the number of threads changes the rounding of sums
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
        }

    @cached_property
    def _software(self) -> dict[str, Any]:
        """Versions and commit of this process, which many runs record."""
        return {
            "versions": library_versions(),
            "commit": read_commit(Path(__file__).parents[2]),
        }

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Select the consecutive items that this process works on.

        The numbers of items of two processes differ by at most 1.

        Args:
            items: Items [N] of all processes, in the same order in every process.
        """
        start = len(items) * self.rank // self.processes
        stop = len(items) * (self.rank + 1) // self.processes
        return items[start:stop]

    def barrier(self) -> None:
        """Wait until every process has called this method."""
        if self.processes > 1:
            import torch.distributed

            # without an argument, NCCL guesses the device
            device_ids = [self.device.index] if self.device.type == "cuda" else None
            torch.distributed.barrier(device_ids=device_ids)

    def run_on_main(self, function: Callable[[], T]) -> T:
        """Call a function in the main process, and return its result in all processes.

        All processes must call this method. The result must be picklable.
        """
        self.barrier()
        main_result = function() if self.rank == 0 else None
        result: T = self.gather(main_result)[0]
        return result

    def run_main_first(self, function: Callable[[], T]) -> T:
        """Call a function in the main process, then in all other processes."""
        if self.rank == 0:
            result = function()
            self.barrier()
            return result
        self.barrier()
        return function()

    def gather(self, item: Any) -> list[Any]:
        """Collect a picklable object from every process in a list for every process."""
        if self.processes == 1:
            return [item]
        import torch.distributed

        gathered = [None] * self.processes
        torch.distributed.all_gather_object(gathered, item)
        return gathered

    def gather_rows(self, share: "torch.Tensor", count: int) -> "torch.Tensor":
        """Concatenate the rows of a tensor from all processes, with their gradients.

        Args:
            share: Rows [B_share, ...] of this process, as divided by `shard`.
            count: Total number of rows B.

        Returns:
            The rows [B, ...] of all processes, in the order of the ranks.
        """
        if self.processes == 1:
            return share
        import torch
        from torch.distributed.nn.functional import all_gather

        # the number of rows of each process
        ends = [count * rank // self.processes for rank in range(self.processes + 1)]
        lengths = [stop - start for start, stop in pairwise(ends)]

        # all_gather needs shares of equal length
        n_missing = max(lengths) - len(share)
        padding = [0, 0] * (share.ndim - 1) + [0, n_missing]
        padded_share = torch.nn.functional.pad(share, padding)

        # torch warns about a private function that it calls itself
        with warnings.catch_warnings(action="ignore"):
            padded_shares = all_gather(padded_share)

        shares = []
        for padded_rows, length in zip(padded_shares, lengths, strict=True):
            shares.append(padded_rows[:length])
        return torch.cat(shares)

    def average_gradients(self, parameters: "Iterable[torch.nn.Parameter]") -> None:
        """Average the gradients of parameters over all processes, in place.

        A missing gradient counts as zeros. If no process has a gradient, it stays None.

        Args:
            parameters: Parameters in the same order in every process.
        """
        if self.processes == 1:
            return
        import torch
        import torch.distributed

        # gradients, and flags: 1 for a parameter with a gradient, 0 without
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = []
        flags = []
        for parameter in trained:
            flags.append(float(parameter.grad is not None))
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            gradients.append(gradient.flatten())
        sizes = [len(gradient) for gradient in gradients]

        # average them over processes, as a single vector that is exchanged once
        gradients.append(torch.tensor(flags, device=self.device))
        vector = torch.cat(gradients)
        torch.distributed.all_reduce(vector)
        vector /= self.processes

        # store the mean gradients, unless the mean flag is 0 (no process has one)
        averages, mean_flags = vector.split((sum(sizes), len(trained)))
        for parameter, average, mean_flag in zip(
            trained, averages.split(sizes), mean_flags, strict=True
        ):
            if parameter.grad is not None:
                parameter.grad.copy_(average.view_as(parameter))
            elif mean_flag.item():  # reading the flag waits for the device
                parameter.grad = average.view_as(parameter).clone()

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Return a context in which torch computes in "fp32", "bf16" or "fp16"."""
        import torch

        if precision == "fp32":
            return nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        return torch.autocast(self.device.type, dtype)


def may_have_gpu() -> bool:
    """Return False if it is clear without torch that this machine has no GPU.

    It is clear on Linux without a driver file in /dev, if torch is not imported yet.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return True
    return any(Path("/dev", name).exists() for name in GPU_DRIVER_FILES)


READ_ONLY = Launch(rank=0, processes=1, device_or_name="cpu", is_read_only=True)
"""Launch of a command that only reads finished work."""


def start(options: RunOptions) -> Launch:
    """Find out the device of this process, and which of the processes it is.

    A process of a launcher joins the process group of torch.

    Args:
        options: Options of the recipe, with the device ("auto", "cpu" or "cuda").

    Raises:
        DeviceError: if the device is not available, or processes outnumber GPUs.
        RecipeError: if WORLD_SIZE is set, but other variables of a launcher are not.
    """
    # the device is the CPU, or a GPU for each process
    uses_cpu = options.device == "cpu"
    if options.device == "auto" and not may_have_gpu():
        uses_cpu = True
    if not uses_cpu:
        import torch

        uses_cpu = not torch.cuda.is_available()
        if options.device == "cuda" and uses_cpu:
            raise DeviceError(
                "run.device is cuda, but no CUDA device is visible",
                "set run.device=cpu, or check nvidia-smi",
            )
        n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        n_gpus = torch.cuda.device_count()
        if not uses_cpu and n_processes > n_gpus:  # NCCL's own error is unclear
            raise DeviceError(
                f"{n_processes} processes on a machine with {n_gpus} GPUs: each "
                "process needs its own GPU",
                f"start at most {n_gpus} processes here, or set run.device=cpu",
            )

    # this process is alone
    if os.environ.get("WORLD_SIZE", "1") in ("1", ""):
        return Launch(0, 1, "cpu" if uses_cpu else "cuda")

    # the variables of the launcher say which of the processes this is
    missing_variables = [name for name in LAUNCHER_VARIABLES if name not in os.environ]
    if missing_variables:
        raise RecipeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but no launcher has set "
            f"{', '.join(missing_variables)}",
            "unset WORLD_SIZE, and start several processes with --processes",
        )
    from accelerate import PartialState

    # Longest time that a process waits for the others, which may still work.
    max_wait = timedelta(days=1)
    state = PartialState(cpu=uses_cpu, timeout=max_wait)
    return Launch(state.process_index, state.num_processes, state.device)


def open_device(name: object) -> "torch.device":
    """Return the torch device of a name, if this machine has it.

    Args:
        name: Name of the device, such as "cpu", "cuda", "cuda:0" or "mps".

    Raises:
        DeviceError: if the name is wrong, or torch does not see the device.
    """
    import torch

    no_device = DeviceError(
        f"no device {str(name)[:80]!r}", "set device to cpu, cuda or cuda:0"
    )
    try:
        device = torch.device(str(name))
    except (RuntimeError, ValueError):
        raise no_device from None

    is_mps = device.type == "mps" and torch.backends.mps.is_available()
    if device.type == "cuda":
        n_gpus = torch.cuda.device_count()
        if (device.index or 0) >= n_gpus:
            raise DeviceError(
                f"device {name}: {n_gpus} CUDA devices are visible",
                "set device=cpu, or check nvidia-smi",
            )
    elif device.type != "cpu" and not is_mps:
        raise no_device
    return device


def count_processes(options: RunOptions) -> int:
    """Return the number of processes to launch.

    - 1 in a process of a launcher.
    - Otherwise the number in the recipe, if it is set.
    - Otherwise the number of GPUs, or 1 without a GPU or for the device "cpu".
    """
    if "LOCAL_RANK" in os.environ:
        return 1
    if options.processes is not None:
        return options.processes
    if options.device == "cpu" or not may_have_gpu():
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def relaunch(options: RunOptions, processes: int, less_memory: str = "") -> int:
    """Run this command line again in several processes, with accelerate's launcher.

    Args:
        options: Options of the recipe, with the precision.
        processes: Number of processes.
        less_memory: Overrides such as `batch_size=64`, which the error of a
            killed process suggests.

    Returns:
        The exit code: 0, or 130 if the command was interrupted.

    Raises:
        BrainhiveError: with the error of the process that failed first.
        KeyboardInterrupt: if a signal other than Ctrl-C ends the launcher.
    """
    with console.progress("starting"):
        import psutil
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # the processes print their own messages, and share the CPU cores
    logging.disable()
    threads = max(1, (os.cpu_count() or 1) // processes)
    initial_environment = dict(os.environ)
    with TemporaryDirectory() as reports:
        # `python -m` would import other code in the working directory first
        os.environ["PYTHONSAFEPATH"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
        os.environ[REPORTS_VARIABLE] = reports

        # the config file of the user may be damaged or meant for other work
        config = Path(reports, "launch.yaml")
        # Config file of accelerate's launcher. Command-line arguments override it.
        launcher_config = {"distributed_type": "MULTI_GPU", "mixed_precision": "no"}
        config.write_text(json.dumps(launcher_config))
        arguments = [
            f"--config_file={config}",
            "--multi_gpu",
            f"--num_processes={processes}",
            "--num_machines=1",
            "--main_process_port=0",
            f"--mixed_precision={options.mixed_precision or 'no'}",
            "--dynamo_backend=no",
            f"--num_cpu_threads_per_process={threads}",
            "--module",
            "brainhive_cli",
        ]
        arguments += COMMAND_LINE.get(sys.argv[1:])

        def forward_stop_signal(number: int, frame: FrameType | None) -> None:
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGUSR1)

        # wait for the processes, and turn their failure into an error
        initial_handler = signal.signal(signal.SIGUSR1, forward_stop_signal)
        try:
            raise_if_asked_to_stop()  # the signal may have come before the handler
            launch_command(launch_command_parser().parse_args(arguments))
        except ChildFailedError as error:
            failures = error.failures.items()
            exit_codes = {rank: failure.exitcode for rank, failure in failures}
            if INTERRUPTED_EXIT_CODE in exit_codes.values():
                return INTERRUPTED_EXIT_CODE
            raise _find_cause(exit_codes, Path(reports), less_memory) from None
        except SignalException as error:
            # Ctrl-C also reaches the processes, which print that they were interrupted
            if error.sigval != signal.SIGINT:
                raise KeyboardInterrupt from error
            return INTERRUPTED_EXIT_CODE
        except KeyboardInterrupt:
            return INTERRUPTED_EXIT_CODE
        finally:
            # restore the state of this process
            signal.signal(signal.SIGUSR1, initial_handler)
            logging.disable(logging.NOTSET)
            os.environ.clear()
            os.environ.update(initial_environment)
    return 0


def write_report(code: int, error: BrainhiveError) -> bool:
    """Write the error of this process to a file, which `relaunch` reads.

    Returns:
        True if the error was written. False if `relaunch` did not start this process.
    """
    folder = os.environ.get(REPORTS_VARIABLE)
    if folder is None:
        return False

    # characters that UTF-8 cannot write (surrogates in file names) become escapes
    message = error.message.encode(errors="backslashreplace").decode()
    hint = error.hint.encode(errors="backslashreplace").decode()
    report = [code, message, hint, isinstance(error, LostProcess)]

    # the launcher may end this process at any time
    path = Path(folder, f"{os.environ.get('RANK', '0')}.json")
    temporary_path = path.with_suffix(".part")
    temporary_path.write_text(json.dumps(report))
    os.replace(temporary_path, path)
    return True


def exit_worker(code: int) -> None:
    """End this process without Python's shutdown if a launcher started it.

    A thread of gloo may abort a process that shuts down (pytorch pull request 179291).
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("1", ""):
        with suppress(OSError):
            console.flush()
        os._exit(code)


def _find_cause(
    exit_codes: Mapping[int, int], folder: Path, less_memory: str
) -> BrainhiveError:
    """Find the error that ended the processes of a launch.

    The first of these is returned: a reported error, the report of a lost process
    (unless a signal other than SIGTERM ended a process), a signal, an exit code.

    Args:
        exit_codes: Exit codes of failed processes by rank. A negative code is a signal.
        folder: Folder of the reports that the processes wrote.
        less_memory: Overrides that make the command use less memory, or "".
    """
    # read the reports in the order of time
    losses = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        exit_code, message, hint, is_loss = documents.read(
            path, tuple[int, str, str, bool]
        )
        error = BrainhiveError(message, hint, exit_code)
        if not is_loss:
            return error
        losses.append(error)

    # torch ends the other processes with SIGTERM when a process fails
    signals = {}
    kill_signals = {}
    for rank, exit_code in exit_codes.items():
        if exit_code < 0:
            signals[rank] = Signals(-exit_code)
            if signals[rank] != Signals.SIGTERM:
                kill_signals[rank] = signals[rank]

    if losses and not kill_signals:
        return losses[0]
    if not signals:
        exit_code = max(exit_codes.values(), default=1)
        return BrainhiveError(
            f"a process of the launch ended with exit code {exit_code}",
            CONTINUE_HINT,
            exit_code,
        )
    end_signals = kill_signals or signals
    rank, end_signal = next(iter(end_signals.items()))
    if end_signal == Signals.SIGUSR1:  # the process could not handle the signal yet
        message = f"process {rank} of the launch was stopped by a signal"
        return BrainhiveError(message, CONTINUE_HINT, STOPPED_EXIT_CODE)
    if end_signal == Signals.SIGKILL:
        remedy = less_memory or "use fewer processes, or a machine with more memory"
        return DeviceError(
            f"process {rank} of the launch was killed (SIGKILL), probably because "
            "memory ran out",
            f"{remedy}; {CONTINUE_HINT}",
        )
    return BrainhiveError(
        f"process {rank} of the launch was ended by {end_signal.name}", CONTINUE_HINT
    )


@cache
def library_version(library: str) -> str:
    """Return the version of an installed library, or "absent"."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def read_commit(package: Path) -> str:
    """Return the commit of a package whose parent is the top of its repository, or "".

    A repository further up is that of a study, in which the package is installed.
    """
    command = ["git", "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    command.append("HEAD:./__init__.py")  # an error if it is not tracked
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    top, commit, _ = finished.stdout.splitlines()
    return commit if Path(top).samefile(package.parent) else ""


def library_versions() -> dict[str, str]:
    """Return the versions of Python, Brainhive and `LIBRARIES`, keyed by name."""
    versions = {"python": platform.python_version(), "brainhive": __version__}
    for library in LIBRARIES:
        versions[library] = library_version(library)
    return versions


def find_broken_libraries() -> list[MissingExtra]:
    """Find installed libraries that cannot be imported, for `brainhive doctor`.

    Returns:
        An error for each library that itself causes a failed import.
    """
    errors: dict[str, MissingExtra] = {}
    for name, probe in IMPORT_PROBES.items():
        if importlib.util.find_spec(name) is None:
            continue
        console.say(f"importing {name} {library_version(name)}")
        try:
            module = importlib.import_module(name)
            if probe:
                getattr(module, probe)
        except Exception as error:
            # a module can raise any error while it is imported
            library, cause = _find_broken_library(error) or (name, error)
            errors.setdefault(library, _describe(library, cause))
    return list(errors.values())


def find_failed_import(error: BaseException | None) -> MissingExtra | None:
    """Describe the library whose failed import led to an error.

    Args:
        error: Error with its traceback and the errors that caused it, or None.

    Returns:
        An error that names the library, or None if no import of `IMPORT_PROBES` failed.
    """
    failure = _find_broken_library(error)
    return _describe(failure[0], failure[1]) if failure else None


def _find_broken_library(
    error: BaseException | None,
) -> tuple[str, BaseException] | None:
    """Find the library whose import failed first, and the error of this import."""
    if error is None:
        return None

    # the earliest error comes from the broken library itself
    earlier_failure = _find_broken_library(error.__cause__ or error.__context__)
    if earlier_failure is not None:
        return earlier_failure

    # a line at the top level of a module runs while the module is imported
    library = ""
    for frame, _ in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if frame.f_code.co_name == "<module>" and package in IMPORT_PROBES:
            library = package
    return (library, error) if library else None


def _describe(name: str, error: BaseException) -> MissingExtra:
    """Describe a library that cannot be imported, with a pip command to repair it."""
    message = (
        f"{name} {library_version(name)} does not import with torch "
        f"{library_version('torch')}: {first_line(error)}"
    )

    hint = describe_hidden_libraries(error)
    if hint:
        return MissingExtra(message, hint)

    # torchvision and torchaudio are built for one version of torch
    if name == "torchvision":
        hint = "pip install --force-reinstall torch torchvision"
    elif name != "torchaudio":
        hint = f"pip install --upgrade {name}"
    elif library_version("braindecode") == "absent":
        hint = "pip uninstall torchaudio (Brainhive does not use it)"
    else:
        # braindecode is the only library that needs torchaudio
        hint = (
            f"{install_line('braindecode')} (or pip uninstall torchaudio, and do "
            "without braindecode)"
        )
    return MissingExtra(message, hint)
