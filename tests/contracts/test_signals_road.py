"""Tests of interfaces from signals to decoded embeddings, for users' own code."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli import aligner, api
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.measurement.ranks import rank_targets


def test_a_model_folder_alone_decodes_a_recording(
    trained_run,
    evaluation_result,
    tmp_path,
    monkeypatch,
):
    recording = api.open_signals("demo-noise-0.3-40-concepts", 1)["test"]
    pictures = api.open_store(
        "demo-noise-0.3-40-concepts",
        "test",
        "brainhive_cli-models-encoders-python-example",
    )
    shutil.copytree(trained_run / "cells/sub-01_seed-1/model", tmp_path / "empty/model")
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "empty"))

    model = aligner.load(tmp_path / "empty/model")
    signal = torch.from_numpy(
        api.model_input(model.layout.spec, recording, model.learned.normaliser_of(1))
    )
    tokens = model.encode_signal(signal, torch.zeros(len(signal), dtype=torch.long))
    embeddings = torch.from_numpy(np.array(pictures.embedding))
    images = model.encode_image(dict.fromkeys(model.layout.dims, embeddings))
    target_rows = torch.from_numpy(pictures.find_rows(recording.pictures))
    top1 = float((rank_targets(tokens, images, target_rows) == 1).float().mean())

    assert top1 == pytest.approx(
        evaluation_result.metrics.scopes["sub-01_seed-1 · sub-01"]["top1"].value
    )
    with pytest.raises(BrainhiveError, match="unit V, not uV"):
        api.model_input(model.layout.spec, replace(recording, unit="V"), None)


def test_model_input_reads_what_training_and_retrieval_read(
    world, run_command, align_overrides, runs
):
    trained_run = api.open_run(
        run_command(
            "train-align",
            *align_overrides,
            "subjects=1",
            "train.epochs=1",
            "signal.normalise=channel",
            "signal.channels=[occipital]",
            "signal.window_ms=[100, 500]",
            runs,
        ).folder
    )
    member = trained_run.member()
    person = trained_run.open_test_set().open_person(member, 1)
    spec, history = member.layout.spec, member.history
    assert spec.signal["name"] == "default"
    assert 1 in history.normalisers
    trials_of_split = {"train": person.train_trials, "test": person.all_trials}
    for split, trials in trials_of_split.items():
        recording = person.recordings.open_recording(1, split)
        model_input = api.model_input(spec, recording, history.normaliser_of(1))
        np.testing.assert_allclose(model_input, trials.averages, rtol=1e-6, atol=1e-6)
    wrong_normaliser = Normaliser(np.zeros((99, 1)), np.ones((99, 1)))
    with pytest.raises(BrainhiveError, match=r"\b99\b"):
        api.model_input(spec, recording, wrong_normaliser)
    with pytest.raises(BrainhiveError, match=r"without a normaliser.*channel"):
        api.model_input(spec, recording, None)
