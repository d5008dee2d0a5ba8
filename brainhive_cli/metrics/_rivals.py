"""Candidates that are as like a token as what it belongs to, counted over galleries of any size."""

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

    Blocks are compared in float32; those similarities that float32 cannot tell from the query's own are
    compared again in float64, so the counts are those of float64 however the gallery is cut.

    Args:
        queries: [N, D].
        gallery: [M, D].
        targets: Right candidates, [N, K] places in the gallery; -1 where there are fewer than K.
        own: Similarities to be beaten, [N, J] in float64 (see `similarity_to`).
        distractors: Further wrong candidates, in blocks [m, D]; each is read once.

    Returns:
        Counts [N, J].

    Raises:
        BrainhiveError: if a distractor is not finite.
    """
    exact = unit(queries)
    rows = torch.arange(len(exact), device=exact.device).split(max(1, BLOCK // CANDIDATES))
    counts = torch.zeros(own.shape, dtype=torch.int64, device=exact.device)
    rough, margin = exact.float(), _margin(exact.shape[1])
    with torch.autocast(exact.device.type, enabled=False):
        for start, block in _blocks(gallery, distractors):
            block = block.to(exact.device).float()
            lengths = torch.linalg.vector_norm(block, dim=1)
            if not lengths.isfinite().all():
                raise BrainhiveError("a candidate of the gallery is not finite", "look for NaN in its tokens")
            lengths.clamp_(min=SHORTEST)
            for part in rows:
                similarity = (rough[part] @ block.T).div_(lengths)  # [n, m]
                _hide(similarity, targets[part] - start)
                for column in range(own.shape[1]):
                    mine = own[part, column, None]
                    counts[part, column] += _count(similarity, exact[part], block, mine, margin)
    return counts


def _blocks(gallery: Tensor, distractors: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of candidates with the place of their first in the gallery; beyond it for distractors."""
    yield from zip(range(0, len(gallery), CANDIDATES), gallery.split(CANDIDATES), strict=True)
    for more in distractors:
        yield from ((len(gallery), block) for block in more.split(CANDIDATES))


def _hide(similarity: Tensor, places: Tensor) -> None:
    """Take the right candidates out of a block, where [n, K] places say they are."""
    row, which = ((places >= 0) & (places < similarity.shape[1])).nonzero(as_tuple=True)
    similarity[row, places[row, which]] = -math.inf


def _count(similarity: Tensor, exact: Tensor, block: Tensor, own: Tensor, margin: float) -> Tensor:
    low, high = own.float() - margin, own.float() + margin
    marks = torch.empty_like(similarity)  # sums of floats are five times as fast as those of booleans
    count = torch.gt(similarity, high, out=marks).sum(1).long()
    row = (torch.gt(similarity, low, out=marks).sum(1) > count).nonzero()[:, 0]
    if len(row):
        near = (similarity[row] > low[row]) & (similarity[row] <= high[row])
        candidate = near.any(0).nonzero()[:, 0]
        again = exact[row] @ unit(block[candidate]).T
        count[row] += (near[:, candidate] & (again >= own[row] - TIE)).sum(1)
    return count


def _margin(dim: int) -> float:
    """How far a float32 cosine may be off; infinite where products are rounded to less than float32.

    Rounding errors of a sum of D products add up as a random walk does, to √D u or less, u being 2⁻²⁴ (Higham
    and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis). Twice that, and a little for
    lengths, is some fifty times what is measured.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return math.inf
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
    if tokens.device.type == "mps":
        tokens = tokens.cpu()  # it has no float64
    return F.normalize(tokens.detach().double(), dim=-1, eps=SHORTEST)
