"""Requests to web servers, with retries if a server is busy."""

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from brainhive_cli.core.base import BrainhiveError, MissingData, MissingExtra

Response = TypeVar("Response")
RETRY_WAITS_S = (1.0, 4.0)
"""Waits before the second and before the third request to a busy server, in seconds."""
BUSY_STATUSES = {429, 500, 502, 503, 504}
"""HTTP statuses of a server that may answer a later request."""
SECRET_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
"""Name and password in an address, such as `https://name:password@host`."""


def call_with_retries(
    call: Callable[[], Response], read_answer: Callable[[Exception], tuple[int, Any]]
) -> Response:
    """Send a request, and repeat the request up to twice while the server is busy.

    Args:
        call: Function that sends the request. It raises an error if the server is busy.
        read_answer: Returns the HTTP status and headers of an error of `call`, or the
            status 0 if there was no answer.

    Returns:
        The result of `call`.

    Raises:
        Exception: the last error of `call`, or the first that is not about
            a busy server.
    """
    # Longest wait that a server may request with its header Retry-After.
    max_wait_s = 10.0
    for wait_s in RETRY_WAITS_S:
        try:
            return call()
        except Exception as error:
            status, headers = read_answer(error)
            if status not in BUSY_STATUSES:
                raise

            # a missing, negative or NaN header is ignored, and so is a date
            with suppress(TypeError, ValueError):
                requested_s = float(headers.get("Retry-After"))
                if requested_s >= 0:
                    wait_s = min(requested_s, max_wait_s)
            time.sleep(wait_s)
    return call()


def call_in_thread(call: Callable[[], Response]) -> Response:
    """Call a function in another thread, so that Ctrl-C interrupts the wait.

    Returns:
        The result of `call`. An error of `call` is raised here.
    """
    # Python waits for the thread at its end, and for threads that it has started
    return ThreadPoolExecutor(max_workers=1).submit(call).result()


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
    # the opener would also open FTP and local files
    _require_web_address(request.full_url)
    opener = build_opener(_WebRedirectHandler)

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

    Returns:
        An error that names variables such as HTTPS_PROXY, or None for
        any other failure.
    """
    variables = [
        name
        for name in os.environ
        if name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    ]
    reason = str(error)
    # Pattern of errors of httpx, requests and urllib about a bad proxy.
    if not variables or not re.search(
        r"\bproxy\b|SOCKS|(invalid|nonnumeric) port", reason, re.IGNORECASE
    ):
        return None
    names = ", ".join(variables)
    message = f"a proxy of {names} cannot be used: {reason.splitlines()[0]}"
    if "SOCKS" in reason:
        return MissingExtra(message, "pip install 'httpx[socks]' 'requests[socks]'")
    return MissingData(message, f"correct or unset {names}")
