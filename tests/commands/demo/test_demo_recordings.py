"""Tests of `demo --write-recordings`: its files, and what it refuses."""

import json

from typer.testing import CliRunner

from brainhive_cli.app import app


def test_files_lie_where_prepare_reads_them(home):
    line = ["demo", "--write-recordings", ".", "--quick", "--json"]
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 0, ended.stderr

    next_line = json.loads(ended.stdout)["next"]
    assert next_line == "brainhive prepare --from recording --check"
    recordings = sorted(path.name for path in home.glob("data/recordings/*.vhdr"))
    assert recordings == ["sub-01_ses-01.vhdr", "sub-02_ses-01.vhdr"]
    pictures = list(home.glob("data/image-folder/*/*/*.jpg"))
    table = (home / "data/recordings/events.csv").read_text().splitlines()
    assert len(pictures) == len(table) - 1 == 69
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert size < 40e6

    checked = CliRunner().invoke(app, next_line.split()[1:])
    assert checked.exit_code == 0
    assert "unmatched" not in checked.stderr

    # nothing is overwritten
    second_result = CliRunner().invoke(app, line[:3])
    assert second_result.exit_code == 2
    assert "data/image-folder" in second_result.stderr


def test_keys_without_an_effect_are_refused(home):
    ended = CliRunner().invoke(app, ["demo", "--write-recordings", "x", "--real"])
    assert ended.exit_code == 2
    assert not list(home.iterdir())
