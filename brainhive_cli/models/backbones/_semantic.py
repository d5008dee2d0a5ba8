"""HAVIR's Semantic Extractor: a hidden vector to CLIP's image tokens and text tokens.

Source: BrainNetwork of MindEye1 (arXiv 2305.18274, MIT), which HAVIR (arXiv 2510.03122) follows.
"""

from itertools import pairwise

from torch import Tensor, nn

from brainhive_cli.models.backbones._residual import layers
from brainhive_cli.models.heads import Heads

PROJECTED = "_projected"
"""After the name of a head: its tokens through the projector, for contrastive losses and retrieval."""


class SemanticExtractor(nn.Module):
    """Residual MLPs that all heads share, a linear map to each, and a projector of each one's tokens.

    Args:
        heads: Any names; vectors [D] or tokens [S, D].
        hidden: H, width of the residual MLPs.
        blocks: How many of them.
        dropout: Probability of dropping a unit in them.
        rank: Width between the two factors of the map to a head; None is one matrix.
        projector: Width of the projectors; 0 is none.
    """

    def __init__(
        self, heads: Heads, hidden: int, blocks: int, dropout: float, rank: int | None, projector: int
    ) -> None:
        super().__init__()
        self.shapes = {name: head.shape for name, head in heads.items()}
        self.mlp = nn.ModuleList(
            nn.Sequential(*layers(hidden, hidden, nn.GELU(), dropout, bias=True)) for _ in range(blocks)
        )
        self.lin1 = nn.ModuleDict({name: _map(hidden, head.width, rank) for name, head in heads.items()})
        made = {name: _projector(head.shape[-1], projector) for name, head in heads.items() if projector}
        self.projector = nn.ModuleDict(made)

    def forward(self, x: Tensor, projected: set[str] | None = None) -> dict[str, Tensor]:
        """Map [B, H] to the heads [B, *shape], and those of `projected` (default: all) through projectors."""
        for block in self.mlp:
            x = x + block(x)
        found = {name: each(x).unflatten(1, self.shapes[name]) for name, each in self.lin1.items()}
        for name, each in self.projector.items():
            if projected is None or name + PROJECTED in projected:
                found[name + PROJECTED] = each(found[name])
        return found


def _map(hidden: int, width: int, rank: int | None) -> nn.Module:
    if rank is None:
        return nn.Linear(hidden, width)
    return nn.Sequential(nn.Linear(hidden, rank, bias=False), nn.Linear(rank, width))


def _projector(width: int, hidden: int) -> nn.Sequential:
    widths = (width, hidden, hidden, width)
    three = [(nn.LayerNorm(a), nn.GELU(), nn.Linear(a, b)) for a, b in pairwise(widths)]
    return nn.Sequential(*(layer for each in three for layer in each))
