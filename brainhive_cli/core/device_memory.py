"""Memory of this machine and of its GPU: what is in use, what is free, and what is kept
for the next step.
"""

import ctypes
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
KEPT_BYTES = 2**30
"""A step of BrainHiVE's training on a CPU allocates and frees half as many."""


def size_of(held: nn.Module | Iterable[Tensor]) -> int:
    """Count the bytes of a module's weights, or of tensors."""
    tensors = held.parameters() if isinstance(held, nn.Module) else held
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from now on; on a CPU only Linux can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            # the peak of the resident set, VmHWM
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes in use since the last reset: of a GPU by tensors, else by
    the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)

    # Linux: the peak since the last reset
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(
            next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        )

    # elsewhere: the peak since the process began
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; a GPU does so without being waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # from pinned memory the GPU copies while the CPU goes on
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Count the free memory of this machine, or of the device where it has less."""
    free: int = psutil.virtual_memory().available
    return (
        min(free, torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, rather than return it and fetch it again, page by
    page, in each step.

    Otherwise a step of the backbone `nice` takes 1.4 times the CPU time (batch 1024,
    fp32).
    """
    # other C libraries than glibc have no mallopt
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
