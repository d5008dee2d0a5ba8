"""Top-1 of models of 63 channels on test signals of 63, 32 and 14 channels.

Simulated subjects see the demo's pictures with a cap of 63 channels (BioSemi's 64
without Iz), with scalp patterns all over the head. A model of each subject is trained
on all channels. Its test signals are then reduced to the channels of BioSemi's 32 and
of Emotiv's 14, and mapped back by each method of `channel_mapping`. For comparison, a
model is trained on these channels alone. Two cores need half a minute.
"""

import argparse
import importlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mne
import numpy as np
import torch

from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.spaces import Sensors, look_up_positions
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.reports.figures.head_maps import flatten_positions
from brainhive_cli.training.alignment.trained.models import TrainedModels
from brainhive_cli.training.alignment.trained.picture_targets import open_targets
from brainhive_cli.training.alignment.trained.run import open_model
from brainhive_cli.training.alignment.trained.test_set import open_test_set

EMOTIV = "AF3 F7 F3 FC5 T7 P7 O1 O2 P8 T8 FC6 F4 F8 AF4".split()
ENCODER = "python:brainhive_cli.models.encoders.python:example"
TRAINING = (
    f"encoders=[{ENCODER!r}]",
    "dim=64",
    "fuser.intermediate_size=64",
    "seeds=1",
    "signal.scale=0.2",
    "train.precision=fp32",
    "train.batch_size=128",
    "train.lr=2e-3",
)
CPU = torch.device("cpu")


def run_on_cpu(command: str, *overrides: str) -> Any:
    """Run a command on the CPU, and return its result."""
    pipeline = importlib.import_module(f"brainhive_cli.commands.{command}")
    recipe = pipeline.Recipe.resolve(command.replace("_", "-"), None, {}, overrides)
    return pipeline.run(recipe, Launch(0, 1, CPU))


def train(subjects: int, epochs: int, channels: Sequence[str]) -> TrainedModels:
    """Train a model of each subject on signals of some channels."""
    training = run_on_cpu(
        "train_align",
        f"dataset={{kind: demo, subjects: {subjects}}}",
        f"train.epochs={epochs}",
        f"signal.channels=[{','.join(channels)}]",
        *TRAINING,
    )
    return open_model(str(training.folder), Paths())


def select_channels(recording: Trials, channels: Sequence[str]) -> Trials:
    """Reduce a recording to some channels."""
    rows = [recording.space.names.index(name) for name in channels]
    signal = np.asarray(recording.signal)[:, rows]
    return replace(recording, signal=signal, space=Sensors(tuple(channels)))


def show_top1(
    align: TrainedModels, channels: Sequence[str], kind: ChannelChoice, label: str
) -> None:
    """Print the top-1 of each subject among all test pictures, and their mean."""
    accuracies = []
    tests = open_test_set(replace(align, channel_mapping=kind), "test")
    rows = tests.find_rows("test")
    for model in tests.models[0]:
        subject = model.cell.tested_on[0]
        person = tests.open_person(model, subject)
        recording = person.recordings.open_recording(subject, "test")
        responses = person.read_recording(select_channels(recording, channels))
        tokens = model.encode(responses)
        targets = open_targets(tests, model, "test")
        gallery = model.encode_pictures(targets, rows)
        target = torch.from_numpy(np.searchsorted(rows, responses.stimulus))
        is_hit = rank_targets(tokens, gallery, target) == 1
        accuracies.append(float(is_hit.float().mean()))
    figures = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    print(f"{len(channels):<10}{label:<10}{figures}  {np.mean(accuracies):.3f}")


def main() -> None:
    """Train the models, and print a row for each cap and method of mapping."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    # simulate a cap of 63 channels, whose positions are seen from above
    biosemi_64 = mne.channels.make_standard_montage("biosemi64").ch_names
    biosemi_32 = mne.channels.make_standard_montage("biosemi32").ch_names
    cap = [name for name in biosemi_64 if name != "Iz"]
    positions = flatten_positions(look_up_positions(cap))
    simulation.CHANNELS.clear()
    for name, (x, y) in zip(cap, positions.tolist(), strict=True):
        simulation.CHANNELS[name] = (x, y)

    with tempfile.TemporaryDirectory() as home:
        os.environ["BRAINHIVE_HOME"] = home
        dataset = f"dataset={{kind: demo, subjects: {options.subjects}}}"
        run_on_cpu("embed", dataset, f"encoders=[{ENCODER!r}]")
        print(f"{'channels':<10}{'model':<10}top-1 by subject, and their mean")
        align = train(options.subjects, options.epochs, cap)
        show_top1(align, cap, "none", "of 63")
        for channels in (biosemi_32, EMOTIV):
            show_top1(align, channels, "spline", "spline")
            show_top1(align, channels, "common", "common")
            reduced_align = train(options.subjects, options.epochs, channels)
            show_top1(reduced_align, channels, "none", "trained")


if __name__ == "__main__":
    main()
