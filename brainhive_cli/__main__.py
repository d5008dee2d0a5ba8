"""The `brainhive` executable, also as `python -m brainhive_cli`."""

from brainhive_cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="brainhive")


if __name__ == "__main__":
    main()
