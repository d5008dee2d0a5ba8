"""Requests of the web: servers that are busy are asked again, other kinds of address
are refused, and proxies that cannot be used are named.
"""

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra

Response = TypeVar("Response")
RETRY_WAITS_S = (1.0, 4.0)
"""Seconds before a busy server is asked for the second and the third time."""
MAX_WAIT_S = 10.0
"""The longest wait that a server may ask for by its header Retry-After."""
BUSY = {429, 500, 502, 503, 504}
"""Answers of a server that another attempt may change."""
OF_PROXIES = re.compile(r"\bproxy\b|SOCKS|(invalid|nonnumeric) port", re.IGNORECASE)
"""What httpx, requests and urllib say of a proxy that they cannot use."""


def ask(
    call: Callable[[], Response], read_answer: Callable[[Exception], tuple[int, Any]]
) -> Response:
    """Call a server, and again where it is busy.

    Args:
        call: Asks the server.
        read_answer: Reads status and headers of the server's answer from what `call`
            raises; 0 where there is none.
    """
    for wait_s in RETRY_WAITS_S:
        try:
            return call()
        except Exception as error:
            status, headers = read_answer(error)
            if status not in BUSY:
                raise
            with suppress(TypeError, ValueError):  # of no number of seconds
                requested_s = float(headers.get("Retry-After"))
                if requested_s >= 0:  # nor is a NaN
                    wait_s = min(requested_s, MAX_WAIT_S)
            time.sleep(wait_s)
    return call()


def call_in_thread(call: Callable[[], Response]) -> Response:
    """Call a library that waits for servers in a thread of its own, so that Ctrl-C does
    not wait.
    """
    answer = Future[Response]()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    # threads that a daemon begins would look like daemons at the program's end
    Thread(target=work, daemon=False).start()
    return answer.result()


class _Redirects(HTTPRedirectHandler):
    """Redirects to addresses of the web alone."""

    def redirect_request(self, *arguments: Any) -> Request | None:
        """Follow a redirect; its address is the last argument."""
        _require_web(arguments[-1])
        return super().redirect_request(*arguments)


def open_web(request: Request, timeout_s: float) -> Any:
    """Open an address of the web; a server that is busy is asked again.

    Raises:
        MissingData: for an address of another kind.
        OSError: if the server cannot be reached, or refuses.
    """
    # no handlers of FTP, data, and files of this machine
    _require_web(request.full_url)
    opener = OpenerDirector()
    for handler in (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        _Redirects,
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
    ):
        opener.add_handler(handler())

    def read_answer(error: Exception) -> tuple[int, Any]:
        return (error.code, error.headers) if isinstance(error, HTTPError) else (0, {})

    return ask(partial(opener.open, request, timeout=timeout_s), read_answer)


def _require_web(url: str) -> None:
    if not is_web_address(url):
        raise MissingData(f"{url} is no web address", "tell its host")


def is_web_address(url: str) -> bool:
    """Return True for a complete address of the web."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(
            parts.hostname and parts.port != 0
        )
    except ValueError:  # an open bracket, or a port that is no number
        return False


def find_bad_proxy(error: Exception) -> BrainhiveError | None:
    """Describe a proxy of the environment that a library cannot use; None where an
    error is another one.
    """
    proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
    names = ", ".join(name for name in proxies if name.lower() != "no_proxy")
    if not names or not OF_PROXIES.search(reason := str(error)):
        return None
    problem = f"a proxy of {names} cannot be used: {reason.splitlines()[0]}"
    if "SOCKS" in reason:
        return MissingExtra(problem, "pip install 'httpx[socks]' 'requests[socks]'")
    return MissingData(problem, f"correct or unset {names}")
