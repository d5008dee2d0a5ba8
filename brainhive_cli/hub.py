"""From a reference (hub:, demo: or a path) to a local folder, and what it holds."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.errors import MissingData

WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")


def folder(reference: str, *, allow: Sequence[str] | None = None, owner: str = "") -> Path:
    """Resolve a reference to a folder on this machine, fetching it into the hub's cache if need be.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`, `demo:name` (shipped weights) or a folder.
        allow: File patterns to fetch, below the subfolder; all when None.
        owner: Owner meant by a bare `hub:name`.

    Raises:
        MissingData: if the folder, repository or network is not there.
    """
    scheme, colon, rest = reference.partition(":")
    if colon and scheme == "hub":
        return _snapshot(rest, allow, owner)
    path = Path(__file__).parent / "demo" / "weights" / rest if scheme == "demo" else Path(reference)
    if not path.is_dir():
        raise MissingData(f"no folder {reference!r}", "give a folder that exists, or hub:owner/name")
    return path


def _snapshot(rest: str, allow: Sequence[str] | None, owner: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, below, revision = _parse(rest, owner)
    try:
        root = Path(snapshot_download(repository, revision=revision, allow_patterns=_patterns(below, allow)))
    except LocalEntryNotFoundError as error:
        raise _unreachable(repository) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise MissingData(
            f"cannot fetch {repository}: {reason}", "check the name, or log in: hf auth login"
        ) from error
    if not (root / below).is_dir():
        raise MissingData(f"{repository} has no folder {below!r}", f"it has: {_names(root)}")
    return root / below


def bytes_to_fetch(reference: str, *, allow: Sequence[str] | None = None) -> int:
    """Ask how much `folder` would fetch, and fetch nothing; 0 for what is on this machine.

    Raises:
        MissingData: if it is not on this machine and the hub cannot say.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    scheme, _, rest = reference.partition(":")
    if scheme != "hub":
        return 0
    repository, below, revision = _parse(rest, "")
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": _patterns(below, allow)}
    try:
        snapshot_download(repository, local_files_only=True, **wanted)
        return 0
    except LocalEntryNotFoundError:
        disable_progress_bars()
    except HFValidationError as error:
        raise MissingData(str(error), "write hub:owner/name") from error
    try:
        files = snapshot_download(repository, dry_run=True, **wanted)
    except (HfHubHTTPError, OSError) as error:
        raise _unreachable(repository) from error
    finally:
        enable_progress_bars()
    return sum(file.file_size or 0 for file in files if file.will_download)


def _parse(rest: str, owner: str) -> tuple[str, str, str | None]:
    """Split `owner/name[/subfolder][@revision]` into repository, subfolder and revision."""
    path, _, revision = rest.partition("@")
    parts = path.split("/")
    if len(parts) == 1 and owner:
        parts = [owner, *parts]
    return "/".join(parts[:2]), "/".join(parts[2:]), revision or None


def _patterns(below: str, allow: Sequence[str] | None) -> list[str]:
    return [f"{below}/{pattern}" if below else pattern for pattern in allow or ["**"]]


def _unreachable(repository: str) -> MissingData:
    return MissingData(
        f"{repository} is not in the hub's cache and the hub cannot be reached",
        f"on a machine with a network: hf download {repository}",
    )


def _names(root: Path) -> str:
    return ", ".join(sorted(p.name for p in root.iterdir()))


def revision(path: Path) -> str:
    """Read the commit of a folder in the hub's cache from its path; empty elsewhere."""
    parts = path.absolute().parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def digest(path: Path) -> str:
    """Digest the weight files of a folder (sha256, hexadecimal)."""
    files = sorted({file for pattern in WEIGHTS for file in path.glob(pattern)})
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}={_file_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(file: Path) -> str:
    blob = file.resolve().name  # the hub's cache names a large file by its sha256 already
    if file.is_symlink() and len(blob) == 64:
        return blob
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
