"""Types of the knobs that set the widths and the dropout of layers."""

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""A probability of dropping a unit."""
HiddenDropout = Annotated[
    Share, Field(description="Probability of dropping a hidden unit; BrainHiVE's.")
]
UnitDropout = Annotated[
    Share, Field(description="Probability of dropping a unit; BrainHiVE's.")
]
Width = Annotated[int, Field(gt=0, le=2**16)]
InnerWidth = Annotated[int, Field(gt=0, le=2**17)]
"""Widths of layers, and inside of blocks."""
