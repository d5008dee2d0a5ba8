"""Lines of stderr without those of progress, of which a slower machine has more."""

import re

PROGRESS = re.compile(r"[^:]+: .*(so far|\d left|\d of [\d,]+ in [\d:]+)")
"""Text of a line that says how far work is."""


def without_progress(stderr: str) -> list[str]:
    """List the lines that say anything else."""
    return [
        line
        for line in stderr.splitlines()
        if line.strip() and not PROGRESS.fullmatch(line)
    ]
