"""Time and memory of tasks at an eighth to the full size of published data.

The table shows processor seconds, the share of the computation alone, the peak memory
next to the memory of the data, and the exponent with which seconds grow.
"""

import size_commands
import size_pictures
import size_ridges
import size_verdicts
from growth import main

CASES = {
    **size_commands.CASES,
    **size_ridges.CASES,
    **size_verdicts.CASES,
    **size_pictures.CASES,
}

if __name__ == "__main__":
    main(__doc__, CASES)
