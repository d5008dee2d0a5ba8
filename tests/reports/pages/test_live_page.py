"""Page of a live session: access, content, and the load of browsers."""

import http.client
import json
import os
import re
import resource
import shutil
import socket
import threading
import time
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import SIMULATED
from brainhive_cli.reports.pages.live_page import (
    GRACE_S,
    MAX_RESULTS,
    LivePage,
)
from brainhive_cli.reports.sentences.sentences import MEANINGS

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
PHONE, DESK = 390, 1280
STRANGE = [
    """<img src=x onerror="document.title='broken'">""",
    'it\'s "quoted" & 100% <b>bold</b>',
    "日本/é/../ø?x=1#y",
]
PATHS = [
    "/",
    "/events",
    "/picture?image=cat/1",
    "/drawing?window=1",
    "/other",
    "/events/",
]
START = {
    "kind": "start",
    "model": "a ridge",
    "pool": 200,
    "caveats": [SIMULATED],
    "differs": ["zero-phase filter: live it is causal"],
}


def write_picture(colour):
    file = BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


def read_picture(image_id):
    pictures = {"cat/1": write_picture("red"), "dog/2": write_picture("blue")}
    return {**pictures, **dict.fromkeys(STRANGE, write_picture("green"))}.get(image_id)


def result(window, shown_picture="cat/1", **changes):
    best = [
        {"image": name, "similarity": 0.312345}
        for name in ("dog/2", "cat/1") + tuple(STRANGE)
    ]
    hits = {
        "n": window,
        "top1": 3,
        "rate": 0.25,
        "interval": [0.06, 0.6],
        "chance": 0.005,
        "level": 0.95,
    }
    return {
        "kind": "result",
        "window": window,
        "event": "marker",
        "shown": shown_picture,
        "onset_s": 12.3456,
        "best": best,
        "margin": 0.0412345,
        "rank": 3,
        "repetitions": 1,
        "average_best": None,
        "average_rank": None,
        "hits": {**hits, "caveats": [SIMULATED]},
        "latency_ms": {"decoding": {"p50": 1.23456, "p95": 20.0, "max": 1234.5}},
        "stream": {
            "samples": 1000,
            "lost": 2,
            "gaps": 0,
            "events": 12,
            "decoded": 11,
            "dropped": {"in a gap": 1},
        },
        **changes,
    }


@pytest.fixture
def started():
    """Return a function that starts pages. They are stopped after the test."""
    pages = []

    def start(find_picture=read_picture, **options):
        page = LivePage("Live session", find_picture, **options)
        url = page.start()
        pages.append(page)
        return page, url

    yield start
    for page in pages:
        page.stop()


def ask(
    url,
    path="/",
    token=None,
    method="GET",
    **headers,
):
    """Send a request with some headers. Read the beginning of a stream of events."""
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=5)
    token = split.query.removeprefix("token=") if token is None else token
    query = f"{'&' if '?' in path else '?'}token={token}" if token else ""
    header_names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path + query, headers=header_names)
    response = connection.getresponse()
    is_stream = response.getheader("content-type", "").startswith("text/event-stream")
    body = response.read1(65536) if is_stream else response.read()
    connection.close()
    return response, body


def read_events(url, is_last):
    """Read events of a stream with their ids, up to the first that is the last."""
    split, events, number = urlsplit(url), list[dict[str, Any]](), 0
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=5)
    connection.request("GET", f"/events?{split.query}")
    for line in connection.getresponse():
        if line.startswith(b"id: "):
            number = int(line[4:])
        if line.startswith(b"data: "):
            events.append({**json.loads(line[6:]), "id": number})
            if is_last(events[-1]):
                break
    connection.close()
    return events


def test_a_request_that_is_not_the_pages_own_is_refused(started):
    _, url = started()
    for refused in (
        {"Host": f"evil.test:{urlsplit(url).port}"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "same-site"},
        {"token": ""},
        {"token": "wrong"},
    ):
        for path in PATHS:
            response, body = ask(url, path, **refused)
            assert response.status == 403 and b"brainhive live" in body, (
                refused,
                path,
            )
    assert {ask(url, path, method="POST")[0].status for path in PATHS} == {405}


def test_the_page_is_read_by_its_address_and_by_localhost(started):
    _, url = started()
    port = urlsplit(url).port
    same_origin = {
        "Origin": f"http://127.0.0.1:{port}",
        "Sec_Fetch_Site": "same-origin",
    }

    statuses = [
        ask(url)[0].status,
        ask(url, Host=f"LOCALHOST:{port}")[0].status,
        ask(url, Sec_Fetch_Site="none")[0].status,
        ask(url, "/events", **same_origin)[0].status,
        ask(url, "/events", method="HEAD")[0].status,
    ]

    assert statuses == [200] * 5
    assert url.startswith("http://127.0.0.1:")


def test_no_response_reveals_the_token_or_can_be_embedded(
    started,
):
    page, url = started()
    page.publish(START)
    page.publish({"kind": "drawing", "window": 1}, write_picture("red"))
    token = urlsplit(url).query.removeprefix("token=")
    assert len(token) == 43

    responses = [
        ask(url, path, **headers)
        for path in PATHS
        for headers in ({}, {"Origin": "null"})
    ]

    assert token not in str(read_events(url, lambda event: event["kind"] == "start"))
    for response, body in responses:
        headers = {name.lower(): value for name, value in response.getheaders()}
        assert token.encode() not in body
        assert token not in str(headers)
        assert not [name for name in headers if name.startswith("access-control")]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_an_occupied_port_and_foreign_hosts_are_errors():
    with socket.create_server(("127.0.0.1", 0)) as other_server:
        port = other_server.getsockname()[1]
        with pytest.raises(BrainhiveError) as caught:
            LivePage("", read_picture, port=port).start()
        assert str(port) in str(caught.value)
    # an address for documentation (RFC 5737)
    with pytest.raises(BrainhiveError) as caught:
        LivePage("", read_picture, host="192.0.2.1").start()
    assert "192.0.2.1" in str(caught.value)


def test_a_late_browser_gets_the_start_and_the_latest_events(
    started,
):
    page, url = started()
    stall = [{"kind": "stalled", "for_s": 1}, {"kind": "resumed", "after_s": 3}]
    for event in [START] + list(stall) + list(map(result, range(1, 100))):
        page.publish(event)
    page.publish({"kind": "drawing", "window": 98}, write_picture("red"))
    page.publish({"kind": "ended", "text": "over"})

    for _ in range(2):
        history, *events = read_events(url, lambda event: event["kind"] == "ended")
        windows = [event["window"] for event in events if event["kind"] == "result"]
        assert windows == list(range(100 - MAX_RESULTS, 100))
        kinds = [event["kind"] for event in events if event["kind"] != "result"]
        assert kinds == ["start", "stalled", "resumed", "drawing", "ended"]
        assert len(history["hits"]) == 99
        assert history["hits"][0] == [1, 0.25, 0.06, 0.6]
        assert history["drawings"] == [98]


def test_a_result_names_its_pictures_without_folders(started):
    page, url = started()
    page.publish(
        result(1, shown_picture="test/00001_cat/black_cat_01", average_best=None)
    )

    (_, event) = read_events(url, lambda event: event["kind"] == "result")

    names = event["names"]
    assert names["test/00001_cat/black_cat_01"] == "black cat 01"
    assert (names["dog/2"], names[STRANGE[0]]) == ("dog 2", STRANGE[0])
    matches = {match["image"] for match in event["best"]}
    assert names.keys() == matches | {event["shown"]}


def test_stop_ends_open_streams_with_the_last_event(
    started,
):
    page, url = started()
    page.publish(START)
    collected_events = list[dict[str, Any]]()

    def read():
        collected_events.extend(read_events(url, lambda event: False))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)

    page.publish({"kind": "ended", "text": "over"})
    start = time.perf_counter()
    page.stop()
    seconds = time.perf_counter() - start
    for reader in readers:
        reader.join(5)

    assert seconds < GRACE_S  # the streams end by themselves
    assert [event["kind"] for event in collected_events].count("ended") == 2
    with pytest.raises(ConnectionRefusedError):
        ask(url)
    page.publish(START)
    page.stop()


@pytest.fixture(scope="module")
def launched():
    """Launch a browser for all tests of this file."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def open_in_browser(launched):
    """Return a function that opens an address, and lists errors of the browser."""
    contexts = []

    def open_page(url, width=DESK, scheme="light"):
        context = launched.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        contexts.append(context)
        page, complaints = context.new_page(), list[str]()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def wait_for(condition, timeout_s=10):
    """Wait until a condition holds.

    The policy of the page forbids the waits of Playwright, which evaluate a text.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_events_reach_the_page_and_nothing_is_lost_off_screen(started, open_in_browser):
    page, url = started()
    shown_page, complaints = open_in_browser(url, PHONE, "dark")
    page.publish(START)
    for window in range(1, 15):
        page.publish(
            result(
                window, repetitions=2, average_best=result(1)["best"], average_rank=1
            )
        )
    drawing_event = {"kind": "drawing", "window": 14, "seconds": 0.8, "skipped": 3}
    page.publish(drawing_event, write_picture("red"))
    page.publish({"kind": "unknown kind"})
    wait_for(lambda: shown_page.locator("#drawing").is_visible())

    text = shown_page.locator("body").inner_text().replace("\u00a0", " ")
    order = [
        "running",
        "simulated",
        "Shown",
        "Best matches of this trial",
        "Best matches of the average of 2",
        "Drawing",
    ]
    order += [
        "Seen picture ranked first",
        "Latency",
        "Stream",
        f"† {MEANINGS[SIMULATED]}",
        "live it is causal",
        "Last windows",
    ]
    positions = [text.index(phrase) for phrase in order]
    assert positions == sorted(positions)
    numbers_shown = [
        "rank 3 of 200",
        "rank 1 of 200",
        "0.0412",
        "25 %†",
        "3 of 14",
        "chance 0.5 %",
        "1.23",
    ]
    for phrase in list(numbers_shown) + [
        "6 to 60 %",
        "valid at every moment",
        "drawn in 0.8 s, 3 skipped",
    ]:
        assert phrase in text, phrase
    numbers = re.findall(r"\d+\.\d+", text)
    assert numbers
    assert max(len(number.replace(".", "").strip("0")) for number in numbers) <= 3

    assert shown_page.evaluate("document.documentElement.scrollWidth") == PHONE
    lost = """() => [...document.querySelectorAll('body *')].filter(each =>
        each.checkVisibility() && !each.closest('.strip')
        && each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.outerHTML.slice(0, 80))"""
    broken = (
        "() => [...document.images].filter(each => !each.hidden && "
        "!each.naturalWidth).length"
    )
    wait_for(lambda: shown_page.evaluate(broken) == 0)
    assert shown_page.evaluate(lost) == []
    assert complaints == []
    assert shown_page.locator("#film > li").count() == MAX_RESULTS
    slab = "getComputedStyle(document.body).backgroundColor"
    assert shown_page.evaluate(slab) == "rgb(20, 23, 26)"


def test_names_of_pictures_are_text_whatever_they_hold(started, open_in_browser):
    name = STRANGE[0]
    page, url = started()
    page.publish({**START, "model": name, "caveats": [name]})
    page.publish(result(1, shown_picture=name, event=f"at {name}"))
    page.publish({"kind": "warning", "text": name})
    shown_page, complaints = open_in_browser(url)
    wait_for(lambda: shown_page.locator("#warning").is_visible())

    assert shown_page.locator("#shown figcaption").inner_text() == name
    assert (
        shown_page.locator("#warning").inner_text() == name
        and f"at {name}" in shown_page.locator("#window").inner_text()
    )
    wait_for(
        lambda: (
            shown_page.locator("#shown img").evaluate("image => image.naturalWidth")
            == 16
        )
    )
    assert shown_page.title() == "Live session"
    assert complaints == []
    assert shown_page.locator("main b b").count() == 0


def test_the_status_says_stalls_the_end_and_a_lost_connection(started, open_in_browser):
    page, url = started()
    shown_page, _ = open_in_browser(url)
    status = shown_page.locator(".status")
    for event, phrase in (
        (START, "running"),
        ({"kind": "stalled", "for_s": 1.2}, "stalled for 1 s"),
        ({"kind": "resumed", "after_s": 3.14159}, "running resumed after 3.14 s"),
    ):
        page.publish(event)
        wait_for(lambda phrase=phrase: phrase in " ".join(status.inner_text().split()))
    page.stop()
    wait_for(lambda: "no connection" in status.inner_text())

    other_page, url = started()
    shown_page, _ = open_in_browser(url)
    other_page.publish(START)
    other_page.publish({"kind": "ended", "text": "after 200 windows"})
    wait_for(lambda: "ended" in shown_page.locator(".status").inner_text())
    other_page.stop()
    shown_page.wait_for_timeout(700)
    assert " ".join(shown_page.locator(".status").inner_text().split()).startswith(
        "ended after 200 windows"
    )


def test_idle_connections_do_not_exhaust_the_open_files(started, monkeypatch):
    """A process may open a limited number of files, which connections could use up."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (20, 20))
    _, url = started()  # 5 of the 20 files may be connections
    address = urlsplit(url).hostname, urlsplit(url).port

    def is_closed(connection):
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    idle = [socket.create_connection(address, timeout=0.1) for _ in range(9)]
    assert [is_closed(connection) for connection in idle] == [False] * 5 + [True] * 4
    for connection in idle:
        connection.close()
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        try:
            assert ask(url)[0].status == 200
            return
        except OSError:  # the server has not seen yet that they are closed
            time.sleep(0.05)
    pytest.fail("closed connections are counted")
