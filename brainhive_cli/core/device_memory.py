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

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of these options in glibc's malloc.h."""
MALLOC_THRESHOLD_BYTES = 2**30
"""Number of freed bytes from which glibc returns memory to the system. It is twice the
memory that a step of BrainHiVE's training on a CPU allocates and frees.
"""


def count_bytes(source: nn.Module | Iterable[Tensor]) -> int:
    """Count the bytes of the weights of a module, or of tensors."""
    tensors = source.parameters() if isinstance(source, nn.Module) else source
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def reset_peak(device: torch.device) -> None:
    """Reset the peak that `read_peak_bytes` returns.

    On a CPU, only Linux can reset the peak. Other systems ignore the call.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            # resets VmHWM, the peak of the resident set
            Path("/proc/self/clear_refs").write_text("5")


def read_peak_bytes(device: torch.device) -> int:
    """Return the largest number of bytes in use since the last reset.

    Returns:
        For a GPU, the peak of the memory of tensors. For a CPU, the peak of the memory
        of this process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)

    # on Linux, the peak since the last reset
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                kilobytes = line.split()[1]
                return 1024 * int(kilobytes)

    # on other systems, the peak since the process began
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. The CPU does not wait for a copy to a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # only copies from pinned memory run in parallel with the CPU
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def count_free_bytes(device: torch.device) -> int:
    """Count the free memory in bytes.

    Returns:
        For a CPU, the free memory of this machine. For a GPU, the smaller value of this
        machine and of the GPU.
    """
    free: int = psutil.virtual_memory().available
    if device.type == "cuda":
        gpu_free, _ = torch.cuda.mem_get_info(device)
        free = min(free, gpu_free)
    return free


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next training step.

    By default, glibc returns the memory to the system, and fetches it again page by
    page. A step of the backbone `nice` then takes 1.4 times the CPU time (batch 1024,
    fp32).
    """
    # only glibc has mallopt
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MALLOC_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, MALLOC_THRESHOLD_BYTES)
