"""Names of the scopes in which an evaluation has metrics."""

from collections.abc import Mapping

from brainhive_cli.core.results import BASELINE_CLASSIFIERS, Measurements, Metric

SUBSETS = "subsets"
REGIONS = "regions"
REPETITIONS = "repetitions"
ALONE = "alone"
PLAIN = "plain"
CEILING = "ceiling"
"""First parts of the names of scopes."""
RIDGE = "ridge"
"""Second part of the scope of a ridge, after `PLAIN`."""
DESIGN = "design alone"
"""Second part of the scope of a decoder that knows no signals, after `PLAIN`."""
NEAREST = "nearest training picture"
"""Scope of the slope of scores over the similarity to the nearest training picture."""
REPETITION_DRAWS = 10
"""Number of random choices of k repetitions, over which a curve is averaged."""
BASELINE_TITLES = {
    **BASELINE_CLASSIFIERS,
    RIDGE: "ridge regression",
    DESIGN: "design alone, no signals",
}
"""Titles of the plain baselines, by name."""


def select_scopes(
    measurements: Measurements, first_part: str
) -> dict[str, Mapping[str, Metric]]:
    """Return the metrics of all scopes with a first part, keyed by the other parts."""
    prefix = f"{first_part} · "
    return {
        name.removeprefix(prefix): metrics
        for name, metrics in measurements.scopes.items()
        if name.startswith(prefix)
    }


def name_subject(subject: int) -> str:
    """Return the name of a subject, such as `sub-01`."""
    return f"sub-{subject:02d}"
