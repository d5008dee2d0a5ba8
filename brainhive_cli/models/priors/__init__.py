"""Priors: from decoded heads to the conditioning of a generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from brainhive_cli.core import documents, hub, parts
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files import locate

if TYPE_CHECKING:
    from torch import nn

    from brainhive_cli.models.heads import Conditioning, Decoded

DEFAULT = "fusion-prior"
"""The kind of a prior whose folder does not name one: BrainHiVE's layout."""
OWNER = "fakekungfu"
"""Owner of the published priors: a bare `hub:NAME` means one of them."""


class Prior(Protocol):
    """Interface of every kind of prior.

    One that train-prior trains is an nn.Module with two further methods.
    `condition_on_embeddings(embeddings, is_kept)` is a Conditioning on embeddings of
    stimuli, [B, D] by key, where 0 in `is_kept` [B, 1] drops a row's; `save(folder)`
    writes what the kind's `load` reads.

    Attributes:
        kind: The file that it lives in.
        fuser: Embeddings, by key, to the token that train-align's brain models predict;
            it stays frozen there. None where a prior brings none.
        dims: Width of each embedding that the fuser takes, by key.
        dim: D, width of the token; 0 where there is none.
    """

    kind: str
    fuser: "nn.Module | None"
    dims: Mapping[str, int]
    dim: int

    def attach(self, generator: Any) -> None:
        """Let a generator take this prior's conditions."""
        ...

    def detach(self, generator: Any) -> None:
        """Give a generator back what it had before `attach`."""
        ...

    def condition(self, decoded: "Decoded", seeds: Sequence[int]) -> "Conditioning":
        """Condition on the decoded heads of B signals; `seeds` [B] decide whatever is
        sampled.
        """
        ...

    def null(self, n: int, seeds: Sequence[int]) -> "Conditioning":
        """Make n rows of the unconditional side of guidance."""
        ...


@dataclass(frozen=True)
class Description:
    """Description of a prior without its weights; `dims` and `dim` are those of
    `Prior`.
    """

    kind: str
    reference: str
    folder: Path | None = None  # None for a kind without weights
    dims: Mapping[str, int] = field(default_factory=dict)
    dim: int = 0
    # its sizes, by the keys of an align recipe
    fuser: Mapping[str, int] = field(default_factory=dict)
    caveats: Sequence[str] = ()  # of every number that depends on it

    @cached_property
    def digest(self) -> str:
        """Digest of the weights (64 hexadecimal digits), which are fetched for it;
        empty without any.
        """
        if self.folder is None:
            return ""
        return str(parts.load("priors", self.kind).digest(self.reference))


def load(reference: str, **options: Any) -> Any:
    """Load a prior of any kind, in float32 on the CPU.

    Args:
        reference: `hub:NAME`, `hub:owner/name`, `demo:name`, a folder, the name or
            import path of a kind without weights, or `KIND:…` as that kind reads it.
        options: The kind's own ways of conditioning; None means the kind's default.

    Returns:
        A `Prior`.

    Raises:
        MissingData: if it is not there, or not whole.
        RecipeError: if the kind has no such option.
    """
    kind = kind_of(reference)
    load_kind = parts.load("priors", kind).load

    # pass on the options that are set, and refuse those that the kind's `load` does not
    # know
    chosen = {name: value for name, value in options.items() if value is not None}
    for name in sorted(chosen.keys() - signature(load_kind).parameters.keys()):
        raise RecipeError(
            f"a prior of kind {kind} has no option {name}", f"leave out {name}"
        )
    return load_kind(reference, **chosen)


def describe(reference: str) -> Description:
    """Describe a prior of any kind without reading its weights; MissingData if its
    config is not whole.
    """
    return parts.load("priors", kind_of(reference)).describe(reference)


def find_input(reference: str) -> Input:
    """Look for a prior, as an input of a command, with its digest."""
    name = f"prior {reference}"
    try:
        digest = describe(reference).digest
    except BrainhiveError as error:
        return Input(name, error=error, reference=reference)
    return Input(name, reference=reference, digest=digest)


def kind_of(reference: str) -> str:
    """Find the kind of a prior.

    Args:
        reference: `KIND` or `KIND:…`, of the shelf or as an import path; or of a
            folder, whose config.json names the kind.
    """
    # a kind of the shelf, or the import path of a user's kind
    prefix = reference.partition(":")[0]
    if parts.is_kind("priors", prefix):
        return parts.kind_from_file_name(prefix)
    is_path = "." in prefix and all(word.isidentifier() for word in prefix.split("."))
    if is_path and not locate(prefix).exists():
        return prefix

    # a folder, whose config names the kind
    folder = hub.folder(reference, allow=["config.json", "*/config.json"], owner=OWNER)
    path = folder / "config.json"
    if not path.is_file():
        return DEFAULT
    written = documents.read_download(path)
    return str(written.get("kind", DEFAULT))
