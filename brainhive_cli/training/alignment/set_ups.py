"""Description of the set-up of an align run, for reports and comparisons."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results import SHORT_NAMES, call, cite, flatten
from brainhive_cli.data.datasets import Dataset, list_dataset_papers
from brainhive_cli.data.signals import Holdout, Signal, Trials
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import (
    CLOSED_FORM_TRAIN_KEYS,
    Recipe,
)

EXCLUDED_KEYS = {"signal.name", "signal.channels", "signal.window_ms", "train.stages"}
"""Keys that are replaced by facts of the signals, or by the keys of each stage."""


def describe_recipe(recipe: Recipe, holdout: Holdout) -> dict[str, Any]:
    """List the recipe keys that decide a result, and the papers of the method.

    Args:
        recipe: Recipe of the training, without a sweep.
        holdout: Holdout of the data set. If it tests seen stimuli, none validate.
    """
    # leave out keys that the training does not read
    is_closed_form = recipe.backbone.is_closed_form
    unread_keys = set()
    if is_closed_form:
        unread_keys |= {"loss", "terms"}
    elif recipe.terms:
        unread_keys.add("loss")
    if recipe.heads and not recipe.is_fused:
        unread_keys.add("fuser")
    # Recipe keys that change no number or are described in other words.
    excluded_sections = {
        "paths",
        "run",
        "digests",
        "recipe_name",
        "published",
        "sweep",
        "dataset",
        "subjects",
    }
    fields = recipe.model_dump(mode="json", exclude=excluded_sections | unread_keys)
    fields["encoders"] = sorted(config.name for config in recipe.encoders)
    if recipe.mode != "finetune":
        del fields["finetune"]
    if is_closed_form:
        train = fields["train"]
        train_keys = sorted(CLOSED_FORM_TRAIN_KEYS & train.keys())
        fields["train"] = {key: train[key] for key in train_keys}

    # key stages by number, so that each key of a stage is compared
    numbered_stages = enumerate(fields["train"].get("stages", ()))
    stages = {str(number): stage for number, stage in numbered_stages}
    settings = flatten(fields) | flatten(stages, "train.stages")

    # without validation the last epoch is kept
    if holdout.has_seen_pictures:
        settings["train.validation"] = 0.0
    if settings.get("train.selection") == "best" and not settings["train.validation"]:
        settings["train.selection"] = "last"
    set_up = {
        SHORT_NAMES.get(key, key): value
        for key, value in settings.items()
        if key not in EXCLUDED_KEYS
    }

    # papers of the method, its parts and its encoders
    method_papers = list(recipe.published.cites) if recipe.published else []
    method_parts: list[object] = [recipe.backbone]
    if recipe.is_fused:
        method_parts.append(recipe.fuser)
    if not is_closed_form:
        method_parts += [recipe.terms or recipe.loss, recipe.train]
    method_parts.append(recipe.signal)
    set_up |= cite(
        model=method_papers + parts.list_papers(method_parts),
        encoders=parts.list_papers([recipe.encoders, recipe.targets]),
    )

    # words for the parts that the training used
    set_up |= call_model(recipe.backbone, recipe.signal)
    if "loss.kind" in set_up:
        set_up |= call(loss=recipe.loss.called)
    has_several = len(recipe.encoders) > 1
    if "fuser.kind" in set_up and (has_several or recipe.fuser.changes_one):
        set_up |= call(fuser=recipe.fuser.called)
    return set_up


def call_model(backbone: BackboneConfig, signal: Signal) -> dict[str, str]:
    """Put the backbone, its fit and the normalisation of its signals into words."""
    fit = ""
    if backbone.is_classifier:
        fit = "classifier"
    elif backbone.is_closed_form:
        fit = "closed form"
    normalise = signal.normalise.called if signal.normalise else ""
    return call(model=backbone.called, fit=fit, normalise=normalise)


def describe_model(
    layout: Layout, encoders: Sequence[EncoderConfig], signal: Signal
) -> dict[str, Any]:
    """List the recipe keys that a model folder records, and the papers of the method.

    Args:
        layout: Architecture of the model.
        encoders: Encoders whose embeddings the model predicts.
        signal: Selection of the signals that the model reads.
    """
    set_up = {
        "encoders": sorted(config.name for config in encoders),
        **flatten(layout.backbone, "backbone"),
        "similarity": layout.similarity,
        "subject_layer": layout.subject_layer,
    }
    signal_keys = flatten(signal.model_dump(mode="json"), "signal")
    set_up |= {key: signal_keys[key] for key in signal_keys if key not in EXCLUDED_KEYS}
    set_up |= call_model(layout.backbone_config, signal)
    return set_up | cite(
        model=parts.list_papers([layout.backbone_config, signal]),
        encoders=parts.list_papers(list(encoders)),
    )


def describe_run(
    dataset: Dataset,
    subjects: Sequence[int],
    training: dict[str, Any],
    signals: Sequence[Trials],
    origin: str = "",
) -> dict[str, Any]:
    """Describe a training and its test on subjects of a data set.

    Args:
        dataset: Data set of the test.
        subjects: Numbers of the tested subjects.
        training: Description of the training.
        signals: Signals of each subject, cut to the channels and the window of the
            model. Empty if no signals fit the model.
        origin: Name of the data set of the training, if it is another one.
    """
    set_up: dict[str, Any] = {
        "dataset": dataset.recorded_as,
        "subjects": list(subjects),
    }
    if origin:
        set_up["trained_on_dataset"] = origin
    set_up |= training | describe_signals(signals)

    # papers of the recordings, of the stimuli, and of the data set of the training
    names = [dataset.recorded_as, dataset.pictured_as, origin]
    set_up |= cite(dataset=list_dataset_papers(names))

    # stores of an older version may hold keys that their preparation no longer has
    with suppress(BrainhiveError):
        if signals:
            keys = signals[0].provenance.get("preparation")
            preparation = parts.resolve("preparations", keys)
            set_up |= cite(signals=parts.list_papers([preparation]))
            set_up |= call(signals=preparation.called)
    return set_up


def describe_signals(subjects: Sequence[Trials]) -> dict[str, Any]:
    """Describe signals by channels, window, rate, repetitions, unit and preparation.

    Args:
        subjects: Signals of each subject. Numbers of voxels and repetitions are over
            all, other facts from the first.
    """
    if not subjects:
        return {}

    # names of sensors, or numbers of voxels
    first = subjects[0]
    if first.space.has_names:
        channels: Any = list(first.space.names)
    else:
        widths = [trials.width for trials in subjects]
        extremes = dict.fromkeys([min(widths), max(widths)])
        channels = f"{' to '.join(map(str, extremes))} voxels"
    set_up = {"channels": channels}

    # a window and a rate, if signals have more than one sample
    if first.rate_hz is not None:
        times_ms = 1000 * first.times_s
        window_ms = (times_ms[0], times_ms[-1] + 1000 / first.rate_hz)
        set_up["window_ms"] = [round(float(end), 1) for end in window_ms]
        set_up["rate_hz"] = first.rate_hz
    counts = np.concatenate([trials.counts for trials in subjects])
    most = int(counts.max(initial=0))
    set_up["repetitions"] = [int(counts.min(initial=most)), most]

    # facts that the store records about the preparation
    provenance = first.provenance
    # Keys of a store's provenance that are listed as keys of the preparation.
    recorded_keys = [
        key for key in ("source", "form", "simulated", "dtype") if key in provenance
    ]
    preparation = dict(provenance.get("preparation", {}))
    preparation |= {key: provenance[key] for key in recorded_keys}
    return {**set_up, "unit": first.unit, **flatten(preparation, "preparation")}
