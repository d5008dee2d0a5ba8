"""The wheel holds all that the commands need, and runs where pip has installed it."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from brainhive_cli import __version__

pytestmark = pytest.mark.nightly


CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
FOREIGN = {"PYTHONPATH", "PYTHONHOME", "BRAINHIVE_ALLOW_CODE"}
"""Variables that would let an installed copy import from elsewhere."""


def run(home: Path, *words: str | Path) -> str:
    """Run a command in an empty home, and return what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in FOREIGN
    }
    environment["BRAINHIVE_HOME"] = str(home)
    done = subprocess.run(
        words, cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(folder),
    ]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder],
        check=True,
        capture_output=True,
    )
    install = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "--python",
        str(folder / "bin/python"),
        "install",
    ]
    subprocess.run(
        [*install, "--no-index", "--no-deps", wheel], check=True, capture_output=True
    )

    # The dependencies are those of the interpreter that runs the tests: 6 GB, neither
    # downloaded nor copied.
    # A folder that a .pth file adds comes after the environment's own, and .pth files
    # in it are not read: an editable install of the checkout is not followed. Pip,
    # which would find that one, has already run.
    folders = [
        path
        for path in sys.path
        if Path(path).name in ("site-packages", "dist-packages")
    ]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    return folder


def test_the_wheel_has_no_tests_and_no_tools(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names, path = (
            archive.namelist(),
            re.compile(rb"(?<![\w.])" + re.escape(os.fsencode(CHECKOUT)) + rb"/"),
        )
        # where it was built
        assert [name for name in names if path.search(archive.read(name))] == []
    about = f"brainhive-{__version__}.dist-info"
    assert {PurePosixPath(name).parts[0] for name in names} == {"brainhive_cli", about}
    assert not [
        name for name in names if re.search(r"(^|/)(tests?|benchmarks|tools)/", name)
    ]
    for folder in ("recipes", "completions"):
        files = {
            path.relative_to(CHECKOUT)
            for path in (CHECKOUT / folder).rglob("*")
            if path.is_file()
        }
        shipped = {
            path.as_posix() for path in files if path.parent.name != "__pycache__"
        }
        packed = {name.removeprefix("brainhive_cli/") for name in names}
        assert {
            name for name in packed if name.startswith(f"{folder}/")
        } == shipped and shipped
    weights = set()
    for name in names:
        folder = PurePosixPath(name).parent.parts
        if folder[:3] == ("brainhive_cli", "demo", "weights"):
            weights.update(folder[3:4])
    assert weights == {"dual", "encoder", "films", "generator", "prior"}
    assert {
        f"{about}/licenses/LICENSE",
        "brainhive_cli/data/fmri/hrf_library.csv",
    } <= {*names}


def test_pip_is_told_the_python_the_command_and_the_dependencies(
    environment: Path,
) -> None:
    site = [str(path) for path in environment.glob("lib/python*/site-packages")]
    (installed,) = metadata.Distribution.discover(name="brainhive", path=site)
    about = installed.metadata
    assert (
        about["Version"] == __version__
        and about["License-Expression"] == PROJECT["license"]
    )
    assert SpecifierSet(about["Requires-Python"]) == SpecifierSet(
        PROJECT["requires-python"]
    )
    (command,) = installed.entry_points
    assert (
        command.group == "console_scripts"
        and {command.name: command.value} == PROJECT["scripts"]
    )
    needed = [line for line in installed.requires or [] if "extra ==" not in line]
    assert sorted(needed) == sorted(
        line.replace("_", "-") for line in PROJECT["dependencies"]
    )
    for line in map(Requirement, needed):  # as the tests run with
        assert metadata.version(line.name) in line.specifier, line


def test_the_installed_command_works_in_an_empty_home(
    environment: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, brainhive_cli; print(brainhive_cli.__file__, *sys.path, sep='\\n')"
    )
    copy, *path = run(tmp_path, environment / "bin/python", "-c", code).splitlines()
    assert Path(copy).is_relative_to(environment) and str(CHECKOUT) not in path

    # whose weights are in the wheel
    small = ("dataset.concepts=8", "encoders=demo-clip")
    run(tmp_path, environment / "bin/brainhive", "embed", "--recipe", "demo", *small)
    assert list(tmp_path.glob("embeddings/*/train/*.h5"))
