"""benchmarks/gpu.py: cases report figures at tiny size, and the report names nobody."""

import getpass
import importlib
import json
import socket
from pathlib import Path

import pytest

from brainhive_cli import __version__

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
FIGURES = {
    "prior.prior_step": "train-prior: of U-Net and optimiser alone",
    "generate.pictures": "pictures, SDXL: of diffusers' pipeline",
    "evaluate.ranking": "ranking, 2,000 vectors: of the bare product",
}
"""A figure of some cases."""


@pytest.mark.nightly
@pytest.mark.parametrize("name", FIGURES)
def test_a_case_reports_its_figures(name, tmp_path, home, monkeypatch, capsys):
    """In this process, which has imported what they need."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    figures_path = tmp_path / "figures"
    monkeypatch.setenv("BRAINHIVE_FIGURES", str(figures_path))
    # which cases set, and tests after this one must not see
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "0")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    gpu, harness = (importlib.import_module(module) for module in ("gpu", "harness"))

    # others may use the machine
    gpu.run_case(name, harness.Bench(home, "tiny", 1, options={"cap": 300.0}))

    figures = [json.loads(figure) for figure in figures_path.read_text().splitlines()]
    assert FIGURES[name] in [figure["what"] for figure in figures]
    assert FIGURES[name] in capsys.readouterr().out
    assert all(figure["ours"] >= 0 for figure in figures)


@pytest.fixture
def gpu(monkeypatch):
    """Import the script as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("gpu")


def test_the_report_has_no_host_user_or_folder(gpu, tmp_path, monkeypatch):
    user = "ada-l"
    host = "lab-gpu-7"
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    text = f"""File "/home/{user}/study/run.py", line 1: {host} has no /data/x/y.h5
RuntimeError: CUDA error in {tmp_path}/weights.bin of {user}, see https://a.org/b/c"""
    clean = gpu.remove_names(text)
    for name in (user, host, "study", "/data", str(tmp_path)):
        assert name not in clean
    for allowed_text in (
        "run.py",
        "y.h5",
        "weights.bin",
        "CUDA error",
        "https://a.org/b/c",
    ):
        assert allowed_text in clean


def test_the_report_describes_the_machine(gpu):
    machine = gpu.describe_machine(is_tiny=True)
    assert machine["device"] == "cpu"
    assert machine["cpu"]
    assert machine["libraries"]["brainhive"] == __version__
    assert machine["memory_gb"] > 0
    assert machine["cores"] > 0
    text = json.dumps(machine)
    assert str(Path.home()) not in text
    assert str(SCRIPT.parents[1]) not in text
    assert socket.gethostname() not in text


def test_a_case_that_fails_is_written_with_its_reason(gpu, tmp_path, monkeypatch):
    results = {
        "a.works": {"status": "done", "seconds": 1.0, "figures": []},
        "b.fails": {"status": "failed", "figures": [], "reason": "out of memory"},
    }
    monkeypatch.setattr(gpu, "run_alone", lambda name, *_: results[name])
    gpu.run_all(list(results), True, 10, tmp_path / "gpu.json")
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["schema"] == {"name": "brainhive-gpu", "version": 1}
    assert report["created"].endswith("+00:00")
    assert report["parts"]["b.fails"]["reason"] == "out of memory"


@pytest.mark.nightly
def test_a_case_in_its_own_process_says_why_it_failed(gpu, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    record = gpu.run_alone("evaluate.absent", is_tiny=True, cap_s=300)
    assert record["status"] == "failed"
    assert "evaluate.absent" in record["reason"]
    assert str(SCRIPT.parents[1]) not in record["log"]
