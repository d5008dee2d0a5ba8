"""Libraries that do not import with this PyTorch: real failures, of fake packages that
come first.
"""

import json
import os
import subprocess
import sys

import pytest

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.commands import doctor
from brainhive_cli.core.base import (
    MissingExtra,
    describe_hidden_libraries,
    install_line,
)

REFUSAL = "PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0."


def install(folder, name, version, source):
    """Write a package with its metadata, as pip leaves them."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)
    metadata_folder = folder / f"{name}-{version}.dist-info"
    metadata_folder.mkdir()
    (metadata_folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )


def run_doctor(folder, *arguments):
    """Run `doctor` in a process of its own, with packages that come first.

    transformers remembers for a whole process whether torchaudio is installed.
    """
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "brainhive_cli", "doctor"] + list(arguments),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages that stands before the others."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_doctor_names_a_broken_library_once_with_its_repair(tmp_path, home):
    install(tmp_path, "torchaudio", "2.11.0", f"raise RuntimeError({REFUSAL!r})")

    command = run_doctor(tmp_path, "--json")

    # transformers and diffusers import torchaudio, and do not import either
    assert command.returncode == MissingExtra.exit_code
    assert "importing transformers" in command.stderr
    warnings = [
        line for line in command.stderr.splitlines() if line.startswith("warning: ")
    ]
    assert len(warnings) == 1
    assert "torchaudio 2.11.0 does not import with torch " in warnings[0]
    assert REFUSAL in warnings[0]
    assert "pip uninstall torchaudio (Brainhive does not use it)" in warnings[0]
    rows = json.loads(command.stdout)["tables"][0]["rows"]
    machine = {row["item"]: row["found"] for row in rows}
    assert REFUSAL in machine[doctor.BROKEN_LABEL]


def test_extras_are_installed_from_the_checkout_or_the_wheel(tmp_path, monkeypatch):
    assert install_line("live", tmp_path) == "pip install 'brainhive[live]'"
    (tmp_path / "pyproject.toml").touch()
    assert install_line("live", tmp_path) == f"pip install -e '{tmp_path}[live]'"
    assert install_line(checkout=tmp_path) == f"pip install -e {tmp_path}"
    monkeypatch.chdir(tmp_path)
    assert install_line("live", tmp_path) == "pip install -e '.[live]'"


@pytest.mark.parametrize("name", ["pydantic", "typing_extensions"])
def test_an_old_library_that_comes_first_is_named_at_import(tmp_path, name):
    install(tmp_path, name, "1.0", "")
    command = run_doctor(tmp_path)
    hint = command.stderr.splitlines()[-1]
    assert command.returncode == 1
    assert f"{name} 1.0 of {tmp_path} comes before" in hint
    assert "PYTHONPATH" in hint


def test_an_old_library_that_comes_first_is_not_called_a_bug(site):
    install(site, "nibabel", "2.1.0", "")
    assert "bug" in describe_error(AttributeError("no float")).hint
    described = describe_error(AttributeError("nibabel has no float"))
    assert "nibabel 2.1.0" in described.hint
    assert "PYTHONNOUSERSITE=1" in described.hint


def test_doctor_lists_old_libraries_that_come_first(site):
    install(site, "h5py", "2.10.0", "")
    assert "h5py 2.10.0" in describe_hidden_libraries()
    broken = doctor.judge_machine(
        lacking=["h5py 2.10.0 is not >=3.12"],
        broken=[],
        home=site,
        is_writable=True,
        free_gb=50.0,
        device_name="cpu",
        n_gpus=0,
        device_error=None,
        n_possible="3 of 11",
    )[1]
    assert broken is not None
    assert "PYTHONPATH" in broken.hint
