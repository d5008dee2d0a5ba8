"""From a reference (hub:, demo: or a path) to a local folder; runs on the hub, with
their manifest and files.
"""

import fnmatch
import hashlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, StrictInt

from brainhive_cli.core import console, documents
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    first_line,
)
from brainhive_cli.core.files import (
    atomic_write,
    find_unfetched,
    home_folder,
    locate,
    make_portable,
    read_regular,
    resolve_below,
)
from brainhive_cli.core.network import BUSY, ask, call_in_thread, find_bad_proxy

DEMO_WEIGHTS = Path(__file__).parents[1] / "demo/weights"
"""Weights of the demo, for `demo:` references."""
MIN_KEPT_DIGEST_BYTES = 64_000_000
"""Size from which the digest of a file is kept: reading it takes longer than all else
at the start.
"""
DIGESTS = ".digests"
"""Folder of such digests, below home."""
SCHEME = "hub:"
"""Before the name of a repository."""
SNAPSHOT = re.compile(
    r".*/(?P<kind>models|datasets)--(?P<repository>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(?P<inside>/.*)?$"
)
"""A path in the hub's cache."""
DATASETS = "datasets"
"""Before the owner, where weights lie in a data set's repository; the hub's own pages
have it so too.
"""
ELSEWHERE = "on a machine with a network: "
"""Before the line that downloads, where the hub cannot be reached."""
NO_ANSWER = (LookupError, TypeError, AssertionError, RecursionError)
"""Errors of the hub's client where something else answers, as a proxy that asks for a
login.
"""
WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")
RUN_FORMAT = 1
"""Version of the repository; the number that its manifest carries."""
MANIFEST = "brainhive.json"
"""Description of a repository; one without it is another project's."""
MODEL_CARD = "README.md"
"""Model card; it has no digest in the list, as its owner may edit it."""
DOCUMENTS = (MANIFEST, documents.SHA256SUMS, "recipe.yaml", "metrics.json")
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "learned.safetensors",
)
"""Files of a brain model's folder, of this project and of BrainHiVE's repository."""
PRIOR_FILES = (
    "learned.json",
    "learned.safetensors",
    "config.json",
    "model.safetensors",
    *(
        f"{part}/{name}"
        for part in ("fusion_encoder", "proj", "attn_adapter")
        for name in (MODEL_FILES[0], MODEL_FILES[2])
    ),
)
"""Files of a prior's folder, of each kind that is trained."""
RUN_FILES = {
    "train-align": (
        *DOCUMENTS,
        "embeddings.json",
        *(f"cells/**/model/{name}" for name in MODEL_FILES),
    ),
    "train-prior": DOCUMENTS + PRIOR_FILES,
}
"""Patterns of the files that a run may share, by its command; all else stays where it
was trained.
"""
CHANGED_HINT = (
    "another revision, or tell its owner; to fetch it again: hf cache rm "
    "model/OWNER/NAME"
)
"""Way out of a repository whose files are not those that were pushed."""


class Unreachable(MissingData):
    """A repository that is not in the hub's cache, while the hub cannot be reached."""


class NoFiles(MissingData):
    """A repository without any of the files that are wanted."""


def folder(
    reference: str,
    *,
    allow: Sequence[str] | None = None,
    owner: str = "",
    local: bool = False,
) -> Path:
    """Resolve a reference to a folder on this machine, fetching it into the hub's cache
    if need be.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`, the same after
            `hub:datasets/` for a data set's repository, `demo:name` (shipped weights)
            or a folder.
        allow: File patterns to fetch, below the subfolder; all when None.
        owner: Owner meant by a bare `hub:name`.
        local: Use no network: only what is in the hub's cache.

    Raises:
        MissingData: if the folder, repository or network is not there.
    """
    # a folder of a repository
    scheme, colon, rest = reference.partition(":")
    if colon and scheme == "hub":
        kind, repository, subfolder, revision = parse_repository(rest, owner)
        options = {"revision": revision, "local_files_only": local}
        patterns = _patterns(subfolder, allow or ["**"])

        # from the cache, or fetched into it
        root = Path(snapshot(repository, kind, allow_patterns=patterns, **options))
        if not root.is_dir():
            raise NoFiles(
                f"{repository} has no {' or '.join(patterns)}",
                "check the name and the revision",
            )
        if not (root / subfolder).is_dir():
            names = ", ".join(sorted(path.name for path in root.iterdir()))
            raise MissingData(
                f"{repository} has no folder {subfolder!r}", f"it has: {names}"
            )
        return root / subfolder

    # a folder of the package, or of the user
    if scheme == "demo" and colon:
        path = resolve_below(
            DEMO_WEIGHTS, rest, source="the reference demo:", error=MissingData
        )
    else:
        path = locate(reference)
    if not reference or not path.is_dir():
        raise MissingData(
            f"no folder {reference!r}", "give a folder that exists, or hub:owner/name"
        )
    # as `git clone` leaves a repository where Git LFS is not installed
    files = [file for pattern in allow or ["**/*"] for file in path.glob(pattern)]
    if unfetched := find_unfetched(files):
        raise unfetched
    return path


def snapshot(repository: str, repo_type: str = "model", **options: Any) -> Any:
    """Call the hub client's `snapshot_download`, with a progress bar that vanishes and
    errors of ours.

    Args:
        repository: `owner/name`.
        repo_type: `model` or `dataset`.
        options: Of the hub's client.

    Raises:
        MissingData: if the repository or the network is not there, or terms were not
            accepted.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    # a class, since the client makes its bars itself
    class TransientBar(tqdm):
        """The hub's progress bar; it is removed when done, and not written into a
        pipe.
        """

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"disable": None, **options, "leave": False})  # type: ignore[no-untyped-call]

    def download() -> Any:
        return snapshot_download(
            repository, repo_type=repo_type, tqdm_class=TransientBar, **options
        )

    try:
        with console.hide_progress():
            return ask(partial(call_in_thread, download), _read_answer)
    except Exception as error:
        if bad_proxy := find_bad_proxy(error):
            # what is in the cache needs no proxy
            if not {"local_files_only", "local_dir"} & {*filter(options.get, options)}:
                with suppress(MissingData):
                    cached = {**options, "local_files_only": True}
                    return snapshot(repository, repo_type, **cached)
            raise bad_proxy from error
        # of the disk of a user's folder, as if it is full
        if isinstance(error, OSError) and error.errno and options.get("local_dir"):
            error.filename = error.filename or str(options["local_dir"])
            raise
        if isinstance(error, (*NO_ANSWER, ValueError, OSError, transport_error())):
            raise _failure(repository, error, repo_type, options) from error
        raise


def list_digests(repository: str, repo_type: str, commit: str) -> dict[str, str]:
    """List the digests of a repository's files by their names: `sha256:` of a large
    file, `git:` of another.

    Raises:
        MissingData: if the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    def read_tree() -> list[Any]:
        tree = HfApi().list_repo_tree(
            repository, recursive=True, revision=commit, repo_type=repo_type
        )
        return [*tree]

    try:
        tree = ask(read_tree, _read_answer)
    except (*NO_ANSWER, ValueError, OSError, transport_error()) as error:
        raise _failure(repository, error, repo_type, {}) from error
    return {
        file.path: f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        for file in tree
        if isinstance(file, RepoFile)
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the hub client's bars, and its warnings of patterns that match
    nothing.
    """
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    # bars and messages off, and back as they were
    verbosity = logging.get_verbosity()
    were_off = are_progress_bars_disabled()
    logging.set_verbosity(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
        logging.set_verbosity(verbosity)


def find_weights(
    reference: str, files: Sequence[str], weights: Sequence[str] = WEIGHTS
) -> list[Path]:
    """List the weights of a reference on this machine, without a network; none if a
    file is missing.

    Args:
        reference: As `folder` takes it.
        files: Names of files that must all be there.
        weights: File patterns; all that the hub has of one of them must be there.
    """
    for pattern in weights:
        with suppress(MissingData):
            # the cache alone is asked
            path = folder(reference, allow=(*files, pattern), local=True)
            matching = [*path.glob(pattern)]
            if matching and all((path / name).is_file() for name in files):
                return matching
    return []


def find_input(
    reference: str,
    files: Sequence[str] = (),
    weights: Sequence[str] = WEIGHTS,
    also: Sequence[str] = (),
) -> Input:
    """Look for `files` and the first of `weights` that there is, here or at the hub;
    nothing is fetched.

    Args:
        reference: As `folder` takes it.
        files: Files that must lie next to them.
        weights: Patterns, of which the line names the first.
        also: Further patterns that it names.
    """
    # files that are here, or a folder that lacks some
    _, is_hub, rest = reference.partition("hub:")
    is_file = len(weights) == 1 and "*" not in weights[0]
    pattern = weights[0] if is_file else weights[0].rpartition("/")[0]
    name = f"{rest if is_hub else reference}/{pattern}".rstrip("/")
    if find_weights(reference, files, weights):
        return Input(name)
    if not is_hub:
        absent = next(
            (file for file in files if not (locate(reference) / file).is_file()),
            weights[0],
        )
        return Input(
            name, None, MissingData(f"{reference} has no {absent}", "download it again")
        )
    try:
        # the hub lists what it would fetch
        kind, repository, subfolder, revision = parse_repository(rest)
        words = [f"--revision={revision}"] if revision else []
        patterns = _patterns(subfolder, [*files, *weights])
        with quiet():
            listed = snapshot(
                repository,
                kind,
                revision=revision,
                allow_patterns=patterns,
                dry_run=True,
            )
    except Unreachable as error:
        line = download_line(
            repository, kind, _patterns(subfolder, [*files, *also, weights[0]]), *words
        )
        return Input(name, None, Unreachable(error.message, f"{ELSEWHERE}{line}"))
    except BrainhiveError as error:
        return Input(name, None, error)

    # the first pattern of weights that the repository has
    names = [file.filename for file in listed]
    matching = [
        fnmatch.filter(names, pattern) for pattern in _patterns(subfolder, weights)
    ]
    chosen = next(filter(None, matching), None)
    if chosen is None:
        absent = f"{repository} has no {patterns[len(files)]}"
        return Input(name, None, MissingData(absent, "check the name and variant"))
    needed = {*_patterns(subfolder, files), *chosen}
    size = _count_bytes(
        file for file in listed if file.will_download and file.filename in needed
    )
    line = download_line(
        repository, kind, [*_patterns(subfolder, [*files, *also]), *chosen], *words
    )
    return Input(name, size, line=line if size else "")


def download_line(
    repository: str, repo_type: str, patterns: Sequence[str], *more: str
) -> str:
    """Write the line by which the hub's own command fetches some files, by names or
    patterns, and no more.
    """
    # patterns need a flag each, names need none
    distinct = [*dict.fromkeys(pattern for pattern in patterns if pattern != "**")]
    words = ["hf", "download", repository]
    if any(set("*?[") & set(pattern) for pattern in distinct):
        words += [word for pattern in distinct for word in ("--include", pattern)]
    else:
        words += distinct
    words += ["--repo-type", repo_type] if repo_type != "model" else []
    return shlex.join([*words, *more])


def parse_repository(rest: str, owner: str = "") -> tuple[str, str, str, str | None]:
    """Split `[datasets/]owner/name[/subfolder][@revision]`: its type, repository,
    subfolder and revision.
    """
    # the revision stands last, `datasets/` first
    path, _, revision = rest.partition("@")
    parts = path.rstrip("/").split("/")
    kind = "dataset" if parts[0] == DATASETS else "model"
    parts = parts[1:] if kind == "dataset" else parts
    if len(parts) == 1 and owner:
        parts = [owner, *parts]

    # subfolder and revision become paths in the cache
    inside = "/".join(parts[2:])
    names = filter(None, [inside, revision])
    resolve_below(Path(), *names, source=f"hub:{rest} names", error=MissingData)
    return kind, "/".join(parts[:2]), inside, revision or None


def _patterns(subfolder: str, allow: Sequence[str]) -> list[str]:
    return [f"{subfolder}/{pattern}" if subfolder else pattern for pattern in allow]


def _read_answer(error: BaseException | None) -> tuple[int, Any]:
    """Read status and headers of the hub's answer that led to an error; 0 where the hub
    has not answered.
    """
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return (error.response.status_code, error.response.headers) if error else (0, {})


def _failure(
    repository: str, error: Exception, repo_type: str, options: Mapping[str, Any]
) -> MissingData | RecipeError:
    """Turn a failed request of the hub's client into an error of ours, by the hub's
    answer if any.
    """
    from huggingface_hub import errors

    # another server in place of the hub, or a damaged cache
    is_absent_here = isinstance(
        error, errors.DryRunError | errors.LocalEntryNotFoundError
    )
    if isinstance(error, (JSONDecodeError, *NO_ANSWER)):
        problem = (
            f"cannot fetch {repository}: what answers for the hub is not the hub: "
            f"{first_line(error)}"
        )
        return MissingData(problem, "check the network, its proxy and HF_ENDPOINT")
    if isinstance(error, ValueError) and not isinstance(
        error, errors.HFValidationError
    ):
        return MissingData(
            f"{repository} is damaged in the hub's cache: {first_line(error)}",
            f"hf cache rm {repo_type}/{repository}, and fetch it again",
        )

    # answers of the hub: terms, name, revision
    answer = error.__cause__ if is_absent_here else error
    if isinstance(answer, errors.GatedRepoError):
        kind = "datasets/" if repo_type == "dataset" else ""
        way = (
            f"accept them at https://huggingface.co/{kind}{repository}, then: hf auth "
            "login"
        )
        return MissingData(f"{repository} is for those who accepted its terms", way)
    if isinstance(answer, errors.RepositoryNotFoundError):
        way = (
            "check the name; if it is private, or the token has expired: hf auth login"
        )
        return MissingData(f"no such repository on the hub: {repository}", way)
    if isinstance(answer, errors.RevisionNotFoundError):
        return MissingData(
            f"{repository} has no such revision", "check what stands after the @"
        )

    # a token that is not accepted, even for what is public
    status, _ = _read_answer(error)
    if status == 401:
        problem = f"cannot fetch {repository}: the hub does not accept the token (401)"
        return MissingData(problem, "hf auth login, or for what is public: HF_TOKEN=")

    # no answer, or that of a server that is busy
    if is_absent_here or status in BUSY:
        words = [f"--revision={options['revision']}"] if options.get("revision") else []
        line = download_line(
            repository, repo_type, options.get("allow_patterns") or [], *words
        )
        way = f"{ELSEWHERE}{line}"
        reason = "cannot be reached"
        if status in BUSY:
            reason = f"is busy (it answers {status}): try again in some minutes"
        problem = f"{repository} is not in the hub's cache and the hub {reason}"
        return Unreachable(problem, way)
    if isinstance(error, OSError) and error.errno:  # of this machine, as a full disk
        where = f"{error.filename}: " if error.filename else ""
        problem = f"cannot fetch {repository}: {where}{error.strerror}"
        return MissingData(
            problem,
            "make room or correct it, or set HF_HOME to a folder of another disk",
        )

    # any other refusal, in the last line of the client's message
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    is_cut = "Consistency check" in str(error)
    way = (
        "fetch it again, or tell its owner"
        if is_cut
        else "check the name, or log in: hf auth login"
    )
    return MissingData(f"cannot fetch {repository}: {reason}", way)


def _count_bytes(files: Iterable[Any]) -> int:
    """Sum the sizes that the hub declares, none of them below zero, to a number that a
    file can have.
    """
    return min(sum(max(file.file_size or 0, 0) for file in files), sys.maxsize)


def revision(path: Path) -> str:
    """Read the commit of a path in the hub's cache; empty elsewhere."""
    return name_snapshot(path).partition("@")[2]


def name_snapshot(path: Path | str) -> str:
    """Name a path in the hub's cache at its commit,
    `hub:owner/name[/subfolder]@commit`; empty elsewhere.
    """
    match = SNAPSHOT.search(Path(path).absolute().as_posix())
    if match is None:
        return ""
    kind = "" if match["kind"] == "models" else f"{match['kind']}/"
    repository = match["repository"].replace("--", "/")
    inside = match["inside"] or ""
    return f"{SCHEME}{kind}{repository}{inside}@{match['commit']}"


def transport_error() -> type[Exception]:
    """Return the base of the errors of the hub's HTTP library, which is httpx or httpx2
    by its version.
    """
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def digest(path: Path, weights: Sequence[str] = WEIGHTS) -> str:
    """Digest the weight files of a folder, those that match the patterns (sha256,
    hexadecimal).

    Raises:
        MissingData: if one is a link to nowhere, or no file.
    """
    # sorted, and without duplicates of overlapping patterns: the digest is reproducible
    files = sorted({file for pattern in weights for file in path.glob(pattern)})
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}={digest_cached_file(file)}\n".encode())
    return total.hexdigest()


def digest_cached_file(file: Path, by_name: bool = True) -> str:
    """Digest a file (sha256, hexadecimal); a large one is read again only if its size
    or time has changed.

    `by_name` takes the name that the hub's cache gives a large file for its digest, and
    reads none of it.

    Raises:
        MissingData: if it is a link to nowhere, or no file.
    """
    if not file.is_file():  # a link to a device would be read without end
        raise MissingData(
            f"{file} is a link to nowhere, or no file", "download it again"
        )
    # the hub's cache names a large file by its sha256 already
    blob = file.resolve().name
    if by_name and file.is_symlink() and len(blob) == 64:
        return blob

    # small files are read each time
    if file.stat().st_size < MIN_KEPT_DIGEST_BYTES:
        return documents.digest_file(file)

    # of large ones the digest is kept, for as long as size and time are the same
    name = documents.digest_text(make_portable(str(file.absolute())))
    cache = home_folder() / DIGESTS / name
    stamp = f"{file.stat().st_size} {file.stat().st_mtime_ns}"
    with suppress(OSError, ValueError):
        recorded, content_digest = read_regular(cache).decode().rsplit(" ", 1)
        if recorded == stamp:
            return content_digest
    with console.progress(f"reading {file.name} for its digest"):
        content_digest = documents.digest_file(file)
    with suppress(OSError), atomic_write(cache) as part:
        part.write_text(f"{stamp} {content_digest}")
    return content_digest


class Manifest(BaseModel):
    """Description of a run on the hub.

    Attributes:
        format: Version of the repository.
        brainhive: Version of Brainhive that trained the model.
        command: The command that made the run.
        run: Name of the run where it was trained.
    """

    format: StrictInt
    brainhive: str
    command: Literal["train-align", "train-prior"]
    run: str


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None where it has none.

    Raises:
        BrainhiveError: if it is damaged, or of a version that this one does not read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    way = "a newer Brainhive, another revision, or tell its owner"
    fields = documents.read(path, dict[str, Any], way)

    # the number is read first, as another format may have other fields
    number = fields.get("format")
    if type(number) is int and number != RUN_FORMAT:
        raise BrainhiveError(
            f"{path} is of format {documents.show_value(number)}, this version "
            f"reads {RUN_FORMAT}",
            way,
        )
    return documents.check(fields, str(path), Manifest, way)


def inspect_repository(reference: str) -> tuple[Literal["run", "model", ""], str]:
    """Find out what a repository of the hub holds, by its smallest files.

    Returns:
        `run` of one that was pushed, `model` of a brain model's folder, and nothing of
        anything else, as of a network in the layout of transformers, whose config names
        a `model_type`; and the reference with the commit, where one is known.

    Raises:
        MissingData: if the repository is not there.
        BrainhiveError: if its manifest is damaged, or of another format.
    """
    try:
        with quiet():  # one of the two is enough
            files = folder(reference, allow=[MANIFEST, MODEL_FILES[0]])
    except NoFiles:
        return "", reference
    pinned = name_snapshot(files)

    # a pushed run has a manifest; configs of transformers name a `model_type`
    if read_manifest(files):
        return "run", pinned
    config = files / MODEL_FILES[0]
    is_model = config.is_file() and "model_type" not in documents.read(
        config, dict[str, Any]
    )
    return "model" if is_model else "", pinned


def fetch_run(reference: str) -> Path:
    """Fetch the repository of a run, or the folder of a brain model, into the hub's
    cache.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`.

    Returns:
        A folder of the cache. That of a run holds the files that its digests list,
        unchanged.

    Raises:
        MissingData: if the repository is not there, holds neither, or is only partly in
            the cache.
        BrainhiveError: if a file differs from its digest or has none, or the format is
            another.
    """
    # what it is, before large files are fetched
    kind, pinned = inspect_repository(reference)
    if kind == "model":
        return folder(pinned, allow=MODEL_FILES)
    if kind != "run":
        raise MissingData(
            f"{reference} has no {MANIFEST}, and no {MODEL_FILES[0]} of a brain model",
            "check the name; priors are named by --prior",
        )

    # the files that a run of its command may share, and no others
    manifest = read_manifest(folder(pinned, allow=[MANIFEST]))
    assert manifest is not None  # which a run has
    patterns = RUN_FILES[manifest.command]
    files = folder(pinned, allow=patterns)

    # the list of digests has each file that was fetched
    repository, _, commit = pinned.removeprefix(SCHEME).partition("@")
    download = f"{ELSEWHERE}hf download {repository} --revision={commit}"
    if not (files / documents.SHA256SUMS).is_file():
        raise MissingData(
            f"{pinned} has no {documents.SHA256SUMS} in the hub's cache", download
        )
    listed = documents.read_digests(files)
    fetched = {
        path.relative_to(files).as_posix()
        for pattern in patterns
        for path in files.glob(pattern)
    }
    if unlisted := sorted(fetched - {*listed, documents.SHA256SUMS}):
        raise BrainhiveError(
            f"{pinned}: {documents.SHA256SUMS} does not list {unlisted[0]}",
            CHANGED_HINT,
        )

    # and each file that it lists is here, as it was pushed
    for name, digest in listed.items():
        path = resolve_below(files, name, source=f"{pinned}: {documents.SHA256SUMS}")
        if not path.is_file():
            raise MissingData(f"{pinned} has no {name} in the hub's cache", download)
        if digest_cached_file(path, by_name=False) != digest:
            raise BrainhiveError(
                f"{pinned}: {name} differs from its digest", CHANGED_HINT
            )
    return files
