"""Descriptions of set-ups, from recipes, models and signals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.data.signals import Holdout, Signal
from brainhive_cli.models.encoders import resolve_all
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.set_ups import (
    describe_model,
    describe_recipe,
    describe_run,
    describe_signals,
)
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec, make_token_layout


def described(*overrides, text="pictures"):
    arguments = ["dataset=demo"] + list(overrides)
    recipe = Recipe.resolve("train-align", None, {}, arguments)
    return describe_recipe(recipe, Holdout(by=text, folds=2))  # type: ignore[arg-type]


def test_a_set_up_has_the_keys_that_decide_a_result():
    set_up = described("encoders=[vae, clip-h14]", "train.lr=0.5", "train.epochs=7")
    assert set_up["encoders"] == ["clip-h14", "vae"]
    assert set_up["train.lr"] == 0.5
    assert set_up["epochs"] == 7
    assert "train.epochs" not in set_up
    assert set_up["selection"] == "best"
    assert set_up["mode"] == "intra"
    assert set_up["loss.kind"] == "clip"
    assert set_up["fuser.kind"] == "fusion-encoder"
    for key in ("signal.window_ms", "signal.channels", "subjects", "finetune.share"):
        assert key not in set_up
    assert not [key for key in set_up if key.startswith(("paths", "run.", "dataset"))]
    assert set_up["cites.encoders"]


def test_settings_that_nothing_reads_are_left_out():
    fitted = described("backbone=ridge", "encoders=[vae]")
    assert {key for key in fitted if key.startswith("train.")} == {
        "train.validation", "train.validation_by", "train.shuffled_labels",
    } & set(fitted)  # fmt: skip
    assert "loss.kind" not in fitted
    assert "train.validation" in fitted
    terms = described("terms=[{prediction: token, loss: mse}]")
    assert "loss.kind" not in terms
    assert terms["terms"][0]["prediction"] == "token"
    heads = described("heads={a: clip-h14}")
    assert not [key for key in heads if key.startswith("fuser")]
    tuned_settings = described("mode=finetune", "finetune.share=0.5")
    assert tuned_settings["finetune.share"] == 0.5


def test_without_validation_the_last_epoch_is_kept():
    assert described("train.validation=0")["selection"] == "last"
    assert described("train.validation=0.25")["selection"] == "best"
    trial_set_up = described("train.validation=0.25", text="trials")
    assert trial_set_up["train.validation"] == 0
    assert trial_set_up["selection"] == "last"
    assert (
        described("train.selection=test", "train.validation=0")["selection"] == "test"
    )


def test_stages_are_compared_key_by_key():
    set_up = described("train.stages=[{epochs: 2, lr: 0.5}, {epochs: 3}]")
    assert set_up["train.stages.0.lr"] == 0.5
    assert set_up["train.stages.1.epochs"] == 3
    assert "train.stages" not in set_up


def test_a_model_folder_says_what_it_records():
    layout = make_token_layout(
        make_signal_spec(("Oz",), 3), 4, {"e": 2}, similarity="centred_cosine"
    )
    model = describe_model(layout, resolve_all(["vae", "clip-h14"]), Signal(scale=2.0))
    assert model["encoders"] == ["clip-h14", "vae"]
    assert model["backbone.kind"] == "linear"
    assert model["signal.scale"] == 2.0
    assert (model["similarity"], model["subject_layer"]) == ("centred_cosine", "none")
    assert "signal.window_ms" not in model


def sensors(counts, **fields):
    """Trials of two sensors at 100 Hz."""
    signal = np.zeros((len(counts), max(counts), 2, 5), np.float32)
    return make_trials(
        1,
        signal,
        np.arange(len(counts)),
        ("P7", "Oz"),
        100.0,
        np.array(counts),
        **fields,
    )


def test_signals_are_described_over_all_subjects():
    assert describe_signals([]) == {}
    preparation = {"band_hz": [1, 40], "inner": {"a": 1}}
    provenance = {"preparation": preparation, "dtype": "f4", "other": 3}
    first_spec = replace(sensors([2, 3]), unit="µV", provenance=provenance)
    assert describe_signals([first_spec, sensors([1, 4])]) == {
        "channels": ["P7", "Oz"],
        "window_ms": [0.0, 50.0],
        "rate_hz": 100.0,
        "repetitions": [1, 4],
        "unit": "µV",
        "preparation.band_hz": [1, 40],
        "preparation.inner.a": 1,
        "preparation.dtype": "f4",
    }
    empty = sensors([2]).take(np.array([], np.int64))
    assert describe_signals([empty])["repetitions"] == [0, 0]


@pytest.mark.parametrize(
    ("widths", "channels"), [([7, 4, 5], "4 to 7 voxels"), ([4, 4], "4 voxels")]
)
def test_voxels_are_counted_and_have_no_window(widths, channels):
    subjects = [
        make_trials(1, np.zeros((2, width, 1), np.float32), [0, 1], (), None)
        for width in widths
    ]
    signals = describe_signals(subjects)
    assert signals["channels"] == channels
    assert "window_ms" not in signals
    assert "rate_hz" not in signals


def test_a_run_says_where_it_was_trained_and_tested():
    dataset = SimpleNamespace(recorded_as="nsd", pictured_as="own")
    plain_run = describe_run(dataset, [1, 2], {"train.lr": 1}, [])
    assert plain_run["dataset"] == "nsd"
    assert plain_run["subjects"] == [1, 2]
    assert plain_run["train.lr"] == 1
    assert "trained_on_dataset" not in plain_run
    other_run = describe_run(dataset, [1], {}, [sensors([1])], "things-eeg")
    assert other_run["trained_on_dataset"] == "things-eeg"
    assert other_run["rate_hz"] == 100
    assert set(plain_run["cites.dataset"]) < set(other_run["cites.dataset"])
