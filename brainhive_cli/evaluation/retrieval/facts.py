"""Facts of eval-retrieval."""

from typing import Any

from brainhive_cli.core.results import Answer, Difference, Facts, FrozenModel


class GalleryFacts(FrozenModel):
    """Candidates of a retrieval.

    Attributes:
        dataset: Data set of the candidates.
        splits: Splits whose pictures are candidates.
        pictures: Number of candidates.
        held_out: Description of held-out trials, or "" for held-out pictures.
        digest: Digest of the candidates, equal in comparable runs.
    """

    dataset: str
    splits: Any = None
    pictures: int
    held_out: str = ""
    digest: str


class Control(FrozenModel):
    """Distribution of metrics under shuffled signals or permuted labels.

    Attributes:
        kind: Name of the control.
        draws: Number of draws.
        n: Number of items.
        pool: Number of candidates of each item.
        metrics: The value without the control (`measured`), `mean` of the draws, their
            middle 95 % (`low`, `high`) and `p`, by metric.
    """

    kind: str
    draws: int
    n: int
    pool: int
    metrics: dict[str, dict[str, float]]


MAX_MISFILED_P = 0.001
"""Largest corrected p at which pictures are suspected to be filed in a wrong order. The
orders are tested for each result at chance, so a limit of .05 would suspect one sound
study in twenty.
"""


class Baseline(FrozenModel):
    """Ridge regression in closed form, fitted as a baseline for a model.

    If the model is at chance, the ridge also looks for the pictures in other orders.

    Attributes:
        reason: Reason why no ridge or no other order was tried, or "".
        answer: Test of the ridge's ranks against chance.
        orders: Number of other orders that were tried.
        order: Order in which the ridge finds the pictures, or "".
        order_p: p of this order, corrected for `orders`.
    """

    reason: str = ""
    answer: Answer | None = None
    orders: int = 0
    order: str = ""
    order_p: float | None = None

    @property
    def may_be_misfiled(self) -> bool:
        """True if the pictures are probably filed in a wrong order."""
        return self.order_p is not None and self.order_p <= MAX_MISFILED_P


class ConfusionMatrix(FrozenModel):
    """Confusion matrix of K concepts.

    Attributes:
        names: Names [K] of the concepts.
        counts: Number of trials [K, K], seen concept by decoded concept.
    """

    names: list[str]
    counts: list[list[int]]


class RetrievalFacts(Facts):
    """Facts of eval-retrieval.

    Attributes:
        claims: Sentence on the claims that the design allows.
        gallery: Candidates.
        control: Distribution under a control.
        prior: Run of the prior, a model from brain tokens to a generator's inputs.
        lone_channel: Channel that ranks better than all others together, or "".
        confusion_matrix: Confusion matrix of trials, or None with many concepts.
        tests_trials: True if trials, not pictures, were held out.
        plain: Differences between the model and simple baselines.
        baseline: Ridge that was fitted as a baseline.
        repetitions: Largest number of repetitions in the noise ceiling, or 0.
        subset_ways: Requested size of the subsets of the candidates, or 0.
        subset_pools: Sizes of the subsets, ascending. They may be less than requested.
        trained_concepts: Number of tested pictures whose concept was trained.
    """

    command: str = "eval-retrieval"
    claims: str = ""
    gallery: GalleryFacts | None = None
    control: Control | None = None
    prior: str | None = None
    lone_channel: str = ""
    confusion_matrix: ConfusionMatrix | None = None
    tests_trials: bool = False
    plain: list[Difference] = []
    baseline: Baseline | None = None
    repetitions: int = 0
    subset_ways: int = 0
    subset_pools: list[int] = []
    trained_concepts: int = 0

    @property
    def tests_categories(self) -> bool:
        """True if held-out trials were assigned to categories that training showed."""
        return self.tests_trials and self.stimulus == "category"

    @property
    def hit_metric(self) -> str:
        """Name of the metric that counts how often the seen stimulus came first."""
        return "accuracy" if self.tests_categories else "top1"

    @property
    def shared_gallery(self) -> GalleryFacts | None:
        """Candidates of the retrieval."""
        return self.gallery

    @property
    def is_control(self) -> bool:
        """True if signals were shuffled or labels permuted."""
        return self.control is not None

    @property
    def has_bars(self) -> bool:
        """True, because people differ in how often their stimulus is found."""
        return True

    @property
    def is_worse_than_ridge(self) -> bool:
        """True if a ridge on the same signals is significantly better."""
        for difference in self.plain:
            is_ridge = difference.second == "ridge" and difference.is_significant
            if is_ridge and not difference.is_better:
                return True
        return False
