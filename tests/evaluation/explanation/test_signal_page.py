"""The page on a subject's signals, through the command that draws it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.data.stores.recordings import Recording, Sensors, SignalStore, Voxels
from brainhive_cli.evaluation.explanation.signal_page import write_signal_page
from tests.evaluation.explanation.test_reliability import recording

pytest.importorskip("matplotlib")


def check(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def voxels(stimuli=30):
    random = np.random.default_rng(0)
    signal = random.normal(size=(stimuli, 3, 12, 1)).astype(np.float32)
    space = Voxels({"V1": np.arange(12) < 6, "FFA": np.arange(12) > 8})
    return Recording(signal, [f"p{n}" for n in range(stimuli)], space, np.zeros(1), None, "z")


@pytest.mark.parametrize("kind", ("sensors", "voxels"))
def test_check_plots_draws_one_page_a_store_and_gives_its_numbers(tmp_path, kind):
    made = recording(1.0, stimuli=30) if kind == "sensors" else voxels()
    path = tmp_path / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"test": made})

    found = check(path, "--plots", "--json")

    assert found.exit_code == 0, found.output
    figures = next(iter(json.loads(found.stdout)["metrics"]["notes"]["stores"].values()))["reliability"][
        "test"
    ]
    assert figures["stimuli"] == 30 and figures["retrieval"]["1"]["pool"] == 30
    page = (path.with_suffix("") / "sub-01.html").read_text()
    assert page.count("<figure") == (3 if kind == "sensors" else 1)
    assert "lab/default/sub-01" in page


@pytest.mark.parametrize(("is_known", "unit"), ((True, "before whitening"), (False, "whitened channels")))
def test_whitened_signals_have_maps_only_where_their_whiteners_are_known(tmp_path, is_known, unit):
    pytest.importorskip("mne")
    plain = recording(1.0, stimuli=20, repetitions=4)
    names, count = ("O1", "Oz", "O2", "Pz", "Cz"), 5
    signal = np.tile(plain.signal, (1, 1, 3, 1))[:, :, :count]
    white = {
        "whiteners": np.stack([2 * np.eye(count)]),
        "sessions": np.zeros(signal.shape[:2], np.int8),
    }
    made = replace(plain, signal=signal, space=Sensors(names), unit="whitened", **(white if is_known else {}))
    SignalStore.write(tmp_path / "sub-01.h5", {"test": made})
    _, figures = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    assert figures["test"]["unit of the evoked response"] == unit
    assert figures["test"]["scalp maps"] == ("yes" if is_known else "none")


def test_regions_have_a_ceiling_each_and_empty_ones_none(tmp_path, recwarn):
    made = voxels()
    space = Voxels({**made.space.regions, "empty": np.zeros(12, bool)})
    SignalStore.write(tmp_path / "sub-01.h5", {"test": replace(made, space=space)})
    page, figures = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    found = figures["test"]["noise ceiling by region, %"]
    assert {name: each["voxels"] for name, each in found.items()} == {"V1": 6, "FFA": 3}
    assert "90 % quantile" in page.read_text() and not [each for each in recwarn if "divide" in str(each)]


def test_plots_without_a_signal_store_are_refused(tmp_path):
    found = check("--plots", tmp_path / "nothing.h5")
    assert found.exit_code in (2, 3) and "Traceback" not in found.output
