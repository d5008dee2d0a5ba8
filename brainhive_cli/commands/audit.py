"""audit: checks of published retrieval results for errors, each with its size."""

from typing import Annotated

from pydantic import Field

from brainhive_cli.core.base import Table
from brainhive_cli.core.files import Input, collect_inputs, locate
from brainhive_cli.core.recipes import STORES, Arguments, FileRecipe, OneRun
from brainhive_cli.core.runs import Launch, Result

FINDINGS_EXIT_CODE = 6
"""Exit code if a check has a finding."""


class Recipe(FileRecipe):
    """Recipe of audit, with the folder of published results."""

    runs_code = False
    section = STORES
    summary = (
        "Re-check published retrieval results for common mistakes, and show how much "
        "each mistake changes the accuracy."
    )
    example = "FOLDER"

    folder: Annotated[OneRun, Arguments("PATH")] = Field(
        None,
        description="folder with similarities or embeddings, ids, training log and "
        "claims; default: the working directory",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """Return the folder of results, with an error if its files cannot be read."""
    from brainhive_cli.data.exchange import open_result

    def list_folder() -> list[Input]:
        folder = locate(recipe.folder or ".")
        open_result(folder)
        return [Input(str(folder))]

    return collect_inputs(list_folder)


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Check published results in a folder for known kinds of errors.

    Args:
        recipe: Settings of the command, with the folder.
        launch: Processes and device. They are not used.
        force: Not used, because results are always checked.

    Returns:
        A table of the checks. The exit code is `FINDINGS_EXIT_CODE` if a check has a
        finding, else 0.
    """
    from brainhive_cli.data.exchange import open_result
    from brainhive_cli.measurement import FINDING
    from brainhive_cli.measurement.audit import audit

    folder = locate(recipe.folder or ".")
    result = open_result(folder)
    rows = audit(result)
    n_findings = sum(state == FINDING for _, state, _, _ in rows)

    n_signals, n_candidates = result.similarities.shape
    table = Table(
        f"Audit of {folder.name}",
        ("check", "state", "size (points)", "evidence"),
        rows,
        note=f"{n_signals} signals, {n_candidates} candidates; findings: {n_findings}. "
        "Points are percentage points of top-1, or of the claimed top-k. A finding is "
        "a fact about the files, not about intentions.",
    )

    keys = ("check", "state", "points", "evidence")
    return Result(
        folder,
        (table,),
        exit_code=FINDINGS_EXIT_CODE if n_findings else 0,
        details={"audit": [dict(zip(keys, row, strict=True)) for row in rows]},
    )
