"""The pages as a site: built strictly, searched and opened in a browser."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.docs.test_docs import CHECKOUT, DOCS

pytestmark = pytest.mark.nightly

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
ADDRESS = re.compile(r'<(?:img|script|link|a)\b[^>]*?\b(?:src|href)="([^"]+)"')
LOADED = re.compile(
    r'<(?:img|script|iframe)\b[^>]*?\bsrc="([^"]+)"'
    r'|<link\b[^>]*?rel="stylesheet"[^>]*?href="([^"]+)"'
)
"""Addresses that a browser requests when it opens a page."""
TERMS = ("noise ceiling", "HF_ENDPOINT", "open_signals", "permuted")
PAGES = ("", "gallery/", "statistics/", "api/", "keys/train-align/", "eeg/")
PHONE_PX, DESK_PX = 390, 1280


class QuietHandler(SimpleHTTPRequestHandler):
    """Handler of the server that writes no log."""

    def log_message(self, *_):
        """Write nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the site. A warning stops the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    process = subprocess.run(
        list(command) + ["--site-dir", str(folder)],
        cwd=CHECKOUT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    messages = re.findall(r"^(?:INFO|WARNING) +-  (.*)$", process.stderr, re.M)
    usual_lines = ("Cleaning site", "Building documentation", "Documentation built")
    assert [text for text in messages if not text.startswith(usual_lines)] == []
    return folder


@pytest.fixture(scope="module")
def address(site):
    """Address of a server of the site."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        launch = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield launch
        launch.close()


def test_pictures_scripts_and_links_are_files_of_the_site(site):
    absent = []
    for page in site.rglob("*.html"):
        base = f"https://site/{page.relative_to(site).as_posix()}"
        text = page.read_text()
        for link in ADDRESS.findall(text):
            target = urlsplit(urljoin(base, link))
            if target.netloc != "site":
                continue
            file = site / unquote(target.path).strip("/")
            if not (file.is_file() or (file / "index.html").is_file()):
                absent.append(f"{page.relative_to(site)}: {link}")
        for pair in LOADED.findall(text):
            assert not re.match("(https?:)?//", "".join(pair)), pair
    assert [line for line in absent if not line.startswith("404")] == []
    assert (site / "gallery/index.html").read_text().count("<img") == len(
        re.findall(r"!\[", (DOCS / "gallery.md").read_text())
    )


def test_each_notebook_is_a_page_with_its_cells_and_its_file(site):
    for notebook in DOCS.glob("*.ipynb"):
        folder = site / notebook.stem
        page = (folder / "index.html").read_text()
        cells = json.loads(notebook.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert page.count('<div class="highlight"') == len(code)
        assert (folder / notebook.name).read_bytes() == notebook.read_bytes()


@pytest.mark.parametrize("term", TERMS)
def test_the_search_finds_pages(browser, address, term):
    page = browser.new_page()
    page.goto(address)
    field = page.locator(".md-search__input").first
    field.click()
    field.press_sequentially(term)  # the search listens to keys
    page.wait_for_selector(".md-search-result__item a", state="attached")
    assert page.locator(".md-search-result__item mark").count() > 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [PHONE_PX, DESK_PX])
def test_pages_fit_the_window_and_request_nothing_elsewhere(
    browser, address, width_px, scheme
):
    size = {"width": width_px, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    for name in PAGES:
        page.goto(address + name, wait_until="networkidle")
        is_wide = "document.documentElement.scrollWidth > window.innerWidth"
        assert not page.evaluate(is_wide), name
        unloaded = "[...document.images].filter(image => !image.naturalWidth).length"
        assert page.evaluate(unloaded) == 0, name
    assert len(requests) > len(PAGES)
    assert [url for url in requests if not url.startswith((address, "data:"))] == []
    page.close()
