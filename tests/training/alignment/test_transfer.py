"""Zero-shot transfer: another data set's signals go into a model only as it was trained to take them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import spec_of
from safetensors.torch import save_file

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.model_input import match_recording
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.tables import tables_of

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
OTHER = "{kind: demo, noise: 0.5, subjects: 2}"
SPEC = replace(spec_of(("Oz", "P7"), 50), rate_hz=100.0, times_s=tuple(np.arange(50) / 100))


def recorded(channels=("P7", "Cz", "oz"), rate_hz=100.0, samples=80, start_s=0.0) -> Trials:
    """A recording of another data set; what matches the model by default."""
    signal = np.zeros((1, 1, len(channels), samples), np.float32)
    times_s = start_s + np.arange(samples) / rate_hz
    return Trials(signal, ["a"], Sensors(channels), times_s, rate_hz, "µV")


def match(recording: Trials, spec: SignalSpec = SPEC, signal: Signal = Signal()):  # noqa: B008
    return match_recording(spec, recording, signal, None, "other subject 1")


def test_channels_are_found_by_name_and_the_window_is_cut():
    selection = match(recorded(start_s=-0.1))

    assert selection.channels == ("oz", "P7")
    assert selection.samples == slice(10, 60)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"channels": ("Cz", "Fz")}, "other subject 1 has no channel Oz, P7, which the model was trained on"),
        ({"samples": 40}, "has 40 samples where the model takes 50"),
        ({"start_s": 0.2}, "has 30 samples where the model takes 50"),
    ],
)
def test_signals_that_do_not_match_are_refused_in_one_line(given, what):
    with pytest.raises(BrainhiveError) as caught:
        match(recorded(**given))
    assert what in caught.value.message and caught.value.hint


def test_a_model_that_does_not_know_its_times_takes_as_many_samples_only():
    unknown = replace(SPEC, times_s=None, rate_hz=None)
    assert match(recorded(samples=50), unknown).samples == slice(0, 50)

    with pytest.raises(BrainhiveError, match="80 samples where the model takes 50"):
        match(recorded(samples=80), unknown)
    assert match(recorded(samples=80), unknown, Signal(window_ms=(0, 500))).samples == slice(0, 50)


def test_a_model_that_only_counts_its_channels_takes_as_many_in_the_order_asked_for():
    counted = spec_of(("0", "1"), 50)

    assert match(recorded(samples=50), counted, Signal(channels=["oz", "P7"])).channels == ("oz", "P7")
    with pytest.raises(BrainhiveError, match="gives 3 channels where the model takes 2"):
        match(recorded(samples=50), counted)


def test_voxels_do_not_go_into_a_model_of_sensors_nor_sensors_into_one_of_voxels():
    voxels = Trials(np.zeros((1, 1, 3, 1)), ["a"], Voxels({}), np.zeros(1), None, "z")
    spec = SignalSpec((), 1, (1,), (3,))

    assert match(voxels, spec).signal.shape == (1, 1, 3, 1)
    with pytest.raises(BrainhiveError, match="other subject 1 has voxels where the model takes sensors"):
        match(voxels)
    with pytest.raises(BrainhiveError, match="has sensors where the model takes voxels"):
        match(recorded(samples=1), spec)


@pytest.fixture
def other(world: Path, go) -> Path:
    """The world with the pictures of a second data set embedded."""
    go("embed", f"dataset={OTHER}", COLOURS, "splits=test")
    return world


def test_every_model_meets_all_subjects_of_another_data_set_above_chance(go, small, other):
    run = f"run={go('train-align', *small).folder}"

    result = go("eval-retrieval", run, f"dataset={OTHER}", "sheet_rows=0")
    fewer = go("eval-retrieval", run, f"dataset={OTHER}", "subjects=2", "sheet_rows=0")

    metrics = result.metrics
    signals = "17 channels, 0 to 1000 ms, 250 Hz, 16 repetitions averaged, uV"
    protocol = f"intra, demo-noise-0.5, zero-shot from demo-noise-0.3-40-concepts, {signals}, simulated"
    assert (metrics.facts.protocol, metrics.facts.verdict) == (protocol, "above chance")
    cells = [f"sub-0{trained}_seed-1 · sub-0{tested}" for trained in (1, 2) for tested in (1, 2)]
    assert list(metrics.items) == cells and list(fewer.metrics.items) == cells[1::2]
    found = [each.metrics.items["sub-01_seed-1 · sub-02"]["ranks"] for each in (result, fewer)]
    assert found[0] == found[1]
    page = tables_of(RunGroup([ShownRun("run", RunFolder(result.folder))]))
    table = next(table for table in page if table.title.startswith("By cell"))
    met = [metrics.scopes[cell]["top1"].value for cell in cells]
    assert [(row[0], row[1].value) for row in table.rows[:-1]] == [*zip(cells, met, strict=True)]


def test_without_embeddings_of_the_other_data_set_the_line_that_makes_them_is_told(go, small, world):
    run = f"run={go('train-align', *small).folder}"

    with pytest.raises(MissingData, match=r"demo-noise-0.7") as caught:
        go("eval-retrieval", run, "dataset={kind: demo, noise: 0.7, subjects: 1}")
    assert caught.value.hint.startswith("brainhive embed")


@pytest.fixture
def published(go, small, world, tmp_path, monkeypatch) -> Path:
    """A model of the world's run as BrainHiVE's repository saves it, in a home that has the embeddings."""
    run = go("train-align", *small).folder
    ours, theirs = "brainhive_cli-models-encoders-python-example", "CLIP-ViT-B-32-laion2B-s34B-b79K"
    model = aligner.load(run / "cells" / "sub-02_seed-1" / "model")
    (tmp_path / "published").mkdir()
    config = {
        "brain_backbone": model.layout.backbone["kind"].replace("-", "_"),
        "brain_channels": model.layout.spec.channels,
        "brain_sequence_length": model.layout.spec.samples,
        "dropout": model.layout.backbone.get("dropout", 0.0),
        "proj_meta": {theirs: model.layout.dims[ours]},
    }
    (tmp_path / "published/config.json").write_text(json.dumps(config))
    prefixes = {"backbone": "brain_model.backbone", "fuser": "vision_model"}
    state = {"logit_scale": torch.tensor(2.6592)}
    for name, value in model.state_dict().items():
        part, _, rest = name.replace(ours, theirs).partition(".")
        state[f"{prefixes[part]}.{rest}"] = value
    save_file(state, tmp_path / "published/model.safetensors")
    shutil.copytree(world / "embeddings", tmp_path / "home" / "embeddings")
    (store,) = tmp_path.glob(f"home/embeddings/demo-noise-0.3-40-concepts/test/{ours}.h5")
    store.rename(store.with_stem("clip-b32"))
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "home"))
    return tmp_path / "published"


def test_a_model_folder_of_brainhives_own_is_evaluated(go, published, world):
    data = ("dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}", "subjects=2")
    metrics = go("eval-retrieval", f"run={published}", *data).metrics

    model = aligner.load(published)
    recording = SignalStore.open(world / "signals/demo-noise-0.3-40-concepts/default/sub-02.h5")["test"]
    (store,) = world.glob("embeddings/demo-noise-0.3-40-concepts/test/*example.h5")
    pictures = TargetStore.open(store)
    with torch.inference_mode():
        signal = model.encode_signal(torch.from_numpy(np.asarray(recording.signal).mean(1)), None)
        (key,) = model.layout.dims
        image = model.encode_image({key: torch.from_numpy(np.array(pictures.embedding))})
    target = torch.tensor([pictures.image_ids.index(image_id) for image_id in recording.image_ids])
    assert metrics.items["published · sub-02"]["ranks"] == ranks(signal, image, target).tolist()
    assert metrics.facts.protocol == (
        "model folder (perhaps trained on subject 2), demo-noise-0.3-40-concepts, 17 channels, 0 to 1000 ms, "
        "250 Hz, 16 repetitions averaged, uV, simulated, history unknown (selection, subjects, pictures)"
    )
    assert metrics.facts.verdict == "above chance"
