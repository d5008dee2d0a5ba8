"""Papers of parts and data sets: each is named, and references.bib has its entry."""

import re
from pathlib import Path

import pytest
import yaml

from brainhive_cli import __version__
from brainhive_cli.core.base.errors import MissingExtra
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS

CHECKOUT = Path(__file__).parents[4]
PACKAGE = CHECKOUT / "brainhive_cli"
BIBTEX = (PACKAGE / "reports" / "references.bib").read_text(encoding="utf-8")
ENTRIES = {
    entry[1]: entry[0]
    for entry in re.finditer(r"^@\w+\{(\S+),\n(?:  .+\n)+\}$", BIBTEX, re.M)
}
WITHOUT_PAPERS = {
    "categories",
    "demo",
    "demo-films",
    "image-folder",
    "simulated",
    "eeg-imagenet-coarse",
    "eeg-imagenet-fine",
    "eeg-imagenet-time",
}
"""Data sets of the user or of the demo, and data sets with pictures of others."""


def field(key, name):
    """Return a field of an entry without its outer braces. Empty if it is absent."""
    match = re.search(rf"^  {name} *= \{{(.*)\}},?$", ENTRIES[key], re.M)
    return match[1] if match else ""


def test_references_have_every_paper_that_a_part_names():
    for shelf, kind in [
        (shelf_name, kind)
        for shelf_name in parts.SHELVES
        for kind in parts.list_kinds(shelf_name)
    ]:
        try:
            loaded_part = parts.load(shelf, kind)
        except MissingExtra:
            continue
        assert (
            set(loaded_part.Config.cites) | set(parts.list_papers(loaded_part.TINY))
            <= ENTRIES.keys()
        ), kind


@pytest.mark.nightly
def test_a_part_data_set_or_recipe_names_every_reference():
    files = (
        list(PACKAGE.rglob("*.py"))
        + list(PACKAGE.rglob("*.yaml"))
        + list((CHECKOUT / "recipes").rglob("*.yaml"))
    )
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    unnamed = {
        key
        for key in ENTRIES
        if not re.search(rf"[\[\"( ]{re.escape(key)}[\]\",)\n]", sources)
    }
    assert unnamed - {"brainhive"} == set()


def test_every_published_data_set_names_its_papers():
    assert {
        name for name, published in PUBLISHED_FACTS.items() if not published.cites
    } == set()
    assert {
        key for published in PUBLISHED_FACTS.values() for key in published.cites
    } <= ENTRIES.keys()
    assert set(parts.list_kinds("datasets")) - WITHOUT_PAPERS <= PUBLISHED_FACTS.keys()


def test_the_reference_of_this_software_is_that_of_citation_cff():
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert field("brainhive", "title") == cited["title"]
    assert field("brainhive", "version") == cited["version"] == __version__
    assert field("brainhive", "year") == str(cited["date-released"].year)
    assert [field("brainhive", "author")] == [
        f"{{{author['name']}}}" for author in cited["authors"]
    ]


def test_a_part_cites_what_its_knobs_use_and_the_parts_in_it():
    fixed, selected_part = (
        parts.resolve("backbones", {"kind": "ridge", "alpha": alpha})
        for alpha in (1.0, "auto")
    )
    assert "golub1979" in selected_part.citations()
    assert "golub1979" not in fixed.citations()
    lsa, denoised = (
        parts.resolve("preparations", {"kind": "bold", "estimator": name})
        for name in ("lsa", "denoised")
    )
    assert (lsa.citations(), denoised.citations()) == (
        ("mumford2012",),
        ("prince2022",),
    )
    brain = {"kind": "with-prior", "backbone": {"kind": "brain-mlp"}}
    assert parts.list_papers(parts.resolve("backbones", brain)) == [
        "scotti2023",
        "zheng2026",
    ]
