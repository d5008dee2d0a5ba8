"""Machine that does the work: processes, devices and libraries, and the share of the
work of each process.
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
from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import (
    CONTINUE_HINT,
    INTERRUPTED_EXIT_CODE,
    STOPPED_EXIT_CODE,
    BrainhiveError,
    DeviceError,
    LostProcess,
    MissingExtra,
    RecipeError,
    first_line,
    install_line,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.recipe import RunOptions

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
LINE = ContextVar[Sequence[str]]("LINE")
"""Words of a command that Python runs; those of the shell where it is not set."""
REPORTS = "BRAINHIVE_REPORTS"
"""Environment variable: the folder where a launched process writes its error for the
launcher to show.
"""
LAUNCHER = {"distributed_type": "MULTI_GPU", "mixed_precision": "no"}
"""Config of accelerate's launcher; its arguments say the rest."""
BY_LAUNCHERS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun and accelerate set for each of several processes, besides
WORLD_SIZE.
"""
LONGEST_WAIT = timedelta(days=1)
"""Time that a process waits for another's last cell; one that fails ends them all, so
it may be long.
"""
LIBRARIES = (
    *("torch", "diffusers", "transformers", "timm", "open_clip_torch", "accelerate"),
    *("h5py", "numpy", "safetensors", "mne", "mne-bids", "nibabel", "scikit-learn"),
)
"""Libraries that numbers depend on."""
DRIVERS = ("nvidiactl", "nvmap", "kfd", "dxg")
"""Files below /dev that the drivers of GPUs make: of NVIDIA, of its Jetson, of AMD, and
of Windows for WSL.
"""
PROBES = {
    "torchvision": "",
    "torchaudio": "",
    "transformers": "CLIPVisionModelWithProjection",
    "diffusers": "UNet2DConditionModel",
    "timm": "",
    "accelerate": "",
}
"""Library to the name that is imported from it as a test: two import lazily. Others
import the first two.
"""


@dataclass(frozen=True)
class Launch:
    """This process among those that share the work.

    Attributes:
        device_or_name: Its device, by name where torch may not be loaded yet: commands
            that only read files need none.
        only_reads: Whether it only looks for what is finished: anything that is not
            raises Unfinished.
    """

    rank: int
    processes: int
    device_or_name: "str | torch.device"
    only_reads: bool = False

    @cached_property
    def device(self) -> "torch.device":
        """The device; asking for it loads torch."""
        import torch

        return torch.device(self.device_or_name)

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all of them share."""
        return self.rank == 0 and not self.only_reads

    @property
    def alone(self) -> "Launch":
        """This process by itself, for work that no other one of the launch takes part
        in.
        """
        return replace(self, rank=0, processes=1)

    @property
    def device_name(self) -> str:
        """The device in words."""
        if self.device_or_name == "cpu" or self.device.type != "cuda":
            return "cpu"
        import torch

        return torch.cuda.get_device_name(self.device)

    def describe_environment(self) -> dict[str, Any]:
        """Describe what this process computes with, for a run's `environment.json`."""
        import torch  # the run that begins is going to compute

        # of the checkout that this package runs from; nothing for an installed wheel
        try:
            command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
            commit = subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            commit = ""
        return {
            "command_line": ["brainhive", *LINE.get(sys.argv[1:])],
            "versions": library_versions(),
            "commit": commit.strip(),
            "device": self.device_name,
            "processes": self.processes,
            # sums of floats depend on how many threads share them
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
        }

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return the contiguous share of `items` of this process; the shares of all are
        all of them, once.
        """
        ranks = (self.rank, self.rank + 1)
        start, stop = (len(items) * rank // self.processes for rank in ranks)
        return items[start:stop]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            import torch.distributed

            # or NCCL guesses
            device_ids = [self.device.index] if self.device.type == "cuda" else None
            torch.distributed.barrier(device_ids=device_ids)

    def once(self, act: Callable[[], T]) -> T:
        """Let the main process act when all are here, and return its result in all of
        them.

        Args:
            act: Called in the main process. Its result is pickled for the others.
        """
        self.barrier()
        result: T = self.gather(act() if self.rank == 0 else None)[0]
        return result

    def main_first(self, act: Callable[[], T]) -> T:
        """Act in the main process, and then in the others: they find what it downloads
        or repairs. Return each process's own result.
        """
        if self.rank == 0:
            result = act()
            self.barrier()
            return result
        self.barrier()
        return act()

    def gather(self, item: Any) -> list[Any]:
        """Collect one picklable object a process, in order of rank, in every
        process.
        """
        if self.processes == 1:
            return [item]
        import torch.distributed

        # objects are pickled, and so of any size
        everyone = [None] * self.processes
        torch.distributed.all_gather_object(everyone, item)
        return everyone

    def gather_rows(self, share: "torch.Tensor", count: int) -> "torch.Tensor":
        """Join the shares [B_share, ...] of `count` rows, as `shard` cuts them, with
        their gradient.

        Every process then computes the same loss over all rows; `average_gradients`
        makes its gradient whole.
        """
        if self.processes == 1:
            return share
        import torch
        from torch.distributed.nn.functional import all_gather

        # rows of each process; shares are padded to the same length, as all_gather
        # needs
        ends = [count * rank // self.processes for rank in range(self.processes + 1)]
        shares = [stop - start for start, stop in pairwise(ends)]
        padded = torch.nn.functional.pad(
            share, (*(0, 0) * (share.ndim - 1), 0, max(shares) - len(share))
        )
        # that torch has a private function of more arguments
        with warnings.catch_warnings(action="ignore"):
            gathered = all_gather(padded)
        return torch.cat([rows[:n] for rows, n in zip(gathered, shares, strict=True)])

    def average_gradients(self, parameters: "Iterable[torch.nn.Parameter]") -> None:
        """Average gradients over processes, in one exchange.

        A process whose share does not reach a parameter counts as zero; where no share
        does, as for the layer of a subject who is not in the batch, there is no
        gradient, as in one process.
        """
        if self.processes == 1:
            return
        import torch
        import torch.distributed

        # one flat vector: gradients, zeros where there is none, and which parameters
        # were reached
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        parts = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in learned
        ]
        reached = torch.tensor(
            [float(parameter.grad is not None) for parameter in learned],
            device=self.device,
        )
        flat = torch.cat([*(part.flatten() for part in parts), reached])

        # the mean over processes, cut into gradients again
        torch.distributed.all_reduce(flat)
        flat /= self.processes
        *averages, reached = flat.split([*(part.numel() for part in parts), len(parts)])
        for parameter, average, share in zip(learned, averages, reached, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(average.view_as(parameter))
            elif share.item():  # which waits for the device, so only where it must
                parameter.grad = average.view_as(parameter).clone()

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Compute in `precision` (fp32, bf16, fp16)."""
        import torch

        if precision == "fp32":
            return nullcontext()
        return torch.autocast(
            self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        )


def may_have_gpu() -> bool:
    """Return False where no GPU can be, as no driver is there: then torch, whose import
    takes seconds, need not be asked.
    """
    is_known = sys.platform == "linux" and "torch" not in sys.modules
    return not is_known or any(Path("/dev", name).exists() for name in DRIVERS)


READING = Launch(0, 1, "cpu", only_reads=True)
"""The launch in which a command looks for what is finished."""


def start(run: RunOptions) -> Launch:
    """Join the launch that this process belongs to, or be one process alone.

    Raises:
        DeviceError: if the device of the recipe is not available.
    """
    # the device: a GPU each, or the CPU
    on_cpu = run.device == "cpu" or (run.device == "auto" and not may_have_gpu())
    if not on_cpu:
        import torch

        on_cpu = not torch.cuda.is_available()
        if run.device == "cuda" and on_cpu:
            raise DeviceError(
                "run.device is cuda, but no CUDA device is visible",
                "run.device=cpu, or check nvidia-smi",
            )
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        there = torch.cuda.device_count()
        if not on_cpu and here > there:  # NCCL's own error is long and unclear
            raise DeviceError(
                (
                    f"{here} processes on a machine with {there} GPUs: each needs one "
                    "of its own"
                ),
                f"at most {there} processes a machine, or run.device=cpu",
            )

    if os.environ.get("WORLD_SIZE", "1") in ("1", ""):
        return Launch(0, 1, "cpu" if on_cpu else "cuda")

    # several processes: their launcher says which this one is
    if absent := [name for name in BY_LAUNCHERS if name not in os.environ]:
        raise RecipeError(
            (
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but no launcher has set "
                f"{', '.join(absent)}"
            ),
            "unset WORLD_SIZE; --processes starts several processes",
        )
    from accelerate import PartialState

    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    return Launch(state.process_index, state.num_processes, state.device)


def open_device(name: object) -> "torch.device":
    """Open a device by its name.

    Raises:
        DeviceError: if there is none of this name, or it is not visible.
    """
    import torch

    try:
        # names that torch does not know are refused with those that are not here
        device = torch.device(str(name))
    except (RuntimeError, ValueError):
        device = torch.device("meta")
    if device.type not in ["cpu", "cuda", *["mps"] * torch.backends.mps.is_available()]:
        raise DeviceError(
            f"no device {str(name)[:80]!r}", "device is cpu, cuda or cuda:0"
        )
    if device.type == "cuda" and (device.index or 0) >= (
        count := torch.cuda.device_count()
    ):
        raise DeviceError(
            f"device {name}: {count} CUDA devices are visible",
            "device=cpu, or check nvidia-smi",
        )
    return device


def num_processes(run: RunOptions) -> int:
    """Return how many processes to launch; 1 when this process is itself a launched
    one.
    """
    # launched already, or told how many
    if "LOCAL_RANK" in os.environ:
        return 1
    if run.processes is not None or run.device == "cpu" or not may_have_gpu():
        return run.processes or 1
    import torch

    return max(1, torch.cuda.device_count())


def relaunch(run: RunOptions, processes: int, less_memory: str = "") -> int:
    """Run the same command line in `processes` processes through accelerate's launcher.

    Args:
        run: How.
        processes: How many.
        less_memory: Overrides of the recipe with which its command needs less memory.

    Returns:
        The exit code: 0, or that of Ctrl-C.

    Raises:
        BrainhiveError: as the process that ended the launch.
    """
    with console.progress("starting"):
        import psutil
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable()  # the child's own line says it all
    threads = max(1, (os.cpu_count() or 1) // processes)
    before = dict(os.environ)
    with TemporaryDirectory() as reports:
        # `python -m` would import from the working directory first, which may be a
        # stranger's: the processes import from where this one does
        imported = os.pathsep.join(map(os.path.abspath, sys.path))
        os.environ |= {REPORTS: reports, "PYTHONSAFEPATH": "1", "PYTHONPATH": imported}

        # the launcher would read a config in the user's home, which is for other work,
        # or damaged
        config = Path(reports, "launch.yaml")
        config.write_text(json.dumps(LAUNCHER))
        arguments = [
            f"--config_file={config}",
            "--multi_gpu",
            f"--num_processes={processes}",
            "--num_machines=1",
            "--main_process_port=0",
            f"--mixed_precision={run.mixed_precision or 'no'}",
            "--dynamo_backend=no",
            f"--num_cpu_threads_per_process={threads}",
            "--module",
            "brainhive_cli",
            *LINE.get(sys.argv[1:]),
        ]

        def pass_on(number: int, frame: FrameType | None) -> None:
            # the processes stop where their work can continue
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGUSR1)

        asked_before = signal.signal(signal.SIGUSR1, pass_on)
        try:
            raise_if_asked_to_stop()  # before there was a process to pass it on to
            launch_command(launch_command_parser().parse_args(arguments))
        except ChildFailedError as failed:
            codes = {
                rank: failure.exitcode for rank, failure in failed.failures.items()
            }
            if INTERRUPTED_EXIT_CODE in codes.values():
                return INTERRUPTED_EXIT_CODE
            raise _find_cause(codes, Path(reports), less_memory) from None
        except SignalException as ended:
            # Ctrl-C reaches the processes, too, which say so
            if ended.sigval != signal.SIGINT:
                raise KeyboardInterrupt from ended
            return INTERRUPTED_EXIT_CODE
        except KeyboardInterrupt:
            return INTERRUPTED_EXIT_CODE
        finally:
            signal.signal(signal.SIGUSR1, asked_before)
            logging.disable(logging.NOTSET)
            os.environ.clear()
            os.environ.update(before)
    return 0


def leave_report(code: int, error: BrainhiveError) -> bool:
    """Write this process's error for the launcher; False when it was not launched by
    this program.
    """
    folder = os.environ.get(REPORTS)
    if folder is None:
        return False

    # a report is renamed when it is complete
    texts = (
        text.encode(errors="backslashreplace").decode()
        for text in (error.message, error.hint)
    )
    report = [code, *texts, isinstance(error, LostProcess)]
    file = Path(folder, f"{os.environ.get('RANK', '0')}.json")
    file.with_suffix(".part").write_text(json.dumps(report))
    # the launcher may end this process meanwhile
    os.replace(file.with_suffix(".part"), file)
    return True


def exit_worker(code: int) -> None:
    """End this process at once if it is one of several.

    A thread of gloo may still free tensors while the interpreter shuts down, and then
    aborts a process that has finished its work (pytorch/pytorch pull request 179291).
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("1", ""):
        with suppress(OSError):
            console.flush()
        os._exit(code)


def _find_cause(
    codes: Mapping[int, int], folder: Path, less_memory: str
) -> BrainhiveError:
    """Find what ended a launch: the first error of a process, else what killed one.

    Args:
        codes: Exit codes of the processes that failed, by rank; negative for a signal.
            By SIGTERM torch ends the others after the first.
        folder: Where the processes left their reports.
        less_memory: Overrides with which the command needs less memory.
    """
    # reports that processes wrote, and signals that ended others
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    reports = [documents.read(file, tuple[int, str, str, bool]) for file in files]
    signals = {rank: Signals(-code) for rank, code in codes.items() if code < 0}
    killed = {
        rank: number for rank, number in signals.items() if number != Signals.SIGTERM
    }
    causes = [report for report in reports if not report[3]] or (
        [] if killed else reports
    )
    if causes:
        code, problem, way, _ = causes[0]
        return BrainhiveError(problem, way, code)

    # no report: an exit code, or a signal
    if not signals:
        code = max(codes.values(), default=1)
        return BrainhiveError(
            f"a process of the launch ended with exit code {code}", CONTINUE_HINT, code
        )
    rank, number = next(iter((killed or signals).items()))
    if number == Signals.SIGUSR1:  # asked to stop before it could listen
        problem = f"process {rank} of the launch was stopped by a signal"
        return BrainhiveError(problem, CONTINUE_HINT, STOPPED_EXIT_CODE)
    if number == Signals.SIGKILL:
        return DeviceError(
            (
                f"process {rank} of the launch was killed (SIGKILL), as systems do "
                "when memory runs out"
            ),
            (
                f"{less_memory or 'fewer processes, or a machine with more memory'}; "
                f"{CONTINUE_HINT}"
            ),
        )
    return BrainhiveError(
        f"process {rank} of the launch was ended by {number.name}", CONTINUE_HINT
    )


@cache
def library_version(library: str) -> str:
    """Return the version of an installed library, or "absent"."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    libraries = {library: library_version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), "brainhive": __version__, **libraries}


def broken_libraries() -> list[MissingExtra]:
    """Import every library that is installed; describe those that fail, each cause
    once.

    A library that is absent is not broken. Takes seconds where nothing is imported yet.
    """
    errors: dict[str, MissingExtra] = {}
    for name, probe in PROBES.items():
        # absence is no damage
        if importlib.util.find_spec(name) is None:
            continue
        console.say(f"importing {name} {library_version(name)}")
        try:
            module = importlib.import_module(name)
            if probe:
                getattr(module, probe)
        except Exception as error:
            # whatever its top level raises: ImportError, RuntimeError, OSError …
            described = failed_import(error) or _describe(name, error)
            errors.setdefault(described.message.partition(" ")[0], described)
    return list(errors.values())


def failed_import(error: BaseException | None) -> MissingExtra | None:
    """Describe the library whose import failed and thereby led to `error`; None if
    there is none.
    """
    if error is None:
        return None
    if earlier := failed_import(error.__cause__ or error.__context__):
        return earlier

    # the library whose top level was running
    frames = [
        frame
        for frame, _ in walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    packages = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames
    ]
    importing = [name for name in packages if name in PROBES]
    return _describe(importing[-1], error) if importing else None


def _describe(name: str, error: BaseException) -> MissingExtra:
    # what broke, and with which torch: versions that do not fit are the usual cause
    versions = (
        f"{name} {library_version(name)} does not import with torch "
        f"{library_version('torch')}"
    )
    problem = f"{versions}: {first_line(error)}"

    # torchvision and torchaudio are built for one version of torch
    if name == "torchvision":
        return MissingExtra(problem, "pip install --force-reinstall torch torchvision")
    if name != "torchaudio":
        return MissingExtra(problem, f"pip install --upgrade {name}")
    if library_version("braindecode") == "absent":
        return MissingExtra(
            problem, "pip uninstall torchaudio (brainhive does not use it)"
        )
    with_braindecode = install_line("braindecode")
    return MissingExtra(
        problem,
        f"{with_braindecode} (or pip uninstall torchaudio, and do without braindecode)",
    )
