from pathlib import Path

import pytest
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    Heatmap,
    Line,
    Map,
    Media,
    Point,
    Row,
    Sheet,
    Tile,
)
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def one_of_each(file: str) -> list[Artifact]:
    return [
        Curve("loss", "epoch", [1, 2], [Line("train", [0.5, 0.25])], marks={"best": 2}),
        Curve(
            "ranks",
            "rank",
            ["1", "2"],
            [Line("all", [0.5, None], chance=0.1)],
            style="bars",
        ),
        Heatmap("similarity", [[1.0, 0.5], [0.5, 1.0]], ["a", "b"], ["a", "b"]),
        Sheet(
            "retrieved",
            ["seen", "1"],
            [Row("cat/1", [Tile(file), Tile(file, ["0.5"], {"ssim": 0.5})])],
        ),
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
    assert [artifacts._plain(vars(each)["title"]) for each in found] == [
        each.title for each in shown
    ]
    assert found[0].lines[0].values == [0.5, 0.25] and found[3].rows[0].tiles[
        1
    ].metrics == {"ssim": 0.5}
    assert list(artifacts.files(found[3])) == [file, file]


def test_a_damaged_list_or_one_that_names_a_file_outside_of_the_run_is_one_line(
    run: RunFolder,
) -> None:
    media = {"kind": "media", "title": "x", "file": "../secret.png"}
    for document, says in (
        ({"schema": 3, "artifacts": [media]}, "leads out of its folder"),
        ({"schema": 2, "artifacts": []}, "schema 2"),
        ({"schema": 3, "artifacts": [{"kind": "poem"}]}, "artifacts: 0"),
    ):
        run.write_json(artifacts.NAME, document)
        with pytest.raises(BrainhiveError, match=says):
            artifacts.read(run)
