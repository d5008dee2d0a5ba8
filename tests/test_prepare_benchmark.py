"""What benchmarks/prepare.py measures with: recordings as they are published, memory of the command alone."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations.things_eeg import Config


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")


def test_synthetic_recordings_are_read_as_published_ones(tmp_path):
    synthetic = importlib.import_module("raw_recordings")
    size = synthetic.Size(
        sessions=2, concepts=2, test_pictures=3, repetitions=(2, 4), extra=(3, 2), targets=(2, 1)
    )
    synthetic.write(tmp_path, size)
    found = Config(root=str(tmp_path), sessions=[1, 2], whiten="no").build(Paths()).session(1, 2)
    assert {split: each.signal.shape for split, each in found.items()} == {
        "train": (10 * 2 + 3, 1, 63, 250),
        "test": (3 * 4 + 2, 1, 63, 250),
    }
    assert found["train"].provenance["dropped"]["target"] == 2
    assert 1 < found["train"].signal[:].std() < 100  # microvolts


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measured on Linux only")
def test_memory_of_the_process_that_starts_a_command_does_not_count(tmp_path):
    processes = importlib.import_module("processes")
    held = np.ones(2**26)  # 512 MiB
    *_, used = processes.run(["prepare", "--help"], tmp_path)
    assert 0 < used.own_gib < used.resident_gib < 0.4 < held.nbytes / 2**30
    assert used.wall_s > 0 and used.cpu_s > 0
