"""Designs of a study, the question that it shall answer, and predicted results."""

import math
from dataclasses import dataclass
from typing import Literal

StudyClaim = Literal["above-chance", "top1", "interval", "difference"]
"""Kind of the claim that a study shall support."""
Feasibility = Literal["yes", "perhaps", "cannot say", "no"]
"""Answers to the question if a design is enough."""
MIN_POWER = 0.8
"""Power that suffices."""
MARGIN_S = 10.0
"""Time before the first and after the last picture of a run, in which filters settle
and the BOLD response decays.
"""
MAX_USEFUL_RANGE = 0.5
"""Largest width of a range of the power that says something about a design."""


@dataclass(frozen=True)
class Design:
    """Amount of recording of a study.

    Attributes:
        people: Number of people.
        sessions: Number of sessions of each person.
        session_minutes: Duration of a session in minutes, with its breaks.
        onset_interval_s: Time from the onset of a picture to the next in s.
        train_pictures: Number of training pictures.
        train_repetitions: Repetitions of each training picture over all sessions.
        test_pictures: Number of test pictures, which are the candidates of retrieval.
        test_repetitions: Repetitions of each test picture over all sessions.
        pause_minutes: Minutes of a session without trials, such as breaks.
        catch_share: Share of all trials that are catch trials.
    """

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

    @property
    def trials(self) -> int:
        """Return the number of trials of a person, without catch trials."""
        training = self.train_pictures * self.train_repetitions
        return training + self.test_pictures * self.test_repetitions

    @property
    def minutes(self) -> float:
        """Return the minutes that all trials of a person take, without breaks."""
        return self.trials * self.onset_interval_s / 60 / (1 - self.catch_share)

    @property
    def fits(self) -> bool:
        """Return True if the trials fit into the sessions."""
        return self.sessions >= self.least_sessions

    @property
    def hours(self) -> float:
        """Return the hours of all sessions of all people."""
        return self.people * self.sessions * self.session_minutes / 60

    @property
    def least_sessions(self) -> int:
        """Return the smallest number of sessions into which the trials fit."""
        return math.ceil(self.minutes / (self.session_minutes - self.pause_minutes))


@dataclass(frozen=True)
class Question:
    """Claim that a study shall support.

    The claim stands if the statistics that `eval-retrieval` and `compare` report
    support it:

    - `above-chance`: the verdict is "above chance".
    - `top1`: the 95 % interval of top-1 lies at or above `size`.
    - `interval`: the 95 % interval of top-1 is at most `size` wide.
    - `difference`: the difference of two models, of which the true size is `size`, is
      significant.

    Attributes:
        claim: Kind of the claim.
        size: Smallest top-1, largest width of the interval, or difference of top-1, all
            as shares from 0 to 1. Not used by `above-chance`.
        new_people: True if the claim shall hold for people in general, which needs
            five people. False if it shall hold for the recorded people.
    """

    claim: StudyClaim = "above-chance"
    size: float = 0.0
    new_people: bool = False


@dataclass(frozen=True)
class Range:
    """Predicted value with its 95 % range.

    Attributes:
        value: Expected value.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Return the width of the range."""
        return self.high - self.low


@dataclass(frozen=True)
class Prediction:
    """Predicted results of a design.

    Attributes:
        design: The design.
        power: Probability that the claim will stand. The range is over signals that
            fit the assumptions.
        half_power: This probability if the signal is half as strong.
        top1: Expected top-1 of a study. The range is over single studies.
        chance: Top-1 of guessing.
        smallest: Smallest effect for which the power is `MIN_POWER`: the difference of
            top-1 for `difference`, else the expected top-1. None if no effect suffices.
        n_studies: Number of simulated studies.
        is_extrapolated: True if the logarithm of the number of trials is more than
            twice as large as in the recording that was measured.
        halving_factor: Length of a pilot that halves the range of the power, as a
            multiple of the pilot's people. None without a pilot, or if no length that
            was tried suffices.
        deciding_factor: Length of a pilot whose range is at most `MAX_USEFUL_RANGE`
            wide, in the same unit.
    """

    design: Design
    power: Range
    half_power: Range
    top1: Range
    chance: float
    smallest: float | None
    n_studies: int
    is_extrapolated: bool
    halving_factor: int | None = None
    deciding_factor: int | None = None

    @property
    def answer(self) -> Feasibility:
        """Return if the design is enough, by the range of the power."""
        if self.power.low >= MIN_POWER:
            return "yes"
        if self.power.high < MIN_POWER:
            return "no"
        is_wide = self.power.width > MAX_USEFUL_RANGE
        return "cannot say" if is_wide else "perhaps"
