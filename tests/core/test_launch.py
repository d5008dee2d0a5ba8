"""Which part of the work is mine."""

import signal
from pathlib import Path

import pytest
import torch

from brainhive_cli.core import documents, launch
from brainhive_cli.core.errors import DeviceError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Run


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16540])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_lose_and_repeat_nothing_and_differ_by_one_at_most(count: int, processes: int) -> None:
    items = list(range(count))
    shares = [Launch(rank, processes, torch.device("cpu")).shard(items) for rank in range(processes)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("launched", [None, "no", "bf16"])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_work_is_done_in_the_precision_asked_for(
    launched: str | None, precision: str, dtype: torch.dtype
) -> None:
    """What measures asks for float32, also where the recipe has taken over that of a launch in bf16."""
    with Launch(0, 1, torch.device("cpu"), launched).autocast(precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="no CUDA device is visible"):
        launch.start(Run(device="cuda"))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(DeviceError, match="2 processes on a machine with 1 GPU"):
        launch.start(Run())


@pytest.mark.parametrize(("device", "named"), [("cuda:1", [1]), ("cpu:0", None)])
def test_waiting_names_the_gpu_that_is_mine(device, named, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch.distributed, "barrier", lambda device_ids=None: seen.append(device_ids))

    Launch(1, 2, torch.device(device)).barrier()

    assert seen == [named]


def test_a_launched_process_launches_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.num_processes(Run(processes=3)) == 3
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.num_processes(Run(processes=3)) == 1


def test_a_report_with_half_a_character_still_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(launch.REPORTS, str(tmp_path))
    assert launch.leave_report(3, MissingData("no file a\udcff.png", "copy b\udcff"))
    assert documents.read(tmp_path / "0.json", tuple[int, str, str, bool]) == (
        3,
        "no file a\\udcff.png",
        "copy b\\udcff",
        False,
    )


def test_a_process_that_a_signal_stops_before_it_listens_ends_the_launch_as_one_that_continues(tmp_path):
    code, reason = launch._cause({0: -signal.SIGUSR1, 1: -signal.SIGTERM}, tmp_path, "")
    assert code == 75 and reason is not None and reason.hint == "the same command continues"


def test_a_launch_reads_no_config_of_accelerate_in_the_users_home(monkeypatch, tmp_path) -> None:
    from accelerate.commands import launch as accelerate

    config = tmp_path / "default_config.yaml"
    config.write_text("compute_environment: [")
    monkeypatch.setattr(accelerate, "default_config_file", str(config))
    launched = []
    monkeypatch.setattr(accelerate, "multi_gpu_launcher", launched.append)

    assert launch.relaunch(Run(), 2) == (0, None)
    (arguments,) = launched
    assert (arguments.num_processes, arguments.mixed_precision, arguments.use_cpu) == (2, "no", False)
