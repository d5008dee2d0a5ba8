"""Analyses of a model by window, band, sensor, region and voxel."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from brainhive_cli.core.recipes import parts
from brainhive_cli.data.signals import Grid, Sensors, Signal, Trials, Voxels, write_maps
from brainhive_cli.evaluation.explanation import model_profiles
from brainhive_cli.evaluation.explanation.conclusion import collect_maps
from brainhive_cli.evaluation.explanation.job import Reader
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.profiles import Labels, SubjectProfiles
from brainhive_cli.evaluation.explanation.recipe import ANALYSES, Recipe, Window
from brainhive_cli.measurement.units import Items
from brainhive_cli.models import Head, SignalSpec
from brainhive_cli.training.alignment import Aligner, Cell, Layout
from brainhive_cli.training.alignment.trained.model import TrainedModel
from tests.worlds.memory_test_set import MemoryTestSet, make_runs

ITEMS = 6
SPEC = Recipe(
    analyses=["windows", "occlusion", "sensors", "bands", "regions"],
    window=Window(width_ms=200, step_ms=200),
    draws=20,
)


def reader(kind, channels, samples, space=None, region=None):
    """Return a reader of random signals of six pictures, with a random model."""
    random, heads, times = (
        np.random.default_rng(0),
        {"token": Head((16,))},
        np.arange(samples) / 250,
    )
    torch.manual_seed(0)
    names = tuple(f"S{number}" for number in range(channels))
    width = int(space.regions[region].sum()) if space else channels
    spec = SignalSpec(
        () if space else names, samples, (1,), (width,), 250.0, tuple(times), {}
    )
    backbone = parts.load("backbones", kind).TINY.model_dump(mode="json")
    model = Aligner(Layout(spec, heads, backbone, retrieval_heads=("token",))).eval()
    signal = random.normal(size=(ITEMS, 2, channels, samples)).astype(np.float32)
    ids = [f"picture {number}" for number in range(ITEMS)]
    numbers = np.arange(ITEMS)
    trials = Trials.from_repetitions(
        signal,
        ids,
        space or Sensors(names),
        times,
        250.0,
        "µV",
        subject=1,
        stimulus=numbers,
    ).select([region] if region else None)
    shared = Items.independent([ids])
    labels = Labels.draw(numbers, shared, 20, 0)
    trained_model = TrainedModel(
        Path("model"), Cell("", (1,), (1,), 0), encoders=[], signal=Signal()
    )
    vars(trained_model)["module"] = model
    tests = MemoryTestSet(
        make_runs([trained_model]), "test", recorded={1: {"train": trials}}
    )
    person = tests.open_person(trained_model, 1)
    reader = Reader(trained_model, tests, person, trials, numbers, labels, shared)
    reader.__dict__.update(  # what a run with files would be asked for
        signal=torch.from_numpy(trials.averages),
        baseline=torch.full((width, samples), 0.1),
        gallery=torch.randn(ITEMS, 16),
    )
    return reader


def test_an_encoder_of_sensors_is_explained(tmp_path):
    model_reader = reader("nice", 9, 101)
    model = explain_model(model_reader, SPEC)

    expected = {
        "windows:top1",
        "windows:top5",
        "windows:two_way",
        "occlusion",
        "sensors",
        "bands",
    }
    assert expected <= model.profiles.keys()
    assert set(model.missing) <= {"regions"}
    assert all(np.isfinite(profile.values).all() for profile in model.profiles.values())
    ((_, maps, space),) = collect_maps([model_reader], {(None, 1): model})
    assert space.names == model_reader.trials.space.names
    (path,) = write_maps(tmp_path, "sub-01", maps, space)
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert header == ["name", "x", "y", "z", "sensors_margin_lost"]
    lost = model.profiles["sensors"].values.mean(1)
    assert [row[0] for row in rows] == list(space.names)
    np.testing.assert_allclose([float(row[4]) for row in rows], lost, rtol=1e-4)


def values_of(subject_profiles):
    """Return the numbers of profiles by name."""
    profiles = {
        name: (profile.values, profile.null, profile.chance, profile.pool, profile.axis)
        for name, profile in subject_profiles.profiles.items()
    }
    return {"profiles": profiles, "arrays": subject_profiles.arrays}


@pytest.mark.parametrize("kind", ["linear", "ridge"])
def test_profiles_of_models(recorded, monkeypatch, kind):
    """Sensors have two windows, and voxels lie in overlapping regions."""
    monkeypatch.setattr(model_profiles, "SIGNALS_PER_GRADIENT", 4)
    monkeypatch.setattr(model_profiles, "SIGNALS_PER_PRODUCT", 4)
    space = None
    if kind == "ridge":
        regions = {
            "V1": np.arange(8) > 2,
            "V4": np.arange(8) % 3 > 0,
            "none": np.zeros(8) > 1,
        }
        space = Voxels({**regions, "all": np.arange(8) > 0}, {}, None)
    model_reader = reader(kind, 8, 1 if space else 130, space, "all" if space else None)
    vars(model_reader)["baseline"] = torch.linspace(
        -0.5, 0.5, model_reader.signal[0].numel()
    ).view(model_reader.signal[0].shape)
    random = torch.Generator().manual_seed(4)
    targets = torch.randn(ITEMS, 16, generator=random)
    vars(model_reader)["gallery"] = targets.flip(0) + 0.1
    vars(model_reader)["encode_pictures"] = lambda split, rows, without="": (
        targets[torch.from_numpy(rows)] * (1 + len(without)) + len(without)
    )
    layout = model_reader.model.module.layout
    monkeypatch.setattr(type(layout), "compared_keys", ["a", "bb"])
    names = ["windows", "occlusion", "sensors", "bands", "regions", "levels", "trained"]
    bands = {"low": (0.0, 9.0), "middle": (8.0, 30.0), "high": (60.0, 500.0)}
    bands["beyond"] = (124.5, 200.0)

    model = explain_model(
        model_reader,
        SPEC.model_copy(update={"analyses": names, "bands": bands, "seed": 3}),
    )

    recorded(digits=3, **values_of(model))
    lacking = {"ridge": {"windows", "occlusion", "sensors", "bands"}}
    assert set(model.missing) == lacking.get(kind, {"regions"})
    assert not model.excluded


@pytest.mark.parametrize(
    ("kind", "unsuitable"),
    (
        ("linear", {"regions", "levels"}),
        ("ridge", {"windows", "occlusion", "sensors", "bands", "levels"}),
    ),
)
def test_default_analyses_that_do_not_apply_are_no_warning(kind, unsuitable):
    space = Voxels({"V1": np.arange(8) > 2}) if kind == "ridge" else None
    model_reader = reader(kind, 8, 1 if space else 130, space, "V1" if space else None)
    vars(model_reader)["encode_pictures"] = lambda split, rows, without="": torch.randn(
        len(rows), 16
    )
    layout = model_reader.model.module.layout
    assert len(layout.compared_keys) == 1

    model = explain_model(
        model_reader, SPEC.model_copy(update={"analyses": list(ANALYSES)})
    )

    assert model.excluded.keys() == unsuitable
    assert not model.missing


def test_bands_that_signals_cannot_hold_are_said():
    spec = SPEC.model_copy(update={"analyses": ["bands"]})
    # of order 4 a filter needs 28 samples
    assert "bands" in explain_model(reader("linear", 9, 27), spec).missing
    assert not explain_model(reader("linear", 9, 28), spec).missing
    high = spec.model_copy(update={"bands": {"high": (124.0, 200.0)}})
    assert "bands" in explain_model(reader("linear", 9, 101), high).missing


def test_a_band_is_found_where_the_signal_has_it():
    model_reader = reader("linear", 17, 250)
    times = torch.arange(250) / 250
    waves = torch.sin(2 * torch.pi * 10 * times) * torch.randn(ITEMS, 17, 1)
    model_reader.__dict__.update(signal=model_reader.baseline + waves)
    model_reader.__dict__.update(
        gallery=model_reader.model.encode(model_reader.trials, model_reader.signal)
        - model_reader.model.encode(model_reader.trials, model_reader.baseline[None])
    )
    bands = explain_model(
        model_reader, SPEC.model_copy(update={"analyses": ["bands"]})
    ).profiles["bands"]
    values = dict(zip(bands.axis.at, bands.values.mean(1), strict=True))
    assert max(values, key=values.get).startswith("alpha")
    assert values["alpha (8–13 Hz)"] > 0.3
    assert max(v for name, v in values.items() if not name.startswith("alpha")) < 0.1


def test_voxels_add_up_to_the_margin_each_by_its_weights(tmp_path):
    """With a single training signal, the values sum to the difference of the margins.

    A linear model whose bias determines the length of its tokens has a closed form.
    """
    regions, indices = {"V1": np.arange(7) > 2}, np.argwhere(np.ones((7, 1, 1)))
    grid = Grid(indices.astype(np.int16), (8, 1, 1), np.diag([2.0, 2, 2, 1]))
    model_reader = reader("ridge", 7, 1, Voxels(regions, {}, grid), "V1")
    first_trial = model_reader.trials.take(np.array([0]))
    model_reader.person.recorded = {"train": first_trial}
    other_tensor = torch.from_numpy(first_trial.averages)
    ridge = model_reader.model.module.backbone.maps["1"]
    for bias in (1.0, 1000.0):
        torch.nn.init.normal_(ridge.weight["token"])
        torch.nn.init.normal_(ridge.bias["token"], std=bias)
        vars(model_reader).pop("margins", None)

        margin = explain_model(model_reader, SPEC).arrays["margin"]

        baseline = model_reader.measure_margins(
            other_tensor.expand_as(model_reader.signal)
        )
        difference = (model_reader.margins - baseline).diagonal().mean()
        assert margin.sum() == pytest.approx(difference, abs=1e-5 + 1e-3 / bias)
    unit = torch.nn.functional.normalize(ridge.bias["token"], dim=0)
    candidates = torch.nn.functional.normalize(model_reader.gallery)
    towards = candidates - candidates.mean(0)
    across = (towards - (towards @ unit)[:, None] * unit) / ridge.bias["token"].norm()
    expected = (
        across @ ridge.weight["token"].T * (model_reader.signal - other_tensor)[:, :, 0]
    )
    np.testing.assert_allclose(margin, expected.mean(0), rtol=0.05, atol=1e-6)

    # what the model does not read has no value
    profiles = SubjectProfiles(arrays={"margin": margin})
    parts = {(model_reader.model.cell, 1): profiles, (None, 1): SubjectProfiles()}
    ((stem, maps, space),) = collect_maps([model_reader], parts)
    (path,) = write_maps(tmp_path, stem, maps, space)
    assert path.name == "sub-01_margin.nii.gz"
    values = nibabel.load(path).get_fdata()[:, 0, 0]
    np.testing.assert_allclose(values[3:7], margin, rtol=1e-6)
    assert np.isnan(values[[0, 1, 2, 7]]).all()
