"""Exceptions of libraries and of the system as errors of ours."""

import errno
import os
import re

from brainhive_cli.core import damage, environment, foreign_code
from brainhive_cli.core.errors import (
    BrainhiveError,
    DeviceError,
    LostProcess,
    MissingExtra,
    RecipeError,
    first_line,
)

LOST_PROCESS = r"^Dist\w*Error: |gloo/transport/|NCCL error|NCCL communicator|ncclRemoteError"
"""What torch says where another process of the launch has ended."""
LOST_DECODER = r"DataLoader worker \(pid.*\) (is killed|exited)"
"""What torch says where a process that decodes pictures has ended."""
SPACE = "free space, or set BRAINHIVE_HOME to another disk; the same command continues"
PERMISSIONS = "fix permissions, or set BRAINHIVE_HOME to a folder of yours; the same command continues"
IN_THE_WAY = "move away what has the place of this file or folder; the same command continues"
DISK = "check the disk or network drive (dmesg), and copy the file elsewhere; the same command continues"
NETWORK = "check run.main_process_ip, run.main_process_port and the network between the machines"
WAYS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), PERMISSIONS),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY), IN_THE_WAY),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO), DISK),
    **dict.fromkeys((errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ECONNREFUSED, errno.ETIMEDOUT), NETWORK),
    **dict.fromkeys((errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPIPE), NETWORK),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "ulimit -n 65536, or fewer run.workers or --processes"),
    errno.ENOENT: "check that it exists, and that nothing else removes it; the same command continues",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f); the same command continues",
    errno.ENAMETOOLONG: "shorter names, or a home with a shorter path",
    errno.ELOOP: "remove the link; the same command continues",
    errno.ENODEV: "copy it to a disk whose files can be mapped into memory",
}
"""What to do about an error of the system, by its number."""
ANY = "check that the file is complete and its disk works; --debug shows where"
"""What to do about others."""


def describe(error: Exception, less_memory: str = "") -> BrainhiveError:
    """Turn any exception into an error with one line on what is wrong and one on what to do.

    Args:
        error: What was raised.
        less_memory: Overrides of the recipe with which its command needs less memory.
    """
    may_be_an_import = isinstance(error, MissingExtra) or not isinstance(error, BrainhiveError)
    if may_be_an_import and (broken := environment.failed_import(error)):
        return broken
    if isinstance(error, BrainhiveError):
        return error
    text = f"{type(error).__name__}: {error}"
    if damage.is_out_of_memory(error):
        way = f"{less_memory or 'a device with more memory'}; what is finished is kept"
        return DeviceError(f"out of memory: {first_line(error)}", way)
    if re.search(LOST_PROCESS, text):
        way = "its own error says why, on another machine if there are several; the same command continues"
        return LostProcess("another process of this launch has ended", way)
    if re.search(LOST_DECODER, text):
        way = "run.workers with a smaller number, as memory may have run out; the same command continues"
        return DeviceError("a process that decodes pictures was killed", way)
    if (number := damage.system_error_number(error)) and not isinstance(error, OSError):
        error = OSError(number, os.strerror(number))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or first_line(error)
        # a name that is too long comes from the command line or a recipe, whatever it is a name of
        kind = RecipeError if error.errno == errno.ENAMETOOLONG else BrainhiveError
        return kind(f"{where}{reason}", WAYS.get(error.errno or 0, ANY))
    return foreign_code.mistake(error) or BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}", "this is a bug; --debug shows where"
    )
