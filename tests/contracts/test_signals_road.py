"""What others build on the road of signals: a replay, many fits in one process, a model folder alone."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from own_recordings import RATE_HZ, Shown, annotate, codes, make_raw, write_pictures, write_table
from worlds import COLOURS

from brainhive_cli import aligner, api
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.measurement.ranks import ranks

PICTURES = ("dataset=image-folder", f"encoders=[{COLOURS!r}]")
FAST = ("dim=64", "fuser.intermediate_size=64", "seeds=1", "train.epochs=2", "train.precision=fp32")


def replay(raw: Any, onset_s: NDArray[np.float64], learned: Any, times_s: NDArray[np.float64]) -> Any:
    """Cut a continuous recording into windows as a stream gives them, prepared as in training."""
    from mne.filter import filter_data

    rows = [1e6 * (row - row[0]) for row in raw.get_data()]  # the filter starts from the first sample
    filtered = [filter_data(row, RATE_HZ, 0.5, 40, method="iir", phase="forward") for row in rows]
    stream, windows = np.stack(filtered), []
    for onset in np.round(onset_s * RATE_HZ).astype(int):
        baseline = stream[:, onset - RATE_HZ // 5 : onset + 1].mean(1, keepdims=True)
        window = stream[:, onset : onset + len(times_s)] - baseline
        windows.append(learned.whiteners[1][0] @ window)
    signal = np.stack(windows)[:, None].astype(np.float32)
    return api.Trials(signal, (), api.Sensors(raw.ch_names), times_s, float(RATE_HZ), "whitened")


def test_windows_of_a_continuous_recording_give_the_tokens_of_single_trials(home: Path, go: Any) -> None:
    mne = pytest.importorskip("mne")
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir(parents=True)
    shown, file = Shown.of(3, seed=0), home / "data/recordings/sub-01_ses-01.fif"
    annotate(make_raw(shown, seed=0), shown, [str(code) for code in codes(shown)]).save(file, verbose="ERROR")
    write_table(home / "data/recordings/events.csv")
    steps = f"rate_hz: {RATE_HZ}, band_hz: [0.5, 40], phase: forward"
    go("prepare", f"preparation={{kind: recording, {steps}}}")
    go("embed", *PICTURES)
    run = go("train-align", *PICTURES, *FAST, "train.validation=0").folder

    member = api.open_run(run).member()
    trials = member.trials(1, "test")
    expected = member.encode(trials, torch.from_numpy(trials.singles.reshape(-1, *trials.signal.shape[2:])))

    model, stored = member.module, api.open_signals("image-folder", 1)["test"]
    raw = mne.io.read_raw(file, verbose="ERROR")
    windows = replay(raw, stored.onset_s.ravel(), model.learned, stored.times_s)
    signal = torch.from_numpy(api.model_input(model.layout.spec, windows, model.learned.normaliser_of(1)))
    with torch.inference_mode():
        tokens = model.encode_signal(signal, torch.zeros(len(signal), dtype=torch.long))
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


def test_a_model_folder_alone_decodes_a_recording(
    trained: Path, evaluated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = api.open_signals("demo-noise-0.3-40-concepts", 1)["test"]
    pictures = api.open_store(
        "demo-noise-0.3-40-concepts", "test", "brainhive_cli-models-encoders-python-example"
    )
    shutil.copytree(trained / "cells/sub-01_seed-1/model", tmp_path / "empty/model")
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "empty"))

    model = aligner.load(tmp_path / "empty/model")
    signal = torch.from_numpy(api.model_input(model.layout.spec, recording, model.learned.normaliser_of(1)))
    tokens = model.encode_signal(signal, torch.zeros(len(signal), dtype=torch.long))
    embeddings = torch.from_numpy(np.array(pictures.embedding))
    images = model.encode_image(dict.fromkeys(model.layout.dims, embeddings))
    seen = torch.from_numpy(pictures.rows(recording.image_ids))
    top1 = float((ranks(tokens, images, seen) == 1).float().mean())

    assert top1 == pytest.approx(evaluated.metrics.scopes["sub-01_seed-1 · sub-01"]["top1"].value)
    with pytest.raises(BrainhiveError, match="learned from: unit V, not"):
        api.model_input(model.layout.spec, replace(recording, unit="V"), None)


def test_model_input_reads_what_training_and_retrieval_read(
    world: Path, go: Any, small: Any, runs: str
) -> None:
    words = ("signal.normalise=channel", "signal.channels=[occipital]", "signal.window_ms=[100, 500]")
    run = api.open_run(go("train-align", *small, "subjects=1", "train.epochs=1", *words, runs).folder)
    member = run.member()
    spec, learned = member.module.layout.spec, member.module.learned
    assert spec.signal["name"] == "default" and 1 in learned.normalisers
    for split in ("train", "test"):
        recording = member.run.source("").recording(1, split)
        expected = member.trials(1, split, is_tested=False).averages
        found = api.model_input(spec, recording, learned.normaliser_of(1))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    wide = Normaliser(np.zeros((99, 1)), np.ones((99, 1)))
    with pytest.raises(BrainhiveError, match="channels or voxels, the normaliser is of 99"):
        api.model_input(spec, recording, wide)
    with pytest.raises(BrainhiveError, match=r"a normaliser, and the model's signals were normalised by"):
        api.model_input(spec, recording, None)
