"""Lines of stderr without progress, which depends on the machine's speed."""

import re

PROGRESS = re.compile(r"[^:]+: .*(so far|\d left|\d of [\d,]+ in [\d:]+)|.+ …")
"""A line that reports progress."""


def without_progress(stderr: str) -> list[str]:
    """List the lines that are neither blank nor progress."""
    lines = stderr.splitlines()
    return [line for line in lines if line.strip() and not PROGRESS.fullmatch(line)]
