"""Artifacts of a run: read as they were written, of shapes that fit."""

import pytest
from PIL import Image

from brainhive_cli.core.base import BrainhiveError, Table
from brainhive_cli.core.results.measurements import Metric
from brainhive_cli.core.runs import (
    BrainMap,
    Curve,
    CurveLine,
    Heatmap,
    Point,
    RunFolder,
    Sheet,
    SheetRow,
    SheetTile,
    Topomap,
    artifacts,
)
from brainhive_cli.core.runs.artifacts import Media


@pytest.fixture
def run_folder(tmp_path):
    return RunFolder(tmp_path)


def one_of_each(file):
    return [
        Curve(
            "loss",
            "epoch",
            [1, 2],
            [CurveLine("train", [0.5, 0.25])],
            marks={"best": 2},
        ),
        Curve(
            "ranks",
            "rank",
            ["1", "2"],
            [CurveLine("all", [0.5, None], chance=0.1)],
            style="bars",
        ),
        Heatmap("similarity", [[1.0, 0.5], [0.5, 1.0]], ["a", "b"], ["a", "b"]),
        Sheet(
            "retrieved",
            ["seen", "1"],
            [
                SheetRow(
                    "cat/1", [SheetTile(file), SheetTile(file, ["0.5"], {"ssim": 0.5})]
                )
            ],
        ),
        Topomap("scalp", [Point(0.0, 1.0, "Oz", 0.5)]),
        BrainMap("F", file, (1.0, -2.5, 3.0), threshold=4.5),
        Media("a drawing", file),
        Table("cells", ["subject", "top-1"], [["1", 0.5], ["2", None]]),
    ]


def test_artifacts_are_read_as_they_were_written(run_folder):
    file = artifacts.save_picture(run_folder, "gallery/cat", Image.new("RGB", (8, 8)))
    shown_one = one_of_each(file)
    artifacts.write(run_folder, shown_one)
    loaded = artifacts.read(run_folder)
    assert [type(artifact) for artifact in loaded] == [
        type(artifact) for artifact in shown_one
    ]
    assert [artifacts._plain(vars(artifact)["title"]) for artifact in loaded] == [
        artifact.title for artifact in shown_one
    ]
    assert loaded[0].lines[0].values == [0.5, 0.25]
    assert loaded[3].rows[0].tiles[1].metrics == {"ssim": 0.5}
    assert list(artifacts.list_files(loaded[3])) == [file, file]


def test_a_bad_list_of_artifacts_is_reported_in_one_line(
    run_folder,
):
    media = {"kind": "media", "title": "x", "file": "../secret.png"}
    for document, says in (
        ({"schema": 3, "artifacts": [media]}, "leads out of its folder"),
        ({"schema": 2, "artifacts": []}, "schema 2"),
        ({"schema": 3, "artifacts": [{"kind": "poem"}]}, "artifacts: 0"),
    ):
        run_folder.write_json(artifacts.ARTIFACTS_FILE, document)
        with pytest.raises(BrainhiveError, match=says):
            artifacts.read(run_folder)


def metric(value, low):
    """A metric with one end of its interval."""
    return Metric(
        "top1", value, 4, 200, value / 2, low, 0.9, (0,), "cosine", "test", "t"
    )


def test_metrics_are_a_line_with_intervals():
    line = CurveLine.from_metrics("all", [metric(0.5, 0.1), metric(0.75, None)])
    assert (line.values, line.low, line.high) == ([0.5, 0.75], [0.1, None], [0.9, 0.9])
    assert line.chance == 0.25


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve("x", "t", [1, 2], [CurveLine("a", [1.0])]),
        lambda: Curve("x", "t", [1, 2], [CurveLine("a", [1.0, 2.0], low=[1.0])]),
        lambda: Curve("x", "t", [1, 2], [CurveLine("a", [1.0, 2.0], high=[1.0])]),
        lambda: Heatmap("x", [[1.0], [1.0, 2.0]]),
        lambda: Heatmap("x", [[1.0, 2.0]], rows=["a", "b"]),
        lambda: Heatmap("x", [[1.0, 2.0]], columns=["a"]),
        lambda: Sheet("x", ["a"], [SheetRow("q", [SheetTile("f"), SheetTile("f")])]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(make):
    with pytest.raises(ValueError, match="x"):
        make()


def test_shapes_that_fit_are_taken():
    Curve("x", "t", [1, 2], [CurveLine("a", [1.0, 2.0], [0.0, 1.0], [2.0, 3.0])])
    Heatmap("x", [])
    Heatmap("x", [[1.0, 2.0]], ["a"], ["b", "c"])
    Sheet("x", ["a", "b"], [SheetRow("q", [SheetTile("f")])])


def test_files_of_tiles_and_clips_have_their_posters(run_folder):
    tiles = [SheetTile("a.mp4", poster="a.png"), SheetTile("")]
    sheet, media = Sheet("x", ["1", "2"], [SheetRow("q", tiles)]), Media("x", "b", "c")
    assert list(artifacts.list_files(sheet)) == ["a.mp4", "a.png"]
    assert list(artifacts.list_files(media)) == ["b", "c"]
    assert list(artifacts.list_files(Table("x", ["a"], []))) == []
    assert artifacts.read(run_folder) == []
    with pytest.raises(BrainhiveError):
        artifacts.write(run_folder, iter([media]))
    assert not (run_folder.path / artifacts.ARTIFACTS_FILE).exists()


def test_numbers_are_rounded_and_finite_and_tables_read_back(
    run_folder,
):
    table = Table("t", ["a", "b"], [[0.123456, 12345]], is_list=True, is_copied=True)
    curve = Curve("c", "t", [1.0, 2.0], [CurveLine("a", [float("nan"), float("inf")])])
    artifacts.write(run_folder, iter([table, curve]))
    loaded, other_artifact = artifacts.read(run_folder)
    assert loaded == Table("t", ["a", "b"], [[0.1235, 12345]])
    assert other_artifact.lines[0].values == [None, None]  # type: ignore[union-attr]
    assert artifacts.read_tables(run_folder) == (loaded,)
    assert "\n" not in (run_folder.path / artifacts.ARTIFACTS_FILE).read_text().strip()


def test_a_link_out_of_the_run_is_no_artifact(run_folder, tmp_path):
    (tmp_path / "run").mkdir()
    inner = RunFolder(tmp_path / "run")
    (tmp_path / "secret.png").touch()
    (inner.path / "a.png").touch()
    (inner.path / "b.png").symlink_to("a.png")
    artifacts.write(inner, [Media("x", "b.png")])
    assert len(artifacts.read(inner)) == 1
    (inner.path / "b.png").unlink()
    (inner.path / "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(BrainhiveError):
        artifacts.read(inner)


@pytest.mark.parametrize(
    ("size", "saved"), [((256, 64), (128, 32)), ((10, 20), (10, 20))]
)
def test_a_saved_picture_is_small_and_never_enlarged(run_folder, size, saved):
    file = artifacts.save_picture(run_folder, "a/b", Image.new("RGBA", size))
    assert file == "artifacts/a/b.webp"
    with Image.open(run_folder.path / file) as picture:
        assert picture.size == saved
        assert picture.mode == "RGB"
