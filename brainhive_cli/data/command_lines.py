"""Command lines, as hints and messages show them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths, read_recipe, shipped_recipes
from brainhive_cli.data.datasets import Dataset, stored_split
from brainhive_cli.data.signal_stores import recorded_subjects
from brainhive_cli.data.stores.target_store import find, holds_own_vectors
from brainhive_cli.models.encoders import IMPORTED, EncoderConfig, is_own_name, resolve


def command(name: str, dataset: parts.Config | None, encoders: Sequence[EncoderConfig], *more: str) -> str:
    """Write a command line for a data set and encoders; own vectors are imported where others are embedded.

    Args:
        name: The subcommand.
        dataset: Its Config; None leaves it to the user.
        encoders: Their Configs; none for the command's default.
        more: Further arguments.
    """
    # the data set
    arguments = []
    if dataset is not None:
        what = write_part(dataset)
        arguments = ["--dataset", what] if "{" not in what else [f"dataset={what}"]

    # embed has no encoder for own vectors: a line for each of them, and one for the others
    own = [config for config in encoders if name == "embed" and config.kind == IMPORTED]
    lines = [
        shlex.join(["brainhive", "import-embeddings", "FILE", *arguments, "--as", config.name])
        for config in own
    ]
    if len(others := [config for config in encoders if config not in own]) or not own:
        lines.insert(0, shlex.join(["brainhive", name, *arguments, *write_encoders(others), *more]))
    return " && ".join(lines)


def only_if_recorded(dataset: Any, paths: Paths) -> Any:
    """Give the data set if it has recordings, as train-align needs; else None."""
    return dataset if recorded_subjects(dataset.build(paths), paths) else None


def next_command(dataset: Any, encoders: Sequence[EncoderConfig], paths: Paths, *more: str) -> str:
    """Write the line of the next step that has what it needs.

    That is `embed` where encoders have no embeddings of the training stimuli, else `train-align`; without
    recordings `train-prior`, which can embed by itself.

    Args:
        dataset: Its Config.
        encoders: Whose embeddings are next; none for those that are there, or else the default.
        paths: Where embeddings and signals lie.
        more: Further arguments of train-align.
    """
    built = dataset.build(paths)
    if not recorded_subjects(built, paths):
        return command("train-prior", dataset, encoders)
    # the encoders of the shelf whose embeddings of the training stimuli are there
    stores = sorted((paths.under_home("embeddings") / built.name / "train").glob("*.h5"))
    known = [path.stem for path in stores if parts.is_kind("encoders", path.stem) or holds_own_vectors(path)]
    chosen = encoders or [resolve(name) for name in known]
    if not chosen or not are_embedded(built, chosen, paths.under_home("embeddings"), ["train"]):
        return command("embed", dataset, encoders)
    return command("train-align", dataset, chosen, *more)


def are_embedded(
    dataset: Dataset, encoders: Sequence[EncoderConfig], root: Path, splits: Sequence[str] | None = None
) -> bool:
    """Whether there are stores of some encoders below `root` for some splits, or all where none are named."""
    return all(
        find(root, dataset.name, stored_split(dataset, split), config.name)[0].is_file()
        for split in splits or dataset.splits
        for config in encoders
    )


def write_encoders(encoders: Sequence[EncoderConfig]) -> list[str]:
    """Write the arguments that name encoders; none for the default."""
    if not encoders:
        return []
    names = [write_part(config) for config in encoders]
    is_plain = all("{" not in name for name in names)
    return ["--encoders", ",".join(names)] if is_plain else [f"encoders=[{', '.join(names)}]"]


def write_prior(name: str, prior: str, dataset: Any = None) -> list[str]:
    """Write the arguments that give a command a prior: a shipped recipe for it, or the prior itself.

    Args:
        name: The subcommand.
        prior: What the user calls the prior.
        dataset: Config of the data set in use. A recipe for another one lends its generator alone.
    """
    for file in sorted(shipped_recipes().rglob(f"{name}.yaml")):
        content = read_recipe(file)
        if content.get("prior") != prior:
            continue
        below = file.parent.relative_to(shipped_recipes()).as_posix()
        if dataset is None or below == "." or _dataset_of(content) == dataset.kind:
            return [] if below == "." else ["--recipe", below]
        drawing = {key: content[key] for key in ("generator", "resolution_px") if key in content}
        return ["--prior", prior, *(f"{key}={write_value(value)}" for key, value in drawing.items())]
    return ["--prior", prior]


def _dataset_of(recipe: Mapping[str, Any]) -> str:
    """Name the kind of data set of a shipped recipe, or of the training whose run it takes."""
    if "dataset" not in recipe and recipe.get("align_run"):
        training = str(recipe["align_run"]).partition(":")[0]
        recipe = read_recipe(shipped_recipes() / training / "train-align.yaml")
    named = recipe.get("dataset", "")
    return str(named["kind"] if isinstance(named, Mapping) else named)


def write_part(part: parts.Config) -> str:
    """Write a part as a recipe names it: by its kind, an encoder by its reference, else with its knobs."""
    knobs = part.model_dump(mode="json", exclude_defaults=True)
    kind = knobs.pop("kind")
    if not knobs:
        return str(kind)
    is_named = kind in ("python", "reference") or (kind == IMPORTED and is_own_name(knobs["source"]))
    if is_named and list(knobs) == ["source"]:
        return str(knobs["source"])
    return write_value({"kind": kind, **knobs})


def write_value(value: Any) -> str:
    """Write a value as an override takes it, in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()
