"""Comparison of runs, as the command `compare` makes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.arguments import check_path, refuse
from brainhive_cli.api.runs import Run

if TYPE_CHECKING:
    from brainhive_cli.reports.tables import RunGroup


@dataclass(frozen=True)
class Comparison:
    """Differences between runs that were compared.

    Attributes:
        groups: Groups of runs of the same command, with the differences between them.

    Examples:
        >>> comparison = api.compare("EVALUATION", "OTHER", labels=["a", "b"])
        >>> comparison.differences[0]["difference"]
    """

    groups: "list[RunGroup]"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Paired differences between runs, each a dict with its statistical test."""
        rows = []
        for group in self.groups:
            for pair in group.differences:
                # `p` is a property, so `model_dump` leaves it out
                rows.append(pair.model_dump() | {"p": pair.p})
        return rows

    def __repr__(self) -> str:
        """Return the number of runs and of differences."""
        n_runs = sum(len(group.runs) for group in self.groups)
        return f"<Comparison of {n_runs} runs: {len(self.differences)} differences>"

    def __str__(self) -> str:
        """Return a sentence on each difference, and why runs were not compared."""
        from brainhive_cli.reports.sentences.sentences import describe_differences

        lines = []
        for group in self.groups:
            lines += describe_differences(group)
            lines += [f"Not compared: {reason}." for reason in group.refusals]
        return "\n".join(lines or [repr(self)])

    def _repr_html_(self) -> str:
        """Return the table of each group, with its caption, as HTML for a notebook."""
        from brainhive_cli.reports.pages.page import frame_table
        from brainhive_cli.reports.tables import paper_table

        tables = []
        for group in self.groups:
            reasons = [f"Not compared: {reason}." for reason in group.refusals]
            tables.append(frame_table(paper_table(group), reasons))
        return "\n".join(tables)


def compare(*runs: "Run | str | Path", labels: "list[str] | None" = None) -> Comparison:
    """Compare runs as the command `compare` does, without writing files.

    Args:
        runs: Two or more runs. Each is an open `Run`, or a name or path for `open_run`.
        labels: Labels of the runs, in the order of `runs`. If None, the settings in
            which the runs differ.

    Returns:
        The comparison of the first run with each other run.

    Raises:
        BrainhiveError: if a run does not exist, or if no two runs can be compared.

    Examples:
        >>> comparison = api.compare("EVALUATION", "OTHER")
        >>> print(comparison)
        >>> for row in comparison.differences:
        ...     print(row["metric"], row["difference"], row["low"], row["p"])
    """
    from brainhive_cli.commands import compare as command
    from brainhive_cli.core.base import RecipeError

    if len(runs) < 2:
        raise RecipeError(
            f"compare takes two runs or more, not {len(runs)}", "compare(RUN, RUN)"
        )

    # write each run as on the command line
    references = []
    if labels is not None and not isinstance(labels, list | tuple):
        raise refuse("labels", labels, "a list of text, or None")
    for number, compared_run in enumerate(runs):
        if not isinstance(compared_run, Run):
            check_path(**{f"runs[{number}]": compared_run})
            references.append(str(compared_run))
        else:
            references.append(str(compared_run.path))

    recipe = command.Recipe.resolve(
        "compare", None, {"runs": references, "labels": labels}, []
    )
    return Comparison(command.compare_runs(recipe))
