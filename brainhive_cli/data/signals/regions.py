"""Regions of the head: which channels of the 10-10 system lie where."""

import re
from collections.abc import Sequence

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""Region > letters that its channels' names begin with, in the 10-10 system. What lies between two regions is
counted with one of them; parietal and occipital together are BrainHiVE's 17 channels of THINGS-EEG."""
_REGION_OF = {letters.lower(): region for region, all_of in REGIONS.items() for letters in all_of}
_NAME = re.compile(r"([a-z]+?)(z|\d+h?)$", re.IGNORECASE)


def region_of(channel: str) -> str | None:
    """Name the region of a channel; None for a name that is not of the 10-10 system."""
    match = _NAME.match(channel)
    return _REGION_OF.get(match[1].lower()) if match else None


def channels_in(region: str, channels: Sequence[str]) -> list[str]:
    """List the channels that lie in a region, in the order of the data."""
    return [channel for channel in channels if region_of(channel) == region]
