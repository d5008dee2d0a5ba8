"""Tests of demo --system neurons, from simulated voxels of films to clips."""

import pytest

from brainhive_cli.commands.demo import SYSTEMS
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.demo import voxels
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly

STEPS = (
    "embed",
    "brain model",
    "captions",
    "train-align",
    "eval-retrieval",
    "reconstruct",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("neurons")
    with use_home(home):
        yield home


@pytest.fixture(scope="module")
def result(home, run_command):
    return run_command("demo", "system=neurons", "quick=true")


def test_clips_are_decoded_above_chance_unlike_shuffled_pairs(result, home):
    page = (home / result.files["page"]).read_text()
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert voxels.PROVENANCE in page
    assert SYSTEMS["neurons"].signals in title
    assert [row[0] for row in result.tables[0].rows] == list(STEPS)
    assert len(list(home.glob("runs/reconstruct/*/samples/**/*.png"))) >= 2 * 2

    scopes = result.metrics.scopes
    top1 = scopes["eval-retrieval"]["top1"]
    assert top1.these_subjects is not None
    assert top1.these_subjects[1] > 2 / 12
    assert top1.value > 1 / 12
    assert {"motion_direction", "two_way_demo-clip"} <= scopes["reconstruct"].keys()

    (file,) = home.glob("runs/reconstruct/*/metrics.json")
    scopes = RunFolder(file.parent).measurements().scopes

    metrics = {
        "mask_dice",
        "concept_recall",
        "caption_object",
        "bleu_1",
        "bleu_4",
        "rouge_l",
    }
    assert metrics <= scopes["brain"].keys()
    assert metrics <= scopes["shuffled"].keys()
    assert scopes["images"]["concept_recall"].value == 1
    assert scopes["images"]["mask_dice"].value == 1
    # 2 of 11 concepts describe a clip: the moving object and the background
    assert scopes["brain"]["concept_recall"].chance == pytest.approx(2 / 11)
    # a caption has one of 18 names of objects
    assert scopes["brain"]["caption_object"].chance == pytest.approx(1 / 18)
    assert f"{100 * scopes['brain']['caption_object'].value:.3g} %" in page.replace(
        "\xa0", " "
    )
    # no clip is generated from shuffled trials
    assert "frame_ssim" not in scopes["shuffled"]
