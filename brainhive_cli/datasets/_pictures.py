"""A data set of pictures that nobody's recordings belong to."""

from collections.abc import Callable
from dataclasses import dataclass

from brainhive_cli import datasets
from brainhive_cli.core.errors import MissingData
from brainhive_cli.stores.recordings import Recording


@dataclass(frozen=True)
class Pictures:
    """Pictures alone.

    Attributes:
        splits: The splits that are there, or all that there could be where nothing is.
        listed: Split to its pictures; raises MissingData.
    """

    name: str
    splits: tuple[str, ...]
    listed: Callable[[str], datasets.StimulusSet]
    subjects: tuple[int, ...] = ()
    channels: tuple[str, ...] | None = None
    is_simulated: bool = False

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split."""
        return self.listed(split)

    @property
    def recorded_as(self) -> str:
        """The name that signals would be kept under."""
        return self.name

    def require(self, subject: int) -> None:
        """Refuse, as `recording` does."""
        self.recording(subject, "")

    def recording(self, subject: int, split: str) -> Recording:
        """Refuse: there are pictures only."""
        raise MissingData(
            f"{self.name} holds pictures only and has no recordings",
            "use a data set with signals, or dataset.kind=simulated",
        )
