"""Tests of the measured speed of this machine, and of estimates from it."""

import pytest
import torch

from brainhive_cli.core.runs import machine_speed

TASK = {
    "task": "embed",
    "command": "embed",
    "precision": "bf16",
    "counts": {"matmul": 3e12, "conv": 2e12, "operators": 100},
    "memory_gb": 1,
    "disk_gb": 1,
}


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch):
    """Measure for a shorter time."""
    monkeypatch.setattr(machine_speed, "MIN_PROBE_S", 0.001)


def test_rates_of_this_machine_are_plausible():
    rates = machine_speed.measure_device(torch.device("cpu"))
    assert 1e8 < rates["matmul fp32"] < 1e14
    assert 1e8 < rates["conv fp32"] < 1e14
    assert rates["matmul bf16"] > 0
    assert rates["conv bf16"] > 0
    assert 1e7 < rates["bytes"] < 1e13
    assert 100 < rates["operators"] < 1e7
    assert 1 < machine_speed.measure_decoding() < 1e5
    assert rates.keys() <= machine_speed.UNITS.keys()


def test_disk_is_measured_and_left_empty(tmp_path):
    rates = machine_speed.measure_disk(tmp_path)
    assert 1e5 < rates["write"] < 1e12
    assert 1e5 < rates["read"] < 1e12
    assert rates["files"] > 1
    assert list(tmp_path.iterdir()) == []


def test_time_is_the_sum_over_amounts_in_the_precision():
    rates = {"matmul bf16": 1e12, "conv bf16": 2e12, "matmul fp32": 1.0}
    rates["operators"] = 50
    assert machine_speed.estimate_seconds(TASK, rates) == pytest.approx(3 + 1 + 2)


def test_time_is_unknown_without_a_rate():
    assert machine_speed.estimate_seconds(TASK, {"matmul bf16": 1e12}) is None


def test_tasks_have_amounts_of_measured_rates():
    tasks = machine_speed.read_tasks()
    assert len({task["task"] for task in tasks}) == len(tasks)
    for task in tasks:
        rates = dict.fromkeys(machine_speed.UNITS, 1.0)
        seconds = machine_speed.estimate_seconds(task, rates)
        assert seconds is not None
        assert seconds > 0
        assert task["memory_gb"] > 0
        assert task["disk_gb"] > 0
