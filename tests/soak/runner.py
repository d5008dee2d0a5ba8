"""Runs cases in processes of their own, forked after all imports, and judges how each
one ended.
"""

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
from collections.abc import Callable, Iterable, Iterator
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

from brainhive_cli.core.errors import INTERRUPT_SIGNALS

TIME_S, MEMORY = 20.0, 2 * 2**30
"""A case that takes more processor time, or more memory on top of the imports, has
failed.
"""
WALL_S = 6 * TIME_S
"""On a machine that is busy with other work."""
ENDS = {0, 1, 2, 3, 4, 5, 130}
"""Exit codes of the error tree, and of Ctrl-C."""
BUG = re.compile(
    r"this is a bug|Traceback \(most recent call last\)|"
    r": unexpected \w+(Error|Exception)"
)
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
FINGERPRINT = re.compile(rb"(?<=-)[0-9a-f]{10}(?![0-9a-f])")
"""Of a recipe, in the name of its run: it depends on digests of files, be it of a byte
that nobody reads.
"""
PRIVATE = re.compile(rb"secretsecret|c2VjcmV0c2Vj|ZWNyZXRzZWNy|Y3JldHNlY3Jl|root:x:0")
"""Content of files outside of a home, also in base64."""
NOT_COMPARED = re.compile(
    r"(^|[._ -])(time|times|seconds|rate|environment|log|versions)($|[._ -])|_s$"
)


@dataclass(frozen=True)
class Case:
    """One command (or function) in a home of its own.

    Attributes:
        group: What it counts as in the table.
        name: What identifies it, with the seed.
        argv: The command line after `brainhive`.
        prepare: Changes the home, given its path and that of a folder outside of it.
        reader: Names the sound run that its result is compared with; empty if none.
        has_digest: Whether the format can tell a damaged payload from a sound one.
        must_fail: Whether success is a failure, whatever the result.
        kill: Signal and moment (s) at which the process is killed; then the command
            runs again.
        call: A function in place of the command; it returns failures by name, and
            counts.
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
    """How a case ended.

    Attributes:
        code: Exit code; negative for a signal.
        result: JSON on stdout and digests of the files that were made, by name.
        problems: What is wrong, one line each.
        counts: Recipes that were tried, by verdict.
    """

    case: Case
    code: int = 0
    stdout: str = ""
    stderr: str = ""
    wall_s: float = 0.0
    result: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    before: "Outcome | None" = None


def run_all(
    cases: Iterable[Case], world: Path, scratch: Path, jobs: int
) -> Iterator[Outcome]:
    """Run cases, `jobs` at a time, each on a copy of the world; yields them as they
    end.
    """
    waiting, running, places = iter(cases), dict[int, _Child](), list(range(jobs))
    while True:
        for case in islice(waiting, len(places)):
            child = _Child(case, world, scratch / f"place-{places.pop()}")
            running[child.pid] = child
        if not running:
            return
        for pid, child in list(running.items()):
            child.watch()
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            if child.again(status):
                running[child.pid] = running.pop(pid)
                continue
            del running[pid]
            places.append(int(child.place.name.rpartition("-")[2]))
            yield child.ended(status)
        time.sleep(0.005)


class _Child:
    def __init__(self, case: Case, world: Path, place: Path) -> None:
        self.case, self.world, self.place = case, world, place
        self.first: Outcome | None = None
        here = psutil.Process().memory_info()
        # bytes that a child has before it does anything
        self.own = here.rss - here.shared
        self._fork(is_first=True)

    def _fork(self, is_first: bool) -> None:
        self.why, self.began_s, self.ready_s = "", time.monotonic(), None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        (self.place / "ready").unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            _child(self.case, self.world, self.place, is_first)
        self.kill = self.case.kill if is_first else None

    def watch(self) -> None:
        """Kill it where it takes too much; or at its moment."""
        now_s = time.monotonic()
        if self.kill and self.ready_s is None and (self.place / "ready").exists():
            self.ready_s = now_s
        if (
            self.kill
            and self.ready_s is not None
            and now_s >= self.ready_s + self.kill[1]
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.kill[0])
            self.kill = None
        if now_s - self.began_s > WALL_S:
            self._end(f"hang: over {WALL_S:.0f} s")
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(self.pid).memory_info()
            if memory.rss - memory.shared > MEMORY + self.own:
                self._end("over 2 GiB of memory")

    def _end(self, why: str) -> None:
        self.why = self.why or why
        _kill_group(self.pid)

    def again(self, status: int) -> bool:
        """Run the command again after a kill; False where nothing remains to be
        done.
        """
        if not (self.case.kill and self.first is None):
            return False
        _kill_group(self.pid)
        self.first = _outcome(self.case, self.place, status)
        self._fork(is_first=False)
        return True

    def ended(self, status: int) -> Outcome:
        """Judge how it ended."""
        _kill_group(self.pid)
        shutil.rmtree("/dev/shm/brainhive-soak", ignore_errors=True)
        found = _outcome(self.case, self.place, status)
        found.before, found.wall_s = self.first, time.monotonic() - self.began_s
        if self.why:
            found.problems.insert(0, self.why)
        elif found.code == -signal.SIGXCPU:
            found.problems.insert(0, f"hang: over {TIME_S:.0f} s of processor time")
        elif found.code < 0:
            found.problems.insert(0, f"crash: {signal.Signals(-found.code).name}")
        return found


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _child(case: Case, world: Path, place: Path, is_first: bool) -> None:
    """Prepare a home, run the command, judge its files, and end."""
    code = 70
    try:
        os.setsid()
        home, outside = place / "a/b/home", place / "outside"
        if is_first:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(world, home, symlinks=True)
            for folder in (outside, place / "tmp", place / "user"):
                folder.mkdir()
            (place / "canary").write_text("unchanged")
        _environment(place, home)
        new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        streams = [os.open(place / name, new) for name in ("stdout", "stderr")]
        if case.prepare and is_first:
            case.prepare(home, outside)
        before = {} if case.call else _listing(place, home)
        known = place / "known"
        if is_first:
            known.write_text(
                "\n".join(map(str, _files(home))), errors="surrogateescape"
            )
        made = {
            Path(line) for line in known.read_text(errors="surrogateescape").split("\n")
        }
        report: dict[str, Any] = {}
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        most_s = int(TIME_S + time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most_s, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        (place / "ready").touch()
        if case.call:
            code = 0
            report["problems"], report["counts"] = case.call()
        else:
            code = run_command(case.argv)
            for number in INTERRUPT_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            sys.stdout.flush()
            sys.stderr.flush()
            report["problems"] = {
                **_judged(home, made),
                **_changed(before, _listing(place, home)),
            }
            report["files"] = _digests(home, made) if code == 0 else {}
        (place / "report.json").write_text(json.dumps(report))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        (place / "broken").write_text(traceback.format_exc())
    finally:
        os._exit(code & 0xFF)


def _environment(place: Path, home: Path) -> None:
    os.environ |= {
        "BRAINHIVE_HOME": str(home),
        "HOME": str(place / "user"),
        "TMPDIR": str(place / "tmp"),
    }
    os.environ |= {
        "TORCH_HOME": str(home / "torch"),
        "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    tempfile.tempdir = None
    constants.HF_HUB_CACHE = str(home / "hub")
    os.chdir(home)
    sys.path.insert(0, str(home / "modules"))
    for name in ("ready", "report.json", "broken"):
        (place / name).unlink(missing_ok=True)


def run_command(argv: tuple[str, ...]) -> int:
    """Run a command line in this process, and return its exit code."""
    from brainhive_cli.__main__ import main

    sys.argv = ["brainhive", *argv]
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(fd, "w"), write_through=True) for fd in (1, 2)
    )
    try:
        main()
    except SystemExit as ended:
        return (
            ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        )
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def make_world(
    home: Path,
    steps: Iterable[tuple[str, ...] | Callable[[Path], Any]],
    more: tuple[str, ...],
) -> None:
    """Run the steps that make a world, each in a process of its own.

    Raises:
        RuntimeError: if one fails.
    """
    home.mkdir(parents=True)
    for step in steps:
        log = home.parent / "log"
        if (pid := os.fork()) == 0:
            code = 1
            try:
                (home.parent / "user").mkdir(exist_ok=True)
                (home.parent / "tmp").mkdir(exist_ok=True)
                _environment(home.parent, home)
                for stream in (1, 2):
                    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                code = (
                    run_command((*step, *more))
                    if isinstance(step, tuple)
                    else int(step(home) or 0)
                )
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{step} failed: {log.read_text()}")


def _files(folder: Path) -> Iterator[Path]:
    for here, _, files in os.walk(folder):
        yield from (Path(here, file) for file in files)


def _listing(place: Path, home: Path) -> dict[str, tuple[int, ...]]:
    """List all files of a place that the command has no business with: those outside of
    its home.
    """
    skipped = {
        place / name
        for name in "tmp user stdout stderr ready report.json broken known".split()
    }
    found = {}
    for here, folders, files in os.walk(place):
        folders[:] = [
            name for name in folders if Path(here, name) not in {home, *skipped}
        ]
        for name in [*files, *folders]:
            path = Path(here, name)
            if path not in skipped:
                state = path.lstat()
                changed = (
                    (0, 0) if name in folders else (state.st_size, state.st_mtime_ns)
                )
                found[str(path.relative_to(place))] = (*changed, state.st_mode)
    absolute = Path("/dev/shm/brainhive-soak")
    found |= {str(absolute): (0,)} if absolute.exists() else {}
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    differing = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    ran = [key for key in differing if "pwned" in key]
    if ran:
        return {"ran code": ran[0]}
    return {"wrote outside home": ", ".join(differing[:3])} if differing else {}


def _judged(home: Path, made: set[Path]) -> dict[str, str]:
    """Open each file that the command has made under a final name."""
    problems = {}
    for path in _files(home):
        if path in made or path.name.startswith("."):
            continue
        try:
            _open(path)
        except Exception as error:
            problems["half-written"] = (
                f"{path.relative_to(home)}: {type(error).__name__}: {error}"
            )
    return problems


def _open(path: Path) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            list(file.attrs.items())
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as found:
            found.keys()
    elif path.suffix == ".html" and PRIVATE.search(path.read_bytes()):
        raise ValueError("shows a private file")
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()


def _digests(home: Path, made: set[Path]) -> dict[str, str]:
    endings = (
        ".h5",
        ".safetensors",
        ".png",
        ".npy",
        ".parquet",
        ".json",
        ".csv",
        ".md",
    )
    found = {}
    for path in sorted({*_files(home)} - made):
        name = path.relative_to(home).as_posix()
        if (
            path.suffix in endings
            and not NOT_COMPARED.search(path.stem)
            and "/." not in name
        ):
            content = _datasets(path) if path.suffix == ".h5" else path.read_bytes()
            content = FINGERPRINT.sub(b"", content.replace(os.fsencode(home), b"HOME"))
            found["file " + FINGERPRINT.sub(b"", name.encode()).decode()] = (
                hashlib.sha256(content).hexdigest()
            )
    return found


def _datasets(path: Path) -> bytes:
    """Read the datasets of a store; its attributes name digests of the files that it
    was made of.
    """
    found: list[bytes] = []

    def add(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset) and "checksum" not in name:
            found.extend((name.encode(), np.asarray(each[()]).tobytes()))

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return b"".join(found)


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _flat(each, f"{key}.{place}")
    else:
        yield key, str(value)


def _outcome(case: Case, place: Path, status: int) -> Outcome:
    def written(name: str) -> str:
        path = place / name
        return path.read_text(errors="replace") if path.is_file() else ""

    found = Outcome(
        case, os.waitstatus_to_exitcode(status), written("stdout"), written("stderr")
    )
    if broken := written("broken"):
        found.problems.append(f"soak itself: {broken.strip().splitlines()[-1]}")
        found.stderr += broken
        return found
    report = json.loads(written("report.json") or "{}")
    found.problems += [
        f"{name}: {what}" for name, what in report.get("problems", {}).items()
    ]
    found.counts = report.get("counts", {})
    if case.call or found.code < 0:
        return found
    found.problems += _said(found)
    if found.code == 0:
        home = str(place / "a/b/home")
        try:
            text = FINGERPRINT.sub(
                b"", found.stdout.replace(home, "HOME").encode()
            ).decode()
            document = json.loads(text)
            shown = dict(_flat(document, "json"))
        except ValueError:
            shown = {"stdout": found.stdout}
        found.result = {
            key: value for key, value in shown.items() if not NOT_COMPARED.search(key)
        }
        found.result |= report.get("files", {})
    return found


def _said(found: Outcome) -> list[str]:
    """Judge the exit code and what was written on stderr."""
    problems, text = [], found.stderr
    if found.code not in ENDS:
        problems.append(f"exit code {found.code}, not of the tree")
    if bug := BUG.search(text):
        line = next(line for line in text.splitlines() if bug[0] in line)
        last = text.strip().splitlines()[-1] if "Traceback" in line else line
        before = next(
            (each for each in text.splitlines() if each.startswith("error:")), ""
        )
        problems.append(f"called a bug: {before or last}")
        return problems
    if CONTROL.search(text):
        problems.append("control characters on the terminal")
    lines = text.splitlines()
    at = next((n for n, line in enumerate(lines) if line.startswith("error:")), None)
    # by --check
    is_warned = any(line.startswith("warning: missing: ") for line in lines)
    if (
        found.code in (1, 2, 3, 4, 5)
        and at is None
        and not is_warned
        and '"' not in found.stdout
    ):
        problems.append(
            "no line that says what is wrong" if "Usage:" not in text else ""
        )
    elif at is not None:
        rest = [line for line in lines[at + 1 :] if line.strip()]
        if len(rest) != 1 or not rest[0].startswith("  try: "):
            problems.append(f"not two lines: {lines[at]} | {' | '.join(rest)[:80]}")
        if "free space or fix permissions" in text:
            problems.append(f"not a matter of space or permissions: {lines[at]}")
        if re.search(r"error: (out of memory|.*MemoryError)", lines[at]):
            problems.append(f"out of memory: {lines[at]}")
    return list(filter(None, problems))
