"""Names of the scopes of an evaluation, and of the subjects in them."""

from collections.abc import Mapping

from brainhive_cli.core.measurements import Measurements, Metric

SUBSETS, REGIONS, CORRECTIONS, REPETITIONS, ALONE = (
    "subsets",
    "regions",
    "corrections",
    "repetitions",
    "alone",
)
"""The first parts of further scopes."""
PLAIN, RIDGE = "plain", "ridge"
"""The first part of the scopes of plain baselines, and the second one of a ridge."""
CEILING = "ceiling"
"""The first part of the scopes of ceilings."""
NEAREST = "nearest training picture"
"""The scope of the slope of scores over the cosine with the nearest training picture.
"""
REPETITION_DRAWS = 10
"""Random choices of each number of repetitions, of which a curve is the mean."""
CLASSIFIERS = {"lda": "shrinkage LDA", "logistic": "logistic regression"}


def scopes_below(measured: Measurements, first: str) -> dict[str, Mapping[str, Metric]]:
    """Read back the scopes whose names begin with a part, by the rest of their
    names.
    """
    # scope names join their parts by a middle dot
    start = f"{first} · "
    return {
        name.removeprefix(start): metrics
        for name, metrics in measured.scopes.items()
        if name.startswith(start)
    }


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"
