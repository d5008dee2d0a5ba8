"""Published results of recording devices, for a plan without a pilot."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.evaluation.planning.assumptions import PublishedResult


@dataclass(frozen=True)
class Device:
    """Recording device with a published result.

    Attributes:
        title: Name of the device for readers.
        result: Published result. Its range is over people.
        note: Origin of the range, and limits of the result.
    """

    title: str
    result: PublishedResult
    note: str


@cache
def list_devices() -> dict[str, Device]:
    """List the devices by their name in recipes."""
    path = Path(__file__).with_name("devices.yaml")
    return documents.read(path, dict[str, Device])
