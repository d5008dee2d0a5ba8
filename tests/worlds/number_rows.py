"""Rows of numbers that summarise tensors, for records with a line for each case."""

from collections.abc import Mapping
from typing import Any

from tests.tools.network_digests import digest


def weighted_means(value: Any) -> list[float]:
    """List the weighted mean of each tensor in a nested value (see `digest`)."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        means = []
        for item in value:
            means += weighted_means(item)
        return means
    return [digest(value)[-1]]
