"""What pictures are drawn from: brain or image tokens (the ceiling), shuffled or zeroed ones (the floor)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.alignment.trained_cell import Member
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_keys import match_keys
from brainhive_cli.data.targets import Targets
from brainhive_cli.priors.fusion_prior import FusionPrior

Source = Literal["brain", "images", "shuffled", "zeroed", "nearest", "mean"]
"""All but the last two are drawn; those are pictures of the training set (see `baselines`)."""
BATCH = 8192
"""Pictures whose embeddings are fused at once."""


@dataclass(frozen=True)
class TokenSet:
    """Tokens of one source, one for each item.

    Attributes:
        source: Where they come from.
        cell: Whose brain encoder made them; None for image tokens and zeroed ones, which need none.
        subject: Whose signals; None for tokens of none.
        image_ids: The items, [N].
        made_of: The image id whose signal or embedding each token was made of: another item's if shuffled,
            its own if zeroed.
        tokens: [N, D].
    """

    source: Source
    cell: Cell | None
    subject: int | None
    image_ids: list[str]
    made_of: list[str]
    tokens: Tensor

    @property
    def name(self) -> str:
        """The folder of its pictures below `samples`."""
        whose = f"{self.cell.name}/sub-{self.subject:02d}" if self.cell else ""
        return whose if self.source == "brain" else f"{self.source}/{whose}".rstrip("/")

    def file(self, image_id: str, repeat: int) -> str:
        """The path of a picture below the run's folder."""
        return f"samples/{self.name}/{image_id}/{repeat:02d}.png"

    def first(self, items: int | None) -> "TokenSet":
        """Keep some items, from the start; all when None."""
        return replace(
            self, image_ids=self.image_ids[:items], made_of=self.made_of[:items], tokens=self.tokens[:items]
        )


def brain_takes(
    align: AlignRun, cells: Sequence[tuple[Cell, int]], split: str, device: torch.device
) -> list[TokenSet]:
    """Make the tokens of all signals of a split.

    Args:
        align: The run whose brain encoders are used.
        cells: Each with a subject it is tested on.
        split: Whose signals.
        device: Where brain encoders run.
    """
    return [_from_brain(align, cell, subject, split, device) for cell, subject in cells]


def takes_of(
    sources: Sequence[Source],
    brain: Sequence[TokenSet],
    align: AlignRun,
    prior: FusionPrior,
    split: str,
    items: int | None,
) -> list[TokenSet]:
    """Make the tokens of each source that is drawn, for the same items.

    Args:
        sources: In the order wanted.
        brain: The tokens of all signals.
        align: The run whose pictures are embedded.
        prior: Fuses the image tokens.
        split: Whose pictures.
        items: How many of them, from the start; all when None.
    """
    made = {"brain": list(brain)}
    if "shuffled" in sources:
        made["shuffled"] = [_shuffled(take) for take in brain]
    kept = {source: [take.first(items) for take in takes] for source, takes in made.items()}
    shown = list(dict.fromkeys(image_id for take in kept["brain"] for image_id in take.image_ids))
    if "images" in sources:
        rows = next(iter(align.stores(split).values())).rows(shown)
        kept["images"] = [TokenSet("images", None, None, shown, shown, fused(align, prior, split, rows))]
    if "zeroed" in sources:
        nothing = torch.zeros_like(brain[0].tokens[:1]).expand(len(shown), -1)
        kept["zeroed"] = [TokenSet("zeroed", None, None, shown, shown, nothing)]
    return [take for source in dict.fromkeys(sources) for take in kept.get(source, [])]


def _from_brain(align: AlignRun, cell: Cell, subject: int, split: str, device: torch.device) -> TokenSet:
    member = Member.load(align, cell, device)
    pictures = member.pictures(split)
    tokens, rows = member.tokens(subject, split)
    image_ids = [pictures.image_ids[row] for row in rows]
    return TokenSet("brain", cell, subject, image_ids, image_ids, tokens)


def _shuffled(take: TokenSet) -> TokenSet:
    """Deal every signal to another item."""
    if len(take.image_ids) < 2:
        raise RecipeError("one signal cannot be shuffled", "leave `shuffled` out of sources")
    assert take.cell is not None and take.subject is not None
    order = np.random.default_rng((take.cell.seed, take.subject)).permutation(len(take.image_ids))
    giver = np.empty_like(order)
    giver[order] = np.roll(order, 1)  # its neighbour in a random order, and so never itself
    made_of = [take.image_ids[n] for n in giver]
    return replace(take, source="shuffled", made_of=made_of, tokens=take.tokens[torch.from_numpy(giver)])


def fused(align: AlignRun, prior: FusionPrior, split: str, rows: NDArray[np.int64]) -> Tensor:
    """Fuse the embeddings of some rows of a split's stores as the prior does: tokens [N, D]."""
    encoders, _ = align.made_with[align.cells[0].variant]
    keys = match_keys(encoders, prior.dims, "the prior")
    alone = Launch(0, 1, next(prior.parameters()).device)
    targets, tokens = Targets.of(align.stores(split), alone, keys, hold=False), []
    for part in np.array_split(rows, -(-len(rows) // BATCH)):
        with torch.inference_mode():
            tokens.append(prior.fuse(targets.gather(part)))
    return torch.cat(tokens)
