"""Training data of published weights."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from brainhive_cli.core.files import documents

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


@cache
def read_pretraining() -> Mapping[str, Pretraining]:
    """Read the training data of published weights, by kinds of parts."""
    path = Path(__file__).with_suffix(".yaml")
    return documents.read(path, dict[str, Pretraining])


def look_up_training(weights: str, people: str) -> str:
    """Look up whether published weights were trained on recordings of some people.

    Args:
        weights: Kind of the part whose weights they are, or their reference.
        people: Name of the data set of the people, which may end in a suffix such as
            `-concept`.

    Returns:
        "yes", "no" or "not known". The latter if the weights have no entry.
    """
    entry = read_pretraining().get(weights, Pretraining())
    for answer, names in (("yes", entry.includes), ("not known", entry.unknown)):
        for name in names:
            if name == OTHERS or f"{people}-".startswith(f"{name}-"):
                return answer
    return "no"
