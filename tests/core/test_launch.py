"""Which part of the work is mine."""

import signal
from itertools import product

import pytest
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException

from brainhive_cli.core import launch
from brainhive_cli.core.errors import INTERRUPTED, DeviceError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Run


def test_shares_lose_and_repeat_nothing_and_differ_by_one_at_most() -> None:
    for count, processes in product((0, 1, 2, 7, 16540), (1, 2, 3, 8)):
        items = list(range(count))
        shares = [
            Launch(rank, processes, torch.device("cpu")).shard(items)
            for rank in range(processes)
        ]
        assert [item for share in shares for item in share] == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_work_is_done_in_the_precision_asked_for() -> None:
    """What measures asks for float32, also where the recipe has taken over that of a
    launch in bf16.
    """
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Launch(0, 1, torch.device("cpu"), "bf16").autocast(precision):
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


def test_a_launch_reads_no_config_of_accelerate_in_the_users_home(
    monkeypatch, tmp_path
) -> None:
    from accelerate.commands import launch as accelerate

    config = tmp_path / "default_config.yaml"
    config.write_text("compute_environment: [")
    monkeypatch.setattr(accelerate, "default_config_file", str(config))
    launched = []
    monkeypatch.setattr(accelerate, "multi_gpu_launcher", launched.append)

    assert launch.relaunch(Run(), 2) == 0
    (arguments,) = launched
    assert (arguments.num_processes, arguments.mixed_precision, arguments.use_cpu) == (
        2,
        "no",
        False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_ends_a_launch_interrupts_the_command(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Ctrl-C reaches the processes as well, which say that they were interrupted."""

    def end(arguments: object) -> None:
        raise SignalException("ended", number)

    monkeypatch.setattr("accelerate.commands.launch.launch_command", end)
    if number == signal.SIGINT:
        assert launch.relaunch(Run(), 2) == INTERRUPTED
    else:
        with pytest.raises(KeyboardInterrupt):
            launch.relaunch(Run(), 2)
