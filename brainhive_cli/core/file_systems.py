"""File systems as the kernel lists them, and how far locks on their files hold."""

import re
from pathlib import Path
from typing import NamedTuple

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


def find_file_system(path: Path, mounts: str) -> FileSystem | None:
    """Find the file system of a path.

    Args:
        path: Absolute, without links; it need not exist.
        mounts: Text of the kernel's list of mounts.

    Returns:
        The one that is mounted nearest above the path; None if the list has none.
    """
    nearest: FileSystem | None = None
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
            every = dict.fromkeys([*fields[5].split(","), *options.split(",")])
            nearest = FileSystem(kind, _unescape(source), folder, tuple(every))
    return nearest


def _unescape(name: str) -> str:
    # bytes, since a name of several such numbers is UTF-8
    raw = ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), name.encode().decode("latin-1"))
    return raw.encode("latin-1").decode(errors="surrogateescape")
