"""The whole set-up of a run is laid out, with inputs and command lines."""

import yaml

from brainhive_cli.core.results.facts import Facts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.reports.tables.run_set_up import lay_out_set_up


def test_the_set_up_of_a_run_is_complete(tmp_path):
    folder = RunFolder(tmp_path / "runs/eval-retrieval/a b")
    recipe = {
        "gallery": "test",
        "align_run": ["model-0123456789"],
        "digests": {"signals demo/default/sub-01": "abc"},
        "subsets": None,
    }
    folder.write_text("recipe.yaml", yaml.safe_dump(recipe))
    environment = {
        "command_line": ["brainhive", "eval-retrieval", "--label", "a b"],
        "versions": {"torch": "1.2"},
        "device": "cpu",
        "threads": 2,
        "started": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:02:00+00:00",
    }
    folder.write_json("environment.json", environment)
    set_up = {"dataset": "demo", "subjects": [1], "backbone.kind": "ridge"}
    facts = Facts(set_up={**set_up, "loss.kind": "clip", "backbone.alpha": 2.0})

    rows = {}
    for table in lay_out_set_up(folder, facts):
        rows[table.title] = dict(table.rows)
    assert rows["Data"] == {"dataset": "demo", "subjects": "1"}
    assert rows["Model"] == {"backbone.kind": "ridge", "backbone.alpha": "2"}
    assert rows["Training"] == {"loss.kind": "clip"}
    assert rows["Settings of eval-retrieval"] == {"gallery": "test"}
    assert rows["Inputs"] == {"signals demo/default/sub-01": "abc"}
    software = rows["Software and device"]
    assert software["versions"] == "torch 1.2"
    assert software["took"] == "2 min"
    assert software["threads"] == "2"
    assert software["started"].startswith("2026-01-01")
    lines = rows["Command lines"]
    assert lines["made by"] == "brainhive eval-retrieval --label 'a b'"
    assert "recipe.yaml" in lines["repeats it"]
    assert "--again" in lines["repeats it"]
