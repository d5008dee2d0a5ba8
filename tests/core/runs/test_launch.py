"""Tests of the processes, devices and libraries of a command."""

import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException

from brainhive_cli.core.base.errors import (
    INTERRUPTED_EXIT_CODE,
    BrainhiveError,
    DeviceError,
    LostProcess,
    RecipeError,
)
from brainhive_cli.core.recipes.recipe import RunOptions
from brainhive_cli.core.runs import Launch, launch


def test_shares_are_complete_disjoint_and_of_similar_size():
    for count, processes in product((0, 1, 2, 7, 16540), (1, 2, 3, 8)):
        items = list(range(count))
        shares = [
            Launch(rank, processes, torch.device("cpu")).shard(items)
            for rank in range(processes)
        ]
        assert [item for share in shares for item in share] == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_work_is_done_in_the_precision_asked_for():
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Launch(0, 1, torch.device("cpu")).autocast(precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(DeviceError) as caught:
        launch.start(RunOptions(device="cuda"))
    assert "run.device" in caught.value.message
    assert "run.device=cpu" in caught.value.hint


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(DeviceError) as caught:
        launch.start(RunOptions())
    assert re.findall(r"\d+", caught.value.message) == ["2", "1"]


def test_a_launch_ignores_the_users_config_of_accelerate(monkeypatch, tmp_path):
    from accelerate.commands import launch as accelerate

    config = tmp_path / "default_config.yaml"
    config.write_text("compute_environment: [")
    monkeypatch.setattr(accelerate, "default_config_file", str(config))
    launched = []
    monkeypatch.setattr(accelerate, "multi_gpu_launcher", launched.append)

    assert launch.relaunch(RunOptions(), 2) == 0
    (arguments,) = launched
    assert (arguments.num_processes, arguments.mixed_precision, arguments.use_cpu) == (
        2,
        "no",
        False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_ends_a_launch_interrupts_the_command(monkeypatch, number):
    """Ctrl-C also reaches the processes, which print that they were interrupted."""

    def end(arguments):
        raise SignalException("ended", number)

    monkeypatch.setattr("accelerate.commands.launch.launch_command", end)
    if number == signal.SIGINT:
        assert launch.relaunch(RunOptions(), 2) == INTERRUPTED_EXIT_CODE
    else:
        with pytest.raises(KeyboardInterrupt):
            launch.relaunch(RunOptions(), 2)


def test_the_main_process_writes_unless_it_only_reads():
    assert Launch(0, 2, "cpu").is_main
    assert not Launch(1, 2, "cpu").is_main
    assert not launch.READ_ONLY.is_main
    single_process = Launch(1, 2, "cpu").single_process
    assert (single_process.rank, single_process.processes, single_process.is_main) == (
        0,
        1,
        True,
    )
    assert single_process.gather(3) == [3]
    assert single_process.device_name == "cpu"
    rows = torch.ones(2)
    assert single_process.gather_rows(rows, 2) is rows
    single_process.barrier()
    assert (
        single_process.run_on_main(lambda: 4)
        == single_process.run_main_first(lambda: 4)
        == 4
    )


@pytest.fixture
def finished_steps(monkeypatch):
    """Record the steps of a process, which does not wait for the others."""
    steps = list[str]()
    monkeypatch.setattr(Launch, "gather", lambda launch, item: [item, None])
    monkeypatch.setattr(Launch, "barrier", lambda launch: steps.append("wait"))
    return steps


def test_only_the_main_process_acts_for_all_when_all_are_here(
    finished_steps,
):
    for rank, expected in ((0, ["wait", "act"]), (1, ["wait"])):
        Launch(rank, 2, "cpu").run_on_main(lambda: finished_steps.append("act"))
        assert finished_steps == expected
        finished_steps.clear()


def test_the_main_process_acts_before_the_others(finished_steps):
    for rank, expected in ((0, ["act", "wait"]), (1, ["wait", "act"])):
        Launch(rank, 2, "cpu").run_main_first(lambda: finished_steps.append("act"))
        assert finished_steps == expected
        finished_steps.clear()


def test_a_launch_needs_all_that_its_launcher_sets(
    monkeypatch,
):
    for name in tuple(launch.LAUNCHER_VARIABLES) + ("WORLD_SIZE",):
        monkeypatch.delenv(name, raising=False)
    cpu = RunOptions(device="cpu")
    for size in (None, "1", ""):
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        assert launch.start(cpu) == Launch(0, 1, "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in launch.LAUNCHER_VARIABLES[:-1]:
        monkeypatch.setenv(name, "0")
    with pytest.raises(RecipeError) as caught:
        launch.start(cpu)
    assert launch.LAUNCHER_VARIABLES[-1] in caught.value.message


def test_a_gpu_is_used_where_there_is_one(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for count in (0, 2):
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        device = "cuda" if count else "cpu"
        assert launch.start(RunOptions()).device_or_name == device
        assert launch.start(RunOptions(device="cpu")).device_or_name == "cpu"
        assert launch.count_processes(RunOptions()) == max(1, count)
        assert launch.count_processes(RunOptions(device="cpu")) == 1
    assert launch.count_processes(RunOptions(processes=3)) == 3
    assert launch.count_processes(RunOptions(processes=3, device="cpu")) == 3
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.count_processes(RunOptions(processes=3)) == 1
    # as many processes as there are GPUs
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launch.start(RunOptions()).device_or_name == "cuda"


def test_torch_is_not_asked_for_a_gpu_without_a_driver(
    monkeypatch,
):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "GPU_DRIVER_FILES", ("no-such-driver",))
    assert launch.may_have_gpu()  # torch is loaded here, and knows better

    monkeypatch.delitem(sys.modules, "torch")
    assert not launch.may_have_gpu()
    assert launch.start(RunOptions()) == Launch(0, 1, "cpu")
    assert launch.count_processes(RunOptions()) == 1
    assert "torch" not in sys.modules
    monkeypatch.setattr(launch, "GPU_DRIVER_FILES", ("null",))
    assert launch.may_have_gpu()
    monkeypatch.setattr(launch, "GPU_DRIVER_FILES", ())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert launch.may_have_gpu()


@pytest.mark.parametrize("name", ["cuda:1", "cuda:2", "tpu", "mtia", "meta", "cpu:x"])
def test_devices_that_are_not_visible_are_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError):
        launch.open_device(name)


def test_visible_devices_are_opened(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cpu", "cuda", "cuda:0"):
        assert launch.open_device(name) == torch.device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError):
        launch.open_device("cuda")


def test_a_process_reports_its_error_to_the_launcher(monkeypatch, tmp_path):
    monkeypatch.delenv(launch.REPORTS_VARIABLE, raising=False)
    assert launch.write_report(2, RecipeError("a", "b")) is False
    monkeypatch.setenv(launch.REPORTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    assert launch.write_report(2, RecipeError("a\udcff", "b")) is True
    assert [path.name for path in tmp_path.iterdir()] == ["3.json"]
    report = json.loads((tmp_path / "3.json").read_text())
    assert report == [2, "a\\udcff", "b", False]
    assert launch.write_report(1, LostProcess("x")) is True
    assert json.loads((tmp_path / "3.json").read_text())[3] is True


LOST, OWN = [1, "lost", "", True], [3, "no data", "fetch", False]


@pytest.mark.parametrize(
    ("reports", "codes", "expected"),
    [
        # the first error of a process
        ([LOST, OWN], {0: 1, 1: 3}, (3, "no data", BrainhiveError)),
        ([OWN, [2, "later", "", False]], {}, (3, "no data", BrainhiveError)),
        ([LOST], {0: 1}, (1, "lost", BrainhiveError)),
        # the death of a process is the reason that others were lost
        ([LOST], {0: 1, 1: -9}, (5, "SIGKILL", DeviceError)),
        ([OWN], {0: 1, 1: -9}, (3, "no data", BrainhiveError)),
        ([], {0: -15, 1: -9}, (5, "process 1", DeviceError)),
        ([], {0: -15, 1: -11}, (1, "SIGSEGV", BrainhiveError)),
        ([LOST], {0: 1, 1: -15}, (1, "lost", BrainhiveError)),
        ([], {1: -15}, (1, "SIGTERM", BrainhiveError)),
        ([], {0: -10}, (75, "process 0", BrainhiveError)),
        ([], {0: 7, 1: 2}, (7, "7", BrainhiveError)),
        ([], {}, (1, "1", BrainhiveError)),
    ],
    ids=str,
)
def test_what_ended_a_launch_is_its_error(
    tmp_path,
    reports,
    codes,
    expected,
):
    # the newest file has the lowest rank
    for number, report in enumerate(reports):
        path = tmp_path / f"{9 - number}.json"
        path.write_text(json.dumps(report))
        os.utime(path, (number, number))
    error = launch._find_cause(codes, tmp_path, "train.batch_size=8")
    code, argument, kind = expected
    assert type(error) is kind
    assert error.exit_code == code
    assert argument in error.message
    assert ("train.batch_size=8" in error.hint) is (kind is DeviceError)


def test_threads_are_those_of_torch_though_it_was_not_loaded(
    monkeypatch,
):
    monkeypatch.setitem(sys.modules, "torch", None)  # its import now fails
    with pytest.raises(ImportError):
        Launch(0, 1, "cpu").describe_environment()


def test_the_environment_names_versions_and_threads():
    described = Launch(0, 3, "cpu").describe_environment()
    assert described["processes"] == 3
    assert described["device"] == "cpu"
    assert described["threads"] == torch.get_num_threads() > 0
    assert described["command_line"][0] == "brainhive"
    versions = described["versions"]
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["python"] == platform.python_version()
    assert launch.library_version("no-such-library") == "absent"
    token = launch.COMMAND_LINE.set(["embed"])
    assert Launch(0, 1, "cpu").describe_environment()["command_line"][1:] == ["embed"]
    launch.COMMAND_LINE.reset(token)


def test_the_commit_is_of_the_package_not_of_a_study_around_it(tmp_path):
    """A study may track the virtual environment in which the package is installed."""
    for package in (tmp_path / "own/package", tmp_path / "own/.venv/lib/package"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    git = ["git", "-C", str(tmp_path / "own")]
    git += ["-c", "user.name=A", "-c", "user.email=a@b"]
    for command in (["init"], ["add", "."], ["commit", "-m", "Take notes"]):
        subprocess.run(git + command, check=True, capture_output=True)
    # a SHA-1 has 40 letters
    assert len(launch.read_commit(tmp_path / "own/package")) == 40
    assert launch.read_commit(tmp_path / "own/.venv/lib/package") == ""
    assert launch.read_commit(tmp_path) == ""
