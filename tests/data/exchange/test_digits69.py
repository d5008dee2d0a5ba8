"""The data set digits69: its download, and its conversion into folders."""

import hashlib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.downloads import sources
from brainhive_cli.data.exchange import digits69

SIDE = 6
"""Height and width of the synthetic pictures in pixels."""


def write_file(folder):
    """Write a MATLAB file of 4 pictures, 3 further digits and 8 voxels of 24."""
    random = np.random.default_rng(0)
    grid = (2, 3, 4)
    brain = np.zeros(grid, np.uint8)
    brain[0, :2] = 1
    names = ["primary.nii"]
    for hemisphere in ("lh", "rh"):
        for area in ("V1d", "V1v", "V2d", "V2v", "V3d", "V3v"):
            names.append(f"{hemisphere}.{area}.nii")
    masks = [brain] + [np.zeros(grid, np.uint8) for _ in names[1:]]
    for number, mask in enumerate(masks[1:5], 1):
        # a voxel in the brain, and a voxel outside
        mask[0, 0, number - 1] = mask[1, 2, 3] = 1
    content = {
        "X": random.integers(0, 256, (4, SIDE**2), np.uint8),
        "X_prior": random.integers(0, 256, (3, SIDE**2), np.uint8),
        "Y": random.normal(size=(4, 8)),
        "stimulus_label": np.array([[1], [1], [2], [2]], np.uint8),
        "region_of_interest_label": np.array(names, object)[None],
        "region_of_interest_mask": np.empty((1, len(masks)), object),
    }
    for column, mask in enumerate(masks):
        content["region_of_interest_mask"][0, column] = mask
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / digits69.FILE, content)
    return folder / digits69.FILE


def test_a_matlab_file_is_converted_into_folders(
    tmp_path,
):
    content = loadmat(write_file(tmp_path))
    assert digits69.write_folders(tmp_path) == "4 pictures, 8 voxels, 3 further digits"

    lines = (tmp_path / "betas/sub-01_ses-01_trials.csv").read_text().split()
    assert lines[0] == "picture"
    assert lines[3] == "train/nine/nine_002.png"
    pixels = np.asarray(Image.open(tmp_path / "images" / lines[3]))
    assert pixels.shape == (SIDE, SIDE, 3)
    assert np.array_equal(
        pixels[..., 0], content["X"][2].reshape(SIDE, SIDE, order="F")
    )
    assert len(list((tmp_path / "further/train/digit").glob("*.png"))) == 3

    images = [
        nibabel.load(tmp_path / f"betas/sub-01_{name}.nii.gz")
        for name in ("ses-01_betas", "mask", "V1")
    ]
    betas, mask, area = (np.asarray(image.dataobj) for image in images)
    assert all(np.array_equal(i.affine, np.diag([2, 2, 2, 1])) for i in images)
    assert betas.shape == (2, 3, 4, 4)
    assert mask.sum() == 8
    flat = betas.reshape(-1, 4, order="F")
    inside = mask.ravel(order="F") > 0
    assert np.allclose(flat[inside].T, content["Y"])
    assert not flat[~inside].any()
    loaded = nibabel.load(tmp_path / "betas/sub-01_mask.nii.gz")
    assert loaded.affine.tolist() == np.diag([2.0, 2.0, 2.0, 1.0]).tolist()
    # lh.V1d and lh.V1v; nothing outside of the brain
    assert area.sum() == 2
    assert not area[mask == 0].any()


@pytest.fixture
def fetch(tmp_path, home, monkeypatch):
    """Serve the synthetic file, and run fetch with arguments."""
    path = write_file(tmp_path / "served")
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        content = path.read_bytes()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        (web_file,) = sources.SOURCES["digits69"].web_files
        file = replace(
            web_file,
            size=len(content),
            url=url,
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        )
        source = replace(sources.SOURCES["digits69"], web_files=(file,))
        monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "digits69": source})
        monkeypatch.setattr("brainhive_cli.commands.fetch.SOURCES", sources.SOURCES)
        yield lambda *arguments: CliRunner().invoke(
            app, ["fetch", "digits69"] + list(arguments)
        )
        server.shutdown()


def test_it_is_fetched_once_and_has_no_licence(fetch, home):
    planned = fetch("--check")
    assert planned.exit_code == 0
    assert "none stated" in " ".join(planned.stdout.split())
    assert not (home / "data").exists()

    fetched = fetch()
    assert fetched.exit_code == 0, fetched.stderr
    assert "4 pictures, 8 voxels" in fetched.stderr
    assert "workflow --recipe digits69" in fetched.stderr
    table = home / "data/digits69/betas/sub-01_ses-01_trials.csv"
    stamp = table.stat().st_mtime_ns
    second_result = fetch()
    assert second_result.exit_code == 0
    assert "nothing to download" in " ".join(second_result.stderr.split())
    assert table.stat().st_mtime_ns == stamp


def test_a_download_with_wrong_content_is_refused_and_removed(fetch, home, tmp_path):
    (tmp_path / "served" / digits69.FILE).write_bytes(b"MATLAB 5.0, cut short")
    refused = fetch()
    assert refused.exit_code == MissingData.exit_code
    assert "21" in refused.stderr.split()
    assert "curl" in refused.stderr
    assert not (home / "data/digits69" / digits69.FILE).exists()
