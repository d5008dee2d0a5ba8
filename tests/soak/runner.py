"""Processes that run a case each, forked after all imports, and their verdicts."""

import contextlib
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
from huggingface_hub import constants
from PIL import Image
from safetensors import safe_open

from brainhive_cli.core.base.errors import INTERRUPT_SIGNALS

MAX_CPU_S = 20.0
"""Largest processor time of a case."""
MAX_MEMORY = 2 * 2**30
"""Largest memory of a case, in bytes, without the memory of the imports."""
MAX_WALL_S = 6 * MAX_CPU_S
"""Largest duration of a case, on a busy machine."""
EXIT_CODES = {0, 1, 2, 3, 4, 5, 130}
"""Exit codes of the error tree and of Ctrl-C."""
FINISHED_COUNT = re.compile(r"\d+ of \d+ are finished")
"""Beginning of the line after the error of a command of which some inputs failed."""
BUG_TEXT = re.compile(
    r"this is a bug|Traceback \(most recent call last\)|"
    r": unexpected \w+(Error|Exception)"
)
CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
FINGERPRINT = re.compile(rb"(?<=-)[0-9a-f]{10}(?![0-9a-f])")
"""Fingerprint of a recipe in the name of its run. It depends on all bytes of its input
files, read or not.
"""
PRIVATE = re.compile(rb"secretsecret|c2VjcmV0c2Vj|ZWNyZXRzZWNy|Y3JldHNlY3Jl|root:x:0")
"""Content of files outside of home, as plain text or in base64."""
NOT_COMPARED = re.compile(
    r"(^|[._ -])(time|times|seconds|rate|environment|log|versions)($|[._ -])|_s$"
)
"""Names of results that differ between two runs of a command."""


@dataclass(frozen=True)
class Case:
    """A command or function that runs in a copy of the home.

    Attributes:
        group: Row of the table that counts this case.
        name: Name that is unique for a seed.
        argv: Command line after `brainhive`.
        prepare: Function that changes the home, given its path and a folder outside.
        reader: Sound run to compare the result with, or an empty string.
        has_digest: If True, the format can reveal a damaged payload.
        must_fail: If True, exit code 0 is a failure.
        kill: Signal and delay (s). The command then runs again.
        call: Function instead of a command. It returns failures, and counts by verdict.
    """

    group: str
    name: str
    argv: tuple[str, ...] = ()
    prepare: Callable[[Path, Path], Any] | None = None
    reader: str = ""
    has_digest: bool = True
    must_fail: bool = False
    kill: tuple[int, float] | None = None
    call: Callable[[], tuple[dict[str, str], dict[str, int]]] | None = None


@dataclass
class Outcome:
    """Result of a case.

    Attributes:
        code: Exit code, or the negative number of a signal.
        result: Values of the JSON on stdout, and digests of new files, by name.
        problems: Description of each problem, in a line.
        counts: Number of recipes or calls by verdict.
        killed_run: Result of the first run that a signal killed.
    """

    case: Case
    code: int = 0
    stdout: str = ""
    stderr: str = ""
    wall_s: float = 0.0
    result: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    killed_run: "Outcome | None" = None


def run_all(cases, world, scratch, jobs):
    """Run cases, `jobs` at a time, each on a copy of the world."""
    queue, running, free_slots = iter(cases), dict[int, _Child](), list(range(jobs))
    while True:
        for case in islice(queue, len(free_slots)):
            child = _Child(case, world, scratch / f"place-{free_slots.pop()}")
            running[child.pid] = child
        if not running:
            return
        for pid, child in list(running.items()):
            child.watch()
            ended_pid, status = os.waitpid(pid, os.WNOHANG)
            if not ended_pid:
                continue
            if child.restart_if_killed(status):
                running[child.pid] = running.pop(pid)
                continue
            del running[pid]
            free_slots.append(int(child.folder.name.rpartition("-")[2]))
            yield child.judge(status)
        time.sleep(0.005)


class _Child:
    def __init__(self, case, world, folder):
        self.case, self.world, self.folder = case, world, folder
        self.killed_run = None
        memory = psutil.Process().memory_info()
        # bytes that a child has before it does anything
        self.initial_memory = memory.rss - memory.shared
        self._fork(is_first=True)

    def _fork(self, is_first):
        self.limit, self.start_s, self.ready_s = "", time.monotonic(), None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        (self.folder / "ready").unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            _run_child(self.case, self.world, self.folder, is_first)
        self.kill = self.case.kill if is_first else None

    def watch(self):
        """Kill the process after its delay, or if it exceeds a limit."""
        now_s = time.monotonic()
        if self.kill and self.ready_s is None and (self.folder / "ready").exists():
            self.ready_s = now_s
        if self.kill and self.ready_s is not None:
            signal_number, delay_s = self.kill
            if now_s >= self.ready_s + delay_s:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal_number)
                self.kill = None
        if now_s - self.start_s > MAX_WALL_S:
            self._stop(f"hang: over {MAX_WALL_S:.0f} s")
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(self.pid).memory_info()
            if memory.rss - memory.shared > MAX_MEMORY + self.initial_memory:
                self._stop("over 2 GiB of memory")

    def _stop(self, limit):
        self.limit = self.limit or limit
        _kill_group(self.pid)

    def restart_if_killed(self, status):
        """Return True if the killed command runs again."""
        if not (self.case.kill and self.killed_run is None):
            return False
        _kill_group(self.pid)
        self.killed_run = _read_outcome(self.case, self.folder, status)
        self._fork(is_first=False)
        return True

    def judge(self, status):
        """Read the outcome, and add an exceeded limit or a crash."""
        _kill_group(self.pid)
        shutil.rmtree("/dev/shm/brainhive-soak", ignore_errors=True)
        outcome = _read_outcome(self.case, self.folder, status)
        outcome.killed_run = self.killed_run
        outcome.wall_s = time.monotonic() - self.start_s
        problem = self.limit
        if not problem and outcome.code == -signal.SIGXCPU:
            problem = f"hang: over {MAX_CPU_S:.0f} s of processor time"
        elif not problem and outcome.code < 0:
            problem = f"crash: {signal.Signals(-outcome.code).name}"
        if problem:
            outcome.problems.insert(0, problem)
        return outcome


def _kill_group(pid):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _run_child(case, world, folder, is_first):
    """Prepare a home, run the command, check its files, and exit."""
    code = 70
    try:
        os.setsid()
        home, outside_folder = folder / "a/b/home", folder / "outside"
        if is_first:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(world, home, symlinks=True)
            for new_folder in (outside_folder, folder / "tmp", folder / "user"):
                new_folder.mkdir()
            (folder / "canary").write_text("unchanged")
        _set_environment(folder, home)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        streams = [os.open(folder / name, flags) for name in ("stdout", "stderr")]
        if case.prepare and is_first:
            case.prepare(home, outside_folder)
        outside_before = {} if case.call else _list_outside_files(folder, home)
        file_list = folder / "initial_files"
        if is_first:
            text = "\n".join(map(str, _walk_files(home)))
            file_list.write_text(text, errors="surrogateescape")
        lines = file_list.read_text(errors="surrogateescape").split("\n")
        initial_files = {Path(line) for line in lines}
        report = {}
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        max_cpu_s = int(MAX_CPU_S + time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (max_cpu_s, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        (folder / "ready").touch()
        if case.call:
            code = 0
            report["problems"], report["counts"] = case.call()
        else:
            code = run_command(case.argv)
            for number in INTERRUPT_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            sys.stdout.flush()
            sys.stderr.flush()
            outside_after = _list_outside_files(folder, home)
            report["problems"] = {
                **_find_broken_files(home, initial_files),
                **_find_outside_changes(outside_before, outside_after),
            }
            report["files"] = _digest_files(home, initial_files) if code == 0 else {}
        (folder / "report.json").write_text(json.dumps(report))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        (folder / "broken").write_text(traceback.format_exc())
    finally:
        os._exit(code & 0xFF)


def _set_environment(folder, home):
    os.environ |= {
        "BRAINHIVE_HOME": str(home),
        "HOME": str(folder / "user"),
        "TMPDIR": str(folder / "tmp"),
        "TORCH_HOME": str(home / "torch"),
        "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    tempfile.tempdir = None
    constants.HF_HUB_CACHE = str(home / "hub")
    os.chdir(home)
    sys.path.insert(0, str(home / "modules"))
    for name in ("ready", "report.json", "broken"):
        (folder / name).unlink(missing_ok=True)


def run_command(argv):
    """Run a command line in this process, and return its exit code."""
    from brainhive_cli.__main__ import main

    sys.argv = ["brainhive"] + list(argv)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(fd, "w"), write_through=True) for fd in (1, 2)
    )
    try:
        main()
    except SystemExit as error:
        code = error.code
        return code if isinstance(code, int) else int(code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def make_world(
    home,
    steps,
    overrides,
):
    """Run the steps that make a world, each in its own process.

    Raises:
        RuntimeError: If a step fails.
    """
    home.mkdir(parents=True)
    for step in steps:
        log = home.parent / "log"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                (home.parent / "user").mkdir(exist_ok=True)
                (home.parent / "tmp").mkdir(exist_ok=True)
                _set_environment(home.parent, home)
                for stream in (1, 2):
                    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                if isinstance(step, tuple):
                    code = run_command(step + overrides)
                else:
                    code = int(step(home) or 0)
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{step} failed: {log.read_text()}")


def _walk_files(folder):
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _list_outside_files(folder, home):
    """List size, time and mode of files outside of home, which no command may
    change.
    """
    skipped_names = "tmp user stdout stderr ready report.json broken initial_files"
    skipped_paths = {home} | {folder / name for name in skipped_names.split()}
    states = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if Path(parent, name) not in skipped_paths
        ]
        for name in files + folders:
            path = Path(parent, name)
            if path in skipped_paths:
                continue
            stat = path.lstat()
            size, time_ns = stat.st_size, stat.st_mtime_ns
            if name in folders:
                size = time_ns = 0
            states[str(path.relative_to(folder))] = (size, time_ns, stat.st_mode)
    absolute = Path("/dev/shm/brainhive-soak")
    if absolute.exists():
        states[str(absolute)] = (0,)
    return states


def _find_outside_changes(states_before, states_after):
    names = [
        name
        for name in states_before.keys() | states_after.keys()
        if states_before.get(name) != states_after.get(name)
    ]
    names.sort()
    for name in names:
        if "pwned" in name:
            return {"ran code": name}
    return {"wrote outside home": ", ".join(names[:3])} if names else {}


def _find_broken_files(home, initial_files):
    """Describe a new file with a final name that cannot be read."""
    problems = {}
    for path in _walk_files(home):
        if path in initial_files or path.name.startswith("."):
            continue
        try:
            _check_file(path)
        except Exception as error:
            problems["half-written"] = (
                f"{path.relative_to(home)}: {type(error).__name__}: {error}"
            )
    return problems


def _check_file(path):
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            list(file.attrs.items())
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            file.keys()
    elif path.suffix == ".html" and PRIVATE.search(path.read_bytes()):
        raise ValueError("shows a private file")
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()


def _digest_files(home, initial_files):
    """Digest new files without fingerprints and the path of home."""
    endings = ".h5 .safetensors .png .npy .parquet .json .csv .md".split()
    digests = {}
    for path in sorted(set(_walk_files(home)) - initial_files):
        name = path.relative_to(home).as_posix()
        is_compared = path.suffix in endings and not NOT_COMPARED.search(path.stem)
        if not is_compared or "/." in name:
            continue
        content = _read_datasets(path) if path.suffix == ".h5" else path.read_bytes()
        content = FINGERPRINT.sub(b"", content.replace(os.fsencode(home), b"HOME"))
        name = FINGERPRINT.sub(b"", name.encode()).decode()
        digests[f"file {name}"] = hashlib.sha256(content).hexdigest()
    return digests


def _read_datasets(path):
    """Read the datasets of a store. Its attributes name digests of its sources."""
    chunks = []

    def add(name, item):
        if isinstance(item, h5py.Dataset) and "checksum" not in name:
            chunks.extend((name.encode(), np.asarray(item[()]).tobytes()))

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return b"".join(chunks)


def _flatten(value, key):
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _flatten(child, f"{key}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _flatten(child, f"{key}.{index}")
    else:
        yield key, str(value)


def _read_outcome(case, folder, status):
    """Read the streams and the report of an ended process."""

    def read_text(name):
        path = folder / name
        return path.read_text(errors="replace") if path.is_file() else ""

    code = os.waitstatus_to_exitcode(status)
    outcome = Outcome(case, code, read_text("stdout"), read_text("stderr"))
    soak_error = read_text("broken")
    if soak_error:
        last_line = soak_error.strip().splitlines()[-1]
        outcome.problems.append(f"soak itself: {last_line}")
        outcome.stderr += soak_error
        return outcome
    report = json.loads(read_text("report.json") or "{}")
    for name, description in report.get("problems", {}).items():
        outcome.problems.append(f"{name}: {description}")
    outcome.counts = report.get("counts", {})
    if case.call or code < 0:
        return outcome
    outcome.problems += _judge_stderr(outcome)
    if code == 0:
        stdout = outcome.stdout.replace(str(folder / "a/b/home"), "HOME")
        try:
            document = json.loads(FINGERPRINT.sub(b"", stdout.encode()))
            values = dict(_flatten(document, "json"))
        except ValueError:
            values = {"stdout": outcome.stdout}
        outcome.result = {
            key: value for key, value in values.items() if not NOT_COMPARED.search(key)
        }
        outcome.result |= report.get("files", {})
    return outcome


def _judge_stderr(outcome):
    """List problems of the exit code and of stderr."""
    problems, text = [], outcome.stderr
    lines = text.splitlines()
    error_index = None
    for index, line in reversed(list(enumerate(lines))):
        if line.startswith("error:"):
            error_index = index
    error_line = "" if error_index is None else lines[error_index]
    if outcome.code not in EXIT_CODES:
        problems.append(f"exit code {outcome.code}, not of the tree")
    bug = BUG_TEXT.search(text)
    if bug:
        bug_line = next(line for line in lines if bug[0] in line)
        last_line = text.strip().splitlines()[-1]
        cause = last_line if "Traceback" in bug_line else bug_line
        problems.append(f"called a bug: {error_line or cause}")
        return problems
    if CONTROL_CHARACTERS.search(text):
        problems.append("control characters on the terminal")
    if error_index is None:
        # --check lists missing inputs as warnings
        is_warned = any(line.startswith("warning: missing: ") for line in lines)
        is_explained = is_warned or '"' in outcome.stdout or "Usage:" in text
        if outcome.code in (1, 2, 3, 4, 5) and not is_explained:
            problems.append("no line that says what is wrong")
        return problems
    hints = []
    for line in lines[error_index + 1 :]:
        # commands with several inputs then count those that are finished
        if FINISHED_COUNT.match(line):
            break
        if line.strip():
            hints.append(line)
    if len(hints) != 1 or not hints[0].startswith("  try: "):
        problems.append(f"not two lines: {error_line} | {' | '.join(hints)[:80]}")
    if "free space or fix permissions" in text:
        problems.append(f"not a matter of space or permissions: {error_line}")
    if re.search(r"error: (out of memory|.*MemoryError)", error_line):
        problems.append(f"out of memory: {error_line}")
    return problems
