"""The page: one file that needs no other, and shows text as text."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.console import Table
from brainhive_cli.reports.page import Section, write_page


@pytest.fixture
def page(tmp_path: Path) -> str:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    table = Table("Scores", ("metric", "value"), (("top-1 <b>", 0.123456), ("n", 200)))
    sections = [Section("First & last", [table], {"red": tmp_path / "red.png"}, ["brainhive demo"])]
    write_page(tmp_path / "page.html", "Title <x>", "All simulated.", sections)
    (tmp_path / "red.png").unlink()
    return (tmp_path / "page.html").read_text()


def test_pictures_lie_in_the_page(page):
    assert '<img alt="red" src="data:image/png;base64,iVBOR' in page
    assert "http" not in page and "<script" not in page and "<link" not in page


def test_a_large_picture_lies_in_the_page_as_jpeg_and_keeps_its_colours(tmp_path):
    noise = np.random.default_rng(0).integers(100, 156, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")

    write_page(tmp_path / "page.html", "", "", [Section("", [], {"noise": tmp_path / "noise.png"})])

    (data,) = re.findall('src="data:image/jpeg;base64,([^"]*)"', (tmp_path / "page.html").read_text())
    assert len(data) < (tmp_path / "noise.png").stat().st_size
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(data))), np.int16)
    assert np.abs(shown - noise).mean() < 20 and shown.shape == noise.shape


def test_text_is_shown_as_text(page):
    assert "Title &lt;x&gt;" in page and "First &amp; last" in page and "top-1 &lt;b&gt;" in page
    assert "<b>" not in page


def test_numbers_have_four_digits_and_counts_are_whole(page):
    assert "<td>0.1235</td>" in page and "<td>200</td>" in page


def test_note_table_and_commands_are_there(page):
    assert '<p class="note">All simulated.</p>' in page
    assert "<caption" in page and ">Scores<" in page
    assert "<pre>brainhive demo</pre>" in page
