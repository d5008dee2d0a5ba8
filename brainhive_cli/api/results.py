"""Results of commands that were run from Python."""

import os
from dataclasses import dataclass, fields
from typing import Self

from brainhive_cli.api.cards import draw_result_card, state_result
from brainhive_cli.core.runs import Result


@dataclass(frozen=True, repr=False)
class CommandResult(Result):
    """Result of a command that was run from Python.

    `print` writes its finding. The attributes `folder`, `tables`, `metrics`, `files`,
    `hint` and `details` are the same as those of the command line's `Result`.

    Examples:
        >>> result = api.run("report", runs=["EVALUATION"])
        >>> result.files["page"]
    """

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Copy the fields of a result of the command line."""
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        return cls(**values)

    def __str__(self) -> str:
        """Return the finding in words, with interval, chance level and caveats."""
        return state_result(self.metrics) or repr(self)

    def _repr_html_(self) -> str:
        """Return a card for a notebook: the finding, the main metrics and the page."""
        page = self.files.get("page")
        link = os.path.relpath(page) if page else ""
        return draw_result_card(str(self.folder), self.metrics, (), link)
