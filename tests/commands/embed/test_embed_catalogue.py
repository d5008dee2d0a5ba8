"""The list of encoders: each with what is known of it, and whether it is on this
machine.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands.embed import list_encoders
from brainhive_cli.core import parts
from brainhive_cli.models import encoders


def rows() -> dict[str, dict[str, Any]]:
    (table,) = list_encoders().tables
    return {row["encoder"]: row for row in table.as_dict()["rows"]}


def test_every_encoder_is_listed_by_a_name_that_embed_takes(
    hub_cache: Callable[[str], Path],
) -> None:
    listed = rows()
    kinds = {encoders.resolve(name).kind for name in listed}
    assert kinds == set(parts.list_kinds("encoders"))
    assert all(encoders.resolve(name).name == name for name in listed)
    named = [row for row in listed.values() if row["weights"].startswith("hub:")]
    assert all(
        row["D"] and row["px"] and len(row["licence"]) > 2 and row["here"] == "no"
        for row in named
    )
    assert listed["siglip2"]["weights"] == "hub:google/siglip2-base-patch16-224"
    assert listed["demo-clip"]["here"] == "yes" and listed["timm"]["here"] == "–"


def test_encoders_are_listed_without_a_data_set_as_a_table_or_json(home: Path) -> None:
    run = CliRunner(env={"COLUMNS": "80"}).invoke
    shown = run(app, ["embed", "--list"])
    lines = shown.stdout.splitlines()
    assert (
        shown.exit_code == 0
        and max(map(len, lines)) <= 80
        and lines == [line.rstrip() for line in lines]
    )
    assert "next: brainhive embed --encoders" in shown.stderr
    listed = json.loads(run(app, ["embed", "--list", "--json"]).stdout)["tables"][0][
        "rows"
    ]
    (giant,) = (row for row in listed if row["encoder"] == "dinov2-giant")
    assert (giant["D"], giant["px"], giant["licence"]) == (1536, 224, "Apache-2.0")
    assert list(home.iterdir()) == []
    assert all(row["encoder"] in lines for row in listed)  # no name is broken
