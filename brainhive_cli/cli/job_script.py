"""Fills in the template of a job's script, in a process of its own: a template may compute without end.

It is run as a file and imports nothing of the package: `[template, values]` in JSON comes on stdin; the
script goes to stdout or, with exit code 1, a line on what is wrong with the template.
"""

import json
import resource
import shlex
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

MAX_CPU_S, MAX_MEMORY_BYTES, MAX_SCRIPT_LETTERS, MAX_PROBLEM_LETTERS = 5, 1 << 30, 4 << 20, 300
"""Limits of a template: time, memory, the lengths of its script (by default SLURM's own) and of an error."""


class Words(str):
    """Text that goes to the script as it stands: quoted before, or safe as the template says."""


def quote(value: object) -> Words:
    """Quote a value for the shell."""
    return Words(shlex.quote(str(value)))


def finalize(value: object) -> object:
    """Quote what a template writes, unless it is `Words`, empty, or undefined, which jinja2 reports."""
    return value if value == "" or isinstance(value, Words | jinja2.Undefined) else quote(value)


def fill_in(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template; of the values, `line` is quoted already."""
    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quote": quote, "safe": Words}
    script = environment.from_string(template).render({**values, "line": Words(values["line"])})
    if len(script) > MAX_SCRIPT_LETTERS:
        raise ValueError(f"the script has more than {MAX_SCRIPT_LETTERS:,} letters")
    return script


def main() -> None:
    """Read a template and its values; write the script, or what is wrong. Streams are UTF-8 in any locale."""
    with suppress(ValueError, OSError):  # a lower limit holds already, or the system has none
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        written, code = fill_in(*json.load(sys.stdin.buffer)).encode(), 0
    except Exception as error:  # of any kind, as the template calls methods and filters
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == "<template>"]  # jinja2's name of it
        number = getattr(error, "lineno", None) or (lines[-1] if lines else 0)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, MemoryError):
            reason = f"needs more than {MAX_MEMORY_BYTES >> 30} GiB of memory"
        problem = f", line {number}: {reason}" if number else f": {reason}"
        written, code = problem[:MAX_PROBLEM_LETTERS].encode(errors="replace"), 1
    with open(1, "wb") as output:  # the pipe to the command
        output.write(written)
    sys.exit(code)


if __name__ == "__main__":
    main()
