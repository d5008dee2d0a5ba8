"""benchmarks/gpu.py at tiny size: cases report figures."""

import importlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly


SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
FIGURES = {
    "prior.prior_step": "train-prior: of U-Net and optimiser alone",
    "generate.pictures": "pictures, SDXL: of diffusers' pipeline",
    "evaluate.ranking": "ranking, 2,000 vectors: of the bare product",
}
"""A figure of some cases."""


@pytest.mark.parametrize("name", FIGURES)
def test_a_case_reports_its_figures(name, tmp_path, home, monkeypatch, capsys):
    """In this process, which has imported what they need."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    kept = tmp_path / "figures"
    monkeypatch.setenv("BRAINHIVE_FIGURES", str(kept))
    # which cases set, and tests after this one must not see
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "0")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    gpu, harness = (importlib.import_module(module) for module in ("gpu", "harness"))

    # others may use the machine
    gpu.run_case(name, harness.Bench(home, "tiny", 1, options={"cap": 300.0}))

    figures = [json.loads(each) for each in kept.read_text().splitlines()]
    assert (
        FIGURES[name] in [each["what"] for each in figures]
        and FIGURES[name] in capsys.readouterr().out
    )
    assert all(each["ours"] >= 0 for each in figures)
