"""Settings of runs are read from recipes and results, and never show secrets."""

import pytest
import yaml

from brainhive_cli.core.results.facts import Facts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.reports.tables.run_settings import (
    MAX_DIFFERENCES,
    find_differing_keys,
    group_settings,
    read_settings,
    write_setting,
)

RECIPE = {
    "paths": {"runs": "runs"},
    "run": {"workers": 3},
    "digests": {"a": "b"},
    "dataset": {"kind": "demo", "noise": 1.0},
    "subjects": None,
    "encoders": [
        {"kind": "lite0", "size": 3},
        "vae",
        {"kind": "imported", "source": "own"},
    ],
    "mode": "intra",
    "finetune": {"share": 1.0},
    "train": {"epochs": 5, "lr": 0.1},
    "signal": {"name": "low", "channels": None},
}


@pytest.fixture
def folder(tmp_path):
    """A run folder with a recipe."""
    run_folder = RunFolder(tmp_path / "runs/train-align/a")
    run_folder.write_text("recipe.yaml", yaml.safe_dump(RECIPE))
    return run_folder


def test_facts_replace_sections_of_the_recipe(folder):
    settings = read_settings(folder, Facts())
    assert settings["encoders"] == "lite0+vae+own"
    assert settings["epochs"] == "5"
    assert settings["train.lr"] == "0.1"
    sections = {key.partition(".")[0] for key in settings}
    assert sections.isdisjoint({"paths", "run", "digests", "finetune"})

    set_up = {
        "dataset": "demo",
        "subjects": [1, 2],
        "encoders": ["lite0"],
        "train.lr": 0.2,
        "signal.scale": 1.0,
        "cites.model": ["somebody"],
    }
    settings = read_settings(folder, Facts(set_up=set_up))
    assert settings["subjects"] == "1, 2"
    assert settings["train.lr"] == "0.2"
    assert settings["dataset.noise"] == "1"
    # the facts of signals do not name their store
    assert settings["signal.name"] == "low"
    assert "signal.channels" not in settings
    assert "cites.model" not in settings


def test_a_damaged_recipe_has_no_settings(folder):
    folder.write_text("recipe.yaml", "{")
    assert read_settings(folder, Facts()) == {}


def test_secrets_are_hidden(folder):
    recipe = {
        "dataset": {"source": "https://me:7654@host/x", "api_key": "1234"},
        "terms": [{"kind": "mse", "weight": 2}, {"kind": "x", "password": "1234"}],
        "token_dropout": 0.1,
    }
    folder.write_text("recipe.yaml", yaml.safe_dump(recipe))
    settings = read_settings(folder, Facts())
    rows = [row for rows in group_settings(settings, "x").values() for row in rows]
    text = str(rows)
    assert "7654" not in text
    assert "1234" not in text
    assert ("token_dropout", "0.1") in rows
    assert ("terms.0.weight", "2") in rows


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("seeds", [1, 2], "1, 2"),
        ("encoders", ["lite0", "vae"], "lite0+vae"),
        ("rate_hz", 250.0, "250 Hz"),
        # recipes of evaluations have other values of these keys
        ("repetitions", [1, 4, 8], "1, 4, 8"),
        ("repetitions", [4, 4], "4"),
        ("window_ms", None, "none"),
        ("x", True, "true"),
        (
            "align_run",
            ["demo-intra-ridge-0123456789", "demo-intra-ridge-0123456789-2", "own"],
            "0123456789, 0123456789-2, own",
        ),
    ],
)
def test_a_setting_is_written_as_text(key, value, text):
    assert write_setting(key, value) == text


def test_kinds_come_first_and_models_last_among_differences():
    first_settings = {"align_run": "x", "seeds": "1", "loss.a": "1", "lr": "1"}
    second = {"align_run": "y", "seeds": "2", "loss.b": "2", "lr": "2"}
    first_settings["loss.kind"], second["loss.kind"] = "clip", "mse"
    assert find_differing_keys([first_settings, second]) == [
        "loss.kind",
        "lr",
        "align_run",
    ]

    many_settings = {f"key{number}": str(number) for number in range(20)}
    assert len(find_differing_keys([many_settings, {}])) == MAX_DIFFERENCES
