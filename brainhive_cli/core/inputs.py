"""Inputs of a command: what it reads, whether that is here, and how it is had;
`--check` lists them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import portable
from brainhive_cli.core.tables import Table


@dataclass(frozen=True)
class Input:
    """One thing that a command reads.

    Attributes:
        name: What it is.
        reference: What recipes name it by, where that is not its name.
        digest: Of its content, where that is part of the fingerprint of the command's
            run.
        size: Bytes to get, where they are known; None of what is here.
        error: Why it cannot be used, with the line that gets it; None of what is here,
            and of what the command fetches by itself.
        line: The line that fetches it ahead of the command, where that was not done
            yet.
        is_optional: Whether the command does without.
        note: What is said of it instead of its state: nothing is missing of what has a
            note.
    """

    name: str
    size: int | None = None
    error: BrainhiveError | None = None
    line: str = ""
    is_optional: bool = False
    note: str = ""
    reference: str = ""
    digest: str = ""

    @classmethod
    def of(cls, name: str, look: Callable[[], Any], size: int | None = None) -> Self:
        """Look for something by what raises an error of ours where it is absent; `size`
        is known before.
        """
        try:
            look()
        except BrainhiveError as error:
            return cls(name, size, error)
        return cls(name)

    @classmethod
    def of_file(
        cls,
        present: Sequence[Path] | Path | None,
        path: Path,
        way: str,
        size: int | None = None,
    ) -> Self:
        """Describe files of a publisher, by those that were found and the path where
        they are expected.
        """
        name = portable(str(path))
        return cls(name) if present else cls(name, size, MissingData(f"no {path}", way))

    @property
    def is_missing(self) -> bool:
        """Whether somebody has to get it before the command can run."""
        return self.error is not None and not self.is_optional and not self.note

    @property
    def state(self) -> str:
        """State in words."""
        # the first that applies: a note, an absence, a download
        if self.note:
            return self.note
        if self.error is not None:
            return "missing; done without" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        line = self.error.hint if self.error is not None else self.line
        return {
            "what": self.name,
            "bytes": self.size,
            "state": self.state,
            "line": line,
        }


def digests_of(inputs: Iterable[Input]) -> dict[str, str]:
    """Give the digests of those whose content is part of a fingerprint, by what recipes
    name them.
    """
    return {one.reference or one.name: one.digest for one in inputs if one.digest}


def require(inputs: Iterable[Input]) -> None:
    """Raise the error of the first that is missing."""
    for one in inputs:
        if one.error is not None and one.is_missing:
            raise one.error


def list_inputs(module: Any, recipe: Any) -> list[Input]:
    """List the inputs of a command, by its module; what is absent where none can be
    listed yet is one.

    Raises:
        RecipeError: if the recipe does not hold.
    """
    try:
        return [*module.inputs(recipe)]
    except MissingData as error:
        # other inputs cannot be listed before this one is there
        return [Input(error.message, None, error)]


def collect(
    *sources: Callable[[], Iterable[Input]], checks: Iterable[Callable[[], Any]] = ()
) -> list[Input]:
    """List the inputs of several sources, each once.

    Args:
        sources: List them; an error that one raises is an absent input.
        checks: Open what is listed; an error that none of the inputs has is an absent
            input, too.
    """
    # by name, as several sources may list the same input
    listed: dict[str, Input] = {}
    # checks come last, since they open what the sources list
    every: list[Callable[[], Iterable[Input]]] = [
        *sources,
        *(partial(_open, check) for check in checks),
    ]
    for look in every:
        try:
            inputs = [*look()]
        except BrainhiveError as error:
            # an error that a listed input has already is the same absence
            known = {
                one.error.message for one in listed.values() if one.error is not None
            }
            inputs = (
                [] if error.message in known else [Input(error.message, None, error)]
            )
        for one in inputs:
            listed.setdefault(one.name, one)
    return [*listed.values()]


def _open(check: Callable[[], Any]) -> list[Input]:
    check()
    return []


def describe_missing(inputs: Iterable[Input]) -> list[str]:
    """Write a line for each way to get what is missing: the first that it gets, and how
    many more.
    """
    # messages by the way out that they share, each once and in order
    way_messages: dict[str, dict[str, None]] = {}
    errors = [one.error for one in inputs if one.error is not None and one.is_missing]
    # problems of another kind come before missing data
    for error in sorted(errors, key=lambda error: isinstance(error, MissingData)):
        way_messages.setdefault(error.hint or error.message, {})[error.message] = None

    # a line for each way out
    written = []
    for way, (first, *further) in way_messages.items():
        rest = f", and {len(further)} more" if further else ""
        written.append(f"{first}{rest} ({way})" if way != first else first)
    return written


def tabulate(
    inputs: Iterable[Input], published: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Lay inputs out for people, as rows below one another where a terminal is narrow.

    Args:
        inputs: What is listed.
        published: Licence and size (`gb`) of published weights, by name.
    """
    rows = []
    for one in inputs:
        # licence and size matter for what is still to be fetched
        known = published.get(one.name, {}) if one.state != "here" else {}
        size = one.size or round(known.get("gb", 0) * 1e9)
        rows.append(
            (
                one.name,
                console.size(size) if size else "–",
                one.state,
                known.get("licence", "–"),
            )
        )
    return Table("Inputs", ("what", "size", "state", "licence"), rows, is_list=True)
