"""Processes on this CPU that share work; they are forked of that of `warm_process`."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.multiprocessing import start_processes

from brainhive_cli.core.launch import Launch, exit_worker


def in_two(work: Callable[..., None], *given: Any, processes: int = 2) -> None:
    """Call `work(launch, *given)` in each of two or more processes; `work` is a
    function of a module.

    Raises:
        torch.multiprocessing.ProcessExitedException: if one is killed.
        torch.multiprocessing.ProcessRaisedException: if one raises.
    """
    with TemporaryDirectory() as met:
        here = (met, dict(os.environ), str(Path.cwd()))
        start_processes(
            _join,
            (work, processes, *here, given),
            nprocs=processes,
            start_method="forkserver",
        )


def _join(
    rank: int,
    work: Callable[..., None],
    processes: int,
    met: str,
    environment: dict[str, str],
    home: str,
    given: Any,
) -> None:
    os.environ |= environment | {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.chdir(home)
    store = torch.distributed.FileStore(f"{met}/store", processes)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=processes
    )
    work(Launch(rank, processes, torch.device("cpu")), *given)
    exit_worker(0)
