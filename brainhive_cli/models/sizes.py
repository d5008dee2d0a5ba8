"""Types of the keys for widths and dropout of layers."""

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""Probability of dropping a unit."""
HiddenDropout = Annotated[
    Share, Field(description="Probability of dropping a hidden unit; BrainHiVE's.")
]
UnitDropout = Annotated[
    Share, Field(description="Probability of dropping a unit; BrainHiVE's.")
]
Width = Annotated[int, Field(gt=0, le=2**16)]
"""Width of a layer."""
InnerWidth = Annotated[int, Field(gt=0, le=2**17)]
"""Width inside a residual block."""
