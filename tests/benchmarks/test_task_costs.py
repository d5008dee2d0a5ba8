"""benchmarks/task_costs.py counts the work of tasks from shapes."""

import importlib
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.runs import machine_speed

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "task_costs.py"


@pytest.fixture
def task_costs(monkeypatch):
    """Import the script as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("task_costs")


def test_a_product_is_counted_by_its_flops(task_costs):
    matrix = torch.empty(1024, 1024, device="meta")
    counts = task_costs.count(lambda: matrix @ matrix, times=3)
    assert counts["matmul"] == 3 * 2 * 1024**3
    assert counts["bytes"] == 0
    assert counts["operators"] == 3


def test_a_sum_is_counted_by_its_bytes_and_a_view_is_not(task_costs):
    values = torch.empty(1000, device="meta")
    counts = task_costs.count(lambda: (values + 1).view(10, 100))
    assert counts["bytes"] == 2 * 4000
    assert counts["operators"] == 1


def test_the_operators_of_the_small_step_are_counted(task_costs):
    weights = torch.rand(16, 16, requires_grad=True)
    counts = task_costs.count(lambda: machine_speed._run_small_step(weights))
    assert counts["operators"] == machine_speed.N_STEP_OPERATORS


def test_the_recorded_cost_of_a_model_is_that_of_its_shapes(task_costs):
    counts, _ = task_costs.count_training(task_costs.eeg_model("brain_mlp", batch=1024))
    recorded = {task["task"]: task["counts"] for task in machine_speed.read_tasks()}
    steps = task_costs.THINGS_STEPS
    for name in ("matmul", "bytes", "operators"):
        expected = counts[name] * steps
        assert recorded["brainhive-intra, 1 model"][name] == pytest.approx(
            expected, rel=0.01
        )
