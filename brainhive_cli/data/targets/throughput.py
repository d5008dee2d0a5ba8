"""The throughput of embedding: what limits it, decoding, one of the encoders, or writing."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
DECODING, WRITING = "decoding", "writing"
RECENT = 0.95
"""The weight of a second one batch later, so that about the last twenty batches count."""
HIDDEN = 0.1
"""Decoding in other processes is the limit once encoders wait for it more than this share of the time."""


class Pace:
    """Seconds spent at each stage.

    Args:
        parallel: Whether decoding runs in other processes, so that only waiting for it is measured.
    """

    def __init__(self, parallel: bool) -> None:
        self._parallel = parallel
        self._spent: dict[str, float] = defaultdict(float)

    def batches(self, source: Iterable[T]) -> Iterator[T]:
        """Yield what `source` yields, counting the time that it takes as decoding."""
        of = iter(source)
        while True:
            start = time.perf_counter()
            try:
                batch = next(of)
            except StopIteration:
                return
            for stage in self._spent:
                self._spent[stage] *= RECENT
            self.count(DECODING, time.perf_counter() - start)
            yield batch

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        yield
        self.count(stage, time.perf_counter() - start)

    def count(self, stage: str, spent_s: float) -> None:
        """Count seconds at a stage."""
        self._spent[stage] += spent_s

    @property
    def limit(self) -> str:
        """The stage that holds the others up; empty before the first."""
        if self._parallel and self._spent.get(DECODING, 0.0) > HIDDEN * sum(self._spent.values()):
            return DECODING
        return max(self._spent, key=self._spent.__getitem__, default="")
