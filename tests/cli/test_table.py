"""What the shell completes: the names of encoders, data sets, recipes and runs."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli.table import kinds
from brainhive_cli.core import parts


def completed(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    asked: dict[str, dict[str, str]] = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    environment: Any = {"_BRAINHIVE_COMPLETE": f"complete_{shell}", **asked[shell]}
    return CliRunner(env=environment).invoke(app, prog_name="brainhive").stdout.splitlines()


@pytest.fixture
def runs(home: Path) -> Path:
    for name in ("train-align/demo-intra", "train-align/other", "reconstruct/demo-intra-1"):
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / "metrics.json").touch()
    (home / "runs/train-align/demo-unfinished").mkdir()
    return home


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("brainhive embed --encoders clip-h", ["clip-h14", "clip-h14-text"]),
        ("brainhive embed --encoders vae,clip-h", ["vae,clip-h14", "vae,clip-h14-text"]),
        ("brainhive embed --dataset things-e", ["things-eeg"]),
        ("brainhive fetch things-e", ["things-eeg"]),
        ("brainhive embed --recipe demo-h", ["demo-havir"]),
        ("brainhive recipes papers/alignvis-m", ["papers/alignvis-meg"]),
        ("brainhive train-align --backbone brain-m", ["brain-mlp"]),
        ("brainhive eval-retrieval --run demo", ["demo-intra"]),
        ("brainhive eval-retrieval --run other,demo", ["other,demo-intra"]),
        ("brainhive explain --run demo", ["demo-intra"]),
        ("brainhive reconstruct --against demo", ["demo-intra-1"]),
        ("brainhive runs rm demo", ["demo-intra", "demo-intra-1"]),
    ],
)
def test_names_are_completed(runs: Path, line: str, names: list[str]) -> None:
    assert sorted(completed(line)) == names


def test_own_vectors_are_completed_where_a_store_has_their_name(home: Path) -> None:
    for name in ("zmine", "clip-h14-block-8", "local--zfolder"):
        (home / "embeddings/demo/train").mkdir(parents=True, exist_ok=True)
        (home / f"embeddings/demo/train/{name}.h5").touch()
    assert completed("brainhive train-align --encoders vae,z") == ["vae,zmine"]
    assert completed("brainhive train-align --encoders clip-h14-b") == [""]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_shell_completes_them(runs: Path, shell: str) -> None:
    assert "demo-intra" in "".join(completed("brainhive eval-retrieval --run demo", shell))


@pytest.mark.parametrize("shelf", ["backbones", "datasets", "preparations"])
def test_parts_are_found_without_their_shelf_being_imported(shelf: str) -> None:
    assert kinds(shelf) == parts.kinds(shelf)
