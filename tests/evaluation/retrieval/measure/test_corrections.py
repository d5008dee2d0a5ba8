"""Tests that corrections of similarities are controls that change nothing else."""

import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.results.measurements import TRANSDUCTIVE

ALL_OF_THEM = "corrections=whitening,csls,sinkhorn,assignment"
CHAINS = ["whitening"]
for kind in ("csls", "sinkhorn", "assignment"):
    CHAINS.append(f"{CHAINS[-1]} + {kind}")
QUICK = ("sheet_rows=0", "ceiling_splits=0")


@pytest.mark.nightly
def test_corrections_are_rows_that_leave_the_result_unchanged(
    run_command, trained_run, evaluation_result
):
    result = run_command(
        "eval-retrieval", f"run={trained_run}", ALL_OF_THEM, "sheet_rows=0"
    )

    plain_metrics, corrected_metrics = evaluation_result.metrics, result.metrics
    added = corrected_metrics.scopes.keys() - plain_metrics.scopes.keys()
    assert added == {
        f"corrections · {name}{text}" for name in CHAINS for text in ("", " · backward")
    }
    assert {
        name: corrected_metrics.scopes[name] for name in plain_metrics.scopes
    } == plain_metrics.scopes
    assert corrected_metrics.items == plain_metrics.items
    for name, metrics in corrected_metrics.scopes.items():
        assert all(
            (TRANSDUCTIVE in single_metric.protocol) == (name in added)
            for single_metric in metrics.values()
        )
    table = next(
        table for table in result.printed_tables if TRANSDUCTIVE in table.title
    )
    assert [row[0] for row in table.rows[: len(CHAINS) + 1]] == ["this run"] + list(
        CHAINS
    )
    assert table.rows[0][1].value == plain_metrics.overall["top1"].value
    assigned = corrected_metrics.scopes[f"corrections · {CHAINS[-1]}"]["top1"]
    assert assigned.value > plain_metrics.overall["top1"].value
    assert (
        assigned.n,
        assigned.pool,
    ) == (200, 100)


def test_corrections_that_cannot_be_are_refused(run_command, trained_run):
    with pytest.raises(RecipeError, match="whitening"):
        run_command(
            "eval-retrieval", f"run={trained_run}", *QUICK, "corrections=csls,whitening"
        )
    with pytest.raises(RecipeError, match="'cls'"):
        run_command("eval-retrieval", f"run={trained_run}", *QUICK, "corrections=cls")
