"""The definitions of images, by reading: what they copy is there, and what they run is the package."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).resolve().parents[1]
DOCKERFILE = (CHECKOUT / "containers/Dockerfile").read_text()
DEFINITION = (CHECKOUT / "containers/brainhive.def").read_text()
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
BOTH = pytest.mark.parametrize("content", [DOCKERFILE, DEFINITION], ids=["Dockerfile", "brainhive.def"])
COMMENT = re.compile(r"^ *#.*\n", re.M)


def section(name: str) -> str:
    """Read a section of Apptainer's definition."""
    return re.split(r"^%\w+\n", DEFINITION.partition(f"%{name}\n")[2], maxsplit=1, flags=re.M)[0]


def copied(content: str) -> set[str]:
    """List what an image copies from the checkout."""
    if content is DEFINITION:
        pairs = [line.split() for line in section("files").splitlines() if line.strip()]
        assert all(target == f"/src/{source}" for source, target in pairs)
        return {source for source, _ in pairs}
    lines = re.findall(r"^COPY (.+) (/src/\S*)$", content, re.M)
    return {source for sources, _ in lines for source in sources.split()}


@BOTH
def test_all_that_the_package_is_built_of_is_copied_and_is_there(content: str) -> None:
    """As pyproject.toml names it: package, files that the wheel includes, readme and licences."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    about = PROJECT["project"]
    needed = {*wheel["packages"], *wheel["force-include"], about["readme"], *about["license-files"]}
    assert copied(content) == {"pyproject.toml", *needed}
    assert [name for name in copied(content) if not (CHECKOUT / name).exists()] == []


def test_docker_is_given_what_it_copies_and_nothing_of_data_or_runs() -> None:
    lines = (CHECKOUT / "containers/Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*" and {line[1:] for line in lines if line.startswith("!")} == copied(DOCKERFILE)


@BOTH
def test_an_image_has_a_python_and_extras_of_the_project(content: str) -> None:
    (version,) = re.findall(r"^F(?:ROM|rom:) python:([\d.]+)-slim$", content, re.M)
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])
    (line,) = re.findall(r"pip install .+", content)
    _, path = line.split('"')[:2]
    extras = Requirement(path.replace("/src", "brainhive")).extras
    assert extras and extras <= PROJECT["project"]["optional-dependencies"].keys()


@BOTH
def test_an_image_names_no_address(content: str) -> None:
    """Base image and packages come from where the site's own settings say."""
    assert not re.search(
        r"https?://|index-url|trusted-host|\w\.(?:io|com|org|net)\b", COMMENT.sub("", content)
    )


@BOTH
def test_home_and_the_hubs_cache_are_folders_to_bind(content: str) -> None:
    folders = dict(re.findall(r"(BRAINHIVE_HOME|HF_HOME)=\"?(?:\$\{\w+:-)?(/\w+)", content))
    assert folders == {"BRAINHIVE_HOME": "/work", "HF_HOME": "/cache"}
    assert re.search(r"mkdir -p /work /cache", content)
    guide = (CHECKOUT / "docs/clusters.md").read_text()
    assert all(guide.count(f":{folder}") >= 2 for folder in folders.values())


def test_both_run_doctor_and_docker_as_a_normal_user() -> None:
    assert 'ENTRYPOINT ["brainhive"]\nCMD ["doctor"]' in DOCKERFILE
    (name,) = re.findall(r"^USER (\w+)$", DOCKERFILE, re.M)
    assert name != "root" and f"--uid 1000 {name}" in DOCKERFILE
    assert section("test").strip().endswith(" brainhive doctor")
    assert section("runscript").split() == '[ "$#" -gt 0 ] || set -- doctor exec brainhive "$@"'.split()


@pytest.mark.parametrize(("content", "name"), [(DOCKERFILE, "Dockerfile"), (DEFINITION, "brainhive.def")])
def test_the_line_that_builds_an_image_stands_in_it_and_in_the_guide(content: str, name: str) -> None:
    (line,) = re.findall(r"^# {5}(.+ build .+)$", content, re.M)
    assert f"containers/{name}" in line
    assert f"\n    {line}\n" in (CHECKOUT / "docs/clusters.md").read_text()
