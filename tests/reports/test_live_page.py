"""The page of a live session: who may read it, what it shows, and that no browser slows the session."""

import http.client
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.measurements import SIMULATED, TRAINED_TRIALS, UNKNOWN_TRIALS
from brainhive_cli.reports import live_page
from brainhive_cli.reports.live_page import (
    DRAWINGS_KEPT,
    GRACE_S,
    PICTURES_KEPT,
    RESULTS_KEPT,
    STOP_S,
    LivePage,
)
from brainhive_cli.reports.sentences import MEANINGS

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = 390, 1280
STRANGE = [
    """<img src=x onerror="document.title='broken'">""",
    'it\'s "quoted" & 100% <b>bold</b>',
    "日本/é/../ø?x=1#y",
]
PATHS = ["/", "/events", "/picture?image=cat/1", "/drawing?window=1", "/other", "/events/"]
START = {
    "kind": "start",
    "model": "a ridge",
    "pool": 200,
    "caveats": [SIMULATED],
    "differs": ["zero-phase filter: live it is causal"],
}


def write_picture(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


def read_picture(image_id: str) -> bytes | None:
    known = {"cat/1": write_picture("red"), "dog/2": write_picture("blue")}
    return {**known, **dict.fromkeys(STRANGE, write_picture("green"))}.get(image_id)


def result(window: int, shown: str | None = "cat/1", **changes: Any) -> dict[str, Any]:
    best = [{"image": name, "similarity": 0.312345} for name in ("dog/2", "cat/1", *STRANGE)]
    hits = {"n": window, "top1": 3, "rate": 0.25, "interval": [0.06, 0.6], "chance": 0.005, "level": 0.95}
    return {
        "kind": "result",
        "window": window,
        "event": "marker",
        "shown": shown,
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
def started() -> Iterator[Callable[..., tuple[LivePage, str]]]:
    """Start pages, which are stopped in the end."""
    pages = []

    def start(read: Callable[[str], bytes | None] = read_picture, **options: Any) -> tuple[LivePage, str]:
        page = LivePage("Live session", read, **options)
        url = page.start()
        pages.append(page)
        return page, url

    yield start
    for page in pages:
        page.stop()


def ask(
    url: str, path: str = "/", token: str | None = None, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request with headers of our own; of a stream of events, read the beginning."""
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=5)
    token = split.query.removeprefix("token=") if token is None else token
    query = f"{'&' if '?' in path else '?'}token={token}" if token else ""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path + query, headers=named)
    response = connection.getresponse()
    is_stream = response.getheader("content-type", "").startswith("text/event-stream")
    body = response.read1(65536) if is_stream else response.read()
    connection.close()
    return response, body


def read_events(url: str, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Read a stream of events, each with its id, from its beginning until one of them is the last."""
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


@pytest.mark.parametrize(
    "refused",
    [
        {"Host": "evil.test:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.evil.test:{port}"},
        {"Host": ""},
        {"Origin": "http://evil.test"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"token": ""},
        {"token": "wrong"},
        {"token": "é"},
    ],
    ids=str,
)
def test_a_request_that_is_not_the_pages_own_is_refused(started, refused):
    _, url = started()
    port = str(urlsplit(url).port)
    options = {name: quote(value.replace("{port}", port), safe=":/") for name, value in refused.items()}

    for path in PATHS:
        response, body = ask(url, path, **options)
        assert response.status == 403 and body.startswith(b"Refused"), path


def test_the_page_is_read_by_its_address_and_by_localhost(started):
    _, url = started()
    port = urlsplit(url).port
    same = {"Origin": f"http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}

    statuses = [
        ask(url)[0].status,
        ask(url, Host=f"LOCALHOST:{port}")[0].status,
        ask(url, Sec_Fetch_Site="none")[0].status,
        ask(url, "/events", **same)[0].status,
        ask(url, "/events", method="HEAD")[0].status,
    ]

    assert statuses == [200] * 5 and url.startswith("http://127.0.0.1:")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no 127.0.0.2")
def test_another_address_is_served_only_where_it_is_passed(started):
    _, default = started()
    _, url = started(host="127.0.0.2")

    assert ask(url)[0].status == 200 and url.startswith("http://127.0.0.2:")
    assert ask(default, Host=f"127.0.0.2:{urlsplit(default).port}")[0].status == 403
    with pytest.raises(ConnectionRefusedError):
        ask(default.replace("127.0.0.1", "127.0.0.2"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_but_reading_is_allowed(started, method):
    _, url = started()
    assert [ask(url, path, method=method)[0].status for path in PATHS] == [405] * len(PATHS)


def test_no_response_gives_out_the_token_or_may_be_read_kept_or_embedded_elsewhere(started):
    page, url = started()
    page.publish(START)
    page.publish({"kind": "drawing", "window": 1}, write_picture("red"))
    token = urlsplit(url).query.removeprefix("token=")
    assert len(token) == 43

    responses = [ask(url, path, **headers) for path in PATHS for headers in ({}, {"Origin": "null"})]

    assert token not in str(read_events(url, lambda event: event["kind"] == "start"))
    for response, body in responses:
        headers = {name.lower(): value for name, value in response.getheaders()}
        assert token.encode() not in body and token not in str(headers)
        assert not [name for name in headers if name.startswith("access-control")]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_port_that_is_taken_and_hosts_that_no_browser_names_are_errors():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrainhiveError, match=f"cannot open the page on 127.0.0.1, port {port}"):
            LivePage("", read_picture, port=port).start()
    with pytest.raises(BrainhiveError, match=r"cannot open the page on 192\.0\.2\.1"):  # RFC 5737: nobody's
        LivePage("", read_picture, host="192.0.2.1").start()


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        *[(host, "is 0.0.0.0, which stands") for host in ("0", "0x0", "00.0", "0.0.0.0")],
        *[(host, "more than one address") for host in ("", "224.0.0.1", "255.255.255.255")],
        *[(host, "is not found") for host in ("::", "::1", "ff02::1")],
        ("nobody.invalid", "is not found"),
        ("a" * 64, "is not found"),
        ("two\nlines", "is not found"),
    ],
)
def test_a_host_that_is_not_one_address_is_refused_however_it_is_written(host, problem):
    with pytest.raises(BrainhiveError, match=problem) as caught:
        LivePage("", read_picture, host=host).start()
    assert caught.value.hint == "name the address that browsers open, as 192.168.1.20"


@pytest.mark.parametrize("host", ["127.1", "0x7f000001"])
def test_an_address_is_written_as_browsers_write_it(started, host):
    _, url = started(host=host)
    assert url.startswith("http://127.0.0.1:") and ask(url)[0].status == 200


def connect(url: str, text: str) -> socket.socket:
    split = urlsplit(url)
    client = socket.create_connection((split.hostname, split.port), timeout=5)
    client.sendall(text.format(host=split.netloc, query=split.query).encode())
    return client


def test_a_picture_reaches_a_browser_on_a_slow_network(started):
    page, url = started()
    drawing = b"\x89PNG" + bytes(12 << 20)
    page.publish({"kind": "drawing", "window": 1}, drawing)  # more than buffers of the system hold
    request = "GET /drawing?window=1&{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    client, count = connect(url, request), 0
    while content := client.recv(1 << 18):
        count += len(content)
        time.sleep(0.05)
    assert count > 12 << 20


def test_more_connections_than_are_allowed_are_refused(started, monkeypatch):
    monkeypatch.setattr(live_page, "MAX_CONNECTIONS", 20)
    page, url = started()
    page.publish(START)
    open_stream = "GET /events?{query} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    viewers = [connect(url, open_stream) for _ in range(20)]
    assert all(viewer.recv(15) == b"HTTP/1.1 200 OK" for viewer in viewers)

    for _ in range(3):
        assert ask(url, "/events")[0].status == 503
    viewers.pop().close()
    wait_for(lambda: not is_refused(url))


def is_refused(url: str) -> bool:
    try:
        return ask(url, "/events")[0].status != 200
    except (ConnectionError, http.client.RemoteDisconnected):
        return True


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra) as error:
        LivePage("", read_picture).start()
    assert error.value.hint == "pip install 'brainhive[live]'"


def test_pictures_are_sent_once_read_and_nothing_else_is(started):
    asked = list[str]()

    def read(image_id: str) -> bytes | None:
        asked.append(image_id)
        return read_picture(image_id)

    _, url = started(read)
    known = [
        ask(url, f"/picture?image={quote(name, safe='')}") for name in ("cat/1", "cat/1", "dog/2", *STRANGE)
    ]
    statuses = [ask(url, path)[0].status for path in ("/picture?image=no", "/picture")]

    kinds = [response.getheader("content-type") for response, _ in known]
    assert kinds == ["image/png"] * 6
    assert [body for _, body in known] == [read_picture(n) for n in ("cat/1", "cat/1", "dog/2", *STRANGE)]
    assert statuses == [404] * 2 and asked.count("cat/1") == 1


def test_no_more_pictures_and_drawings_than_the_last_stay_in_memory(started):
    asked = list[str]()
    page, url = started(lambda image_id: asked.append(image_id) or write_picture("red"))
    for image in [*range(PICTURES_KEPT + 1), PICTURES_KEPT, 0]:
        page.load_picture(str(image))
    for window in range(DRAWINGS_KEPT + 2):
        page.publish({"kind": "drawing", "window": window}, write_picture("red"))

    statuses = [ask(url, f"/drawing?window={window}")[0].status for window in range(DRAWINGS_KEPT + 2)]

    assert asked.count("0") == 2 and asked.count(str(PICTURES_KEPT)) == 1
    assert statuses == [404, 404, *[200] * DRAWINGS_KEPT]
    assert [ask(url, f"/drawing{query}")[0].status for query in ("", "?window=x", "?window=-1")] == [404] * 3


def test_who_connects_later_gets_the_start_the_latest_of_each_kind_and_the_last_results(started):
    page, url = started()
    stall = [{"kind": "stalled", "for_s": 1}, {"kind": "resumed", "after_s": 3}]
    for event in [START, *stall, *map(result, range(1, 100))]:
        page.publish(event)
    page.publish({"kind": "drawing", "window": 98}, write_picture("red"))
    page.publish({"kind": "ended", "text": "over"})

    for _ in range(2):
        history, *events = read_events(url, lambda event: event["kind"] == "ended")
        windows = [event["window"] for event in events if event["kind"] == "result"]
        assert windows == list(range(100 - RESULTS_KEPT, 100))
        kinds = [event["kind"] for event in events if event["kind"] != "result"]
        assert kinds == ["start", "stalled", "resumed", "drawing", "ended"]
        assert len(history["hits"]) == 99 and history["hits"][0] == [1, 0.25, 0.06, 0.6]
        assert history["drawings"] == [98]


def test_events_reach_an_open_stream_in_order_with_numbers(started):
    page, url = started()
    page.publish(START)
    seen = list[dict[str, Any]]()

    def read() -> None:
        seen.extend(read_events(url, lambda event: event["kind"] == "ended"))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    for window in range(20):
        page.publish(result(window, margin=float("nan")))
    page.publish({"kind": "ended", "text": ""})
    reader.join(5)

    results = [event for event in seen if event["kind"] == "result"]
    assert [event["window"] for event in results] == list(range(20)) and results[0]["margin"] is None
    assert [event["id"] for event in seen] == list(range(23))


def test_a_client_that_never_reads_slows_no_event_and_costs_no_memory(started):
    page, url = started()
    split = urlsplit(url)
    stuck = [socket.create_connection((split.hostname, split.port)) for _ in range(3)]
    for client in stuck:
        client.sendall(f"GET /events?{split.query} HTTP/1.1\r\nHost: {split.netloc}\r\n\r\n".encode())
    for window in range(2000):  # fills the buffers of the system
        page.publish(result(window, padding="x" * 10_000))
    time.sleep(0.5)

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    slowest, begun = 0.0, time.perf_counter()
    for window in range(3000):
        start = time.perf_counter()
        page.publish(result(window, padding="x" * 10_000))
        slowest = max(slowest, time.perf_counter() - start)
    seconds = time.perf_counter() - begun
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 4_000_000  # 30 MB were published, for each of three clients
    assert seconds < 15 and slowest < 1  # traced, on loaded cores; a blocked call would wait for ever
    start = time.perf_counter()
    page.stop()
    assert time.perf_counter() - start < STOP_S
    for client in stuck:
        client.close()


def test_stop_ends_within_two_seconds_with_open_streams_which_get_the_last_event(started):
    page, url = started()
    page.publish(START)
    seen = list[dict[str, Any]]()

    def read() -> None:
        seen.extend(read_events(url, lambda event: False))

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

    assert seconds < GRACE_S  # they end by themselves, nothing is cancelled
    assert [event["kind"] for event in seen].count("ended") == 2
    with pytest.raises(ConnectionRefusedError):
        ask(url)
    page.publish(START)
    page.stop()


@pytest.fixture(scope="module")
def launched() -> Iterator[Callable[..., Any]]:
    """Launch browsers, each once, with flags of their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sandbox, browsers = ["--no-sandbox"] if os.geteuid() == 0 else [], dict[tuple[str, ...], Any]()
    with playwright.sync_playwright() as opened:

        def launch(*flags: str) -> Any:
            if flags not in browsers:
                options = {"executable_path": CHROMIUM, "args": [*sandbox, *flags]}
                browsers[flags] = opened.chromium.launch(**options)
            return browsers[flags]

        yield launch
        for browser in browsers.values():
            browser.close()


@pytest.fixture
def opened(launched: Callable[..., Any]) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Open an address in some width and scheme; what the browser complained of is in the list."""
    contexts = []

    def open_page(url: str, width: int = DESK, scheme: str = "light") -> tuple[Any, list[str]]:
        context = launched().new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page, complaints = context.new_page(), list[str]()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def wait_for(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    """Wait until a condition holds: the policy of the page forbids the waits that evaluate a text."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (DESK, "dark")])
def test_events_reach_the_page_and_nothing_is_lost_off_screen(started, opened, width, scheme):
    page, url = started()
    shown, complaints = opened(url, width, scheme)
    page.publish(START)
    for window in range(1, 15):
        page.publish(result(window, repetitions=2, average_best=result(1)["best"], average_rank=1))
    drawn = {"kind": "drawing", "window": 14, "seconds": 0.8, "skipped": 3}
    page.publish(drawn, write_picture("red"))
    page.publish({"kind": "unknown kind"})
    wait_for(lambda: shown.locator("#drawing").is_visible())

    text = shown.locator("body").inner_text()
    order = ["running", "simulated", "Shown", "Best by this trial", "Best by the average of 2", "Drawing"]
    order += [
        "Seen picture ranked first",
        "Latency",
        "Stream",
        f"† {MEANINGS[SIMULATED]}",
        "live it is causal",
        "Last windows",
    ]
    positions = [text.index(words) for words in order]
    assert positions == sorted(positions)
    numbers_shown = ["rank 3 of 200", "rank 1 of 200", "0.0412", "25 %†", "3 of 14", "chance 0.5 %", "1.23"]
    for words in [*numbers_shown, "6 to 60 %", "valid at every moment", "drawn in 0.8 s, 3 skipped"]:
        assert words in text, words
    numbers = re.findall(r"\d+\.\d+", text)
    assert numbers and max(len(number.replace(".", "").strip("0")) for number in numbers) <= 3

    assert shown.evaluate("document.documentElement.scrollWidth") == width
    lost = """() => [...document.querySelectorAll('body *')].filter(each => each.checkVisibility()
        && each.getBoundingClientRect().right > innerWidth + 1 && !each.closest('.strip'))
        .map(each => each.outerHTML.slice(0, 80))"""
    broken = "() => [...document.images].filter(each => !each.hidden && !each.naturalWidth).length"
    wait_for(lambda: shown.evaluate(broken) == 0)
    assert shown.evaluate(lost) == [] and complaints == []
    assert shown.locator("#film > li").count() == RESULTS_KEPT
    slab = "getComputedStyle(document.body).backgroundColor"
    assert shown.evaluate(slab) == ("rgb(20, 23, 26)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_the_first_screen_of_a_desk_holds_all_but_the_filmstrip(started, opened):
    page, url = started()
    page.publish(START)
    page.publish(result(1, repetitions=2, average_best=result(1)["best"], average_rank=1))
    shown, _ = opened(url)
    wait_for(lambda: shown.locator("#trial").is_visible())
    for name in ("state", "shown", "best", "curve", "latency", "stream", "caveats", "differs"):
        box = shown.locator(f"#{name}").bounding_box()
        assert box["y"] + box["height"] <= 800, name


def test_the_page_says_what_it_shows_to_screen_readers_and_only_its_status_aloud(started, opened):
    page, url = started()
    page.publish(START)
    page.publish(result(1))
    shown, _ = opened(url)
    wait_for(lambda: shown.locator("#trial").is_visible())

    assert shown.locator("[aria-live]").evaluate_all("them => them.map(it => it.id)") == ["state"]
    assert shown.get_by_role("heading", name="Window 1, marker marker, at 12.3 s").is_visible()
    assert shown.get_by_role("img", name="2: cat/1, the shown picture").is_visible()
    assert shown.get_by_role("img", name="Shown: cat/1").count() == 2
    curve = "Share of trials that ranked the seen picture first, after trial 1: 25 %, "
    curve += "interval 6 % to 60 %, chance 0.5 %"
    assert shown.get_by_role("img", name=curve).is_visible()
    assert shown.locator(".right").count() == 1 and shown.locator("main img:not([alt])").count() == 0
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('aria-label')") == "Last windows, newest first"


def test_a_caveat_of_trials_is_a_sentence_and_a_mark_at_the_number(started, opened):
    page, url = started()
    page.publish({**START, "caveats": [], "differs": []})
    shown, complaints = opened(url)
    wait_for(lambda: shown.locator("#nothing").is_visible())
    assert not shown.locator("#simulated").is_visible()

    page.publish(result(1, hits={**result(1)["hits"], "caveats": [TRAINED_TRIALS, UNKNOWN_TRIALS]}))
    wait_for(lambda: shown.locator("#trial").is_visible())

    sentences = [f"† {MEANINGS[caveat]}" for caveat in (TRAINED_TRIALS, UNKNOWN_TRIALS)]
    assert shown.locator("#caveats li").all_inner_texts() == sentences and complaints == []
    assert shown.locator("#rate").inner_text() == "25 %†" and not shown.locator("#nothing").is_visible()
    assert "[" not in shown.locator("body").inner_text()


@pytest.mark.parametrize("name", STRANGE)
def test_names_of_pictures_are_text_whatever_they_hold(started, opened, name):
    page, url = started()
    page.publish({**START, "model": name, "caveats": [name]})
    page.publish(result(1, shown=name, event=f"at {name}"))
    page.publish({"kind": "warning", "text": name})
    shown, complaints = opened(url)
    wait_for(lambda: shown.locator("#warning").is_visible())

    assert shown.locator("#shown figcaption").inner_text() == name
    assert (
        shown.locator("#warning").inner_text() == name
        and f"at {name}" in shown.locator("#window").inner_text()
    )
    wait_for(lambda: shown.locator("#shown img").evaluate("image => image.naturalWidth") == 16)
    assert shown.title() == "Live session" and complaints == [] and shown.locator("main b b").count() == 0


def test_what_is_not_known_is_said(started, opened):
    page, url = started()
    page.publish({**START, "caveats": [], "differs": []})
    page.publish(result(1, shown=None, rank=None, hits=None))
    shown, complaints = opened(url)
    wait_for(lambda: shown.locator("#trial").is_visible())

    assert shown.locator("#shown").inner_text() == "not known"
    assert "rank" not in shown.locator("#rank").inner_text()
    assert "no trial whose picture is known" in shown.locator("#hits").inner_text() and complaints == []
    assert not shown.locator("#simulated").is_visible() and not shown.locator("#drawing").is_visible()


def test_the_status_says_stalls_the_end_and_a_lost_connection(started, opened):
    page, url = started()
    shown, _ = opened(url)
    status = shown.locator(".status")
    for event, words in (
        (START, "running"),
        ({"kind": "stalled", "for_s": 1.2}, "stalled for 1 s"),
        ({"kind": "resumed", "after_s": 3.14159}, "running resumed after 3.14 s"),
    ):
        page.publish(event)
        wait_for(lambda words=words: words in " ".join(status.inner_text().split()))
    page.stop()
    wait_for(lambda: "no connection" in status.inner_text())

    other, url = started()
    shown, _ = opened(url)
    other.publish(START)
    other.publish({"kind": "ended", "text": "after 200 windows"})
    wait_for(lambda: "ended" in shown.locator(".status").inner_text())
    other.stop()
    shown.wait_for_timeout(1500)
    assert " ".join(shown.locator(".status").inner_text().split()).startswith("ended after 200 windows")


def test_a_page_that_is_opened_again_shows_the_session_so_far_with_the_longer_curve(started, opened):
    page, url = started()
    page.publish(START)
    for window in range(1, 1001):
        page.publish(result(window))
    shown, complaints = opened(url)
    shown.reload()
    wait_for(lambda: "Window 1,000" in shown.locator("#window").inner_text())

    assert shown.locator("#film > li").count() == RESULTS_KEPT and complaints == []
    assert shown.locator("#curve text").all_text_contents()[-2:] == ["1", "1,000 trials"]
    line = shown.locator("#curve path[stroke='var(--c0)']").first.get_attribute("d")
    assert 200 < line.count("L") <= 800


@pytest.fixture
def foreign() -> Iterator[str]:
    """Serve an empty page from another port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>foreign</title>")

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("knows_token", [False, True])
def test_a_foreign_page_reads_nothing(started, opened, foreign, knows_token):
    """Not even with the token: that of another port is another origin, though the same site."""
    page, url = started()
    page.publish(START)
    assert ask(url, "/picture?image=cat/1")[0].status == 200
    split = urlsplit(url)
    query = split.query if knows_token else "token=guess"
    base = f"http://{split.netloc}"
    shown, _ = opened(foreign)

    outcomes = shown.evaluate(
        """([base, query]) => {
            const read = (path, options) => fetch(`${base}${path}${query}`, options)
                .then((answer) => answer.ok ? "read" : `${answer.type} ${answer.status}`, () => "failed");
            const load = (tag, path) => new Promise((resolve) => {
                const element = document.createElement(tag);
                element.onload = () => resolve("read");
                element.onerror = () => resolve("failed");
                element.src = `${base}${path}${query}`;
                document.head.append(element);
            });
            const listen = new Promise((resolve) => {
                const events = new EventSource(`${base}/events?${query}`);
                events.onopen = () => resolve("read");
                events.onerror = () => resolve(events.readyState === EventSource.CLOSED ? "failed" : "again");
            });
            const frame = new Promise((resolve) => {
                const element = document.createElement("iframe");
                element.onload = () => resolve(element.contentDocument ? "read" : "failed");
                element.src = `${base}/?${query}`;
                document.body.append(element);
            });
            const picture = "/picture?image=cat/1&";
            return Promise.all([read("/?"), read("/events?"), read(picture, {credentials: "include"}),
                read("/?", {mode: "no-cors"}), load("img", picture), load("script", "/?"), listen, frame]);
        }""",
        [base, query],
    )

    assert outcomes == ["failed"] * 8
    assert all("Live session" not in frame.content() for frame in shown.frames)


def test_a_name_that_is_bound_to_this_address_is_refused(started, launched):
    page, url = started()
    page.publish(START)
    port = urlsplit(url).port
    browser = launched("--host-resolver-rules=MAP evil.test 127.0.0.1")
    shown = browser.new_page()

    own = shown.goto(url)
    rebound = shown.goto(url.replace("127.0.0.1", "evil.test"))

    assert own.status == 200 and rebound.status == 403 and urlsplit(rebound.url).netloc == f"evil.test:{port}"
    shown.close()
