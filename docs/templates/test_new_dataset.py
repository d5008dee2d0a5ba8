"""Tests of NEW DATA SET."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published import new_dataset

N_CHANNELS = len(new_dataset.CHANNELS)
N_SAMPLES = 100


def list_images() -> list[str]:
    """List the pictures of 12 training and 4 test concepts."""
    train = [f"train/concept-{i}/{i}_{k}.jpg" for i in range(12) for k in range(2)]
    return train + [f"test/concept-{i}/{i}_0.jpg" for i in range(12, 16)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of small files, written as the publisher's script writes them."""
    rng = np.random.default_rng(0)
    images = list_images()
    for image in images:
        path = tmp_path / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    folder = tmp_path / "sub-01"
    folder.mkdir()
    for session in (1, 2):
        shown = rng.permutation(images)
        volts = 1e-6 * rng.normal(size=(len(shown), N_CHANNELS, N_SAMPLES))
        np.save(folder / f"ses-{session:02d}.npy", volts)
        with (folder / f"ses-{session:02d}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "onset_s"])
            table.writerows([image, 2.0 * row] for row, image in enumerate(shown))
    return tmp_path


def test_trials_are_the_epochs_in_microvolts(root: Path) -> None:
    preparation = new_dataset.NewDatasetEeg(root=str(root)).build(Paths())
    trials = preparation.session(1, 2)["test"]

    volts = np.load(root / "sub-01/ses-02.npy")
    with (root / "sub-01/ses-02.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = [i for i, row in enumerate(rows) if row["image"].startswith("test")]
    np.testing.assert_allclose(trials.signal, volts[tested] * 1e6, rtol=1e-6)
    assert trials.image_ids == [rows[i]["image"].removesuffix(".jpg") for i in tested]
    assert preparation.shapes(1, 2)["train"] == (24, N_CHANNELS, N_SAMPLES)


def test_a_table_that_does_not_fit_is_refused(root: Path) -> None:
    table = root / "sub-01/ses-01.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    preparation = new_dataset.NewDatasetEeg(root=str(root)).build(Paths())
    with pytest.raises(MissingData, match="27 rows, not 28"):
        preparation.session(1, 1)


def test_commands_run_from_files_to_an_evaluation(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "home"))
    keys = [f"dataset.root={root}", "--dataset", "new-dataset", "--encoders", "pixels"]
    ridge = ["backbone.kind=ridge", "seeds=[0]"]
    for command in (
        ["prepare", "--from", "new-dataset", f"preparation.root={root}"],
        ["embed", *keys],
        ["train-align", *keys, *ridge],
        ["eval-retrieval"],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert "of 4" in result.output
