"""Libraries that do not import with this PyTorch: real failures, of fake packages that
come first.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.commands import doctor
from brainhive_cli.core.base.errors import MissingExtra, install_line
from brainhive_cli.core.base.hidden_libraries import describe_hidden_libraries
from brainhive_cli.core.runs.launch import Launch

REFUSAL = "PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0."


def install(folder: Path, name: str, version: str, source: str) -> None:
    """Write a package with its metadata, as pip leaves them."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)
    stated = folder / f"{name}-{version}.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages that stands before the others; some are then imported
    anew.
    """
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("torchaudio", "braindecode", "timm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "site"


def test_doctor_names_a_broken_library_once_with_its_repair(site, home, capfd):
    install(site, "torchaudio", "2.11.0", f"raise RuntimeError({REFUSAL!r})")

    result = doctor.run(
        doctor.Recipe.resolve("doctor", None, {}, []), Launch(0, 1, torch.device("cpu"))
    )

    assert result.exit_code == MissingExtra.exit_code
    assert result.hint == "pip uninstall torchaudio (Brainhive does not use it)"
    *told, line = capfd.readouterr().err.splitlines()
    assert [words.split()[:2] for words in told[:2]] == [
        ["importing", "torchvision"],
        ["importing", "torchaudio"],
    ]
    assert line.startswith("warning: ") and not any(
        "warning" in words for words in told
    )
    assert (
        "torchaudio 2.11.0 does not import with torch " in line
        and REFUSAL in line
        and result.hint in line
    )
    assert REFUSAL in result.details[doctor.BROKEN_LABEL]


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
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    command = subprocess.run(
        [sys.executable, "-m", "brainhive_cli", "doctor"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    hint = command.stderr.splitlines()[-1]
    assert command.returncode == 1
    assert f"{name} 1.0 of {tmp_path} comes before" in hint and "PYTHONPATH" in hint


def test_an_old_library_that_comes_first_is_not_called_a_bug(site):
    install(site, "nibabel", "2.1.0", "")
    assert "bug" in describe_error(AttributeError("no float")).hint
    described = describe_error(AttributeError("nibabel has no float"))
    assert "nibabel 2.1.0" in described.hint and "PYTHONNOUSERSITE=1" in described.hint


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
    assert broken is not None and "PYTHONPATH" in broken.hint
