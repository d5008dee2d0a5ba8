"""Results of four studies are the pinned results, or libraries explain why not."""

import warnings
from pathlib import Path

import pytest

from tools import pin, pinned


@pytest.mark.parametrize(
    "name",
    [
        "demo-real",
        pytest.param("gratings", marks=pytest.mark.nightly),
        pytest.param("digits", marks=pytest.mark.nightly),
        pytest.param("demo", marks=pytest.mark.nightly),
    ],
)
def test_results_are_as_pinned(name: str, tmp_path: Path) -> None:
    try:
        found = pin.run_study(name, tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    nearest = pinned.find_nearest(pinned.read(name), found.environment)

    comparison = pinned.compare(nearest, found)

    explanation = comparison.explain(name)
    assert not comparison.failures, explanation
    if comparison.changes:
        warnings.warn(explanation, stacklevel=1)
