"""What a finished align run shows: its learning curves, and the health of the stores it learned from."""

from collections.abc import Mapping, Sequence
from statistics import mean

from brainhive_cli.core.artifacts import Artifact, Curve, Line, Number, Table
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.health_checks import problem_of

SECTION = "Training"
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the highest."""
SHOWN = {"loss": "Loss", "validation_top1": "Top-1 on held-out training concepts"}
"""What the log has of each epoch, and its title."""
Events = Mapping[str, Mapping[int, float]]
"""Values by cell and epoch."""


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    found: dict[str, dict[str, dict[int, float]]] = {key: {} for key in SHOWN}
    for event in run.events():
        for key in SHOWN:
            if event.get("cell") in cells and isinstance(event.get(key), int | float):
                found[key].setdefault(event["cell"], {})[event["epoch"] + 1] = event[key]
    return [_curve(title, found[key]) for key, title in SHOWN.items() if found[key]]


def _curve(title: str, of_cells: Events) -> Curve:
    epochs = sorted({epoch for values in of_cells.values() for epoch in values})
    if len(of_cells) <= MOST:
        lines = [Line(cell, [values.get(epoch) for epoch in epochs]) for cell, values in of_cells.items()]
        return Curve(title, "epoch", epochs, lines, section=SECTION)
    at = [[values[epoch] for values in of_cells.values() if epoch in values] for epoch in epochs]
    low: list[Number] = [min(some) for some in at]
    line = Line(
        f"mean of {len(of_cells)} cells", [mean(some) for some in at], low, [max(some) for some in at]
    )
    note = "The band goes from the lowest cell to the highest."
    return Curve(title, "epoch", epochs, [line], section=SECTION, note=note)


def health_of(stores: Mapping[str, TargetStore]) -> Table:
    """List the stores that a run reads, and whether each passes its health check."""
    rows = []
    for name, store in stores.items():
        health, problem = store.health, problem_of(store)
        figures = (health.vectors, health.dimensions, health.median_pair_cosine, health.near_duplicates)
        rows.append((name, *figures, "passed" if not problem else f"failed: {problem}"))
    columns = ("store", "vectors", "dimensions", "median cosine of pairs", "near-duplicates", "health check")
    return Table("Health of the embeddings", columns, rows, section="Stores")


def failed(stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores fail their health check."""
    found = {name: problem_of(store) for name, store in stores.items()}
    return [f"{name} failed its health check: {problem}" for name, problem in found.items() if problem]


def artifacts_of(run: RunFolder, cells: Sequence[str], stores: Mapping[str, TargetStore]) -> list[Artifact]:
    """Make all artifacts of a run."""
    return [*learning_curves(run, cells), health_of(stores)]
