"""Page on the signals of a subject: its numbers for simulated signals, and `check`."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import (
    Grid,
    Sensors,
    Trials,
    Voxels,
    measure_reliability,
)
from brainhive_cli.data.stores.signal_store import SignalStore

pytest.importorskip("matplotlib")


def simulate_recording(signal_sd, stimuli=400, repetitions=8):
    """Simulate noise in channel 0, and signal plus noise of sd 1 in channel 1."""
    random = np.random.default_rng(0)
    signal = random.normal(size=(stimuli, 1, 2, 5)) * np.array([0, signal_sd])[:, None]
    noise = random.normal(size=(stimuli, repetitions, 2, 5))
    trials = (signal + noise).astype(np.float32)
    ids = [f"picture{number}" for number in range(stimuli)]
    return Trials.from_repetitions(
        trials, ids, Sensors(("a", "b")), np.arange(5) / 100, 100.0, "µV"
    )


def test_split_half_reliability_is_that_of_the_simulation():
    counts, _, split_half, ceiling = measure_reliability(
        simulate_recording(signal_sd=0.5), "test"
    )
    expected = 0.25 / (0.25 + 1 / 8)  # reliability of the mean of eight repetitions
    assert abs(split_half[1].mean() - expected) < 0.03
    assert abs(split_half[0].mean()) < 0.1
    assert abs(ceiling[1].mean() - 100 * expected) < 3
    assert ceiling[0].mean() < 8
    assert counts.tolist() == [8] * 400


def simulate_drift(order, repetitions=8):
    """Simulate noise with a slow drift.

    Args:
        order: Stimulus of each trial [n] in the order of time.
        repetitions: Repetitions of each stimulus.
    """
    random, trials = np.random.default_rng(0), len(order)
    drift = np.cumsum(random.normal(size=(trials, 12, 1)), 0) * 0.1
    line = np.argsort(order, kind="stable")  # repetitions in the order of time
    signal = (drift + random.normal(size=(trials, 12, 2)))[line].reshape(
        -1, repetitions, 12, 2
    )
    ids, onset_s = (
        [f"{number}" for number in range(len(signal))],
        line.reshape(-1, repetitions) * 1.5,
    )
    space = Sensors(list("abcdefghijkl"))
    return Trials.from_repetitions(
        signal.astype(np.float32),
        ids,
        space,
        np.arange(2) / 100,
        100.0,
        "µV",
        onset_s=onset_s,
    )


def test_slow_drift_is_no_reliability_of_noise():
    """Issue 60, row 3: drift counted as reliability. In succession it was .9, and the
    noise ceiling of a random order 20 to 40 %.
    """
    stimuli = np.repeat(np.arange(100), 8)
    with pytest.raises(BrainhiveError, match="follow one another"):
        measure_reliability(simulate_drift(stimuli), "test")
    _, _, split_half, ceiling = measure_reliability(
        simulate_drift(np.random.default_rng(1).permutation(stimuli)), "test"
    )
    assert abs(np.median(split_half)) < 0.1
    assert np.median(ceiling) < 10


def check(*arguments):
    return CliRunner().invoke(app, ["check"] + list(map(str, arguments)))


def simulate_voxels(stimuli=30):
    random = np.random.default_rng(0)
    signal = random.normal(size=(stimuli, 3, 12, 1)).astype(np.float32)
    regions = {"V1": np.arange(12) < 6, "FFA": np.arange(12) > 8}
    indices = np.argwhere(np.ones((2, 2, 3))).astype(np.int16)
    grid = Grid(indices, (2, 2, 4), np.diag([2.0, 2, 2, 1]))
    space = Voxels(regions, {"r2": np.arange(12.0)}, grid)
    return Trials.from_repetitions(
        signal, [f"p{n}" for n in range(stimuli)], space, np.zeros(1), None, "z"
    )


def test_a_store_with_a_relative_path_has_its_page_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("signals/lab/default/sub-01.h5")
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"test": simulate_voxels()})
    assert check(path, "--plots").exit_code == 0
    assert (path.with_suffix("") / "sub-01.html").is_file()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ("sensors", "voxels"))
def test_check_plots_makes_a_page_of_each_store(tmp_path, kind):
    recording = (
        simulate_recording(1.0, stimuli=30) if kind == "sensors" else simulate_voxels()
    )
    path = tmp_path / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"test": recording})

    result = check(path, "--plots", "--json")

    assert result.exit_code == 0, result.output
    (store,) = json.loads(result.stdout)["details"]["stores"].values()
    figures = store["reliability"]["test"]
    assert figures["stimuli"] == 30
    page = (path.with_suffix("") / "sub-01.html").read_text()
    # figures at the top of the page are not repeated below
    assert page.count("<figure") == 3
    assert "lab/default/sub-01" in page
    measured_values = {
        "reliability": figures["highest split-half reliability"],
        "noise ceiling": figures["highest noise ceiling, %"],
    }
    if kind == "sensors":
        header, *rows = (path.with_suffix("") / "sub-01.tsv").read_text().splitlines()
        assert header.split("\t")[:4] == ["name", "x", "y", "z"]
        assert len(rows) == 2
        cells = [line.split("\t") for line in (header,) + tuple(rows)]
        columns = {column[0]: column[1:] for column in zip(*cells, strict=True)}
        for name, highest in measured_values.items():
            values = map(float, columns[f"test_{name.replace(' ', '_')}"])
            assert max(values) == pytest.approx(highest, rel=1e-5)
    else:
        for name, highest in {**measured_values, "r2": 11}.items():
            name = f"test_{name.replace(' ', '_')}" if name in measured_values else name
            image = nibabel.load(path.with_suffix("") / f"sub-01_{name}.nii.gz")
            assert image.shape == (2, 2, 4)
            assert image.affine[0, 0] == 2
            values = image.get_fdata()
            assert np.nanmax(values) == pytest.approx(highest, rel=1e-5)
            assert np.isnan(values[..., 3]).all()
            assert np.isfinite(values).sum() == 12
    if kind == "sensors":
        reliable = (
            r"most reliable channel: .* and at least half of that from [\d-]+ to \d+"
        )
        assert re.search(reliable + r" ms\.", page.replace("\xa0", " "))
