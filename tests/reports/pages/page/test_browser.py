"""Page in a real browser: Chromium of the system, controlled by Playwright."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.tables import Table
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

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
)
CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser():
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    run = RunFolder(folder)
    red, blue = (
        artifacts.save_picture(run, name, Image.new("RGB", (64, 64), name))
        for name in ("red", "blue")
    )
    Image.new("RGB", (600, 300), "white").save(folder / "drawing.png")
    tiles = [SheetTile(red, ["a_very_long_name_of_a_concept"])] + [
        SheetTile(blue, ["a dog"]) for _ in range(5)
    ]
    shown = [
        Curve(
            "Loss",
            "epoch",
            list(range(30)),
            [CurveLine("train", [1 / (n + 1) for n in range(30)])],
        ),
        Heatmap("Similarity", [[0.1, 0.9], [0.5, 1.0]], ["cat", "dog"], ["cat", "dog"]),
        Topomap(
            "Scalp",
            [Point(np.cos(n) / 2, np.sin(n) / 2, f"E{n}", float(n)) for n in range(6)],
            "µV",
        ),
        Media("A drawing", "drawing.png"),
        Sheet(
            "Retrieved", ["seen", "1", "2", "3", "4", "5"], [SheetRow("cat/1", tiles)]
        ),
    ]
    narrow = Table(
        "Scores",
        ["", "top-1", "95 % CI", "n", "pool"],
        [["b", 0.5, "0.4–0.6", 9, 100], ["a", 0.25, "0.1–0.4", 10, 100]],
    )
    wide = Table(
        "Many columns",
        [f"column {n}" for n in range(20)],
        [list(range(20)), list(range(20))],
    )
    groups = [("", [narrow, wide])] + list(group_artifacts([("", shown, folder)]))
    section = PageSection(
        "A run", groups, texts=[("Recipe", "epochs: 3\n" + "word " * 100)]
    )
    Page("A report", ["Top-1 is 0.5."], ["selected on test"], [section]).write(
        folder / "page.html"
    )
    return folder / "page.html"


@pytest.fixture(scope="module")
def clips_file(tmp_path_factory):
    """Write a page with two rows of two clips.

    The codec is VP9, because Chromium without licensed codecs does not play H.264.
    """
    av = pytest.importorskip("av", reason="PyAV is not installed")
    folder = tmp_path_factory.mktemp("clips")
    with av.open(str(folder / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=8)
        stream.width = stream.height = 64
        for level in range(0, 250, 10):
            frame = av.VideoFrame.from_ndarray(
                np.full((64, 64, 3), level, np.uint8), "rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    rows = [
        SheetRow(
            name, [SheetTile("clip.webm", [name]), SheetTile("clip.webm", ["made"])]
        )
        for name in "ab"
    ]
    sheet = Sheet("First items", ["seen", "brain"], rows)
    sections = [PageSection("A run", group_artifacts([("", [sheet], folder)]))]
    Page("Clips", sections=sections).write(folder / "page.html")
    return folder / "page.html"


def test_clips_of_a_row_play_together_and_no_controls_cover_them(browser, clips_file):
    page = browser.new_page(
        viewport={"width": PHONE, "height": 900}, color_scheme="dark"
    )
    page.goto(clips_file.as_uri())
    first, second = page.locator(".row").all()
    paused = "() => [...document.querySelectorAll('video')].map(each => each.paused)"

    assert (
        page.evaluate(
            "[...document.querySelectorAll('video')].some(each => each.controls)"
        )
        is False
    )
    box = first.locator("video").first.bounding_box()
    assert box["width"] >= 120
    assert box["width"] == box["height"]
    button = first.get_by_role("button", name="play")
    lies, ink = (
        button.bounding_box(),
        (
            "each => getComputedStyle(each).color !== "
            "getComputedStyle(each).backgroundColor"
        ),
    )
    assert lies["y"] >= box["y"] + box["height"]
    assert lies["height"] < 40
    assert button.evaluate(ink)

    button.click()
    assert page.evaluate(paused) == [False, False, True, True]
    assert first.get_by_role("button").inner_text().endswith("pause")
    first.locator("video").nth(1).click()
    assert page.evaluate(paused) == [True] * 4
    assert second.get_by_role("button").is_visible()
    page.close()


@pytest.fixture
def browser_page(browser, page_file):
    """Return a function that opens the page, and lists errors of the browser."""
    contexts = []

    def open_page(width=DESK, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        page, complaints = context.new_page(), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:"))
                or complaints.append(request.url)
            ),
        )
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(page_file.as_uri())
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def test_nothing_fails_is_fetched_or_lost_off_screen(browser_page):
    page, complaints = browser_page(PHONE, "dark")
    lost = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(each =>
        each.checkVisibility() && !each.closest('.box, pre')
        && each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert complaints == []
    assert lost == []
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    broken = (
        "() => [...document.images].filter(each => !each.complete || "
        "!each.naturalWidth).length"
    )
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") >= 7
    box = page.get_by_text("0.4–0.6").bounding_box()  # a table stacks on a phone
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE
    slabs = page.evaluate(
        """() => [...document.querySelectorAll('body, body *')].filter(each => {
            const colour = getComputedStyle(each).backgroundColor;
            const found = colour.match(/[\\d.]+/g).map(Number);
            return (found[3] ?? 1) > .5 && found[0] + found[1] + found[2] > 450;
        }).map(each => each.outerHTML.slice(0, 80))"""
    )
    assert slabs == []
    colours = "drawn => drawn.map(one => getComputedStyle(one))"
    line_colours = page.locator(".curve svg path").evaluate_all(
        f"{colours}.map(style => style.stroke)"
    )
    text_colours = page.locator(".curve svg text").evaluate_all(
        f"{colours}.map(style => style.fill)"
    )
    assert "rgb(86, 168, 232)" in line_colours
    assert set(text_colours) == {
        "rgb(230, 232, 234)",
        "rgb(160, 168, 178)",
    }


def test_a_table_sorts_by_numbers_and_a_third_click_restores_it(browser_page):
    page, _ = browser_page()
    table = page.locator("table").first
    orders = []
    for _ in range(3):
        table.locator("th button").nth(3).click()
        orders.append(table.locator("tbody td:first-child").all_inner_texts())
    assert orders == [["a", "b"], ["b", "a"], ["b", "a"]]
    assert table.locator("th[aria-sort]").count() == 0
