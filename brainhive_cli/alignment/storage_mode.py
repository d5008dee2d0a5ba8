"""In what form training signals are held: with single trials or not, in memory or mapped."""

from collections.abc import Sequence

from brainhive_cli.alignment.settings import Train
from brainhive_cli.core import console
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.device import free_bytes
from brainhive_cli.data.signal_stores import open_signals
from brainhive_cli.data.trials import StorageMode
from brainhive_cli.datasets import Dataset
from brainhive_cli.signals.section import Signal
from brainhive_cli.signals.selection import Selection


def form_of(
    dataset: Dataset, paths: Paths, signal: Signal, train: Train, subjects: Sequence[int], launch: Launch
) -> StorageMode:
    """Choose the form of the training signals of all `subjects`, whose stores are there.

    Raises:
        RecipeError: if repetitions are to be mixed that are taken one by one.
    """
    if signal.repetitions == "single" and train.augment.repetitions:
        raise RecipeError(
            "single trials cannot be mixed over repetitions", "signal.repetitions=average, or random"
        )
    _warn_of_idle(dataset, paths, signal, train, subjects)
    is_repeated = signal.repetitions != "average" or train.augment.repetitions > 0
    if train.memory_map != "auto":
        return StorageMode(is_repeated, train.memory_map == "yes")
    needed = sum(_bytes(dataset, paths, signal, subject, is_repeated) for subject in subjects)
    is_mapped = needed * launch.processes > free_bytes(launch.device) / 2
    if is_mapped:
        console.say(f"the signals need {needed / 1e9:.1f} GB, so they stay on disk")
    return StorageMode(is_repeated, is_mapped)


def _warn_of_idle(
    dataset: Dataset, paths: Paths, signal: Signal, train: Train, subjects: Sequence[int]
) -> None:
    """Warn of keys that do nothing with these recordings, or beside others."""
    if signal.normalise != "none" and signal.scale != 1:
        console.warn(
            f"signal.scale={signal.scale:g} has no effect beside signal.normalise={signal.normalise}"
        )
    recorded = [open_signals(dataset, paths, signal, subject)["train"] for subject in subjects]
    most = max((each.signal.shape[1] for each in recorded), default=0)
    least = {"single": 2, "random": signal.random_k + 1}.get(signal.repetitions, 0)
    idle = [f"signal.repetitions={signal.repetitions}"] if most < least else []
    idle += ["train.augment.repetitions"] if train.augment.repetitions and most < 2 else []
    if idle:
        console.warn(f"{' and '.join(idle)} has no effect: {dataset.name} has {most} repetition(s) a picture")


def _bytes(dataset: Dataset, paths: Paths, signal: Signal, subject: int, is_repeated: bool) -> int:
    recording = open_signals(dataset, paths, signal, subject)["train"]
    channels = signal.channels or dataset.channels
    count, most, *shape = Selection.of(recording, channels, signal.window_ms, 1.0, "").shape
    return 4 * count * (1 + most * is_repeated) * shape[0] * shape[1]
