"""The page of releases shows the pinned numbers of the files."""

import re

import pytest

from tests.test_architecture import CHECKOUT
from tools import pinned
from tools.pin import STUDIES
from tools.pinned_page import BEGIN, END, PAGE, replace_tables, write_tables


def test_page_and_files_have_the_same_numbers():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert replace_tables(page) == page, "run python -m tools.pinned_page"


def test_a_row_lists_the_environments_that_gave_its_number():
    for name, study in STUDIES.items():
        results = pinned.read(name)
        for headline in study.headlines:
            values = {item.numbers[headline] for item in results}
            title = re.escape(study.title)
            step = headline.partition(" / ")[0]
            rows = re.findall(rf"^\| {title} \| {step}: .*", write_tables(), re.M)
            assert len(rows) >= len(values) > 0


def test_every_pinned_file_belongs_to_a_study():
    names = [path.stem for path in pinned.FOLDER.glob("*.json")]
    assert sorted(names) == sorted(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_the_lines_of_a_study_are_those_of_the_gallery(name):
    gallery = (CHECKOUT / "docs/gallery.md").read_text(encoding="utf-8")
    text = " ".join(gallery.replace("\\\n", " ").split())
    assert [line for line in STUDIES[name].lines if line not in text] == []
