"""Page: a single HTML file without external files, in which texts are escaped."""

import re

import pytest
from markupsafe import escape
from PIL import Image

from brainhive_cli.core.base import MissingData, Table
from brainhive_cli.core.runs import (
    Curve,
    CurveLine,
    Heatmap,
    Point,
    RunFolder,
    Sheet,
    SheetRow,
    SheetTile,
    Topomap,
    artifacts,
)
from brainhive_cli.core.runs.artifacts import Media
from brainhive_cli.reports.pages.page import Page, PageSection, group_artifacts


def write_page(tmp_path, *blocks, **section_fields):
    page = Page(
        "Title <x>",
        ["All <b>simulated</b>."],
        ["selected on test"],
        [PageSection("First & last", [("", blocks)], **section_fields)],
    )
    page.write(tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def save_picture(folder, name, colour):
    return artifacts.save_picture(
        RunFolder(folder), name, Image.new("RGB", (8, 8), colour)
    )


def make_sheet(files, query="cat/1", verdict="right"):
    tiles = [
        SheetTile(files[0], ["a cat"]),
        SheetTile(files[1], ["a dog"], {"SSIM": 0.5}, verdict),
    ]
    return Sheet("Retrieved", ["seen", "1"], [SheetRow(query, tiles)])


def test_pictures_lie_in_the_page_once_and_nothing_is_fetched(tmp_path):
    files = [
        save_picture(tmp_path, "red", "red"),
        save_picture(tmp_path, "blue", "blue"),
    ]
    page = write_page(
        tmp_path,
        [("", make_sheet(files), tmp_path)],
        [("", make_sheet(files), tmp_path)],
    )
    assert page.count("data:image/webp;base64,") == 2
    assert page.count('data-same="p') == 2
    assert not re.search(
        r'(?:src|href)="(?!data:|#)', page
    ) and "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_numbers_are_bound_in_text_but_not_in_texts_to_copy(tmp_path):
    table = Table("Power at 10 Hz", ["95 % CI"], [["p < .05 at 3 ms"]])
    page = write_page(tmp_path, table, texts=[("Recipe of 5 s", "window: 10 ms")])
    for text in ("Power at 10\u00a0Hz", "95\u00a0%\u00a0CI", "p\u00a0&lt;\u00a0.05"):
        assert text in page
    assert 'data-head="95 % CI"' in page
    assert ">window: 10 ms</pre>" in page


def test_text_is_shown_as_text(tmp_path):
    page = write_page(
        tmp_path,
        Table("A <i>table</i>", ["<u>"], [["<s>"]]),
        texts=[("Recipe", "<script>bad()")],
    )
    assert "Title &lt;x&gt;" in page
    assert "First &amp; last" in page
    assert "&lt;script&gt;bad()" in page
    assert not re.search(r"<(?:b|i|u|s)>|bad\(\)</script>", page)


def test_every_kind_of_artifact_is_drawn(tmp_path):
    file = save_picture(tmp_path, "red", "red")
    shown_artifacts = [
        Curve(
            "Loss",
            "epoch",
            [1, 2, 3],
            [CurveLine("train", [0.5, None, 0.25], chance=0.1)],
            marks={"best": 2},
        ),
        Curve(
            "Ranks",
            "rank",
            ["1", "2–3"],
            [CurveLine("all", [0.5, 0.25], [0.4, 0.2], [0.6, 0.3])],
            style="bars",
        ),
        Heatmap(
            "Similarity",
            [[0.1, None], [0.5, 1.0]],
            ["cat", "dog"],
            ["cat", "dog"],
            is_diverging=True,
        ),
        Topomap("Scalp", [Point(0, 0.5, "Oz", 1.5), Point(0.5, 0, "C4", -1.0)], "µV"),
        Media("A drawing", file),
        Table("Cells", ["subject"], [["sub-01"]], note="A note."),
    ]
    ((_, figures),) = group_artifacts([("", shown_artifacts, tmp_path)])
    page = write_page(tmp_path, *figures)
    assert page.count("<svg ") == 4
    assert ">chance<" in page
    assert "A note." in page
    outside_link = r'(?:src|href)="(?!data:|#)|url\((?!#|data:)|https?:'
    assert not re.search(outside_link, page)
    assert re.search(outside_link, page + "url(x.woff)")
    assert '<figure class="card media">' in page
    assert ">Oz<" in page


@pytest.mark.parametrize("name", ["a $ b $ c <b>", "ä" * 80])
def test_any_name_is_drawn_as_it_is(tmp_path, name):
    lines = [CurveLine(name, [0.5, 0.25]), CurveLine("other", [0.5, 0.25])]
    for artifact in (
        Curve(name, name, [1, 2], lines, name),
        Curve("x", name, [name, "b"], lines, style="bars"),
    ):
        page = write_page(tmp_path, [("", artifact, tmp_path)])
        assert str(escape(name))[:20] in page.split("<svg")[1]
        assert "<b>" not in page


def test_rows_of_two_runs_for_the_same_query_become_a_single_row(
    tmp_path,
):
    files = [save_picture(tmp_path, name, name) for name in ("red", "blue", "green")]
    first_sheet, second = (
        make_sheet(files[:2]),
        make_sheet([files[0], files[2]], verdict="wrong"),
    )
    other_sheet = make_sheet(files[:2], "dog/1")
    aligned = Sheet(
        "Retrieved",
        first_sheet.columns,
        list(first_sheet.rows) + list(other_sheet.rows),
    )
    ((_, figures),) = group_artifacts(
        [("aligned", [aligned], tmp_path), ("base", [second], tmp_path)]
    )
    page = write_page(tmp_path, *figures)
    rows = page.split('<div class="row box"')[1:]
    assert len(rows) == 2
    assert [row.count("tile seen") for row in rows] == [1, 1]
    assert "aligned" in rows[0]
    assert "base" in rows[0]
    assert rows[0].count("<figure") == 3
    assert "base" not in rows[1]


def test_a_clip_is_played_in_the_page(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    poster = save_picture(tmp_path, "poster", "red")
    page = write_page(tmp_path, [("", Media("A clip", "clip.mp4", poster), tmp_path)])
    assert (
        '<video controls loop muted playsinline aria-label="A clip" '
        'poster="data:image/webp'
    ) in page
    assert "data:video/mp4;base64,YSB2aWRlbw==" in page


def test_a_file_that_is_missing_or_damaged_is_one_line(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture at all" * 1000)
    for name in ("gone.png", "damaged.png"):
        with pytest.raises(MissingData) as caught:
            write_page(tmp_path, [("", Media("x", name), tmp_path)])
        assert name in str(caught.value)
