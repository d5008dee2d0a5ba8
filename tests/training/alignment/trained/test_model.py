"""Trained models: people, normalisers, and signals and pictures in blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.signals import Normaliser, Signal
from brainhive_cli.data.stores.training_history import TrainingHistory
from brainhive_cli.training.alignment import Aligner, Cell
from brainhive_cli.training.alignment.trained import (
    TrainedModel,
    model as trained_model,
)
from brainhive_cli.training.alignment.trained.run import TrainedRun
from tests.worlds.alignment_cells import make_targets
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

MEAN = Normaliser(np.zeros((2, 1)), np.ones((2, 1)))
OWN = Normaliser(np.ones((2, 1)), np.ones((2, 1)))


def make_model(tests_new_subjects=False):
    """Make a model of persons 2 and 3 with random weights, of 2 channels."""
    torch.manual_seed(0)
    spec = make_signal_spec(("P7", "Oz"), 4, (2, 3))
    layout = make_token_layout(spec, 6, {"e": 5})
    cell = Cell("a", (2, 3), (2,), 1)
    model = TrainedModel(
        Path("a model"), cell, [], Signal(), tests_new_subjects=tests_new_subjects
    )
    vars(model)["module"] = Aligner(layout).eval()
    return model


@pytest.mark.parametrize(("is_new", "expected"), [(True, None), (False, [0, 0, 0])])
def test_people_of_another_data_set_are_new_to_a_model(is_new, expected):
    index = make_model(is_new).make_subject_index(2, 3)
    assert (None if index is None else index.tolist()) == expected


def test_a_normaliser_is_the_persons_or_the_mean():
    history = TrainingHistory(normaliser=MEAN, normalisers={2: OWN})
    for is_new, normaliser in ((True, MEAN), (False, OWN)):
        model = make_model(is_new)
        vars(model)["_description"] = None, history
        assert model.find_normaliser(2) is normaliser
    stranger = make_model(tests_new_subjects=True)
    vars(stranger)["_description"] = None, TrainingHistory(normalisers={2: OWN})
    assert stranger.find_normaliser(2) is None


def test_signals_of_any_number_are_encoded_in_blocks(
    monkeypatch,
):
    model = make_model()
    signals = np.random.default_rng(0).normal(size=(8, 2, 4)).astype(np.float32)
    trials = make_trials(2, signals, np.arange(8), ("P7", "Oz"))
    embeddings = model.encode(trials)

    monkeypatch.setattr(trained_model, "SIGNALS_PER_BLOCK", 3)
    tokens = model.encode(trials)
    other_embeddings = model.encode(trials, torch.zeros(4, 2, 4))

    torch.testing.assert_close(tokens, embeddings)
    expected = model.module.encode_signal(
        torch.from_numpy(signals), model.make_subject_index(2, 8)
    )
    torch.testing.assert_close(tokens, expected.detach())
    assert other_embeddings.shape == (4, 6)
    assert (other_embeddings == other_embeddings[0]).all()


def test_pictures_of_any_number_are_encoded_in_blocks(
    monkeypatch,
):
    model = make_model()
    embedding = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    targets = make_targets({"e": embedding})
    rows = np.array([1, 2, 4, 5, 7])
    pictures = model.encode_pictures(targets, rows)

    monkeypatch.setattr(trained_model, "PICTURES_PER_BLOCK", 2)
    tokens = model.encode_pictures(targets, rows)
    without_encoder = model.encode_pictures(targets, rows, without="e")

    torch.testing.assert_close(tokens, pictures)
    mean = model.module.encode_image({"e": embedding[rows].mean(0, keepdim=True)})
    torch.testing.assert_close(without_encoder, mean.detach().float().expand(5, -1))


def test_samples_of_a_signal_depend_on_its_picture_alone(
    monkeypatch,
):
    monkeypatch.setattr(trained_model, "SIGNALS_PER_BLOCK", 3)
    model = make_model()
    signals = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    trials = make_trials(2, signals, np.arange(5), ("P7", "Oz"))
    seeds = []
    decode = model.module.decode

    def watch(signal, index, block):
        seeds.extend(block)
        return decode(signal, index, block)

    monkeypatch.setattr(model.module, "decode", watch)
    names = ["a", "b", "c", "d", "a"]
    decoded = model.decode(trials, names)
    heads = model.predict(2, torch.from_numpy(signals))

    assert seeds[0] == seeds[4]
    assert len(set(seeds)) == 4
    for name, values in decoded.tensors.items():
        torch.testing.assert_close(values, heads[name])


def test_a_head_that_a_model_lacks_is_refused(trained_run):
    finished_trained_run = TrainedRun.read(RunFolder(trained_run))
    with pytest.raises(RecipeError):
        _ = finished_trained_run.open(
            finished_trained_run.cells[0], head="nothing"
        ).layout
    assert finished_trained_run.open_first().layout.compared_heads
