"""Writes the list of nightly tests in docs/developing.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs/developing.md"
START, END = "<!-- nightly tests -->\n", "<!-- end of nightly tests -->\n"
"""Lines of the page around the list."""


def list_nightly_tests(path: Path) -> Iterator[str]:
    """Yield the names, as sentences, of tests that are nightly in all or some cases."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            decorators = [ast.unparse(item) for item in node.decorator_list]
            if any("mark.nightly" in decorator for decorator in decorators):
                yield node.name.removeprefix("test_").replace("_", " ")


def write_list() -> str:
    """Write a line for each test file that has nightly tests, sorted by path."""
    lines = []
    for path in sorted((CHECKOUT / "tests").rglob("test_*.py")):
        sentences = list(list_nightly_tests(path))
        if sentences:
            name = path.relative_to(CHECKOUT).with_suffix("").as_posix()
            lines.append(f"- `{name}`: {'; '.join(sentences)}.\n")
    return "".join(lines)


def main() -> None:
    """Replace the list of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    text = before + START + write_list() + END + after
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
