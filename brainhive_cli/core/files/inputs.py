"""Inputs of commands: the files, folders, models and libraries that they read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core.base import BrainhiveError, MissingData, Table, console
from brainhive_cli.core.files.files import find_unfetched, make_portable


@dataclass(frozen=True)
class Input:
    """A file, folder, model or library that a command reads.

    Attributes:
        name: Name of the input.
        size: Size of the download in bytes, or None if it is unknown or not needed.
        error: Error that says why the input cannot be used, with advice as its hint.
        line: Command line that downloads the input, or "".
        is_optional: True if the command also runs without the input.
        note: Text that is shown instead of the state, so the input never
            counts as missing.
        reference: Name of the input in recipes, or "" if it is the same as `name`.
        digest: Digest of the content for the fingerprint of the run, or "".
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
    def of_file(
        cls,
        present: Sequence[Path] | Path | None,
        path: Path,
        hint: str,
        size: int | None = None,
    ) -> Self:
        """Describe published files as an input.

        Args:
            present: File or files that were found on this machine, if any.
            path: Path where the files are expected, which is the name of the input.
            hint: Advice for the user if no file was found.
            size: Size of the download in bytes, or None if it is unknown.

        Returns:
            The input, with an error if no file was found, or if DataLad or Git LFS has
            not fetched the content of a file.
        """
        files = [present] if isinstance(present, Path) else present or []
        # the error about placeholders is None if all files have their content
        error = find_unfetched(files) if files else MissingData(f"no {path}", hint)
        download_size = size if error else None
        return cls(make_portable(str(path)), download_size, error)

    @property
    def is_missing(self) -> bool:
        """True if the user must provide the input before the command can run."""
        return self.error is not None and not self.is_optional and not self.note

    @property
    def state(self) -> str:
        """The note, or "here", "to download", "missing" or "missing (optional)"."""
        if self.note:
            return self.note
        if self.error is not None:
            return "missing (optional)" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return the input as a JSON object."""
        line = self.error.hint if self.error is not None else self.line
        return {
            "what": self.name,
            "bytes": self.size,
            "state": self.state,
            "line": line,
        }


def map_digests(inputs: Iterable[Input]) -> dict[str, str]:
    """Return the digests of inputs, keyed by the names of the inputs in recipes.

    Inputs without a digest are left out.
    """
    digests = {}
    for item in inputs:
        if item.digest:
            digests[item.reference or item.name] = item.digest
    return digests


def require_inputs(inputs: Iterable[Input]) -> None:
    """Raise the error of the first missing input, if any.

    Raises:
        BrainhiveError: if an input is missing.
    """
    for item in inputs:
        if item.error is not None and item.is_missing:
            raise item.error


def collect_inputs(
    *sources: Callable[[], Iterable[Input]], checks: Iterable[Callable[[], Any]] = ()
) -> list[Input]:
    """Collect the inputs of a command (files, data sets, weights) without duplicates.

    An error of a function becomes an input, unless a required input already reports it.

    Args:
        sources: Functions that return inputs.
        checks: Functions that raise an error if an input does not fit the settings.

    Returns:
        Inputs with distinct names. Only the first input of each name is kept.
    """
    functions: list[Callable[[], Iterable[Input]]] = list(sources)
    for check in checks:
        functions.append(partial(_run_check, check))

    # keep the first input of each name
    inputs_by_name: dict[str, Input] = {}
    for list_inputs in functions:
        try:
            new_inputs = list(list_inputs())
        except BrainhiveError as error:
            new_inputs = []
            if not _is_reported(error, inputs_by_name.values()):
                new_inputs.append(Input(error.message, error=error))
        for item in new_inputs:
            inputs_by_name.setdefault(item.name, item)
    return list(inputs_by_name.values())


def _run_check(check: Callable[[], Any]) -> list[Input]:
    """Call a check, and return no inputs."""
    check()
    return []


def _is_reported(error: BrainhiveError, inputs: Iterable[Input]) -> bool:
    """Return True if a required input has an error with the same message."""
    for item in inputs:
        if item.error is None or item.is_optional:
            continue
        if item.error.message == error.message:
            return True
    return False


def describe_missing(inputs: Iterable[Input]) -> list[str]:
    """Describe the missing inputs that the user must provide.

    Args:
        inputs: Inputs of a command.

    Returns:
        A line for each distinct hint, such as "no a.h5, and 2 more (download it)".
        Errors about missing data come last.
    """
    # errors about missing data come last, because invalid values are more urgent
    errors = []
    for item in inputs:
        if item.error is not None and item.is_missing:
            errors.append(item.error)
    errors.sort(key=lambda error: isinstance(error, MissingData))

    # collect the distinct messages of each hint
    messages_by_hint: dict[str, list[str]] = {}
    for error in errors:
        messages = messages_by_hint.setdefault(error.hint or error.message, [])
        if error.message not in messages:
            messages.append(error.message)

    lines = []
    for hint, messages in messages_by_hint.items():
        line = messages[0]
        if len(messages) > 1:
            line += f", and {len(messages) - 1} more"
        if hint != messages[0]:
            line += f" ({hint})"
        lines.append(line)
    return lines


def tabulate(
    inputs: Iterable[Input], published: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Make a table of the inputs of a command, with their size, state and licence.

    Args:
        inputs: Inputs of the command, such as data sets and weights.
        published: Licence ("licence") and gigabytes ("gb") of weights, by name
            of the input.
    """
    rows = []
    for item in inputs:
        weights = published.get(item.name, {}) if item.state != "here" else {}
        size = item.size or round(weights.get("gb", 0) * 1e9)
        size_text = console.size(size) if size else "–"
        rows.append((item.name, size_text, item.state, weights.get("licence", "–")))
    return Table("Inputs", ("what", "size", "state", "licence"), rows, is_list=True)
