"""Facts of explain."""

from typing import Any, Literal

from brainhive_cli.core.results import SIGNIFICANCE_LEVEL, Facts, FrozenModel


class AxisClaim(FrozenModel):
    """Time, sensor or region whose signals tell which picture was seen.

    Attributes:
        axis: Axis along which positions were tested.
        place: Position with the strongest effect, if possible significant.
        p: p of this position, corrected for all positions of all analyses.
        first: First time above chance, or time by which an effect has begun, or "".
    """

    axis: Literal["time", "sensor", "region"]
    place: str
    p: float
    first: str = ""

    @property
    def is_significant(self) -> bool:
        """True if a position along the axis is significant."""
        return self.p < SIGNIFICANCE_LEVEL


class ExplanationFacts(Facts):
    """Facts of explain.

    Attributes:
        claims: Positions whose signals tell which picture was seen.
        untested: Reason why there are no claims.
        excluded: What a default analysis that does not apply is for, by analysis.
        draws: Number of permutations of the labels.
        profiles: Axis, positions, p and first time above chance of each analysis.
        ceilings: Noise ceilings at each position, by metric and name.
        generalisation: p [P, P] of a classifier, by training time and test time.
    """

    command: str = "explain"
    claims: list[AxisClaim] = []
    untested: str = ""
    excluded: dict[str, str] = {}
    draws: int = 0
    profiles: list[dict[str, Any]] = []
    ceilings: dict[str, dict[str, list[float]]] = {}  # metric, name, positions
    generalisation: list[list[float]] = []

    @property
    def has_model_scopes(self) -> bool:
        """False, because the scopes are times, sensors, regions or bands."""
        return False
