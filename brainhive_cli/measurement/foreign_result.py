"""Another project's retrieval result: similarities, and what its publisher claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.measurement.ranks import TIE_TOLERANCE, rank_targets

PRECISION = {torch.float16: 1e-3, torch.float32: 1e-6}
"""Share of the largest similarity below which two similarities of a file are equal; of
float64 it is 1e-12.
"""


@dataclass(frozen=True)
class ForeignResult:
    """Similarities of test signals with a gallery, and what its publisher says of them.

    Attributes:
        similarities: [N, M], larger is more alike.
        targets: Gallery rows that show the seen picture, [N, K], -1 where fewer.
        seen: [N] name of the seen picture.
        train_ids: Names of the training pictures.
        gallery: Embeddings of the gallery [M, D]; None where there are none.
        train_vectors: Those of the training pictures [T, D].
        log: Scores by epoch, by name.
        claims: Claimed values, shares in percent; of an interval half its width.
            `trainings` is 2 or more if values are means over seeds or subjects.
        k: Of the top-k that is judged; `audit` chooses it among the claimed ones.
        predicted: Predictions [N, D], from which similarities can be computed.
        labels: Targets [N, K] by other usual meanings of the labels, by name.
        others: Results of the other seeds or subjects in the files.
        missing: Similarities that are no number, or a mask.
        ranked: Gallery rows [N] of pictures that are ranked among signals, whose rows
            `targets` then has; None if signals are ranked.
    """

    similarities: Tensor
    targets: Tensor
    seen: Sequence[str]
    train_ids: Sequence[str] = ()
    gallery: Tensor | None = None
    train_vectors: Tensor | None = None
    log: Mapping[str, Float64] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    k: int = 1
    predicted: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    others: Sequence["ForeignResult"] = ()
    missing: int = 0
    ranked: Tensor | None = None

    @property
    def pictures(self) -> Tensor:
        """Gallery row [N] of the picture of each rank."""
        return self.targets[:, 0] if self.ranked is None else self.ranked

    @property
    def pool(self) -> int:
        """Candidates of a signal, among them the right one."""
        return self.similarities.shape[1] - self.targets.shape[1] + 1

    @cached_property
    def ranks(self) -> Int64:
        """Ranks [N] with ties against the model."""
        return self.rank(TIE_TOLERANCE)

    @cached_property
    def range_of_ranks(self) -> tuple[Int64, Int64]:
        """Ranks [N] with ties for and against the model, as the file tells values
        apart.
        """
        share = PRECISION.get(self.similarities.dtype, TIE_TOLERANCE)
        return self.rank(-share), self.rank(share)

    def rank(self, share: float) -> Int64:
        """Rank with ties as wide as a share of the largest similarity; if it is
        negative, ties rank for the model.
        """
        values = self.similarities.double()
        values = values / (float(values.abs().max()) or 1.0)
        return rank_targets(values, None, self.targets, share).numpy()

    def top(self, counted: Int64 | None = None) -> float:
        """Compute the judged top-k of these or other ranks, in percent."""
        return 100 * float(
            ((self.ranks if counted is None else counted) <= self.k).mean()
        )
