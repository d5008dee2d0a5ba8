"""Plugin of pytest that notes the lines and seconds of each test: `pytest -p
tools.mutants.recording`, with the folder of the notes in MUTANTS_NOTES.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

from tools.mutants import ROOT
from tools.mutants.notes import digest

NOTES = "MUTANTS_NOTES"

# in memory, as tests limit the size of files
_coverage = coverage.Coverage(data_file=None, source=[str(ROOT / "brainhive_cli")])
_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_configure() -> None:
    """Start the recording before the first test."""
    _coverage.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Record the lines of a test, its fixtures included, under its name."""
    _coverage.switch_context(item.nodeid)
    yield
    _coverage.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of a test and its fixtures."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0) + report.duration
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the notes of this process."""
    _coverage.stop()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    if worker == "main" and session.config.getoption("numprocesses", None):
        # the workers have run all tests
        return
    data = _coverage.get_data()
    tests = sorted(data.measured_contexts())
    index = {test: position for position, test in enumerate(tests)}
    lines = {}
    for path in data.measured_files():
        positions = {}
        for line, names in data.contexts_by_lineno(path).items():
            positions[line] = [index[test] for test in names]
        lines[str(Path(path).relative_to(ROOT))] = positions
    notes = {
        "tests": tests,
        "lines": lines,
        "digests": {path: digest((ROOT / path).read_bytes()) for path in lines},
        "seconds": _seconds,
        "failed": sorted(_failed),
    }
    Path(os.environ[NOTES], f"{os.getpid()}.json").write_text(json.dumps(notes))
