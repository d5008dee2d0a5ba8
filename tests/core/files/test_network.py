"""Servers that are busy, tokens that have expired, and proxies that cannot be used."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread, Timer
from urllib.request import Request

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, MissingExtra
from brainhive_cli.core.files import hub, network
from brainhive_cli.core.files.network import call_in_thread, call_with_retries, open_web


@pytest.fixture
def answers(monkeypatch):
    """A hub that gives these answers, and then the last one for ever."""
    statuses = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("X-Error-Message", "Invalid credentials")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listener.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # the client keeps its session, which may be offline, or of another proxy
        close_session()
        yield statuses
        close_session()
        # a closed server that still serves keeps a core busy
        listener.shutdown()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_three_times_and_its_answer_named(answers, status):
    answers += [status] * 9
    with pytest.raises(hub.Unreachable, match=str(status)) as caught:
        hub.folder("hub:owner/busy")
    assert "owner/busy" in caught.value.message
    assert len(answers) <= 6
    assert "hf download owner/busy" in caught.value.hint


def test_a_token_that_has_expired_is_named(answers):
    answers.append(401)
    with pytest.raises(MissingData, match="401") as caught:
        hub.folder("hub:owner/name")
    assert "owner/name" in caught.value.message
    assert "hf auth login" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("socks5://127.0.0.1:9", MissingExtra),
        ("socks4://127.0.0.1:9", BrainhiveError),
        ("foo://127.0.0.1:9", BrainhiveError),
        ("http://host:port", BrainhiveError),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    answers,
    monkeypatch,
    value,
    kind,
):
    for name in ("all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(kind, match="ALL_PROXY"):
        hub.folder("hub:owner/name")


def test_what_is_cached_needs_no_proxy(answers, monkeypatch, hub_cache):
    snapshot = hub_cache("owner/name")
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setenv("ALL_PROXY", "foo://127.0.0.1:9")
    assert hub.folder("hub:owner/name") == snapshot


def test_any_command_names_the_proxy(monkeypatch):
    """As where a library of a tracker opens the network."""

    def fail(*_):
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is absent")

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setattr("brainhive_cli.commands.check.list_checks", fail)
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == MissingExtra.exit_code
    assert "ALL_PROXY" in result.stderr


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:,a", "unknown://a"]
)
def test_only_addresses_of_the_web_are_opened(url):
    with pytest.raises(MissingData, match=re.escape(url)):
        open_web(Request(url), 1)


def test_ctrl_c_does_not_wait_for_threads_of_the_hubs_client(
    monkeypatch,
):
    def download(*_, **__):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 2).result()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    initial_signal = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            hub.Repository.parse("owner/name").snapshot()
    finally:
        signal.signal(signal.SIGINT, initial_signal)
    assert time.monotonic() - start < 1.5


def test_a_call_in_a_thread_gives_its_answer_or_error():
    assert call_in_thread(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        call_in_thread(lambda: 1 // 0)


def test_an_exception_from_proxies_is_no_proxy(
    monkeypatch,
):
    error = ValueError("nonnumeric port: 'port'")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")
    assert network.find_bad_proxy(error) is None
    monkeypatch.setenv("http_proxy", "http://host:port")
    bad_proxy = network.find_bad_proxy(error)
    assert bad_proxy
    assert "http_proxy" in bad_proxy.message
    assert "no_proxy" not in bad_proxy.message


@pytest.mark.parametrize("requested", ["nan", "-5", "soon", ""])
def test_a_wait_that_is_no_time_is_not_taken(monkeypatch, requested):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)

    def refuse():
        raise ValueError("busy")

    with pytest.raises(ValueError, match="busy"):
        call_with_retries(refuse, lambda error: (503, {"Retry-After": requested}))
    assert waits == list(network.RETRY_WAITS_S)


@pytest.mark.parametrize(
    ("url", "is_web"),
    [
        ("https://a.org/x", True),
        ("http://a:8080", True),
        ("http://a:0", False),
        ("http://:80/x", False),
        ("ftp://a.org", False),
        ("file:///etc", False),
        ("http://[a", False),
        ("http://a:x", False),
        ("a.org", False),
    ],
)
def test_an_address_of_the_web_is_complete(url, is_web):
    assert network.is_web_address(url) is is_web


class Refusal(Exception):
    """An answer of a server."""


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [
        (503, {}, [1.0, 4.0]),
        (429, {"Retry-After": "2.5"}, [2.5, 2.5]),
        (500, {"Retry-After": "0"}, [0.0, 0.0]),
        (502, {"Retry-After": "-1"}, [1.0, 4.0]),
        (504, {"Retry-After": "99"}, [10.0, 10.0]),
        (503, {"Retry-After": "nan"}, [1.0, 4.0]),
        (404, {}, []),
        (501, {}, []),
        (0, {}, []),
    ],
)
def test_a_server_that_is_busy_is_asked_three_times(
    monkeypatch,
    status,
    headers,
    waits,
):
    slept, calls = list[float](), list[int]()
    monkeypatch.setattr(time, "sleep", slept.append)
    # as of users: tests wait shorter
    monkeypatch.setattr(network, "RETRY_WAITS_S", (1.0, 4.0))

    def call():
        calls.append(1)
        raise Refusal

    with pytest.raises(Refusal):
        call_with_retries(call, lambda error: (status, headers))
    assert slept == waits
    assert len(calls) == len(waits) + 1
    answers = iter([Refusal(), None])

    def succeed_later():
        if error := next(answers):
            raise error
        return "answer"

    if waits:
        assert (
            call_with_retries(succeed_later, lambda error: (status, headers))
            == "answer"
        )


@pytest.mark.parametrize(
    ("variables", "reason", "kind"),
    [
        ({"HTTPS_PROXY": "x"}, "Unknown scheme for proxy URL", MissingData),
        ({"all_proxy": "x"}, "Using SOCKS needs socksio\nmore", MissingExtra),
        ({"http_proxy": "x"}, "nonnumeric port: 'x'", MissingData),
        ({"NO_PROXY": "x"}, "Unknown scheme for proxy URL", None),
        ({}, "Unknown scheme for proxy URL", None),
        ({"HTTPS_PROXY": "x"}, "proxying failed", None),
    ],
)
def test_a_bad_proxy_is_told_from_other_errors(
    monkeypatch,
    variables,
    reason,
    kind,
):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    bad_proxy = network.find_bad_proxy(ValueError(reason))
    assert type(bad_proxy) is (kind or type(None))
    if bad_proxy is not None:
        (name,) = variables
        assert name in bad_proxy.message
        assert "more" not in bad_proxy.message
