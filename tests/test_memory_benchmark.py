"""What benchmarks/memory.py measures with: recordings as published, and shapes."""

import importlib
from pathlib import Path

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


def test_havir_for_24_gb_fits():
    model = importlib.import_module("synthetic").havir_model
    (full_gb, millions), (small_gb, _) = (model("full", *width).estimate_gb() for width in ((), (1024,)))
    assert round(millions) == 1338 and 21.4 < full_gb < 24 and small_gb < 8
