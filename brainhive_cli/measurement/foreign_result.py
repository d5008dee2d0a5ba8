"""A retrieval result of another project: its similarities and its published claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from brainhive_cli.core.base import Float64, Int64
from brainhive_cli.measurement.ranks import TIE_TOLERANCE, rank_targets

PRECISION = {torch.float16: 1e-3, torch.float32: 1e-6}
"""Rounding error of a file's similarities by data type, as a share of the largest.
Other types have `TIE_TOLERANCE`.
"""


@dataclass(frozen=True)
class ForeignResult:
    """Similarities of test signals to a gallery, with the claims of the publisher.

    The pictures of the gallery are ranked for each signal, or signals for each picture
    if `ranked_pictures` is set. N is the number of rankings.

    Attributes:
        similarities: Similarities [N, M] of the candidates in each ranking. A larger
            value means more similar.
        targets: Right candidates [N, K], as column numbers of `similarities`. Rows with
            fewer than K are padded with -1.
        seen_names: Name [N] of the seen picture of each ranking.
        train_ids: Names of the training pictures.
        gallery: Embeddings [M, D] of the pictures, or None.
        train_embeddings: Embeddings [T, D] of the training pictures, or None.
        log: Scores [E] of E epochs, keyed by the name of the score.
        claims: Claimed values by name, with shares in percent. `interval` is half the
            width of a confidence interval, `trainings` the number of seeds or subjects
            if the values are their means, and `rounding` the largest rounding error of
            the top-k scores by their decimals.
        k: The k of the top-k score that is checked.
        predictions: Predicted embeddings [N, D], or None.
        alternative_targets: Targets [N, K] by other usual meanings of the labels, keyed
            by the meaning.
        other_trainings: Results of the other seeds or subjects in the files.
        n_missing: Number of similarities that are masked or not a finite number.
        ranked_pictures: Gallery row [N] of the picture for which signals are ranked, or
            None if pictures are ranked.
    """

    similarities: Tensor
    targets: Tensor
    seen_names: Sequence[str]
    train_ids: Sequence[str] = ()
    gallery: Tensor | None = None
    train_embeddings: Tensor | None = None
    log: Mapping[str, Float64] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    k: int = 1
    predictions: Tensor | None = None
    alternative_targets: Mapping[str, Tensor] = field(default_factory=dict)
    other_trainings: Sequence["ForeignResult"] = ()
    n_missing: int = 0
    ranked_pictures: Tensor | None = None

    @property
    def picture_rows(self) -> Tensor:
        """Gallery row [N] of the seen picture of each ranking."""
        if self.ranked_pictures is None:
            return self.targets[:, 0]
        return self.ranked_pictures

    @property
    def pool(self) -> int:
        """Number of candidates in a ranking. All right candidates count as one."""
        return self.similarities.shape[1] - self.targets.shape[1] + 1

    @cached_property
    def ranks(self) -> Int64:
        """Ranks [N] of the targets. Ties count against the model."""
        return self.rank_with_ties(TIE_TOLERANCE)

    @cached_property
    def rank_ranges(self) -> tuple[Int64, Int64]:
        """Lowest and highest rank [N] of each target that rounding allows."""
        tolerance = PRECISION.get(self.similarities.dtype, TIE_TOLERANCE)
        return self.rank_with_ties(-tolerance), self.rank_with_ties(tolerance)

    def rank_with_ties(self, tolerance: float) -> Int64:
        """Rank the targets, where similarities within a tolerance are tied.

        Args:
            tolerance: Share of the largest similarity. Ties count against the model if
                it is positive, and for the model if it is negative.

        Returns:
            Ranks [N], from 1.
        """
        values = self.similarities.double()
        largest = float(values.abs().max()) or 1.0
        return rank_targets(values / largest, None, self.targets, tolerance).numpy()

    def compute_top_k(self, ranks: Int64 | None = None) -> float:
        """Compute the top-k score that is checked, in percent.

        Args:
            ranks: Ranks [N] to use. The default is the ranks of this result.
        """
        if ranks is None:
            ranks = self.ranks
        return 100 * float((ranks <= self.k).mean())
