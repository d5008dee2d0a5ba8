"""The LSL library: imported without messages, with errors that say what to do, and an
outlet of results.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import byref, c_double, c_void_p
from typing import Any

from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingExtra,
    first_line,
    install_line,
)

RESULTS = "BrainhiveResults"
"""Type of streams of results: not Markers, which programs search for markers of
stimuli.
"""
MAX_STREAMS = 1024
"""Streams of one search, as in mne-lsl."""
LINGER_S = 0.5
"""Seconds after which a stream may close: what is not transmitted by then is lost with
it.
"""


def import_lsl() -> Any:
    """Import `mne_lsl.lsl`; what it logs would come on stdout, among results.

    Raises:
        MissingExtra: if mne-lsl or its liblsl is absent or does not load.
    """
    try:
        import mne_lsl
        from mne_lsl import lsl
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"streams of LSL need mne-lsl: {first_line(error)}",
            install_line("live"),
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        # a liblsl that is absent, or of another system
        raise MissingExtra(
            f"mne-lsl does not load its liblsl: {first_line(error)}",
            "pip install --force-reinstall mne-lsl; unset MNE_LSL_LIB and PYLSL_LIB",
        ) from error
    mne_lsl.set_log_level("CRITICAL")
    return lsl


def resolve_streams(wait_s: float) -> list[Any]:
    """Search the streams of the network, by name.

    mne-lsl's own search fails where one of them declares a rate that is no number or a
    name that is not UTF-8, and gives one of two that are called the same.
    """
    from mne_lsl.lsl.load_liblsl import lib
    from mne_lsl.lsl.stream_info import _BaseStreamInfo

    buffer = (c_void_p * MAX_STREAMS)()
    count = lib.lsl_resolve_all(byref(buffer), MAX_STREAMS, c_double(wait_s))
    # by all that tells streams apart, so that two of one name are two
    streams = {}
    for pointer in buffer[:count]:
        # streams whose description cannot be read are left out
        with suppress(KeyError, UnicodeDecodeError):
            info = _BaseStreamInfo(pointer)
            streams[info.name, info.source_id, info.stype, info.uid] = info
    return [streams[key] for key in sorted(streams)]


@contextmanager
def explain_lsl_errors(problem: str) -> Iterator[None]:
    """Turn errors of the library into BrainhiveError.

    Args:
        problem: What failed, with the name of the stream.
    """
    try:
        yield
    except (
        RuntimeError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:  # SyntaxError: a description that is no XML
        raise BrainhiveError(
            f"{problem}: {first_line(error)}",
            "restart the program that sends it, then this command",
        ) from error


class ResultOutlet:
    """Stream of results, each one JSON document as text, for stimulus programs.

    Args:
        name: Name of the stream.
        source_id: Identifier by which receivers recover the stream after a restart.

    Raises:
        MissingExtra: if mne-lsl is absent.
        BrainhiveError: if the stream cannot be opened.
    """

    def __init__(self, name: str, source_id: str) -> None:
        lsl = import_lsl()
        self._name = name
        with explain_lsl_errors(f"results cannot be sent as stream {name!r}"):
            # rate 0, as results come irregularly; one channel of text
            self._outlet = lsl.StreamOutlet(
                lsl.StreamInfo(name, RESULTS, 1, 0.0, "string", source_id)
            )

    def push(self, result: Mapping[str, Any]) -> None:
        """Send a result: values of JSON, numbers and arrays of numpy; others are
        written as text.
        """
        # arrays as lists, all else that JSON does not have as text
        document = json.dumps(
            result,
            ensure_ascii=False,
            default=lambda value: (
                value.tolist() if hasattr(value, "tolist") else str(value)
            ),
        )
        with explain_lsl_errors(f"results cannot be sent as stream {self._name!r}"):
            self._outlet.push_sample([document])

    def close(self) -> None:
        """Close the stream, once receivers had time to take the last result; may be
        called twice.
        """
        if self._outlet is not None and self._outlet.has_consumers:
            time.sleep(LINGER_S)
        self._outlet = None
