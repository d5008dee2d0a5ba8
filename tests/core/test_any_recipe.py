"""Recipes of any keys and values: each is refused in one line, or is the same when written and read again."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipe import parse_value

PIPELINES: dict[str, Any] = {
    name: importlib.import_module(f"brainhive_cli.commands.{name.replace('-', '_')}")
    for name in ("prepare", "train-align", "reconstruct")
}
"""Those of the most keys; `tools.soak` tries thousands of recipes of every command."""
ODD = (
    *(
        ".inf",
        ".nan",
        "-1",
        "1e400",
        "9" * 5000,
        "0x10",
        "1:30",
        "2026-01-01",
        "no",
        "~",
        "''",
        "a,b",
        "{}",
        "[]",
    ),
    *(
        "!!int x",
        "!!binary '*'",
        "!!timestamp x",
        "!!set {a}",
        "!!python/name:os.system",
        "&a [*a]",
        "[" * 99,
    ),
    *(
        "{kind: nothing}",
        "{kind: os.path}",
        "{kind: }",
        "'../..'",
        "'a\\0b'",
        '"\\ud800"',
        "hub:a/b/../..",
        "python:a:b",
    ),
)
"""Values as they are typed, which have been trouble or could be."""
SETTINGS = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def keys(model: Any, above: str = "") -> list[str]:
    """List the dotted keys of a recipe, and of its sections."""
    found = []
    for name, field in model.model_fields.items():
        found.append(f"{above}{name}")
        if hasattr(field.annotation, "model_fields"):
            found += keys(field.annotation, f"{above}{name}.")
    return found


def plain() -> st.SearchStrategy[Any]:
    """Make anything that YAML can hold."""
    leaf = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(ODD)
    )
    return st.recursive(
        leaf, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below)
    )


def refused_or_same(command: str, path: Path, overrides: list[str]) -> None:
    """Resolve a recipe; what is accepted must be the same recipe when it is read again."""
    recipe_of = PIPELINES[command].Recipe
    try:
        recipe = recipe_of.resolve(command, str(path), {}, overrides)
    except BrainhiveError as error:
        assert error.message and "\n" not in error.message + error.hint
        return
    again = path.with_name("again.yaml")
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert recipe_of.resolve(command, str(again), {}, ()).fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("command", PIPELINES)
def test_overrides_of_any_value_are_refused_in_one_line_or_stay_what_they_are(
    command: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("{}")

    @SETTINGS
    @given(
        st.lists(
            st.tuples(st.sampled_from(keys(PIPELINES[command].Recipe)), st.sampled_from(ODD)), max_size=3
        )
    )
    def check(changes: list[tuple[str, str]]) -> None:
        refused_or_same(command, path, [f"{key}={value}" for key, value in changes])

    check()


@pytest.mark.parametrize("command", PIPELINES)
def test_files_of_any_values_are_refused_in_one_line_or_stay_what_they_are(
    command: str, tmp_path: Path
) -> None:
    path, known = tmp_path / "recipe.yaml", list(PIPELINES[command].Recipe.model_fields)

    @SETTINGS
    @given(st.dictionaries(st.sampled_from(known) | st.text(max_size=5), plain(), max_size=3))
    def check(fields: dict[str, Any]) -> None:
        path.write_bytes(yaml.safe_dump(fields, allow_unicode=True).encode(errors="surrogatepass"))
        refused_or_same(command, path, [])

    check()


@SETTINGS
@given(st.text() | st.binary().map(lambda some: some.decode("latin-1")) | st.sampled_from(ODD))
def test_text_of_any_kind_is_a_value_or_a_refusal(text: str) -> None:
    try:
        parse_value(text, f"dim={text}")
    except RecipeError as error:
        assert "\n" not in error.message


def test_a_recipe_that_scores_a_folder_can_be_run_again_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("{}")
    refused_or_same("reconstruct", tmp_path / "recipe.yaml", ["score=made", "truth=true"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("*_TYPED.nii.gz", "&x", "!a", "%s", "@b", "#c", "*a[12]: b")),
        ("[*_a.nii, &x, !y, %z, @q, 3]", ["*_a.nii", "&x", "!y", "%z", "@q", 3]),
        ("{betas: *_T.nii.gz, inner: [@a, {b: !c}]}", {"betas": "*_T.nii.gz", "inner": ["@a", {"b": "!c"}]}),
        ('["*a[12].nii"]', ["*a[12].nii"]),
    ],
)
def test_values_of_a_command_line_may_begin_as_patterns_do(text: str, value: object) -> None:
    assert parse_value(text, f"key={text}") == value
