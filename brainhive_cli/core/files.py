"""Files: where they lie below home; opened only if plain, named below their folder,
replaced when complete.

Home is the folder of a user's files; paths below it are stored relative to it, so that
it can be moved. A file may be anyone's: a pipe would be waited on for ever, a device
read without end, a link may lead anywhere.
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
MAX_TEXT_BYTES = 1 << 28
"""Bytes of the largest table or list that is read whole; NSD's has 73,000 lines in 10
MB.
"""
TRACKER_PREFIXES = ("tensorboard", "wandb", "swan", "run-")
"""First letters of what trackers keep in a run's own folder, links too, and which is no
part of the run.
"""

SYSTEM_FOLDERS = ("lost+found", "System Volume Information", "$RECYCLE.BIN")
"""Folders at the top of a disk which its user may not read, and which hold no data."""
PARTIAL_SUFFIX = ".part"
"""In the name of a file that is being written."""
PARTIAL_FILE_NAME = re.compile(
    r"\.(?P<machine>[0-9a-f]{8})(?P<process>[0-9a-f]+)-[0-9a-f]+\.part", re.ASCII
)
"""Writer of such a file, in its name."""
MAX_PARTIAL_AGE_S = 86_400
"""Age at which a file that another machine was writing counts as left behind."""
NO_SPACE_ERRORS = {errno.EFBIG, errno.ENOSPC, errno.EDQUOT}
"""Errors of a disk, quota or limit that has no room for what is written."""
MAX_SHOWN_CHARACTERS = 80
"""Of a refused name, in its error."""
MAX_POINTER_BYTES = 1024
"""Size below which a file may be a pointer (specification of Git LFS)."""
FETCH_COMMANDS = {
    rb"version https://git-lfs": "cd {} && git lfs pull",
    rb"[\w./-]*/annex/objects/": "datalad get {}, or: cd {} && git annex get .",
}
"""What fetches the content of a folder, by how files begin that stand for it, or what
links lead to.
"""
DEAD_LINK_HINT = "copy what it leads to, or remove the dead links in {}"
BAD_NAME_PATTERNS = {
    "is empty": re.compile(r"\A\Z"),
    "is an absolute path": re.compile(r"[/\\]|[A-Za-z]:[/\\]"),
    "leads out of its folder": re.compile(r"(?:.*[/\\])?\.\.(?:[/\\]|\Z)", re.DOTALL),
    "has an empty part": re.compile(r"(?:.*[/\\])?\.?(?:[/\\]|\Z)", re.DOTALL),
    "has a control character": re.compile(r".*[\x00-\x1f\x7f-\x9f]", re.DOTALL),
    "is not UTF-8": re.compile(r".*[\ud800-\udfff]", re.DOTALL),
}
"""Why a word is no path below a folder; a backslash counts as a slash, as on
Windows.
"""


def home_folder() -> Path:
    """Return home: BRAINHIVE_HOME, or the working directory."""
    return Path(os.environ.get("BRAINHIVE_HOME", "."))


def shipped_folder(name: str) -> Path:
    """Return a folder that comes with Brainhive: in the wheel, or next to the package
    in a checkout.
    """
    package = Path(__file__).parents[1]
    return next(
        path for path in (package / name, package.parent / name) if path.is_dir()
    )


def locate(path: str | Path) -> Path:
    """Resolve a path of a user or a recipe: as it is given, or else below home."""
    path_as_given = Path(path)
    # os.path: to a Path, a name that is too long is an error
    resolve_below = home_folder() / path_as_given
    if not os.path.exists(path_as_given) and os.path.exists(resolve_below):
        return resolve_below
    return path_as_given


def hint_at_folder(root: Path, key: str, chosen: str, content: str) -> str:
    """Say how a user's folder is read: by a link where the default is meant, which all
    commands follow.

    Args:
        root: Where it was looked for.
        key: Of a recipe, which names another folder.
        chosen: What the key says; empty for the default.
        content: Of the folder, in words.
    """
    if chosen:
        return f"{key}=FOLDER  # {content}"
    above = shlex.quote(str(root.parent))
    here = shlex.quote(str(root))
    return f"mkdir -p {above} && ln -s /FOLDER {here}  # {content}"


def locate_stored(path: str) -> str:
    """Resolve a stored path: below home if it exists there, else as it was given."""
    resolve_below = home_folder() / path
    return str(resolve_below) if resolve_below.exists() else path


def make_portable(value: Any) -> Any:
    """Write paths below home relative to it, in a value as JSON has them; all else
    stays as it was given.
    """
    if isinstance(value, Mapping):
        return {
            make_portable(key): make_portable(inner) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [make_portable(inner) for inner in value]
    if isinstance(value, str | Path) and os.path.isabs(value):
        # home as it was named, or as its links lead
        path = os.path.normpath(value)
        for home in (os.path.abspath(home_folder()), os.path.realpath(home_folder())):
            if path.startswith(f"{home.rstrip(os.sep)}{os.sep}"):
                return Path(os.path.relpath(path, home)).as_posix()
    return value


class UnfitFile(BrainhiveError, OSError):
    """A file that is not opened, since it is no plain file, or too large."""

    def __init__(self, number: int, problem: str, path: AnyPath, way: str) -> None:
        OSError.__init__(self, number, problem, os.fspath(path))
        self.message = f"{self.filename} is {problem}"
        self.hint = way

    def __reduce__(
        self,
    ) -> tuple[type["UnfitFile"], tuple[int | None, str | None, str, str]]:
        """Pickle it, as processes that decode pictures do with their errors."""
        return type(self), (self.errno, self.strerror, self.filename, self.hint)


class NotFetched(MissingData):
    """Files whose content is not here, as DataLad and Git LFS leave them."""


def find_unfetched(paths: Iterable[AnyPath]) -> NotFetched | None:
    """Count the files whose content is not here; None if there are none.

    They are links to nowhere, and pointers of git-annex and Git LFS.
    """
    ways = {os.fspath(path): _find_way_to_content(path) for path in paths}
    absent = [path for path, way in ways.items() if way]
    if not absent:
        return None
    folder = shlex.quote(os.path.commonpath(map(os.path.dirname, absent)) or ".")
    return NotFetched(
        f"{absent[0]} stands for content that was not fetched; {len(absent)} of "
        f"{len(ways)} files do",
        ways[absent[0]].replace("{}", folder),
    )


def require_content(path: AnyPath) -> None:
    """Refuse a file whose content is not here; the files next to it are counted, too.

    Raises:
        NotFetched: if it is a link to nowhere, or a pointer of git-annex or Git LFS.
    """
    if error := find_unfetched([path]):
        files = [file for file in Path(path).parent.iterdir() if not file.is_dir()]
        raise find_unfetched([path, *sorted(files)]) or error


def _find_way_to_content(path: AnyPath) -> str:
    """Say what fetches the content of a folder, where a file stands for it; empty where
    the content is here, or there is no such file.
    """
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        if not os.path.islink(path):
            return ""
        start = os.fsencode(os.readlink(path))
        way = DEAD_LINK_HINT
    else:
        if not stat.S_ISREG(about.st_mode) or about.st_size >= MAX_POINTER_BYTES:
            return ""
        start = Path(path).read_bytes()
        way = ""
    return next(
        (FETCH_COMMANDS[each] for each in FETCH_COMMANDS if re.match(each, start)), way
    )


def open_regular(path: AnyPath, max_bytes: int | None = None) -> BufferedReader:
    """Open a plain file for reading; a link to one is as good, as those of data sets
    and the hub's cache are.

    Args:
        path: The file.
        max_bytes: The largest that is opened; None for any.

    Raises:
        UnfitFile: if it is no plain file, or too large.
        OSError: if there is none, or the system refuses.
    """
    return open(open_descriptor(path, os.O_RDONLY, max_bytes=max_bytes), "rb")


def read_regular(path: AnyPath, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read a plain file whole; see `open_regular`."""
    with open_regular(path, max_bytes) as file:
        return file.read(max_bytes)


def read_lines(
    path: AnyPath, max_bytes: int = MAX_TEXT_BYTES, errors: str = "strict"
) -> list[str]:
    """Read the lines of a text in UTF-8; see `open_regular`.

    Lines end where files have their ends. `str.splitlines` also splits at U+2028, VT
    and the like, which captions and names hold.
    """
    text = read_regular(path, max_bytes).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def open_descriptor(
    path: AnyPath, flags: int, follow: bool = True, max_bytes: int | None = None
) -> int:
    """Open the descriptor of a plain file, or make one; see `open_regular`."""
    # a pipe is opened without waiting, and refused by what it is
    wait = os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        number = os.open(path, flags | wait, 0o666)
    except FileNotFoundError:
        require_content(path)
        raise
    try:
        require_regular(path, max_bytes, os.fstat(number))
    except BaseException:
        os.close(number)
        raise
    return number


def open_unless_link(path: str, flags: int) -> int:
    """Open a file, as an `opener` of `open`, unless its name is a link, which may lead
    anywhere.
    """
    return open_descriptor(path, flags, follow=False)


def require_regular(
    path: AnyPath, max_bytes: int | None = None, about: os.stat_result | None = None
) -> None:
    """Refuse, as `open_regular` does, a path that a library is to open; `about` is its
    state.
    """
    if about is None or about.st_size < MAX_POINTER_BYTES:
        require_content(path)
    about = about or os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    if not stat.S_ISREG(about.st_mode):
        raise UnfitFile(
            errno.EINVAL,
            "a pipe, socket or device, and no plain file",
            path,
            "put a file there",
        )
    if max_bytes is not None and about.st_size > max_bytes:
        raise UnfitFile(
            errno.EFBIG,
            f"too large: {about.st_size:,} bytes, at most {max_bytes:,} are read",
            path,
            "check that it is the file that is meant",
        )


def is_file(path: Path) -> bool:
    """Whether there is a file that may be absent.

    Raises:
        NotFetched: for a file whose content is not here.
    """
    require_content(path)
    return path.is_file()


def find_files_named(name: str, root: Path) -> list[Path]:
    """Find the files of a name at any depth, in order; see `is_file`."""
    paths = (
        root / path
        for path, entry in walk(root)
        if entry.name == name and not entry.is_dir()
    )
    return sorted(filter(is_file, paths))


def walk(
    root: Path, folder: str = "", enters: Callable[[str], object] = lambda name: True
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Walk through the files and folders below a folder, each folder's names in order.

    Links are followed, as folders of concepts are often links into a larger data set,
    but not to a folder that the link itself lies in. Left out are hidden names, among
    them the `._*` that macOS adds to files, and folders of the system on a disk, as
    `lost+found`.

    Args:
        root: A folder; where it is absent, nothing is listed.
        folder: One below it, POSIX; only what lies there is listed.
        enters: Whether to go into a folder of this name; each is listed in any case.

    Yields:
        A POSIX path below `root`, and its entry, which knows without a further look
        what it is.

    Raises:
        OSError: if a folder cannot be read.
    """

    def visit(
        path: str, above: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        # a link to a folder that the walk is in leads round in circles
        about = os.stat(root / path)
        identity = about.st_dev, about.st_ino
        if identity in above:
            return

        # names in order; the folder is closed again before the walk goes deeper
        with os.scandir(root / path) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            inner = f"{path}/{entry.name}" if path else entry.name
            yield inner, entry
            if entry.is_dir() and enters(entry.name):
                yield from visit(inner, (*above, identity))

    if os.path.isdir(root / folder):
        yield from visit(folder, ())


WILDCARDS = {"*": "[^/]*", "?": "[^/]"}
ANY_FOLDERS = "(?:[^/]+/)*"
"""Regular expressions for `*`, `?` and `**/` in a pattern of paths."""


def expand_pattern(path: str | Path) -> list[Path]:
    """List what a path with the wildcards of a shell stands for: itself if it is there,
    [brackets] and all.

    Wildcards begin behind the last folder that is there: the home of a study may be
    called `study [pilot]`.
    """
    path = Path(path)
    if path.exists():
        return [path]
    folder = next((parent for parent in path.parents if parent.is_dir()), path.parent)
    pattern = os.path.join(escape(str(folder)), path.relative_to(folder))
    return [Path(name) for name in sorted(glob(pattern, recursive=True))]


def matches_pattern(path: str, pattern: str) -> bool:
    """Whether a POSIX path ends as a pattern says, as `Path.rglob` finds it:
    `sub-*/**/*_beta.nii.gz`.
    """
    return _compile(pattern).fullmatch(path) is not None


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Make a pattern a regular expression, piece by piece."""
    # pieces: `**/`, `*`, `?`, a [class], and text in between
    pieces = re.split(r"((?:\*\*/)+|\*|\?|\[!?\]?[^\]]*\])", pattern)
    ending = ""
    for piece in pieces:
        # `translate` ends a piece with \Z, the end of the text, which comes later
        ending += (
            ANY_FOLDERS
            if piece[:3] == "**/"
            else WILDCARDS.get(piece, translate(piece).removesuffix(r"\Z"))
        )
    return re.compile(f"(?:.*/)?{ending}", re.DOTALL)


def describe_bad_text(text: str) -> str:
    """Say why no recipe, name or script may hold a text; empty where one may."""
    reasons = ("has a control character", "is not UTF-8")
    return next(
        (reason for reason in reasons if BAD_NAME_PATTERNS[reason].match(text)), ""
    )


def resolve_below(
    folder: Path, *names: str, source: str, error: type[BrainhiveError] = BrainhiveError
) -> Path:
    """Return the path of `names` below a folder.

    Args:
        folder: A folder that is trusted.
        names: Each a file name, or several with slashes in between, as stimulus ids
            are.
        source: Where the names come from, in words for the error.
        error: What is raised.

    Raises:
        BrainhiveError: for a name that is empty, absolute, leads out of the folder, or
            that no file can have.
    """
    for name in names:
        # why no file has this name
        if not isinstance(name, str):  # as attributes of files may be
            reason = f"is a {type(name).__name__}, not a name"
        else:
            reason = next(
                (
                    reason
                    for reason, pattern in BAD_NAME_PATTERNS.items()
                    if pattern.match(name)
                ),
                "",
            )
        if reason:
            shown = repr(name)
            shown = (
                shown
                if len(shown) <= MAX_SHOWN_CHARACTERS
                else f"{shown[:MAX_SHOWN_CHARACTERS]}…"
            )
            raise error(
                f"{source} {shown} {reason}",
                "use a name, or names with / in between, without ..",
            )
    return folder.joinpath(*names)


def resolve_without_links(folder: Path, name: str, source: str) -> Path:
    """Return the path of a file below a folder, as `below`, in which no link leads to
    another folder.

    Raises:
        BrainhiveError: naming a folder on the way that is a link.
    """
    path = resolve_below(folder, name, source=source)
    # the last parent is `folder`, which may be a link
    for above in list(path.relative_to(folder).parents)[:-1]:
        if (folder / above).is_symlink():
            raise BrainhiveError(
                f"{folder / above} is a link, through which nothing is written",
                "put the folder that it leads to in its place, or remove it",
            )
    return path


def name_partial_file(final: Path) -> Path:
    """Name the file that this thread writes before it gets its final name; no other
    process has the same.
    """
    owner = f"{_machine_digits()}{os.getpid():x}-{threading.get_native_id():x}"
    return final.with_name(f".{final.stem}.{owner}{PARTIAL_SUFFIX}{final.suffix}")


def _machine_digits() -> str:
    """Write the name of this machine in the eight digits that names of files have."""
    return f"{zlib.crc32(name_machine().encode()):08x}"


@cache
def name_machine() -> str:
    """Name this machine until it boots again, and the namespace in which its processes
    have their numbers.

    Containers may share both the name and the boot of their machine; a process of one
    is unknown in another.
    """
    boot = namespace = "-"
    with suppress(OSError):  # macOS has neither
        boot = (
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        )
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    return f"{socket.gethostname()} {boot}:{namespace}"


def is_running(process: int) -> bool:
    """Whether a process of this machine and namespace lives."""
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        pass
    return True


def read_disk_clock(folder: Path) -> float:
    """Tell the time by the clock that stamps files in a folder, in seconds since
    1970.
    """
    with tempfile.NamedTemporaryFile(
        prefix=f"{name_partial_file(folder / 'clock').name}.", dir=folder
    ) as probe:
        return os.fstat(probe.fileno()).st_mtime


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove, once for each folder, what processes of this machine were writing there
    when they were killed.

    What another machine or container left goes a day after anything was written in it.
    """
    for path in folder.glob(f".*{PARTIAL_SUFFIX}*"):
        owner = PARTIAL_FILE_NAME.search(path.name)
        if owner is None:
            continue
        with suppress(OSError):  # gone meanwhile
            # processes of another machine cannot be asked, so the age decides
            if owner["machine"] != _machine_digits():
                written_s = max(
                    part.stat().st_mtime for part in (path, *path.rglob("*"))
                )
                is_left = read_disk_clock(folder) - written_s > MAX_PARTIAL_AGE_S
            else:
                is_left = not is_running(int(owner["process"], 16))
            if is_left:
                remove(path)


@contextmanager
def atomic_write(final: Path, is_lasting: bool = True) -> Iterator[Path]:
    """Give a path at which a file or folder is written; it gets its final name when the
    block ends.

    An error or Ctrl-C removes what was written, and leaves what had the final name as
    it was.

    Args:
        final: The file or folder; its own folder is created.
        is_lasting: Whether the content must survive a power cut; that takes 6 ms a
            file, minutes for the pictures of a data set.
    """
    # a hidden name beside the final one: a rename within a folder is atomic
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final.parent)
    part = name_partial_file(final)
    remove(part)  # a link would lead the writer elsewhere
    try:
        yield part
        if is_lasting:
            publish(part, final)
        else:
            os.replace(part, final)
    except BaseException as error:
        remove(part)

        # users know the final name, not the hidden one
        number = (
            None if isinstance(error, BrainhiveError) else system_error_number(error)
        )
        # libraries name no file
        is_part = part.name in str(getattr(error, "filename", None) or part)
        if number in NO_SPACE_ERRORS and is_part:
            raise OSError(number, os.strerror(number), str(final)) from error
        raise


def publish(part: Path, final: Path) -> None:
    """Give a complete file, or a folder of files, its final name; its bytes are on the
    disk before.

    Else a power cut could leave the name, and nothing in it.

    Raises:
        OSError: if the disk is full or fails; nothing is renamed then.
    """
    for path in part.rglob("*") if part.is_dir() else (part,):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file)
    os.replace(part, final)


def remove(path: Path) -> None:
    """Remove whatever lies where a file or folder is to be written: a link itself, not
    what it leads to.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_free_space(folder: Path, size: int, what: str, way: str) -> int:
    """Require free space for what is about to be written, before its first byte; return
    what is free.

    Args:
        folder: Where it is written; it need not exist.
        size: Its bytes.
        what: Begins the message: what needs them.
        way: What to do where they are not free.

    Raises:
        BrainhiveError: if the disk has less.
    """
    # the nearest existing folder tells which disk it is
    disk = next(
        path
        for path in (folder.absolute(), *folder.absolute().parents)
        if path.is_dir()
    )
    if size > (free := shutil.disk_usage(disk).free):
        raise BrainhiveError(
            f"{what} needs {filesize.decimal(size)}; {filesize.decimal(free)} are "
            f"free in {disk}",
            way,
        )
    return free
