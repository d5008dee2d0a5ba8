"""Processes of the command line that are forked with their libraries loaded.

Libraries read environment variables at import. So a command with other variables needs
a new process, and so does a test of how the program starts.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMANDS = ("train_align", "eval_retrieval", "train_prior", "reconstruct", "report")
PRELOADED = [
    "h5py",
    "scipy.stats",
    "torchvision",
    "accelerate.commands.launch",
    "torch.distributed.launcher.api",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "brainhive_cli.cli.execute",
]
PRELOADED += [f"brainhive_cli.commands.{name}" for name in COMMANDS]
READ_BY_COMMANDS = {
    "PYTHONPATH",
    "COLUMNS",
    "BRAINHIVE_HOME",
    "BRAINHIVE_ALLOW_CODE",
    "NO_COLOR",
}
READ_BY_COMMANDS |= {"PYTEST_CURRENT_TEST", "GLOO_SOCKET_IFNAME"}
READ_BY_COMMANDS |= {"TORCHINDUCTOR_CACHE_DIR"}  # torch sets it
"""Variables that no library reads at import. Other changes need a new process."""
SET_BY_LIBRARIES: set[str] = set()
"""Variables that torch, open_clip, scikit-learn … set at import."""

CONTEXT: Any = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)
AT_START = dict(os.environ)


def note_libraries() -> None:
    """Note the variables that remain between tests, which libraries have set."""
    SET_BY_LIBRARIES.update(os.environ.keys() - AT_START.keys())


def can_fork(environment: dict[str, str]) -> bool:
    """Return True if a forked process can use these environment variables."""
    differences = set(environment.items()) ^ set(AT_START.items())
    names = {name for name, _ in differences}
    return names <= READ_BY_COMMANDS | SET_BY_LIBRARIES


class WarmProcess:
    """Command in a forked process, with methods of `subprocess.Popen`.

    Its output goes into files of a folder.
    """

    def __init__(
        self,
        argv: list[str],
        environment: dict[str, str],
        cwd: Path,
        folder: Path,
        context: Any = CONTEXT,
    ) -> None:
        self.folder = folder
        self.process = context.Process(
            target=run_program, args=(argv, environment, str(cwd), str(folder))
        )
        self.process.start()
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("brainhive", timeout or 0)
        return int(self.process.exitcode)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        output = (self.folder / "stdout").read_text()
        return output, (self.folder / "stderr").read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def stop_ignoring_signals() -> None:
    """Restore the default handlers of Ctrl-C, SIGTERM and SIGHUP.

    `nohup` and scripts in the background ignore these signals.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run_program(
    argv: list[str], environment: dict[str, str], cwd: str, folder: str
) -> None:
    """Run `python -m brainhive_cli ARGV` in this process, in a new session."""
    os.setsid()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(Path(folder, name), flags), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    paths = [cwd] + environment.get("PYTHONPATH", "").split(os.pathsep)
    for path in sys.path:
        if "site-packages" in path or path.startswith(sys.base_prefix):
            paths.append(path)
    sys.path[:] = paths
    sys.argv = ["brainhive"] + argv
    stop_ignoring_signals()
    if "--processes" in argv:
        fork_launched_processes(Path(folder))

    from brainhive_cli.__main__ import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def fork_launched_processes(folder: Path) -> None:
    """Make torch's launcher fork its processes, with output into a folder."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import (
        SubprocessHandler,
    )

    def fork(
        _: SubprocessHandler, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> WarmProcess:
        argv = list(arguments[arguments.index("brainhive_cli") + 1 :])
        context = multiprocessing.get_context("fork")
        return WarmProcess(argv, environment, Path.cwd(), folder, context)

    SubprocessHandler._popen = fork
