"""Libraries that do not import with this PyTorch: real failures, of fake packages that
come first.
"""

import sys
from pathlib import Path

import pytest
import torch

from brainhive_cli.commands import doctor
from brainhive_cli.core.errors import MissingExtra, install_line
from brainhive_cli.core.launch import Launch

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
