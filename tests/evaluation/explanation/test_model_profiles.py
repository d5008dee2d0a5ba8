"""Brain encoders of each sort are explained, by their heads, on EEG, MEG and fMRI."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core import parts
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.job import Reader
from brainhive_cli.evaluation.explanation.model_profiles import explain_model, window_masks
from brainhive_cli.evaluation.explanation.profiles import Labels
from brainhive_cli.evaluation.explanation.recipe import Recipe, Window
from brainhive_cli.measurement.units import Items
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import TrainedModel

ITEMS = 6
TOKEN = {"token": Head((16,))}
HEADS = {
    "havir": {"latent": Head((4, 8, 8)), "image": Head((3, 5)), "text": Head((2, 5))},
    "mindeye2": {"image": Head((4, 16)), "text": Head((6,))},
    "neurons": {"image": Head((4, 16)), "concepts": Head((5,))},
    "with-prior": {"image": Head((3, 16)), "latent": Head((4, 2, 2))},
    "ridge": {"token": Head((16,))},
}
"""Heads of parts that are built for some by name; the others give one vector."""
REGIONS = {"spatial": tuple(range(20)), "semantic": tuple(range(20, 40)), "V1": (0, 1, 2)}
SPEC = Recipe(
    analyses=["windows", "occlusion", "sensors", "bands", "regions"],
    window=Window(width_ms=200, step_ms=200),
    draws=20,
)


def reader(kind, channels, samples, head=None):
    """Let a model with random weights read random signals of six pictures, with random targets."""
    random, heads = np.random.default_rng(0), HEADS.get(kind, TOKEN)
    torch.manual_seed(0)
    is_voxels, times, rate = samples == 1, np.arange(samples) / 250, None if samples == 1 else 250.0
    names = () if is_voxels else tuple(f"S{number}" for number in range(channels))
    regions = {name: (rows,) for name, rows in REGIONS.items()} if is_voxels else {}
    spec = SignalSpec(names, samples, (1,), (channels,), rate, tuple(times), regions)
    backbone = parts.load("backbones", kind).TINY.model_dump(mode="json")
    model = Aligner(Layout(spec, heads, backbone, retrieval_heads=(head or next(iter(heads)),))).eval()
    masks = {name: np.isin(np.arange(channels), rows) for name, rows in REGIONS.items()}
    space = Voxels(masks) if is_voxels else Sensors(names)
    signal = random.normal(size=(ITEMS, 2, channels, samples)).astype(np.float32)
    ids = [f"picture {number}" for number in range(ITEMS)]
    folder, recipe = SimpleNamespace(path=Path("model")), SimpleNamespace(encoders=[])
    run = SimpleNamespace(
        folder=folder, is_model=True, recipes={"": recipe}, source=lambda *_: None, tests_new_subjects=False
    )
    places = np.arange(ITEMS)
    trials = Trials(signal, ids, space, times, rate, "µV", subject=1, stimulus=places).select()
    shared = Items.independent([ids])
    labels = Labels.of(places, shared, 20, 0)
    member = TrainedModel(run, Cell("", (1,), (1,), 0))
    vars(member)["module"] = model
    made = Reader(member, "test", trials, places, labels, shared)
    rest = np.full(signal.shape[2:], 0.1, np.float32)
    made.__dict__.update(  # what a run with files would be asked for
        signal=torch.from_numpy(signal.mean(1)),
        baseline=torch.from_numpy(rest),
        learned=trials,
        gallery=torch.randn(ITEMS, sum(heads[name].width for name in model.layout.compared)),
    )
    return made


def explained(kind, *size, head=None):
    try:
        made = reader(kind, *size, head)
    except MissingExtra as error:
        pytest.skip(error.in_one_line)
    found = explain_model(made, SPEC)
    assert all(np.isfinite(profile.values).all() for profile in found.profiles.values())
    return found


EEG, MEG = (6, 120), (9, 101)


@pytest.mark.parametrize(
    ("kind", "size"), [("linear", EEG), ("atm", EEG), ("ridge", EEG), ("labram", EEG), ("nice", MEG)]
)
def test_an_encoder_of_sensors_is_explained(kind, size):
    found = explained(kind, *size)

    expected = {"windows:top1", "windows:top5", "windows:two_way", "occlusion", "sensors", "bands"}
    assert expected <= found.profiles.keys()
    assert set(found.missing) <= {"regions"}


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("havir", "latent"),
        ("mindeye2", "text"),
        ("neurons", "concepts"),
        ("with-prior", "image"),
        ("linear", "token"),
    ],
)
def test_an_encoder_of_voxels_is_explained_by_a_head(kind, head):
    found = explained(kind, 40, 1, head=head)

    assert found.profiles["regions"].axis.at == ["spatial", "semantic", "V1"]
    assert {"windows", "occlusion", "sensors", "bands"} <= found.missing.keys()


def test_what_one_window_carries_is_what_is_lost_without_it():
    """A linear network adds up its samples, so two windows that share none carry the whole together."""
    made = reader("linear", 17, 200)
    _, masks = window_masks(made.times_ms, Window(width_ms=400, step_ms=400))
    with torch.inference_mode():
        tokens = [
            made.member.encode(made.trials, torch.where(mask, made.signal, made.baseline)) for mask in masks
        ]
        rest = made.member.encode(made.trials, made.baseline.expand_as(made.signal))
        whole = made.member.encode(made.trials, made.signal)
    torch.testing.assert_close(tokens[0] + tokens[1] - rest, whole, atol=1e-4, rtol=1e-4)


def test_a_band_is_found_where_the_signal_has_it():
    made = reader("linear", 17, 250)
    times = torch.arange(250) / 250
    waves = torch.sin(2 * torch.pi * 10 * times) * torch.randn(ITEMS, 17, 1)
    made.__dict__.update(signal=made.baseline + waves)
    made.__dict__.update(
        gallery=made.member.encode(made.trials, made.signal)
        - made.member.encode(made.trials, made.baseline[None])
    )
    found = explain_model(made, SPEC.model_copy(update={"analyses": ["bands"]})).profiles["bands"]
    values = dict(zip(found.axis.at, found.values.mean(1), strict=True))
    assert max(values, key=values.get).startswith("alpha") and values["alpha (8–13 Hz)"] > 0.3
    assert max(v for name, v in values.items() if not name.startswith("alpha")) < 0.1
