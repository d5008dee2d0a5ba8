"""Digits drawn from a recorded brain, pictures held out in folds; skipped without the
recording.
"""

import pytest
import torch

from brainhive_cli.commands import embed, prepare, reconstruct, train_align
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.runs import Launch, weights
from brainhive_cli.data.exchange import digits69
from brainhive_cli.models.picture_autoencoder import (
    WEIGHTS_FILE,
    learn_pictures,
    read_pictures,
)
from tests.worlds.command_fixtures import use_home

pytestmark = pytest.mark.nightly

COMMANDS = {
    "prepare": prepare,
    "embed": embed,
    "train-align": train_align,
    "reconstruct": reconstruct,
}
FOLDS = "dataset.holdout.folds=2"
AUTOENCODER = "{kind: autoencoder, source: data/digits69/further}"


@pytest.fixture(scope="module")
def home(tmp_path_factory, shared):
    path = shared / "data/real/digits69" / digits69.FILE
    if not path.is_file():
        pytest.skip("no recording of digits")
    with use_home(tmp_path_factory.mktemp("digits69")) as home:
        root = home / "data/digits69"
        root.mkdir(parents=True)
        (root / digits69.FILE).symlink_to(path)
        digits69.write_folders(root)
        yield home


def test_digits_are_drawn_by_a_decoder_that_did_not_learn_them(
    home,
):
    def run_step(command, *overrides):
        recipe = COMMANDS[command].Recipe.resolve(command, "digits69", {}, overrides)
        return COMMANDS[command].run(recipe, Launch(0, 1, torch.device("cpu")))

    # fewer epochs than the recipe's, so that the test takes seconds
    further_folder = home / "data/digits69/further"
    autoencoder = learn_pictures(read_pictures(further_folder), epochs=8)
    weights.save(further_folder / WEIGHTS_FILE, autoencoder.state_dict())
    run_step("prepare", "preparation.stimuli.holdout.folds=2")
    run_step("embed", FOLDS)
    align = run_step(
        "train-align", FOLDS, f"heads={{latent: {AUTOENCODER}}}"
    ).folder.name
    drawing = [f"align_run={align}", "generator.source=data/digits69/further"]
    reconstruction = run_step(
        "reconstruct",
        *drawing,
        "sources=[brain, shuffled, nearest, mean]",
        "metrics=[pixcorr]",
        "sheet_rows=0",
    )

    scopes = reconstruction.metrics.scopes
    two_way = {
        name: scopes[name]["two_way_pixels"]
        for name in ("brain", "shuffled", "nearest")
    }
    # of both folds together
    assert (two_way["brain"].n, two_way["brain"].pool) == (100, 100)
    assert two_way["brain"].value > 0.85 > 0.65 > two_way["shuffled"].value
    # 1 if a fold's own test pictures were among them
    assert scopes["nearest"]["pixcorr"].value < 0.9
    files = list((reconstruction.folder / "samples").glob("sub-01_fold-*/**/00.png"))
    by_fold = [
        {path.parent.name for path in files if f"fold-0{fold}" in str(path)}
        for fold in (1, 2)
    ]
    assert [len(names) for names in by_fold] == [50, 50]
    assert not by_fold[0] & by_fold[1]
    assert (
        len(
            {
                (reconstruction.folder / f"baselines/mean{n}.png").read_bytes()
                for n in ("", "-02")
            }
        )
        == 2
    )

    with pytest.raises(RecipeError) as caught:
        run_step("reconstruct", *drawing, "sources=[mean_embedding]")
    assert "mean_embedding" in str(caught.value)
    assert "fold" in str(caught.value)
