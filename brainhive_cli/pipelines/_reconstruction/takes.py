"""What pictures are drawn from: brain tokens, image tokens as the ceiling, shuffled signals as the floor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.errors import RecipeError
from brainhive_cli.pipelines._alignment.cells import Cell
from brainhive_cli.pipelines._fused import match_keys
from brainhive_cli.pipelines._retrieval.align_run import AlignRun
from brainhive_cli.pipelines._retrieval.member import Member
from brainhive_cli.priors.fusion_prior import FusionPrior

Source = Literal["brain", "images", "shuffled"]


@dataclass(frozen=True)
class Take:
    """Tokens of one source, one for each item.

    Attributes:
        source: Where they come from.
        cell: Whose brain encoder made them; None for image tokens, which need none.
        subject: Whose signals; None for image tokens.
        image_ids: The items, [N].
        made_of: The image id whose signal or embedding each token was made of; another item's if shuffled.
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
        return {"brain": whose, "images": "images", "shuffled": f"shuffled/{whose}"}[self.source]

    def file(self, image_id: str, repeat: int) -> str:
        """The path of a picture below the run's folder."""
        return f"samples/{self.name}/{image_id}/{repeat:02d}.png"

    def first(self, items: int | None) -> "Take":
        """Keep some items, from the start; all when None."""
        return replace(
            self, image_ids=self.image_ids[:items], made_of=self.made_of[:items], tokens=self.tokens[:items]
        )


def takes_of(
    sources: Sequence[Source],
    align: AlignRun,
    cells: Sequence[tuple[Cell, int]],
    prior: FusionPrior,
    split: str,
    items: int | None,
    device: torch.device,
) -> list[Take]:
    """Make the tokens of each source, for the same items.

    Args:
        sources: In the order wanted.
        align: The run whose brain encoders are used.
        cells: Each with a subject it is tested on.
        prior: Fuses the image tokens.
        split: Whose signals.
        items: How many of them, from the start; all when None.
        device: Where brain encoders run.
    """
    brain = [_from_brain(align, cell, subject, split, device) for cell, subject in cells]
    made = {"brain": brain}
    if "shuffled" in sources:
        made["shuffled"] = [_shuffled(take) for take in brain]
    kept = {source: [take.first(items) for take in takes] for source, takes in made.items()}
    if "images" in sources:
        shown = dict.fromkeys(image_id for take in kept["brain"] for image_id in take.image_ids)
        kept["images"] = [_from_images(align, list(shown), prior, split)]
    return [take for source in dict.fromkeys(sources) for take in kept[source]]


def _from_brain(align: AlignRun, cell: Cell, subject: int, split: str, device: torch.device) -> Take:
    member = Member.load(align, cell, device)
    pictures = member.pictures(split)
    tokens, rows = member.tokens(subject, split)
    image_ids = [pictures.image_ids[row] for row in rows]
    return Take("brain", cell, subject, image_ids, image_ids, tokens)


def _shuffled(take: Take) -> Take:
    """Deal every signal to another item."""
    if len(take.image_ids) < 2:
        raise RecipeError("one signal cannot be shuffled", "leave `shuffled` out of sources")
    assert take.cell is not None and take.subject is not None
    order = np.random.default_rng((take.cell.seed, take.subject)).permutation(len(take.image_ids))
    giver = np.empty_like(order)
    giver[order] = np.roll(order, 1)  # its neighbour in a random order, and so never itself
    made_of = [take.image_ids[n] for n in giver]
    return replace(take, source="shuffled", made_of=made_of, tokens=take.tokens[torch.from_numpy(giver)])


def _from_images(align: AlignRun, image_ids: list[str], prior: FusionPrior, split: str) -> Take:
    encoders, _ = align.made_with[align.cells[0].variant]
    keys = match_keys(encoders, prior.dims, "the prior")
    device = next(prior.parameters()).device
    embeddings = {
        keys[name]: torch.from_numpy(np.asarray(store.embedding[store.rows(image_ids)], np.float32)).to(
            device
        )
        for name, store in align.stores(split).items()
    }
    with torch.inference_mode():
        return Take("images", None, None, image_ids, image_ids, prior.fuse(embeddings))
