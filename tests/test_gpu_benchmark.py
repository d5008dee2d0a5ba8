"""benchmarks/gpu.py at tiny size: all parts report figures, and one that fails or hangs leaves the others."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"
FIGURES = {
    "equality": "CPU and GPU: trained weights, relative distance",
    "cells": "papers/brainhive-intra, 2 cells: seconds",
    "prior_step": "train-prior, SDXL's width in bf16: of the bare loop",
    "encoders": "embed, all in one pass: of their bare forwards",
    "drawing": "reconstruct, SDXL's width: of the bare pipeline, batch 2",
    "video": "clips, 1 at once: of diffusers' pipeline",
    "prior_memory": "prior-24gb: peak allocated over its estimate",
    "profile": "a cell, profiled: share of time that the device is busy",
    "ranking": "eval-retrieval: two streams of distractors, s",
}
"""A figure of each part."""


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


@pytest.mark.parametrize("name", FIGURES)
def test_every_part_reports_its_figures(name, tmp_path, home, monkeypatch, capsys):
    """In this process, which has imported what they need; below, parts run in processes of their own."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    kept = tmp_path / "figures"
    monkeypatch.setenv("BRAINHIVE_FIGURES", str(kept))
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "0")  # which parts set, and tests after this one must not see
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    gpu = importlib.import_module("gpu")

    assert gpu.PARTS.keys() == FIGURES.keys()
    gpu.PARTS[name](gpu.Setting(home, True, 300.0))  # others may use the machine

    found = [json.loads(each) for each in kept.read_text().splitlines()]
    assert FIGURES[name] in [each["name"] for each in found] and FIGURES[name] in capsys.readouterr().out
    assert all(each["value"] >= 0 for each in found)


def test_a_part_that_fails_leaves_the_others(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "diffusers.py").write_text("raise RuntimeError('built for another torch')")

    code, printed, parts = rehearse(tmp_path, "--only", "drawing", "ranking", path=str(tmp_path / "broken"))

    assert (parts["drawing"]["status"], parts["ranking"]["status"]) == ("failed", "done"), printed
    assert "built for another torch" in parts["drawing"]["log"] and parts["ranking"]["figures"]
    assert code == 1 and {file.name for file in tmp_path.iterdir()} == {"gpu.json", "broken"}


def test_a_part_that_does_not_end_is_stopped(tmp_path):
    code, printed, parts = rehearse(tmp_path, "--only", "ranking", "--cap", "0.2")

    assert parts["ranking"]["status"] == "stopped" and parts["ranking"]["seconds"] < 20, printed
    assert code == 1
