"""Command lines, as hints and messages show them."""

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.recipe_files import read, shipped
from brainhive_cli.encoders import EncoderConfig


def command(name: str, dataset: parts.Config | None, encoders: Sequence[EncoderConfig], *more: str) -> str:
    """Write a command line for a data set and encoders.

    Args:
        name: The subcommand.
        dataset: Its Config; None leaves it to the user.
        encoders: Their Configs; none for the command's default.
        more: Further arguments.
    """
    arguments = []
    if dataset is not None:
        what = write_part(dataset)
        arguments = ["--dataset", what] if "{" not in what else [f"dataset={what}"]
    return shlex.join(["brainhive", name, *arguments, *write_encoders(encoders), *more])


def only_if_recorded(dataset: Any, paths: Paths) -> Any:
    """Give the data set if it has recordings, as train-align needs; else None."""
    return dataset if dataset.build(paths).subjects else None


def next_command(dataset: Any, encoders: Sequence[EncoderConfig], paths: Paths) -> str:
    """Write the line that comes after embedding: train-prior where there are no recordings."""
    return command("train-align" if only_if_recorded(dataset, paths) else "train-prior", dataset, encoders)


def write_encoders(encoders: Sequence[EncoderConfig]) -> list[str]:
    """Write the arguments that name encoders; none for the default."""
    if not encoders:
        return []
    names = [write_part(config) for config in encoders]
    is_plain = all("{" not in name for name in names)
    return ["--encoders", ",".join(names)] if is_plain else [f"encoders=[{', '.join(names)}]"]


def write_prior(name: str, prior: str) -> list[str]:
    """Write the arguments that give a command a prior: a shipped recipe for it, or the prior itself.

    Args:
        name: The subcommand.
        prior: What the user calls the prior.
    """
    for file in sorted(shipped().rglob(f"{name}.yaml")):
        if read(file).get("prior") == prior:
            below = file.parent.relative_to(shipped()).as_posix()
            return [] if below == "." else ["--recipe", below]
    return ["--prior", prior]


def write_part(part: parts.Config) -> str:
    """Write a part as a recipe names it: by its kind, an encoder by its reference, else with its knobs."""
    knobs = part.model_dump(mode="json", exclude_defaults=True)
    kind = knobs.pop("kind")
    if not knobs:
        return str(kind)
    if kind in ("python", "reference") and list(knobs) == ["source"]:
        return str(knobs["source"])
    text: str = yaml.safe_dump(
        {"kind": kind, **knobs}, default_flow_style=True, sort_keys=False, width=10_000
    )
    return text.strip()
