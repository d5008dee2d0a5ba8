"""The `brainhive` executable, also as `python -m brainhive_cli`."""

import sys

from brainhive_cli.core.errors import INTERRUPTED


def main() -> None:
    """Run the command line."""
    try:
        from brainhive_cli.app import app

        app(prog_name="brainhive")
    except KeyboardInterrupt:  # before a command begins, which handles its own
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
