"""Paths below the home folder, and safe reading and writing of files.

Home is the folder of a user's files. Paths below home are stored relative to home, so
that home can be moved. Files may come from anybody: reading a pipe would wait forever,
reading a device would never end, and a link may lead to any folder. So only regular
files are opened. A new file replaces an old file only when the new file is complete.
"""

import errno
import os
import re
import shlex
import shutil
import socket
import stat
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import translate
from functools import cache
from glob import escape, glob
from io import BufferedReader
from pathlib import Path
from typing import Any

from rich import filesize

from brainhive_cli.core.errors import BrainhiveError, MissingData, system_error_number

AnyPath = str | os.PathLike[str]
MAX_TEXT_BYTES = 2**28
"""Largest size of a table or list that is read whole. NSD's largest table has 73,000
lines in 10 MB.
"""
TRACKER_PREFIXES = ("tensorboard", "wandb", "swan", "run-")
"""Prefixes of the files and folders that experiment trackers write into a run folder.
They do not belong to the run.
"""

SYSTEM_FOLDERS = ("lost+found", "System Volume Information", "$RECYCLE.BIN")
"""Folders at the top of a disk that hold no data, and that users may not read."""
PARTIAL_SUFFIX = ".part"
"""Suffix in the name of a file that is still being written."""
PARTIAL_FILE_NAME = re.compile(
    r"\.(?P<machine>[0-9a-f]{8})(?P<process>[0-9a-f]+)-[0-9a-f]+\.part", re.ASCII
)
"""Name of a file that is still being written, with its machine and process."""
MAX_PARTIAL_AGE_S = 86_400
"""Age from which a partial file of another machine counts as abandoned."""
NO_SPACE_ERRORS = {errno.EFBIG, errno.ENOSPC, errno.EDQUOT}
"""System errors of a full disk, a full quota or a limit on file sizes."""
MAX_SHOWN_CHARACTERS = 80
"""Largest number of characters of a refused name that an error shows."""
MAX_POINTER_BYTES = 1024
"""Size below which a file may be a pointer (specification of Git LFS)."""
FETCH_COMMANDS = {
    rb"version https://git-lfs": "cd {} && git lfs pull",
    rb"[\w./-]*/annex/objects/": "datalad get {}, or: cd {} && git annex get .",
}
"""Commands that fetch the content of a folder. `{}` stands for the folder. Each key is
a regular expression of a kind of placeholder. It matches the first bytes of a pointer
file, or the target of a link.
"""
DEAD_LINK_HINT = "copy the target of the link, or remove the dead links in {}"
"""Advice about a dead link that is no placeholder. `{}` stands for its folder."""
BAD_NAME_PATTERNS = {
    "is empty": re.compile(r"\A\Z"),
    "is an absolute path": re.compile(r"[/\\]|[A-Za-z]:[/\\]"),
    "leads out of its folder": re.compile(r"(?:.*[/\\])?\.\.(?:[/\\]|\Z)", re.DOTALL),
    "has an empty part": re.compile(r"(?:.*[/\\])?\.?(?:[/\\]|\Z)", re.DOTALL),
    "has a control character": re.compile(r".*[\x00-\x1f\x7f-\x9f]", re.DOTALL),
    "is not UTF-8": re.compile(r".*[\ud800-\udfff]", re.DOTALL),
}
"""Pattern of the names that cannot be paths below a folder, keyed by the reason. A
backslash counts as a slash, as on Windows.
"""


def home_folder() -> Path:
    """Return the home folder: BRAINHIVE_HOME, or the working directory."""
    return Path(os.environ.get("BRAINHIVE_HOME", "."))


def shipped_folder(name: str) -> Path:
    """Return the path of a folder that is installed with Brainhive.

    A wheel has the folder inside the package. A checkout has it next to the package.

    Args:
        name: Name of the folder, such as "recipes".
    """
    package = Path(__file__).parents[1]
    folder = package / name
    return folder if folder.is_dir() else package.parent / name


def locate(path: str | Path) -> Path:
    """Find the file that a path of a user or a recipe names.

    Args:
        path: Path relative to the working directory or to home, or an absolute path.

    Returns:
        The path below home, if the file exists below home and not in the working
        directory. Otherwise, the path as it was passed.
    """
    home_path = home_folder() / path
    # pathlib raises an error for a name that is too long, os.path does not
    if not os.path.exists(path) and os.path.exists(home_path):
        return home_path
    return Path(path)


def hint_at_folder(root: Path, key: str, value: str, content: str) -> str:
    """Write advice for an error about a folder of the user that was not found.

    Args:
        root: Folder that was searched.
        key: Key of the setting that names the folder.
        value: Value of this setting. Empty if the user did not set it, so `root` is the
            default folder.
        content: Description of the files that the folder should hold.

    Returns:
        Text in one line, with `content` as a comment at its end. If the user set the
        folder, the text is `KEY=FOLDER`, to correct the setting. Otherwise, it is a
        shell command that makes the default folder a link to the user's own folder.
    """
    if value:
        return f"{key}=FOLDER  # {content}"
    parent = shlex.quote(str(root.parent))
    link = shlex.quote(str(root))
    return f"mkdir -p {parent} && ln -s /FOLDER {link}  # {content}"


def locate_stored(path: str) -> str:
    """Find the file of a path that `make_portable` may have made relative to home.

    Returns:
        The path below home if the file exists there. Otherwise, the path as it was
        passed.
    """
    home_path = home_folder() / path
    return str(home_path) if home_path.exists() else path


def make_portable(value: Any) -> Any:
    """Replace absolute paths below the home folder by paths relative to this folder.

    The home folder is the folder that `home_folder` returns. Paths without it also hold
    on other machines.

    Args:
        value: A text or path, or nested mappings and lists with texts and paths. Each
            text with an absolute path counts as a path. Tuples are allowed too.

    Returns:
        A copy of the value, in which tuples are lists. Paths outside of the home folder
        are not changed.
    """
    # replace the paths inside of mappings and lists
    if isinstance(value, Mapping):
        return {
            make_portable(key): make_portable(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [make_portable(inner) for inner in value]

    # if the home folder is a link, a path may begin with the link or with its target
    if isinstance(value, str | Path) and os.path.isabs(value):
        path = os.path.normpath(value)
        for home in (os.path.abspath(home_folder()), os.path.realpath(home_folder())):
            if path.startswith(f"{home.rstrip(os.sep)}{os.sep}"):
                return Path(os.path.relpath(path, home)).as_posix()
    return value


class UnfitFile(BrainhiveError, OSError):
    """The error of a file that is not opened: it is too large, or not regular."""

    def __init__(self, number: int, problem: str, path: AnyPath, hint: str) -> None:
        OSError.__init__(self, number, problem, os.fspath(path))
        self.message = f"{self.filename} is {problem}"
        self.hint = hint

    def __reduce__(
        self,
    ) -> tuple[type["UnfitFile"], tuple[int | None, str | None, str, str]]:
        """Make the error picklable, so that worker processes can return it."""
        return type(self), (self.errno, self.strerror, self.filename, self.hint)


class NotFetched(MissingData):
    """The error of placeholders: files whose content was not fetched.

    DataLad (with git-annex) and Git LFS store such placeholders in a copy of a data
    set.
    """


def find_unfetched(paths: Iterable[AnyPath]) -> NotFetched | None:
    """Find files that are placeholders, because their content was not downloaded yet.

    A placeholder is a dead link, or a small pointer file of git-annex or Git LFS.

    Args:
        paths: Files, which need not exist.

    Returns:
        An error with the number of placeholders and the command that fetches their
        content. It is returned and not raised. None if there are no placeholders.
    """
    # the hint is the command that fetches the content. It is empty for other files
    hints = {os.fspath(path): _find_fetch_command(path) for path in paths}
    placeholders = [path for path, hint in hints.items() if hint]
    if not placeholders:
        return None

    # write the deepest folder that holds all placeholders into the command, in place
    # of the braces
    folder = os.path.commonpath(map(os.path.dirname, placeholders)) or "."
    return NotFetched(
        f"{placeholders[0]} is a placeholder, and its content was not fetched "
        f"({len(placeholders)} of {len(hints)} files are placeholders)",
        hints[placeholders[0]].replace("{}", shlex.quote(folder)),
    )


def require_content(path: AnyPath) -> None:
    """Raise an error if a file is a placeholder whose content was not downloaded.

    Args:
        path: File, which need not exist.

    Raises:
        NotFetched: if the file is a dead link, or a pointer file of git-annex or Git
            LFS. The message has the number of all placeholders in its folder.
    """
    # `find_unfetched` returns the error, or None if no file is a placeholder
    error = find_unfetched([path])
    if error is None:
        return

    # search all files of the folder. Put this file first, because the message names the
    # first placeholder. The file may have been fetched in the meantime
    files = [file for file in Path(path).parent.iterdir() if not file.is_dir()]
    files.sort()
    files.insert(0, Path(path))
    raise find_unfetched(files) or error


def _find_fetch_command(path: AnyPath) -> str:
    """Return the command that downloads the content of a placeholder file.

    A placeholder is a dead link of git-annex, or a small pointer file of git-annex or
    Git LFS.

    Args:
        path: File, which need not exist.

    Returns:
        For a placeholder, a shell command in which `{}` stands for the folder. For any
        other dead link, advice about the link. In all other cases, an empty text.
    """
    # Read the target of a dead link, or the content of a small file. `os.stat` follows
    # links, so it fails for a dead link.
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        if not os.path.islink(path):
            return ""
        content = os.fsencode(os.readlink(path))
        hint = DEAD_LINK_HINT
    else:
        if not stat.S_ISREG(status.st_mode) or status.st_size >= MAX_POINTER_BYTES:
            return ""
        content = Path(path).read_bytes()
        hint = ""

    # compare the target or content with the pattern of each kind of placeholder
    for pattern, command in FETCH_COMMANDS.items():
        if re.match(pattern, content):
            return command
    return hint


def open_regular(path: AnyPath, max_bytes: int | None = None) -> BufferedReader:
    """Open a regular file for reading.

    A link to a regular file is allowed, because data sets and the cache of the hub
    consist of links.

    Args:
        path: File.
        max_bytes: Largest size that is allowed, or None for any size.

    Raises:
        UnfitFile: if the file is not a regular file, or is too large.
        NotFetched: if the file is a placeholder whose content was not fetched.
        OSError: if the file does not exist, or the system refuses to open the file.
    """
    return open(open_descriptor(path, os.O_RDONLY, max_bytes=max_bytes), "rb")


def read_regular(path: AnyPath, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file whole.

    Args:
        path: File.
        max_bytes: Largest size that is allowed.

    Raises:
        UnfitFile: if the file is not a regular file, or is too large.
        NotFetched: if the file is a placeholder whose content was not fetched.
        OSError: if the file does not exist, or the system refuses to open the file.
    """
    with open_regular(path, max_bytes) as file:
        return file.read(max_bytes)


def read_lines(
    path: AnyPath, max_bytes: int = MAX_TEXT_BYTES, errors: str = "strict"
) -> list[str]:
    """Read the lines of a text file in UTF-8.

    A line ends at CR LF, LF or CR. The method `str.splitlines` would also split at
    characters such as U+2028, which occur inside of captions and file names.

    Args:
        path: File.
        max_bytes: Largest allowed size of the file.
        errors: Treatment of bytes that are not UTF-8, as in `bytes.decode`.

    Returns:
        Lines without their line ends. If the text ends with a line end, the last item
        is an empty text.

    Raises:
        UnfitFile: if the file is not a regular file, or is too large.
        NotFetched: if the file is a placeholder whose content was not fetched.
        OSError: if the file does not exist, or the system refuses to open the file.
    """
    text = read_regular(path, max_bytes).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def open_descriptor(
    path: AnyPath, flags: int, follow: bool = True, max_bytes: int | None = None
) -> int:
    """Open a file with `os.open`, and refuse pipes, devices and folders.

    Args:
        path: File.
        flags: Flags of `os.open`. For example, `os.O_CREAT` creates a missing file.
        follow: True to open the target of a link. False to refuse links.
        max_bytes: Largest allowed size of the file, or None for any size.

    Returns:
        The file descriptor, which the caller must close.

    Raises:
        UnfitFile: if the file is not a regular file, or is too large.
        NotFetched: if the file is a placeholder whose content was not fetched.
        OSError: if the system refuses to open the file, or if the file is a link and
            `follow` is False.
    """
    # Opening a pipe normally waits for another process. With O_NONBLOCK it does not
    # wait, so the pipe can be noticed and refused.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    if not follow:
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        # for a dead link, raise an error with the command that fetches the content
        require_content(path)
        raise
    try:
        require_regular(path, max_bytes, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_unless_link(path: str, flags: int) -> int:
    """Open a regular file, and refuse a link, which may lead to any folder.

    This function can be passed to `open` as its `opener`.

    Args:
        path: File.
        flags: Flags of `os.open`.

    Returns:
        File descriptor.
    """
    return open_descriptor(path, flags, follow=False)


def require_regular(
    path: AnyPath, max_bytes: int | None = None, status: os.stat_result | None = None
) -> None:
    """Raise an error if a file is not fit to be opened by a library.

    The file must be a regular file, with its content, and not too large.

    Args:
        path: File.
        max_bytes: Largest allowed size of the file, or None for any size.
        status: Result of `os.stat` for the file, or None to call `os.stat` here.

    Raises:
        UnfitFile: if the file is not a regular file, or is too large.
        NotFetched: if the file is a placeholder whose content was not fetched.
        OSError: if the file does not exist, or is a folder.
    """
    # a placeholder is a dead link or a small file. A dead link has no status
    if status is None or status.st_size < MAX_POINTER_BYTES:
        require_content(path)

    # check the type and the size
    status = status or os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    if not stat.S_ISREG(status.st_mode):
        raise UnfitFile(
            errno.EINVAL,
            "a pipe, socket or device, not a regular file",
            path,
            "replace it by a regular file",
        )
    if max_bytes is not None and status.st_size > max_bytes:
        raise UnfitFile(
            errno.EFBIG,
            f"too large: {status.st_size:,} bytes, and at most {max_bytes:,} are read",
            path,
            "check that this is the right file",
        )


def is_file(path: Path) -> bool:
    """Return True if a file exists, but raise an error if it is a placeholder.

    Raises:
        NotFetched: if the file is a placeholder whose content was not fetched.
    """
    require_content(path)
    return path.is_file()


def find_files_named(name: str, root: Path) -> list[Path]:
    """Find all files with a given name in a folder and its subfolders.

    Args:
        name: Complete file name, without wildcards.
        root: Folder in which the search begins.

    Returns:
        Paths of the files, which begin with `root`, in sorted order. Empty if no file
        has the name.

    Raises:
        NotFetched: if a file is a placeholder whose content was not fetched.
    """
    paths = []
    for path, entry in walk(root):
        if entry.name == name and not entry.is_dir() and is_file(root / path):
            paths.append(root / path)
    return sorted(paths)


def walk(
    root: Path, folder: str = "", enters: Callable[[str], object] = lambda name: True
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Walk through the files and folders below a folder, in the order of their names.

    Links are followed, because folders of concepts are often links into a larger data
    set. A link to a folder that contains the link is not followed. Hidden files and
    folders, such as the `._*` of macOS, and folders of the system, such as
    `lost+found`, are left out.

    Args:
        root: Folder. If it does not exist, the walk is empty.
        folder: POSIX path of a folder below `root`, to which the walk is limited.
        enters: Function that gets the name of a folder, and returns True if the walk
            enters such folders. The walk yields the other folders without their
            content.

    Yields:
        The POSIX path of a file or folder relative to `root`, and its directory entry.
        The entry knows its type without another system call.

    Raises:
        OSError: if a folder cannot be read.
    """

    def visit(
        path: str, visited: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the path and the entry of each file and folder below a folder.

        Args:
            path: Folder, relative to `root`.
            visited: Device and inode number of each folder above this folder.
        """
        # A link may lead to a folder that contains the link, and the walk would never
        # end. So stop at a folder that is among the folders above it.
        status = os.stat(root / path)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            return

        # close the folder before the walk enters its subfolders
        with os.scandir(root / path) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            entry_path = f"{path}/{entry.name}" if path else entry.name
            yield entry_path, entry
            if entry.is_dir() and enters(entry.name):
                yield from visit(entry_path, visited + (identity,))

    if os.path.isdir(root / folder):
        yield from visit(folder, ())


WILDCARDS = {"*": "[^/]*", "?": "[^/]"}
"""Regular expressions for the wildcards in a pattern of paths."""
ANY_FOLDERS = "(?:[^/]+/)*"
"""Regular expression for the wildcard `**/`."""


def expand_pattern(path: str | Path) -> list[Path]:
    """List the files and folders that match a path with shell wildcards.

    The path may begin with an existing folder whose name has brackets, such as
    `study [pilot]`. Brackets, `*` and `?` in the names of existing folders are not
    wildcards.

    Args:
        path: Path, with or without wildcards.

    Returns:
        Matching paths in sorted order. Empty if nothing matches. If the path exists as
        it is written, the list has only this path.
    """
    path = Path(path)
    if path.exists():
        return [path]

    # split the path into the deepest existing folder, whose wildcards are escaped,
    # and a pattern
    existing_folders = [parent for parent in path.parents if parent.is_dir()]
    folder = existing_folders[0] if existing_folders else path.parent
    pattern = os.path.join(escape(str(folder)), path.relative_to(folder))
    return [Path(name) for name in sorted(glob(pattern, recursive=True))]


def matches_pattern(path: str, pattern: str) -> bool:
    """Return True if `Path.rglob` would find a path by a pattern.

    Args:
        path: POSIX path.
        pattern: Pattern that the end of the path must match, such as
            `sub-*/**/*_beta.nii.gz`.
    """
    return _compile(pattern).fullmatch(path) is not None


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of paths, as in `Path.rglob`, to a regular expression."""
    # a piece is `**/`, `*`, `?`, a [class] of characters, or the text between these
    pieces = re.split(r"((?:\*\*/)+|\*|\?|\[!?\]?[^\]]*\])", pattern)
    expression = ""
    for piece in pieces:
        if piece[:3] == "**/":
            expression += ANY_FOLDERS
        elif piece in WILDCARDS:
            expression += WILDCARDS[piece]
        else:
            # `translate` appends \Z, but the text does not end with this piece
            expression += translate(piece).removesuffix(r"\Z")
    return re.compile(f"(?:.*/)?{expression}", re.DOTALL)


def describe_bad_text(text: str) -> str:
    """Return the reason why a text is not allowed in recipes, names and scripts.

    Returns:
        "has a control character" or "is not UTF-8", or empty if the text is allowed.
    """
    for reason in ("has a control character", "is not UTF-8"):
        if BAD_NAME_PATTERNS[reason].match(text):
            return reason
    return ""


def resolve_below(
    folder: Path, *names: str, source: str, error: type[BrainhiveError] = BrainhiveError
) -> Path:
    """Join names to the path of a folder, and refuse names that lead out of the folder.

    Args:
        folder: Folder below which the path must stay.
        names: File names, or relative paths with slashes. They may come from a file
            that is not trusted.
        source: Beginning of the error message, such as `archive.zip holds a file that`.
        error: Class of the error for a refused name.

    Returns:
        The path of `folder / names[0] / names[1] / ...`.

    Raises:
        BrainhiveError: if a name is empty, absolute, leads out of the folder, or cannot
            be the name of a file. The class of the error is `error`.
    """
    for name in names:
        reason = _describe_bad_name(name)
        if reason:
            quoted_name = repr(name)
            if len(quoted_name) > MAX_SHOWN_CHARACTERS:
                quoted_name = f"{quoted_name[:MAX_SHOWN_CHARACTERS]}…"
            raise error(
                f"{source} {quoted_name} {reason}",
                "use a name, or names joined by /, without ..",
            )
    return folder.joinpath(*names)


def _describe_bad_name(name: object) -> str:
    """Return the reason why a value cannot be a path below a folder.

    Args:
        name: Value that should be a name. Attributes of HDF5 files may hold numbers.

    Returns:
        The reason, or empty if the value can be such a path.
    """
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a name"
    for reason, pattern in BAD_NAME_PATTERNS.items():
        if pattern.match(name):
            return reason
    return ""


def resolve_without_links(folder: Path, name: str, source: str) -> Path:
    """Join a name to the path of a folder, and refuse subfolders that are links.

    Args:
        folder: Folder below which the path must stay. It may itself be a link.
        name: Relative path of a file, such as `a/b.txt`. The file itself may be a link.
        source: Origin of the name, for the error message.

    Returns:
        The path `folder / name`.

    Raises:
        BrainhiveError: if the name leads out of the folder, or if a folder between
            `folder` and the file is a link.
    """
    path = resolve_below(folder, name, source=source)

    # Check each folder between `folder` and the file. The last parent of the relative
    # path stands for `folder` itself, which may be a link.
    for parent in list(path.relative_to(folder).parents)[:-1]:
        if (folder / parent).is_symlink():
            raise BrainhiveError(
                f"{folder / parent} is a link, and Brainhive does not write through "
                "links",
                "replace the link by the folder that it leads to, or remove it",
            )
    return path


def name_partial_file(final: Path) -> Path:
    """Choose the path of the file that this thread writes and then renames to `final`.

    The file name contains the machine, the process and the thread, so it is unique.
    """
    owner = f"{_hash_machine()}{os.getpid():x}-{threading.get_native_id():x}"
    return final.with_name(f".{final.stem}.{owner}{PARTIAL_SUFFIX}{final.suffix}")


def _hash_machine() -> str:
    """Return eight hexadecimal digits for this machine, a hash of its name."""
    return f"{zlib.crc32(name_machine().encode()):08x}"


@cache
def name_machine() -> str:
    """Return a name within which a process id stands for a single process.

    Process ids start again after a boot, and each container may have process ids of its
    own. So the name contains the host name, the id of the boot and the namespace of the
    process ids.
    """
    boot = namespace = "-"
    with suppress(OSError):  # macOS has neither file
        boot_path = Path("/proc/sys/kernel/random/boot_id")
        boot = boot_path.read_text(encoding="ascii").strip()
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    return f"{socket.gethostname()} {boot}:{namespace}"


def is_running(process: int) -> bool:
    """Return True if a process of this machine is running.

    Args:
        process: Id of the process, in the same namespace of process ids.
    """
    try:
        os.kill(process, 0)  # signal 0 checks the process without effect
    except ProcessLookupError:
        return False
    except PermissionError:  # the process belongs to another user
        pass
    return True


def read_disk_clock(folder: Path) -> float:
    """Read the clock from which files in a folder get their modification times.

    The clock of a network disk may differ from the clock of this machine. The function
    creates a file for a moment to read its time.

    Returns:
        The time in seconds since 1970.
    """
    prefix = f"{name_partial_file(folder / 'clock').name}."
    with tempfile.NamedTemporaryFile(prefix=prefix, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove the partial files and folders that killed processes have left in a folder.

    A partial file is a file that was being written. Its name has the machine and the
    process of the writer. There are two cases:

    - If the writer was a process on this machine, the partial file is removed as soon
      as this process no longer runs.
    - If the writer was on another machine or in another container, the partial file is
      removed if its last change is older than `MAX_PARTIAL_AGE_S`.

    Repeated calls for a folder do nothing, because the function is cached.

    Args:
        folder: Folder that may hold partial files. Its subfolders are not searched.
    """
    for path in folder.glob(f".*{PARTIAL_SUFFIX}*"):
        owner = PARTIAL_FILE_NAME.search(path.name)
        if owner is None:
            continue
        with suppress(OSError):  # another process may have removed the file
            # This machine cannot ask whether a process of another machine runs. So use
            # the age, which for a partial folder is the age of the newest file in it.
            if owner["machine"] != _hash_machine():
                change_time = path.stat().st_mtime
                for inner_path in path.rglob("*"):
                    change_time = max(change_time, inner_path.stat().st_mtime)
                age_s = read_disk_clock(folder) - change_time
                is_abandoned = age_s > MAX_PARTIAL_AGE_S
            else:
                is_abandoned = not is_running(int(owner["process"], 16))
            if is_abandoned:
                remove(path)


@contextmanager
def atomic_write(final: Path, is_lasting: bool = True) -> Iterator[Path]:
    """Let a `with` block write a temporary file or folder, and then rename it.

    If the block raises an error or is interrupted, the temporary file is removed. An
    earlier file at the final path then stays as it was.

    Args:
        final: Final path of the file or folder. Missing parent folders are created.
        is_lasting: True if the content must survive a power cut. The content is then
            forced to the disk before the file is renamed. This takes 6 ms per file,
            which adds up to minutes for the pictures of a data set.

    Yields:
        The temporary path, to which the block must write.

    Raises:
        OSError: if the disk is full. The error names the final path.
    """
    # A file can be renamed in one step only if both paths are on the same disk. So the
    # temporary file is a hidden file in the folder of the final file. First remove such
    # files of processes that were killed.
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final.parent)
    temporary = name_partial_file(final)
    remove(temporary)  # a link at this path would redirect the writer
    try:
        yield temporary
        if is_lasting:
            publish(temporary, final)
        else:
            os.replace(temporary, final)
    except BaseException as error:
        remove(temporary)

        # If the disk is full, raise an error that names the final path, which users
        # know. The first error names the temporary path or no file. The number is the
        # errno, and is None for an error of another kind.
        number = None
        if not isinstance(error, BrainhiveError):
            number = system_error_number(error)
        file_name = getattr(error, "filename", None) or temporary
        if number in NO_SPACE_ERRORS and temporary.name in str(file_name):
            raise OSError(number, os.strerror(number), str(final)) from error
        raise


def publish(temporary: Path, final: Path) -> None:
    """Force a complete file or folder to the disk, and then rename it.

    After a renaming without this step, a power cut could leave an empty file at the
    final path, because the content may not be on the disk yet.

    Args:
        temporary: Path of the complete file or folder.
        final: Path after renaming, in the same folder.

    Raises:
        OSError: if the disk is full or fails. In this case, nothing is renamed.
    """
    paths = list(temporary.rglob("*")) if temporary.is_dir() else [temporary]
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file)
    os.replace(temporary, final)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link if it exists, but not the target of a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_free_space(folder: Path, size: int, purpose: str, hint: str) -> int:
    """Raise an error if a disk has too little space for new files.

    Args:
        folder: Folder in which the files will be written. It need not exist.
        size: Size of the new files in bytes.
        purpose: Description of the new files, with which the error message begins.
        hint: Advice for the user if there is too little space.

    Returns:
        Free space in bytes.

    Raises:
        BrainhiveError: if the disk has too little space.
    """
    # a missing folder will be on the disk of its nearest parent that exists
    disk = folder.absolute()
    while not disk.is_dir():
        disk = disk.parent
    free = shutil.disk_usage(disk).free
    if size > free:
        raise BrainhiveError(
            f"{purpose} needs {filesize.decimal(size)}, and {disk} has only "
            f"{filesize.decimal(free)} free",
            hint,
        )
    return free
