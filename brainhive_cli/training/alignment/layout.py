"""Architecture of an aligner, as the `config.json` of a model folder has it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.heads import FUSED, TOKEN, Heads
from brainhive_cli.models.signal_spec import SignalSpec

Fields = dict[str, Any]
Similarity = Literal["cosine", "centred_cosine", "cosine_from_mean"]
FROM_MEAN = "cosine_from_mean"

Format = Literal[7]
FORMAT: Format = 7
"""Version of the model folder; the number that its config.json carries."""


@dataclass(frozen=True)
class Layout:
    """Architecture of an aligner.

    Attributes:
        spec: The signals that the backbone is built for.
        heads: What it predicts.
        backbone: The backbone's Config, as a mapping with its kind.
        fuser: The fuser's Config, as a mapping with its kind; empty where no head's
            target is fused.
        dims: Width of each embedding that is fused, by the fuser's key.
        encoders: The key of each encoder's embeddings, by the encoder's store name.
        subject_layer: What is learned for each subject before the backbone; `none`, or
            `linear`.
        similarity: How vectors are compared; `cosine`, `centred_cosine`, whose
            vectors have mean 0, so that it is the correlation, or `cosine_from_mean`,
            of the differences from the mean training target.
        retrieval_heads: Heads that retrieval compares; the similarity of several is the
            mean of theirs. If
            empty: the head `token`, or the only one.
        prior: The prior whose fusion encoder it holds frozen; empty when it has its
            own.
        prior_digest: Digest of the weights of that prior, by which it is known.
        adapter: Which encoders' network the model changes, and how: their names, digest
            of its weights, rank, alpha, and outputs and inputs of each map; empty where
            encoders are frozen.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    spec: SignalSpec
    heads: Heads
    backbone: Fields
    fuser: Fields = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)
    subject_layer: Literal["none", "linear"] = "none"
    similarity: Similarity = "cosine"
    retrieval_heads: tuple[str, ...] = ()
    prior: str = ""
    prior_digest: str = ""
    adapter: Fields = field(default_factory=dict)

    @property
    def fused(self) -> Heads:
        """The heads whose target the fuser makes."""
        return {name: head for name, head in self.heads.items() if head.target == FUSED}

    @property
    def compared(self) -> tuple[str, ...]:
        """The heads that retrieval compares.

        Raises:
            RecipeError: if there are several and none is named.
        """
        if self.retrieval_heads:
            return self.retrieval_heads
        # by default the fused token, or the only head
        if TOKEN in self.heads or len(self.heads) == 1:
            return (TOKEN if TOKEN in self.heads else next(iter(self.heads)),)
        raise RecipeError(
            (
                f"the model has the heads {', '.join(self.heads)}, and nothing says "
                "which retrieval compares"
            ),
            f"head={next(iter(self.heads))}",
        )

    @property
    def compared_keys(self) -> set[str]:
        """Keys of the embeddings that the targets of these heads are made from."""
        return self.keys_of(self.compared)

    def keys_of(self, heads: Iterable[str]) -> set[str]:
        """Give the keys of the embeddings that the targets of some heads are made
        from.
        """
        # a fused target is made from all embeddings of the fuser
        targets = {self.heads[name].target for name in heads}
        return targets - {FUSED} | ({*self.dims} if FUSED in targets else set())

    def check(self) -> None:
        """Refuse heads to compare that the model does not have."""
        if unknown := [name for name in self.retrieval_heads if name not in self.heads]:
            raise RecipeError(
                f"no head called {unknown[0]!r}", f"there are: {', '.join(self.heads)}"
            )

    def as_dict(self) -> Fields:
        """Return plain values for a model folder's config.json."""
        return {
            "format": FORMAT,
            **vars(self),
            # `vars` is shallow: nested dataclasses become plain values here
            "spec": asdict(self.spec),
            "heads": {name: asdict(head) for name, head in self.heads.items()},
        }


def tokens_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the axes before the width that embeddings have in common: () of vectors,
    (S,) of tokens.

    Raises:
        RecipeError: if some shapes cannot be fused.
    """
    # axes before the width D: () of vectors, (S,) of tokens
    leading = {shape[:-1] for shape in shapes.values()}
    if len(leading) != 1 or any(len(axes) > 1 for axes in leading):
        listed = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
        raise RecipeError(
            (
                f"embeddings of {listed} cannot be fused: they need to be vectors, or "
                "as many tokens each"
            ),
            "give each a head of its own",
        )
    return leading.pop()
