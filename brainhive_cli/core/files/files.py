"""Paths below the home folder, and safe reading and writing of files.

Only regular files are opened, because reading a pipe or device may never end.
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

from brainhive_cli.core.base import BrainhiveError, MissingData, system_error_number

AnyPath = str | os.PathLike[str]
MAX_TEXT_BYTES = 2**28
"""Largest size of a table or list that is read whole. NSD's largest table has 73,000
lines in 10 MB.
"""

PARTIAL_SUFFIX = ".part"
"""Suffix in the name of a file that is still being written."""
PARTIAL_FILE_NAME = re.compile(
    r"\.(?P<machine>[0-9a-f]{8})(?P<process>[0-9a-f]+)-[0-9a-f]+\.part", re.ASCII
)
"""Name of a file that is still being written, with its machine and process."""
MAX_PARTIAL_AGE_S = 86_400
"""Age from which a partial file of another machine counts as abandoned."""
MAX_POINTER_BYTES = 1024
"""Size below which a file may be a pointer (specification of Git LFS)."""
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
    """Return the user's folder: BRAINHIVE_HOME, or the working directory.

    Raises:
        BrainhiveError: if it begins with ~, and no such user is known.
    """
    # Dockerfiles, IDEs and schedulers pass ~ and $HOME as they are
    name = os.path.expandvars(os.environ.get("BRAINHIVE_HOME", "").strip())
    home = os.path.expanduser(name)
    if home.startswith("~"):
        raise BrainhiveError(
            f"BRAINHIVE_HOME is {name}, and nobody knows the home of this user",
            "set BRAINHIVE_HOME to an absolute path",
        )
    return Path(home)


def shipped_folder(name: str) -> Path:
    """Return the path of a folder that is installed with Brainhive.

    Args:
        name: Name of the folder, such as "recipes".
    """
    package = Path(__file__).parents[2]
    folder = package / name
    return folder if folder.is_dir() else package.parent / name


def locate(path: str | Path) -> Path:
    """Find a path of a user or a recipe in the working directory, or else below home.

    Args:
        path: Relative or absolute path.

    Returns:
        The path below home if only this path exists. Otherwise, the path, in which
        only ~ is expanded.
    """
    path = os.path.expanduser(path)
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
        value: Value of this setting, or "" if the user did not set it.
        content: Description of the files that the folder should hold.

    Returns:
        `KEY=FOLDER`, or a shell command that makes `root` a link if `value` is empty.
        `content` follows as a comment.
    """
    if value:
        return f"{key}=FOLDER  # {content}"
    parent = shlex.quote(str(root.parent))
    link = shlex.quote(str(root))
    return f"mkdir -p {parent} && ln -s /FOLDER {link}  # {content}"


def locate_stored(path: str) -> str:
    """Return the path below home if it exists, or else the path unchanged."""
    home_path = home_folder() / path
    return str(home_path) if home_path.exists() else path


def make_portable(value: Any) -> Any:
    """Replace absolute paths below the home folder by paths relative to this folder.

    Args:
        value: Text, path, or nested mappings, lists and tuples of these.

    Returns:
        A copy of the value, with lists in place of tuples. Other paths stay unchanged.
    """
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
    """The error of files of DataLad or Git LFS whose content was not downloaded."""


def find_unfetched(paths: Iterable[AnyPath]) -> NotFetched | None:
    """Find placeholders: files of git-annex or Git LFS without content, and dead links.

    Args:
        paths: Files, which need not exist.

    Returns:
        An error with the command that fetches their content, or None without any.
    """
    hints = {os.fspath(path): _find_fetch_command(path) for path in paths}
    placeholders = [path for path, hint in hints.items() if hint]
    if not placeholders:
        return None

    # write the folder of all placeholders into the command
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
        NotFetched: if the file is such a placeholder, or any dead link.
    """
    error = find_unfetched([path])
    if error is None:
        return

    # count all placeholders in the folder, and name this one first
    files = [file for file in Path(path).parent.iterdir() if not file.is_dir()]
    files.sort()
    files.insert(0, Path(path))
    raise find_unfetched(files) or error


def _find_fetch_command(path: AnyPath) -> str:
    """Return the command that downloads the content of a placeholder file.

    Returns:
        A command with `{}` for the folder, `dead_link_hint` for another dead link, or
        "" for any other path.
    """
    # one call for each of up to a million files, which are slow on network disks
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        status = None

    is_dead_link = status is None and os.path.islink(path)
    if is_dead_link:
        content = os.fsencode(os.readlink(path))
    elif (
        status
        and stat.S_ISREG(status.st_mode)
        and 0 < status.st_size < MAX_POINTER_BYTES
    ):
        content = Path(path).read_bytes()
    else:
        return ""

    # Commands that fetch the content of a folder. `{}` stands for the folder. Each key
    # is a regular expression of a kind of placeholder. It matches the first bytes of a
    # pointer file, or the target of a link.
    fetch_commands = {
        rb"version https://git-lfs": "cd {} && git lfs pull",
        rb"[\w./-]*/annex/objects/": "datalad get {}, or: cd {} && git annex get .",
    }
    for pattern, command in fetch_commands.items():
        if re.match(pattern, content):
            return command
    # Advice about a dead link that is no placeholder. `{}` stands for its folder.
    dead_link_hint = "copy the target of the link, or remove the dead links in {}"
    return dead_link_hint if is_dead_link else ""


def open_regular(path: AnyPath, max_bytes: int | None = None) -> BufferedReader:
    """Open a regular file, or a link to a regular file, for reading.

    Args:
        path: File.
        max_bytes: Largest allowed size, or None.

    Raises:
        UnfitFile: if the file is not regular, or too large.
        NotFetched: if the file is a placeholder without content.
        OSError: if the file does not exist, or cannot be opened.
    """
    return open(open_descriptor(path, os.O_RDONLY, max_bytes=max_bytes), "rb")


def read_regular(path: AnyPath, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file whole.

    Args:
        path: File.
        max_bytes: Largest allowed size.

    Raises:
        UnfitFile: if the file is not regular, or too large.
        NotFetched: if the file is a placeholder without content.
        OSError: if the file does not exist, or cannot be opened.
    """
    with open_regular(path, max_bytes) as file:
        return file.read(max_bytes)


def read_lines(
    path: AnyPath, max_bytes: int = MAX_TEXT_BYTES, errors: str = "strict"
) -> list[str]:
    """Read the lines of a text file in UTF-8, which end at CR LF, LF or CR.

    Args:
        path: File.
        max_bytes: Largest allowed size.
        errors: Treatment of bytes that are not UTF-8, as in `bytes.decode`.

    Returns:
        Lines without line ends. After a final line end, the last item is "".

    Raises:
        UnfitFile: if the file is not regular, or too large.
        NotFetched: if the file is a placeholder without content.
        OSError: if the file does not exist, or cannot be opened.
    """
    text = read_regular(path, max_bytes).decode("utf-8-sig", errors)
    # `str.splitlines` would also split at U+2028, which occurs inside of captions
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def open_descriptor(
    path: AnyPath, flags: int, follow: bool = True, max_bytes: int | None = None
) -> int:
    """Open a file with `os.open`, and refuse pipes, devices and folders.

    Args:
        path: File.
        flags: Flags of `os.open`, such as `os.O_CREAT`.
        follow: True to open the target of a link. False to refuse links.
        max_bytes: Largest allowed size, or None.

    Returns:
        The file descriptor, which the caller must close.

    Raises:
        UnfitFile: if the file is not regular, or too large.
        NotFetched: if the file is a placeholder without content.
        OSError: if the file cannot be opened, or is a refused link.
    """
    # without O_NONBLOCK, opening a pipe waits for another process
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    if not follow:
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        # a dead link may be a placeholder
        require_content(path)
        raise
    try:
        require_regular(path, max_bytes, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_unless_link(path: str, flags: int) -> int:
    """Open a regular file, and refuse links, as an `opener` for `open`."""
    return open_descriptor(path, flags, follow=False)


def require_regular(
    path: AnyPath, max_bytes: int | None = None, status: os.stat_result | None = None
) -> None:
    """Raise an error unless a file is regular, has its content, and is not too large.

    Args:
        path: File.
        max_bytes: Largest allowed size, or None.
        status: Result of `os.stat` for the file, or None.

    Raises:
        UnfitFile: if the file is not regular, or too large.
        NotFetched: if the file is a placeholder without content.
        OSError: if the file does not exist, or is a folder.
    """
    # a placeholder is a dead link or a small file. A dead link has no status
    if status is None or status.st_size < MAX_POINTER_BYTES:
        require_content(path)

    status = status or os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    # files of the kernel look regular, and may have no end
    is_virtual = os.path.realpath(path).startswith(("/proc/", "/sys/"))
    if is_virtual or not stat.S_ISREG(status.st_mode):
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
        NotFetched: if the file is a placeholder without content.
    """
    require_content(path)
    return path.is_file()


def is_saved(path: Path) -> bool:
    """Return True if a file exists, but raise an error if the disk fails.

    Since Python 3.14, `Path.is_file` returns False if the disk fails.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def find_files_named(name: str, root: Path) -> list[Path]:
    """Find all files with a given name in a folder and its subfolders.

    Args:
        name: Complete file name, without wildcards.
        root: Folder in which the search begins.

    Returns:
        Sorted paths of the files, which begin with `root`.

    Raises:
        NotFetched: if a file with the name is a placeholder without content.
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

    Links are followed, except to a folder that contains the link. Hidden files and
    `system_folders` are left out.

    Args:
        root: Folder. If it does not exist, the walk is empty.
        folder: POSIX path of a folder below `root`, to which the walk is limited.
        enters: Function that takes the name of a folder, and returns True to enter it.

    Yields:
        The POSIX path of a file or folder relative to `root`, and its directory entry.

    Raises:
        OSError: if a folder cannot be read.
    """

    # Folders of operating systems, storage servers and archivers, which hold no data.
    system_folders = (
        "lost+found",
        "System Volume Information",
        "$RECYCLE.BIN",
        "#recycle",
        "@eaDir",
        "__MACOSX",
    )

    def visit(
        path: str, visited: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the path and the entry of each file and folder below a folder.

        Args:
            path: Path of the folder below `root`, or "" for `root`.
            visited: Device and inode number of each folder above this folder.
        """
        # a link may lead to a folder that contains the link, so stop there
        status = os.stat(root / path)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            return

        # close the folder before the walk enters its subfolders
        with os.scandir(root / path) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in system_folders:
                continue
            entry_path = f"{path}/{entry.name}" if path else entry.name
            yield entry_path, entry
            if entry.is_dir() and enters(entry.name):
                yield from visit(entry_path, visited + (identity,))

    if os.path.isdir(root / folder):
        yield from visit(folder, ())


def expand_pattern(path: str | Path) -> list[Path]:
    """List the files and folders that match a path with shell wildcards.

    Args:
        path: Path with wildcards. Names of existing folders are taken literally.

    Returns:
        Sorted matching paths, or only `path` if it exists as it is written.
    """
    path = Path(path)
    if path.exists():
        return [path]

    # escape the wildcards in the deepest existing folder
    existing_folders = [parent for parent in path.parents if parent.is_dir()]
    folder = existing_folders[0] if existing_folders else path.parent
    pattern = os.path.join(escape(str(folder)), path.relative_to(folder))
    return [Path(name) for name in sorted(glob(pattern, recursive=True))]


def matches_pattern(path: str, pattern: str) -> bool:
    """Return True if `Path.rglob` would find a path by a pattern.

    Args:
        path: POSIX path.
        pattern: Pattern for the end of the path, such as `sub-*/**/*_beta.nii.gz`.
    """
    return _compile(pattern).fullmatch(path) is not None


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of paths, as in `Path.rglob`, to a regular expression."""
    # split at `**/`, `*`, `?` and [classes] of characters, and keep these
    pieces = re.split(r"((?:\*\*/)+|\*|\?|\[!?\]?[^\]]*\])", pattern)
    expression = ""
    # Regular expressions for the wildcards in a pattern of paths.
    wildcards = {"*": "[^/]*", "?": "[^/]"}
    for piece in pieces:
        if piece[:3] == "**/":
            # Regular expression for the wildcard `**/`.
            expression += "(?:[^/]+/)*"
        elif piece in wildcards:
            expression += wildcards[piece]
        else:
            # `translate` appends \Z, the end of the text (\z since Python 3.14)
            expression += translate(piece)[: -len(r"\Z")]
    return re.compile(f"(?:.*/)?{expression}", re.DOTALL)


def describe_bad_text(text: str) -> str:
    """Return "has a control character", "is not UTF-8", or "" for an allowed text."""
    for reason in ("has a control character", "is not UTF-8"):
        if BAD_NAME_PATTERNS[reason].match(text):
            return reason
    return ""


def resolve_below(
    folder: Path, *names: str, source: str, error: type[BrainhiveError] = BrainhiveError
) -> Path:
    """Join names to the path of a folder, and refuse names that lead out of the folder.

    Args:
        folder: Folder.
        names: File names, or relative paths with slashes.
        source: Beginning of the error message, such as `archive.zip holds a file that`.
        error: Class of the error for a refused name.

    Returns:
        The path of `folder / names[0] / names[1] / ...`.

    Raises:
        BrainhiveError: if a name is empty, absolute, not a file name, or leads out of
            the folder. The class of the error is `error`.
    """
    # Largest number of characters of a refused name that an error shows.
    max_shown_characters = 80
    for name in names:
        reason = _describe_bad_name(name)
        if reason:
            quoted_name = repr(name)
            if len(quoted_name) > max_shown_characters:
                quoted_name = f"{quoted_name[:max_shown_characters]}…"
            raise error(
                f"{source} {quoted_name} {reason}",
                "use a name, or names joined by /, without ..",
            )
    return folder.joinpath(*names)


def _describe_bad_name(name: object) -> str:
    """Return the reason why a value cannot be a path below a folder, or ""."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a name"
    for reason, pattern in BAD_NAME_PATTERNS.items():
        if pattern.match(name):
            return reason
    return ""


def resolve_without_links(folder: Path, name: str, source: str) -> Path:
    """Join a name to the path of a folder, and refuse subfolders that are links.

    Args:
        folder: Folder, which may itself be a link.
        name: Relative path of a file, such as `a/b.txt`. The file may be a link.
        source: Beginning of the error message.

    Returns:
        The path `folder / name`.

    Raises:
        BrainhiveError: if the name leads out of the folder, or if a folder between
            `folder` and the file is a link.
    """
    path = resolve_below(folder, name, source=source)

    # the last parent of the relative path is `folder` itself, which may be a link
    for parent in list(path.relative_to(folder).parents)[:-1]:
        if (folder / parent).is_symlink():
            raise BrainhiveError(
                f"{folder / parent} is a link, and Brainhive does not write through "
                "links",
                "replace the link by the folder that it leads to, or remove it",
            )
    return path


def name_partial_file(final: Path) -> Path:
    """Choose the path to which this thread writes a file before it is renamed.

    Args:
        final: Path of the file after renaming.

    Returns:
        A hidden path in the same folder, unique to machine, process and thread.
    """
    owner = f"{_hash_machine()}{os.getpid():x}-{threading.get_native_id():x}"
    return final.with_name(f".{final.stem}.{owner}{PARTIAL_SUFFIX}{final.suffix}")


def _hash_machine() -> str:
    """Return eight hexadecimal digits, a hash of the name of this machine."""
    return f"{zlib.crc32(name_machine().encode()):08x}"


@cache
def name_machine() -> str:
    """Return a name of this machine, boot and container, for unique process ids."""
    # process ids start again after a boot, and in each container
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
    """Return the time in seconds since 1970 that new files in a folder get.

    A temporary file is created, because a network disk has a clock of its own.
    """
    prefix = f"{name_partial_file(folder / 'clock').name}."
    with tempfile.NamedTemporaryFile(prefix=prefix, dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove the partial files and folders that killed processes have left in a folder.

    - Files of this machine: if their process no longer runs.
    - Files of another machine or container: if older than `MAX_PARTIAL_AGE_S`.

    Repeated calls do nothing, because the function is cached.

    Args:
        folder: Folder. Its subfolders are not searched.
    """
    for path in folder.glob(f".*{PARTIAL_SUFFIX}*"):
        owner = PARTIAL_FILE_NAME.search(path.name)
        if owner is None:
            continue
        with suppress(OSError):  # another process may have removed the file
            if owner["machine"] == _hash_machine():
                is_abandoned = not is_running(int(owner["process"], 16))
            else:
                # a folder is as old as the newest file in it
                change_time = path.stat().st_mtime
                for inner_path in path.rglob("*"):
                    change_time = max(change_time, inner_path.stat().st_mtime)
                age_s = read_disk_clock(folder) - change_time
                is_abandoned = age_s > MAX_PARTIAL_AGE_S
            if is_abandoned:
                remove(path)


@contextmanager
def atomic_write(final: Path, is_lasting: bool = True) -> Iterator[Path]:
    """Let a `with` block write a temporary file or folder, and then rename it.

    An error in the block removes the temporary file, and keeps an earlier final file.

    Args:
        final: Final path of the file or folder. Missing parent folders are created.
        is_lasting: True to survive a power cut, which takes 6 ms per file.

    Yields:
        The temporary path, to which the block must write.

    Raises:
        OSError: if the disk is full. The error names the final path.
    """
    # the temporary file is in the same folder, because renaming needs the same disk
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

        # the error of a full disk names the temporary path, or no path
        if isinstance(error, BrainhiveError):
            raise
        number = system_error_number(error)
        file_name = getattr(error, "filename", None) or temporary
        # a full disk, a full quota or a limit on file sizes
        full_disk = {errno.EFBIG, errno.ENOSPC, errno.EDQUOT}
        if number in full_disk and temporary.name in str(file_name):
            raise OSError(number, os.strerror(number), str(final)) from error
        raise


def publish(temporary: Path, final: Path) -> None:
    """Force a complete file or folder to the disk, and then rename it.

    Args:
        temporary: Complete file or folder.
        final: Path after renaming, in the same folder.

    Raises:
        OSError: if the disk is full or fails. Nothing is then renamed.
    """
    # renaming alone could leave an empty file after a power cut
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
        folder: Folder of the new files, which need not exist.
        size: Size of the new files in bytes.
        purpose: Beginning of the error message, a description of the files.
        hint: Advice in the error message.

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
