"""Estimates of the GPU memory that work takes, without a GPU: its tensors' shapes on the meta device."""

import ctypes
import math
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import finalize

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB, GIB = 2**20, 2**30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
KEPT_BYTES = 2**30
"""A step of BrainHiVE's training on a CPU allocates and frees half as many."""


def in_words(count: int) -> str:
    """Write bytes as GiB, or as MiB where they are less than one GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{math.ceil(count / MIB)} MiB"


def size_of(held: nn.Module | Iterable[Tensor]) -> int:
    """Count the bytes of a module's weights, or of tensors."""
    tensors = held.parameters() if isinstance(held, nn.Module) else held
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak(work: Callable[[], object], *networks: nn.Module) -> int:
    """Run work on the meta device; return the most bytes that lived at once, weights of networks left out."""
    live = LiveBytes(*networks)
    with _fused_attention(), live:
        work()
    return live.peak


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from now on; on a CPU only Linux can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident set, VmHWM


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes in use since the last reset: of a GPU by tensors, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages until they are freed, weights of networks left out."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._known = {p.untyped_storage()._cdata for network in networks for p in network.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if (key := storage._cdata) in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention be as on GPUs: without the matrix of all pairs.

    It replaces torch's function, as a mode of torch would not see what checkpoints recompute.
    """
    attend = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(
        query, key, value
    )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


class _Attention(torch.autograd.Function):
    """The shapes of fused attention: it keeps one sum a query next to the output for its backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], device=query.device)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; a GPU does so without being waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Count the free memory of this machine, or of the device where it has less."""
    free: int = psutil.virtual_memory().available
    return min(free, torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, rather than return it and fetch it again, page by page, in each step.

    Otherwise a step of the backbone `nice` takes 1.4 times the CPU time (batch 1024, fp32).
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
