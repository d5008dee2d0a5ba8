"""Memory of this machine and of its GPU."""

import ctypes
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn


def count_bytes(source: nn.Module | Iterable[Tensor]) -> int:
    """Count the bytes of the parameters of a module, or of tensors."""
    tensors = source.parameters() if isinstance(source, nn.Module) else source
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def reset_peak(device: torch.device) -> None:
    """Reset the peak of memory that `read_peak_bytes` returns.

    Args:
        device: GPU or CPU. For a CPU, nothing happens outside of Linux.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            # 5 resets VmHWM, the peak of the memory of this process
            Path("/proc/self/clear_refs").write_text("5")


def read_peak_bytes(device: torch.device) -> int:
    """Return the peak of memory on a device, in bytes.

    Args:
        device: GPU or CPU.

    Returns:
        For a GPU, the peak of the tensors of this process since the last reset. For a
        CPU, the peak of the process, on Linux since the last reset.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)

    # on Linux, the line `VmHWM` holds the peak in kilobytes
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                kilobytes = line.split()[1]
                return 1024 * int(kilobytes)

    # `getrusage` returns bytes on macOS and otherwise kilobytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for a copy from the CPU to a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # only a copy from pinned memory does not block
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def count_free_bytes(device: torch.device) -> int:
    """Count the free memory of this machine or of a GPU, in bytes.

    For a GPU, the smaller of the two is returned.
    """
    free: int = psutil.virtual_memory().available
    if device.type == "cuda":
        gpu_free, _ = torch.cuda.mem_get_info(device)
        free = min(free, gpu_free)
    return free


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next training step.

    Otherwise a step of the backbone `nice` takes 1.4 times the CPU time (batch 1024,
    fp32), because memory is returned to the system.
    """
    # only glibc has the function mallopt
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Value of both options, twice the memory of a training step of BrainHiVE
        # on a CPU.
        malloc_threshold_bytes = 2**30
        # Option of mallopt: size of allocations that glibc returns
        # when freed (malloc.h).
        mallopt(-3, malloc_threshold_bytes)
        # Option of mallopt: size of free memory that glibc keeps (malloc.h).
        mallopt(-1, malloc_threshold_bytes)
