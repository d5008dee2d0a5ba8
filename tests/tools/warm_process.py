"""The command line in a process of its own that need not load its libraries: it is
forked of one that has.

Libraries read environment variables when they are imported: a command with others than
those that the first process was begun with takes a process that is new altogether, as
does a test of how the program starts.
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
    *(
        "h5py",
        "scipy.stats",
        "torchvision",
        "accelerate.commands.launch",
        "torch.distributed.launcher.api",
    ),
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    *(
        "brainhive_cli.cli.execute",
        *(f"brainhive_cli.commands.{name}" for name in COMMANDS),
    ),
]
READ_BY_COMMANDS = {
    "PYTHONPATH",
    "COLUMNS",
    "BRAINHIVE_HOME",
    "BRAINHIVE_ALLOW_CODE",
    "NO_COLOR",
}
READ_BY_COMMANDS |= {"PYTEST_CURRENT_TEST", "GLOO_SOCKET_IFNAME"}
READ_BY_COMMANDS |= {"TORCHINDUCTOR_CACHE_DIR"}  # which torch itself sets
"""Variables that no library reads when it is imported; whatever else differs needs a
new process.
"""
SET_BY_LIBRARIES: set[str] = set()
"""Variables that torch, open_clip, scikit-learn … set where they are not, whenever a
test imports them.
"""

CONTEXT: Any = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)
AT_START = {**os.environ}


def note_libraries() -> None:
    """Take the variables that remain between tests, which none of them has set, for
    those of libraries.
    """
    SET_BY_LIBRARIES.update(os.environ.keys() - AT_START.keys())


def is_fit(environment: dict[str, str]) -> bool:
    """Whether a process with these variables may have been begun with those of this
    module's import.
    """
    differing = {*environment.items()} ^ {*AT_START.items()}
    return {name for name, _ in differing} <= READ_BY_COMMANDS | SET_BY_LIBRARIES


class WarmProcess:
    """A running command that writes into files of a folder, with what tests use of
    `subprocess.Popen`.
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
            target=run, args=(argv, environment, str(cwd), str(folder))
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
        return (self.folder / "stdout").read_text(), (
            self.folder / "stderr"
        ).read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def stop_ignoring_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP do what they usually do, also where the suite was
    begun under `nohup` or in the background of a script.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(argv: list[str], environment: dict[str, str], cwd: str, folder: str) -> None:
    """Be `python -m brainhive_cli ARGV`, in a session of its own."""
    os.setsid()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(
            os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            descriptor,
        )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    installed = [
        path
        for path in sys.path
        if "site-packages" in path or path.startswith(sys.base_prefix)
    ]
    sys.path[:] = [
        cwd,
        *environment.get("PYTHONPATH", "").split(os.pathsep),
        *installed,
    ]
    sys.argv = ["brainhive", *argv]
    stop_ignoring_signals()
    if "--processes" in argv:
        fork_what_is_launched(Path(folder))

    from brainhive_cli.__main__ import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def fork_what_is_launched(folder: Path) -> None:
    """Let torch's launcher fork its processes as this one was; they write where this
    one writes.
    """
    from torch.distributed.elastic.multiprocessing.subprocess_handler import (
        SubprocessHandler,
    )

    def fork(
        _: SubprocessHandler, words: tuple[str, ...], environment: dict[str, str]
    ) -> WarmProcess:
        line, fork = (
            [*words[words.index("brainhive_cli") + 1 :]],
            multiprocessing.get_context("fork"),
        )
        return WarmProcess(line, environment, Path.cwd(), folder, fork)

    SubprocessHandler._popen = fork
