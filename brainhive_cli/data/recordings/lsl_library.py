"""Access to the LSL library mne-lsl."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import byref, c_double, c_void_p
from typing import Any

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingExtra,
    first_line,
    install_line,
)


def import_lsl() -> Any:
    """Import `mne_lsl.lsl`, and silence its log on stdout.

    Raises:
        MissingExtra: if mne-lsl or its liblsl is absent or does not load.
    """
    try:
        import mne_lsl
        from mne_lsl import lsl
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"LSL streams need mne-lsl: {first_line(error)}",
            install_line("live"),
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        # liblsl is absent, or built for another system
        raise MissingExtra(
            f"mne-lsl does not load its liblsl: {first_line(error)}",
            "pip install --force-reinstall mne-lsl; unset MNE_LSL_LIB and PYLSL_LIB",
        ) from error
    mne_lsl.set_log_level("CRITICAL")
    return lsl


def resolve_streams(wait_s: float) -> list[Any]:
    """Return the info of each stream in the network, sorted by name.

    The search of mne-lsl merges streams of the same name, and fails if a rate is no
    number or a name is not UTF-8.

    Args:
        wait_s: Duration of the search.
    """
    from mne_lsl.lsl.load_liblsl import lib
    from mne_lsl.lsl.stream_info import _BaseStreamInfo

    # Largest number of streams in a search, as in mne-lsl.
    max_streams = 1024
    buffer = (c_void_p * max_streams)()
    count = lib.lsl_resolve_all(byref(buffer), max_streams, c_double(wait_s))
    streams = {}
    for pointer in buffer[:count]:
        # leave out streams whose info cannot be read
        with suppress(KeyError, UnicodeDecodeError):
            info = _BaseStreamInfo(pointer)
            streams[info.name, info.source_id, info.stype, info.uid] = info
    return [streams[key] for key in sorted(streams)]


@contextmanager
def explain_lsl_errors(problem: str) -> Iterator[None]:
    """Context manager that turns errors of the library into BrainhiveError.

    Args:
        problem: Beginning of the message, with the name of the stream.
    """
    try:
        yield
    # mne-lsl raises SyntaxError for a description that is no XML
    except (RuntimeError, OSError, ValueError, SyntaxError) as error:
        raise BrainhiveError(
            f"{problem}: {first_line(error)}",
            "restart the program that sends it, then this command",
        ) from error


class ResultOutlet:
    """LSL stream of results as JSON texts.

    Args:
        name: Name of the stream.
        source_id: Identifier with which receivers find the stream after a restart.

    Raises:
        MissingExtra: if mne-lsl is absent.
        BrainhiveError: if the stream cannot be opened.
    """

    def __init__(self, name: str, source_id: str) -> None:
        lsl = import_lsl()
        self._name = name
        with explain_lsl_errors(f"results cannot be sent as stream {name!r}"):
            # Programs would take the type Markers for stimuli.
            info = lsl.StreamInfo(
                name,
                "BrainhiveResults",
                n_channels=1,
                sfreq=0.0,  # irregular
                dtype="string",
                source_id=source_id,
            )
            self._outlet = lsl.StreamOutlet(info)

    def push(self, result: Mapping[str, Any]) -> None:
        """Send a result. Arrays become lists, and other unknown values texts."""
        document = json.dumps(result, ensure_ascii=False, default=_convert_to_json)
        with explain_lsl_errors(f"results cannot be sent as stream {self._name!r}"):
            self._outlet.push_sample([document])

    def close(self) -> None:
        """Close the stream after receivers had time for the last result.

        A second call has no effect.
        """
        if self._outlet is not None and self._outlet.has_consumers:
            # Closing a stream discards samples that are not transmitted.
            time.sleep(0.5)
        self._outlet = None


def _convert_to_json(value: Any) -> Any:
    """Convert a NumPy value to a list or number, and any other value to text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
