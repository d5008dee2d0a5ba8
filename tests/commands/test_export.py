"""Tests of export: the file gives the tokens of eval-retrieval with PyTorch alone."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.models import Head, SignalSpec
from brainhive_cli.training.alignment import Aligner, Layout
from brainhive_cli.training.alignment.trained import (
    PortableModel,
    open_model,
    open_test_set,
    save_program,
)
from tests.tools.upload_hub import brainhive, read_error_lines
from tests.worlds.command_fixtures import COLOURS, use_home
from tests.worlds.own_recordings import (
    CHANNELS,
    Presentation,
    annotate,
    make_raw,
    write_pictures,
)

PICTURES = ("dataset=image-folder", f"encoders=[{COLOURS!r}]")
TRAINING = ("seeds=1", "backbone.kind=ridge", "fuser.kind=heads", "train.validation=0")
STORES = {"whitened": (), "plain": ("preparation.whiten=no",)}
NORMALISED = ("signal.normalise=whiten", "signal.window_ms=[100,800]")
STUBS = {
    "benchmark_utils.py": "",
    "compet_core/__init__.py": "",
    "compet_core/base_solver.py": "class CompetSolver:\n    pass\n",
}
"""Modules that the benchmark of the challenge provides."""
SUBMITTED = """
import sys, numpy, torch
sys.path[:0] = [sys.argv[1]]
from submission import Solver
names = sys.argv[2].split(",")
meta = {"sfreq": 250.0, "n_times": 250, "ch_names": names, "device": "cpu",
        "submission_dir": sys.argv[1]}
signal = torch.from_numpy(numpy.load(sys.argv[3]))
numpy.save(sys.argv[4], Solver().load_model(meta).predict(signal).numpy())
assert not any(name.startswith("brainhive") for name in sys.modules)
"""
CLIENT = """
import functools, pathlib, sys, torch
from neuralbench import config_manager
from neuralbench.evaluate import check_model, evaluate_model

@functools.cache  # outside the model, whose pickle cannot hold a program
def program(file):
    return torch.export.load(file).module()

class Exported(torch.nn.Module):
    def __init__(self, file, names):
        super().__init__()
        self.file, self.names = file, names

    def forward(self, x, channel_positions, ch_names):
        known = [name.lower() for name in ch_names]
        signal = x.new_zeros(len(x), len(self.names), x.shape[2])
        for row, name in enumerate(self.names):
            if name.lower() in known:
                signal[:, row] = x[:, known.index(name.lower())]
        return program(self.file)(signal)[:, None]  # one patch, for its linear probe

file, names, root = sys.argv[1], sys.argv[2].split(","), pathlib.Path(sys.argv[3])
model = Exported(file, names)
frame = check_model(model, "eeg", "image")
assert len(frame) and (frame.status == "ok").all(), frame

folders = {key: str(root / key) for key in ("CACHE_DIR", "SAVE_DIR", "DATA_DIR")}
config_manager._config = config_manager._default_config() | folders | {"N_CPUS": 0}
(root / "DATA_DIR/Test2024Eeg").mkdir(parents=True)
split = {"name": "SklearnSplit", "split_by": "text", "valid_split_ratio": 0.34,
         "test_split_ratio": 0.34, "valid_random_state": 1, "test_random_state": 1}
source = {"name": "Test2024Eeg", "path": folders["DATA_DIR"]}
data = {"study": {"=replace=": True, "source": source, "split": split},
        "trigger_event_type": "Word", "target.event_types": "Word",
        "target.event_field": "start", "target.aggregation": "trigger",
        "start": -0.2, "duration": 1.0,
        "stride": None, "summary_columns": ["text"], "num_workers": 0}
frame = evaluate_model(model, "eeg", "age", overrides={"data": data}, download=False,
                       prepare=False, debug=True)
assert len(frame) and frame["test/mae"].notna().all(), frame
"""
"""Program that tests a file with neuralbench, without downloads."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run_command):
    """Training runs of a ridge, keyed by the preparation of its two sessions."""
    pytest.importorskip("mne")
    with use_home(tmp_path_factory.mktemp("export")) as home:
        write_pictures(home / "data/image-folder")
        (home / "data/recordings").mkdir()
        for session in (1, 2):
            presentation = Presentation.randomize(4, seed=session)
            raw = annotate(
                make_raw(presentation, seed=session),
                presentation,
                list(presentation.pictures),
            )
            file = home / f"data/recordings/sub-01_ses-0{session}.fif"
            raw.save(file, verbose="ERROR")
        run_command("embed", *PICTURES)
        runs = {}
        for name, steps in STORES.items():
            run_command("prepare", "preparation.kind=recording", f"name={name}", *steps)
            signal_keys = NORMALISED if name == "plain" else ()
            runs[name] = run_command(
                "train-align",
                *PICTURES,
                *TRAINING,
                f"signal.name={name}",
                *signal_keys,
            ).folder
        yield runs


def export(run_folder, *arguments):
    """Export the model of a run to the folder `out`, and return its contract."""
    ended = brainhive("export", run_folder.name, "to=out", *arguments, "--json")
    assert ended.exit_code == 0, ended.stderr
    contract = json.loads(ended.stdout)["details"]
    assert contract == json.loads(Path("out/model.json").read_text("utf-8"))
    return contract


def compare_with_retrieval(run_folder, channels=slice(None), start=0):
    """Assert that the file gives the tokens that eval-retrieval compares.

    The file gets the test signals of the store without whitening.

    Args:
        run: Run of train-align.
        channels: Indices of the store's channels that the file takes.
        start: Sample of the store at which the window of the file starts.
    """
    align = open_model(str(run_folder), Paths())
    trained = align.open_first()
    person = open_test_set(align, "test").open_person(trained, 1)
    signal = person.recordings.open_recording(1, "test").averages
    whiteners = trained.history.whiteners
    if whiteners:
        signal = np.linalg.inv(whiteners[1][-1]) @ signal
    signal = torch.from_numpy(signal[:, channels, start:]).float()
    expected = trained.encode(person.trials)
    actual = torch.export.load("out/model.pt2").module()(signal)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
def test_an_exported_submission_needs_only_torch(runs, tmp_path):
    contract = export(runs["whitened"])

    assert contract["input"]["channels"] == list(CHANNELS)
    assert contract["input"]["unit"] == "µV"
    assert contract["output"]["shape"] == ["batch", 12]
    assert "whiten" in contract["model"]["spec"]["preparation"]
    compare_with_retrieval(runs["whitened"])

    # a process without Brainhive opens the submission, with reversed channels
    shutil.copytree("out", tmp_path, dirs_exist_ok=True)
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    signal = torch.randn(5, len(CHANNELS), 250, generator=torch.Generator())
    np.save(tmp_path / "signal.npy", signal.flip(1).numpy())
    names = ",".join(reversed(CHANNELS)).lower()
    signal_file, token_file = tmp_path / "signal.npy", tmp_path / "tokens.npy"
    arguments = [tmp_path, names, signal_file, token_file]
    subprocess.run(
        [sys.executable, "-I", "-c", SUBMITTED] + list(arguments), check=True
    )
    expected = torch.export.load("out/model.pt2").module()(signal)
    assert expected.shape == (5, 12)
    np.testing.assert_allclose(np.load(token_file), expected, rtol=1e-4, atol=1e-5)

    # whitening needs all its channels, in any order
    order = ",".join(reversed(CHANNELS))
    assert export(runs["whitened"], "--channels", order)["input"]["unit"] == "µV"
    compare_with_retrieval(runs["whitened"], np.arange(len(CHANNELS))[::-1])


@pytest.mark.nightly
def test_channels_rate_and_window_are_the_user_s(runs):
    # the window of the model is within that of the store
    recordings = open_model(str(runs["plain"]), Paths()).recordings
    times_ms = 1000 * recordings.open_recording(1, "test").times_s
    ends_ms = times_ms[5], times_ms[-1] + 4
    order = ",".join(reversed(CHANNELS))
    window = f"{ends_ms[0]:g},{ends_ms[1]:g}"
    contract = export(runs["plain"], "--channels", order, "--window", window)
    assert contract["input"]["shape"] == ["batch", 6, len(times_ms) - 5]
    assert contract["input"]["window_ms"] == pytest.approx(ends_ms)
    compare_with_retrieval(runs["plain"], np.arange(len(CHANNELS))[::-1], start=5)

    # a channel that is interpolated
    contract = export(
        runs["plain"], "--channels", "O1,O2,Pz,P7,Fp1", "channel_mapping=spline"
    )
    assert contract["input"]["shape"] == ["batch", 5, 175]

    # another rate
    contract = export(runs["plain"], "--rate", "120", "--window", "0,1000")
    assert contract["input"]["shape"] == ["batch", 6, 120]
    assert contract["input"]["rate_hz"] == 120


def test_what_cannot_be_folded_in_is_refused_by_name(runs):
    few_channels = ("--channels", "O1,O2,Pz", "channel_mapping=spline")
    for reference, arguments, exit_code, facts in (
        ("plain", ("--channels", "O1,O2"), 1, ("Fp1, Cz, P7, Pz",)),
        ("plain", few_channels, 1, ("3 sensors",)),
        ("whitened", few_channels, 2, ("Fp1",)),
        ("plain", ("--window", "300,900"), 1, ("samples", "175")),
        ("plain", ("subject=7",), 3, ("subject 7",)),
        ("plain", ("cell=other",), 2, ("'other'", "sub-01_seed-1")),
    ):
        ended = brainhive("export", runs[reference].name, *arguments)
        error, _ = read_error_lines(ended, exit_code)
        for fact in facts:
            assert fact in error


def test_scores_are_neuralbench_s_json(runs):
    export(runs["whitened"], "scores=true")
    scores = json.loads(Path("out/neuralbench.json").read_text("utf-8"))
    assert scores["seed"] == 1
    assert scores["brain_model_name"] == "ridge"
    # with two test pictures, the AUC is the share of trials whose picture comes first
    retrieval = "test/full_retrieval"
    auc = scores[f"{retrieval}/inv_norm_rank_mean"]
    assert auc == pytest.approx(scores[f"{retrieval}/top1_acc"])
    assert scores[f"{retrieval}/top5_acc_subject-agg"] == 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["ridge", "brain-mlp", "atm", "mindeye2"])
def test_every_backbone_takes_batches_of_any_size(kind, tmp_path):
    """The file is for the second subject, and has the maps of no other subject."""
    torch.manual_seed(0)
    are_voxels = kind == "mindeye2"
    names, samples, width = ((), 1, 6) if are_voxels else (tuple("ABCDE"), 100, 5)
    spec = SignalSpec(names, samples, (1, 3), (width + are_voxels, width))
    settings = {**parts.load("backbones", kind).TINY.model_dump(), "kind": kind}
    aligner = Aligner(Layout(spec, {"image": Head((4, 8), "image")}, settings)).eval()
    for parameter in aligner.parameters():
        parameter.data.normal_(0, 0.1)
    signal = torch.randn(3, width, samples)
    with torch.no_grad():
        expected = aligner.encode_signal(signal, torch.ones(3, dtype=torch.long))

    save_program(PortableModel(aligner, 3), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    module = program.module()
    torch.testing.assert_close(module(signal), expected)
    torch.testing.assert_close(module(signal.double()), expected)
    assert torch.isfinite(module(signal.half())).all()
    assert not any(".1." in name for name in program.state_dict if "ridge" in name)


def test_a_full_disk_is_no_fault_of_the_backbone():
    """The writer of PyTorch ends the process with SIGABRT if the disk is full."""
    spec = SignalSpec(("A", "B"), 4, (1,), (2,))
    aligner = Aligner(Layout(spec, {"a": Head((8,), "a")}, {"kind": "linear"})).eval()

    with pytest.raises(OSError) as caught:
        save_program(PortableModel(aligner, 1), Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_a_backbone_that_cannot_be_exported_is_named(tmp_path):
    spec = SignalSpec(("A", "B"), 4, (1,), (2,))
    aligner = Aligner(Layout(spec, {"a": Head((8,), "a")}, {"kind": "linear"}))
    module = PortableModel(aligner, 1)
    aligner.backbone.forward = lambda signal, index: signal[: int(signal.sum())]

    with pytest.raises(BrainhiveError, match="backbone linear"):
        save_program(module, tmp_path / "model.pt2")


def test_neuralbench_checks_and_evaluates_the_file(runs, tmp_path):
    """BRAINHIVE_NEURALBENCH is the Python 3.12 of an environment with neuralbench 0.4.0
    and a torch that fits its torchaudio (2.11).
    """
    python = os.environ.get("BRAINHIVE_NEURALBENCH")
    if not python:
        pytest.skip("BRAINHIVE_NEURALBENCH names no Python")
    export(runs["plain"], "--rate", "120", "--window", "-200,800")
    line = [python, "-c", CLIENT, "out/model.pt2", ",".join(CHANNELS), tmp_path]
    subprocess.run(line, check=True)
