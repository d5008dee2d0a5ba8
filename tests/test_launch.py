"""Which part of the work is mine."""

import pytest
import torch

from brainhive_cli import launch
from brainhive_cli.errors import DeviceError
from brainhive_cli.launch import Launch
from brainhive_cli.recipe import Run


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16540])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_lose_and_repeat_nothing_and_differ_by_one_at_most(count: int, processes: int) -> None:
    items = list(range(count))
    shares = [Launch(rank, processes, torch.device("cpu")).mine(items) for rank in range(processes)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launchs_precision_wins_over_the_recipes() -> None:
    cpu = torch.device("cpu")
    for asked, recipes, dtype in (
        (None, "bf16", torch.bfloat16),
        ("no", "bf16", torch.float32),
        ("bf16", "fp32", torch.bfloat16),
    ):
        with Launch(0, 1, cpu, asked).autocast(recipes):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="no CUDA device is visible"):
        launch.start(Run(device="cuda"))


def test_a_launched_process_launches_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.wanted(Run(processes=3)) == 3
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.wanted(Run(processes=3)) == 1
