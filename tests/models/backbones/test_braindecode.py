"""Any braindecode model by its name, and what is said when there is none."""

import sys

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, MissingExtra, RecipeError
from brainhive_cli.models.backbones.braindecode import TINY, Config


@pytest.fixture
def library():
    """Skip where braindecode does not import; tools/check_extras.sh runs these tests where it does."""
    try:
        TINY.build(5, 100, 8)
    except MissingExtra as error:
        pytest.skip(error.in_one_line)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["EEGNeX", "ShallowFBCSPNet", "EEGConformer", "ATCNet", "BDTCN"])
def test_a_model_makes_tokens_of_any_width(name):
    model = Config(model=name, rate_hz=250).build(17, 250, 24).eval()

    signal = torch.randn(2, 17, 250)

    assert model(signal).shape == (2, 24)
    assert not torch.equal(model(signal), model(signal.flip(-1)))


@pytest.mark.usefixtures("library")
def test_options_reach_the_model():
    model = Config(model="EEGNeX", options={"drop_prob": 0.123}).build(5, 100, 8)

    assert 0.123 in {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}


@pytest.mark.usefixtures("library")
def test_an_unknown_model_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="no model 'EEGNext'") as caught:
        Config(model="EEGNext").build(5, 100, 8)
    assert "EEGNet" in caught.value.hint


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("config", "samples", "what"),
    [
        (Config(model="EEGNeX", options={"depth": 3}), 100, "EEGNeX does not take .*'depth'"),
        (Config(model="CBraMod"), 250, "CBraMod does not take signals of 5 channels and 250 samples: "),
        (
            Config(model="EEGPT", rate_hz=250, options={"return_encoder_output": True}),
            250,
            r"gives \[2, .*not tokens \[2, 8\]",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_one_clear_line(config, samples, what):
    with pytest.raises(BrainhiveError, match=what) as caught:
        config.build(5, samples, 8)
    assert "\n" not in caught.value.message and caught.value.hint


def test_without_braindecode_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode", None)

    with pytest.raises(MissingExtra, match="braindecode is not installed") as caught:
        Config(model="EEGNeX").build(5, 100, 8)
    assert caught.value.hint == "pip install 'brainhive[braindecode]'"


def test_a_torchaudio_that_does_not_import_is_named_with_its_repair(tmp_path, monkeypatch):
    (tmp_path / "torchaudio.py").write_text("raise RuntimeError('built for another CUDA')")
    (tmp_path / "braindecode.py").write_text("import torchaudio")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("torchaudio", "braindecode"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    with pytest.raises(
        MissingExtra, match=r"^torchaudio .* does not import .*built for another CUDA"
    ) as caught:
        TINY.build(5, 100, 8)
    assert "torchaudio" in caught.value.hint
