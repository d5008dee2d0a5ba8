"""Tests of models on recordings with fewer channels than in their training."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import CAVEATS, CHANNELS_MAPPED
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.command_fixtures import COLOURS

OTHER = "dataset={kind: demo, noise: 0.2, subjects: 1, concepts: 8}"
RECORDED = ("P7", "P3", "Pz", "P4", "P8", "PO7", "POz", "PO8", "O1", "O2")


@pytest.fixture
def fewer(run_command, world, trained_run):
    """Run of the world, and a data set with 10 of its 17 channels."""
    asked = [f"run={trained_run}", OTHER, "sheet_rows=0", "ceiling_splits=0"]
    path = world / "signals/demo-noise-0.2-8-concepts/default/sub-01.h5"
    if not path.is_file():
        run_command("embed", OTHER, f"encoders=[{COLOURS!r}]", "splits=test")
        run_command("eval-retrieval", *asked)
        store = SignalStore.open(path)
        recordings = {}
        for split in store.splits:
            rows = [store[split].space.names.index(name) for name in RECORDED]
            signal = np.asarray(store[split].signal)[:, rows]
            recordings[split] = replace(
                store[split], signal=signal, space=Sensors(RECORDED)
            )
        path.unlink()
        SignalStore.write(path, recordings)
    return asked


@pytest.mark.nightly
def test_missing_channels_are_refused_unless_mapped(run_command, fewer):
    with pytest.raises(BrainhiveError, match="P5, P1, P2") as caught:
        run_command("eval-retrieval", *fewer, again=True)
    assert "channel_mapping=spline" in caught.value.hint


def test_every_number_of_mapped_channels_says_how_and_how_many(run_command, fewer):
    kind, how = "spline", "splines"
    result = run_command("eval-retrieval", *fewer, f"channel_mapping={kind}")

    arguments, measured_metrics = (
        f"channels mapped by {how}: 10 of 17 recorded",
        result.metrics,
    )
    assert arguments in measured_metrics.facts.protocol
    assert measured_metrics.facts.set_up["channel_mapping"] == arguments
    assert measured_metrics.facts.verdict == "above chance"
    assert CHANNELS_MAPPED in measured_metrics.caveats
    metrics = [
        metric
        for scope in measured_metrics.scopes.values()
        for metric in scope.values()
    ]
    assert [metric for metric in metrics if CHANNELS_MAPPED not in metric.caveats] == []
    assert CAVEATS[CHANNELS_MAPPED] in str(result.tables[0].rows)
