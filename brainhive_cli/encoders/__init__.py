"""Frozen vision encoders: picture to embedding."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny

from brainhive_cli import hub, parts
from brainhive_cli.recipe import split

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True)
class Encoder:
    """A frozen network with its own preprocessing.

    Attributes:
        module: Pictures [B, 3, H, W] to embeddings [B, D] or [B, S, D].
        preprocess: One RGB picture to [3, H, W].
        preprocessing: What `preprocess` does, in words that tell two ways apart.
        weights: Where the weights come from: source, revision, digest.
    """

    module: "torch.nn.Module"
    preprocess: "Callable[[Image.Image], torch.Tensor]"
    preprocessing: str
    weights: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the network, whoever made it."""
        self.module.eval().requires_grad_(False)


class EncoderConfig(parts.Config):
    """What every encoder's Config has: a name under which its stores are kept."""

    upstream: ClassVar[str] = ""
    """The name that BrainHiVE's own files give this encoder (`proj_meta`)."""
    files: ClassVar[tuple[str, ...]] = ("*.json", "*.safetensors")
    """Which files of `source` are fetched."""
    dim: ClassVar[int | None] = None
    """The width of an embedding, where the defaults fix it: known before any weights are here."""

    @property
    def name(self) -> str:
        """The store's name; knobs other than the default's add a digest, so that stores never mix."""
        standard = type(self).model_construct()
        plain = self._base_name()
        knobs = self.model_dump(mode="json", exclude={"source"})
        if knobs == standard.model_dump(mode="json", exclude={"source"}):
            return plain
        return f"{plain}-{hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:8]}"

    @property
    def known_as(self) -> tuple[str, ...]:
        """The names under which a prior or aligner may know this encoder."""
        return tuple(dict.fromkeys(filter(None, (self.name, self.upstream))))

    def _base_name(self) -> str:
        default = type(self).model_fields.get("source")
        source = getattr(self, "source", None)
        if default is None or source == default.default:
            return self.kind.replace("_", "-")
        return slug(str(source))

    def build(self) -> Encoder:
        """Load the network and its preprocessing."""
        raise NotImplementedError


def slug(source: str) -> str:
    """Make a file name, which is also a module's name, of a reference.

    `hub:owner/name` becomes `owner--name`; a folder `local--name`, so that it never takes an encoder's name.
    """
    below = source.partition(":")[2].replace("/", "--") if ":" in source else f"local--{Path(source).name}"
    return below.replace(":", "-").replace(".", "-")


def weights_of(source: str, folder: Path) -> dict[str, str]:
    """Describe weights for a store's attributes."""
    return {"source": source, "revision": hub.revision(folder), "digest": hub.digest(folder)}


def resolve(reference: Any) -> EncoderConfig:
    """Turn an encoder's name, reference or mapping into its Config.

    A reference is `hub:owner/name`, a local folder, or `python:package.module:function`.
    """
    if isinstance(reference, str):
        is_kind = reference.replace("-", "_") in parts.kinds("encoders")  # also beside a folder of that name
        if reference.startswith("python:"):
            reference = {"kind": "python", "source": reference}
        elif reference.startswith(("hub:", "demo:")) or (not is_kind and Path(reference).is_dir()):
            reference = {"kind": "reference", "source": reference}
    config: EncoderConfig = parts.resolve("encoders", reference)
    return config


def _resolve_all(references: Any) -> Any:
    found = split(references)
    return [resolve(reference) for reference in found] if isinstance(found, list | tuple) else found


Encoders = Annotated[list[SerializeAsAny[EncoderConfig]], BeforeValidator(_resolve_all)]
"""A recipe's list of encoders: names, references or mappings; `a,b` is a list too."""
