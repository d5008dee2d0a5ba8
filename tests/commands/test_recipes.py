"""The command `recipes`: the shipped recipes, and the meaning of their keys."""

import json

from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.recipes.recipe import shipped_recipes


def brainhive(*arguments, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(
        app, ["recipes"] + list(arguments)
    )


def test_every_shipped_recipe_is_listed_with_its_commands():
    named_table, default_table = json.loads(brainhive("--json").stdout)["tables"]
    recipes = {row["recipe"] for row in default_table["rows"]}
    for row in named_table["rows"]:
        recipes |= {f"{row['recipe']}/{name}" for name in row["commands"].split(", ")}
    assert recipes == {
        path.relative_to(shipped_recipes()).with_suffix("").as_posix()
        for path in shipped_recipes().rglob("*.yaml")
    }
    assert all(row["about"] for row in named_table["rows"] + default_table["rows"])
    assert max(map(len, brainhive().stdout.splitlines())) <= 80


def test_a_recipe_is_shown_with_value_and_source_of_each_key():
    (table,) = json.loads(brainhive("demo/train-align", "--json").stdout)["tables"]
    rows = {row["key"]: row for row in table["rows"]}
    assert (rows["seeds"]["value"], rows["seeds"]["from"]) == (
        "[2025]",
        "recipe, default [2025, 2026, 2027]",
    )
    assert rows["backbone"] == {
        "key": "backbone",
        "value": "brain-mlp",
        "from": "default",
        "meaning": "brain encoder. It is a network from signals to heads",
    }
    assert rows["loss.cosine_weight"]["value"] == "5.0"
    assert "recipe" in rows["loss.cosine_weight"]["from"]
    assert list(rows)[-1].startswith(("run", "digests"))
    lines = brainhive("demo/train_align").stdout.splitlines()
    assert "seeds" in lines
    assert max(map(len, lines[1:])) <= 80


def test_an_unknown_recipe_is_refused_with_a_similar_name():
    refused = brainhive("demo/train")
    assert refused.exit_code == 2
    for fact in ("'demo/train'", "demo/train-align", "brainhive recipes"):
        assert fact in refused.stderr


def test_a_schema_is_printed_for_editors():
    schema = json.loads(brainhive("design", "--schema").stdout)
    assert schema["properties"]["question"]["default"] == "above-chance"
    assert schema["additionalProperties"] is False
    for names in ([], ["demo"]):
        refused = brainhive(*names, "--schema")
        assert refused.exit_code == 2
        assert "one command" in refused.stderr
