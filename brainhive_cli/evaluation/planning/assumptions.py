"""Assumptions of a plan: a measured pilot, or published results."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from brainhive_cli.core.base import Float32, Int64
from brainhive_cli.core.files import documents


@dataclass(frozen=True)
class PilotPerson:
    """Single trials of a person who was recorded before the study.

    Attributes:
        signals: Flattened signals [n, F] of the trials.
        picture: Row [n] in `targets` of the picture that each trial shows.
        targets: Embeddings [N, D] of the pictures.
        group: Group [N] of each picture. No picture of a group is in training when
            another is tested.
    """

    signals: Float32
    picture: Int64
    targets: Float32
    group: Int64


@dataclass(frozen=True)
class PublishedResult:
    """Retrieval that was reached with a known amount of recording of each person.

    Attributes:
        top1: Mean top-1 over people.
        low: Top-1 of a weak person, about the 5 % quantile.
        high: Top-1 of a strong person, about the 95 % quantile.
        train_pictures: Number of training pictures.
        train_repetitions: Repetitions of each training picture.
        test_pictures: Number of test pictures, which are the candidates.
        test_repetitions: Repetitions of each test picture.
        people: Number of people whose mean is `top1`.
        source: Publication, or "" for numbers of the user.
        note: Origin of the range, and limits of the result.
        modality: EEG, MEG or fMRI, or "" if it is unknown.
    """

    top1: float
    low: float
    high: float
    train_pictures: int
    train_repetitions: int
    test_pictures: int
    test_repetitions: int
    people: int
    source: str = ""
    note: str = ""
    modality: str = ""


@cache
def list_devices() -> dict[str, PublishedResult]:
    """List the published results of recording devices by the device's name in recipes.

    Each range is over people.
    """
    path = Path(__file__).with_name("devices.yaml")
    return documents.read(path, dict[str, PublishedResult])
