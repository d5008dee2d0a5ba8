"""Ctrl-C, which ends a command also where a library swallows the exception or makes another of it.

Python raises KeyboardInterrupt wherever the main thread is. In a destructor, or a callback of a library in C,
it is printed and lost. It is remembered here, without a traceback, and raised again where it is safe to stop.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Remember Ctrl-C while a command runs; in threads, where Python delivers no signals, do nothing.

    Where it was ignored before, as under `nohup` and in the background of a script, it stays so.

    Raises:
        KeyboardInterrupt: instead of whatever error a library has made of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, show = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _remember)
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else show(lost)
    try:
        yield
    except Exception as error:
        if _came.is_set():  # which a library has made another error of
            raise KeyboardInterrupt from error
        raise
    finally:
        _came.clear()
        if before is not None:  # None stands for a handler in C, which Python cannot set again
            signal.signal(signal.SIGINT, before)
        sys.unraisablehook = show


def has_come() -> bool:
    """Whether there was a Ctrl-C since the command began."""
    return _came.is_set()


def check() -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C: between steps, and before a name becomes final."""
    if _came.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _came.set()
    raise KeyboardInterrupt
