"""Maps as files, from which nibabel reads the value of each voxel and vertex."""

import csv

import nibabel
import numpy as np

from brainhive_cli.data.signals import (
    Grid,
    Sensors,
    Surface,
    Trials,
    Voxels,
    write_maps,
)
from brainhive_cli.data.stores.signal_store import SignalStore

AFFINE = np.array([[0, -2.0, 0, 9], [3, 0, 0, -8], [0, 0, 1.5, 7], [0, 0, 0, 1]])
INDICES = np.array([[0, 1, 2], [3, 0, 0], [2, 2, 1], [1, 1, 1]], np.int16)
VERTICES = np.array([[0, 4], [1, 0], [-1, -1], [1, 2]], np.int32)
VALUES = np.array([1.5, -2, 3, 4])


def stored(space, path):
    """Write the space of four voxels to a store, and read it again."""
    signal = np.zeros((1, 1, 4, 1), np.float32)
    trials = Trials.from_repetitions(signal, ["a"], space, np.zeros(1), None, "z")
    SignalStore.write(path, {"train": trials})
    loaded_space = SignalStore.open(path)["train"].space
    assert isinstance(loaded_space, Voxels)
    return loaded_space


def test_voxels_lie_on_the_grid_of_the_signals(tmp_path):
    space = stored(Voxels({}, grid=Grid(INDICES, (4, 3, 3), AFFINE)), tmp_path / "1.h5")
    (path,) = write_maps(tmp_path, "sub-01", {"../R² of a": VALUES}, space)
    assert path == tmp_path / "sub-01_R²_of_a.nii.gz"
    image = nibabel.load(path)
    np.testing.assert_array_equal(image.affine, AFFINE)
    values = image.get_fdata()
    assert values.shape == (4, 3, 3)
    assert np.isfinite(values).sum() == 4
    np.testing.assert_array_equal(values[tuple(INDICES.T)], VALUES)


def test_vertices_lie_on_their_hemisphere(tmp_path):
    space = stored(Voxels({}, surface=Surface(VERTICES, (6, 3))), tmp_path / "1.h5")
    rows = np.array([3, 0, 2])  # another order, and without the second
    paths = write_maps(tmp_path, "sub-01", {"r2": VALUES[rows]}, space.select(rows))
    assert [path.name for path in paths] == [
        "sub-01_hemi-L_r2.func.gii",
        "sub-01_hemi-R_r2.func.gii",
    ]
    left_surface, right_surface = map(nibabel.load, paths)
    nan = np.nan
    np.testing.assert_array_equal(
        left_surface.agg_data(), [nan, nan, nan, nan, 1.5, nan]
    )
    np.testing.assert_array_equal(right_surface.agg_data(), [nan, nan, 4])
    assert left_surface.meta["AnatomicalStructurePrimary"] == "CortexLeft"


def test_sensors_and_voxels_without_positions_are_rows(tmp_path):
    sensors = Sensors(["A", "B"], np.array([[0.01, 0, 0.1], [np.nan] * 3]))
    (path,) = write_maps(
        tmp_path, "sub-01", {"r": VALUES[:2], "p": [np.nan, 1]}, sensors
    )
    assert path.read_text().splitlines() == [
        "name\tx\ty\tz\tr\tp",
        "A\t0.01\t0\t0.1\t1.5\tn/a",
        "B\tn/a\tn/a\tn/a\t-2\t1",
    ]
    (path,) = write_maps(tmp_path, "sub-02", {"r": VALUES}, Voxels({}))
    rows = list(csv.DictReader(path.open(), delimiter="\t"))
    assert [(row["voxel"], float(row["r"])) for row in rows] == list(
        zip("0123", VALUES, strict=True)
    )
