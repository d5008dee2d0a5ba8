"""Figures as files: three formats, safe file names, and titles with caveats."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.results import ALL, CAVEATS, Facts, Measurements, Metric
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
from brainhive_cli.reports.figures import brain_slices, drawings
from brainhive_cli.reports.pages import run_page
from brainhive_cli.reports.pages.run_page import save_figures
from brainhive_cli.reports.tables.runs_shown import RunGroup, ShownRun

CAVEAT = next(iter(CAVEATS))
LOSS = Curve("Loss", "epoch", [1, 2], [CurveLine("train", [1.0, 0.5])])


def make_run(
    tmp_path,
    *run_artifacts,
    name="lab-0123456789",
    label="",
):
    """Write a finished run with these artifacts."""
    folder = RunFolder(tmp_path / "runs/lab" / name)
    artifacts.write(folder, run_artifacts)
    folder.write_text("recipe.yaml", "epochs: 3\n")
    context = {
        "seeds": (1,),
        "protocol": "intra, lab",
        "split": "test",
        "interval": "t over subjects",
    }
    metric = Metric(
        "top1", 0.5, n=40, pool=100, chance=0.01, low=0.4, high=0.6, **context
    )
    folder.finish(Measurements({ALL: {"top1": metric}}, facts=Facts(caveats=[CAVEAT])))
    return ShownRun(label or name, folder)


def list_names(paths):
    """List the file names without suffix, each once."""
    return list(
        dict.fromkeys(re.sub(r"\.(svg|png|pdf)$", "", path.name) for path in paths)
    )


def make_sheet(tmp_path, rows=5):
    """Make a sheet with pictures of the run that `make_run` writes."""
    folder = RunFolder(tmp_path / "runs/lab/lab-0123456789")
    file = artifacts.save_picture(folder, "a", Image.new("RGB", (8, 8), "red"))
    tiles = [
        SheetTile(file, ["a cat", "rank 1"]),
        SheetTile(file, ["a dog with a long name"], verdict="wrong"),
        SheetTile(""),
    ]
    return Sheet(
        "Retrieved",
        ["seen", "1", "2"],
        [SheetRow(f"cat/{row}", tiles) for row in range(rows)],
    )


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Save coarse PNG files, because 600 pixels per inch take long."""
    for module in (drawings, run_page):
        monkeypatch.setattr(module, "PNG_DPI", 50)


def test_each_figure_is_saved_in_each_format_or_reported_damaged(tmp_path):
    artifacts_of_run = [
        LOSS,
        Heatmap(
            "Matrix", [[1.0, None], [0.0, 1.0]], rows=["a", "b"], columns=["c", "d"]
        ),
        Topomap("Head", [Point(0, 0.5, "Oz", 1.0), Point(0.5, 0, "C4", -1.0)]),
        make_sheet(tmp_path),
    ]
    run_folder = make_run(tmp_path, *artifacts_of_run)
    paths = save_figures([RunGroup([run_folder])], tmp_path / "figures")
    titles = ("Loss", "Matrix", "Head", "Retrieved")
    assert list_names(paths) == [f"lab-0123456789-{title}" for title in titles]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    assert len(paths) == 4 * 3
    for path in paths:
        start = path.read_bytes()[:200]
        assert {
            ".svg": b"<svg" in path.read_bytes(),
            ".png": b"PNG" in start,
            ".pdf": b"%PDF" in start,
        }[path.suffix]
    for path in (path for path in paths if path.suffix == ".png"):
        with Image.open(path) as png:
            assert png.width == 50 * drawings.WIDTH_INCH
            assert abs(png.info["dpi"][0] - 50) < 1
    # three of the five rows are saved
    assert (tmp_path / "figures/lab-0123456789-Retrieved.svg").read_text().count(
        "rank 1"
    ) == 3
    run_folder = make_run(tmp_path, make_sheet(tmp_path))
    (run_folder.folder.path / "artifacts/a.webp").write_bytes(b"RIFF")
    with pytest.raises(MissingData) as caught:
        save_figures([RunGroup([run_folder])], tmp_path / "again")
    assert "a.webp" in str(caught.value)


@pytest.mark.nightly
def test_a_figure_shows_the_caveats_and_the_label_of_its_run(
    tmp_path,
):
    first_run, second_run = (
        make_run(tmp_path, LOSS),
        make_run(tmp_path, LOSS, name="other-0123456789"),
    )
    save_figures([RunGroup([first_run])], tmp_path / "one")
    text = (tmp_path / "one/lab-0123456789-Loss.svg").read_text()
    assert f"Loss ({CAVEAT})" in text
    assert "lab-0123456789" not in text
    save_figures([RunGroup([first_run, second_run])], tmp_path / "both")
    text = (tmp_path / "both/other-0123456789-Loss.svg").read_text()
    assert "Loss: other-0123456789" in text
    assert list((tmp_path / "both").glob("compared-headline-*"))


@pytest.mark.nightly
def test_labels_and_titles_become_safe_and_distinct_file_names(tmp_path):
    titles = ["../../Loss: <b>", "..  LOSS  B", "ß–"]
    curves = [replace(LOSS, title=title) for title in titles]
    run_folder = make_run(tmp_path, *curves, label="a/b\\c: über")
    names = list_names(save_figures([RunGroup([run_folder])], tmp_path / "figures"))
    assert names == ["a-b-c-uber-Loss-b", "a-b-c-uber-LOSS-B-2", "a-b-c-uber"]
    assert {path.parent for path in tmp_path.rglob("*.svg")} == {tmp_path / "figures"}


def test_a_map_without_nilearn_stops_no_other_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(brain_slices, "find_spec", lambda name: None)
    folder = RunFolder(tmp_path / "runs/lab/lab-0123456789")
    folder.write_text("a.nii.gz", "values")
    brain_map = BrainMap("Brain", "a.nii.gz", (0.0, 0.0, 0.0))
    group = RunGroup([make_run(tmp_path, brain_map, LOSS)])
    names = list_names(save_figures([group], tmp_path / "figures"))
    assert len(names) == 1
    assert names[0].endswith("Loss")
    assert (
        "Brain is not drawn: slices of the brain need nilearn"
        in capsys.readouterr().err
    )
