"""What surrounds the computation, at an eighth to all of the size of published data.

The table shows processor seconds, the share of them that the computation alone takes,
the largest memory next to the memory of the data, and the exponent with which seconds
grow.
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
