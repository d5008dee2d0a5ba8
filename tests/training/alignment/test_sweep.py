"""A sweep runs its variants as cells, goes on where it stopped, and prints a line for each variant."""

import pytest

from brainhive_cli.commands import train_align
from brainhive_cli.core.facts import Cell as CellFacts
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.tables import Table
from brainhive_cli.training.alignment import progress
from brainhive_cli.training.alignment.recipe import Cell

SWEEP = ("subjects=1,2", "train.epochs=1", "sweep.train.lr=[1e-3,2e-3]")


def test_a_sweep_is_run_as_cells_and_goes_on_where_it_stopped(go, small, world, tmp_path, monkeypatch):
    here, trained = f"paths.runs={tmp_path / 'runs'}", []
    real = train_align.train_cell

    def until_the_third(name: str, *rest: object) -> None:
        trained.append(name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        real(name, *rest)

    monkeypatch.setattr(train_align, "train_cell", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        go("train-align", *small, here, *SWEEP)

    result = go("train-align", *small, here, *SWEEP, "published={source: a paper, values: {top1: 0.5}}")

    assert trained == [f"lr=1e-3/sub-0{n}_seed-1" for n in (1, 2)] + 2 * ["lr=2e-3/sub-01_seed-1"] + [
        "lr=2e-3/sub-02_seed-1"
    ]
    assert result.folder.name.startswith("demo-noise-0.3-40-concepts-intra-sweep-")
    assert result.metrics.facts.published["top1"] == 0.5
    assert sorted(path.parent.parent.name for path in result.folder.glob("cells/*/*/metrics.json")) == [
        *2 * ["lr=1e-3"],
        *2 * ["lr=2e-3"],
    ]
    by_variant, by_cell, published = result.tables
    assert [(row[0], row[2]) for row in by_variant.rows] == [("lr=1e-3", 2), ("lr=2e-3", 2)]
    assert [row[3] for row in by_variant.rows] == pytest.approx([1 / 60] * 2)
    assert [row[0] for row in by_cell.rows] == list(result.metrics.facts.cells)
    assert published.rows == ((0.5, "–"),)


def metrics(*values: float | None, selected_on: str = "validation") -> Measurements:
    names = [f"sub-0{number}_seed-1" for number in range(1, len(values) + 1)]
    scopes = {
        name: {"top1": Metric("top1", value, 10, 10, 0.1, 0.0, 1.0, (1,), "cosine", "validation", "t")}
        for name, value in zip(names, values, strict=True)
        if value is not None
    }
    cells = {name: CellFacts(epoch=3, selected_on=selected_on) for name in names}
    return Measurements(scopes, facts=TrainingFacts(dataset="demo", mode="intra", cells=cells))


def laid_out(found: Measurements) -> tuple[Table, ...]:
    return progress.tables(found, [Cell(name, (1,), (1,), 1) for name in found.facts.cells])


def test_the_last_line_is_mean_and_standard_deviation_over_the_cells():
    (table,) = laid_out(metrics(0.2, 0.4, 0.6))
    assert table.rows[-1][0] == "mean ± sd of 3" and table.rows[-1][2] == "0.400 ± 0.200"


def test_a_single_cell_and_cells_without_validation_have_no_spread():
    (alone,), (unknown,) = laid_out(metrics(0.2)), laid_out(metrics(None, None))
    assert len(alone.rows) == 1
    assert unknown.columns == ("cell", "epoch") and [row[1:] for row in unknown.rows] == [(3,), (3,)]


def test_a_run_that_looked_at_test_says_so():
    (stamped,), (honest,) = laid_out(metrics(0.2, selected_on="test")), laid_out(metrics(0.2))
    assert "selected on test" in stamped.title and "test" not in honest.title
