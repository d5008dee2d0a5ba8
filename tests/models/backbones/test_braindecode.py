"""Models of braindecode, also pretrained with their own channels and rate.

Most tests replace braindecode's models by `Toy`. The others need braindecode.
"""

import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import resample_poly
from torch import nn

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results.measurements import UNKNOWN_PICTURES
from brainhive_cli.data.signals.channel_mapping import (
    compute_spline_weights,
    fit_head_centre,
)
from brainhive_cli.models import (
    TOKEN_HEAD,
    Head,
    SignalSpec,
    backbones,
    build_resampling_matrix,
)
from brainhive_cli.models.backbones.braindecode import (
    TINY,
    Config,
    choose_channels,
)
from brainhive_cli.training.alignment.training.initialisation import make_aligner
from tests.worlds.alignment_cells import make_cell_data, make_layout

THINGS = tuple("Pz P3 P7 O1 Oz O2 P4 P8 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2".split())
"""Parietal and occipital channels of THINGS-EEG2 that most recipes select."""
REPOSITORY = "owner/toy"


def spec_of(names, samples=250, **values):
    """Describe signals of a subject at 250 Hz."""
    return SignalSpec(names, samples, (1,), (len(names),), rate_hz=250.0, **values)


@pytest.fixture
def library():
    """Skip the test without braindecode. tools/check_extras.sh installs it."""
    try:
        TINY.build(5, 100, 8)
    except MissingExtra as error:
        pytest.skip(error.in_one_line)


@pytest.mark.usefixtures("library")
def test_a_model_makes_tokens_of_the_given_width():
    config = Config(model="EEGNeX", rate_hz=250, options={"drop_prob": 0.123})
    model = config.build(17, 250, 24).eval()
    signal = torch.randn(2, 17, 250)

    token = model(signal)

    assert token.shape == (2, 24)
    assert not torch.equal(token, model(signal.flip(-1)))
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert 0.123 in dropouts


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("config", "facts"),
    [
        (Config(model="EEGNext"), "EEGNext"),
        (Config(model="EEGNeX", options={"depth": 3}), "EEGNeX.*'depth'"),
        (Config(model="CBraMod"), "CBraMod.*5 channels and 250 samples"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused_in_a_line(config, facts):
    with pytest.raises(BrainhiveError, match=facts) as caught:
        config.build(5, 250, 8)
    assert "\n" not in caught.value.message
    assert caught.value.hint


class Toy(nn.Module):
    """Model with the interface of braindecode's.

    It has features by patch and channel, and a last layer.
    """

    mapping: ClassVar = {"before.weight": "patches.weight"}

    def __init__(
        self,
        n_chans,
        n_times,
        n_outputs,
        sfreq=None,
        chs_info=None,
        width=4,
        heads=2,
        drop_prob=0.0,
    ):
        super().__init__()
        self.config = {
            "n_times": n_times,
            "sfreq": sfreq,
            "width": width,
            "heads": heads,
            "drop_prob": drop_prob,
            "return_feature": False,
        }
        self.patches = nn.Linear(20, width)
        self.temporal_embedding = nn.Parameter(torch.randn(1, n_times // 20 + 1, width))
        self.final_layer = nn.Linear(n_chans * n_times // 20 * width, n_outputs)
        self.names = None

    def get_config(self):
        return self.config

    def forward(self, signal, return_features=False, *, ch_names=None):
        self.names = ch_names
        patches = self.patches(signal.unflatten(-1, (-1, 20)))
        features = patches + self.temporal_embedding[:, 1:]
        if return_features:
            return {"features": features}
        return self.final_layer(features.flatten(1))


@pytest.fixture
def toy_library(monkeypatch):
    """Library braindecode with Toy as its only model."""
    models = ModuleType("braindecode.models")
    models.Toy = Toy
    util = ModuleType("braindecode.models.util")
    util.models_dict = {"Toy": Toy}
    library = ModuleType("braindecode")
    library.models = models
    for module in (library, models, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def published(hub_cache, toy_library):
    """Repository with the weights of a Toy that was trained on three patches."""
    snapshot = hub_cache(REPOSITORY)
    model = Toy(9, 60, 5, 200)
    state = model.state_dict()
    # the name in an earlier version
    state["before.weight"] = state.pop("patches.weight")
    save_file(state, snapshot / "model.safetensors")
    config = model.config | {"braindecode_version": "1.8.1"}
    (snapshot / "config.json").write_text(json.dumps(config))
    return snapshot


TOY = Config(
    model="Toy",
    features=True,
    pretrained=f"hub:{REPOSITORY}",
    rate_hz=200,
    patch_samples=20,
    scale=0.01,
    clip=2,
)


def build_encoder(config, spec, dim=6):
    """Make a backbone with tokens [B, D]."""
    return backbones.build(config, spec, {TOKEN_HEAD: Head((dim,), "one")})


@pytest.mark.usefixtures("toy_library")
def test_signals_reach_the_model_at_its_rate_scale_and_length():
    n_samples = 55
    model = build_encoder(TOY, spec_of(THINGS, n_samples)).eval()
    signal = 100 * torch.randn(2, 17, n_samples, dtype=torch.float64) + 30

    prepared = model.prepare(signal)
    token = model(signal)
    with torch.autocast("cpu", torch.bfloat16):
        dtype = model.prepare(signal).dtype

    # two patches of 20 samples
    resampled = resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line")[..., :40]
    expected = np.clip(resampled / 100, -2, 2)
    np.testing.assert_allclose(prepared, expected, atol=1e-5)
    assert prepared.abs().max() == 2
    assert token.shape == (2, 6)
    assert dtype == torch.float32


@pytest.mark.usefixtures("toy_library")
def test_channels_can_be_scaled_by_a_quantile():
    config = Config(model="Toy", features=True, patch_samples=20, scale="quantile")
    model = build_encoder(config, spec_of(THINGS, 60))
    signal = torch.randn(2, 17, 60)

    prepared = model.prepare(signal)

    scale = torch.tensor(np.quantile(signal.abs(), 0.95, -1, keepdims=True))
    torch.testing.assert_close(prepared, signal / scale)


def test_channels_are_copied_by_name_or_interpolated_as_by_mne(golden):
    """Golden values: positions of sensors and electrodes, and MNE's weights around the
    centre of the sensors. Here MNE fits the centre to the electrodes, too.
    """
    pytest.importorskip("mne")
    spline = load_file(golden / "calibrate/spline.safetensors")
    sensors, electrodes = (
        [bytes(row.tolist()).rstrip(b" \0").decode() for row in spline[key]]
        for key in ("from_name", "to_name")
    )
    origin = spline["origin"]
    sensor_positions = (spline["from_position"] + origin).double().numpy()
    electrode_positions = (spline["to_position"] + origin).double().numpy()
    spec = spec_of(
        tuple(name.upper() for name in sensors),
        positions=tuple(map(tuple, sensor_positions)),
    )
    other_names = replace(spec, names=tuple(f"E{n}" for n in range(len(sensors))))
    has_no_sensor = ~np.isin(electrodes, sensors)
    is_electrode = np.full(len(electrodes), True)
    copied = spline["expected.matrix_name_match"]
    tolerances = {"atol": 1e-5, "rtol": 0}

    for signal, is_absent in ((spec, has_no_sensor), (other_names, is_electrode)):
        names, matrix = choose_channels(signal, electrodes, takes_any=True)

        positions = np.concatenate([sensor_positions, electrode_positions[is_absent]])
        centre = fit_head_centre(positions)
        weights = compute_spline_weights(
            sensor_positions - centre, electrode_positions - centre
        )
        assert names == electrodes
        np.testing.assert_allclose(matrix[is_absent], weights[is_absent], **tolerances)
        np.testing.assert_allclose(matrix[~is_absent], copied[~is_absent], **tolerances)


def test_a_training_starts_from_published_weights(published, tmp_path):
    data = make_cell_data(
        np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    )
    backbone = TOY.model_dump(mode="json")
    layout = replace(make_layout(data), spec=spec_of(THINGS, 50), backbone=backbone)
    weights = load_file(published / "model.safetensors")

    started = make_aligner(1, layout, data, "reference").eval()
    started.save(tmp_path / "model")
    # a trained model does not need them
    (published / "model.safetensors").unlink()
    loaded = aligner.load(tmp_path / "model")

    for model in (started.backbone.model, loaded.backbone.model):
        assert torch.equal(model.patches.weight, weights["before.weight"])
        expected = weights["temporal_embedding"][:, :3]
        assert torch.equal(model.temporal_embedding, expected)
    assert not any("final_layer" in name for name in loaded.state_dict())
    resampling = build_resampling_matrix(50, 250, 200)
    assert torch.equal(loaded.backbone.resampling, resampling)
    signal = torch.randn(2, 17, 50)
    token = loaded.predict(signal)[TOKEN_HEAD]
    assert torch.equal(token, started.predict(signal)[TOKEN_HEAD])
    assert loaded.backbone.model.names == list(THINGS)


@pytest.mark.usefixtures("world", "published")
def test_results_say_that_the_data_of_weights_are_unknown(
    run_command, align_overrides, runs
):
    def align(*overrides):
        # the weights take three patches of 100 ms
        window = "signal.window_ms=[0,300]"
        return run_command("train-align", *align_overrides, runs, window, *overrides)

    def evaluate(trained):
        result = run_command(
            "eval-retrieval",
            runs,
            f"run={trained.folder}",
            "sheet_rows=0",
            "baseline=none",
            "ceiling_splits=0",
        )
        return result.metrics.caveats

    toy = {"kind": "braindecode", **TOY.model_dump(mode="json")}
    trained = align("subjects=1", f"backbone={json.dumps(toy)}")
    finetuned = run_command(
        "train-align",
        *align_overrides,
        runs,
        "mode=finetune",
        f"finetune.run={trained.folder}",
        "subjects=2",
    )
    scratch = align("subjects=1", f"backbone={json.dumps(toy | {'pretrained': None})}")

    assert UNKNOWN_PICTURES in trained.metrics.caveats
    assert UNKNOWN_PICTURES in evaluate(trained)
    assert UNKNOWN_PICTURES in evaluate(finetuned)
    assert UNKNOWN_PICTURES not in evaluate(scratch)


def test_weights_of_other_settings_are_refused(published):
    model = build_encoder(TOY, spec_of(THINGS, 50))
    file = published / "config.json"
    config = json.loads(file.read_text()) | {"heads": 8}
    file.write_text(json.dumps(config))

    with pytest.raises(BrainhiveError, match=r"heads 8.*2") as caught:
        model.load_pretrained()
    assert "backbone.options.heads=8" in caught.value.hint


def test_a_repository_without_weights_is_refused(published):
    model = build_encoder(TOY, spec_of(THINGS, 50))
    (published / "model.safetensors").unlink()

    with pytest.raises(BrainhiveError, match=REPOSITORY) as caught:
        model.load_pretrained()
    assert "save_pretrained" in caught.value.hint


SMALL = {
    "labram": {"num_layers": 2},
    "cbramod": {"n_layer": 2},
    "reve": {"depth": 2},
    "biot": {"num_layers": 2},
}
"""Options that make a model small, by kind."""


@pytest.fixture
def reve_positions(tmp_path, monkeypatch):
    """Positions of electrodes, which REVE would download."""
    monkeypatch.setenv("REVE_POSITIONS_PATH", str(tmp_path))
    channels = parts.resolve("backbones", "reve").channels
    bank = {name: [0.01 * number, 0.2, 0.3] for number, name in enumerate(channels)}
    (tmp_path / "reve_positions.json").write_text(json.dumps(bank))


@pytest.mark.usefixtures("library", "reve_positions")
@pytest.mark.parametrize("kind", SMALL)
def test_pretrained_features_are_those_of_braindecode(kind, hub_cache):
    from braindecode import models

    config = parts.resolve("backbones", kind)
    snapshot = hub_cache(REPOSITORY)
    model_class = getattr(models, config.model)
    channels = list(config.channels if kind == "biot" else THINGS)
    sizes = {
        "n_outputs": 4,
        "n_times": 800,
        "sfreq": 200,
        "n_chans": len(channels),
        "chs_info": [{"ch_name": name} for name in channels],
    }
    torch.manual_seed(1)
    model_class(**sizes, **SMALL[kind]).save_pretrained(snapshot)
    reference = model_class.from_pretrained(snapshot).eval()  # windows of four seconds
    settings = {"kind": kind, "options": SMALL[kind], "pretrained": f"hub:{REPOSITORY}"}
    encoder = build_encoder(parts.resolve("backbones", settings), spec_of(THINGS))
    encoder.eval()
    signal = 20 * torch.randn(2, 17, 250)
    random_token = encoder(signal)
    encoder.load_pretrained()
    token = encoder(signal)

    resampled = resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line")
    inputs = torch.tensor(resampled, dtype=torch.float32)
    arguments = {}
    if kind in ("labram", "cbramod"):
        inputs = inputs / 100
    elif kind == "reve":
        inputs = inputs.clamp(-15, 15)
    else:
        inputs = encoder.channel_map @ inputs
        inputs = inputs / (inputs.abs().quantile(0.95, -1, keepdim=True) + 1e-8)
    if kind == "labram":
        # its vectors by patch are for four seconds
        arguments["ch_names"] = channels
        reference.patch_embed[0].n_patchs = 1
        reference.patch_embed[0].n_times = 200
        embedding = reference.temporal_embedding
        embedding.data = embedding.data[:, :2]
    with torch.no_grad():
        outputs = reference(inputs, return_features=True, **arguments)
        expected = encoder.project(outputs["features"].flatten(1))
    torch.testing.assert_close(token, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(random_token, token, atol=1e-3)
