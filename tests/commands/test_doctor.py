"""Tests of doctor, which describes this machine."""

import importlib.metadata
import json
import os
import platform
from email.message import Message

import pytest
import torch

from brainhive_cli.commands import doctor
from brainhive_cli.core.base.errors import DeviceError, MissingData, MissingExtra
from brainhive_cli.core.runs import Launch, machine_speed

RATES = dict.fromkeys(machine_speed.UNITS, 1e15)
DISK_RATES = {"write": 1e9, "read": 1e9, "files": 1e3}


@pytest.fixture(autouse=True)
def fast_probe(monkeypatch):
    """Replace the measurements, which tests of machine_speed run."""
    rates = {name: RATES[name] for name in RATES.keys() - DISK_RATES.keys()}
    monkeypatch.setattr(machine_speed, "measure_device", lambda device: rates)
    monkeypatch.setattr(machine_speed, "measure_disk", lambda folder: DISK_RATES)
    monkeypatch.setattr(machine_speed, "measure_decoding", lambda: 100.0)


def test_it_tells_versions_device_and_what_lies_at_home(run_command, home):
    (home / "runs" / "train-align").mkdir(parents=True)
    (home / "runs" / "pace.json").write_text("{}")

    result = run_command("doctor")

    facts = result.details
    assert facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["device"] == "cpu"
    assert facts["system"] == platform.platform()
    has_mps = torch.backends.mps.is_available()
    assert (facts["Apple GPU (MPS)"] != "none") == has_mps
    assert facts["home"] == home
    assert facts["home can be written"]
    assert facts["runs"] == "train-align" != facts["data"]
    table = result.tables[0]
    assert list(facts) == [name for name, _ in table.rows] + ["rates", "tasks"]
    assert all(facts[name] == value for name, value in table.rows)
    assert result.exit_code == 0
    assert ("bf16 on the GPU" in facts) == torch.cuda.is_available()
    assert facts["free at home"].endswith(" GB")
    assert result.hint == "brainhive demo"
    assert table.rows[-1][0] == "verdict"
    assert "extra parquet" in facts


def test_it_knows_every_extra_that_the_metadata_names(monkeypatch):
    extras = ["live", "no-such-extra", "parquet", "video"]
    metadata = Message()
    for extra in extras:
        metadata["Provides-Extra"] = extra
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: [
            "numpy>=1",
            "numpy>=999; extra == 'parquet'",
            "no-such-library; extra == 'video'",
            "numpy>=1; extra == 'live'",
        ],
    )
    libraries = doctor.check_libraries()
    assert libraries.lacking == []
    assert list(libraries.extras) == extras
    assert libraries.extras["live"] == "installed"
    assert "no-such-library" in libraries.extras["video"]
    assert ">=999" in libraries.extras["parquet"]


def test_a_missing_required_library_is_listed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["no-such-one"])
    assert doctor.check_libraries().lacking == ["no-such-one"]


@pytest.mark.parametrize(
    ("changes", "exit_code"),
    [
        ({}, None),
        ({"lacking": ["mne"]}, MissingExtra.exit_code),
        ({"broken": [MissingExtra("timm does not import")]}, MissingExtra.exit_code),
        ({"is_writable": False}, MissingData.exit_code),
        ({"free_gb": 0.1}, MissingData.exit_code),
        ({"device_error": DeviceError("no kernel image")}, DeviceError.exit_code),
    ],
)
def test_the_verdict_is_an_error_if_commands_cannot_run(changes, exit_code, tmp_path):
    facts = {
        "lacking": [],
        "broken": [],
        "home": tmp_path,
        "is_writable": True,
        "free_gb": 50.0,
        "device_name": "cpu",
        "n_gpus": 0,
        "device_error": None,
        "n_possible": "3 of 11",
    }
    sentence, error = doctor.judge_machine(**facts | changes)
    assert (error and error.exit_code) == exit_code
    assert ("3 of 11" in sentence) == (not changes)


def list_answers(device_name, memory_gb, free_gb=1000):
    """List whether each task would run here, keyed by its command."""
    tasks = doctor.list_tasks(RATES, device_name, memory_gb, free_gb)
    return {task["command"].split(" ")[-1]: task["runs here"] for task in tasks}


def test_tasks_that_fit_a_gpu_of_24_gb():
    answers = list_answers("GPU", 24)
    assert answers["papers/brainhive-intra"] == "yes"
    assert answers["papers/mindeye2-24gb"] == "yes"
    assert answers["prior-24gb"] == "yes"
    assert answers["repeats=1"] == "yes"
    for recipe, required_gb in (
        ("papers/mindeye2", 70),
        ("papers/brainhive-prior", 37),
    ):
        assert f"{required_gb} GB of GPU memory, has 24 GB" in answers[recipe]


def test_all_tasks_fit_a_gpu_of_80_gb():
    assert set(list_answers("GPU", 80).values()) == {"yes"}


def test_a_task_without_disk_space_says_how_much_it_needs():
    answers = list_answers("GPU", 80, free_gb=20)
    assert answers["demo"] == "yes"
    assert "145 GB of disk, 20 GB" in answers["papers/brainhive-prior"]


def test_the_verdict_names_the_device(tmp_path):
    verdicts = {}
    for device_name, n_gpus in (("cpu", 0), ("cpu", 1), ("A100", 1)):
        verdicts[device_name, n_gpus], _ = doctor.judge_machine(
            [], [], tmp_path, True, 50.0, device_name, n_gpus, None, "3 of 11"
        )
    assert "No usable GPU" in verdicts["cpu", 0]
    assert "GPU" not in verdicts["cpu", 1]
    assert "CPU" in verdicts["cpu", 1]
    assert "A100" in verdicts["A100", 1]


@pytest.mark.parametrize(("load", "is_shown"), [(1.5, False), (8.3, True)])
def test_a_load_above_the_number_of_cores_is_shown(
    run_command, monkeypatch, load, is_shown
):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    facts = run_command("doctor").details
    assert ("8.3 on 2 cores" in facts.get("load average", "")) == is_shown


def test_a_task_of_months_is_too_slow():
    rates = RATES | {"matmul bf16": 1e11}
    tasks = doctor.list_tasks(rates, "cpu", 1000, 1000)
    times = {task["task"]: task["time"] for task in tasks}
    assert times["train-align mindeye2"] == "over 60 days"
    answers = {task["task"]: task["runs here"] for task in tasks}
    assert answers["train-align mindeye2"] == "too slow"
    assert answers["demo"] == "yes"


def test_speeds_are_printed_with_units_and_written_as_numbers(run_command):
    result = run_command("doctor")
    speeds = dict(result.tables[1].rows)
    assert speeds["home, read"] == "1,000 MB/s"
    document = json.loads(json.dumps(result.details["rates"]))
    assert document["read"] == 1e9
    assert document["starts"] > 0
    assert len(result.tables[2].rows) == len(machine_speed.read_tasks())


def test_a_disk_that_fails_leaves_times_unknown(run_command, monkeypatch):
    def fail(folder):
        raise OSError("No space left on device")

    monkeypatch.setattr(machine_speed, "measure_disk", fail)
    result = run_command("doctor")
    times = {task["command"]: task["seconds"] for task in result.details["tasks"]}
    assert times["reconstruct repeats=1"] is None
    assert times["demo"] is not None
    assert result.exit_code == 0


def test_a_gpu_that_torch_does_not_support_is_an_error(home, monkeypatch):
    message = "CUDA error: no kernel image is available for execution on the device"

    def fail(device):
        raise RuntimeError(f"{message}\nmore lines of torch")

    monkeypatch.setattr(machine_speed, "measure_device", fail)
    recipe = doctor.Recipe.resolve("doctor", None, {}, [])
    result = doctor.run(recipe, Launch(0, 1, torch.device("cpu")))
    assert result.exit_code == DeviceError.exit_code
    assert message in result.details["verdict"]
    assert "more lines" not in result.details["verdict"]
    assert {task["time"] for task in result.details["tasks"]} == {"unknown"}


def test_every_visible_gpu_is_listed(run_command, monkeypatch):
    class Gpu:
        name = "A100"
        total_memory = 80e9
        major, minor = 8, 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Gpu)
    facts = run_command("doctor").details
    for number in (0, 1):
        assert facts[f"GPU {number}"] == "A100, 80 GB, compute capability 8.0"
