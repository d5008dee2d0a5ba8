"""Processes on this CPU that share work, forked like those of `warm_process`."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.multiprocessing import start_processes

from brainhive_cli.core.runs.launch import Launch, exit_worker


def run_in_processes(
    work: Callable[..., None], *arguments: Any, processes: int = 2
) -> None:
    """Call `work(launch, *arguments)` in each of several processes.

    Pickle must find `work` in its module.

    Raises:
        torch.multiprocessing.ProcessExitedException: if one is killed.
        torch.multiprocessing.ProcessRaisedException: if one raises.
    """
    with TemporaryDirectory() as folder:
        environment = dict(os.environ)
        start_processes(
            _join,
            (work, processes, folder, environment, str(Path.cwd()), arguments),
            nprocs=processes,
            start_method="forkserver",
        )


def _join(
    rank: int,
    work: Callable[..., None],
    processes: int,
    folder: str,
    environment: dict[str, str],
    home: str,
    arguments: Any,
) -> None:
    os.environ |= environment | {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.chdir(home)
    store = torch.distributed.FileStore(f"{folder}/store", processes)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=processes
    )
    work(Launch(rank, processes, torch.device("cpu")), *arguments)
    exit_worker(0)
