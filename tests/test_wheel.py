"""Wheel and sdist hold what the commands need and nothing else, and the wheel runs
where pip has installed it.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from brainhive_cli import __version__

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
FOREIGN = {"PYTHONPATH", "PYTHONHOME", "BRAINHIVE_ALLOW_CODE"}
"""Variables that would let an installed copy import from elsewhere."""
PACKED_FOLDERS = ("brainhive_cli", "completions", "recipes")
WEIGHTS = "brainhive_cli/demo/weights"
RECORDING = "brainhive_cli/demo/haxby2001"
PHOTOGRAPHS = "brainhive_cli/demo/photographs"
DATA = {
    WEIGHTS: {".json", ".md", ".safetensors"},
    RECORDING: {"", ".gz", ".json", ".tsv"},
    PHOTOGRAPHS: {"", ".jpg", ".json"},
}
"""Suffixes of files by the folders of weights and data."""
TEXTS = {
    ".py",
    ".pyi",
    ".yaml",
    ".json",
    ".txt",
    ".csv",
    ".bib",
    ".html",
    ".css",
    ".js",
    ".md",
    ".tex",
    ".mplstyle",
    ".j2",
    "",
    ".bash",
    ".fish",  # completions
}
"""Suffixes of files elsewhere."""
MAX_TEXT_BYTES = 50_000
MAX_BYTES = 32_000_000
"""Largest wheel, before compression, and largest sdist."""


def run_program(home, *arguments):
    """Run a command in an empty home, and return what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in FOREIGN
    }
    environment["BRAINHIVE_HOME"] = str(home)
    process = subprocess.run(
        arguments,
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def list_packed(builder):
    """List the files that a builder takes from the checkout, by name in the archive."""
    files = builder(str(CHECKOUT)).recurse_included_files()
    return {file.distribution_path: Path(file.path) for file in files}


def build(target, source, folder):
    """Build a wheel or sdist without a network, and return the archive."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target]
    command += ["--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    return build("wheel", CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
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
        list(install) + ["--no-index", "--no-deps", wheel],
        check=True,
        capture_output=True,
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


def test_the_wheel_holds_tracked_files_of_its_folders_alone():
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z"] + list(PACKED_FOLDERS),
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    packed = list_packed(WheelBuilder)

    expected = set()
    for name in listing.rstrip("\0").split("\0"):
        if name != "completions/build.py":
            is_moved = not name.startswith("brainhive_cli/")
            expected.add(f"brainhive_cli/{name}" if is_moved else name)
    assert packed.keys() == expected


def test_the_wheel_holds_modules_small_texts_and_named_data():
    sizes = {
        name: path.stat().st_size for name, path in list_packed(WheelBuilder).items()
    }
    packed_suffixes = set()
    for name, size in sizes.items():
        suffix = PurePosixPath(name).suffix
        folder = next(
            (data_folder for data_folder in DATA if name.startswith(f"{data_folder}/")),
            None,
        )
        if folder is None:
            assert suffix in TEXTS and size <= MAX_TEXT_BYTES, name
        else:
            assert suffix in DATA[folder], name
        packed_suffixes.add((folder, suffix))
    assert packed_suffixes >= {
        (folder, suffix) for folder in DATA for suffix in DATA[folder]
    }
    assert sum(sizes.values()) <= MAX_BYTES


def test_notice_and_readmes_name_all_weights_and_data():
    notice = (CHECKOUT / "NOTICE").read_text()
    notice_paths = re.findall(r"\bbrainhive_cli/[\w./]*\w", notice)
    assert [name for name in notice_paths if not (CHECKOUT / name).exists()] == []
    assert set(DATA) <= set(notice_paths)
    names = list_packed(WheelBuilder).keys()
    assert {name for name in names if name.endswith(".csv")} <= set(notice_paths)

    # each README names the files of its folder, or the folders that hold them
    readme = (CHECKOUT / WEIGHTS / "README.md").read_text()
    described = re.findall(r"`([\w/.]+)`", readme)
    for name in names:
        path = PurePosixPath(name)
        if path.suffix == ".safetensors" or path.name == "tokenizer.json":
            inside = path.relative_to(WEIGHTS)
            accepted_names = {inside.as_posix(), inside.with_suffix("").as_posix()}
            accepted_names.update(parent.as_posix() for parent in inside.parents)
            assert accepted_names & set(described), name
    readme = (CHECKOUT / PHOTOGRAPHS / "README").read_text()
    photographs = {PurePosixPath(name).stem for name in names if name.endswith(".jpg")}
    assert photographs <= {line.partition(" ")[0] for line in readme.splitlines()}
    licence = re.search(r"CC BY-SA 3\.0", (CHECKOUT / RECORDING / "README").read_text())
    assert licence
    assert licence[0] in notice


def test_the_sdist_holds_the_files_of_the_wheel_and_documents():
    packed = set(list_packed(SdistBuilder))
    sources = {
        path.relative_to(CHECKOUT).as_posix()
        for path in list_packed(WheelBuilder).values()
    }
    documents = {"CHANGELOG.md", "CITATION.cff", "completions/build.py"}
    assert packed == sources | documents


@pytest.mark.nightly
def test_the_sdist_builds_the_wheel_of_the_checkout(wheel, tmp_path):
    sdist = build("sdist", CHECKOUT, tmp_path / "sdist")
    folder = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{folder}/") for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    top_files = {"LICENSE", "NOTICE", "PKG-INFO", "README.md", "pyproject.toml"}
    # hatchling adds the second to every sdist
    assert names - set(list_packed(SdistBuilder)) == top_files | {".gitignore"}
    assert sdist.stat().st_size < MAX_BYTES

    rebuilt = build("wheel", tmp_path / folder, tmp_path / "wheel")

    assert rebuilt.read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    information = f"brainhive-{__version__}.dist-info"
    metadata_names = ("METADATA", "RECORD", "WHEEL", "entry_points.txt")
    licences = ("licenses/LICENSE", "licenses/NOTICE")
    assert contents.keys() - list_packed(WheelBuilder).keys() == {
        f"{information}/{name}" for name in metadata_names + licences
    }
    # nothing tells where it was built
    checkout_path = re.compile(
        rb"(?<![\w.])" + re.escape(os.fsencode(CHECKOUT)) + rb"/"
    )
    assert [name for name, text in contents.items() if checkout_path.search(text)] == []


@pytest.mark.nightly
def test_pip_is_told_python_command_and_dependencies(
    environment,
):
    site = [str(path) for path in environment.glob("lib/python*/site-packages")]
    (installed,) = metadata.Distribution.discover(name="brainhive", path=site)
    package_metadata = installed.metadata
    assert package_metadata["Version"] == __version__
    assert package_metadata["License-Expression"] == PROJECT["license"]
    assert SpecifierSet(package_metadata["Requires-Python"]) == SpecifierSet(
        PROJECT["requires-python"]
    )
    (command,) = installed.entry_points
    assert command.group == "console_scripts"
    assert {command.name: command.value} == PROJECT["scripts"]
    requirements = [line for line in installed.requires or [] if "extra ==" not in line]
    assert sorted(requirements) == sorted(
        line.replace("_", "-") for line in PROJECT["dependencies"]
    )
    for line in map(Requirement, requirements):  # as the tests run with
        assert metadata.version(line.name) in line.specifier, line


@pytest.mark.nightly
def test_the_installed_command_works_in_an_empty_home(environment, tmp_path):
    code = (
        "import sys, brainhive_cli; print(brainhive_cli.__file__, *sys.path, sep='\\n')"
    )
    copy, *path = run_program(
        tmp_path, environment / "bin/python", "-c", code
    ).splitlines()
    assert Path(copy).is_relative_to(environment)
    assert str(CHECKOUT) not in path

    # whose weights are in the wheel
    run_program(
        tmp_path,
        environment / "bin/brainhive",
        "embed",
        "--recipe",
        "demo",
        "dataset.concepts=8",
        "encoders=demo-clip",
    )
    assert list(tmp_path.glob("embeddings/*/train/*.h5"))
