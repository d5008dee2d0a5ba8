"""Runs on the hub: what a repository that `push` has made holds, and how it becomes a run here."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import below

FORMAT = 1
"""Version of the repository; the number that its manifest carries."""
MANIFEST = "brainhive.json"
"""The document that says what a repository holds; without it a repository is another project's."""
CARD = "README.md"
"""The card; its owner may edit it, so that no digest is kept of it."""
DOCUMENTS = (MANIFEST, documents.SHA256SUMS, "recipe.yaml", "metrics.json")
MODEL = ("config.json", "model.safetensors", "diffusion_pytorch_model.safetensors", "learned.safetensors")
"""Files of a brain model's folder, of this project and of BrainHiVE's repository."""
FILES = {
    "train-align": (*DOCUMENTS, "embeddings.json", *(f"cells/**/model/{name}" for name in MODEL)),
    "train-prior": (*DOCUMENTS, "*.json", "*.safetensors", "*/config.json", "*/*.safetensors"),
}
"""Patterns of the files that a run may share, by its command; all else stays where it was trained."""


class Manifest(BaseModel):
    """Description of a run on the hub.

    Attributes:
        format: Version of the repository.
        brainhive: Version of Brainhive that trained the model.
        command: The command that made the run.
        run: Name of the run where it was trained.
        left_out: What its models have lost on the way, a sentence each.
    """

    format: int
    brainhive: str
    command: Literal["train-align", "train-prior"]
    run: str
    left_out: list[str] = []


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None where it has none.

    Raises:
        BrainhiveError: if it is damaged, or of a version that this one does not read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content: dict[str, Any] = documents.read(path, hint=documents.DOWNLOAD)
    if (number := content.get("format")) != FORMAT:
        raise BrainhiveError(
            f"{path} is of format {documents.show_value(number)}, this version reads {FORMAT}",
            "pip install -U brainhive, or another revision: hub:owner/name@REVISION",
        )
    return documents.check(content, str(path), Manifest, documents.DOWNLOAD)


def fetch(reference: str) -> Path:
    """Fetch the repository of a run, or the folder of a brain model, into the hub's cache.

    Args:
        reference: `hub:owner/name[/subfolder][@revision]`.

    Returns:
        A folder of the cache. That of a run holds the files that its digests list, unchanged.

    Raises:
        MissingData: if the repository is not there, or holds neither.
        BrainhiveError: if a file differs from its digest, or the format is another.
    """
    # small files say what the repository is, before large ones are fetched
    with hub.quiet():  # one of the two is enough
        folder = hub.folder(reference, allow=[MANIFEST, MODEL[0]])
    manifest = read_manifest(folder)
    if manifest is None and not (folder / MODEL[0]).is_file():
        raise MissingData(
            f"{reference} has no {MANIFEST} or {MODEL[0]}", "check the name; priors are named by --prior"
        )
    pinned = hub.name_snapshot(folder)
    folder = hub.folder(pinned, allow=FILES[manifest.command] if manifest else MODEL)

    # every file of a run is the one that was pushed
    listed = documents.read_digests(folder) if manifest else {}
    if manifest and not listed:
        raise BrainhiveError(f"{pinned} has no {documents.SHA256SUMS}", documents.DOWNLOAD)
    for name, digest in listed.items():
        path = below(folder, name, source=f"{pinned}: {documents.SHA256SUMS}")
        if not path.is_file():
            raise MissingData(f"{pinned} has no {name}, which it lists", "fetch it again, or tell its owner")
        if hub.digest_file(path) != digest:
            raise BrainhiveError(f"{pinned}: {name} differs from its digest", "tell its owner; do not use it")
    return folder
