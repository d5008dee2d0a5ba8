"""Maps of voxels on slices of the brain."""

import re
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from brainhive_cli.core.base.errors import MissingExtra, install_line
from brainhive_cli.data.signals import Grid, Trials, Underlay, Voxels
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.reports.figures import (
    brain_slices,
    render_svg,
    save_figure,
    write_brain_map,
    write_view,
)
from brainhive_cli.reports.figures.brain_slices import choose_slices
from brainhive_cli.reports.pages.page import Page, PageSection, group_artifacts
from tests.worlds.brain_maps import read_drawn_values

SHAPE = (6, 7, 8)
AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3, 0, -8], [0, 0, 3, 2], [0, 0, 0, 1]])
INDICES = np.argwhere(np.ones(SHAPE)).astype(np.int16)
UNDERLAY = Underlay(
    np.random.default_rng(0).integers(0, 255, (9, 9, 9)).astype(np.uint8),
    np.diag([2.0, 2, 2, 1]),
    "T1w",
)
SPACE = Voxels({}, grid=Grid(INDICES, SHAPE, AFFINE), underlay=UNDERLAY)
VALUES = np.random.default_rng(1).normal(size=len(INDICES))
VALUES[100] = -9.0


def write_map(folder, space=SPACE, **options):
    options = {"is_diverging": True, "threshold": 1.5} | options
    return write_brain_map(
        folder,
        "sub-01",
        "t",
        VALUES[: len(space.grid.indices)],
        space,
        title="T",
        value="t",
        note="",
        **options,
    )


def test_the_peak_has_its_position_in_mm_and_the_threshold_hides(tmp_path):
    brain_map = write_map(tmp_path)
    expected_mm = AFFINE[:3, :3] @ INDICES[100] + AFFINE[:3, 3]
    assert brain_map.peak_mm == tuple(expected_mm)
    assert all(f"{mm:g}" in brain_map.note for mm in expected_mm)
    assert "T1w" in brain_map.note

    drawn_values = read_drawn_values(brain_map, tmp_path)
    is_drawn = np.abs(VALUES) >= 1.5
    np.testing.assert_allclose(drawn_values, VALUES[is_drawn], rtol=1e-6)
    assert write_map(tmp_path, is_diverging=False).peak_mm != brain_map.peak_mm


def test_a_store_keeps_the_underlay_of_its_voxels(tmp_path):
    signal = np.zeros((1, 1, len(INDICES), 1), np.float32)
    trials = Trials.from_repetitions(signal, ["a"], SPACE, np.zeros(1), None, "z")
    SignalStore.write(tmp_path / "sub-01.h5", {"train": trials})
    space = SignalStore.open(tmp_path / "sub-01.h5")["train"].space
    selected_underlay = space.select(np.arange(3)).underlay
    assert selected_underlay.source == "T1w"
    assert np.array_equal(selected_underlay.values, UNDERLAY.values)
    assert np.array_equal(selected_underlay.affine, UNDERLAY.affine)


@pytest.mark.parametrize("has_anatomy", (True, False))
def test_slices_are_drawn_by_nilearn_the_same_each_time(tmp_path, has_anatomy):
    pytest.importorskip("nilearn")
    space = SPACE if has_anatomy else replace(SPACE, underlay=None)
    brain_map = write_map(tmp_path, space)
    svg = render_svg(brain_map, tmp_path)
    x_mm, y_mm, z_mm = brain_map.peak_mm
    for text in (f"x={x_mm:.0f}", f"y={y_mm:.0f}", f"z={z_mm:.0f}", ">L<", ">R<"):
        assert text in svg
    # the colours are symmetric around 0
    assert ">9<" in svg
    assert re.search(">[-−]9<", svg)
    assert svg == render_svg(brain_map, tmp_path)
    save_figure(brain_map.locate(tmp_path), tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").stat().st_size > 1000


def test_a_single_slice_is_seen_from_its_flat_side(tmp_path):
    slab = np.argwhere(np.ones((6, 1, 8))).astype(np.int16)
    # the second axis of the file points up
    affine = AFFINE[:, [0, 2, 1, 3]]
    space = Voxels({}, grid=Grid(slab, (6, 1, 8), affine))
    assert choose_slices(write_map(tmp_path, space).locate(tmp_path)) == "z"
    assert choose_slices(write_map(tmp_path).locate(tmp_path)) == "ortho"


@pytest.mark.parametrize("first_axis_mm", (2.0, -2.0))
def test_slices_show_left_on_the_left_for_any_axes_of_the_file(tmp_path, first_axis_mm):
    pytest.importorskip("nilearn")
    indices = np.argwhere(np.ones((12, 12, 1))).astype(np.int16)
    affine = np.diag([first_axis_mm, 2, 2, 1])
    affine[0, 3] = -5.5 * first_axis_mm
    is_left = indices[:, 0] * first_axis_mm + affine[0, 3] < 0
    brain_map = write_brain_map(
        tmp_path,
        "sub-01",
        "t",
        np.where(is_left, 3.0, -3.0),
        Voxels({}, grid=Grid(indices, (12, 12, 1), affine)),
        title="T",
        value="t",
        note="",
        is_diverging=True,
        threshold=1.5,
    )
    save_figure(brain_map.locate(tmp_path), tmp_path / "figure.png")

    # left voxels are red, right voxels blue, and the colour bar is at the edge
    pixels = np.array(Image.open(tmp_path / "figure.png").convert("RGB"), int)
    red, _, blue = pixels[:, : pixels.shape[1] * 3 // 4].T
    red_columns = np.flatnonzero((red > blue + 60).any(1))
    blue_columns = np.flatnonzero((blue > red + 60).any(1))
    assert 0 < red_columns.max() <= blue_columns.min() + 1


def test_without_nilearn_a_page_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(brain_slices, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "nilearn", None)
    brain_map = write_map(tmp_path)
    note = str(render_svg(brain_map, tmp_path))
    assert "nilearn" in note
    assert escape(install_line("maps")) in note
    assert write_view(brain_map.locate(tmp_path), tmp_path) == ""
    with pytest.raises(MissingExtra, match="nilearn") as raised:
        save_figure(brain_map.locate(tmp_path), tmp_path / "figure.svg")
    assert raised.value.hint == install_line("maps")


def test_a_page_links_a_view_that_needs_no_network(tmp_path):
    pytest.importorskip("nilearn")
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    brain_map = write_map(run_folder)
    groups = group_artifacts([("", [brain_map], run_folder)])
    headline = brain_map.locate(run_folder)
    page = Page("Maps", headlines=[headline], sections=[PageSection("a", groups)])
    page.write(tmp_path / "page.html")

    names = re.findall('href="(sub-01[^"]*)"', (tmp_path / "page.html").read_text())
    assert len(names) == 2
    assert len(set(names)) == 1
    view = (tmp_path / names[0]).read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", view)
    assert "<title>T</title>" in view
    assert "sub-01_t-" not in page.html()
    assert nibabel.load(headline.volume).shape == SHAPE
