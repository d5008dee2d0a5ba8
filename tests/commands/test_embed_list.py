"""`embed --list`, through the real application."""

import json
from pathlib import Path

from typer.testing import CliRunner

from brainhive_cli.app import app


def test_encoders_are_listed_without_a_data_set_as_a_table_or_json(home: Path) -> None:
    run = CliRunner(env={"COLUMNS": "80"}).invoke
    shown = run(app, ["embed", "--list"])
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0 and max(map(len, lines)) <= 80 and lines == [line.rstrip() for line in lines]
    assert "next: brainhive embed --encoders" in shown.stderr
    listed = json.loads(run(app, ["embed", "--list", "--json"]).stdout)["tables"][0]["rows"]
    (giant,) = (row for row in listed if row["encoder"] == "dinov2-giant")
    assert (giant["D"], giant["px"], giant["licence"]) == (1536, 224, "Apache-2.0")
    assert list(home.iterdir()) == []
    for row in listed:  # no name is broken, there nor in a pipe
        assert row["encoder"] in lines
    piped = CliRunner(env={"COLUMNS": None}).invoke(app, ["embed", "--list"]).stdout.splitlines()
    words = {word for line in piped for word in line.split()}
    assert max(map(len, piped)) <= 120
    assert all({row["encoder"], *row["weights"].split()} <= words for row in listed)
