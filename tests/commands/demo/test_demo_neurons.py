"""demo --system neurons: from simulated voxels of films to clips, in few steps."""

from pathlib import Path

import pytest

from brainhive_cli.core.runs import RunFolder
from brainhive_cli.demo import voxels
from tests.worlds.command_fixtures import at_home

pytestmark = pytest.mark.nightly

SHOWN = (
    "embed",
    "brain model",
    "captions",
    "train-align",
    "eval-retrieval",
    "reconstruct",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("neurons")
    with at_home(home):
        yield home


@pytest.fixture(scope="module")
def shown(home: Path, go):
    return go("demo", "system=neurons", "quick=true")


def test_it_goes_from_voxels_to_clips_above_chance_beside_shuffled_pairs(
    shown, home
) -> None:
    page = (home / shown.files["page"]).read_text()
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert voxels.PROVENANCE in page
    assert title == "Brainhive demo, on simulated fMRI of films"
    assert [row[0] for row in shown.tables[0].rows] == list(SHOWN)
    assert len([*home.glob("runs/reconstruct/*/samples/**/*.png")]) >= 2 * 2

    scopes = shown.metrics.scopes
    found = scopes["eval-retrieval"]["top1"].these_subjects
    assert (
        found is not None
        and found[1] > 2 / 12
        and scopes["eval-retrieval"]["top1"].value > 1 / 12
    )
    assert {"motion_direction", "two_way_demo-clip"} <= scopes["reconstruct"].keys()

    (file,) = home.glob("runs/reconstruct/*/metrics.json")
    scopes = RunFolder(file.parent).measurements().scopes

    for source in ("brain", "shuffled"):
        scores = {
            "mask_dice",
            "concept_recall",
            "caption_object",
            "bleu_1",
            "bleu_4",
            "rouge_l",
        }
        assert scores <= scopes[source].keys()
    assert (
        scopes["images"]["concept_recall"].value == 1
        and scopes["images"]["mask_dice"].value == 1
    )
    # what moves, and where
    assert scopes["brain"]["concept_recall"].chance == pytest.approx(2 / 11)
    # names of things
    assert scopes["brain"]["caption_object"].chance == pytest.approx(1 / 18)
    assert (
        "Captions name the object in "
        f"{100 * scopes['brain']['caption_object'].value:.3g} %†"
    ) in page
    assert "frame_ssim" not in scopes["shuffled"]  # which no clip was generated of
