"""Training data of published weights."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from brainhive_cli.core import documents

OTHERS = "others"
"""Name in `Pretraining.unknown` for all data sets that `includes` does not name."""


class Pretraining(BaseModel):
    """Training data of published weights: an entry of `pretraining.yaml`.

    Attributes:
        data: Description of the data, with hours of EEG or the number of pictures.
        licence: Licence of the weights. Empty if the part states it.
        includes: Data sets whose recordings or pictures were in the training.
        unknown: Data sets that may have been in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = ""
    licence: str = ""
    includes: Sequence[str] = ()
    unknown: Sequence[str] = (OTHERS,)

    def has_recordings_of(self, people: str) -> Literal["yes", "no", "not known"]:
        """Say whether recordings of a group of people were in the training.

        Args:
            people: Name of the group, which may end in a suffix such as `-concept`.
        """
        for name in self.includes:
            if f"{people}-".startswith(f"{name}-"):
                return "yes"
        for name in self.unknown:
            if name == OTHERS or f"{people}-".startswith(f"{name}-"):
                return "not known"
        return "no"


@cache
def read_pretraining() -> Mapping[str, Pretraining]:
    """Read the training data of published weights, by kinds of parts."""
    file = Path(__file__).with_suffix(".yaml")
    return documents.read(file, dict[str, Pretraining])


def find_pretraining(weights: str) -> Pretraining:
    """Find the training data of weights. They are unknown if there is no entry.

    Args:
        weights: Kind of the part whose weights they are, or their reference.
    """
    return read_pretraining().get(weights, Pretraining())
