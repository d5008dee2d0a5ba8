"""How many candidates are at least as similar to a token as its own, counted over galleries of any size."""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError

TIE = 1e-12
"""Similarities closer than this are equal: above the rounding of float64, below that of float32 tokens."""
CANDIDATES = 4096
"""Candidates that are compared at once: with a few hundred queries, what a core's caches hold."""
BLOCK = 2**22
"""Similarities that are held at once (16 MB), so that many queries fit too."""
SHORTEST = 1e-12
"""A token shorter than this has no direction: its similarity to all is 0."""


def count_at_least(
    queries: Tensor, gallery: Tensor, targets: Tensor, own: Tensor, distractors: Iterable[Tensor] = ()
) -> Tensor:
    """Count the wrong candidates whose cosine similarity is at least a query's own; ties count.

    Blocks are compared in float32; candidates that float32 cannot distinguish from the query's own are
    compared again in float64, so the counts are those of float64 however the gallery is cut.

    Args:
        queries: [N, D].
        gallery: [M, D].
        targets: Right candidates, [N, K] places in the gallery; -1 where there are fewer than K.
        own: Similarities to count against, [N, J] in float64 (see `similarity_to`).
        distractors: Further wrong candidates, in blocks [m, D]; each is read once.

    Returns:
        Counts [N, J].

    Raises:
        BrainhiveError: if a distractor is not finite.
    """
    exact, counts = unit(queries), torch.zeros(own.shape, dtype=torch.int64, device=queries.device)
    rough, margin = exact.float(), _rounding(queries.shape[1])
    size = max(1, min(CANDIDATES, BLOCK // len(queries)))
    with torch.autocast(queries.device.type, enabled=False):
        for start, block in _blocks(gallery, distractors, size):
            block = block.to(queries.device).float()
            lengths = torch.linalg.vector_norm(block, dim=1)
            if not lengths.isfinite().all():
                raise BrainhiveError("a candidate of the gallery is not finite", "look for NaN in its tokens")
            similarity = (rough @ block.T).div_(lengths.clamp_(min=SHORTEST))  # [N, m]
            _hide(similarity, targets - start)
            for column, threshold in enumerate(own.unsqueeze(2).unbind(1)):  # [N, 1]
                counts[:, column] += _count(similarity, exact, block, threshold, margin)
    return counts


def _count(similarity: Tensor, exact: Tensor, block: Tensor, own: Tensor, margin: float) -> Tensor:
    low, high = own.float() - margin, own.float() + margin
    marks = torch.empty_like(similarity)  # sums of floats are five times as fast as those of booleans
    count = torch.gt(similarity, high, out=marks).sum(1).long()
    row = (torch.gt(similarity, low, out=marks).sum(1) > count).nonzero()[:, 0]
    near = (similarity[row] > low[row]) & (similarity[row] <= high[row])
    candidate = near.any(0).nonzero()[:, 0]  # to be compared in float64
    again = exact[row] @ unit(block[candidate]).T >= own[row] - TIE
    count[row] += (near[:, candidate] & again).sum(1)
    return count


def _blocks(gallery: Tensor, distractors: Iterable[Tensor], size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of candidates with the place of their first in the gallery; beyond it for distractors."""
    yield from zip(range(0, len(gallery), size), gallery.split(size), strict=True)
    for more in distractors:
        yield from ((len(gallery), block) for block in more.split(size))


def _hide(similarity: Tensor, places: Tensor) -> None:
    """Take the right candidates out of a block, where [N, K] places say they are."""
    row, which = ((places >= 0) & (places < similarity.shape[1])).nonzero(as_tuple=True)
    similarity[row, places[row, which]] = -math.inf


def _rounding(dim: int) -> float:
    """Bound the error of a float32 cosine.

    Rounding errors of a sum of D products grow as a random walk, to √D u or less, u being 2⁻²⁴ (Higham and
    Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Twice that, and a little for lengths.
    """
    return (2 * math.sqrt(dim) + 16) * 2.0**-24


def similarity_to(queries: Tensor, gallery: Tensor, targets: Tensor) -> Tensor:
    """Return the cosine similarity of each query with its targets: [N, K] in float64, -inf where -1."""
    pieces = max(1, BLOCK // (targets.shape[1] * queries.shape[1]))
    found = [
        torch.einsum("nd,nkd->nk", unit(some), unit(gallery[places.clamp(min=0)]))
        for some, places in zip(queries.split(pieces), targets.split(pieces), strict=True)
    ]
    return torch.cat(found).masked_fill(targets < 0, -math.inf)


def unit(tokens: Tensor) -> Tensor:
    """Bring tokens to unit length in float64."""
    return F.normalize(tokens.detach().double(), dim=-1, eps=SHORTEST)
