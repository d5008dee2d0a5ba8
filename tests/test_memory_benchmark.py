"""What benchmarks/memory.py measures with: recordings as published, memory of a command alone, shapes."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.things_eeg_raw import Raw


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")


def test_synthetic_recordings_are_read_as_published_ones(tmp_path):
    synthetic = importlib.import_module("raw_recordings")
    synthetic.write(tmp_path, synthetic.Size(2, 2, 3, (2, 4), (3, 2), (2, 1)))
    prepared = Raw(root=str(tmp_path), sessions=[1, 2], whiten="no").build(Paths()).session(1, 2)
    assert {split: each.signal.shape for split, each in prepared.items()} == {
        "train": (10 * 2 + 3, 1, 63, 250),
        "test": (3 * 4 + 2, 1, 63, 250),
    }
    assert prepared["train"].provenance["dropped"]["target"] == 2
    assert 1 < prepared["train"].signal[:].std() < 100  # microvolts


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measured on Linux only")
def test_memory_of_the_process_that_starts_a_command_does_not_count(tmp_path):
    harness = importlib.import_module("harness")
    held = np.ones(2**26)  # 512 MiB
    used = harness.run(**harness.brainhive(["prepare", "--help"], tmp_path))
    assert 0 < used.own_gib < used.peak_gib < 0.4 < held.nbytes / 2**30
    assert used.wall_s > 0 and used.cpu_s > 0


def test_the_recipes_for_24_gb_fit(tmp_path, monkeypatch):
    memory, harness = (importlib.import_module(module) for module in ("memory", "harness"))
    kept = tmp_path / "figures"
    monkeypatch.setenv("BRAINHIVE_FIGURES", str(kept))

    memory.models(harness.Bench(tmp_path))
    memory.generators(harness.Bench(tmp_path))

    rows = {each["what"]: each for each in map(json.loads, kept.read_text().splitlines())}
    full, small = (rows[f"train-align, estimated: {name}"] for name in ("papers/havir", "havir-24gb"))
    assert full["note"].startswith("1338 M weights") and small["met"]
    assert 21.4 < full["ours"] < 24 and small["ours"] < 8
    assert all(each["met"] for name, each in rows.items() if name.startswith("reconstruct"))
