"""Requests to web servers, with retries if a server is busy."""

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
"""Waits before the second and before the third request to a busy server, in seconds."""
MAX_WAIT_S = 10.0
"""Longest wait that a server may request with its header Retry-After."""
BUSY_STATUSES = {429, 500, 502, 503, 504}
"""HTTP statuses of a server that may answer a later request."""
PROXY_ERROR = re.compile(r"\bproxy\b|SOCKS|(invalid|nonnumeric) port", re.IGNORECASE)
"""Pattern of the messages in which httpx, requests and urllib report a proxy that they
cannot use.
"""


def call_with_retries(
    call: Callable[[], Response], read_answer: Callable[[Exception], tuple[int, Any]]
) -> Response:
    """Send a request, and repeat the request up to twice while the server is busy.

    Args:
        call: Function that sends the request and returns the response. It raises an
            error if the server is busy.
        read_answer: Function that gets an error of `call`. It returns the HTTP status
            and the headers of the server's answer, or the status 0 if there was no
            answer.

    Returns:
        The result of `call`.

    Raises:
        Exception: the error of `call`, if the server is still busy after the last
            repetition, or if the error has another reason than a busy server.
    """
    for wait_s in RETRY_WAITS_S:
        try:
            return call()
        except Exception as error:
            status, headers = read_answer(error)
            if status not in BUSY_STATUSES:
                raise

            # Wait as long as the server requests, up to `MAX_WAIT_S`. A header that is
            # missing, a date, negative or NaN is ignored.
            with suppress(TypeError, ValueError):
                requested_s = float(headers.get("Retry-After"))
                if requested_s >= 0:
                    wait_s = min(requested_s, MAX_WAIT_S)
            time.sleep(wait_s)
    return call()


def call_in_thread(call: Callable[[], Response]) -> Response:
    """Call a function in another thread, and wait for its result.

    Ctrl-C then interrupts the wait, even if the function ignores Ctrl-C.

    Args:
        call: Function without arguments.

    Returns:
        The result of `call`. An error of `call` is raised in this thread.
    """
    result = Future[Response]()

    def run_call() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    # The threads that `call` starts inherit the flag `daemon`. Python waits for them
    # before the program ends only if the flag is False.
    Thread(target=run_call, daemon=False).start()
    return result.result()


class _WebRedirectHandler(HTTPRedirectHandler):
    """A handler of urllib that follows redirects only to web addresses."""

    def redirect_request(self, *arguments: Any) -> Request | None:
        """Return the request of a redirect, whose address is the last argument."""
        _require_web_address(arguments[-1])
        return super().redirect_request(*arguments)


def open_web(request: Request, timeout_s: float) -> Any:
    """Open a web address, with retries if the server is busy.

    Args:
        request: Request with the address.
        timeout_s: Longest wait for the server, in seconds.

    Returns:
        The response of urllib, an open file.

    Raises:
        MissingData: if the address is not a web address.
        OSError: if the server cannot be reached, or refuses the request.
    """
    # The default opener of urllib can also open FTP and local files. This opener gets
    # only the handlers for web addresses.
    _require_web_address(request.full_url)
    opener = OpenerDirector()
    for handler in (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        _WebRedirectHandler,
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
    ):
        opener.add_handler(handler())

    # return the HTTP status and headers of an error, or 0 without an answer
    def read_answer(error: Exception) -> tuple[int, Any]:
        if isinstance(error, HTTPError):
            return error.code, error.headers
        return 0, {}

    send = partial(opener.open, request, timeout=timeout_s)
    return call_with_retries(send, read_answer)


def _require_web_address(url: str) -> None:
    """Raise an error if an address is not a web address."""
    if not is_web_address(url):
        raise MissingData(f"{url} is not a web address", "tell the owner of the server")


def is_web_address(url: str) -> bool:
    """Return True if an address is a complete http or https address."""
    try:
        address = urlsplit(url)
        has_host = bool(address.hostname) and address.port != 0
    except ValueError:  # an open bracket, or a port that is not a number
        return False
    return address.scheme in ("http", "https") and has_host


def find_bad_proxy(error: Exception) -> BrainhiveError | None:
    """Find out if a library failed because of a proxy in the environment variables.

    Args:
        error: Error of the library.

    Returns:
        An error that names the variables, such as HTTPS_PROXY, or None if no proxy is
        set, or if the library failed for another reason.
    """
    # list the variables that set a proxy
    variables = []
    for name in os.environ:
        if name.lower().endswith("_proxy") and name.lower() != "no_proxy":
            variables.append(name)

    # read the reason from the message of the library
    reason = str(error)
    if not variables or not PROXY_ERROR.search(reason):
        return None
    names = ", ".join(variables)
    message = f"a proxy of {names} cannot be used: {reason.splitlines()[0]}"
    if "SOCKS" in reason:
        return MissingExtra(message, "pip install 'httpx[socks]' 'requests[socks]'")
    return MissingData(message, f"correct or unset {names}")
