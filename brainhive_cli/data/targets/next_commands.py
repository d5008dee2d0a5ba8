"""Command lines of the next step, such as to embed pictures or train a prior."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainhive_cli.core import parts
from brainhive_cli.core.errors import (
    SUGGESTED,
    Line,
    write_value,
)
from brainhive_cli.core.recipe import Paths, read_recipe, shipped_recipes
from brainhive_cli.data.datasets import (
    Dataset,
    HasOfflineEncoders,
    HasUsualEncoders,
)
from brainhive_cli.data.stores.recordings import list_recorded_subjects
from brainhive_cli.data.stores.target_store import find_store, holds_own_vectors
from brainhive_cli.models.encoders import (
    DEFAULT_ENCODERS,
    IMPORTED,
    EncoderConfig,
    resolve,
)


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

    # embeddings of the training stimuli come first, because train-align reads them
    if ready_encoders and are_embedded(built, ready_encoders, paths, ["train"]):
        return str(Line("train-align", flag, ("encoders", ready_encoders), *arguments))
    if encoders:
        return write_embed_commands(dataset, encoders)
    return str(Line("embed", flag, ("encoders", suggest_encoders(dataset), SUGGESTED)))


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
