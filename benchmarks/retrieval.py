"""How fast signals are ranked among a million vectors, compared with the bare product, and in what memory.

Both sides see the same blocks in turns; the drawing of blocks is not counted.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from figures import show
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.evaluation.retrieval.rankings import Gallery, Queries, rank_all
from brainhive_cli.measurement.ranks import ranks

SIGNALS, DIM, BLOCK = 200, 1024, 4096
"""THINGS' test pictures, BrainHiVE's token, and how many vectors are drawn at once."""
ROUNDS = 10


class Stream:
    """Random vectors, block by block; it measures the time that drawing them takes."""

    def __init__(self, count: int, seed: int, device: str, clock: Callable[[], float]) -> None:
        self.count, self.device, self.clock, self.drawing_s = count, device, clock, 0.0
        self.random = torch.Generator(device).manual_seed(seed)

    def __iter__(self) -> Iterator[Tensor]:
        """Draw all blocks [m, D]."""
        for start in range(0, self.count, BLOCK):
            before = self.clock()
            size = (min(BLOCK, self.count - start), DIM)
            block = torch.randn(size, generator=self.random, device=self.device)
            self.drawing_s += self.clock() - before
            yield block


def product(signals: Tensor, stream: Stream) -> None:
    """Multiply unit signals with every block: the least that ranking takes."""
    unit = normalize(signals, dim=1)
    for block in stream:
        unit @ block.T


def seconds(work: Callable[[Stream], object], stream: Stream) -> float:
    """Time `work` on a stream, without the drawing."""
    start = stream.clock()
    work(stream)
    return stream.clock() - start - stream.drawing_s


def now(device: str, busy: bool) -> float:
    """Read the clock, when the device has finished; `busy` counts seconds on a core."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if busy else time.perf_counter()


def against_product(vectors: int, device: str, busy: bool) -> None:
    """Compare one stream of random vectors, ranked, with the bare product."""
    signals, gallery = torch.randn(2, SIGNALS, DIM, device=device)  # chance: the most near-ties
    rank = partial(ranks, signals, gallery, torch.arange(SIGNALS))
    clock = partial(now, device, busy)
    ours = bare = 0.0
    for seed in range(-1, ROUNDS):
        both = [Stream(vectors // ROUNDS, seed + 1, device, clock) for _ in range(2)]
        times = seconds(rank, both[0]), seconds(partial(product, signals), both[1])
        if seed >= 0:  # the first round warms
            ours, bare = ours + times[0], bare + times[1]
    detail = f"{vectors:,} vectors: {ours:.2f} s, the bare product {bare:.2f} s"
    show("ranking: of the bare product's speed", bare / ours, 0.8, detail)


def two_streams(vectors: int, device: str, busy: bool) -> None:
    """Rank as `eval-retrieval distractors=` does: one stream for ranks, and one for average precision."""
    tokens = torch.randn(SIGNALS, DIM, device=device)
    ids = [f"picture-{n}" for n in range(SIGNALS)]
    concepts = [f"concept-{n // 2}" for n in range(SIGNALS)]  # of two pictures, or precision is one over rank
    there = np.arange(SIGNALS)
    gallery = Gallery(tokens, ids, concepts, there, vectors, seed=0)
    queries = {1: Queries(tokens + torch.randn_like(tokens), there, there)}
    clock = partial(now, device, busy)
    start = clock()
    rank_all(gallery, queries)
    took_s, start = clock() - start, clock()
    for _ in range(2):
        for block in gallery.distractors():
            block.sum()
    drawing_s = clock() - start
    detail = f"twice {vectors:,} vectors, of which drawing them takes {drawing_s:.1f} s"
    show("eval-retrieval: two streams of distractors, s", took_s, detail=detail)


def main() -> None:
    """Show the speed of both and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--busy", action="store_true", help="count seconds on a core: others use the machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for part in (against_product, two_streams):
        part(args.vectors, args.device, args.busy)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    show("peak memory, GiB", peak_gib, 2, at_most=True)


if __name__ == "__main__":
    main()
