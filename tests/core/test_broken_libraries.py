"""Libraries that do not import with this PyTorch: real failures, of fake packages that come first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from progress_lines import without_progress

from brainhive_cli.commands import doctor
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.core.launch import Launch, broken_libraries, failed_import

REFUSAL = "PyTorch has CUDA version 13.2 whereas TorchAudio has CUDA version 13.0."


def install(folder: Path, name: str, version: str, source: str) -> None:
    """Write a package with its metadata, as pip leaves them."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)
    stated = folder / f"{name}-{version}.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages that stands before the others; some are then imported anew."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("torchaudio", "braindecode", "timm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "site"


def test_libraries_that_import_are_not_called_broken():
    assert broken_libraries() == []


def test_doctor_names_a_broken_library_once_and_says_how_to_repair_it(site, home, capfd):
    install(site, "torchaudio", "2.11.0", f"raise RuntimeError({REFUSAL!r})")

    result = doctor.run(doctor.Recipe.resolve("doctor", None, {}, []), Launch(0, 1, torch.device("cpu")))

    assert result.exit_code == MissingExtra.exit_code
    assert result.hint == "pip uninstall torchaudio (brainhive does not use it)"
    *told, line = capfd.readouterr().err.splitlines()
    assert [words.split()[:2] for words in told[:2]] == [
        ["importing", "torchvision"],
        ["importing", "torchaudio"],
    ]
    assert line.startswith("warning: ") and not any("warning" in words for words in told)
    assert "torchaudio 2.11.0 does not import with torch " in line and REFUSAL in line and result.hint in line
    assert REFUSAL in result.details["broken"]


def test_where_braindecode_is_installed_the_repair_installs_a_torch_that_torchaudio_fits(site):
    install(site, "torchaudio", "2.11.0", f"raise RuntimeError({REFUSAL!r})")
    install(site, "braindecode", "1.8.1", "import torchaudio")

    (found,) = broken_libraries()

    assert found.hint.startswith("pip install 'brainhive[braindecode]'")


def test_a_library_that_fails_by_itself_is_named_with_its_own_repair(site):
    install(site, "timm", "0.1.0", "from torch import no_such_name")

    (found,) = broken_libraries()

    assert "timm 0.1.0 does not import" in found.message and "no_such_name" in found.message
    assert found.hint == "pip install --upgrade timm"


def test_an_error_that_no_import_led_to_is_not_blamed_on_a_library():
    try:
        raise RuntimeError("torchaudio")
    except RuntimeError as error:
        assert failed_import(error) is None


def test_a_command_that_a_broken_library_stops_says_so_in_one_line(tmp_path):
    """transformers imports torchaudio wherever it is installed, and fails with it."""
    install(tmp_path / "site", "torchaudio", "2.11.0", f"raise RuntimeError({REFUSAL!r})")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[2])])

    ended = subprocess.run(
        [sys.executable, "-m", "brainhive_cli", "embed", "--recipe", "demo"],
        env={**os.environ, "PYTHONPATH": path, "BRAINHIVE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == MissingExtra.exit_code, ended.stderr
    what, hint = without_progress(ended.stderr)
    assert what.startswith("error: torchaudio 2.11.0 does not import with torch ") and REFUSAL in what
    assert hint.strip() == "try: pip uninstall torchaudio (brainhive does not use it)"
