"""Servers that are busy, which are asked again, and proxies that cannot be used."""

import os
import re
import time
from contextlib import suppress
from http import HTTPStatus

from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra

RETRY_WAITS_S = (1.0, 4.0)
"""Seconds before a busy server is asked for the second and the third time."""
MAX_WAIT_S = 10.0
"""The longest wait that a server may ask for by its header Retry-After."""
BUSY = {429, 500, 502, 503, 504}
"""Answers of a server that another attempt may change."""
PROXIES = ("all_proxy", "http_proxy", "https_proxy")
OF_PROXIES = re.compile(r"\bproxy\b|SOCKS|(invalid|nonnumeric) port", re.IGNORECASE)
"""What httpx, requests and urllib say of a proxy that they cannot use."""


def wait_for_server(status: int, attempt: int, retry_after: str | None) -> bool:
    """Wait before a busy server is asked again.

    Args:
        status: Its answer.
        attempt: Number of the attempts that it has answered so, from 1.
        retry_after: Its header Retry-After, in seconds or a date.

    Returns:
        Whether another attempt may succeed.
    """
    if status not in BUSY or attempt > len(RETRY_WAITS_S):
        return False
    wait_s = RETRY_WAITS_S[attempt - 1]
    with suppress(ValueError):  # of a date
        wait_s = max(wait_s, min(float(retry_after or 0), MAX_WAIT_S))
    time.sleep(wait_s)
    return True


def describe_status(status: int) -> str:
    """Describe an answer, as `503 Service Unavailable`."""
    with suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def name_proxies() -> str:
    """Name the variables of the environment that set a proxy; empty without any."""
    return ", ".join(
        name for name in os.environ if name.lower() in PROXIES and os.environ[name]
    )


def find_bad_proxy(error: Exception) -> BrainhiveError | None:
    """Describe a proxy of the environment that a library cannot use; None where an
    error is another one.
    """
    names, reason = name_proxies(), str(error)
    if not names or not OF_PROXIES.search(reason):
        return None
    problem = f"the proxy that {names} sets cannot be used: {reason.splitlines()[0]}"
    if "SOCKS" in reason:
        way = f"pip install 'httpx[socks]' 'requests[socks]', or unset {names}"
        return MissingExtra(problem, way)
    return MissingData(problem, f"correct or unset {names}")
