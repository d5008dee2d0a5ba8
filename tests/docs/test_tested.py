"""The page on how Brainhive was tested: commands, counts and gaps."""

import re
import shlex

from benchmarks.simulated_statistics.tables import CLAIMS
from brainhive_cli import __version__
from tests.docs.test_docs import CHECKOUT, DOCS
from tools.mutants.faults import FAULTS

PAGE = (DOCS / "tested.md").read_text()
CHANGES = (CHECKOUT / "CHANGELOG.md").read_text()


def find_source(arguments):
    """Find the file or folder of `python -m MODULE …` or `python PATH …`."""
    if arguments[1] == "-m":
        return CHECKOUT / arguments[2].replace(".", "/")
    return CHECKOUT / arguments[1]


def test_each_command_exists_and_has_its_flags():
    lines = re.findall(r"`(python [^`]+)`|^    (python .+)$", PAGE, re.MULTILINE)
    commands = sorted({"".join(pair) for pair in lines})
    assert len(commands) >= 7
    for command in commands:
        arguments = shlex.split(command)
        source = find_source(arguments)
        file = source / "__main__.py" if source.is_dir() else source.with_suffix(".py")
        code = file.read_text()
        for flag in arguments:
            if flag.startswith("--"):
                assert f'"{flag}"' in code, command
    (tables,) = re.findall(r"simulated_statistics\S* prints\s+(\d+) tables", PAGE)
    (faults,) = re.findall(r"`--fixed` plants (\d+) faults", PAGE)
    assert (int(tables), int(faults)) == (len(CLAIMS), len(FAULTS))
    assert f"version {__version__}" in PAGE


def test_counts_of_trainings_are_those_of_the_papers_page():
    papers = (DOCS / "papers.md").read_text()
    table = papers.partition("### Trained beside")[2].partition("\n- ")[0]
    rows = re.findall(r"^\| (?!method|-)(.+) \|$", table, re.MULTILINE)
    intervals = re.findall(r"\[([+-]\.\d+), ([+-]\.\d+)\]", table)
    assert len(rows) == 12
    assert "12 trainings" in PAGE
    assert len(intervals) == 10
    assert "In ten, the" in PAGE
    largest = max(abs(float(end)) for pair in intervals for end in pair)
    assert f"reach up to {largest:.2f}".replace("0.", ".") in PAGE
    assert all(float(low) < 0 < float(high) for low, high in intervals)


def test_figures_of_recordings_are_those_of_the_gallery():
    gallery = (DOCS / "gallery.md").read_text()
    table = PAGE.partition("## Recorded data")[2].partition("## Reference")[0]
    figures = re.findall(r"(\.\d{3} \(\.\d{3}–\.\d{3}\))", table)
    assert len(figures) == 3
    for figure in figures:
        assert figure in gallery.replace("0.", ".")


def test_untested_parts_are_those_of_the_changelog():
    partition = CHANGES.partition("What has not been run:")[2].partition("\n## ")[0]
    gaps = partition.replace("](docs/", "](").strip()
    assert gaps
    assert gaps in PAGE
