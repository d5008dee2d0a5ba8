"""Command lines of the next step, such as to embed pictures or train a prior."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from brainhive_cli.core.base import SUGGESTED, BrainhiveError, Line, write_value
from brainhive_cli.core.recipes import Paths, parts, read_recipe, shipped_recipes
from brainhive_cli.data.datasets import (
    Dataset,
    HasOfflineEncoders,
    HasUsualEncoders,
)
from brainhive_cli.data.signals import Holdout
from brainhive_cli.data.stores import (
    SignalStore,
    find_store,
    holds_own_vectors,
    list_recorded_subjects,
)
from brainhive_cli.data.stores.signal_store import build_store_path
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    IMPORTED,
    EncoderConfig,
    resolve,
)

MAX_LDA_FEATURES = 1000
"""Number of features per trial above which categories are decoded by ridge regression
instead of linear discriminant analysis (LDA).
"""
LABEL_RIDGE = {"kind": "ridge", "alpha": "auto", "standardise": False}
"""Ridge regression that predicts labels."""
MAX_TRIAL_FOLDS = 5
"""Largest number of folds if single trials are held out."""


def write_embed_commands(
    dataset: parts.Config, encoders: Sequence[EncoderConfig]
) -> str:
    """Write the command lines that embed a data set, joined by `&&`.

    Args:
        dataset: Config of the data set.
        encoders: Encoders, or none for the default. Imported vectors have no encoder,
            and get a line of import-embeddings each.
    """
    flag = ("dataset", dataset)
    networks = [config for config in encoders if config.kind != IMPORTED]
    lines = []
    if networks or not encoders:
        lines.append(Line("embed", flag, ("encoders", networks)))
    for config in encoders:
        if config.kind == IMPORTED:
            lines.append(Line("import-embeddings", "FILE", flag, ("as", config.name)))
    return " && ".join(map(str, lines))


def keep_if_recorded(dataset: Any, paths: Paths) -> Any:
    """Return the config of a data set if it has recordings, or None."""
    return dataset if list_recorded_subjects(dataset.build(paths), paths) else None


def write_next_command(
    dataset: Any, encoders: Sequence[EncoderConfig], paths: Paths, *arguments: str
) -> str:
    """Write the command line of the next step.

    It is `train-prior` without recordings, `embed` without embeddings of the training
    stimuli, and `train-align` otherwise.

    Args:
        dataset: Config of the data set.
        encoders: Encoders of the next step. If empty, all encoders with a store of the
            training stimuli.
        paths: Folders of embeddings and signals.
        arguments: Arguments of train-align.
    """
    flag = ("dataset", dataset)
    built = dataset.build(paths)
    if not list_recorded_subjects(built, paths):
        return str(Line("train-prior", flag, ("encoders", encoders)))
    ready_encoders = list(encoders)
    if not encoders:
        folder = paths.under_home("embeddings") / built.name / "train"
        for path in sorted(folder.glob("*.h5")):
            if parts.is_kind("encoders", path.stem) or holds_own_vectors(path):
                ready_encoders.append(resolve(path.stem))

    # categories have no test split, so some of their trials are held out
    has_test = built.holdout.name_stored_split("test") in built.splits
    if built.are_categories and not has_test:
        signal_name = "default"
        for argument in arguments:
            if argument.startswith("signal.name="):
                signal_name = argument.partition("=")[2]
        holdout, backbone = suggest_category_test(built, paths, signal_name)
        held_out = ("dataset", dataset.model_copy(update={"holdout": holdout}))
        contents = {config.content for config in ready_encoders}
        if contents == {"labels"}:
            arguments += (f"backbone={write_value(backbone)}", "seeds=0")
    else:
        held_out = flag

    # embeddings of the training stimuli come first, because train-align reads them
    if ready_encoders and are_embedded(built, ready_encoders, paths, ["train"]):
        return str(
            Line("train-align", held_out, ("encoders", ready_encoders), *arguments)
        )
    if encoders:
        return write_embed_commands(dataset, encoders)
    return str(Line("embed", flag, ("encoders", suggest_encoders(dataset), SUGGESTED)))


def suggest_category_test(
    dataset: Dataset, paths: Paths, signal_name: str = "default"
) -> tuple[Holdout, Any]:
    """Suggest how categories are decoded: the held-out trials, and a backbone.

    Runs are held out if each subject has several, otherwise sessions or single trials.
    The backbone is LDA, or a ridge for many features.

    Args:
        dataset: Data set of categories.
        paths: Folder of the signals.
        signal_name: Name of the stored signals.

    Returns:
        The holdout, and the value of the recipe key `backbone`.
    """
    recordings = []
    for subject in list_recorded_subjects(dataset, paths, signal_name):
        signals = paths.under_home("signals")
        path = build_store_path(signals, dataset.recorded_as, signal_name, subject)
        if path.is_file():
            recordings.append(SignalStore.open(path)["train"])

    # each of the runs or sessions that all subjects have is tested once
    holdout = None
    units: tuple[Literal["runs", "sessions"], ...] = ("runs", "sessions")
    for unit in units:
        counts = []
        for recording in recordings:
            with suppress(BrainhiveError):  # they are unknown
                groups = Holdout(by=unit, folds=2).number_groups(recording, "")
                counts.append(int(groups.max()) + 1)
        is_known = bool(counts) and len(counts) == len(recordings)
        if holdout is None and is_known and min(counts) > 1:
            holdout = Holdout(by=unit, folds=min(counts))
    if holdout is None:
        trial_counts = [int(recording.counts.min()) for recording in recordings]
        n_folds = min([MAX_TRIAL_FOLDS, *trial_counts])
        holdout = Holdout(by="trials", folds=max(2, n_folds))

    # LDA computes the covariance of the features, which takes minutes for many
    n_features = 0
    for recording in recordings:
        n_features = max(n_features, int(np.prod(recording.signal.shape[2:])))
    backbone = "lda" if n_features <= MAX_LDA_FEATURES else LABEL_RIDGE
    return holdout, backbone


def suggest_encoders(dataset: parts.Config) -> list[str]:
    """Suggest an encoder that is present if the usual encoders are absent.

    Returns:
        Name of the encoder, or an empty list if the usual encoders are present.
    """
    encoders: Sequence[Any] = DEFAULT_ENCODERS
    if isinstance(dataset, HasUsualEncoders) and dataset.usual_encoders:
        encoders = dataset.usual_encoders
    if isinstance(dataset, HasOfflineEncoders) and dataset.offline_encoders:
        encoders = dataset.offline_encoders
    if all(resolve(encoder).is_available for encoder in encoders):
        return []
    # the demo's networks have only seen the demo's pictures
    is_demo = parts.kind_from_file_name(dataset.kind).startswith("demo")
    return ["demo-clip" if is_demo else "lite0"]


def are_embedded(
    dataset: Dataset,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    splits: Sequence[str] | None = None,
) -> bool:
    """Return True if each encoder has a store of each split.

    Args:
        dataset: Data set.
        encoders: Encoders.
        paths: Folder of the embeddings.
        splits: Names of the splits. The default is all splits of the data set.
    """
    root = paths.under_home("embeddings")
    for split in splits or dataset.splits:
        stored_split = dataset.holdout.name_stored_split(split)
        for config in encoders:
            path, _ = find_store(root, dataset.name, stored_split, config.name)
            if not path.is_file():
                return False
    return True


def write_prior_arguments(name: str, prior: str, dataset: Any = None) -> list[Any]:
    """Write the arguments that give a command a prior.

    A shipped recipe with this prior is preferred. If it has another data set, only its
    generator is used.

    Args:
        name: Subcommand.
        prior: Reference of the prior, as the user writes it.
        dataset: Config of the data set in use.

    Returns:
        Arguments of `Line`. Empty if the default recipe has the prior.
    """
    root = shipped_recipes()
    for path in sorted(root.rglob(f"{name}.yaml")):
        recipe = read_recipe(path)
        if recipe.get("prior") != prior:
            continue
        if path.parent == root:  # the default recipe
            return []
        if dataset is None or _read_dataset_kind(recipe) == dataset.kind:
            return [("recipe", path.parent.relative_to(root).as_posix())]
        arguments: list[Any] = [("prior", prior)]
        for key in ("generator", "resolution_px"):
            if key in recipe:
                arguments.append(f"{key}={write_value(recipe[key])}")
        return arguments
    return [("prior", prior)]


def _read_dataset_kind(recipe: Mapping[str, Any]) -> str:
    """Return the kind of data set of a shipped recipe, or of the training that it names
    as `align_run`.
    """
    if "dataset" not in recipe and recipe.get("align_run"):
        training = str(recipe["align_run"]).partition(":")[0]
        recipe = read_recipe(shipped_recipes() / training / "train-align.yaml")
    dataset = recipe.get("dataset", "")
    return str(dataset["kind"] if isinstance(dataset, Mapping) else dataset)
