"""The wheel holds all that the commands need, and runs where pip has installed it."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from brainhive_cli import __version__

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
FOREIGN = {"PYTHONPATH", "PYTHONHOME", "BRAINHIVE_ALLOW_CODE"}
"""Variables that would let an installed copy import from elsewhere."""


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a wheel or sdist of a source tree into an empty folder, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    return archive


def run(home: Path, *words: str | Path) -> str:
    """Run a command in an empty home, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["BRAINHIVE_HOME"] = str(home)
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of this checkout."""
    return build(CHECKOUT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """The opened wheel."""
    with zipfile.ZipFile(wheel) as opened:
        yield opened


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    install = [folder / "bin/python", "-m", "pip", "--isolated", "install", "--no-index", "--no-deps"]
    subprocess.run([*install, wheel], check=True, capture_output=True)

    # The dependencies are those of the interpreter that runs the tests: 6 GB, neither downloaded nor copied.
    # A folder that a .pth file adds comes after the environment's own, and .pth files in it are not read: an
    # editable install of the checkout is not followed. Pip, which would find that one, has already run.
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    return folder


@pytest.fixture(scope="module")
def installed(environment: Path) -> metadata.Distribution:
    """What pip has noted about the installed package."""
    site = [str(path) for path in environment.glob("lib/python*/site-packages")]
    (found,) = metadata.Distribution.discover(name="brainhive", path=site)
    return found


def test_the_wheel_has_the_package_and_nothing_of_tests_benchmarks_or_tools(
    archive: zipfile.ZipFile,
) -> None:
    first = {PurePosixPath(name).parts[0] for name in archive.namelist()}
    assert first == {"brainhive_cli", f"brainhive-{__version__}.dist-info"}
    assert not [name for name in archive.namelist() if re.search(r"(^|/)(tests?|benchmarks|tools)/", name)]


@pytest.mark.parametrize("folder", ["recipes", "completions"])
def test_every_shipped_recipe_and_completion_is_in_the_wheel(archive: zipfile.ZipFile, folder: str) -> None:
    files = {path.relative_to(CHECKOUT) for path in (CHECKOUT / folder).rglob("*") if path.is_file()}
    shipped = {path.as_posix() for path in files if path.parent.name != "__pycache__"}
    packed = {name.removeprefix("brainhive_cli/") for name in archive.namelist()}
    assert {name for name in packed if name.startswith(f"{folder}/")} == shipped and shipped


def test_the_demo_weights_are_in_the_wheel(archive: zipfile.ZipFile) -> None:
    weights = {PurePosixPath(name).parts[3] for name in archive.namelist() if "/demo/weights/" in name}
    assert weights == {"dual", "encoder", "films", "generator", "prior"}


def test_the_licence_travels_along(archive: zipfile.ZipFile) -> None:
    licences = f"brainhive-{__version__}.dist-info/licenses"
    needed = {f"{licences}/LICENSE", f"{licences}/NOTICE", "brainhive_cli/data/signals/hrf_library.csv"}
    assert needed <= {*archive.namelist()}


def test_no_file_of_the_wheel_names_the_folder_that_it_was_built_in(archive: zipfile.ZipFile) -> None:
    path = re.compile(rb"(?<![\w.])" + re.escape(os.fsencode(CHECKOUT)) + rb"/")
    assert [name for name in archive.namelist() if path.search(archive.read(name))] == []


def test_a_wheel_that_is_built_of_the_sdist_is_the_same(archive: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(build(CHECKOUT, "sdist", tmp_path / "sdist")) as sources:
        sources.extractall(tmp_path, filter="data")
    with zipfile.ZipFile(build(tmp_path / f"brainhive-{__version__}", "wheel", tmp_path / "wheel")) as again:
        contents = [{file.filename: file.CRC for file in each.infolist()} for each in (archive, again)]
    assert contents[0] == contents[1]


def test_pip_is_told_the_python_the_command_and_the_dependencies(installed: metadata.Distribution) -> None:
    about = installed.metadata
    assert about["Version"] == __version__ and about["License-Expression"] == PROJECT["license"]
    assert SpecifierSet(about["Requires-Python"]) == SpecifierSet(PROJECT["requires-python"])
    (command,) = installed.entry_points
    assert command.group == "console_scripts" and {command.name: command.value} == PROJECT["scripts"]
    needed = [line for line in installed.requires or [] if "extra ==" not in line]
    assert sorted(needed) == sorted(line.replace("_", "-") for line in PROJECT["dependencies"])


def test_the_dependencies_that_pip_would_bring_are_those_that_the_tests_ran_with(
    installed: metadata.Distribution,
) -> None:
    needed = [Requirement(line) for line in installed.requires or [] if "extra ==" not in line]
    versions = {each.name: metadata.version(each.name) for each in needed}
    assert [each for each in needed if versions[each.name] not in each.specifier] == [] and needed


def test_what_is_imported_is_the_installed_copy_and_not_the_checkout(
    environment: Path, tmp_path: Path
) -> None:
    code = """
import json, sys
import brainhive_cli
from brainhive_cli.core.files import shipped_folder
shipped = [str(shipped_folder(name)) for name in ("recipes", "completions")]
print(json.dumps({"copy": [brainhive_cli.__file__, *shipped], "path": sys.path}))
"""
    said = json.loads(run(tmp_path, environment / "bin/python", "-c", code))
    assert [path for path in said["copy"] if not Path(path).is_relative_to(environment)] == []
    assert str(CHECKOUT) not in said["path"]


def test_the_installed_command_works_in_an_empty_home(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin/brainhive"
    assert run(tmp_path, command, "--version") == f"brainhive {__version__}\n"
    machine = json.loads(run(tmp_path, command, "doctor", "--json"))["tables"][0]["rows"]
    assert {"item": "brainhive", "found": __version__} in machine
    run(tmp_path, command, "embed", "--recipe", "demo")
    run(tmp_path, command, "train-align", "--recipe", "demo", "subjects=1", "train.epochs=1")

    # The run has a model, and names the version that made it.
    (notes,) = tmp_path.glob("runs/train-align/*/environment.json")
    assert json.loads(notes.read_text())["versions"]["brainhive"] == __version__
    assert list(notes.parent.glob("cells/sub-01_seed-*/model/model.safetensors"))
