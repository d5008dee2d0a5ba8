"""Simulations of how often intervals hold the truth and tests reject a true null.

Each file of `claims` states a claim. Its function of the same name runs one simulation
and returns the values of `COLUMNS`. `AXES` lists the values of its arguments.
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Random = np.random.Generator
