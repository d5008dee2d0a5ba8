"""Facts of design."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from brainhive_cli.core.results import Facts, FrozenModel

RoundedShare = Annotated[
    float, AfterValidator(lambda value: round(value, 2 if value > 0.1 else 3))
]
"""Share with two decimals, or three if it is small. Simulations are no more precise."""


class PredictedRange(FrozenModel):
    """Predicted value with its 95 % range.

    Attributes:
        value: Expected value.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    value: RoundedShare
    low: RoundedShare
    high: RoundedShare


class PlannedDesign(FrozenModel):
    """Design of a study, with its prediction unless it does not fit into its sessions.

    Attributes:
        number: Number of the design, from 1.
        people: Number of people.
        sessions: Number of sessions of each person.
        session_minutes: Minutes of a session, with its breaks.
        onset_interval_s: Time from the onset of a picture to the next.
        train_pictures: Number of training pictures.
        train_repetitions: Repetitions of each training picture.
        test_pictures: Number of test pictures.
        test_repetitions: Repetitions of each test picture.
        pause_minutes: Minutes of a session without trials, such as breaks.
        catch_share: Share of all trials that are catch trials.
        minutes: Minutes of all trials of a person.
        hours: Hours of all sessions of all people.
        price: Price of these hours, or None if the price of an hour is unknown.
        least_sessions: Smallest number of sessions into which the trials fit.
        power: Probability that the claim will stand.
        half_power: This probability if the signal is half as strong.
        top1: Expected top-1 of a study.
        chance: Top-1 of guessing.
        smallest: Smallest effect for which the power suffices, or None.
        answer: Is the design enough? "yes", "perhaps", "cannot say", "no", or "" if it
            does not fit.
        n_studies: Number of simulated studies.
        is_extrapolated: True if the design is far larger than the measured recording.
        halving_factor: Length of a pilot that halves the range of the power, as a
            multiple of the pilot's people, or None.
        deciding_factor: Length of a pilot that narrows the range so that it says
            something, in the same unit.
    """

    # the design
    number: int
    people: int
    sessions: int
    session_minutes: float
    onset_interval_s: float
    train_pictures: int
    train_repetitions: int
    test_pictures: int
    test_repetitions: int
    pause_minutes: float = 0.0
    catch_share: float = 0.0

    # its cost
    minutes: float
    hours: float
    least_sessions: int
    price: float | None = None

    # its prediction
    power: PredictedRange | None = None
    half_power: PredictedRange | None = None
    top1: PredictedRange | None = None
    chance: float | None = None
    smallest: float | None = None
    answer: Literal["", "yes", "perhaps", "cannot say", "no"] = ""
    n_studies: int = 0
    is_extrapolated: bool = False
    halving_factor: int | None = None
    deciding_factor: int | None = None


class DesignFacts(Facts):
    """Facts of design.

    Attributes:
        question: Claim that the study shall support, such as `top1`.
        size: Size for the question, or None.
        new_people: True if the claim shall hold for people in general.
        source: Pilot, publication or recipe that the assumptions come from.
        source_note: Origin of the range of a published result, and its limits.
        designs: Designs, ascending in hours.
        recommended: Number of the recommended design.
        described: Number of the design of the next two texts, of the warnings, and of
            the written study.
        sentence: Sentence that eval-retrieval or compare may write about this design.
        claims: Pictures and people that the sentence will hold for.
        has_pilot: True if the assumptions come from a pilot.
        seed: Seed of the simulations.
    """

    command: str = "design"
    question: str = ""
    size: float | None = None
    new_people: bool = False
    source: str = ""
    source_note: str = ""
    designs: list[PlannedDesign] = []
    recommended: int = 0
    described: int = 0
    sentence: str = ""
    claims: str = ""
    has_pilot: bool = False
    seed: int = 0

    @property
    def recommended_design(self) -> PlannedDesign:
        """Recommended design, with its prediction."""
        (design,) = (item for item in self.designs if item.number == self.recommended)
        return design
