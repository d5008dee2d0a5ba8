"""benchmarks/gpu.py at tiny size: all cases report figures, and one that fails or hangs leaves the others."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"
FIGURES = {
    "gpu.equality": "CPU and GPU, relative distance: trained weights",
    "gpu.cells": "papers/brainhive-intra, 2 cells",
    "prior.prior_step": "train-prior: of U-Net and optimiser alone",
    "embed.networks": "embed, all in one pass: of their bare forwards",
    "generate.pictures": "pictures, SDXL: of diffusers' pipeline",
    "generate.keyframes": "keyframes, NEURONS: of diffusers' networks",
    "generate.clips": "clips, 1 at once, NEURONS: of diffusers' pipeline",
    "generate.havir": "pictures, HAVIR: of a bare sampling loop",
    "prior.prior_memory": "prior-24gb: peak reserved",
    "align.loop": "brain_mlp bf16: of a bare loop",
    "evaluate.ranking": "ranking, 2,000 vectors: of the bare product",
}
"""A figure of each case."""
TRAININGS = {"gpu.cells", "align.loop"}
"""Cases that take longest, even at tiny size; `gpu.equality` trains as they do."""


def rehearse(out, *asked, path=""):
    """Run the script; return its exit code, what it printed, and its report by part."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", *asked],
        env={**os.environ, "OUT": str(out), "PYTHONPATH": path},
        cwd=out,
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout + ended.stderr, json.loads((out / "gpu.json").read_text())["parts"]


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in TRAININGS])
def test_a_case_reports_its_figures(name, tmp_path, home, monkeypatch, capsys):
    """In this process, which has imported what they need; below, cases run in processes of their own."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    kept = tmp_path / "figures"
    monkeypatch.setenv("BRAINHIVE_FIGURES", str(kept))
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "0")  # which cases set, and tests after this one must not see
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    gpu, harness = (importlib.import_module(module) for module in ("gpu", "harness"))

    assert {*gpu.CASES} == FIGURES.keys()
    gpu.run_case(name, harness.Bench(home, "tiny", 1, options={"cap": 300.0}))  # others may use the machine

    figures = [json.loads(each) for each in kept.read_text().splitlines()]
    assert FIGURES[name] in [each["what"] for each in figures] and FIGURES[name] in capsys.readouterr().out
    assert all(each["ours"] >= 0 for each in figures)


def test_a_case_that_fails_leaves_the_others(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "diffusers.py").write_text("raise RuntimeError('built for another torch')")

    code, printed, parts = rehearse(tmp_path, "--only", "pictures", "ranking", path=str(tmp_path / "broken"))

    assert (parts["generate.pictures"]["status"], parts["evaluate.ranking"]["status"]) == (
        "failed",
        "done",
    ), printed
    assert "another torch" in parts["generate.pictures"]["log"] and parts["evaluate.ranking"]["figures"]
    assert code == 1 and {file.name for file in tmp_path.iterdir()} == {"gpu.json", "broken"}


def test_a_case_that_does_not_end_is_stopped(tmp_path):
    code, printed, parts = rehearse(tmp_path, "--only", "ranking", "--cap", "0.2")

    assert parts["evaluate.ranking"]["status"] == "stopped" and parts["evaluate.ranking"]["seconds"] < 20, (
        printed
    )
    assert code == 1
