"""The tests that run a line of the package, from the notes of `recording`."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path, PurePath
from typing import Any

from tools.mutants.operators import Mutant

DECLARATIONS = (
    "tests/test_architecture.py",
    "tests/core/recipes/test_recipe_schema.py",
)
"""Test files that read what all modules declare when they are imported."""


class Notes:
    """The tests that run each line of the package, and the seconds of each test.

    Args:
        folder: Notes of runs of pytest. The latest run of a test file counts.
    """

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, set[str]]] = {}
        self._digests: dict[str, str] = {}
        self._failed: set[str] = set()
        files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files:
            self._add(json.loads(path.read_text()))

    def _add(self, notes: dict[str, Any]) -> None:
        """Add the notes of a process, and forget older notes of its test files."""
        files = {file_of(test) for test in notes["seconds"]}
        old_tests = {test for test in self.seconds if file_of(test) in files}
        for test in old_tests:
            del self.seconds[test]
        for lines in self.lines.values():
            for tests in lines.values():
                tests -= old_tests

        self.seconds |= notes["seconds"]
        self._failed = (self._failed - old_tests) | set(notes["failed"])
        self._digests |= notes["digests"]
        for path, lines in notes["lines"].items():
            tests_of_lines = self.lines.setdefault(path, defaultdict(set))
            for line, positions in lines.items():
                tests = {notes["tests"][position] for position in positions}
                tests_of_lines[int(line)] |= tests & self.seconds.keys()

    def select(self, mutant: Mutant, source: bytes) -> list[str]:
        """Return the tests that run the line of a mutant, the likeliest killers first.

        If the line runs at import, or if the file has changed since the recording, add
        the tests of the whole file and its folder, and the tests of declarations.
        """
        module = PurePath(mutant.path)
        lines = self.lines.get(mutant.path, {})
        tests = set(lines.get(mutant.line, ()))
        if not tests or self._digests.get(mutant.path) != digest(source):
            tests = tests.union(*lines.values())
            for test in self.seconds:
                if file_of(test) in DECLARATIONS or _is_near(test, module):
                    tests.add(test)

        # Start with the mirroring file, then files near it. Take a test of each file in
        # turn, as tests of a file are alike, and the quickest first.
        turns = Counter[str]()
        ranks = dict[str, tuple[bool, bool, int, float]]()
        for test in sorted(tests - self._failed, key=self.seconds.__getitem__):
            file = file_of(test)
            is_mirror = PurePath(file).stem == f"test_{module.stem}"
            is_first = is_mirror or file in DECLARATIONS
            is_near = _is_near(test, module)
            ranks[test] = not is_first, not is_near, turns[file], self.seconds[test]
            turns[file] += 1
        return sorted(ranks, key=ranks.__getitem__)


def _is_near(test: str, module: PurePath) -> bool:
    """Return True if a test lies in the folder that mirrors a module's, or above it."""
    folders = PurePath(file_of(test)).parts[1:-1]
    return bool(folders) and module.parts[1:-1][: len(folders)] == folders


def file_of(test: str) -> str:
    """Return the file of a test, from its name."""
    return test.partition("::")[0]


def digest(source: bytes) -> str:
    """Hash a source file."""
    return hashlib.sha256(source).hexdigest()[:16]
