"""The tables of simulated statistics."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.simulated_statistics import tables

CHECKOUT = Path(__file__).resolve().parents[3]


def test_each_file_of_claims_has_a_table():
    folder = Path(tables.__file__).parent / "claims"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert sorted(files) == sorted(tables.CLAIMS)
    for name in tables.CLAIMS:
        claim = import_module(f"benchmarks.simulated_statistics.claims.{name}")
        parameters = list(inspect.signature(getattr(claim, name)).parameters)[1:]
        assert parameters[: len(claim.AXES)] == list(claim.AXES), name
        assert claim.COLUMNS and claim.__doc__, name


@pytest.mark.nightly
@pytest.mark.parametrize(
    "command",
    [["benchmarks/simulated_statistics"], ["-m", "benchmarks.simulated_statistics"]],
)
def test_a_table_is_printed_by_path_and_by_module(command, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    printed = subprocess.run(
        [sys.executable] + list(command) + ["2", "--only", "best_of_many"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "| 2 | 0.023 | 0.023 |" in printed
