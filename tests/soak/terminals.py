"""Commands on closed, full or ASCII terminals and in unusual environments."""

import json
import os
import random
import subprocess
import sys
from functools import partial
from itertools import product

from tests.soak.runner import BUG_TEXT, CONTROL_CHARACTERS, EXIT_CODES, Case
from tests.soak.world import CPU_KEYS, READERS

COMMANDS = {
    "help": ("--help",),
    "version": ("--version",),
    "no-command": ("embedd", "é\u202e"),
    "doctor": ("doctor",),
    "runs": ("runs",),
    "check": ("embed", "--recipe", "demo", "--check"),
    "json": ("runs", "--json"),
    "unknown": ("embed", "é.ß=1"),
    "recipe": ("embed", "--recipe", "named.yaml") + CPU_KEYS,
    "picture": (
        "embed",
        "dataset={kind: image-folder, root: named}",
        "encoders=[weights/encoder]",
    )
    + CPU_KEYS,
    "report": ("report", "runs/drawn"),
    "eval": READERS["eval"].argv + CPU_KEYS,
}
STREAMS = {
    "as-is": "",
    "no-stdout": ">&-",
    "no-stderr": "2>&-",
    "no-stream": ">&- 2>&- <&-",
    "full": ">/dev/full",
    "full-stderr": "2>/dev/full",
    "both-full": ">/dev/full 2>&1",
    "pipe": "| true",
    "no-stdin": "<&-",
    "a-folder": "</",
}
LAUNCH_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
ENVIRONMENTS = {
    "usual": {},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin": {"PYTHONIOENCODING": "latin-1"},
    "strict-ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "columns": {"COLUMNS": "1", "LINES": "1", "TERM": "\x1b[31m"},
    "no-columns": {"COLUMNS": "x"},
    **{
        f"{name}-{value:.9}": {name: value}
        for name in LAUNCH_VARIABLES
        for value in ("y", "", "-1", "9" * 400)
    },
    "mixed": {"ACCELERATE_MIXED_PRECISION": "x", "WORLD_SIZE": "2"},
    "home": {"BRAINHIVE_HOME": "/dev/null"},
    "no-home": {"HOME": "/nowhere", "TMPDIR": "/nowhere", "MPLCONFIGDIR": "/proc"},
    "warnings": {"PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "x"},
}
SILENT_STREAMS = ("no-stderr", "no-stream", "full-stderr", "both-full", "pipe")
"""Streams that cannot show an error, or need not."""


def cases(seed, count):
    """Combine commands with environments, and with streams in two environments."""
    combinations = list(product(COMMANDS, ["as-is"], ENVIRONMENTS))
    combinations += product(COMMANDS, STREAMS, ["usual", "ascii"])
    random.Random(seed).shuffle(combinations)
    for command, stream, environment in combinations[:count]:
        yield Case(
            "terminals",
            f"{command} {stream} {environment}",
            prepare=_name_files,
            call=partial(_try_command, command, stream, environment),
        )


def _name_files(home, outside_folder):
    """Write a recipe and a picture with names that few terminals can show."""
    name = "\n" + "é" * 100 + "\x1b[31m\u202e"
    (home / "named.yaml").write_text(
        json.dumps({"dataset": {"kind": "image-folder", "root": name}})
    )
    (home / "named/a").mkdir(parents=True)
    (home / f"named/a/{name}.png").write_bytes(b"no picture")


def _try_command(command, stream, environment):
    """Run a command in a shell. Return its problems by name, and counts by verdict."""
    script = f'"$@" {STREAMS[stream]}; exit ${{PIPESTATUS[0]}}'
    argv = ["bash", "-c", script, "bash", sys.executable, "-m", "brainhive_cli"]
    argv += COMMANDS[command]
    variables = {
        **os.environ,
        "PYTHONPATH": os.path.abspath(f"{__file__}/../../.."),
        **ENVIRONMENTS[environment],
    }
    process = subprocess.run(argv, env=variables, capture_output=True, check=False)
    errors, code = process.stderr.decode(errors="replace"), process.returncode
    text = f"{errors}{process.stdout.decode(errors='replace')}"
    has_reason = any(label in errors for label in ("error: ", "missing: ", "Usage"))
    is_explained = has_reason or stream in SILENT_STREAMS
    problems = {
        "exit code, not of the tree": code not in EXIT_CODES,
        "called a bug": BUG_TEXT.search(text),
        "control characters": CONTROL_CHARACTERS.search(text),
        "source files": ".py:" in text or "Exception ignored" in text,
        "no line that says what is wrong": code and not is_explained,
        "success, though nothing was written": not code
        and stream in ("full", "both-full"),
    }
    summary = ", ".join(problem for problem, is_so in problems.items() if is_so)
    if summary:
        description = f"{summary}: {code} {errors.strip()[-300:]!r}"
        return {f"{command} {stream} {environment}": description}, {"failed": 1}
    return {}, {"refused" if code else "same result": 1}
