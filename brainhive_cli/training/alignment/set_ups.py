"""The set-up of an align run, by its recipe or model and its signals, and how that of a paper differs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SIMULATED
from brainhive_cli.core.set_up import SetUp, differences, flatten
from brainhive_cli.core.sweep import variants
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.settings import Published

TrialsBySubject = Mapping[int, Trials]
"""By subject."""
Fields = dict[str, Any]
DECIDE_NOTHING = {"paths", "run", "digests", "recipe_name", "published"} | {
    *("sweep", "ablations", "dataset", "subjects")
}
"""Sections of a recipe that a set-up says otherwise, or that change no number."""
SAID_OTHERWISE = {"signal.name", "signal.channels", "signal.window_ms", "train.stages"}
"""Keys that what was recorded says better; stages have keys of their own."""
SHORT = {"train.epochs": "epochs", "train.selection": "selection"}
"""Names of keys for readers and in the section `published`."""
SELECTION = {"validation": "best", "last epoch": "last", "test": "test"}
"""Name in a recipe of each selection of the epoch that a model folder records."""
OF_FILES = ("source", "form", "simulated", "dtype")
"""Keys of the provenance of signals besides those of their preparation."""
STATED = ("dataset", "mode", "encoders", "epochs", "selection", "pool", "rate_hz", "repetitions", "unit")
"""Keys of `published` that have the same name in a set-up."""


def describe_recipe(recipe: Recipe) -> Fields:
    """Give the keys of a recipe that decide a result, by the names that users write."""
    # settings that can decide a result
    fields = recipe.model_dump(mode="json", exclude=DECIDE_NOTHING)
    fields["encoders"] = sorted(config.name for config in recipe.encoders)
    if recipe.mode != "finetune":
        del fields["finetune"]

    # stages by number, so that each of their keys is compared
    stages = {str(number): stage for number, stage in enumerate(fields["train"]["stages"])}
    settings = {**flatten(fields), **flatten(stages, "train.stages")}

    # without validation the last epoch is kept
    if recipe.train.selection == "best" and not recipe.train.validation:
        settings["train.selection"] = "last"
    return {SHORT.get(key, key): value for key, value in settings.items() if key not in SAID_OTHERWISE}


def describe_model(layout: Layout, encoders: Sequence[EncoderConfig], signal: Signal) -> Fields:
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
    recipe: Recipe, dataset: Dataset, recordings: TrialsBySubject, subjects: Sequence[int]
) -> Fields:
    """Describe a training by a recipe that is tested on subjects of its own data set.

    Raises:
        BrainhiveError: if the recordings do not have its channels, regions or window.
    """
    signals = _describe_recordings(dataset, recipe.signal, recordings)
    return {"dataset": dataset.recorded_as, "subjects": [*subjects], **describe_recipe(recipe), **signals}


def _describe_recordings(dataset: Dataset, signal: Signal, recordings: TrialsBySubject) -> Fields:
    """Describe what a model of a recipe reads of recordings, by subject."""
    return describe_signals(
        [
            signal.select(recording, dataset.channels, f"{dataset.name} subject {subject}")
            for subject, recording in recordings.items()
        ]
    )


def describe_signals(subjects: Sequence[Trials]) -> Fields:
    """Describe the signals of several subjects: channels, window, rate, repetitions, preparation."""
    if not subjects:
        return {}

    # shapes over all subjects
    first, widths = subjects[0], sorted({trials.width for trials in subjects})
    counts = np.concatenate([trials.counts for trials in subjects])
    times_ms, rate_hz = 1000 * first.times_s, first.rate_hz
    channels: Any = f"{' to '.join(str(width) for width in dict.fromkeys((widths[0], widths[-1])))} voxels"
    if isinstance(first.space, Sensors):
        channels = list(first.space.names)

    # a window and a rate, where signals have more than one sample
    described = {"channels": channels}
    if rate_hz is not None:
        ends = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
        described |= {"window_ms": [round(float(end), 1) for end in ends], "rate_hz": rate_hz}
    described["repetitions"] = [int(counts.min(initial=counts.max(initial=0))), int(counts.max(initial=0))]

    # how they were prepared, as far as their store says
    provenance = first.provenance
    preparation = dict(provenance.get("preparation", {}))
    preparation |= {key: provenance[key] for key in OF_FILES if key in provenance}
    return {**described, "unit": first.unit, **flatten(preparation, "preparation")}


def compare_with_published(
    published: Published | None,
    here: SetUp,
    dataset: Dataset,
    recordings: TrialsBySubject,
    caveats: Sequence[str],
    pool: int | None = None,
) -> Fields:
    """Return what was published, and all in which a run differs; empty if its recipe names nothing.

    Args:
        published: What the recipe says of it.
        here: The set-up of the run, or of one variant of a sweep.
        dataset: Whose signals it is tested on.
        recordings: These signals, by subject.
        caveats: Of these signals.
        pool: Number of candidates of retrieval; None before an evaluation.
    """
    # the statement of the recipe, and the keys that it leaves out
    if published is None:
        return {}
    keys = [key for key in STATED if key != "pool" or pool is not None]
    here = {**here, "pool": pool} if "pool" in keys else here
    stated = published.model_dump(mode="json", include={*keys, "backbone"}, exclude_none=True)
    if published.encoders is not None:
        stated["encoders"] = sorted(config.name for config in published.encoders)
    if published.repetitions is not None:
        stated["repetitions"] = [published.repetitions] * 2

    # keys that the published recipe answers need no statement; signals of one sample have no rate
    needed = {*keys, "backbone"}
    if published.recipe is not None:
        needed -= {"dataset", "mode", "encoders", "epochs", "selection", "backbone"}
    if recordings and "rate_hz" not in here:
        needed -= {"rate_hz"}
    said = [f"{key} not stated" for key in (*STATED, "backbone") if key in needed and key not in stated]
    said += [] if recordings else ["signals of the test not known"]

    # what a store does not say of its preparation, as one of files that others prepared, cannot be compared
    stated = flatten(stated) | flatten(published.preparation, "preparation")
    steps = {key for key in {*here} ^ {*stated} if key.startswith("preparation.")}
    here, stated = ({key: set_up[key] for key in set_up if key not in steps} for set_up in (here, stated))

    # the set-up of the published recipe, variant by variant
    bases: list[Fields] = [{}]
    if published.recipe is None:
        said.append("all other settings not stated")
    else:
        try:
            variant_bases = []
            for recipe in variants(Recipe.resolve("train-align", published.recipe, {}, ())).values():
                signals = _describe_recordings(dataset, recipe.signal, recordings)
                base = {"dataset": recipe.dataset.build(recipe.paths).recorded_as, **describe_recipe(recipe)}
                base |= {key: signals[key] for key in ("channels", "window_ms") if key in signals}
                variant_bases.append(base)
            bases = variant_bases
        except BrainhiveError as error:
            said.append(f"{published.recipe}: {error.message}")
    # what is stated lies over the recipe; a backbone that is stated replaces all knobs of the recipe's
    replaced = ("backbone.",) if "backbone.kind" in stated else ()
    base_differences = [
        differences(here, {key: base[key] for key in base if not key.startswith(replaced)} | stated)
        for base in bases
    ]

    # subjects
    subjects, there = here["subjects"], published.subjects
    about = "subjects not stated" if there is None else ""
    if there is not None and sorted(subjects) != sorted(there):
        about = f"subject{'s' if len(subjects) > 1 else ''} {', '.join(map(str, subjects))}"
        are_fewer = set(subjects) < set(there)
        about += f" of {len(there)}" if are_fewer else f", not {', '.join(map(str, there))}"

    # all differences: settings, subjects, signals and parts
    listed = [
        *said,
        *min(base_differences, key=len),  # of a sweep, by its nearest variant
        *filter(None, [about]),
        *(caveat for caveat in caveats if not (caveat == SIMULATED and dataset.is_simulated)),
        *(f"without {part}" for part in published.lacking),
    ]
    numbers = published.model_dump(include={"top1", "top5", "source"}, exclude_none=True)
    return {**numbers, "differs": listed}
