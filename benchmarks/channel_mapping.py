"""What fewer channels cost a model of 63: top-1 on its own test signals, whole, and
mapped from 32 and 14.

The demo's pictures are seen by simulated subjects with a cap of 63 channels (BioSemi's
64 without Iz), whose scalp patterns lie all over the head. A model of each subject is
trained on all channels; its test signals are then cut to those of BioSemi's 32 and of
Emotiv's 14, and mapped back by each way that `channel_mapping` has. Beside it stands a
model that was trained on these channels alone. Two cores need half a minute.
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

from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.data.signals.spaces import Sensors, look_up_positions
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.demo import simulation
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.reports.head_maps import flatten_positions
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import TrainedRun, open_model

EMOTIV = (
    "AF3",
    "F7",
    "F3",
    "FC5",
    "T7",
    "P7",
    "O1",
    "O2",
    "P8",
    "T8",
    "FC6",
    "F4",
    "F8",
    "AF4",
)
ENCODER = "python:brainhive_cli.models.encoders.python:example"


def run(command: str, *overrides: str) -> Any:
    """Run a command on the CPU."""
    pipeline = importlib.import_module(f"brainhive_cli.commands.{command}")
    recipe = pipeline.Recipe.resolve(command.replace("_", "-"), None, {}, overrides)
    return pipeline.run(recipe, Launch(0, 1, torch.device("cpu")))


def train(subjects: int, epochs: int, names: Sequence[str]) -> TrainedRun:
    """Train a model of each subject on some channels."""
    training = run(
        *(
            "train_align",
            f"dataset={{kind: demo, subjects: {subjects}}}",
            f"encoders=[{ENCODER!r}]",
        ),
        *(
            "dim=64",
            "fuser.intermediate_size=64",
            "seeds=1",
            "signal.scale=0.2",
            "train.precision=fp32",
        ),
        *(f"train.epochs={epochs}", "train.batch_size=128", "train.lr=2e-3"),
        f"signal.channels=[{','.join(names)}]",
    )
    return open_model(str(training.folder), Paths())


def cut(recording: Trials, names: Sequence[str]) -> Trials:
    """Keep some channels."""
    rows = [recording.space.names.index(name) for name in names]
    return replace(
        recording,
        signal=np.asarray(recording.signal)[:, :, rows],
        space=Sensors(tuple(names)),
    )


def show_top1(
    align: TrainedRun, names: Sequence[str], kind: ChannelChoice, words: str
) -> None:
    """Print the share of test signals of some channels whose picture is first among all
    test pictures.
    """
    shares = []
    for cell in align.cells:
        (subject,), device = cell.tested_on, torch.device("cpu")
        member = TrainedModel(replace(align, channel_mapping=kind), cell, device)
        recording = cut(
            align.get_recordings(cell.variant).open_recording(subject, "test"), names
        )
        responses, gallery = (
            member.open_trials(subject, "test", recording=recording),
            member.find_rows("test"),
        )
        tokens = member.encode(responses)
        target = torch.from_numpy(np.searchsorted(gallery, responses.stimulus))
        shares.append(
            float(
                (
                    rank_targets(
                        tokens, member.encode_pictures("test", gallery), target
                    )
                    == 1
                )
                .float()
                .mean()
            )
        )
    figures = " ".join(f"{share:.3f}" for share in shares)
    print(f"{len(names):<10}{words:<10}{figures}  {np.mean(shares):.3f}")


def main() -> None:
    """Train the models, and print one row for each cap and way of mapping."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    # a cap of 63 channels, seen from above
    montages = {
        cap: mne.channels.make_standard_montage(cap).ch_names
        for cap in ("biosemi64", "biosemi32")
    }
    whole = [name for name in montages["biosemi64"] if name != "Iz"]
    places = flatten_positions(look_up_positions(whole))
    simulation.CHANNELS.clear()
    simulation.CHANNELS.update(
        {name: (x, y) for name, (x, y) in zip(whole, places.tolist(), strict=True)}
    )

    with tempfile.TemporaryDirectory() as home:
        os.environ["BRAINHIVE_HOME"] = home
        dataset = f"dataset={{kind: demo, subjects: {options.subjects}}}"
        run("embed", dataset, f"encoders=[{ENCODER!r}]")
        print(f"{'channels':<10}{'model':<10}top-1 by subject, and their mean")
        align = train(options.subjects, options.epochs, whole)
        show_top1(align, whole, "none", "of 63")
        for names in (montages["biosemi32"], EMOTIV):
            show_top1(align, names, "spline", "spline")
            show_top1(align, names, "common", "common")
            show_top1(
                train(options.subjects, options.epochs, names), names, "none", "trained"
            )


if __name__ == "__main__":
    main()
