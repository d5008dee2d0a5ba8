"""Tests of the memory of this machine and of its GPU."""

import ctypes
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from brainhive_cli.core.base import device_memory
from brainhive_cli.core.base.device_memory import (
    copy_to_device,
    count_bytes,
    count_free_bytes,
    keep_freed_memory,
    read_peak_bytes,
    reset_peak,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_bytes_are_of_numbers_and_their_type():
    tensors = [torch.zeros(3, 2), torch.zeros(5, dtype=torch.float16)]
    assert count_bytes(tensors) == count_bytes(iter(tensors)) == 24 + 10
    assert count_bytes(torch.nn.Linear(3, 2)) == 4 * 8
    assert count_bytes([]) == 0


def test_the_peak_is_of_the_process_since_its_reset():
    # memory of the system itself, which nothing keeps when it is freed
    size = 2**25
    reset_peak(CPU)
    initial_peak_bytes = read_peak_bytes(CPU)
    with mmap(-1, size) as held_mmap:
        held_mmap.write(b"x" * size)
    high = read_peak_bytes(CPU)
    reset_peak(CPU)
    assert high > initial_peak_bytes + size // 2
    assert 10**7 < read_peak_bytes(CPU) < high - size // 2


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_a_proc_file_the_peak_is_of_the_whole_process(
    monkeypatch, system, unit
):
    usage = SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(device_memory.resource, "getrusage", lambda process_kind: usage)
    monkeypatch.setattr(device_memory.sys, "platform", system)
    monkeypatch.setattr(Path, "read_text", lambda path: "VmRSS: 3 kB")
    assert read_peak_bytes(CPU) == 5000 * unit


def test_memory_of_a_gpu_counts_where_it_is_less(
    monkeypatch,
):
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=100)
    )
    for of_the_gpu, free in ((50, 50), (200, 100)):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device, free=of_the_gpu: (free, 1000)
        )
        assert count_free_bytes(CUDA) == free
        assert count_free_bytes(CPU) == 100
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert read_peak_bytes(CUDA) == 7
    devices = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", devices.append)
    reset_peak(CUDA)
    assert devices == [CUDA]
    tensor = torch.ones(2)
    assert copy_to_device(tensor, CPU) is tensor


def test_glibc_keeps_large_blocks(monkeypatch):
    """Source: malloc.h of glibc has M_TRIM_THRESHOLD -1 and M_MMAP_THRESHOLD -3."""
    calls = list[tuple[int, int]]()
    libc = SimpleNamespace(mallopt=lambda *values: calls.append(values))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    keep_freed_memory()
    assert sorted(calls) == [(-3, 2**30), (-1, 2**30)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
