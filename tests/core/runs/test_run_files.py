"""Every file of a run is read: what is damaged, changed, missing or new is named."""

import pytest
import torch
from PIL import Image

from brainhive_cli.core.results.measurements import Measurements
from brainhive_cli.core.runs import Checkpoint, Launch, run_files, weights
from brainhive_cli.core.runs.driver import start_run
from tests.worlds.named_run import NamedRun

CONFIG, MODEL = "cells/a/model/config.json", "cells/a/model/model.safetensors"


@pytest.fixture
def run(home):
    run_folder = start_run(NamedRun("train-align"), Launch(0, 1, torch.device("cpu")))
    run_folder.write_text(CONFIG, '{"scale": 1.0}\n')
    weights.save(run_folder.path / MODEL, {"weight": torch.arange(64.0)})
    Checkpoint(run_folder.checkpoint_path("a")).save(
        {"step": 3, "weight": torch.arange(64.0)}
    )
    Image.effect_noise((16, 16), 50).save(run_folder.path / "seen.png")
    run_folder.finish(Measurements())
    return run_folder


def test_a_sound_run_has_no_problems(run):
    run.write_text("wandb/run/config.yaml", "- of: a tracker")
    counts = {"documents": 4, "weights": 1, "checkpoints": 1, "pictures": 1}
    assert run_files.check(run.path) == (counts, [])
    (run.path / "SHA256SUMS").unlink()  # as of an older version
    assert run_files.check(run.path) == (counts, [])


def test_a_file_that_is_damaged_cut_or_missing_is_named(run):
    for name in (
        "metrics.json",
        "recipe.yaml",
        CONFIG,
        MODEL,
        "checkpoints/a.pt",
        "seen.png",
    ):
        path = run.path / name
        sound = path.read_bytes()
        content = bytearray(sound)
        content[len(content) // 2] ^= 1
        for damaged in (content, sound[:-20]):
            path.write_bytes(damaged)
            problems = run_files.check(run.path)[1]
            assert len(problems) == 1
            assert name in problems[0]
        path.unlink()
        is_listed = path.suffix in (".json", ".yaml")
        assert [name in problem for problem in run_files.check(run.path)[1]] == [
            True
        ] * is_listed
        path.write_bytes(sound)
