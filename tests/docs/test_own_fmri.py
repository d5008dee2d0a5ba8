"""From BOLD in BIDS to retrieval and explanation by region, on the demo's world as
BIDS.
"""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.results.measurements import SIMULATED
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.stores.signal_store import SignalStore

pytest.importorskip("nibabel")
pytest.importorskip("sklearn")
from tools.simulated_bids import write_bids

pytestmark = pytest.mark.nightly


REGIONS = {
    name: f"derivatives/fmriprep/sub-{{subject:02d}}/masks/{name}.nii.gz"
    for name in ("V1", "FFA", "early", "higher")
}
PREPARED = ["subjects=1"] + [
    f"preparation.regions.{name}={path}" for name, path in REGIONS.items()
]


def invoke(*arguments):
    ended = CliRunner().invoke(
        app, list(arguments) + ["--json"], catch_exceptions=False
    )
    assert ended.exit_code == 0, f"brainhive {' '.join(arguments)}\n{ended.stderr}"
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with two subjects' BIDS and pictures where the workflow looks for them,
    prepared.
    """
    home = tmp_path_factory.mktemp("lab")
    write_bids(home / "data/bids", train=120, test=20)
    (home / "data/image-folder").symlink_to(home / "data/bids/stimuli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINHIVE_HOME", str(home))
        invoke("prepare", "--recipe", "own-fmri", *PREPARED)
    return home


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))


def test_stores_hold_betas_regions_and_positions_of_voxels(
    home,
):
    """Issue 60, row 12: simulated fMRI in BIDS had no stamp, as EEG has."""
    store = SignalStore.open(home / "signals/image-folder/default/sub-01.h5")
    space = store["train"].space
    assert isinstance(space, Voxels)
    assert set(REGIONS) <= set(space.regions)
    assert space.grid is not None
    assert {"tsnr", "r2", "ncsnr", "hrf_index", "fraction"} <= set(space.maps)
    assert store["train"].counts.tolist() == [2] * 120
    assert store["test"].counts.tolist() == [4] * 20
    assert [
        session["session"] for session in store["train"].provenance["sessions"]
    ] == [1]
    # as its description says
    assert store["train"].caveats == store["test"].caveats == [SIMULATED]


def test_the_workflow_retrieves_pictures_far_above_chance(
    home,
):
    invoke(
        "workflow",
        "--recipe",
        "own-fmri",
        f"steps.prepare.overrides={json.dumps(PREPARED)}",
        "steps.embed.overrides=[encoders=demo-clip]",
        "steps.train-align.overrides=[encoders=demo-clip, subjects=1, seeds=2025]",
    )
    (document,) = (home / "runs/eval-retrieval").glob("*/metrics.json")
    top1 = json.loads(document.read_text())["scopes"]["all"]["top1"]
    assert top1["n"] == 20
    assert top1["value"] > 4 * top1["chance"]

    # the file for others says which voxels it takes, and brings the candidates
    input_facts = invoke("export", f"to={home / 'out'}")["details"]["input"]
    space = SignalStore.open(home / "signals/image-folder/default/sub-01.h5")["test"]
    assert input_facts["voxels"]["voxel indices"] == space.space.grid.indices.tolist()  # type: ignore[union-attr]
    assert "voxels in the mask of region V1" in input_facts["voxels"]
    gallery = torch.load(home / "out/gallery.pt")
    assert gallery["pictures"] == list(space.pictures)
    assert len(gallery["vectors"]) == 20
    explained = invoke("explain", "draws=20", "analyses=trained,encoding")
    assert "early" in json.dumps(explained)
    assert "higher" in json.dumps(explained)

    # maps lie on the grid of the BOLD, of which pictures drive all voxels
    store = SignalStore.open(home / "signals/image-folder/default/sub-01.h5")
    indices = store["test"].space.grid.indices  # type: ignore[union-attr]
    mask = nibabel.load(next(home.rglob("sub-01*desc-brain_mask.nii.gz")))
    for name in ("margin", "encoding", "encoding_lower_ceiling"):
        path = Path(explained["files"]["maps"]) / f"sub-01_{name}.nii.gz"
        image = nibabel.load(path)
        assert image.shape == mask.shape
        np.testing.assert_array_equal(image.affine, mask.affine)
        volume = image.get_fdata()
        values = volume[tuple(indices.T)]
        assert np.isfinite(volume).sum() == np.isfinite(values).sum() == len(indices)
        assert values.mean() > values.std() / len(values) ** 0.5
