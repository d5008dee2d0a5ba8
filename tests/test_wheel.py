"""The wheel holds all that the commands need."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder / "site")
    return folder / "site"


def run(wheel: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run python on the wheel alone: it comes before the checkout, and home is elsewhere."""
    environment = {**os.environ, "PYTHONPATH": str(wheel), "BRAINHIVE_HOME": str(home)}
    return subprocess.run(
        [sys.executable, *words], cwd=home, env=environment, capture_output=True, text=True, check=False
    )


def test_every_shipped_recipe_is_in_the_wheel(wheel: Path) -> None:
    shipped = {path.relative_to(CHECKOUT / "recipes") for path in (CHECKOUT / "recipes").rglob("*.yaml")}
    packed = {path.relative_to(wheel / "brainhive_cli/recipes") for path in wheel.rglob("recipes/**/*.yaml")}
    assert packed == shipped and shipped


def test_a_command_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    where = run(wheel, tmp_path, "-c", "import brainhive_cli; print(brainhive_cli.__file__)").stdout
    assert Path(where.strip()).is_relative_to(wheel)
    done = run(wheel, tmp_path, "-m", "brainhive_cli", "embed", "--recipe", "demo", "--check", "--json")
    assert '"kind": "demo"' in done.stdout, done.stderr


def test_the_demo_weights_are_in_the_wheel(wheel: Path) -> None:
    packed = {path.name for path in (wheel / "brainhive_cli/demo/weights").iterdir()}
    assert packed == {"dual", "encoder", "films", "generator", "prior"}


def test_the_licence_travels_along(wheel: Path) -> None:
    assert list(wheel.glob("*.dist-info/licenses/LICENSE")) and list(
        wheel.glob("*.dist-info/licenses/NOTICE")
    )
    assert (wheel / "brainhive_cli/data/signals/hrf_library.csv").is_file()
