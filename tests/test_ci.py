"""The workflow that runs the tests on each Python, by reading."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())


def test_the_workflow_runs_on_every_python_that_the_project_names(workflow: dict[Any, Any]) -> None:
    """Quoted, too: YAML reads 3.10 as 3.1."""
    prefix = "Programming Language :: Python :: 3."
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if each.startswith(prefix)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert workflow["jobs"]["tests"]["strategy"]["matrix"] == {"python": named}
    assert named == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_the_workflow_runs_the_script_that_is_run_by_hand_with_the_python_of_the_matrix(
    workflow: dict[Any, Any],
) -> None:
    checkout, python, run = workflow["jobs"]["tests"]["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    assert python["uses"].startswith("actions/setup-python@")
    assert python["with"]["python-version"] == "${{ matrix.python }}"
    assert run == {"run": "bash .ci/run"}
    assert "\npython3 -m venv " in (CHECKOUT / ".ci/run").read_text()


def test_the_workflow_may_only_read_and_ends(workflow: dict[Any, Any]) -> None:
    triggers = workflow[True]  # `on` is a boolean in YAML 1.1
    assert triggers.keys() == {"push", "pull_request"}  # not pull_request_target, which has the secrets
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert 0 < workflow["jobs"]["tests"]["timeout-minutes"] <= 120
