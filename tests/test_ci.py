"""The workflow that runs the tests on each Python, by reading."""

import tomllib
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def test_the_workflow_runs_on_every_python_that_the_project_names() -> None:
    """Quoted, too: YAML reads 3.10 as 3.1."""
    prefix = "Programming Language :: Python :: 3."
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if each.startswith(prefix)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert workflow["jobs"]["tests"]["strategy"]["matrix"] == {"python": named}
    assert named == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]
