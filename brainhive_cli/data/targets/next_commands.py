"""Command lines that make missing target stores and priors."""

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
    IMPORTED,
    USUAL,
    EncoderConfig,
    resolve,
)


def write_embed_commands(
    dataset: parts.Config, encoders: Sequence[EncoderConfig]
) -> str:
    """Write the lines that embed a data set by encoders, or by the default; own vectors
    are imported.
    """
    # there is no encoder for own vectors: a line for each of them, and one for the
    # others
    encoding = [config for config in encoders if config.kind != IMPORTED]
    flag = ("dataset", dataset)
    lines = (
        [Line("embed", flag, ("encoders", encoding))]
        if encoding or not encoders
        else []
    )
    vectors = [("as", config.name) for config in encoders if config.kind == IMPORTED]
    lines += [Line("import-embeddings", "FILE", flag, name) for name in vectors]
    return " && ".join(map(str, lines))


def keep_if_recorded(dataset: Any, paths: Paths) -> Any:
    """Give the data set if it has recordings, as train-align needs; else None."""
    return dataset if list_recorded_subjects(dataset.build(paths), paths) else None


def write_next_command(
    dataset: Any, encoders: Sequence[EncoderConfig], paths: Paths, *more: str
) -> str:
    """Write the line of the next step that has what it needs.

    That is `embed` where encoders have no embeddings of the training stimuli, else
    `train-align`; without recordings `train-prior`, which can embed by itself.

    Args:
        dataset: Its Config.
        encoders: Whose embeddings are next; none for those that are there, or else the
            default.
        paths: Where embeddings and signals lie.
        more: Further arguments of train-align.
    """
    built = dataset.build(paths)
    # without recordings there is nothing to align
    if not list_recorded_subjects(built, paths):
        return str(Line("train-prior", ("dataset", dataset), ("encoders", encoders)))
    # the encoders of the shelf whose embeddings of the training stimuli are there
    stores = sorted(
        (paths.under_home("embeddings") / built.name / "train").glob("*.h5")
    )
    known = [
        path.stem
        for path in stores
        if parts.is_kind("encoders", path.stem) or holds_own_vectors(path)
    ]
    chosen = encoders or [resolve(name) for name in known]
    # embeddings of the training stimuli come first, as train-align reads them
    if not chosen or not are_embedded(built, chosen, paths, ["train"]):
        if encoders:
            return write_embed_commands(dataset, encoders)
        suggested = ("encoders", suggest_encoders(dataset), SUGGESTED)
        return str(Line("embed", ("dataset", dataset), suggested))
    return str(Line("train-align", ("dataset", dataset), ("encoders", chosen), *more))


def suggest_encoders(dataset: parts.Config) -> list[str]:
    """Name an encoder that needs no network, where the usual ones of a data set do."""
    usual: Sequence[Any] = USUAL
    if isinstance(dataset, HasUsualEncoders) and dataset.usual_encoders:
        usual = dataset.usual_encoders
    if isinstance(dataset, HasOfflineEncoders) and dataset.offline_encoders:
        usual = dataset.offline_encoders
    if all(resolve(encoder).is_here for encoder in usual):
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
    """Whether there are stores of some encoders for some splits, or all where none are
    named.
    """
    root = paths.under_home("embeddings")
    return all(
        find_store(
            root, dataset.name, dataset.holdout.name_stored_split(split), config.name
        )[0].is_file()
        for split in splits or dataset.splits
        for config in encoders
    )


def write_prior_arguments(name: str, prior: str, dataset: Any = None) -> list[Any]:
    """Write the words that give a command a prior: a shipped recipe for it, or the
    prior itself.

    Args:
        name: The subcommand.
        prior: What the user calls the prior.
        dataset: Config of the data set in use. A recipe for another one lends its
            generator alone.
    """
    # a shipped recipe of this subcommand with this prior
    for file in sorted(shipped_recipes().rglob(f"{name}.yaml")):
        content = read_recipe(file)
        if content.get("prior") != prior:
            continue
        # a recipe at the top is the default, which needs no words
        below = file.parent.relative_to(shipped_recipes()).as_posix()
        if dataset is None or below == "." or _dataset_of(content) == dataset.kind:
            return [] if below == "." else [("recipe", below)]
        drawing = {
            key: content[key]
            for key in ("generator", "resolution_px")
            if key in content
        }
        return [
            ("prior", prior),
            *(f"{key}={write_value(value)}" for key, value in drawing.items()),
        ]
    return [("prior", prior)]


def _dataset_of(recipe: Mapping[str, Any]) -> str:
    """Name the kind of data set of a shipped recipe, or of the training whose run it
    takes.
    """
    # without a data set, it is that of the training whose run the recipe takes
    if "dataset" not in recipe and recipe.get("align_run"):
        training = str(recipe["align_run"]).partition(":")[0]
        recipe = read_recipe(shipped_recipes() / training / "train-align.yaml")
    reference = recipe.get("dataset", "")
    return str(reference["kind"] if isinstance(reference, Mapping) else reference)
