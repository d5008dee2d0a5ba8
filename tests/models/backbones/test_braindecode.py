"""Any braindecode model by its name, pretrained ones behind channels and a rate of
their own.

What is ours is tested everywhere, with a model that stands for braindecode's; the rest
where that imports.
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
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.data.signals.channel_mapping import (
    compute_spline_weights,
    fit_head_centre,
)
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones.braindecode import (
    TINY,
    Config,
    choose_channels,
)
from brainhive_cli.models.heads import TOKEN_HEAD, Head
from brainhive_cli.models.signal_spec import SignalSpec, build_resampling_matrix
from brainhive_cli.training.alignment.training.initialisation import make_aligner
from tests.worlds.alignment_cells import data_of, layout_of

THINGS = tuple("Pz P3 P7 O1 Oz O2 P4 P8 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2".split())
"""The 17 parietal and occipital channels of THINGS-EEG2 that most recipes choose."""
REPOSITORY = "owner/toy"


def spec_of(names: tuple[str, ...], samples: int = 250, **more) -> SignalSpec:
    return SignalSpec(names, samples, (1,), (len(names),), **{"rate_hz": 250.0, **more})


@pytest.fixture
def library():
    """Skip where braindecode does not import; tools/check_extras.sh runs these tests
    where it does.
    """
    try:
        TINY.build(5, 100, 8)
    except MissingExtra as error:
        pytest.skip(error.in_one_line)


@pytest.mark.usefixtures("library")
def test_a_model_makes_tokens_of_any_width_or_says_in_a_line_why_not():
    model = (
        Config(model="EEGNeX", rate_hz=250, options={"drop_prob": 0.123})
        .build(17, 250, 24)
        .eval()
    )
    signal = torch.randn(2, 17, 250)

    assert model(signal).shape == (2, 24)
    assert not torch.equal(model(signal), model(signal.flip(-1)))
    assert 0.123 in {
        module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)
    }
    for config, what in (
        (Config(model="EEGNext"), "no model 'EEGNext'"),
        (
            Config(model="EEGNeX", options={"depth": 3}),
            "EEGNeX does not take .*'depth'",
        ),
        (
            Config(model="CBraMod"),
            "CBraMod does not take signals of 5 channels and 250 samples: ",
        ),
    ):
        with pytest.raises(BrainhiveError, match=what) as caught:
            config.build(5, 250, 8)
        assert "\n" not in caught.value.message and caught.value.hint


class Toy(nn.Module):
    """What a model of braindecode is to us: features by patch and channel, and a last
    layer.
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
        }
        self.config |= {"drop_prob": drop_prob, "return_feature": False}
        self.patches = nn.Linear(20, width)
        self.temporal_embedding = nn.Parameter(torch.randn(1, n_times // 20 + 1, width))
        self.final_layer = nn.Linear(n_chans * n_times // 20 * width, n_outputs)
        self.names = None

    def get_config(self):
        return self.config

    def forward(self, signal, return_features=False, *, ch_names=None):
        self.names = ch_names
        features = (
            self.patches(signal.unflatten(-1, (-1, 20)))
            + self.temporal_embedding[:, 1:]
        )
        return (
            {"features": features}
            if return_features
            else self.final_layer(features.flatten(1))
        )


@pytest.fixture
def toy_library(monkeypatch):
    """A library braindecode whose one model is Toy."""
    models, util = (
        ModuleType("braindecode.models"),
        ModuleType("braindecode.models.util"),
    )
    models.Toy, util.models_dict = Toy, {"Toy": Toy}
    library = ModuleType("braindecode")
    library.models = models
    for module in (library, models, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def published(hub_cache, toy_library):
    """A repository with weights of a Toy that saw three patches, as braindecode writes
    it.
    """
    snapshot, model = hub_cache(REPOSITORY), Toy(9, 60, 5, 200)
    state = model.state_dict()
    # as an earlier version called it
    state["before.weight"] = state.pop("patches.weight")
    save_file(state, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(
        json.dumps({**model.config, "braindecode_version": "1.8.1"})
    )
    return snapshot


SIGNAL = {"rate_hz": 200, "patch_samples": 20, "scale": 0.01, "clip": 2}
TOY = Config(model="Toy", features=True, pretrained=f"hub:{REPOSITORY}", **SIGNAL)


def encoder_of(config, spec, dim=6):
    return backbones.build(config, spec, {TOKEN_HEAD: Head((dim,), "one")})


@pytest.mark.usefixtures("toy_library")
def test_signals_reach_the_model_at_its_rate_and_scale_in_whole_patches():
    samples = 55
    model = encoder_of(TOY, spec_of(THINGS, samples)).eval()
    signal = 100 * torch.randn(2, 17, samples, dtype=torch.float64) + 30

    expected = (
        resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line")[..., :40] / 100
    )
    prepared = model.prepare(signal)

    np.testing.assert_allclose(prepared, np.clip(expected, -2, 2), atol=1e-5)
    assert prepared.abs().max() == 2 and model(signal).shape == (2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.prepare(signal).dtype == torch.float32
    by_quantile = Config(model="Toy", features=True, patch_samples=20, scale="quantile")
    signal = torch.randn(2, 17, 60)
    scale = torch.tensor(np.quantile(signal.abs(), 0.95, -1, keepdims=True))
    torch.testing.assert_close(
        encoder_of(by_quantile, spec_of(THINGS, 60)).prepare(signal), signal / scale
    )


def test_channels_are_copied_by_name_and_interpolated_by_place_as_mne_does(golden):
    """Golden values: positions of sensors and electrodes, and mne's weights around the
    centre of the sensors alone. Here mne fits the centre to the electrodes, too.
    """
    pytest.importorskip("mne")
    spline = load_file(golden / "calibrate/spline.safetensors")
    sensors, electrodes = (
        [bytes(row.tolist()).rstrip(b" \0").decode() for row in spline[key]]
        for key in ("from_name", "to_name")
    )
    places, electrode_places = (
        (spline[key] + spline["origin"]).double().numpy()
        for key in ("from_position", "to_position")
    )
    spec = spec_of(
        tuple(name.upper() for name in sensors), positions=tuple(map(tuple, places))
    )
    renamed = replace(spec, names=tuple(f"E{number}" for number in range(len(sensors))))
    is_sensor = np.isin(electrodes, sensors)
    tolerances = {"atol": 1e-5, "rtol": 0}

    for signal, absent in (
        (spec, ~is_sensor),
        (renamed, np.full(len(electrodes), True)),
    ):
        names, matrix = choose_channels(signal, electrodes, takes_any=True)

        centre = fit_head_centre(np.concatenate([places, electrode_places[absent]]))
        weights = compute_spline_weights(places - centre, electrode_places - centre)
        assert names == electrodes
        np.testing.assert_allclose(matrix[absent], weights[absent], **tolerances)
        # channels of equal names are copied, whatever the centre
        by_name = spline["expected.matrix_name_match"]
        np.testing.assert_allclose(matrix[~absent], by_name[~absent], **tolerances)


def test_training_starts_from_the_weights_and_a_trained_model_needs_them_no_more(
    published, tmp_path
):
    data = data_of(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    backbone = TOY.model_dump(mode="json")
    plan = replace(layout_of(data), spec=spec_of(THINGS, 50), backbone=backbone)
    weights = load_file(published / "model.safetensors")

    begun = make_aligner(1, plan, data, "reference")
    begun.save(tmp_path / "model")
    (published / "model.safetensors").unlink()
    opened = aligner.load(tmp_path / "model")

    for model in (begun.backbone.model, opened.backbone.model):
        assert torch.equal(model.patches.weight, weights["before.weight"])
        assert torch.equal(
            model.temporal_embedding, weights["temporal_embedding"][:, :3]
        )
    assert not any("final_layer" in name for name in opened.state_dict())
    assert torch.equal(
        opened.backbone.resampling, build_resampling_matrix(50, 250, 200)
    )
    signal = torch.randn(2, 17, 50)
    assert torch.equal(
        opened.predict(signal)[TOKEN_HEAD], begun.eval().predict(signal)[TOKEN_HEAD]
    )
    assert opened.backbone.model.names == [*THINGS]


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_weights_that_are_not_the_model_s_are_refused(published):
    module = encoder_of(TOY, spec_of(THINGS, 50))
    for damage, what, hint in (
        (
            lambda: set_config(published, heads=8),
            "Toy with heads 8, not 2",
            "backbone.options.heads=8",
        ),
        (
            (published / "model.safetensors").unlink,
            r"has no \*.safetensors",
            "save_pretrained",
        ),
    ):
        set_config(published, heads=2)
        damage()
        with pytest.raises(BrainhiveError, match=what) as caught:
            module.load_pretrained()
        assert hint in caught.value.hint


SMALL = {"labram": {"num_layers": 2}, "cbramod": {"n_layer": 2}, "reve": {"depth": 2}}
SMALL["biot"] = {"num_layers": 2}
"""Rows, and options that make their models small."""


@pytest.fixture
def reve_positions(tmp_path, monkeypatch):
    """Places of electrodes for REVE, which fetches them when it is first made."""
    monkeypatch.setenv("REVE_POSITIONS_PATH", str(tmp_path))
    channels = parts.resolve("backbones", "reve").channels
    bank = {name: [0.01 * number, 0.2, 0.3] for number, name in enumerate(channels)}
    (tmp_path / "reve_positions.json").write_text(json.dumps(bank))


@pytest.mark.usefixtures("library", "reve_positions")
@pytest.mark.parametrize("kind", SMALL)
def test_pretrained_features_are_those_of_braindecode(kind, hub_cache):
    from braindecode import models

    shelf_config, snapshot = parts.resolve("backbones", kind), hub_cache(REPOSITORY)
    theirs_class = getattr(models, shelf_config.model)
    channels = [*shelf_config.channels] if kind == "biot" else [*THINGS]
    sizes = {"n_outputs": 4, "n_times": 200, "sfreq": 200, "n_chans": len(channels)}
    sizes["chs_info"] = [{"ch_name": name} for name in channels]
    torch.manual_seed(1)
    theirs_class(**sizes | {"n_times": 800}, **SMALL[kind]).save_pretrained(snapshot)
    again = theirs_class.from_pretrained(snapshot).eval()  # of windows of four seconds
    plan = {"kind": kind, "options": SMALL[kind], "pretrained": f"hub:{REPOSITORY}"}
    ours = encoder_of(parts.resolve("backbones", plan), spec_of(THINGS)).eval()
    before = ours(signal := 20 * torch.randn(2, 17, 250))
    ours.load_pretrained()

    given = torch.tensor(
        resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line"),
        dtype=torch.float32,
    )
    given = (
        given / 100
        if kind in ("labram", "cbramod")
        else given.clamp(-15, 15)
        if kind == "reve"
        else given
    )
    if kind == "biot":
        given = ours.channel_map @ given
        given = given / (given.abs().quantile(0.95, -1, keepdim=True) + 1e-8)
    if kind == "labram":  # whose vectors by patch are for four
        again.patch_embed[0].n_patchs, again.patch_embed[0].n_times = 1, 200
        again.temporal_embedding.data = again.temporal_embedding.data[:, :2]
    with torch.no_grad():
        names = {"ch_names": channels} if kind == "labram" else {}
        features = again(given, return_features=True, **names)["features"].flatten(1)
        torch.testing.assert_close(
            ours(signal), ours.project(features), atol=1e-4, rtol=1e-4
        )
    assert not torch.allclose(before, ours(signal), atol=1e-3)
