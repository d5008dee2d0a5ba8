"""Rewrites all files that are generated from the code: `python -m tools.regenerate`.

Run it after a change of commands, recipe keys or parts, and read the difference.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
STEPS = {
    "completions": ["completions/build.py"],
    "docs/keys": ["-m", "tools.keys_page"],
    "recipes/schemas": ["-m", "tools.recipe_schemas"],
    "docs/releases.md": ["-m", "tools.pinned_page"],
    "docs/developing.md": ["-m", "tools.nightly_tests"],
    "tests/messages": ["-m", "pytest", "-q", "tests/messages", "--rewrite"],
}
"""Arguments of Python, keyed by the files that they write."""


def main() -> None:
    """Run all steps, and list the files that changed.

    Raises:
        SystemExit: if a step fails twice. The first run of a test that records values
            fails if they have changed.
    """
    for files, arguments in STEPS.items():
        print(f"{files} …", flush=True)
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    subprocess.run(["git", "status", "--short"], cwd=CHECKOUT, check=False)


if __name__ == "__main__":
    main()
