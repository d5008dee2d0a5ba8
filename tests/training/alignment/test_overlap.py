"""Nothing is tested on what it was trained on: stores of another split are refused, and seen pictures are."""

import gc
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner
from worlds import paint

from brainhive_cli.app import app
from brainhive_cli.core.errors import BrainhiveError

ENCODER = "brainhive_cli-models-encoders-python-example"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
CONCEPTS, EACH = 16, 3
TEST = 4 * EACH
"""Pictures of a quarter of the concepts."""
SMALL = (
    *("seeds=1", "dim=16", "fuser.intermediate_size=16", "signal.scale=0.2", "train.epochs=2"),
    *("train.precision=fp32", "train.batch_size=24"),
)


@pytest.fixture
def photos(home: Path) -> Path:
    return paint(home / "our photos", CONCEPTS, EACH)


def simulated(root: Path, test_share: float) -> str:
    images = f"{{kind: image-folder, root: {root}, test_share: {test_share}}}"
    return f"dataset={{kind: simulated, images: {images}, meaning: {ENCODER}, subjects: 1, noise: 0.1}}"


def refused(go, *asked: str) -> tuple[str, str, int]:
    """What an error says, what to do and its exit code; then its frames hold no run any more."""
    with pytest.raises(BrainhiveError) as caught:
        go(*asked)
    told = caught.value.message, caught.value.hint, caught.value.exit_code
    del caught
    gc.collect()
    return told


def test_concepts_that_were_trained_on_are_never_reported_as_tested(go, home, photos):
    everything, split = simulated(photos, 0), simulated(photos, 0.25)
    go("embed", everything, COLOURS)
    run = go("train-align", everything, COLOURS, *SMALL).folder
    asked = (split, "subjects=1", "sheet_rows=0")

    assert "no test embeddings" in refused(go, "eval-retrieval", f"run={run}", *asked)[0]
    go("embed", split, COLOURS)
    (signals,) = home.glob("signals/*/default/sub-01.h5")
    what, hint, _ = refused(go, "eval-retrieval", f"run={run}", *asked)
    assert "was made when our photos/test had other pictures" in what and shlex.quote(str(signals)) in hint
    signals.unlink()

    seen = f"was trained on {TEST} of the {TEST} test pictures of our photos that it is tested on"
    what, _, exit_code = refused(go, "eval-retrieval", f"run={run}", *asked)
    assert what.startswith(str(run)) and seen in what and exit_code == 1
    assert seen in refused(go, "eval-retrieval", f"run={run / 'cells/sub-01_seed-1/model'}", *asked)[0]
    assert not list(home.glob("runs/eval-retrieval/*/metrics.json"))


def test_pictures_that_were_trained_on_under_another_name_are_refused_too(go, home, photos):
    everything, split = simulated(photos, 0), simulated(photos, 0.25)
    renamed = split.replace("{kind: image-folder,", "{kind: image-folder, name: others,")
    for dataset in (everything, renamed):
        go("embed", dataset, COLOURS)
    asked = (renamed, "subjects=1", "sheet_rows=0")

    run = go("train-align", everything, COLOURS, *SMALL).folder
    seen = f"was trained on {TEST} of the {TEST} test pictures of others that it is tested on, by name"
    assert seen in refused(go, "eval-retrieval", f"run={run}", *asked)[0]

    run = go("train-align", renamed, COLOURS, *SMALL).folder
    assert go("eval-retrieval", f"run={run}", *asked).metrics.facts.seen_in_training.count == 0


def test_a_run_on_the_rest_is_evaluated_but_not_on_the_concepts_held_out_for_validation(go, home, photos):
    split = simulated(photos, 0.25)
    go("embed", split, COLOURS)
    run = f"run={go('train-align', split, COLOURS, *SMALL).folder}"

    assert go("eval-retrieval", run, "gallery=train+test", "sheet_rows=0").metrics.overall["top1"].n == TEST

    assert "trained on 36 of the 36 train pictures" in refused(go, "eval-retrieval", run, "gallery=train")[0]


def test_stores_of_another_split_are_refused_with_the_line_that_makes_them_again(go, home, photos):
    everything, split = simulated(photos, 0), simulated(photos, 0.25)
    go("embed", everything, COLOURS)
    go("train-align", everything, COLOURS, *SMALL)
    go("embed", split, COLOURS, "splits=test")  # train is still that of all pictures
    (signals,) = home.glob("signals/*/default/sub-01.h5")

    what, hint, _ = refused(go, "train-align", split, COLOURS, *SMALL)
    assert f"0 added, {TEST} removed" in what
    line = shlex.split(hint)
    assert line[:2] == ["brainhive", "embed"] and line[-1] == "--again"
    assert CliRunner().invoke(app, line[1:]).exit_code == 0

    what, hint, _ = refused(go, "train-align", split, COLOURS, *SMALL)
    assert "was made when our photos/train had other pictures" in what
    assert shlex.split(hint.partition(";")[0]) == ["rm", str(signals.resolve())]
    signals.unlink()
    assert go("train-align", split, COLOURS, *SMALL).metrics.facts.cells


def test_pictures_of_another_folder_of_the_same_name_are_refused(go, home, photos):
    other = paint(home / "elsewhere" / "our photos", CONCEPTS, EACH + 1)
    go("embed", simulated(photos, 0.25), COLOURS)

    what, _, _ = refused(go, "train-align", simulated(other, 0.25), COLOURS, *SMALL)

    assert "does not match the pictures that our photos/train has now" in what


def test_an_interrupted_run_does_not_go_on_with_other_pictures(go, home, photos):
    split = simulated(photos, 0.25)
    go("embed", split, COLOURS)
    run = go("train-align", split, COLOURS, *SMALL).folder
    kept = json.loads((run / "embeddings.json").read_text())
    kept[ENCODER]["pictures"] = "0" * 16
    (run / "embeddings.json").write_text(json.dumps(kept))
    for name in ("metrics.json", "SHA256SUMS"):
        (run / name).unlink()

    assert "was made with other pictures than" in refused(go, "train-align", split, COLOURS, *SMALL)[0]
