"""Named regions of masks, atlases and surface labels."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel
from nibabel.freesurfer import write_annot

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.fmri.regions import (
    WANG_REGIONS,
    count_hemisphere_rows,
    find_region_files,
    read_regions,
)
from brainhive_cli.data.fmri.volumes import Mask
from brainhive_cli.data.signals.spaces import Surface

SHAPE = (3, 4, 5)
AFFINE = np.eye(4)
INSIDE = np.random.default_rng(0).random(SHAPE) < 0.7
LEFT = 30
RIGHT = 40
"""Numbers of vertices."""


def save(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def draw(*labels):
    """Draw a volume of labels that all occur in the mask."""
    values = np.random.default_rng(1).choice(labels, SHAPE).astype(np.int16)
    values[INSIDE] = np.resize(labels, INSIDE.sum())
    return values


@pytest.fixture
def mask(tmp_path):
    path = save(tmp_path / "mask.nii", INSIDE.astype(np.uint8))
    return Mask.open(path, "save it again")


def load_regions(mask, **files):
    """Load the regions [V] of files."""
    named_files = {name: [path] for name, path in files.items()}
    return dict(read_regions(named_files, mask, {})[0].regions)


BLOCKS = np.arange(1, 61).reshape(SHAPE).astype(np.float32)
"""Values 1 to 60 with unequal neighbours, as in a map of probabilities."""
PARCELS = np.where(np.arange(SHAPE[0]) < 2, 3, 60)[:, None, None] * np.ones(
    SHAPE, np.float32
)
"""Two large parcels."""


@pytest.mark.parametrize(
    ("values", "regions", "kind"),
    [
        (BLOCKS / 60, {"V1": BLOCKS >= 30}, "probabilities, 0.5 and more"),
        (BLOCKS, {"V1": BLOCKS >= 50}, "percent, 50 and more"),
        (
            np.where(PARCELS > 3, 61, 3),
            {"V1-3": PARCELS == 3, "V1-61": PARCELS == 60},
            "labels without names",
        ),
        ((BLOCKS > 9)[..., None], {"V1": BLOCKS > 9}, "mask"),
    ],
)
def test_a_file_of_regions_is_what_its_values_say(
    tmp_path, mask, values, regions, kind
):
    path = save(tmp_path / "V1.nii", np.asarray(values, np.float32))
    voxels, readings = read_regions({"V1": [path]}, mask, {})
    assert readings["V1"].startswith(kind)
    expected = {name: inside[INSIDE] for name, inside in regions.items()}
    np.testing.assert_equal(dict(voxels.regions), expected)


def test_thresholds_of_ambiguous_and_unknown_regions_are_errors(tmp_path, mask):
    path = save(tmp_path / "V1.nii", PARCELS)
    with pytest.raises(BrainhiveError, match=r"V1\.nii.*\b3 to 60\b") as error:
        read_regions({"V1": [path]}, mask, {})
    assert "thresholds.V1=" in error.value.hint
    with pytest.raises(BrainhiveError, match=r"thresholds\.V2"):
        read_regions({"V1": [path]}, mask, {"V2": 0.5})


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("atlas.tsv", ["index\tname", "0\tUnknown", "1\tL_V1_ROI", "2\tFusiform face"]),
        (
            "atlas.txt",
            [
                "#No. Label Name: R G B A",
                "0 Unknown 0 0 0 0",
                "",
                "1 lh.V1 120 18 134 0",
                "2 Fusiform_face 1 2 3 0",
            ],
        ),
        ("atlas.csv", ["label,region", "1,V1", "2,Fusiform face", "3,elsewhere"]),
    ],
)
def test_a_table_beside_an_atlas_names_its_labels(tmp_path, mask, table, lines):
    values = draw(0, 1, 2)
    atlas = save(tmp_path / "atlas.nii.gz", values)
    (tmp_path / table).write_text("\n".join(lines) + "\n")
    regions = load_regions(mask, visual=atlas)
    assert list(regions) == ["V1", "Fusiform_face"]
    np.testing.assert_array_equal(regions["Fusiform_face"], values[INSIDE] == 2)


@pytest.mark.parametrize("names", [("V1", "b.V1"), ("b.V1", "V1")])
def test_no_region_replaces_another(tmp_path, mask, names):
    """An atlas b may have V1 of an earlier file, and also a region b.V1."""
    first = save(tmp_path / "first.nii", INSIDE.astype(np.uint8))
    values = draw(0, 1, 2)
    second = save(tmp_path / "second.nii", values)
    (tmp_path / "second.txt").write_text(f"1 {names[0]}\n2 {names[1]}\n")
    regions = load_regions(mask, V1=first, b=second)
    assert set(regions) == {"V1", "b.V1", "b.b.V1"}
    np.testing.assert_array_equal(regions["V1"], True)
    masks = [regions[name] for name in regions if name != "V1"]
    np.testing.assert_array_equal(masks, [values[INSIDE] == 1, values[INSIDE] == 2])


@pytest.mark.parametrize("error", [1e-4, -1e-4])
def test_labels_and_masks_that_were_scaled_are_whole_numbers(tmp_path, mask, error):
    """Small deviations from whole numbers do not make them probabilities."""
    values = draw(0, 1, 2, -1)
    path = save(tmp_path / "atlas.nii.gz", (values * (1 + error)).astype(np.float32))
    inside = Mask.open(path, "save it again").inside
    np.testing.assert_array_equal(inside, values > 0)
    regions = load_regions(mask, atlas=path)
    np.testing.assert_array_equal(regions["atlas-2"], values[INSIDE] == 2)
    # small residues of an interpolation are rounded to 0, and shares are not rounded
    shares = np.where(INSIDE, 1.0, 1e-8).astype(np.float32)
    path = save(tmp_path / "mask.nii.gz", shares)
    np.testing.assert_array_equal(Mask.open(path, "save it again").inside, INSIDE)
    path = save(tmp_path / "map.nii.gz", np.linspace(0, 1, 60).reshape(SHAPE))
    assert Mask.open(path, "save it again").width == 30


def test_two_tables_beside_an_atlas_must_agree(tmp_path, mask):
    atlas = save(tmp_path / "atlas.nii.gz", draw(0, 1, 2))
    (tmp_path / "atlas.txt").write_text("1 V1\n2 V2\n")
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tV1\n2\tV2\n")
    assert list(load_regions(mask, visual=atlas)) == ["V1", "V2"]
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tV2\n2\tV1\n")
    with pytest.raises(BrainhiveError, match=r"atlas\.txt.*atlas\.tsv"):
        load_regions(mask, visual=atlas)


def test_volume_labels_of_freesurfer_join_both_hemispheres(tmp_path, mask):
    values = draw(1005, 2005, 1021, 2004, 17, 41)
    path = tmp_path / "sub-01_space-T1w_desc-aparcaseg_dseg.nii.gz"
    regions = load_regions(mask, anatomy=save(path, values))
    # 1005 is the left cuneus, and 2005 the right
    cuneus = np.isin(values[INSIDE], [1005, 2005])
    np.testing.assert_array_equal(regions["cuneus"], cuneus)
    np.testing.assert_array_equal(regions["pericalcarine"], values[INSIDE] == 1021)
    assert len(regions) == 34
    assert {"fusiform", "lateraloccipital", "lingual", "insula"} < set(regions)
    assert not {"corpuscallosum", "unknown"} & set(regions)


def test_the_atlas_of_wang_and_kastner_has_its_names(tmp_path, mask):
    values = draw(0, *range(1, 26))
    is_left = np.arange(SHAPE[0])[:, None, None] < 1
    save(tmp_path / "maxprob_vol_lh.nii.gz", np.where(is_left, values, 0))
    save(tmp_path / "maxprob_vol_rh.nii.gz", np.where(is_left, 0, values))
    files = find_region_files({"atlas": "maxprob_vol_?h.nii.gz"}, 1, tmp_path)
    regions = read_regions(files, mask, {})[0].regions
    assert list(regions) == WANG_REGIONS
    assert len(WANG_REGIONS) == 25
    assert (WANG_REGIONS[6], WANG_REGIONS[-1]) == ("hV4", "FEF")
    np.testing.assert_array_equal(regions["TO2"], values[INSIDE] == 12)


def test_files_on_another_grid_or_without_voxels_are_refused(tmp_path, mask):
    moved = save(tmp_path / "moved.nii", draw(1), np.diag([2.0, 1, 1, 1]))
    with pytest.raises(BrainhiveError, match=r"moved\.nii.*mask\.nii") as error:
        load_regions(mask, V1=moved)
    assert error.value.hint.startswith("preparation.regions")
    outside = save(tmp_path / "outside.nii", (~INSIDE).astype(np.uint8))
    with pytest.raises(BrainhiveError, match=r"outside\.nii.*\b\d+ voxels"):
        load_regions(mask, V1=outside)
    with pytest.raises(BrainhiveError, match=r"lh\.aparc\.annot.*mask\.nii"):
        load_regions(mask, aparc=tmp_path / "lh.aparc.annot")


def draw_labels(lowest):
    """Draw a label up to 2 for each vertex of both hemispheres."""
    return np.random.default_rng(3).integers(lowest, 3, LEFT + RIGHT).astype(np.int32)


def test_surface_annotations_join_both_hemispheres(tmp_path):
    labels = draw_labels(-1)
    colours = np.array([[25, 5, 25, 0], [10, 20, 30, 0], [40, 50, 60, 0]])
    for hemisphere, values in (("L", labels[:LEFT]), ("R", labels[LEFT:])):
        path = tmp_path / f"{hemisphere.lower()}h.HCP-MMP1.annot"
        names = ["???", f"{hemisphere}_V1_ROI", f"{hemisphere}_MT_ROI"]
        write_annot(path, values, colours, names)
    files = find_region_files({"glasser": "?h.HCP-MMP1.annot"}, 1, tmp_path)
    for sizes in ({"left": LEFT, "right": RIGHT}, {"": LEFT + RIGHT}):
        regions = read_regions(files, sizes, {})[0].regions
        assert list(regions)[-2:] == ["V1", "MT"]
        np.testing.assert_array_equal(regions["MT"], labels == 2)
    with pytest.raises(BrainhiveError, match=r"lh\.HCP-MMP1\.annot.*\b30\b.*\b70\b"):
        read_regions({"glasser": files["glasser"][:1]}, {"": LEFT + RIGHT}, {})


def test_gifti_has_labels_with_names(tmp_path):
    labels = draw_labels(0)
    for hemisphere, values in (("L", labels[:LEFT]), ("R", labels[LEFT:])):
        array = nibabel.gifti.GiftiDataArray(values, intent="NIFTI_INTENT_LABEL")
        table = nibabel.gifti.GiftiLabelTable()
        for key, name in enumerate(("???", "V1 d", "MT")):
            label = nibabel.gifti.GiftiLabel(key)
            label.label = name
            table.labels.append(label)
        image = nibabel.gifti.GiftiImage(darrays=[array], labeltable=table)
        nibabel.save(image, tmp_path / f"hemi-{hemisphere}_dseg.label.gii")
    files = find_region_files({"visual": "hemi-?_dseg.label.gii"}, 1, tmp_path)
    regions = read_regions(files, {"left": LEFT, "right": RIGHT}, {})[0].regions
    assert list(regions) == ["left", "right", "V1_d", "MT"]
    np.testing.assert_array_equal(regions["MT"], labels == 2)


def test_files_are_found_below_the_root_or_else_below_home(home, tmp_path):
    name = "rois/sub-03_V1.nii.gz"
    root = tmp_path / "elsewhere"
    for folder in (home, root):
        (folder / name).parent.mkdir(parents=True)
        path = save(folder / name, draw(0, 1))
        pattern = {"V1": "rois/sub-{subject:02d}_V1.nii.gz"}
        assert find_region_files(pattern, 3, root) == {"V1": [path]}


@pytest.mark.parametrize("n_others", [0, 5])
def test_rows_of_cifti_are_matched_by_their_vertices(tmp_path, n_others):
    """The atlas lists the right hemisphere first, and other vertices than the betas."""
    axis_of = nibabel.cifti2.BrainModelAxis
    axis = axis_of.from_surface([8, 1], 9, "CortexRight")
    axis += axis_of.from_surface([0, 3, 5], 9, "CortexLeft")
    if n_others:
        axis += axis_of.from_mask(np.ones((n_others, 1, 1)), "Amygdala_left", np.eye(4))
    table = {0: ("???", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1)), 2: ("MT", (0, 1, 0, 1))}
    labels = np.array([[1, 2, 2, 1, 1] + [2] * n_others], np.float32)
    rows = nibabel.cifti2.LabelAxis(["atlas"], [table])
    path = tmp_path / "atlas.dlabel.nii"
    nibabel.save(nibabel.Cifti2Image(labels, (rows, axis)), path)
    # hemisphere and vertex of each row, or -1 outside the cortex
    vertices = [[0, 3], [0, 4], [0, 0], [1, 1], [1, 8]] + [[-1, -1]] * 5
    surface = Surface(np.array(vertices, np.int32), (9, 9))

    regions = read_regions({"atlas": [path]}, surface, {})[0].regions

    assert np.flatnonzero(regions["V1"]).tolist() == [0, 4]
    others = [5, 6, 7, 8, 9] if n_others else []
    assert np.flatnonzero(regions["MT"]).tolist() == [2, 3] + others
    with pytest.raises(BrainhiveError, match="vertices"):
        read_regions({"atlas": [path]}, replace(surface, sizes=(10, 9)), {})


def test_rows_are_counted_by_hemisphere():
    vertices = np.array([[0, 4], [0, 5], [1, 2], [-1, -1], [-1, -1], [-1, -1]])
    surface = Surface(vertices.astype(np.int32), (9, 9))
    assert count_hemisphere_rows(surface) == {"left": 2, "right": 1, "": 3}
    of_left = replace(surface, vertices=surface.vertices[:2])
    assert count_hemisphere_rows(of_left) == {"left": 2, "right": 0}
