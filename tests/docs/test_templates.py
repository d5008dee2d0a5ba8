"""The templates of a new data set and a new encoder work in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "docs/templates"
TARGETS = {
    "new_encoder.py": "brainhive_cli/models/encoders",
    "new_dataset.py": "brainhive_cli/data/published",
    "test_new_encoder.py": "",
    "test_new_dataset.py": "",
}
"""Folder in the copy for each template."""
ROWS = {
    "datasets": "new-dataset: {family: published.new_dataset.NewDatasetPictures}\n",
    "preparations": "new-dataset: {family: published.new_dataset.NewDatasetEeg}\n",
}
"""Row of the new data set in the table of each shelf."""


def test_the_templates_pass_their_tests_in_the_package(tmp_path):
    package = tmp_path / "brainhive_cli"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "brainhive_cli", package, ignore=ignored)
    # as in the wheel
    shutil.copytree(ROOT / "recipes", package / "recipes")
    shutil.copytree(ROOT / "completions", package / "completions")
    assert {path.name for path in TEMPLATES.iterdir()} == TARGETS.keys()
    for name, folder in TARGETS.items():
        shutil.copy(TEMPLATES / name, tmp_path / folder)
    for shelf, row in ROWS.items():
        with (package / f"data/{shelf}/rows.yaml").open("a") as table:
            table.write(row)

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert process.returncode == 0, process.stdout + process.stderr
    assert "5 passed" in process.stdout


def test_the_guide_names_each_template_and_row():
    guide = (ROOT / "docs/developing.md").read_text()
    for name in TARGETS:
        assert f"docs/templates/{name}" in guide
    for row in ROWS.values():
        assert row in guide
