"""Any braindecode model by its name, pretrained ones behind channels and a rate of their own.

What is ours is tested everywhere, with a model that stands for braindecode's; the rest where that imports.
"""

import json
import pickle
import sys
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from cell_data import data_of, layout_of
from safetensors.torch import load_file, save_file
from scipy.signal import resample_poly
from torch import nn

from brainhive_cli import aligner
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, RecipeError
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones.braindecode import TINY, Config, choose_channels, resampling_matrix
from brainhive_cli.models.heads import TOKEN, Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.initialisation import initial_aligner, list_start_inputs

THINGS = tuple("Pz P3 P7 O1 Oz O2 P4 P8 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2".split())
"""The 17 parietal and occipital channels of THINGS-EEG2 that most recipes choose."""
REPOSITORY = "owner/toy"


def spec_of(names: tuple[str, ...], samples: int = 250, **more) -> SignalSpec:
    return SignalSpec(names, samples, (1,), (len(names),), **{"rate_hz": 250.0, **more})


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


class Toy(nn.Module):
    """What a model of braindecode is to us: features by patch and channel, and a last layer."""

    mapping: ClassVar = {"before.weight": "patches.weight"}

    def __init__(
        self, n_chans, n_times, n_outputs, sfreq=None, chs_info=None, width=4, heads=2, drop_prob=0.0
    ):
        super().__init__()
        self.config = {
            "n_times": n_times,
            "sfreq": sfreq,
            "width": width,
            "heads": heads,
            "drop_prob": drop_prob,
        }
        self.config["return_feature"] = False
        self.patches = nn.Linear(20, width)
        self.temporal_embedding = nn.Parameter(torch.randn(1, n_times // 20 + 1, width))
        self.final_layer = nn.Linear(n_chans * n_times // 20 * width, n_outputs)
        self.names = None

    def get_config(self):
        return self.config

    def forward(self, signal, return_features=False, *, ch_names=None):
        self.names = ch_names
        features = self.patches(signal.unflatten(-1, (-1, 20))) + self.temporal_embedding[:, 1:]
        return {"features": features} if return_features else self.final_layer(features.flatten(1))


@pytest.fixture
def toy_library(monkeypatch):
    """A library braindecode whose one model is Toy."""
    models, util = ModuleType("braindecode.models"), ModuleType("braindecode.models.util")
    models.Toy, util.models_dict = Toy, {"Toy": Toy}
    library = ModuleType("braindecode")
    library.models = models
    for module in (library, models, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def published(hub_cache, toy_library):
    """A repository with weights of a Toy that saw three patches, as braindecode writes it."""
    snapshot, model = hub_cache(REPOSITORY), Toy(9, 60, 5, 200)
    state = model.state_dict()
    state["before.weight"] = state.pop("patches.weight")  # as an earlier version called it
    save_file(state, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({**model.config, "braindecode_version": "1.8.1"}))
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


def encoder_of(config, spec, dim=6):
    return backbones.build(config, spec, {TOKEN: Head((dim,), "one")})


@pytest.mark.usefixtures("toy_library")
@pytest.mark.parametrize("samples", [50, 55, 70])
def test_signals_reach_the_model_at_its_rate_and_scale_in_whole_patches(samples):
    model = encoder_of(TOY, spec_of(THINGS, samples)).eval()
    signal = 100 * torch.randn(2, 17, samples, dtype=torch.float64) + 30

    expected = resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line")[..., :40] / 100
    prepared = model.prepare(signal)

    np.testing.assert_allclose(prepared, np.clip(expected, -2, 2), atol=1e-5)
    assert prepared.abs().max() == 2 and model(signal).shape == (2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.prepare(signal).dtype == torch.float32


@pytest.mark.usefixtures("toy_library")
def test_a_quantile_of_each_channel_may_be_the_scale():
    model = encoder_of(
        Config(model="Toy", features=True, patch_samples=20, scale="quantile"), spec_of(THINGS, 60)
    )
    signal = torch.randn(2, 17, 60)

    assert torch.equal(model.prepare(signal), model.prepare(signal * 4).mul(1))
    torch.testing.assert_close(
        model.prepare(signal), signal / torch.tensor(np.quantile(signal.abs(), 0.95, -1, keepdims=True))
    )


def test_resampling_keeps_offsets_and_drops_what_the_new_rate_cannot_hold():
    matrix, times_s = resampling_matrix(250, 250, 200), torch.arange(250) / 250
    waves = torch.stack([torch.ones(250), 5 * times_s, *(torch.sin(6.2832 * f * times_s) for f in (20, 115))])

    offset, drift, kept, aliased = waves @ matrix.mT

    assert matrix.shape == (200, 250)
    torch.testing.assert_close(offset, torch.ones(200), atol=1e-3, rtol=0)  # the filter's ripple
    torch.testing.assert_close(drift, torch.arange(200) / 40, atol=5e-3, rtol=0)
    torch.testing.assert_close(
        kept[20:-20], torch.sin(6.2832 * 20 * torch.arange(200) / 200)[20:-20], atol=0.01, rtol=0
    )
    assert aliased[20:-20].abs().max() < 0.05


def test_channels_are_copied_by_name_and_interpolated_by_place_as_mne_does(golden):
    """Within 0.01: mne fits the centre of the head to these electrodes, the golden value's to more.

    Without the regularisation, or in a montage's own coordinates, weights differ by 1.4 and 0.1.
    """
    pytest.importorskip("mne")
    spline = load_file(golden / "calibrate/spline.safetensors")
    sensors, electrodes = (
        [bytes(row.tolist()).rstrip(b" \0").decode() for row in spline[key]]
        for key in ("from_name", "to_name")
    )
    places = tuple(map(tuple, (spline["from_position"] + spline["origin"]).tolist()))
    spec = spec_of(tuple(name.upper() for name in sensors), positions=places)

    names, matrix = choose_channels(spec, electrodes, takes_any=True)
    renamed = replace(spec, names=tuple(f"E{number}" for number in range(len(sensors))))

    assert names == electrodes
    torch.testing.assert_close(matrix, spline["expected.matrix_name_match"], atol=0.01, rtol=0)
    by_place = choose_channels(renamed, electrodes, takes_any=True)[1]
    torch.testing.assert_close(by_place, spline["expected.matrix"], atol=0.01, rtol=0)


def test_a_model_of_any_channels_gets_the_signal_s_own_by_the_names_it_knows():
    assert choose_channels(spec_of(("PZ", "oz")), ["Oz", "Pz", "Cz"], takes_any=True) == (["Pz", "Oz"], None)
    assert choose_channels(spec_of(("any", "name")), [], takes_any=False) == (["any", "name"], None)


def test_a_model_of_fixed_channels_gets_them_in_its_own_order():
    names, matrix = choose_channels(spec_of(("PZ", "oz")), ["Oz", "Pz"], takes_any=False)

    assert names == ["Oz", "Pz"] and matrix.tolist() == [[0, 1], [1, 0]]


def test_the_channel_with_the_exact_name_is_meant_and_equal_ones_are_refused():
    _, matrix = choose_channels(spec_of(("Oz", "oz", "PZ")), ["Oz", "Pz"], takes_any=True)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(BrainhiveError, match="the signal has 2 names that may be 'Oz': OZ, oz"):
        choose_channels(spec_of(("OZ", "oz")), ["Oz"], takes_any=True)


def test_a_difference_is_of_two_channels_unless_the_signal_has_it():
    names, matrix = choose_channels(spec_of(("P7", "O1", "f7-t7")), ["P7-O1", "F7-T7"], takes_any=False)

    assert names == ["P7-O1", "F7-T7"]
    assert matrix.tolist() == [[1, -1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("names", "places"),
    [(("Pz", "E7"), None), (("Pz", "MLC11"), ((0, -0.08, 0.08), (-0.05, 0.02, 0.08)))],
)
def test_sensors_without_a_place_on_the_scalp_are_named_in_one_line(names, places):
    pytest.importorskip("mne")
    with pytest.raises(BrainhiveError, match=rf"Cz … are no channels .* is known of {names[1]}") as caught:
        choose_channels(spec_of(names, positions=places), ["Pz", "Cz"], takes_any=True)
    assert "\n" not in caught.value.message and "signal.channels" in caught.value.hint


@pytest.mark.usefixtures("toy_library")
@pytest.mark.parametrize(
    ("change", "spec", "what"),
    [
        ({}, spec_of(THINGS, 24), "window has 20 samples, .* need 40"),
        ({}, SignalSpec((), 1, (1,), (40,)), "Toy reads sensors at a known rate, not voxels"),
        ({"options": {"depth": 3}}, spec_of(THINGS), "Toy does not take signals of 17 channels .*'depth'"),
    ],
)
def test_signals_that_a_pretrained_model_cannot_read_are_one_clear_line(change, spec, what):
    with pytest.raises(BrainhiveError, match=what):
        encoder_of(TOY.model_copy(update={"patch_samples": 40, **change}), spec)


def layout(config, **more):
    data = data_of(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    plain = layout_of(data)
    return replace(plain, spec=spec_of(THINGS, 50), backbone=config.model_dump(mode="json"), **more), data


def test_training_starts_from_the_weights_and_a_trained_model_needs_them_no_more(published, tmp_path):
    plan, data = layout(TOY)
    weights = load_file(published / "model.safetensors")

    begun = initial_aligner(1, plan, data, "reference")
    begun.save(tmp_path / "model")
    (published / "model.safetensors").unlink()
    opened = aligner.load(tmp_path / "model")

    for model in (begun.backbone.model, opened.backbone.model):
        assert torch.equal(model.patches.weight, weights["before.weight"])
        assert torch.equal(model.temporal_embedding, weights["temporal_embedding"][:, :3])
    assert not any("final_layer" in name for name in opened.state_dict())
    assert torch.equal(opened.backbone.resampling, resampling_matrix(50, 250, 200))
    signal = torch.randn(2, 17, 50)
    assert torch.equal(opened.predict(signal)[TOKEN], begun.eval().predict(signal)[TOKEN])
    assert opened.backbone.model.names == [*THINGS]


def test_the_inputs_say_where_weights_come_from(hub_cache, tmp_path):
    (one,) = list_start_inputs([], None, None, TOY, {})

    assert one.name == "owner/toy" and one.is_missing
    assert "hf download owner/toy --include config.json --include '*.safetensors'" in one.error.hint


def test_no_more_than_weights_and_settings_is_fetched(published, monkeypatch):
    asked = []

    def download(*_, **options):
        asked.append(options)
        return [] if options.get("dry_run") else str(published)  # the list of what it would fetch

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)

    encoder_of(
        TOY.model_copy(update={"pretrained": "hub:owner/toy@v2"}), spec_of(THINGS, 50)
    ).load_pretrained()

    for options in asked:  # the sizes, then the files
        assert options["allow_patterns"] == ["config.json", "*.safetensors"] and options["revision"] == "v2"


class Code:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def cut(folder, name):
    state = load_file(folder / "model.safetensors")
    state.pop(name)
    save_file(state, folder / "model.safetensors")


def rename_all(folder):
    state = load_file(folder / "model.safetensors")
    save_file({f"encoder.{name}": value for name, value in state.items()}, folder / "model.safetensors")


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def pickle_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"patches.weight": Code()}))


@pytest.mark.parametrize(
    ("damage", "what", "hint"),
    [
        (
            lambda folder: cut(folder, "patches.bias"),
            "[1-9] of [1-9] weights match by name and size; first missing patches.bias",
            "",
        ),
        (rename_all, "0 of [1-9] weights match by name and size; first missing ", ""),
        (lambda folder: set_config(folder, heads=8), "Toy with heads 8, not 2", "backbone.options.heads=8"),
        (lambda folder: set_config(folder, sfreq=256), "Toy with sfreq 256, not 200", "backbone.rate_hz=256"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*.safetensors", "save_pretrained"),
        (pickle_code, "damaged or half-downloaded", ""),
    ],
)
def test_weights_that_are_not_the_model_s_are_refused_and_no_code_of_theirs_runs(
    damage, what, hint, published, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    damage(published)
    module = encoder_of(TOY, spec_of(THINGS, 50))

    with pytest.raises(BrainhiveError, match=what) as caught:
        module.load_pretrained()
    assert hint in caught.value.hint and not (tmp_path / "ran").exists()


def test_settings_that_no_weight_follows_from_may_differ(published):
    set_config(published, drop_prob=0.5, n_times=800, return_feature=True, activation="os.system", more=3)

    encoder_of(TOY, spec_of(THINGS, 50)).load_pretrained()


def test_a_folder_of_weights_is_read_and_an_absent_one_told(published, tmp_path):
    module = encoder_of(TOY.model_copy(update={"pretrained": str(published)}), spec_of(THINGS, 50))
    module.load_pretrained()

    absent = TOY.model_copy(update={"pretrained": str(tmp_path / "absent")})
    with pytest.raises(MissingData, match="no folder"):
        encoder_of(absent, spec_of(THINGS, 50)).load_pretrained()


SMALL = {
    "labram": {"num_layers": 2},
    "cbramod": {"n_layer": 2},
    "reve": {"depth": 2},
    "biot": {"num_layers": 2},
}
"""Rows, and options that make their models small."""


@pytest.mark.parametrize("kind", SMALL)
def test_the_rows_are_pretrained_models_of_whole_patches_of_a_second(kind):
    config = parts.resolve("backbones", kind)

    assert config.kind == kind and config.features and config.pretrained.startswith("hub:")
    assert config.patch_samples == config.rate_hz == 200
    assert parts.resolve("backbones", config.model_dump(mode="json")) == config


@pytest.mark.parametrize(("kind", "channels"), [("labram", 17), ("reve", 17), ("biot", 18), ("cbramod", 17)])
def test_the_channels_of_rows_have_places(kind, channels):
    pytest.importorskip("mne")
    config = parts.resolve("backbones", kind)

    names, matrix = choose_channels(spec_of(THINGS), config.channels, config.any_channels)

    assert len(names) == channels and (matrix is not None) == (kind == "biot")
    if config.channels:  # two of the 17 are not known by name
        unknown = spec_of(("Pz", "P3", "PO9h", "O1", "Oz", "T3", "P4", "P8"))
        matrix = choose_channels(unknown, config.channels, config.any_channels)[1]
        assert matrix.shape == (len(config.channels), 8) and matrix.isfinite().all()


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
    sizes = {
        "n_outputs": 4,
        "n_times": 200,
        "sfreq": 200,
        "n_chans": len(channels),
        "chs_info": [{"ch_name": name} for name in channels],
    }
    torch.manual_seed(1)
    theirs_class(**sizes | {"n_times": 800}, **SMALL[kind]).save_pretrained(snapshot)
    again = theirs_class.from_pretrained(snapshot).eval()  # of windows of four seconds
    plan = {"kind": kind, "options": SMALL[kind], "pretrained": f"hub:{REPOSITORY}"}
    ours = encoder_of(parts.resolve("backbones", plan), spec_of(THINGS)).eval()
    before = ours(signal := 20 * torch.randn(2, 17, 250))
    ours.load_pretrained()

    given = torch.tensor(resample_poly(signal.numpy(), 4, 5, axis=-1, padtype="line"), dtype=torch.float32)
    given = (
        given / 100 if kind in ("labram", "cbramod") else given.clamp(-15, 15) if kind == "reve" else given
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
        torch.testing.assert_close(ours(signal), ours.project(features), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, ours(signal), atol=1e-3)


@pytest.mark.usefixtures("library", "reve_positions")
@pytest.mark.parametrize("kind", SMALL)
def test_every_learned_weight_of_a_pretrained_model_gets_a_gradient(kind):
    plan = {"kind": kind, "options": SMALL[kind], "pretrained": None}
    model = encoder_of(parts.resolve("backbones", plan), spec_of(THINGS))

    model(torch.randn(4, 17, 250)).square().mul(torch.randn(6)).sum().backward()

    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
