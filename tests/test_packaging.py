"""The repository as others see it: its root, images, the tests of each Python, and
extras.
"""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).resolve().parents[1]
DOCKERFILE = (CHECKOUT / "containers/Dockerfile").read_text()
DEFINITION = (CHECKOUT / "containers/brainhive.def").read_text()
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
BOTH = {"Dockerfile": DOCKERFILE, "brainhive.def": DEFINITION}
ROOT_FOLDERS = {
    ".ci",
    ".github",
    "benchmarks",
    "brainhive_cli",
    "completions",
    "containers",
    "docs",
    "recipes",
    "tests",
    "tools",
}
ROOT_FILES = {
    ".git-blame-ignore-revs",
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
}
"""All that the repository tracks in its root."""


def read_section(name):
    """Read a section of Apptainer's definition."""
    return re.split(
        r"^%\w+\n", DEFINITION.partition(f"%{name}\n")[2], maxsplit=1, flags=re.M
    )[0]


def list_copied_paths(content):
    """List what an image copies from the checkout."""
    if content is DEFINITION:
        pairs = [
            line.split() for line in read_section("files").splitlines() if line.strip()
        ]
        assert all(target == f"/src/{source}" for source, target in pairs)
        return {source for source, _ in pairs}
    lines = re.findall(r"^COPY (.+) (/src/\S*)$", content, re.M)
    return {source for sources, _ in lines for source in sources.split()}


def test_all_that_the_package_is_built_of_is_copied_and_is_there():
    """As pyproject.toml names it: package, files that the wheel includes, readme and
    licences.
    """
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = PROJECT["project"]
    required_paths = (
        set(wheel["packages"])
        | {PurePosixPath(name).parts[0] for name in wheel["force-include"]}
        | {project["readme"]}
        | set(project["license-files"])
    )
    for content in BOTH.values():
        assert list_copied_paths(content) == {"pyproject.toml"} | set(required_paths)
        assert [
            name
            for name in list_copied_paths(content)
            if not (CHECKOUT / name).exists()
        ] == []
    lines = (CHECKOUT / "containers/Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == list_copied_paths(
        DOCKERFILE
    )


def test_the_image_uses_a_python_and_extras_of_the_project():
    guide = (CHECKOUT / "docs/clusters.md").read_text()
    for name, content in BOTH.items():
        (version,) = re.findall(r"^F(?:ROM|rom:) python:([\d.]+)-slim$", content, re.M)
        assert version in SpecifierSet(PROJECT["project"]["requires-python"])
        (line,) = re.findall(r"pip install .+", content)
        extras = Requirement(line.split('"')[1].replace("/src", "brainhive")).extras
        assert extras
        assert extras <= PROJECT["project"]["optional-dependencies"].keys()
        folders = dict(
            re.findall(r"(BRAINHIVE_HOME|HF_HOME)=\"?(?:\$\{\w+:-)?(/\w+)", content)
        )
        assert folders == {"BRAINHIVE_HOME": "/work", "HF_HOME": "/cache"}
        (line,) = re.findall(r"^# {5}(.+ build .+)$", content, re.M)
        assert f"containers/{name}" in line
        assert f"\n    {line}\n" in guide


def test_the_workflow_tests_every_python_of_the_project():
    """Quoted, too: YAML reads 3.10 as 3.1."""
    prefix = "Programming Language :: Python :: 3."
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    versions = [
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["project"]["classifiers"]
        if classifier.startswith(prefix)
    ]
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert workflow["jobs"]["tests"]["strategy"]["matrix"] == {"python": versions}
    assert versions == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_every_extra_has_a_step_in_the_script_that_tries_them():
    extras = PROJECT["project"]["optional-dependencies"]
    script = (CHECKOUT / "tools" / "check_extras.sh").read_text()

    assert set(re.findall(r"^        ([a-z0-9-]+)\)", script, re.M)) == {
        "none",
        "wheel",
        "lowest",
    } | set(extras) | {"all"}


def test_the_root_holds_what_a_visitor_expects_and_nothing_else():
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")

    listing = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    paths = [Path(name) for name in listing.split("\0") if name]

    assert {path.name for path in paths if len(path.parts) == 1} == ROOT_FILES
    assert {path.parts[0] for path in paths if len(path.parts) > 1} == ROOT_FOLDERS
