"""Tests of a copy of the checkout in which a file is changed."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tools.mutants import ROOT
from tools.mutants.notes import file_of
from tools.mutants.operators import Mutant
from tools.shared_folders import SHARED

LIBRARIES = """
accelerate diffusers h5py huggingface_hub hypothesis jinja2 matplotlib.pyplot mne
mne_bids nibabel open_clip pydantic pytest rich safetensors.torch scipy.stats
scipy.special sklearn.linear_model sklearn.discriminant_analysis sklearn.cluster timm
torch torch._dynamo torchmetrics torchvision transformers typer typer.testing
diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl
"""
"""Imports of most tests, which take longer than the tests of a mutant."""
CONTEXT: Any = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LIBRARIES.split())
START_S = 60
"""Limit for the collection of tests and their fixtures."""
SLOWER = 5
"""Factor of the budget of tests after which a mutant counts as endless."""


class Verdict(NamedTuple):
    """Verdict of the tests on a mutant.

    Attributes:
        outcome: `killed`, `survived`, `endless` (counts as killed), or `not run` (no
            test runs the line).
        killer: The test that failed first.
        tests: Number of tests that ran.
        seconds: Their duration.
    """

    outcome: str
    killer: str
    tests: int
    seconds: float


class Selection:
    """Plugin of pytest that runs selected tests in a given order.

    Args:
        tests: Names of the tests, in order.
        budget_s: Seconds after which no test begins.
    """

    def __init__(self, tests: list[str], budget_s: float) -> None:
        self.order = {test: position for position, test in enumerate(tests)}
        self.budget_s = budget_s
        self.started_s = time.monotonic()
        self.tests_run: set[str] = set()
        self.killer = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop the other tests of the files, and sort the selected tests."""
        selected_items = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(selected_items, key=lambda item: self.order[item.nodeid])

    def pytest_collection_finish(self) -> None:
        """Start the clock after all imports."""
        self.started_s = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first test that fails."""
        self.tests_run.add(report.nodeid)
        if report.failed and not self.killer:
            self.killer = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a test file that cannot be imported."""
        if report.failed and not self.killer:
            self.killer = report.nodeid

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Stop when the time is over."""
        if time.monotonic() - self.started_s > self.budget_s:
            item.session.shouldstop = "the time is over"


class Checkout:
    """Copy of the project in which a file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / ROOT.name
        ignored = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        if SHARED.is_dir():
            (folder / "shared").symlink_to(SHARED)

    def judge(self, mutant: Mutant, tests: list[str], budget_s: float) -> Verdict:
        """Run tests on a mutant until one fails.

        Args:
            mutant: The change.
            tests: Names of the tests, in order.
            budget_s: Seconds after which no test begins.
        """
        if not tests:
            return Verdict("not run", "", 0, 0)
        module = self.root / mutant.path
        source = module.read_bytes()
        result = self.root.parent / "result.json"
        result.unlink(missing_ok=True)
        started_s = time.monotonic()
        try:
            module.write_bytes(mutant.apply(source))
            _forget_bytecode(module)
            process = CONTEXT.Process(
                target=run_tests, args=(str(self.root), tests, budget_s, str(result))
            )
            process.start()
            process.join(START_S + SLOWER * budget_s)
            is_endless = process.is_alive()
            _stop(process)
        finally:
            module.write_bytes(source)
            _forget_bytecode(module)
        seconds = time.monotonic() - started_s
        if is_endless:
            return Verdict("endless", "", 0, seconds)
        if not result.exists():
            return Verdict("killed", "the process broke", 0, seconds)
        killer, count = json.loads(result.read_text())
        return Verdict("killed" if killer else "survived", killer, count, seconds)


def run_tests(root: str, tests: list[str], budget_s: float, result: str) -> None:
    """Run tests in a process that has imported libraries but not the package."""
    os.setsid()
    output = os.open(Path(result).with_name("output.txt"), os.O_WRONLY | os.O_CREAT)
    os.ftruncate(output, 0)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(root)
    os.environ["PYTHONPATH"] = root
    os.environ["OMP_NUM_THREADS"] = "1"
    # import the package and tests of the copy, not of the original
    for name in list(sys.modules):
        if name.partition(".")[0] in ("brainhive_cli", "tests", "tools"):
            del sys.modules[name]
    sys.path[:] = [path for path in sys.path if Path(path or ".") != ROOT]
    sys.path.insert(0, root)

    selection = Selection(tests, budget_s)
    files = dict.fromkeys(file_of(test) for test in tests)
    base = Path(result).with_name("pytest")
    arguments = ["-x", "-p", "no:cacheprovider", f"--basetemp={base}"] + list(files)
    code = pytest.main(arguments, plugins=[selection])
    killer = selection.killer
    if not killer and code not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
        # for example a module that all tests import
        killer = f"pytest ended with {int(code)}"
    Path(result).write_text(json.dumps([killer, len(selection.tests_run)]))


def _stop(process: Any) -> None:
    """Kill a process and its children."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.join()


def _forget_bytecode(module: Path) -> None:
    """Remove compiled files, which Python trusts if size and second agree."""
    for bytecode in (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
        bytecode.unlink()
