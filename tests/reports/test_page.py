"""The page: one file that needs no other, and shows text as text."""

from pathlib import Path

import pytest
from PIL import Image

from brainhive_cli.console import Table
from brainhive_cli.reports.page import Section, write_page


@pytest.fixture
def page(tmp_path: Path) -> str:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    table = Table("Scores", ("metric", "value"), (("top-1 <b>", 0.123456), ("n", 200)))
    sections = [Section("First", "Words & signs", [table], {"red": tmp_path / "red.png"}, ["brainhive demo"])]
    write_page(tmp_path / "page.html", "Title <x>", "All simulated.", sections)
    (tmp_path / "red.png").unlink()
    return (tmp_path / "page.html").read_text()


def test_pictures_lie_in_the_page(page):
    assert '<img alt="red" src="data:image/png;base64,iVBOR' in page
    assert "http" not in page and "<script" not in page and "<link" not in page


def test_text_is_shown_as_text(page):
    assert "Title &lt;x&gt;" in page and "Words &amp; signs" in page and "top-1 &lt;b&gt;" in page
    assert "<b>" not in page


def test_numbers_have_four_digits_and_counts_are_whole(page):
    assert "<td>0.1235</td>" in page and "<td>200</td>" in page


def test_note_table_and_commands_are_there(page):
    assert '<p class="note">All simulated.</p>' in page
    assert "<caption" in page and ">Scores<" in page
    assert "<pre>brainhive demo</pre>" in page
