"""Folders that references name (hub:, demo: or a path), and runs shared on the hub.

The hub is the Hugging Face Hub. A reference is a text in a recipe that names a folder.
"""

import fnmatch
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, StrictInt

from brainhive_cli.core.base import BrainhiveError, MissingData, console, first_line
from brainhive_cli.core.files import documents
from brainhive_cli.core.files.files import (
    atomic_write,
    find_unfetched,
    home_folder,
    locate,
    make_portable,
    read_regular,
    require_free_space,
    resolve_below,
)
from brainhive_cli.core.files.inputs import Input
from brainhive_cli.core.files.network import (
    BUSY_STATUSES,
    SECRET_ADDRESS,
    call_in_thread,
    call_with_retries,
    find_bad_proxy,
)

DEMO_WEIGHTS = Path(__file__).parents[2] / "demo/weights"
"""Folder of the demo's weights, to which `demo:` references lead."""
MIN_KEPT_DIGEST_BYTES = 64_000_000
"""Size from which the digest of a file is stored, because computing it is slow."""
HUB_PREFIX = "hub:"
"""Prefix of a reference to a repository on the Hugging Face hub."""
DOWNLOAD_ELSEWHERE = "on a machine with a network: "
"""Beginning of a hint with a download command, if the hub cannot be reached."""
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables with a token of the hub. The hub's client prefers them to a
stored login, in this order.
"""
WRONG_SERVER_ERRORS = (LookupError, TypeError, AssertionError, RecursionError)
"""Errors of the hub's client if another server answers, such as a login page."""
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pth", "*.pt")
"""Patterns of weight files, in the order of preference."""
RUN_FORMAT = 1
"""Version of the layout of a run's repository, stored in its manifest."""
MANIFEST = "brainhive.json"
"""File that describes a run's repository. Repositories of other projects lack it."""
MODEL_CARD = "README.md"
"""Model card. It has no stored digest, because its owner may edit it."""
DOCUMENT_FILES = (MANIFEST, documents.SHA256SUMS, "recipe.yaml", "metrics.json")
"""Files that describe a run. Every shared run has them."""
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "learned.safetensors",
)
"""Files of a brain model, in the layouts of BrainHiVE and of Brainhive."""
PRIOR_FILES = (
    "learned.safetensors",
    "config.json",
    "model.safetensors",
    "fusion_encoder/config.json",
    "fusion_encoder/diffusion_pytorch_model.safetensors",
    "proj/config.json",
    "proj/diffusion_pytorch_model.safetensors",
    "attn_adapter/config.json",
    "attn_adapter/diffusion_pytorch_model.safetensors",
)
"""Files of a prior's folder, for all kinds of prior that can be trained."""
RUN_FILES = {
    "train-align": (
        *DOCUMENT_FILES,
        "embeddings.json",
        *[f"cells/**/model/{name}" for name in MODEL_FILES],
    ),
    "train-prior": DOCUMENT_FILES + PRIOR_FILES,
}
"""Patterns of the files that a run shares on the hub, by the command of the run."""
CHANGED_HINT = (
    "use another revision, or tell the owner; to fetch the files again: hf cache rm "
    "model/OWNER/NAME"
)
"""Hint for a repository whose files differ from the pushed files."""


class Unreachable(MissingData):
    """The error of a repository that is not in the cache, without a working hub."""


class NoFiles(MissingData):
    """The error of a repository that has none of the requested files."""


class Repository(NamedTuple):
    """Repository of the hub, with the folder and revision that a reference names.

    Attributes:
        type: Type of the repository.
        name: Name `owner/name`.
        subfolder: Folder in the repository, or "".
        revision: Branch, tag or commit, or None for the main branch.
    """

    type: Literal["model", "dataset"]
    name: str
    subfolder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, reference: str, owner: str = "") -> Self:
        """Read a reference `hub:[datasets/]owner/name[/subfolder][@revision]`.

        Args:
            reference: Reference, which may lack its prefix `hub:`.
            owner: Owner of the repository if the reference is only a name.

        Raises:
            MissingData: if the subfolder or revision would lead out of the hub's cache.
        """
        location = reference.removeprefix(HUB_PREFIX)
        path, _, revision = location.partition("@")
        names = path.rstrip("/").split("/")
        is_dataset = names[0] == "datasets"
        if is_dataset:
            names = names[1:]
        if len(names) == 1 and owner:
            names = [owner] + names

        # the subfolder and the revision become paths in the cache
        subfolder = "/".join(names[2:])
        cache_paths = filter(None, [subfolder, revision])
        resolve_below(
            Path(), *cache_paths, source=f"hub:{location} names", error=MissingData
        )
        repository_type: Literal["model", "dataset"] = "model"
        if is_dataset:
            repository_type = "dataset"
        return cls(repository_type, "/".join(names[:2]), subfolder, revision or None)

    def prefix(self, patterns: Sequence[str]) -> list[str]:
        """Put the subfolder before each pattern."""
        return [f"{self.subfolder}/{pattern}".lstrip("/") for pattern in patterns]

    def download_line(self, patterns: Sequence[str] = ()) -> str:
        """Write the shell command that downloads files of the repository.

        Args:
            patterns: Names or patterns of the files. An empty list or `**` alone stands
                for all files.

        Returns:
            Command line, such as `hf download owner/name config.json`.
        """
        distinct_patterns = dict.fromkeys(patterns)
        distinct_patterns.pop("**", None)

        # `hf download` takes names as arguments, and a pattern as the value of a flag
        arguments = ["hf", "download", self.name]
        has_pattern = any(set("*?[") & set(pattern) for pattern in distinct_patterns)
        for pattern in distinct_patterns:
            arguments += ["--include", pattern] if has_pattern else [pattern]
        if self.type == "dataset":
            arguments += ["--repo-type", "dataset"]
        if self.revision:
            arguments.append(f"--revision={self.revision}")
        return shlex.join(arguments)

    def snapshot(self, patterns: Sequence[str] = ("**",), **options: Any) -> Any:
        """Download files with `huggingface_hub.snapshot_download`.

        Args:
            patterns: Names or patterns of the files in the repository.
            options: Further arguments of `snapshot_download`.

        Returns:
            The result of `snapshot_download`: the folder, or a list of files for a dry
            run.

        Raises:
            MissingData: if the hub cannot be reached, is busy or refuses the download,
                or if a file does not match its SHA-256.
        """
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.utils import tqdm

        class TransientBar(tqdm):
            """A progress bar that disappears at the end."""

            def __init__(self, *args: Any, **options: Any) -> None:
                # None shows the bar only in a terminal
                options = {"disable": None} | options | {"leave": False}
                super().__init__(*args, **options)  # type: ignore[no-untyped-call]

        if constants.HF_HUB_OFFLINE:
            # huggingface_hub 1.33 asks the hub all the same if the revision is a commit
            options["local_files_only"] = True
        is_local = options.get("local_files_only", False)
        cache = Path(
            options.get("cache_dir") or constants.HF_HUB_CACHE,
            f"{self.type}s--{self.name.replace('/', '--')}",
        )
        load = partial(
            snapshot_download,
            self.name,
            repo_type=self.type,
            revision=self.revision,
            allow_patterns=list(patterns),
            **options,
        )

        def download() -> Any:
            if not is_local and not options.get("dry_run"):
                with silence_hub():
                    files: Any = load(dry_run=True)
                require_free_space(
                    Path(options.get("local_dir") or cache),
                    _count_bytes(files),
                    self.name,
                    "free some space, or set HF_HOME to a folder on another disk",
                )
            return load(tqdm_class=TransientBar)

        # Pattern of the large files in the cache of a repository. The name is the
        # SHA-256 that the hub states.
        large_files = f"blobs/{'[0-9a-f]' * 64}"
        earlier_files = set(cache.glob(large_files))
        try:
            # the client repeats most requests itself, but not the first one
            with console.hide_progress():
                result = call_with_retries(
                    partial(call_in_thread, download), _read_response
                )
        except Exception as error:
            bad_proxy = find_bad_proxy(error)
            if bad_proxy is not None:
                # files in the cache do not need the proxy
                if not is_local and not options.get("local_dir"):
                    with suppress(MissingData):
                        return self.snapshot(
                            patterns, **{**options, "local_files_only": True}
                        )
                raise bad_proxy from error

            # the disk of the user's own folder is full, for example
            if isinstance(error, OSError) and error.errno and options.get("local_dir"):
                error.filename = error.filename or str(options["local_dir"])
                raise
            if isinstance(error, _list_client_errors()):
                raise _describe_failure(self, error, patterns) from error
            raise

        # the hub's client compares only the sizes of most files
        for file in set(cache.glob(large_files)) - earlier_files:
            if documents.digest_file(file) != file.name:
                file.unlink()
                raise MissingData(
                    f"a file of {self.name} does not match its SHA-256 on the hub",
                    "run the command again to fetch it again",
                )
        return result

    def list_digests(self) -> dict[str, str]:
        """List the digests (hashes of the content) of the files.

        Returns:
            Digests by file name: `sha256:HASH` of a large file, or `git:BLOB_ID`.

        Raises:
            MissingData: if the hub does not list the files.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        def read_tree() -> list[Any]:
            return list(
                HfApi().list_repo_tree(
                    self.name,
                    recursive=True,
                    revision=self.revision,
                    repo_type=self.type,
                )
            )

        try:
            tree = call_with_retries(read_tree, _read_response)
        except _list_client_errors() as error:
            raise _describe_failure(self, error) from error
        digests = {}
        for file in tree:
            if isinstance(file, RepoFile):
                digests[file.path] = f"git:{file.blob_id}"
                if file.lfs:  # a large file
                    digests[file.path] = f"sha256:{file.lfs.sha256}"
        return digests


def folder(
    reference: str,
    *,
    allow: Sequence[str] | None = None,
    owner: str = "",
    local: bool = False,
) -> Path:
    """Return the local folder that a reference names, after a download if necessary.

    Args:
        reference: Path of a folder, or one of

            - `hub:owner/name[/subfolder][@revision]`, a repository of a model;
            - `hub:datasets/owner/name[/subfolder][@revision]`, of a data set;
            - `demo:name`, weights that are installed with Brainhive.
        allow: Patterns of the files to download below the subfolder, or None for all.
        owner: Owner of the repository if the reference is only `hub:name`.
        local: True to use only files in the hub's cache.

    Raises:
        MissingData: if the folder does not exist, the hub cannot be reached, or files
            are placeholders of Git LFS or DataLad.
    """
    # a repository of the hub
    if reference.startswith(HUB_PREFIX):
        repository = Repository.parse(reference, owner)
        patterns = repository.prefix(allow or ["**"])
        root = Path(repository.snapshot(patterns, local_files_only=local))
        if not root.is_dir():
            raise NoFiles(
                f"{repository.name} has no {' or '.join(patterns)}",
                "check the name and the revision",
            )
        path = root / repository.subfolder
        if not path.is_dir():
            names = ", ".join(sorted(path.name for path in root.iterdir()))
            raise MissingData(
                f"{repository.name} has no folder {repository.subfolder!r}",
                f"it has: {names}",
            )
        return path

    # a local folder
    prefix, has_prefix, name = reference.partition("demo:")
    if has_prefix and not prefix:
        path = resolve_below(
            DEMO_WEIGHTS, name, source="the reference demo:", error=MissingData
        )
    else:
        path = locate(reference)
    if not reference or not path.is_dir():
        raise MissingData(
            f"no folder {reference!r}", "give a folder that exists, or hub:owner/name"
        )

    # `git clone` without Git LFS leaves placeholders instead of the files
    files: list[Path] = []
    for pattern in allow or ["**/*"]:
        files += path.glob(pattern)
    unfetched = find_unfetched(files)
    if unfetched is not None:
        raise unfetched
    return path


@contextmanager
def silence_hub() -> Iterator[None]:
    """Hide the hub client's progress bars and warnings inside a `with` block."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity = logging.get_verbosity()
    had_bars = not are_progress_bars_disabled()
    logging.set_verbosity(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()
        logging.set_verbosity(verbosity)


def find_token_variable() -> str:
    """Return the environment variable whose token the hub's client uses, or ""."""
    for variable in TOKEN_VARIABLES:
        if os.environ.get(variable, "").strip():
            return variable
    return ""


def describe_token() -> str:
    """Describe where the token of the hub comes from, without the token."""
    from huggingface_hub import get_token

    source = find_token_variable() or "hf auth login"
    return source if get_token() else "none"


def advise_login(kind_of_token: str = "a valid token") -> str:
    """Say how to give the hub another token.

    A login has no effect while a variable holds a token, so the advice names it then.

    Args:
        kind_of_token: Token that is needed, in words.
    """
    variable = find_token_variable()
    if variable:
        return (
            f"set {variable} to {kind_of_token}, or run: unset {variable} && hf auth "
            f"login ({variable} wins over a login)"
        )
    return f"set HF_TOKEN to {kind_of_token}, or run: hf auth login"


def find_weights(
    reference: str, files: Sequence[str], weights: Sequence[str] = WEIGHT_PATTERNS
) -> list[Path]:
    """List the weight files of a model that are on this machine, without a download.

    Args:
        reference: Reference, as in `folder`.
        files: Names or patterns of other files that are needed, such as a config.
        weights: Patterns of weight files, in the order of preference.

    Returns:
        The files of the first pattern that matches. Empty if no pattern matches, or if
        a file of `files` is missing.
    """
    for pattern in weights:
        with suppress(MissingData):
            path = folder(reference, allow=list(files) + [pattern], local=True)
            weight_files = list(path.glob(pattern))
            if weight_files and all(any(path.glob(name)) for name in files):
                return weight_files
    return []


def find_input(
    reference: str,
    files: Sequence[str] = (),
    weights: Sequence[str] = WEIGHT_PATTERNS,
    optional_patterns: Sequence[str] = (),
) -> Input:
    """Find weights on this machine or on the hub, without downloading them.

    Args:
        reference: Reference, as in `folder`.
        files: Names of other files that are needed, such as a config.
        weights: Patterns of weight files, in the order of preference.
        optional_patterns: Patterns of further files for the download command.

    Returns:
        The weights as an input of a command, with the size and command line of a
        missing download, or with an error if they cannot be found.
    """
    # the name ends with a single weight file, otherwise with the weights' folder
    location = reference.removeprefix(HUB_PREFIX)
    is_single_file = len(weights) == 1 and "*" not in weights[0]
    weight_name = weights[0] if is_single_file else weights[0].rpartition("/")[0]
    name = f"{location}/{weight_name}".rstrip("/")
    if find_weights(reference, files, weights):
        return Input(name)

    # a folder of the user
    if not reference.startswith(HUB_PREFIX):
        path = locate(reference)
        missing = [file for file in files if not any(path.glob(file))]
        if missing:
            message = f"{reference} has no {missing[0]}"
            return Input(name, error=MissingData(message, "download it again"))
        weights_path = path / Path(weights[0]).parent
        message = f"{reference} has no {weights[0]}{describe_weights(weights_path)}"
        hint = "generator.variant=fp16" if ".fp16." in message else "download it again"
        return Input(name, error=MissingData(message, hint))

    # ask the hub which files a download would fetch
    try:
        repository = Repository.parse(reference)
        file_names = repository.prefix(files)
        weight_patterns = repository.prefix(weights)
        download_names = file_names + repository.prefix(optional_patterns)
        with silence_hub():
            hub_files = repository.snapshot(file_names + weight_patterns, dry_run=True)
    except Unreachable as error:
        line = repository.download_line([*download_names, weight_patterns[0]])
        hint = f"{DOWNLOAD_ELSEWHERE}{line}"
        return Input(name, error=Unreachable(error.message, hint))
    except BrainhiveError as error:
        return Input(name, error=error)

    # the first pattern of weights that matches
    hub_names = [file.filename for file in hub_files]
    for pattern in weight_patterns:
        weight_names = fnmatch.filter(hub_names, pattern)
        if weight_names:
            break
    else:
        message = f"{repository.name} has no {weight_patterns[0]}"
        hint = "check the name and variant"
        return Input(name, error=MissingData(message, hint))

    # the size of the needed files that are not cached
    needed_names = file_names + weight_names
    needed_files = (file for file in hub_files if file.filename in needed_names)
    size = _count_bytes(needed_files)
    line = repository.download_line(download_names + weight_names)
    return Input(name, size, line=line if size else "")


def describe_weights(folder: Path) -> str:
    """Write the names of a folder's weight files, for the error of an absent file."""
    names = []
    for pattern in WEIGHT_PATTERNS:
        names += sorted(file.name for file in folder.glob(pattern))
    # Largest number of weight files that an error names.
    max_names = 5
    return f", only {', '.join(names[:max_names])}" if names else ""


def _list_client_errors() -> tuple[type[Exception], ...]:
    """List the classes of errors that the hub's client raises for a request."""
    return WRONG_SERVER_ERRORS + (ValueError, OSError, http_error_class())


def _read_response(error: BaseException | None) -> tuple[int, Any]:
    """Read the HTTP status and headers from an error or its cause, else 0 and {}."""
    from huggingface_hub.errors import HfHubHTTPError

    if error is None:
        return 0, {}
    if not isinstance(error, HfHubHTTPError):
        return _read_response(error.__cause__)
    return error.response.status_code, error.response.headers


def _describe_failure(
    repository: Repository, error: Exception, patterns: Sequence[str] = ()
) -> MissingData:
    """Describe why a request to the hub failed, as an error with a hint.

    Args:
        repository: Repository.
        error: Error of the hub's client.
        patterns: Names or patterns of the requested files.
    """
    from huggingface_hub import errors

    name = repository.name

    # another server answered instead of the hub, or the cache is damaged
    if isinstance(error, (JSONDecodeError,) + WRONG_SERVER_ERRORS):
        return MissingData(
            f"cannot fetch {name}: the answer is not from the hub: {first_line(error)}",
            "check the network, its proxy and HF_ENDPOINT",
        )
    is_name_error = isinstance(error, errors.HFValidationError)
    if isinstance(error, ValueError) and not is_name_error:
        return MissingData(
            f"{name} is damaged in the hub's cache: {first_line(error)}",
            f"hf cache rm {repository.type}/{name}, and fetch it again",
        )

    # the hub refuses the terms, the name or the revision
    is_not_cached = isinstance(
        error, errors.DryRunError | errors.LocalEntryNotFoundError
    )
    response_error = error.__cause__ if is_not_cached else error
    if isinstance(response_error, errors.GatedRepoError):
        prefix = "datasets/" if repository.type == "dataset" else ""
        return MissingData(
            f"{name} requires that you accept its terms",
            f"accept them at https://huggingface.co/{prefix}{name}, then "
            f"{advise_login()}",
        )
    if isinstance(response_error, errors.RepositoryNotFoundError):
        return MissingData(
            f"no such repository on the hub: {name}",
            f"check the name; if it is private, or the token has expired, "
            f"{advise_login()}",
        )
    if isinstance(response_error, errors.RevisionNotFoundError):
        return MissingData(
            f"{name} has no such revision", "check the revision after the @"
        )

    # the hub refuses a bad token even for public files
    status, _ = _read_response(error)
    if status == 401:
        variable = find_token_variable()
        removal = f"unset {variable}" if variable else "hf auth logout"
        return MissingData(
            f"cannot fetch {name}: the hub does not accept the token (401)",
            f"{advise_login()}; public files need no token: {removal}",
        )

    # the hub cannot be reached, or is busy
    if is_not_cached or status in BUSY_STATUSES:
        reason = "cannot be reached"
        if status in BUSY_STATUSES:
            reason = f"is busy (it answers {status}): try again in some minutes"
        mirror = SECRET_ADDRESS.sub("", os.environ.get("HF_ENDPOINT", ""))
        hub_name = f"the hub of HF_ENDPOINT ({mirror})" if mirror else "the hub"
        return Unreachable(
            f"{name} is not in the hub's cache and {hub_name} {reason}",
            f"{DOWNLOAD_ELSEWHERE}{repository.download_line(patterns)}",
        )

    # a problem of this machine, such as a full disk
    if isinstance(error, OSError) and error.errno:
        file_name = f"{error.filename}: " if error.filename else ""
        return MissingData(
            f"cannot fetch {name}: {file_name}{error.strerror}",
            "free some space or correct the problem, or set HF_HOME to a folder on "
            "another disk",
        )

    # the last line of the client's message tells any other reason
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    hint = f"check the name, or {advise_login()}"
    if not status and not is_name_error:  # a file was cut short
        hint = "fetch it again, or tell its owner"
    return MissingData(f"cannot fetch {name}: {reason}", hint)


def _count_bytes(files: Iterable[Any]) -> int:
    """Add up the sizes of the files that a download would fetch.

    The hub may state wrong sizes. Negative sizes count as 0, and the sum is at most
    `sys.maxsize`.
    """
    sizes = [max(file.file_size or 0, 0) for file in files if file.will_download]
    return min(sum(sizes), sys.maxsize)


def read_revision(path: Path) -> str:
    """Return the commit of a path in the hub's cache, or "" for another path."""
    return name_snapshot(path).partition("@")[2]


def name_snapshot(path: Path | str) -> str:
    """Return the reference that names a path in the hub's cache.

    Returns:
        `hub:[datasets/]owner/name[/subfolder]@commit`, or "" for another path.
    """
    # Pattern of the paths of files and folders in the hub's cache: type and name of the
    # repository, commit, and path below it.
    snapshot_path = r".*/(models|datasets)--([^/]+)/snapshots/([0-9a-f]{40})(/.*)?$"
    match = re.search(snapshot_path, Path(path).absolute().as_posix())
    if match is None:
        return ""
    kind, repository, commit, inside = match.groups(default="")
    prefix = "datasets/" if kind == "datasets" else ""
    return f"{HUB_PREFIX}{prefix}{repository.replace('--', '/')}{inside}@{commit}"


def http_error_class() -> type[Exception]:
    """Return the base class of HTTP errors of the hub's client (httpx or httpx2)."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def digest(path: Path, weights: Sequence[str] = WEIGHT_PATTERNS) -> str:
    """Compute a digest of all weight files in a folder, in hexadecimal digits.

    Args:
        path: Folder.
        weights: Patterns of the weight files, which may overlap.

    Raises:
        MissingData: if a file is a dead link or not a regular file.
    """
    files = set()
    for pattern in weights:
        files |= set(path.glob(pattern))
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file.name}={digest_cached_file(file)}\n".encode())
    return total.hexdigest()


def digest_cached_file(file: Path, by_name: bool = True) -> str:
    """Compute the digest of a file, or return the digest that an earlier call stored.

    Digests of large files are stored below home, with the size and modification time.

    Args:
        file: File.
        by_name: True to trust the name of a large file in the hub's cache, its SHA-256.

    Returns:
        SHA-256 of the content, in hexadecimal digits.

    Raises:
        MissingData: if the file is a dead link or not a regular file.
    """
    # reading a link to a device would never end
    if not file.is_file():
        raise MissingData(
            f"{file} is a dead link, or not a regular file", "download it again"
        )

    # in the hub's cache, a large file is a link to its content, named by its SHA-256
    cached_name = file.resolve().name
    if by_name and file.is_symlink() and len(cached_name) == 64:
        return cached_name
    status = file.stat()
    if status.st_size < MIN_KEPT_DIGEST_BYTES:
        return documents.digest_file(file)

    # return the stored digest if the file is unchanged
    name = documents.digest_text(make_portable(str(file.absolute())))
    # Folder of the stored digests, below home.
    digest_path = home_folder() / ".digests" / name
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    with suppress(OSError, ValueError):
        text = read_regular(digest_path).decode()
        stored_stamp, content_digest = text.rsplit(" ", 1)
        if stored_stamp == stamp:
            return content_digest

    # compute the digest, and store it if the disk allows it
    with console.progress(f"reading {file.name} for its digest"):
        content_digest = documents.digest_file(file)
    with suppress(OSError), atomic_write(digest_path) as temporary:
        temporary.write_text(f"{stamp} {content_digest}")
    return content_digest


class Manifest(BaseModel):
    """Description of a run on the hub, stored in its repository as `brainhive.json`.

    Attributes:
        format: Version of the layout of the repository.
        brainhive: Version of Brainhive that trained the model.
        command: Command that made the run.
        run: Name of the run on its machine.
    """

    format: StrictInt
    brainhive: str
    command: Literal["train-align", "train-prior"]
    run: str


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a pushed run, or return None if the folder has no manifest.

    Args:
        folder: Local folder with the files of a repository.

    Raises:
        BrainhiveError: if the manifest is damaged, or has another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    hint = "use a newer Brainhive or another revision, or tell its owner"
    fields = documents.read(path, dict[str, Any], hint)

    # another version may have other fields, so the version is checked first
    version = fields.get("format")
    if type(version) is int and version != RUN_FORMAT:
        raise BrainhiveError(
            f"{path} has format {documents.show_value(version)}, and this version of "
            f"Brainhive reads format {RUN_FORMAT}",
            hint,
        )
    return documents.check(fields, str(path), Manifest, hint)


def inspect_repository(reference: str) -> tuple[str, str]:
    """Find out whether a repository of the hub holds a run or a brain model.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`.

    Returns:
        The command of the run, "model" or "", and the reference, with the commit if
        the repository has a manifest or config.

    Raises:
        MissingData: if the repository does not exist, or the hub cannot be reached.
        BrainhiveError: if the manifest or config is damaged, or has another version.
    """
    config_name = MODEL_FILES[0]
    try:
        with silence_hub():  # the client warns if a repository lacks a file
            files = folder(reference, allow=[MANIFEST, config_name])
    except NoFiles:
        return "", reference
    pinned_reference = name_snapshot(files)
    manifest = read_manifest(files)
    if manifest:
        return manifest.command, pinned_reference

    # the config of a network of transformers has a `model_type`
    config_path = files / config_name
    if not config_path.is_file():
        return "", pinned_reference
    config = documents.read(config_path, dict[str, Any])
    return "" if "model_type" in config else "model", pinned_reference


def fetch_run(reference: str) -> Path:
    """Download a run or a brain model from the hub, and verify the files of a run.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`.

    Returns:
        Folder in the hub's cache.

    Raises:
        MissingData: if the repository holds neither of the two, or is incomplete.
        BrainhiveError: if a file of a run differs from its digest or has no digest, or
            the manifest is damaged or has another version.
    """
    kind, pinned_reference = inspect_repository(reference)
    if kind == "model":
        return folder(pinned_reference, allow=MODEL_FILES)
    if not kind:
        raise MissingData(
            f"{reference} has no {MANIFEST}, and no {MODEL_FILES[0]} of a brain model",
            "check the name; to use a prior, set --prior",
        )

    # download the files of the run
    patterns = RUN_FILES[kind]
    files = folder(pinned_reference, allow=patterns)

    # each file must have a digest
    line = Repository.parse(pinned_reference).download_line()
    hint = f"{DOWNLOAD_ELSEWHERE}{line}"
    if not (files / documents.SHA256SUMS).is_file():
        raise MissingData(
            f"{pinned_reference} has no {documents.SHA256SUMS} in the hub's cache", hint
        )
    digests = documents.read_digests(files)
    for pattern in patterns:
        for path in files.glob(pattern):
            name = path.relative_to(files).as_posix()
            if name not in digests and name != documents.SHA256SUMS:
                raise BrainhiveError(
                    f"{pinned_reference}: {documents.SHA256SUMS} does not list {name}",
                    CHANGED_HINT,
                )

    # each file must exist, and agree with its digest
    for name, digest in digests.items():
        path = resolve_below(
            files, name, source=f"{pinned_reference}: {documents.SHA256SUMS}"
        )
        if not path.is_file():
            raise MissingData(
                f"{pinned_reference} has no {name} in the hub's cache", hint
            )
        if digest_cached_file(path, by_name=False) != digest:
            raise BrainhiveError(
                f"{pinned_reference}: {name} differs from its digest", CHANGED_HINT
            )
    return files
