"""The `brainhive` executable, also as `python -m brainhive_cli`."""

import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import suppress

from brainhive_cli.core.errors import INTERRUPTED_EXIT_CODE, first_line, install_line


def main() -> None:
    """Run the command line; whatever happens ends in an exit code and, of an error, in
    a line on stderr.
    """
    _secure_streams()
    # opinions of libraries on numbers and fonts, with paths of their source; -W or
    # PYTHONWARNINGS shows them
    logging.lastResort = logging.NullHandler()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        # of processes that decode pictures
        os.environ.setdefault("PYTHONWARNINGS", "ignore")

    # figures are files, whatever a notebook's terminal sets; readers of other projects
    # need no locks either, which some network disks do not have
    os.environ["MPLBACKEND"] = "agg"
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

    code: object = 0
    try:
        from brainhive_cli.app import app

        app(prog_name="brainhive")
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:  # before a command begins, which handles its own
        code = INTERRUPTED_EXIT_CODE
    except BaseException as error:
        # before a command begins, or of a terminal that cannot be written to
        if "--debug" in sys.argv:
            traceback.print_exc()
        code = _report(error)

    # what Python would do at its end, where an error is a traceback
    for stream in (getattr(sys, name) for name in ("stdout", "stderr")):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = (
                code if isinstance(error, BrokenPipeError) else code or _report(error)
            )
    # Python waits for threads of libraries, which may wait for a slow server in turn
    others = {*threading.enumerate()} - {threading.main_thread()}
    if code == INTERRUPTED_EXIT_CODE and not all(thread.daemon for thread in others):
        os._exit(INTERRUPTED_EXIT_CODE)
    sys.exit(code)  # type: ignore[arg-type]


def _secure_streams() -> None:
    """Replace closed streams, and write `?` or an escape for letters that the terminal
    does not have.
    """
    for name, mode, errors in (
        ("stdin", "r", "replace"),
        ("stdout", "w", "replace"),
        ("stderr", "w", "backslashreplace"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _report(error: BaseException) -> int:
    """Write an error in a line as best as can be; return the exit code."""
    problem = "".join(filter(str.isprintable, first_line(error)))
    way = "check the terminal or file of the output"
    if not isinstance(error, OSError | UnicodeError):
        problem = f"{type(error).__name__}: {problem}"
        way = f"{install_line()} --force-reinstall; --debug shows where"
    line = f"error: {problem}\n  try: {way}\n"
    with suppress(OSError):
        os.write(2, line.encode("ascii", "backslashreplace"))
    return 1


if __name__ == "__main__":
    main()
