"""What the machine lacks is told from what a file holds."""

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors
import torch

from brainhive_cli.core.damage import is_of_the_machine

GIB = 2**30


def array_error(size: int) -> Exception:
    return np._core._exceptions._ArrayMemoryError((size,), np.dtype(np.uint8))


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "") for number in (errno.ENOSPC, errno.EACCES, errno.ENOMEM, errno.ENODEV)),
        MemoryError(),
        array_error(GIB),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {GIB} bytes."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("unable to mmap 4096 bytes from file <last.pt>: Cannot allocate memory (12)"),
        safetensors.SafetensorError("I/O error: Permission denied (os error 13)"),
    ],
)
def test_disk_permissions_memory_and_devices_are_of_the_machine(error: Exception) -> None:
    assert is_of_the_machine(error)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "") for number in (errno.EINVAL, errno.ENOENT, errno.EISDIR, errno.EOVERFLOW)),
        OSError("Can't open file (file signature not found)"),
        RuntimeError("unable to mmap 4096 bytes from file <last.pt>: Invalid argument (22)"),
        ValueError("no such dtype"),
        KeyError("embedding"),
    ],
)
def test_what_a_file_holds_or_claims_is_not(error: Exception) -> None:
    assert not is_of_the_machine(error)


READ_WITH_LITTLE_MEMORY = """
import os, resource, sys
from pathlib import Path
import h5py
from brainhive_cli.core import damage

now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
with damage.reading(path := Path(sys.argv[1]), "make it again"), h5py.File(path, "r") as file:
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**25, now + 2**25))
    file["x"][:10]
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads what Linux says of the process")
def test_a_lack_of_memory_while_hdf5_reads_is_no_damage(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "a.h5", "w") as file:
        options = {"chunks": (2**25,), "compression": "gzip", "compression_opts": 0}  # read whole
        file.create_dataset("x", data=np.ones(2**25, np.float32), **options)
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(path)]  # which has freed nothing yet
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].startswith("OSError") and "memory allocation failed" in ended.stderr
