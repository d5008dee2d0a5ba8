"""What is explained of a brain encoder: its windows, bands and sensors."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from brainhive_cli.core import parts
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.job import Reader
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
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
SPEC = Recipe(
    analyses=["windows", "occlusion", "sensors", "bands", "regions"],
    window=Window(width_ms=200, step_ms=200),
    draws=20,
)


def reader(kind, channels, samples):
    """Let a model with random weights read random signals of six pictures, with random
    targets.
    """
    random, heads, times = (
        np.random.default_rng(0),
        {"token": Head((16,))},
        np.arange(samples) / 250,
    )
    torch.manual_seed(0)
    names = tuple(f"S{number}" for number in range(channels))
    spec = SignalSpec(names, samples, (1,), (channels,), 250.0, tuple(times), {})
    backbone = parts.load("backbones", kind).TINY.model_dump(mode="json")
    model = Aligner(Layout(spec, heads, backbone, retrieval_heads=("token",))).eval()
    signal = random.normal(size=(ITEMS, 2, channels, samples)).astype(np.float32)
    ids = [f"picture {number}" for number in range(ITEMS)]
    folder, recipe = SimpleNamespace(path=Path("model")), SimpleNamespace(encoders=[])
    run = SimpleNamespace(
        folder=folder,
        is_model=True,
        recipes={"": recipe},
        source=lambda *_: None,
        tests_new_subjects=False,
    )
    places = np.arange(ITEMS)
    trials = Trials(
        signal, ids, Sensors(names), times, 250.0, "µV", subject=1, stimulus=places
    ).select()
    shared = Items.independent([ids])
    labels = Labels.of(places, shared, 20, 0)
    member = TrainedModel(run, Cell("", (1,), (1,), 0))
    vars(member)["module"] = model
    made = Reader(member, "test", trials, places, labels, shared)
    made.__dict__.update(  # what a run with files would be asked for
        signal=torch.from_numpy(signal.mean(1)),
        baseline=torch.full(signal.shape[2:], 0.1),
        learned=trials,
        gallery=torch.randn(ITEMS, 16),
    )
    return made


def test_an_encoder_of_sensors_is_explained():
    found = explain_model(reader("nice", 9, 101), SPEC)

    expected = {
        "windows:top1",
        "windows:top5",
        "windows:two_way",
        "occlusion",
        "sensors",
        "bands",
    }
    assert expected <= found.profiles.keys() and set(found.missing) <= {"regions"}
    assert all(np.isfinite(profile.values).all() for profile in found.profiles.values())


def test_a_band_is_found_where_the_signal_has_it():
    made = reader("linear", 17, 250)
    times = torch.arange(250) / 250
    waves = torch.sin(2 * torch.pi * 10 * times) * torch.randn(ITEMS, 17, 1)
    made.__dict__.update(signal=made.baseline + waves)
    made.__dict__.update(
        gallery=made.member.encode(made.trials, made.signal)
        - made.member.encode(made.trials, made.baseline[None])
    )
    found = explain_model(
        made, SPEC.model_copy(update={"analyses": ["bands"]})
    ).profiles["bands"]
    values = dict(zip(found.axis.at, found.values.mean(1), strict=True))
    assert (
        max(values, key=values.get).startswith("alpha")
        and values["alpha (8–13 Hz)"] > 0.3
    )
    assert max(v for name, v in values.items() if not name.startswith("alpha")) < 0.1
