"""The training of the demo's dual-guided generator: resumable, and of the weights that its file holds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.demo import joined_generators
from brainhive_cli.models.generators.versatile_diffusion import make_dual
from tools.demo_world import dual, plain_unet


class Killed(Exception):
    """Raised in the middle of the training."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dual.Data:
    """A few random examples, for a training of three steps that writes nothing but below `tmp_path`."""
    for name, value in {"STEPS": 3, "BATCH": 2, "SAVE_EVERY": 1}.items():
        monkeypatch.setattr(dual, name, value)
    monkeypatch.setattr(dual, "CHECKPOINT", tmp_path / "checkpoint.pt")
    monkeypatch.setattr(dual, "DUAL_UNET", tmp_path / "unet.safetensors")
    random = torch.Generator().manual_seed(0)
    shapes = ((4, 16, 16), (3, joined_generators.IMAGE_TOKENS, 128), (5, joined_generators.TEXT_TOKENS, 128))
    return dual.Data(*(torch.randn(4, *shape, generator=random) for shape in shapes))


def test_killed_and_called_again_it_ends_as_one_that_was_not(data, tmp_path, monkeypatch) -> None:
    dual.train(data)
    whole = load_file(dual.DUAL_UNET)
    dual.CHECKPOINT.unlink()
    loss_of, calls = dual.loss_of, []

    def killed(*given):
        calls.append(given)
        if len(calls) == 3:
            raise Killed
        return loss_of(*given)

    monkeypatch.setattr(dual, "loss_of", killed)
    with pytest.raises(Killed):
        dual.train(data)
    monkeypatch.setattr(dual, "loss_of", loss_of)
    dual.train(data)

    resumed = load_file(dual.DUAL_UNET)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_it_trains_what_the_shipped_file_holds_and_changes_it(data) -> None:
    before = {name: each.clone() for name, each in dual.trained_of(make_dual(plain_unet.load()))}

    dual.train(data)

    after = load_file(dual.DUAL_UNET)
    assert before.keys() == after.keys() == load_file(joined_generators.DUAL_UNET).keys()
    changed = [name for name, each in after.items() if not torch.equal(each, before[name].half())]
    assert any(".text." in name for name in changed) and any(".image." in name for name in changed)
