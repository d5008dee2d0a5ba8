"""Sinkhorn's balance: every signal, and every picture, has as much similarity to give as the others.

Source: Cuturi 2013 (arXiv 1306.0895).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.measurement.corrections import Compared


class Config(parts.Config):
    """Published after CSLS, whose values it takes."""

    temperature: float = Field(0.05, gt=0, description="similarities are divided by this")
    rounds: int = Field(20, gt=0, description="times that rows, then columns are brought to the sum 1")

    def build(self) -> Callable[[Compared], Compared]:
        """Make the correction."""
        return partial(balance, temperature=self.temperature, rounds=self.rounds)


TINY = Config(rounds=2)


def balance(compared: Compared, temperature: float, rounds: int) -> Compared:
    """Give the logarithm of the transport plan, in which no small value becomes 0."""
    plan = compared.similarities / temperature
    for _ in range(rounds):
        for axis in (1, 0):
            plan = plan - plan.logsumexp(axis, keepdim=True)
    return replace(compared, similarities=plan)
