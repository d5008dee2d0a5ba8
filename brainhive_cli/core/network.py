"""Servers that are busy, which are asked again, and proxies that cannot be used."""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra

Answer = TypeVar("Answer")
RETRY_WAITS_S = (1.0, 4.0)
"""Seconds before a busy server is asked for the second and the third time."""
MAX_WAIT_S = 10.0
"""The longest wait that a server may ask for by its header Retry-After."""
BUSY = {429, 500, 502, 503, 504}
"""Answers of a server that another attempt may change."""
OF_PROXIES = re.compile(r"\bproxy\b|SOCKS|(invalid|nonnumeric) port", re.IGNORECASE)
"""What httpx, requests and urllib say of a proxy that they cannot use."""


def ask(
    call: Callable[[], Answer], read_answer: Callable[[Exception], tuple[int, Any]]
) -> Answer:
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
                wait_s = min(float(headers.get("Retry-After")), MAX_WAIT_S)
            time.sleep(wait_s)
    return call()


def find_bad_proxy(error: Exception) -> BrainhiveError | None:
    """Describe a proxy of the environment that a library cannot use; None where an
    error is another one.
    """
    names = ", ".join(name for name in os.environ if name.lower().endswith("_proxy"))
    if not names or not OF_PROXIES.search(reason := str(error)):
        return None
    problem = f"a proxy of {names} cannot be used: {reason.splitlines()[0]}"
    if "SOCKS" in reason:
        return MissingExtra(problem, "pip install 'httpx[socks]' 'requests[socks]'")
    return MissingData(problem, f"correct or unset {names}")
