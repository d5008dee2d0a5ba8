"""Priors, which turn decoded heads into the conditioning of a generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import Input, documents, hub, locate
from brainhive_cli.core.recipes import parts

if TYPE_CHECKING:
    from torch import nn

    from brainhive_cli.models import Conditioning, Decoded

DEFAULT = "fusion-prior"
"""Kind of a prior whose folder names no kind, as in BrainHiVE's repository."""
OWNER = "fakekungfu"
"""Owner of the published priors. `hub:NAME` without an owner means one of them."""


class Prior(Protocol):
    """Contract of priors.

    A prior that train-prior can train is an nn.Module, with two further methods.
    `condition_on_embeddings(embeddings, is_kept)` returns a Conditioning on embeddings
    [B, D] of stimuli, by key, where zeros in `is_kept` [B, 1] drop a row.
    `save(folder)` writes a folder that `load` of its kind can read.

    Attributes:
        kind: Name of the module that defines it.
        fuser: Maps embeddings, by key, to the token that brain models predict, or None.
            Training an aligner keeps it frozen.
        dims: Width of each embedding that the fuser takes, by key.
        dim: Width D of the token, or 0 without a fuser.
    """

    kind: str
    fuser: "nn.Module | None"
    dims: Mapping[str, int]
    dim: int

    def attach(self, generator: Any) -> None:
        """Make a generator accept the conditions of this prior."""
        ...

    def detach(self, generator: Any) -> None:
        """Undo `attach`."""
        ...

    def condition(self, decoded: "Decoded", seeds: Sequence[int]) -> "Conditioning":
        """Turn the heads of B signals into conditions, with a seed [B] per signal."""
        ...

    def null(self, n: int, seeds: Sequence[int]) -> "Conditioning":
        """Make n unconditional rows for classifier-free guidance."""
        ...


@dataclass(frozen=True)
class Description:
    """Description of a prior without its weights.

    Attributes:
        kind: Name of the module that defines it.
        reference: Reference by which it is loaded.
        folder: Folder of its files, or None without weights.
        dims: Width of each embedding that the fuser takes, by key.
        dim: Width of the token.
        fuser: Sizes of the fuser, by the keys of an align recipe.
        caveats: Caveats of every number that depends on the prior.
    """

    kind: str
    reference: str
    folder: Path | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    dim: int = 0
    fuser: Mapping[str, int] = field(default_factory=dict)
    caveats: Sequence[str] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights in hexadecimal, or an empty text without weights.

        Weights on the hub are downloaded.
        """
        if self.folder is None:
            return ""
        return str(parts.load("priors", self.kind).digest(self.reference))


def load(reference: str, **options: Any) -> Any:
    """Load a prior in float32 on the CPU.

    Args:
        reference: `hub:NAME`, `hub:owner/name`, `demo:name`, a folder, the name or
            import path of a kind without weights, or `KIND:…` in the form of that kind.
        options: Options of the kind's `load`. Options that are None have their default.

    Returns:
        A `Prior`.

    Raises:
        MissingData: if files are absent or incomplete.
        RecipeError: if the kind has no such option.
    """
    kind = find_kind(reference)
    load_kind = parts.load("priors", kind).load

    arguments = {name: value for name, value in options.items() if value is not None}
    for name in sorted(arguments.keys() - signature(load_kind).parameters.keys()):
        raise RecipeError(
            f"a prior of kind {kind} has no option {name}", f"leave out {name}"
        )
    return load_kind(reference, **arguments)


def describe(reference: str) -> Description:
    """Describe a prior without reading its weights.

    Raises:
        MissingData: if its config is absent or incomplete.
    """
    return parts.load("priors", find_kind(reference)).describe(reference)


def find_input(reference: str) -> Input:
    """Describe a prior as an input of a command, with the digest of its weights."""
    name = f"prior {reference}"
    try:
        digest = describe(reference).digest
    except BrainhiveError as error:
        return Input(name, error=error, reference=reference)
    return Input(name, reference=reference, digest=digest)


def find_kind(reference: str) -> str:
    """Return the kind of a prior.

    Args:
        reference: A kind such as `identity` or `mindeye1:FILE`, an import path, or a
            folder or repository whose config.json names the kind.
    """
    prefix = reference.partition(":")[0]
    if parts.is_kind("priors", prefix):
        return parts.kind_from_file_name(prefix)
    words = prefix.split(".")
    is_import_path = len(words) > 1 and all(word.isidentifier() for word in words)
    if is_import_path and not locate(prefix).exists():
        return prefix

    folder = hub.folder(reference, allow=["config.json", "*/config.json"], owner=OWNER)
    file = folder / "config.json"
    if not file.is_file():
        return DEFAULT
    config = documents.read_download(file)
    return str(config.get("kind", DEFAULT))
