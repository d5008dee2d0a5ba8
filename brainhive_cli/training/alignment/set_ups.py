"""Describes the set-up of an align run: its recipe or model, and the signals that its cells are tested on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.set_up import flatten
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import Recording, Sensors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import Recipe

DECIDE_NOTHING = {"paths", "run", "digests", "published", "sweep", "ablations", "dataset", "subjects"}
"""Sections of a recipe that a set-up says otherwise, or that change no number."""
SAID_OTHERWISE = {"signal.name", "signal.channels", "signal.window_ms", "train.memory_map", "train.stages"}
"""Keys that what was recorded says better, or that change no number; stages have keys of their own."""
SHORT = {"train.epochs": "epochs", "train.selection": "selection"}
"""What readers and the section `published` call some keys."""
SELECTION = {"validation": "best", "last epoch": "last", "test": "test"}
"""What a recipe calls the way in which a model folder says that its epoch was selected."""
OF_FILES = ("source", "form", "simulated", "dtype")
"""What provenance says of signals besides the keys of their preparation."""


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Give the keys of a recipe that decide a result, by the names that users write."""
    fields = recipe.model_dump(mode="json", exclude=DECIDE_NOTHING)
    fields["encoders"] = sorted(config.name for config in recipe.encoders)
    if recipe.mode != "finetune":
        del fields["finetune"]
    stages = {str(number): stage for number, stage in enumerate(fields["train"]["stages"])}
    known = {**flatten(fields), **flatten(stages, "train.stages")}
    if recipe.train.selection == "best" and not recipe.train.validation:
        known["train.selection"] = "last"
    return {SHORT.get(key, key): value for key, value in known.items() if key not in SAID_OTHERWISE}


def describe_model(layout: Layout, encoders: Sequence[EncoderConfig], signal: Signal) -> dict[str, Any]:
    """Give what a model folder knows of these keys."""
    read = flatten(signal.model_dump(mode="json"), "signal")
    return {
        "encoders": sorted(config.name for config in encoders),
        **flatten(layout.backbone, "backbone"),
        "similarity": layout.similarity,
        "subject_layer": layout.subject_layer,
        **{key: value for key, value in read.items() if key not in SAID_OTHERWISE},
    }


def describe_run(
    recipe: Recipe, dataset: Dataset, recordings: Mapping[int, Recording], subjects: Sequence[int]
) -> dict[str, Any]:
    """Describe a training by a recipe that is tested on subjects of its own data set.

    Raises:
        BrainhiveError: if the recordings do not have its channels, regions or window.
    """
    signals = describe_signals(select(dataset, recipe.signal, recordings))
    return {"dataset": dataset.recorded_as, "subjects": [*subjects], **describe_recipe(recipe), **signals}


def select(dataset: Dataset, signal: Signal, recordings: Mapping[int, Recording]) -> list[Selection]:
    """Choose what a model of a recipe reads of recordings, by subject.

    Raises:
        BrainhiveError: if they do not have its channels, regions or window.
    """
    return [
        signal.select(recording, dataset.channels, f"{dataset.name} subject {subject}")
        for subject, recording in recordings.items()
    ]


def describe_signals(selections: Sequence[Selection]) -> dict[str, Any]:
    """Describe the signals of several subjects: channels, window, rate, repetitions, preparation."""
    if not selections:
        return {}
    first, widths = selections[0], sorted({each.shape[2] for each in selections})
    counts = np.concatenate([each.repetitions for each in selections])
    times_ms, rate_hz = 1000 * first.times_s, first.recording.rate_hz
    is_sensors = isinstance(first.recording.space, Sensors)
    voxels = f"{' to '.join(f'{width}' for width in dict.fromkeys((widths[0], widths[-1])))} voxels"
    window = [] if rate_hz is None else [times_ms[0], times_ms[-1] + 1000 / rate_hz]
    return {
        "channels": list(first.channels) if is_sensors else voxels,
        **({"window_ms": [round(float(end), 1) for end in window], "rate_hz": rate_hz} if window else {}),
        "repetitions": [int(counts.min(initial=counts.max(initial=0))), int(counts.max(initial=0))],
        **_preparation(first.recording),
    }


def _preparation(recording: Recording) -> dict[str, Any]:
    """Say how signals were prepared, as far as their store does."""
    provenance = recording.provenance
    steps = provenance.get("preparation")
    known = dict(steps) if isinstance(steps, Mapping) else {}
    known |= {key: provenance[key] for key in OF_FILES if key in provenance}
    return {"unit": recording.unit, **flatten(known, "preparation")}
