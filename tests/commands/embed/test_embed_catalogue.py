"""Tests of the list of encoders, by `embed --list`."""

import json

from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands.embed import list_encoders
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import encoders


def list_rows():
    """Return the row of each encoder, by its name."""
    (table,) = list_encoders().tables
    return {row["encoder"]: row for row in table.as_dict()["rows"]}


def test_every_encoder_is_listed_by_a_name_that_embed_takes(
    hub_cache,
):
    row_of = list_rows()
    kinds = {encoders.resolve(name).kind for name in row_of}
    assert kinds == set(parts.list_kinds("encoders"))
    for name, row in row_of.items():
        assert encoders.resolve(name).name == name
        if row["weights"].startswith("hub:"):
            assert row["D"]
            assert row["px"]
            assert len(row["licence"]) > 2
            assert row["here"] == "no"
    assert row_of["siglip2"]["weights"] == "hub:google/siglip2-base-patch16-224"
    assert row_of["demo-clip"]["here"] == "yes"
    assert row_of["timm"]["here"] == "–"
    weights = {name: row["weights"] for name, row in row_of.items()}
    assert weights["gabor"] == weights["pixels"] == weights["concepts"] == "none"
    assert weights["lite0"] == "in a package"
    assert weights["timm"] == "{kind: timm, source: …}"


def test_encoders_are_listed_without_a_data_set(home):
    runner = CliRunner(env={"COLUMNS": "80"})
    ended = runner.invoke(app, ["embed", "--list"])
    lines = ended.stdout.splitlines()
    assert ended.exit_code == 0
    assert max(map(len, lines)) <= 80
    assert lines == [line.rstrip() for line in lines]
    assert "brainhive embed --encoders" in ended.stderr

    document = json.loads(runner.invoke(app, ["embed", "--list", "--json"]).stdout)
    row_of = {row["encoder"]: row for row in document["tables"][0]["rows"]}
    giant = row_of["dinov2-giant"]
    assert (giant["D"], giant["px"], giant["licence"]) == (1536, 224, "Apache-2.0")
    assert list(home.iterdir()) == []
    # no name is broken over two lines
    assert row_of.keys() <= set(lines)
