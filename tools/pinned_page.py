"""Writes the tables of pinned numbers on docs/releases.md: `python -m
tools.pinned_page`.
"""

import re
import string
from collections.abc import Iterator

from brainhive_cli.core.results.measurements import interval_text, metric_title
from tools import pinned
from tools.pin import STUDIES, Study
from tools.pinned import DIGITS, ROOT, PinnedNumber, PinnedResults

PAGE = ROOT / "docs/releases.md"
BEGIN = "<!-- tables: python -m tools.pinned_page -->"
END = "<!-- end of tables -->"
LIBRARIES = (
    "python",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "mne",
    "nibabel",
    "timm",
    "diffusers",
    "CPU",
)
"""Rows of the table of environments. The files have all libraries."""


def list_environments() -> list[dict[str, str]]:
    """List the environments of all studies, each once."""
    environments = []
    for name in STUDIES:
        for results in pinned.read(name):
            if results.environment not in environments:
                environments.append(results.environment)
    return environments


def write_tables() -> str:
    """Write the table of numbers and the table of environments."""
    environments = list_environments()
    lines = [
        "| study | number | value (95 % interval) | chance | tested | environment |",
        "|---|---|---|---|---|---|",
    ]
    for name, study in STUDIES.items():
        lines += list_rows(study, pinned.read(name), environments)
    letters = string.ascii_uppercase[: len(environments)]
    lines += ["", f"| | {' | '.join(letters)} |", "|---" * (len(letters) + 1) + "|"]
    for library in LIBRARIES:
        versions = [environment[library] for environment in environments]
        lines.append(f"| {library} | {' | '.join(versions)} |")
    return "\n".join(lines)


def list_rows(
    study: Study,
    results: list[PinnedResults],
    environments: list[dict[str, str]],
) -> Iterator[str]:
    """Write a row for each headline and each of its values, with its environments."""
    for headline in study.headlines:
        letters: dict[PinnedNumber, list[str]] = {}
        for item in results:
            number = item.numbers[headline]
            letter = string.ascii_uppercase[environments.index(item.environment)]
            letters.setdefault(number, []).append(letter)
        step, _, metric = headline.split(" / ")
        for number, number_letters in letters.items():
            interval = interval_text(number.low, number.high, DIGITS)
            chance = "–" if number.chance is None else f"{number.chance:g}"
            yield (
                f"| {study.title} | {step}: {metric_title(metric)} | "
                f"{number.value:.{DIGITS}f} ({interval}) | {chance} | {number.n} | "
                f"{', '.join(sorted(number_letters))} |"
            )


def replace_tables(page: str) -> str:
    """Replace the tables of a page by those of the pinned numbers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    tables = f"{BEGIN}\n\n{write_tables()}\n\n{END}"
    return pattern.sub(lambda match: tables, page)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_tables(page), encoding="utf-8")
