"""The command `live` on a stream of LSL: its ranks are the ranks of eval-retrieval."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.training.alignment.trained import (
    open_model,
    open_targets,
    open_test_set,
)
from tests.tools.lsl_senders import write_loopback
from tests.worlds.command_fixtures import COLOURS, use_home
from tests.worlds.own_recordings import Presentation, annotate, make_raw, write_pictures

if importlib.util.find_spec("mne_lsl") is None:
    pytest.skip("pip install brainhive[live]", allow_module_level=True)
pytest.importorskip("mne")
STEPS = (
    "preparation.band_hz=[0.5,40]",
    "preparation.phase=forward",
    "preparation.whiten=no",
)
TRAINING = (
    "dataset=image-folder",
    f"encoders=[{COLOURS!r}]",
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.epochs=1",
    "train.precision=fp32",
    "train.validation=0",
    "train.batch_size=8",
)
SHOWN, SEED = Presentation.randomize(2, seed=5), 5
WAIT_S = 90

SENDER = """
import json, os, sys, time
import numpy as np
from mne_lsl.lsl import StreamInfo, StreamInlet, StreamOutlet
from mne_lsl.lsl import local_clock, resolve_streams
from tests.worlds.own_recordings import CHANNELS, RATE_HZ, Presentation, make_raw

shown = Presentation.randomize(2, seed=5)
samples = make_raw(shown, seed=5).get_data().T.astype(np.float32)  # [n, C] in volts
count = len(CHANNELS)
info = StreamInfo("amplifier", "EEG", count, RATE_HZ, "float32", "amplifier-of-live")
info.set_channel_names([name.upper() for name in CHANNELS])
info.set_channel_types("eeg")
info.set_channel_units("volts")
marker_info = StreamInfo("shown", "Markers", 1, 0, "string", "shown-of-live")
signal, markers = StreamOutlet(info), StreamOutlet(marker_info)
start_s = local_clock() - len(samples) / RATE_HZ - 5  # sent faster than recorded
assert signal.wait_for_consumers(60) and markers.wait_for_consumers(60)
results = resolve_streams(timeout=60, stype="BrainhiveResults", minimum=1)
inlet = StreamInlet(results[0])
inlet.open_stream(timeout=30)
time.sleep(1)
onsets = dict(zip(shown.onsets.tolist(), shown.pictures))
for start in range(0, len(samples), 25):
    block = samples[start : start + 25]
    times_s = start_s + (start + np.arange(len(block))) / RATE_HZ
    signal.push_chunk(np.ascontiguousarray(block), times_s)
    for sample in range(start, start + len(block)):
        if sample in onsets:
            markers.push_sample([onsets[sample]], start_s + sample / RATE_HZ)
    time.sleep(0.002)
received, end_s = [], time.monotonic() + 30
while len(received) < len(onsets) and time.monotonic() < end_s:
    sample, _ = inlet.pull_sample(timeout=1)
    received += [json.loads(text) for text in sample or ()]
with open(sys.argv[1], "w") as file:
    json.dump(received, file)
os._exit(0)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory, run_command):
    with use_home(tmp_path_factory.mktemp("lsl")) as base:
        write_pictures(base / "data/image-folder")
        (base / "data/recordings").mkdir()
        raw = annotate(make_raw(SHOWN, seed=SEED), SHOWN, list(SHOWN.pictures))
        raw.save(base / "data/recordings/sub-01_ses-01.fif", verbose="ERROR")
        run_command("embed", "dataset=image-folder", f"encoders=[{COLOURS!r}]")
        run_command("prepare", "preparation.kind=recording", *STEPS)
        yield base


@pytest.mark.nightly
def test_other_programs_receive_the_ranks_of_eval_retrieval(
    base, run_command, tmp_path
):
    run_folder = run_command("train-align", *TRAINING).folder
    environment = {
        **os.environ,
        **write_loopback(tmp_path),
        "BRAINHIVE_HOME": str(base),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[3])] + list(sys.path)
        ),
    }
    arguments = (
        "--source",
        "lsl",
        "--windows",
        "16",
        "source.name=amplifier",
        "source.unit=V",
    )
    arguments = tuple(arguments) + ("page=false", "--lines", "--outlet", "seen")
    live = subprocess.Popen(
        [sys.executable, "-m", "brainhive_cli", "live", run_folder] + list(arguments),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    received = tmp_path / "received.json"
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(received)], env=environment
    )
    output, err = live.communicate(timeout=WAIT_S)
    sender.wait(timeout=WAIT_S)

    assert live.returncode == 0, err
    results = [
        event
        for event in map(json.loads, output.splitlines())
        if event["kind"] == "result"
    ]
    assert [result["event"] for result in results] == list(SHOWN.pictures)
    assert results[-1]["stream"]["lost"] == 0
    assert results[-1]["stream"]["dropped"] == {}
    assert results == json.loads(received.read_text())

    # ranks of the single trials of the prepared recording, in order of time
    align = open_model(str(run_folder), Paths())
    model = align.open_first()
    tests = open_test_set(align, "test")
    responses = tests.open_person(model, 1).trials
    targets = open_targets(tests, model, "test")
    gallery = model.encode_pictures(targets, tests.find_rows("test"))
    image_ids = tests.open_pictures("test").image_ids
    for row, stimulus in enumerate(responses.stimulus.tolist()):
        signals = torch.from_numpy(responses.singles[responses.find_trials([row])])
        tokens = model.encode(responses, signals)
        expected = rank_targets(tokens, gallery, torch.full((len(tokens),), stimulus))
        ranks = [
            result["rank"]
            for result in results
            if result["shown"] == image_ids[stimulus]
        ]
        assert ranks == expected.tolist() and len(ranks) == 2, stimulus
