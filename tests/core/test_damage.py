"""What the machine lacks is told from what a file holds."""

import errno

import numpy as np
import safetensors
import torch

from brainhive_cli.core.damage import is_of_the_machine

GIB = 2**30


def array_error(size: int) -> Exception:
    return np._core._exceptions._ArrayMemoryError((size,), np.dtype(np.uint8))


def test_disk_permissions_memory_and_devices_are_of_the_machine_and_what_a_file_holds_is_not() -> None:
    for error in (
        *(OSError(number, "") for number in (errno.ENOSPC, errno.EACCES, errno.ENOMEM, errno.ENODEV)),
        array_error(GIB),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {GIB} bytes."),
        RuntimeError("unable to mmap 4096 bytes from file <last.pt>: Cannot allocate memory (12)"),
        safetensors.SafetensorError("I/O error: Permission denied (os error 13)"),
    ):
        assert is_of_the_machine(error), error
    for error in (
        *(OSError(number, "") for number in (errno.EINVAL, errno.ENOENT, errno.EISDIR)),
        OSError("Can't open file (file signature not found)"),
        RuntimeError("unable to mmap 4096 bytes from file <last.pt>: Invalid argument (22)"),
        KeyError("embedding"),
    ):
        assert not is_of_the_machine(error), error
