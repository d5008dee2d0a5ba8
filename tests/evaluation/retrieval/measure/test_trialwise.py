"""Tests of models whose token of a trial depends on the other test trials."""

import pytest

from brainhive_cli.core.results.measurements import CAVEATS, TRIALS_TOGETHER

BACKBONE = '''"""A backbone that subtracts the mean of a batch in evaluation."""

from torch import Tensor, nn

from brainhive_cli import api


class Config(api.BackboneConfig):
    """Without knobs."""

    def build(self, channels: int, samples: int, dim: int, subjects=1) -> nn.Module:
        """Make it."""
        return Net(channels * samples, dim)


TINY = Config()


class Net(nn.Module):
    """One layer."""

    def __init__(self, values: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(values, dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals."""
        tokens = self.layer(signal.flatten(1))
        return tokens if self.training else tokens - tokens.mean(0)
'''


@pytest.mark.nightly
def test_metrics_that_need_other_test_trials_have_a_caveat(
    run_command,
    world,
    align_overrides,
    runs,
    tmp_path,
    monkeypatch,
    capsys,
    code_allowed,
):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts/centred.py").write_text(BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    trained = run_command(
        "train-align",
        *align_overrides,
        runs,
        "train.epochs=2",
        "backbone.kind=own_parts.centred",
    ).folder

    result = run_command(
        "eval-retrieval", f"run={trained}", "sheet_rows=0", "repetitions=[1]", runs
    )

    measured_metrics = result.metrics
    of_models = {
        name: metrics
        for name, metrics in measured_metrics.scopes.items()
        if not name.startswith("ceiling")
    }
    assert TRIALS_TOGETHER in measured_metrics.caveats
    assert all(
        TRIALS_TOGETHER in metric.caveats and TRIALS_TOGETHER in metric.protocol
        for metrics in of_models.values()
        for metric in metrics.values()
    )
    assert CAVEATS[TRIALS_TOGETHER] in str(result.tables[0].rows)
    warned = capsys.readouterr().err
    assert (
        "sub-01_seed-1: tokens of subject 1 depend on the other test signals" in warned
    )
    assert "no mean or other statistic of the batch in evaluation mode" in warned


def test_a_model_that_predicts_single_trials_has_no_caveat(evaluation_result):
    metrics = [
        metric
        for scope in evaluation_result.metrics.scopes.values()
        for metric in scope.values()
    ]
    assert evaluation_result.metrics.caveats == ["simulated"]
    assert not [metric for metric in metrics if TRIALS_TOGETHER in metric.caveats]
