"""What the shell completes: the names of encoders, data sets, recipes and runs."""

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app


def completed(line, shell="bash"):
    typed_words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(typed_words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }
    environment = {"_BRAINHIVE_COMPLETE": f"complete_{shell}", **asked[shell]}
    return (
        CliRunner(env=environment)
        .invoke(app, prog_name="brainhive")
        .stdout.splitlines()
    )


@pytest.fixture
def runs(home):
    for name in (
        "train-align/demo-intra",
        "train-align/other",
        "reconstruct/demo-intra-1",
    ):
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / "metrics.json").touch()
    (home / "runs/train-align/demo-unfinished").mkdir()
    return home


def test_names_are_completed_in_every_shell(runs):
    for line, names in (
        (
            "brainhive embed --encoders vae,clip-h",
            ["vae,clip-h14", "vae,clip-h14-text"],
        ),
        ("brainhive embed --dataset things-e", ["things-eeg"]),
        ("brainhive recipes papers/alignvis-m", ["papers/alignvis-meg"]),
        ("brainhive train-align --backbone brain-m", ["brain-mlp"]),
        ("brainhive eval-retrieval --run other,demo", ["other,demo-intra"]),
        ("brainhive runs rm demo", ["demo-intra", "demo-intra-1"]),
        # keys with their values, and flags of few values
        ("brainhive train-align train.epoch", ["train.epoch_trials=", "train.epochs="]),
        (
            "brainhive train-align backbone.kind=brain-m",
            ["backbone.kind=brain-mlp"],
        ),
        ("brainhive train-align mode=int", ["mode=inter", "mode=intra"]),
        ("brainhive train-align --mode int", ["inter", "intra"]),
        ("brainhive demo --system n", ["neurons"]),
        ("brainhive calibrate --order ", ["draws", "recording"]),
        ("brainhive live RUN source.kind=l", ["source.kind=lsl"]),
    ):
        assert sorted(completed(line)) == names
    for shell in ("zsh", "fish"):
        assert "demo-intra" in "".join(
            completed("brainhive eval-retrieval --run demo", shell)
        )
