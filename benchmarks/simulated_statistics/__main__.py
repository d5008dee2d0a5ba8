"""Tables of how often intervals hold the truth and tests reject a true null.

Hits are drawn from a logistic model, in which crossed subjects and items are normal in
logits. The truth is the mean over all people and pictures. Logits of neighbouring
clips, and of pictures of a concept, correlate. Signals carry the seen pictures (with
wrong labels that all subjects share), or nothing. For comparison, some tables take
items or subjects as independent. 400 simulations take half an hour on a core, and
another half hour for folds.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # the folder was run by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.simulated_statistics.tables import CLAIMS, print_table


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(
        prog="simulated_statistics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "count", nargs="?", type=int, default=400, help="simulations of each row"
    )
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=CLAIMS)
    args = parser.parse_args()
    for name in args.only:
        print_table(name, args.count)


if __name__ == "__main__":
    main()
