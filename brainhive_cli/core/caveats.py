"""Caveats: what a reader must know of a number wherever it is shown, and functions that add it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from brainhive_cli.core.tables import Table

SIMULATED = "simulated"
"""The signals that were tested on come from a program."""
TRAINED_ON_SIMULATED = "trained on simulated signals"
"""Only the signals that were trained on do."""
NORMALISED_BY_TESTED = "normalised by the left-out subject's own recordings"
"""A subject who was not trained on gave (unlabelled) recordings for the normalisation."""
WHITENED_BY_TESTED = "transductive whitening by test trials"
"""The noise by which signals were whitened was also measured in (unlabelled) trials of the test."""
UNKNOWN_PICTURES = "pictures unknown"
"""Pixels of the pictures that were trained on or tested are not known, so copies are not noticed."""
UNKNOWN_SELECTION = "nothing says how its epoch was selected"
SELECTED_ON_TEST = "selected on test"
"""The epoch that was kept was chosen on the test set, here or in a model that training began from."""
PRIOR_OF_OTHERS = "prior trained on other pictures"
"""What draws has learned from another data set than it draws."""
MIXED_WITH_BLURRY = "mixed with the blurry picture: a low-level gain by construction"
"""What is scored is the mean of a generated picture and one that a latent was regressed to."""
CAVEATS = (
    *(SIMULATED, TRAINED_ON_SIMULATED, NORMALISED_BY_TESTED, WHITENED_BY_TESTED),
    *(UNKNOWN_PICTURES, UNKNOWN_SELECTION, PRIOR_OF_OTHERS, MIXED_WITH_BLURRY, SELECTED_ON_TEST),
)
"""All caveats, in the order in which they are listed."""


def merge_caveats(*some: Iterable[str]) -> list[str]:
    """List the caveats of several things, each once and in their order."""
    present = {caveat for caveats in some for caveat in caveats}
    if SIMULATED in present:
        present.discard(TRAINED_ON_SIMULATED)  # nothing was recorded at all
    return [caveat for caveat in CAVEATS if caveat in present]


def find_caveats(text: str) -> list[str]:
    """List the caveats that a title or a protocol contains, as whole words."""
    return [caveat for caveat in CAVEATS if re.search(rf"(?<![\w-]){re.escape(caveat)}(?![\w-])", text)]


def extend_protocol(protocol: str, caveats: Iterable[str]) -> str:
    """Add to a protocol the caveats that it does not contain."""
    return ", ".join([protocol, *_lacking(protocol, caveats)])


def extend_title(title: str, caveats: Iterable[str]) -> str:
    """Add to a title, in brackets, the caveats that it does not contain."""
    lacking = _lacking(title, caveats)
    return f"{title} ({', '.join(lacking)})" if lacking else title


def extend_tables(tables: Iterable[Table], caveats: Sequence[str]) -> tuple[Table, ...]:
    """Add caveats to the titles of tables."""
    return tuple(replace(table, title=extend_title(table.title, caveats)) for table in tables)


def _lacking(text: str, caveats: Iterable[str]) -> list[str]:
    contained = find_caveats(text)
    return [caveat for caveat in merge_caveats(caveats) if caveat not in contained]
