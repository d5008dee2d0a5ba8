"""Brain models as torch modules: their linear steps and their limits."""

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.models import Head, SignalSpec
from brainhive_cli.training.alignment import Aligner, Layout
from brainhive_cli.training.alignment.trained.portable import (
    PortableModel,
    save_program,
)
from tests.worlds.model_layouts import make_token_layout

NAMES, SAMPLES, RATE_HZ = ("Pz", "Oz"), 10, 100.0
RECORDED = ("Oz", "Cz", "Pz")
TIMES_S = tuple((np.arange(SAMPLES) - 2) / RATE_HZ)


def sensors_model(
    learned=None,
    names=NAMES,
    **signal,
):
    """Make a model of two subjects with subject layers."""
    spec = SignalSpec(
        names,
        SAMPLES,
        (1, 4),
        (len(names),) * 2,
        rate_hz=RATE_HZ,
        times_s=TIMES_S,
        unit="µV",
        signal=signal,
    )
    torch.manual_seed(0)
    layout = make_token_layout(spec, 6, {"e": 8}, subject_layer="linear")
    model = Aligner(layout, learned).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def voxels_model(**signal):
    """Make a model of two subjects with 5 and 4 voxels, and a ridge for each."""
    spec = SignalSpec((), 1, (4, 7), (5, 4), signal=signal)
    backbone = {"kind": "mindeye2", "hidden": 8, "blocks": 1}
    torch.manual_seed(0)
    layout = Layout(spec, {"image": Head((3, 5), "e")}, backbone)
    return Aligner(layout).eval()


def whitened():
    """A record of two sessions of the first person, of more channels than the model
    takes.
    """
    random = np.random.default_rng(3)
    whiteners = random.normal(size=(2, 3, 3)).astype(np.float32)
    return TrainingHistory(whiteners={1: whiteners}, recorded_channels=RECORDED)


def normaliser(rows, columns):
    random = np.random.default_rng(rows + columns)
    return Normaliser(
        random.normal(size=(rows, 1)).astype(np.float32),
        random.normal(size=(rows, columns)).astype(np.float32),
    )


def linear_steps(module):
    """Return all numbers of a portable model, and its tokens of fixed signals."""
    signal = torch.randn(
        (4,) + tuple(module.example.shape[1:]),
        generator=torch.Generator().manual_seed(2),
    )
    return {
        "channels": module.channels,
        "times": module.times,
        "offset": module.offset,
        "names": [len(name) for name in module.names],
        "rate_hz": module.rate_hz,
        "window_ms": module.window_ms,
        "is_whitening": module.is_whitening,
        "tokens": module(signal),
        "size": sum(weight.numel() for weight in module.parameters()),
    }


CASES = {
    "as trained": (sensors_model, 1),
    "second person": (sensors_model, 4),
    "new person": (sensors_model, 5),
    "scaled": (lambda: sensors_model(scale=0.5), 1),
    "other rate and window": (
        sensors_model,
        1,
        normaliser(2, 2),
        ("Fz", "Oz", "Pz"),
        250.0,
        (-60.0, 140.0),
    ),
    "window at its own rate": (sensors_model, 1, None, None, None, (-40.0, 88.0)),
    "each channel normalised": (sensors_model, 1, normaliser(2, 1)),
    "all channels normalised": (sensors_model, 1, normaliser(2, 2)),
    "whitened": (lambda: sensors_model(whitened()), 1, normaliser(2, 1)),
    "whitened in another order": (
        lambda: sensors_model(whitened()),
        1,
        None,
        ("Pz", "Oz", "Cz"),
    ),
    "whitened for others": (lambda: sensors_model(whitened()), 4),
    "voxels": (voxels_model, 4),
    "voxels of the second": (lambda: voxels_model(scale=0.2), 7, normaliser(4, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_linear_steps_are_those_of_our_own_way(case, recorded):
    make, *arguments = CASES[case]
    torch.manual_seed(1)
    module = PortableModel(make(), *arguments)

    with torch.inference_mode():
        expected = module.encode(module.model_input)
        torch.testing.assert_close(
            module(module.example), expected, rtol=1e-4, atol=1e-4
        )
        assert len(module.example) == 32
        recorded(4, **linear_steps(module))


def test_a_portable_model_learns_and_drops_nothing():
    model = sensors_model().train().requires_grad_(True)
    module = PortableModel(model, 1)
    assert not any(partial_module.training for partial_module in module.modules())
    assert not any(weight.requires_grad for weight in module.parameters())


def test_parts_of_other_people_and_of_targets_are_removed():
    names = set(PortableModel(voxels_model(), 7).state_dict())
    assert any("linears.7." in name for name in names)
    assert not any("linears.4." in name for name in names)
    model = sensors_model()
    assert model.fuser is not None
    assert PortableModel(model, 1).aligner.fuser is None


def test_signals_of_any_dtype_are_encoded():
    module = PortableModel(sensors_model(), 1)
    signal = torch.randn(3, 2, SAMPLES)
    torch.testing.assert_close(module(signal.double()), module(signal))


def test_voxels_have_neither_channels_nor_times():
    for arguments in ((("Oz",),), (None, 100.0), (None, None, (0.0, 100.0))):
        with pytest.raises(RecipeError):
            PortableModel(voxels_model(), 4, None, *arguments)


def test_trials_that_are_normalised_alone_are_refused():
    with pytest.raises(BrainhiveError):
        PortableModel(sensors_model(normalise_trials=True), 1)


def test_absent_channels_are_mapped_or_refused():
    pytest.importorskip("mne")
    channels = ("Cz", "O1", "P3", "P4")
    with pytest.raises(BrainhiveError):
        PortableModel(sensors_model(), 1, None, channels)
    module = PortableModel(sensors_model(), 1, None, channels, mapping="spline")
    assert module.channels.shape == (2, 4)
    torch.testing.assert_close(
        module(module.example), module.encode(module.model_input), rtol=1e-4, atol=1e-4
    )


class Program:
    """Program whose tokens differ from the model's by a number."""

    def __init__(self, module, measure_error):
        self.tokens = module.encode(module.model_input).clone()
        self.tokens[3, 1] += measure_error

    def module(self):
        return lambda signal: self.tokens


@pytest.mark.parametrize(
    ("share", "added", "is_equal"),
    [(0.9, 0, True), (1, 9e-6, True), (1, 1.2e-5, False), (-1.1, 0, False)],
)
def test_a_file_has_the_tokens_of_its_model(
    tmp_path,
    monkeypatch,
    share,
    added,
    is_equal,
):
    module = PortableModel(sensors_model(), 1)
    with torch.no_grad():
        tokens = module.encode(module.model_input)
        scale = 1 / tokens.abs().max()
        module.encode = lambda signal: tokens * scale  # type: ignore[method-assign]
        # tokens of 1 at most
        program = Program(module, share * 1e-4 + added)

    def export(*arguments, dynamic_shapes):
        # a file takes one signal or many
        ((axis, size),) = dynamic_shapes[0].items()
        assert (axis, size.min) == (0, 1)
        return program

    monkeypatch.setattr(torch.export, "export", export)
    monkeypatch.setattr(torch.export, "load", lambda file: program)
    monkeypatch.setattr(
        torch.export, "save", lambda program, file: file.write(b"program")
    )
    file = tmp_path / "model.pt2"
    if is_equal:
        shape, difference = save_program(module, file)
        assert shape == [6]
        assert difference == pytest.approx(abs(share * 1e-4 + added), abs=1e-6)
        assert file.read_bytes() == b"program"
    else:
        with pytest.raises(BrainhiveError):
            save_program(module, file)


def test_tokens_that_are_no_numbers_are_refused(tmp_path, monkeypatch):
    module = PortableModel(sensors_model(), 1)
    program = Program(module, float("nan"))
    monkeypatch.setattr(torch.export, "export", lambda *arguments, **k: program)
    monkeypatch.setattr(torch.export, "load", lambda file: program)
    monkeypatch.setattr(torch.export, "save", lambda program, file: None)
    with pytest.raises(BrainhiveError):
        save_program(module, tmp_path / "model.pt2")


def test_a_backbone_that_cannot_be_exported_is_named(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(torch.export, "export", fail)
    module = PortableModel(sensors_model(), 1)
    raised = ValueError("no such operator")
    with pytest.raises(BrainhiveError):
        save_program(module, tmp_path / "model.pt2")
    # what is wrong with the machine is no fault of the backbone
    raised = MemoryError()
    with pytest.raises(MemoryError):
        save_program(module, tmp_path / "model.pt2")
