"""Entry point of the program `brainhive`, also run by `python -m brainhive_cli`."""

import io
import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import suppress

from brainhive_cli.core.base import (
    INTERRUPTED_EXIT_CODE,
    describe_hidden_libraries,
    first_line,
    install_line,
)


def main() -> None:
    """Run the command line, and exit.

    Every error ends in an exit code and a message on stderr.
    """
    _prepare_streams()
    # hide log messages and warnings of libraries, unless -W or PYTHONWARNINGS is set
    logging.lastResort = logging.NullHandler()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        # for the processes that decode pictures
        os.environ.setdefault("PYTHONWARNINGS", "ignore")

    # Figures are only written to files, even if a notebook selects another backend.
    # HDF5 files are not locked, because some network disks do not support locks.
    os.environ["MPLBACKEND"] = "agg"
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

    # A command handles its own errors. The errors here come from the import of the
    # package, or from a terminal that cannot be written to.
    exit_code: object = 0
    try:
        from brainhive_cli.app import app

        app(prog_name="brainhive")
    except SystemExit as system_exit:
        exit_code = system_exit.code
    except KeyboardInterrupt:
        exit_code = INTERRUPTED_EXIT_CODE
    except BaseException as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        exit_code = _report(error)

    # Flush here, because Python would write a traceback if its flush at exit fails.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            # a reader that stopped reading is not an error
            if not exit_code and not isinstance(error, BrokenPipeError):
                exit_code = _report(error)

    # At exit, Python waits for threads of libraries, which may wait for a slow server.
    # Do not wait for them after Ctrl-C.
    main_thread = threading.main_thread()
    other_threads = [item for item in threading.enumerate() if item is not main_thread]
    has_waiting_thread = not all(thread.daemon for thread in other_threads)
    if exit_code == INTERRUPTED_EXIT_CODE and has_waiting_thread:
        os._exit(INTERRUPTED_EXIT_CODE)
    sys.exit(exit_code)  # type: ignore[arg-type]


def _prepare_streams() -> None:
    """Replace closed streams, and allow all characters on stdout and stderr.

    A character that the terminal does not support is written as `?` or as an escape.
    """
    # Python sets the stream to None if the caller has closed it
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _report(error: BaseException) -> int:
    """Write an error to stderr without the package, and return the exit code 1."""
    message = "".join(filter(str.isprintable, first_line(error)))
    hint = "check the terminal or file of the output"
    if not isinstance(error, OSError | UnicodeError):
        message = f"{type(error).__name__}: {message}"
        hint = describe_hidden_libraries(error) or (
            f"{install_line()} --force-reinstall; --debug shows the traceback"
        )
    text = f"error: {message}\n  try: {hint}\n"
    # if stderr cannot be written to, only the exit code remains
    with suppress(OSError):
        os.write(2, text.encode("ascii", "backslashreplace"))
    return 1


if __name__ == "__main__":
    main()
