"""From a reference (hub:, demo: or a path) to a local folder, and what it holds."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

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

    path, _, revision = rest.partition("@")
    parts = path.split("/")
    if len(parts) == 1 and owner:
        parts = [owner, *parts]
    repository, below = "/".join(parts[:2]), "/".join(parts[2:])
    patterns = [f"{below}/{pattern}" if below else pattern for pattern in allow or ["**"]]
    try:
        root = Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise MissingData(
            f"{repository} is not in the hub's cache and the hub cannot be reached",
            f"on a machine with a network: hf download {repository}",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise MissingData(
            f"cannot fetch {repository}: {reason}", "check the name, or log in: hf auth login"
        ) from error
    if not (root / below).is_dir():
        raise MissingData(f"{repository} has no folder {below!r}", f"it has: {_names(root)}")
    return root / below


def _names(root: Path) -> str:
    return ", ".join(sorted(p.name for p in root.iterdir()))


def revision(path: Path) -> str:
    """Read the commit of a folder in the hub's cache from its path; empty elsewhere."""
    parts = path.absolute().parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""


def digest(path: Path, weights: Sequence[str] = WEIGHTS) -> str:
    """Digest the weight files of a folder, those that match the patterns (sha256, hexadecimal)."""
    files = sorted({file for pattern in weights for file in path.glob(pattern)})
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
