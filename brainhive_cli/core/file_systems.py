"""File systems: their free space, and how far locks on their files hold as the kernel lists them."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError

MOUNTS = Path("/proc/self/mountinfo")
"""The kernel's list, on Linux; see proc(5)."""
ESCAPED = re.compile(r"\\([0-7]{3})")
"""A space, tab, line end or backslash in a name of that list, as its octal number."""
LOCKS_ON_A_NODE = {
    "nfs": re.compile(r"nolock|local_lock=(?:flock|all)"),
    "nfs4": re.compile(r"nolock|local_lock=(?:flock|all)"),
    "lustre": re.compile(r"localflock"),
}
"""Mount options by which a lock of one node is not seen on others; see nfs(5), mount.lustre(8)."""


class FileSystem(NamedTuple):
    """A mounted file system.

    Attributes:
        kind: As ext4, nfs4 or lustre.
        source: Device, or server and folder.
        folder: Where it is mounted.
        options: Of the mount and of the file system.
    """

    kind: str
    source: str
    folder: Path
    options: tuple[str, ...]

    def describe(self) -> str:
        """Say what it is, and where from."""
        return f"{self.kind}, {self.source} at {self.folder}"

    def describe_locks(self) -> str:
        """Say that locks hold on one node only; empty if they hold on all, or there are none."""
        limits = LOCKS_ON_A_NODE.get(self.kind)
        options = [option for option in self.options if limits and limits.fullmatch(option)]
        if not options:
            return ""
        reason = f"{self.folder} is {self.kind} with {', '.join(options)}"
        return f"{reason}: locks hold on this node only; claims by heartbeat still work"


def require_room(folder: Path, size: int, what: str, way: str) -> int:
    """Require free space for what is about to be written, before its first byte; return what is free.

    Args:
        folder: Where it is written; it need not exist.
        size: Its bytes.
        what: Begins the message: what needs them.
        way: What to do where they are not free.

    Raises:
        BrainhiveError: if the disk has less.
    """
    # the nearest existing folder tells which disk it is
    disk = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    if size > (free := shutil.disk_usage(disk).free):
        raise BrainhiveError(
            f"{what} needs {console.size(size)}; {console.size(free)} are free in {disk}", way
        )
    return free


def find_file_system(path: Path, mounts: str) -> FileSystem | None:
    """Find the file system of a path.

    Args:
        path: Absolute, without links; it need not exist.
        mounts: Text of the kernel's list of mounts.

    Returns:
        The one that is mounted nearest above the path; None if the list has none.
    """
    nearest = None
    for line in mounts.split("\n"):
        # number, parent, device, root, folder, options, any number of tags; a dash; kind, source, options
        mount, _, system = line.partition(" - ")
        fields, (kind, source, options, *_) = mount.split(" "), [*system.split(" "), "", "", ""]
        if len(fields) < 6 or not kind:
            continue
        folder = Path(_unescape(fields[4]))
        is_nearer = nearest is None or len(folder.parts) >= len(
            nearest.folder.parts
        )  # the last one hides others
        if path.is_relative_to(folder) and is_nearer:
            # options of the mount, then of the file system, each once
            every = dict.fromkeys([*fields[5].split(","), *options.split(",")])
            nearest = FileSystem(kind, _unescape(source), folder, tuple(every))
    return nearest


def _unescape(name: str) -> str:
    # bytes, since a name of several such numbers is UTF-8
    raw = ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), name.encode().decode("latin-1"))
    return raw.encode("latin-1").decode(errors="surrogateescape")
