from math import nan
from pathlib import Path

import pytest
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Line, Map, Media, Point, Row, Sheet, Tile
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def one_of_each(file: str) -> list[Artifact]:
    return [
        Curve("loss", "epoch", [1, 2], [Line("train", [0.5, 0.25])], marks={"best": 2}),
        Curve("ranks", "rank", ["1", "2"], [Line("all", [0.5, None], chance=0.1)], style="bars"),
        Heatmap("similarity", [[1.0, 0.5], [0.5, 1.0]], ["a", "b"], ["a", "b"]),
        Sheet("retrieved", ["seen", "1"], [Row("cat/1", [Tile(file), Tile(file, ["0.5"], {"ssim": 0.5})])]),
        Map("scalp", [Point(0.0, 1.0, "Oz", 0.5)]),
        Media("a drawing", file),
        Table("cells", ["subject", "top-1"], [["1", 0.5], ["2", None]]),
    ]


def test_artifacts_are_read_as_they_were_written(run: RunFolder) -> None:
    file = artifacts.save_picture(run, "gallery/cat", Image.new("RGB", (8, 8)))
    shown = one_of_each(file)
    artifacts.write(run, shown)
    found = artifacts.read(run)
    assert [type(each) for each in found] == [type(each) for each in shown]
    assert [artifacts._plain(vars(each)["title"]) for each in found] == [each.title for each in shown]
    assert found[0].lines[0].values == [0.5, 0.25] and found[3].rows[0].tiles[1].metrics == {"ssim": 0.5}
    assert list(artifacts.files(found[3])) == [file, file]


def test_a_run_without_a_list_has_no_artifacts(run: RunFolder) -> None:
    assert artifacts.read(run) == []


def test_numbers_are_rounded_and_those_that_are_not_finite_become_gaps(run: RunFolder) -> None:
    artifacts.write(run, [Curve("loss", "epoch", [1, 2], [Line("train", [nan, 0.123456])])])
    assert artifacts.read(run)[0].lines[0].values == [None, 0.1235]


def test_a_picture_is_saved_small_and_never_enlarged(run: RunFolder) -> None:
    large = artifacts.save_picture(run, "large", Image.new("RGB", (400, 200)))
    small = artifacts.save_picture(run, "small", Image.new("RGB", (20, 20)))
    assert Image.open(run.path / large).size == (128, 64) and Image.open(run.path / small).size == (20, 20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve("loss", "epoch", [1, 2], [Line("train", [0.5])]),
        lambda: Curve("loss", "epoch", [1], [Line("train", [0.5], low=[0.1, 0.2])]),
        lambda: Heatmap("similarity", [[1.0], [0.5, 1.0]]),
        lambda: Heatmap("similarity", [[1.0]], ["a", "b"]),
        lambda: Heatmap("similarity", [[1.0]], ["a"], ["a", "b"]),
        lambda: Sheet("retrieved", ["seen"], [Row("cat", [Tile("a.png"), Tile("b.png")])]),
        lambda: Table("cells", ["subject"], [["1", 0.5]]),
    ],
)
def test_what_does_not_fit_together_is_refused(make) -> None:
    with pytest.raises(ValueError):
        make()


def test_an_artifact_without_its_file_is_refused(run: RunFolder) -> None:
    with pytest.raises(BrainhiveError, match=r"gone\.png is missing"):
        artifacts.write(run, [Media("a drawing", "gone.png")])


def test_a_list_that_names_a_file_outside_of_the_run_is_refused(run: RunFolder) -> None:
    plain = {"schema": 3, "artifacts": [{"kind": "media", "title": "x", "file": "../secret.png"}]}
    run.write_json(artifacts.NAME, plain)
    with pytest.raises(BrainhiveError, match="leads out of its folder"):
        artifacts.read(run)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"schema": 2, "artifacts": []}, "schema 2"),
        ({"schema": 3, "artifacts": [{"kind": "poem"}]}, "artifacts: 0"),
        (
            {"schema": 3, "artifacts": [{"kind": "table", "title": "x", "columns": ["a"], "rows": [[]]}]},
            "cells",
        ),
    ],
)
def test_a_damaged_list_is_one_line(run: RunFolder, document, says: str) -> None:
    run.write_json(artifacts.NAME, document)
    with pytest.raises(BrainhiveError, match=says):
        artifacts.read(run)
