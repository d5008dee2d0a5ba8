"""Errors of the machine (disk, permissions, memory, GPU), as distinct from those of what a file holds."""

import errno
import os
import re

OF_CONTENT = (
    *(None, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.ENOTDIR),
    errno.EOVERFLOW,
)
"""Numbers of errors of the system that come of what a file holds or is; all others are the machine's."""
OF_LIBRARIES = r"\(os error (\d+)\)|unable to (?:mmap|open|stat) .*\((\d+)\)"
"""How safetensors, which is written in Rust, and torch report an error of the system."""
OUT_OF_MEMORY = r"^\w*MemoryError: |DefaultCPUAllocator: |\(memory allocation failed"
"""Of a GPU (torch), of Python and NumPy, of torch on a CPU, and of HDF5."""
OF_THE_GPU = r"^AcceleratorError: |CUDA error"
"""What torch says since version 2.8, and before."""


def number_of(error: BaseException) -> int | None:
    """Return the number of an error of the system, also where a library writes it as text; else None."""
    if found := re.search(OF_LIBRARIES, str(error)):
        return int(found[1] or found[2])
    return error.errno if isinstance(error, OSError) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of a GPU."""
    found = re.search(OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
    return found is not None or number_of(error) == errno.ENOMEM


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error while a file is read is about the machine, and not about what the file holds.

    A lack of memory is about the file where it claims more than the machine has. HDF5 reports one within its
    filters as it does a damaged chunk, which it is then taken for.
    """
    if is_out_of_memory(error):
        named = re.search(r"tried to allocate (\d+) bytes", str(error))
        wanted = int(named[1]) if named else getattr(error, "_total_size", 0)  # which NumPy's error has
        return int(wanted) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if re.search(OF_THE_GPU, f"{type(error).__name__}: {error}"):
        return True
    return number_of(error) not in OF_CONTENT
