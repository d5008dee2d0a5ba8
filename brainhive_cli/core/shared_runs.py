"""Runs on the hub: manifest and files of their repositories, and their download."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, StrictInt

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import below

FORMAT = 1
"""Version of the repository; the number that its manifest carries."""
MANIFEST = "brainhive.json"
"""Description of a repository; one without it is another project's."""
CARD = "README.md"
"""Model card; it has no digest in the list, as its owner may edit it."""
DOCUMENTS = (MANIFEST, documents.SHA256SUMS, "recipe.yaml", "metrics.json")
MODEL = (
    "config.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "learned.safetensors",
)
"""Files of a brain model's folder, of this project and of BrainHiVE's repository."""
PRIOR = (
    *("learned.json", "learned.safetensors", "config.json", "model.safetensors"),
    *(
        f"{part}/{name}"
        for part in ("fusion_encoder", "proj", "attn_adapter")
        for name in (MODEL[0], MODEL[2])
    ),
)
"""Files of a prior's folder, of each kind that is trained."""
FILES = {
    "train-align": (
        *DOCUMENTS,
        "embeddings.json",
        *(f"cells/**/model/{name}" for name in MODEL),
    ),
    "train-prior": (*DOCUMENTS, *PRIOR),
}
"""Patterns of the files that a run may share, by its command; all else stays where it
was trained.
"""


CHANGED_HINT = (
    "another revision, or tell its owner; to fetch it again: hf cache rm "
    "model/OWNER/NAME"
)
"""Way out of a repository whose files are not those that were pushed."""


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
    way = "pip install -U brainhive, another revision, or tell its owner"
    fields = documents.read(path, dict[str, Any], way)

    # the number is read first, as another format may have other fields
    number = fields.get("format")
    if type(number) is int and number != FORMAT:
        raise BrainhiveError(
            (
                f"{path} is of format {documents.show_value(number)}, this version "
                f"reads {FORMAT}"
            ),
            way,
        )
    return documents.check(fields, str(path), Manifest, way)


def inspect(reference: str) -> tuple[Literal["run", "model", ""], str]:
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
        with hub.quiet():  # one of the two is enough
            folder = hub.folder(reference, allow=[MANIFEST, MODEL[0]])
    except hub.NoFiles:
        return "", reference
    pinned = hub.name_snapshot(folder)

    # a pushed run has a manifest; configs of transformers name a `model_type`
    if read_manifest(folder):
        return "run", pinned
    config = folder / MODEL[0]
    is_model = config.is_file() and "model_type" not in documents.read(
        config, dict[str, Any]
    )
    return "model" if is_model else "", pinned


def fetch(reference: str) -> Path:
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
    kind, pinned = inspect(reference)
    if kind == "model":
        return hub.folder(pinned, allow=MODEL)
    if kind != "run":
        raise MissingData(
            f"{reference} has no {MANIFEST}, and no {MODEL[0]} of a brain model",
            "check the name; priors are named by --prior",
        )

    # the files that a run of its command may share, and no others
    manifest = read_manifest(hub.folder(pinned, allow=[MANIFEST]))
    assert manifest is not None  # which a run has
    patterns = FILES[manifest.command]
    folder = hub.folder(pinned, allow=patterns)

    # the list of digests has each file that was fetched
    repository, _, commit = pinned.removeprefix(hub.SCHEME).partition("@")
    download = f"{hub.ELSEWHERE}hf download {repository} --revision={commit}"
    if not (folder / documents.SHA256SUMS).is_file():
        raise MissingData(
            f"{pinned} has no {documents.SHA256SUMS} in the hub's cache", download
        )
    listed = documents.read_digests(folder)
    fetched = {
        path.relative_to(folder).as_posix()
        for pattern in patterns
        for path in folder.glob(pattern)
    }
    if unlisted := sorted(fetched - {*listed, documents.SHA256SUMS}):
        raise BrainhiveError(
            f"{pinned}: {documents.SHA256SUMS} does not list {unlisted[0]}",
            CHANGED_HINT,
        )

    # and each file that it lists is here, as it was pushed
    for name, digest in listed.items():
        path = below(folder, name, source=f"{pinned}: {documents.SHA256SUMS}")
        if not path.is_file():
            raise MissingData(f"{pinned} has no {name} in the hub's cache", download)
        if hub.digest_cached_file(path, by_name=False) != digest:
            raise BrainhiveError(
                f"{pinned}: {name} differs from its digest", CHANGED_HINT
            )
    return folder
