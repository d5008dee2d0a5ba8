"""The words of the code: standard technical English in names, docstrings and
messages.
"""

import ast
import re
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
MAX_TEST_NAME = 60
"""Largest number of letters in the name of a test, which is a sentence."""
PROSE = re.compile(
    r"\b(told|outlook|illness|(?:is|are) ill|mend(?:ed|s)?|(?:is|are) otherwise|"
    r"beside)\b",
    re.I,
)


def banned(source):
    """Find words in names and texts that are no standard technical English."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name)
            ):
                is_banned = name.strip("_") in NAMES
            case ast.ClassDef(name=name):
                is_banned = name.strip("_") in CLASSES
            case ast.arg(arg=name, annotation=annotation):
                is_recipe = (
                    name == "what"
                    and annotation
                    and "Recipe" in ast.unparse(annotation)
                )
                is_banned = name in NAMES or bool(is_recipe)
            case ast.Constant(value=str(text)):
                yield from PROSE.findall(text)
                continue
            case _:
                continue
        if is_banned:
            yield name


def test_the_code_uses_standard_technical_english():
    banned_words = {
        str(path): list(banned(path.read_text())) for path in PACKAGE.rglob("*.py")
    }
    assert len(banned_words) > 100
    assert {
        name: banned_word for name, banned_word in banned_words.items() if banned_word
    } == {}


def list_entries(node, section):
    """List the names in a section of a docstring, such as Args."""
    text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
    lines = re.search(rf"^{section}:\n((?:    .*\n?|\n)*)", text, re.M)
    if lines is None:
        return set()
    entries = re.findall(r"^    (\**\w+(?:, \**\w+)*):", lines[1], re.M)
    return set(re.findall(r"\w+", " ".join(entries)))


def list_parameters(node):
    """List the parameters of a function without `self` and `cls`."""
    arguments = node.args
    parameters = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    parameters += [name for name in (arguments.vararg, arguments.kwarg) if name]
    return {parameter.arg for parameter in parameters} - {"self", "cls", "_"}


def list_members(node):
    """List the names that a class defines or sets."""
    members = set()
    for child in ast.walk(node):
        match child:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.FunctionDef(name=name)
            ):
                members.add(name)
    return members


def test_every_documented_argument_and_attribute_exists():
    unknown = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = list_entries(node, "Args") - list_parameters(node)
            elif isinstance(node, ast.ClassDef):
                names = list_entries(node, "Attributes") - list_members(node)
            else:
                continue
            unknown += [f"{path.name}: {node.name}: {name}" for name in sorted(names)]
    assert not unknown


def test_public_functions_document_all_arguments_or_none():
    missing = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            entries = list_entries(node, "Args")
            names = list_parameters(node) - entries if entries else set()
            missing += [f"{path.name}: {node.name}: {name}" for name in sorted(names)]
    assert not missing


def test_no_test_name_has_more_than_60_letters():
    names = set()
    for path in Path(__file__).resolve().parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
    assert len(names) > 1000
    assert {name for name in names if len(name) > MAX_TEST_NAME} == set()
