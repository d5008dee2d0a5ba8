"""The words of the code: standard technical English in names, docstrings and
messages.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "brainhive_cli"
NAMES = {"told", "asked", "mine", "theirs", "outlook", "illness", "beside", "looks"}
"""Names of functions, arguments and variables that say nothing to a reader."""
CLASSES = {
    "Judge",
    "Painter",
    "Drawing",
    "Drawn",
    "Take",
    "Asked",
    "Material",
    "Form",
    "Trunk",
}
"""Names of classes that papers and libraries have other words for."""
PROSE = re.compile(
    r"\b(told|outlook|illness|(?:is|are) ill|mend(?:ed|s)?|(?:is|are) otherwise|"
    r"beside)\b",
    re.I,
)


def banned(source: str) -> Iterator[str]:
    """Find words in names and texts that are no standard technical English."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name)
            ):
                found = name.strip("_") in NAMES
            case ast.ClassDef(name=name):
                found = name.strip("_") in CLASSES
            case ast.arg(arg=name, annotation=annotation):
                is_recipe = (
                    name == "what"
                    and annotation
                    and "Recipe" in ast.unparse(annotation)
                )
                found = name in NAMES or bool(is_recipe)
            case ast.Constant(value=str(text)):
                yield from PROSE.findall(text)
                continue
            case _:
                continue
        if found:
            yield name


def test_the_code_uses_standard_technical_english() -> None:
    found = {
        str(path): list(banned(path.read_text())) for path in PACKAGE.rglob("*.py")
    }
    assert (
        len(found) > 100
        and {name: words for name, words in found.items() if words} == {}
    )
