"""The set-up of an align run, by its recipe or model and its signals."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import cite, flatten
from brainhive_cli.data.datasets import PUBLISHED_FACTS, Dataset
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import USED_IN_CLOSED_FORM, Recipe

Fields = dict[str, Any]
DECIDE_NOTHING = {"paths", "run", "digests", "recipe_name", "published"} | {
    *("sweep", "ablations", "dataset", "subjects")
}
"""Sections of a recipe that a set-up says otherwise, or that change no number."""
SAID_OTHERWISE = {"signal.name", "signal.channels", "signal.window_ms", "train.stages"}
"""Keys that what was recorded says better; stages have keys of their own."""
SHORT = {"train.epochs": "epochs", "train.selection": "selection"}
"""Names of keys for readers."""
SELECTION = {"validation": "best", "last epoch": "last", "test": "test"}
"""Name in a recipe of each selection of the epoch that a model folder records."""
OF_FILES = ("source", "form", "simulated", "dtype")
"""Keys of the provenance of signals besides those of their preparation."""


def describe_recipe(recipe: Recipe, holdout: Holdout) -> Fields:
    """Give the keys of a recipe that decide a result, by the names that users write,
    and its papers.

    Args:
        recipe: The recipe.
        holdout: What the data set holds out; where trials of seen stimuli, none
            validate a training.
    """
    # settings that are read: terms have losses of their own, and a closed form has no
    # losses and no steps
    is_fitted = recipe.backbone.is_closed_form
    unread = {"loss", "terms"} if is_fitted else {"loss"} if recipe.terms else set()
    unread |= {"fuser"} if recipe.heads and not recipe.is_fused else set()
    fields = recipe.model_dump(mode="json", exclude=DECIDE_NOTHING | unread)
    fields["encoders"] = sorted(config.name for config in recipe.encoders)
    if recipe.mode != "finetune":
        del fields["finetune"]
    if is_fitted:
        fields["train"] = {
            key: fields["train"][key]
            for key in sorted(USED_IN_CLOSED_FORM & fields["train"].keys())
        }

    # stages by number, so that each of their keys is compared
    stages = {
        str(number): stage
        for number, stage in enumerate(fields["train"].get("stages", ()))
    }
    settings = {**flatten(fields), **flatten(stages, "train.stages")}

    # without validation the last epoch is kept
    if holdout.has_seen_pictures:
        settings["train.validation"] = 0.0
    if settings.get("train.selection") == "best" and not settings["train.validation"]:
        settings["train.selection"] = "last"
    known = {
        SHORT.get(key, key): value
        for key, value in settings.items()
        if key not in SAID_OTHERWISE
    }

    # papers of the method, its parts and its encoders
    trained = [] if is_fitted else [recipe.terms or recipe.loss, recipe.train]
    fuser = [recipe.fuser] if recipe.is_fused else []
    method = recipe.published.cites if recipe.published else []
    model = [
        *method,
        *parts.list_papers([recipe.backbone, *fuser, *trained, recipe.signal]),
    ]
    return known | cite(
        model=model, encoders=parts.list_papers([recipe.encoders, recipe.targets])
    )


def describe_model(
    layout: Layout, encoders: Sequence[EncoderConfig], signal: Signal
) -> Fields:
    """Give what a model folder knows of these keys."""
    # what a model folder records: backbone, similarity, subject layer and signals
    read = flatten(signal.model_dump(mode="json"), "signal")
    backbone = parts.resolve("backbones", layout.backbone)
    return {
        "encoders": sorted(config.name for config in encoders),
        **flatten(layout.backbone, "backbone"),
        "similarity": layout.similarity,
        "subject_layer": layout.subject_layer,
        **{key: value for key, value in read.items() if key not in SAID_OTHERWISE},
        **cite(
            model=parts.list_papers([backbone, signal]),
            encoders=parts.list_papers(list(encoders)),
        ),
    }


def describe_run(
    dataset: Dataset,
    subjects: Sequence[int],
    trained: Fields,
    signals: Sequence[Trials],
    origin: str = "",
) -> Fields:
    """Describe a training and its test on subjects of a data set.

    Args:
        dataset: Of the test.
        subjects: Who is tested.
        trained: What is said of the training.
        signals: Of each subject, cut to the channels and the window of the model; none
            where nothing fits.
        origin: Name of the data set of the training, where that is another one.
    """
    described = {"dataset": dataset.recorded_as, "subjects": [*subjects]}
    described |= {"trained_on_dataset": origin} if origin else {}
    return (
        described
        | trained
        | describe_signals(signals)
        | cite_data(dataset, signals, origin)
    )


def cite_data(dataset: Dataset, subjects: Sequence[Trials], origin: str = "") -> Fields:
    """Name the papers behind the data set of a test, that of the training, and the
    preparation of signals.
    """
    # a store of another version may name keys that its preparation no longer has
    signals: list[str] = []
    with suppress(BrainhiveError):
        signals = parts.list_papers(
            [
                parts.resolve("preparations", first.provenance.get("preparation"))
                for first in subjects[:1]
            ]
        )

    # papers of the recordings, of their stimuli, and of the data set of the training
    names = dict.fromkeys([dataset.recorded_as, dataset.pictured_as, origin])
    known = [PUBLISHED_FACTS[name] for name in names if name in PUBLISHED_FACTS]
    return cite(
        dataset=[key for published in known for key in published.cites], signals=signals
    )


def describe_signals(subjects: Sequence[Trials]) -> Fields:
    """Describe the signals of several subjects: channels, window, rate, repetitions,
    preparation.
    """
    if not subjects:
        return {}

    # shapes over all subjects
    first, widths = subjects[0], sorted({trials.width for trials in subjects})
    counts = np.concatenate([trials.counts for trials in subjects])
    times_ms, rate_hz = 1000 * first.times_s, first.rate_hz
    least_and_most = dict.fromkeys((widths[0], widths[-1]))
    channels: Any = f"{' to '.join(map(str, least_and_most))} voxels"
    if isinstance(first.space, Sensors):
        channels = list(first.space.names)

    # a window and a rate, where signals have more than one sample
    described = {"channels": channels}
    if rate_hz is not None:
        ends = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
        described |= {
            "window_ms": [round(float(end), 1) for end in ends],
            "rate_hz": rate_hz,
        }
    described["repetitions"] = [
        int(counts.min(initial=counts.max(initial=0))),
        int(counts.max(initial=0)),
    ]

    # how they were prepared, as far as their store says
    provenance = first.provenance
    preparation = dict(provenance.get("preparation", {}))
    preparation |= {key: provenance[key] for key in OF_FILES if key in provenance}
    return {**described, "unit": first.unit, **flatten(preparation, "preparation")}
