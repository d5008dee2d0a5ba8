"""Encoders that learn with a brain model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.models.encoders import resolve
from brainhive_cli.training.alignment import Aligner, model as aligners
from brainhive_cli.training.alignment.trained import open_targets, open_test_set
from brainhive_cli.training.alignment.trained.run import TrainedRun

ENCODER = "{kind: timm, source: random, architecture: test_vit}"
NAME = resolve({"kind": "timm", "source": "random", "architecture": "test_vit"}).name
WORLD = (
    "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 8}",
    f"encoders=[{ENCODER}]",
)
TRAINING = tuple(WORLD) + (
    "fuser=concatenation",
    "seeds=1",
    "signal.scale=0.2",
    "train.precision=fp32",
    "train.epochs=1",
    "train.batch_size=32",
    "train.selection=last",
)
LORA = (
    f"train.lora.encoders={NAME}",
    "train.lora.rank=2",
    "train.lora.alpha=2",
    "train.lr_of.adapter=2",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory, run_command):
    """Train a frozen model and one with LoRA. Also return their home."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("lora")
        patch.setenv("BRAINHIVE_HOME", str(home))
        run_command("embed", *WORLD)
        runs = {
            name: run_command("train-align", *TRAINING, *overrides)
            for name, overrides in (("frozen", ()), ("lora", LORA))
        }
    return {"home": home, **runs}


def test_a_model_with_an_adapter_keeps_its_start_and_learns(
    results,
):
    models = {
        name: sorted(results[name].folder.glob("cells/*/model"))
        for name in ("frozen", "lora")
    }
    first_layouts = [aligners.load(folders[0]).layout for folders in models.values()]
    starts = []
    for layout in first_layouts:
        torch.manual_seed(3)
        starts.append(Aligner(layout).state_dict())
    assert starts[0]
    assert all(torch.equal(value, starts[1][key]) for key, value in starts[0].items())
    for folder in models["lora"]:
        moved = [
            up_weights.abs().max() for up_weights in aligners.load(folder).adapter.up
        ]  # type: ignore[union-attr]
        assert moved
        assert min(moved) > 0


def test_each_cell_has_its_own_gallery_of_the_stores_pictures(results, monkeypatch):
    monkeypatch.setenv("BRAINHIVE_HOME", str(results["home"]))
    galleries = []
    for name in ("frozen", "lora"):
        trained_run = TrainedRun.read(RunFolder(results[name].folder))
        tests = open_test_set(trained_run, "test")
        for cell in trained_run.cells:
            model = trained_run.open(cell)
            targets = open_targets(tests, model, "test")
            galleries.append(model.encode_pictures(targets, np.arange(20)))
    frozen, same_gallery, first_gallery, second = galleries
    assert torch.equal(frozen, same_gallery)
    assert not torch.allclose(frozen, first_gallery, atol=1e-4)
    assert not torch.allclose(first_gallery, second, atol=1e-4)

    fewer = SimpleNamespace(image_ids=list(tests.open_pictures("test").image_ids)[1:])
    tests.dataset = replace(trained_run.dataset, images=lambda *_: fewer)
    with pytest.raises(BrainhiveError) as caught:
        open_targets(tests, model, "test")
    assert caught.value.hint == "brainhive embed --again"
