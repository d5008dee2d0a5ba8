"""Sinkhorn's balance: every signal, and every picture, has as much similarity to give as the others.

Source: Cuturi 2013 (arXiv 1306.0895).
"""

from dataclasses import replace

from pydantic import Field, PositiveFloat, PositiveInt

from brainhive_cli.measurement.corrections import Compared, Correction


class Config(Correction):
    """Published after CSLS, whose values it takes."""

    temperature: PositiveFloat = Field(0.05, description="similarities are divided by this")
    rounds: PositiveInt = Field(20, description="times that rows, then columns are brought to the sum 1")

    def correct(self, compared: Compared) -> Compared:
        """Give the logarithm of the transport plan, in which no small value becomes 0."""
        plan = compared.similarities / self.temperature
        for _ in range(self.rounds):
            for axis in (1, 0):
                plan = plan - plan.logsumexp(axis, keepdim=True)
        return replace(compared, similarities=plan)


TINY = Config(rounds=2)
