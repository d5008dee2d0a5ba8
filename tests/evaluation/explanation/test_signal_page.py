"""The page on a subject's signals: what it measures of simulated ones, and the command that draws it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.spaces import Grid, Sensors, Voxels
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.signal_page import (
    draw_slices,
    measure_reliability,
    write_signal_page,
)
from brainhive_cli.measurement.units import Alike

pytest.importorskip("matplotlib")


def recording(signal_sd, stimuli=400, repetitions=8, seed=0, counts=None):
    """Simulate channel 0 as noise, channel 1 as signal and noise of sd 1."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=(stimuli, 1, 2, 5)) * np.array([0, signal_sd])[:, None]
    noise = random.normal(size=(stimuli, repetitions, 2, 5))
    trials = (signal + noise).astype(np.float32)
    if counts is not None:
        trials[np.arange(repetitions) >= counts[:, None]] = np.nan
    ids = [f"picture{number}" for number in range(stimuli)]
    return Trials(trials, ids, Sensors(("a", "b")), np.arange(5) / 100, 100.0, "µV", repetitions=counts)


def test_split_half_reliability_is_that_of_the_simulation():
    found = measure_reliability(recording(signal_sd=0.5), "test")
    expected = 0.25 / (0.25 + 1 / 8)  # of the means of all eight
    assert abs(found.split_half[1].mean() - expected) < 0.03
    assert abs(found.split_half[0].mean()) < 0.1
    assert found.counts.tolist() == [8] * 400


def test_halves_of_an_odd_number_of_repetitions_are_corrected_to_all():
    """Of three, one and one are compared; the correction is to three, not to two."""
    found = measure_reliability(recording(signal_sd=0.5, stimuli=1000, repetitions=3), "test")
    assert abs(found.split_half[1].mean() - 0.25 / (0.25 + 1 / 3)) < 0.04  # to two: 0.33


def test_ceiling_is_the_share_of_variance_that_is_signal():
    found = measure_reliability(recording(signal_sd=0.5), "test")
    assert abs(found.ceiling[1].mean() - 100 * 0.25 / (0.25 + 1 / 8)) < 3
    assert found.ceiling[0].mean() < 8


def drifting(order, repetitions=8):
    """Simulate noise with a slow drift of stimuli [n] in the order of time."""
    random, trials = np.random.default_rng(0), len(order)
    drift = np.cumsum(random.normal(size=(trials, 12, 1)), 0) * 0.1
    line = np.argsort(order, kind="stable")  # repetitions in the order of time
    signal = (drift + random.normal(size=(trials, 12, 2)))[line].reshape(-1, repetitions, 12, 2)
    ids, onset_s = [f"{number}" for number in range(len(signal))], line.reshape(-1, repetitions) * 1.5
    space = Sensors([*"abcdefghijkl"])
    return Trials(signal.astype(np.float32), ids, space, np.arange(2) / 100, 100.0, "µV", onset_s=onset_s)


def test_slow_drift_is_no_reliability_of_noise():
    """In succession it was .9, and the noise ceiling of a random order 20 to 40 %."""
    stimuli = np.repeat(np.arange(100), 8)
    with pytest.raises(BrainhiveError, match="follow one another"):
        measure_reliability(drifting(stimuli), "test")
    found = measure_reliability(drifting(np.random.default_rng(1).permutation(stimuli)), "test")
    assert abs(np.median(found.split_half)) < 0.1 and np.median(found.ceiling) < 10


def test_padding_of_ragged_repetitions_is_never_read():
    counts = np.random.default_rng(1).integers(2, 9, 400)
    found = measure_reliability(recording(0.5, counts=counts), "train")
    assert np.isfinite(found.evoked).all() and {*found.counts} == {*range(2, 9)}
    assert list(found.retrieval) == [1]


def test_retrieval_rises_with_repetitions_and_is_chance_without_signal():
    curve = measure_reliability(recording(signal_sd=1.0), "test").retrieval
    assert list(curve) == [1, 2, 4] and curve[1].value < curve[2].value < curve[4].value
    assert curve[4].n == curve[4].pool == 400 and curve[4].chance == 1 / 400
    assert measure_reliability(recording(signal_sd=0), "test").retrieval[4].value < 0.02


def test_evoked_response_is_that_of_the_sensors_before_whitening():
    random, plain = np.random.default_rng(2), recording(signal_sd=1.0, stimuli=40)
    whiteners = np.eye(2) + 0.3 * random.normal(size=(3, 2, 2))
    sessions = random.integers(0, 3, (40, 8)).astype(np.int8)
    whitened = np.einsum("nrij,nrjt->nrit", whiteners[sessions], plain.signal).astype(np.float32)
    known = replace(plain, signal=whitened, sessions=sessions, whiteners=whiteners)
    found = measure_reliability(known, "test").evoked
    np.testing.assert_allclose(found, plain.signal.mean((0, 1)), atol=1e-5)


def test_stimuli_shown_once_are_refused_in_one_line():
    with pytest.raises(BrainhiveError, match="0 train stimuli were shown twice"):
        measure_reliability(recording(1.0, repetitions=1), "train")


def test_clips_that_follow_each_other_are_one_unit_of_the_interval():
    """Half of a film has signal: over single clips the interval is of 360 hits, and over blocks of six."""
    made = recording(signal_sd=3.0, stimuli=360)
    made.signal[180:] = np.random.default_rng(1).normal(size=made.signal[180:].shape)
    clips = measure_reliability(made, "test").retrieval[4]
    blocks = measure_reliability(made, "test", alike=Alike("neighbours", medium="clip")).retrieval[4]
    assert blocks.interval == "Wilson over 6 blocks of 60 neighbouring clips; for these films"
    assert clips.interval == "Wilson over 360 pictures" and blocks.value == clips.value
    assert blocks.high - blocks.low > 1.5 * (clips.high - clips.low)


def check(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def voxels(stimuli=30):
    random = np.random.default_rng(0)
    signal = random.normal(size=(stimuli, 3, 12, 1)).astype(np.float32)
    space = Voxels({"V1": np.arange(12) < 6, "FFA": np.arange(12) > 8})
    return Trials(signal, [f"p{n}" for n in range(stimuli)], space, np.zeros(1), None, "z")


@pytest.mark.parametrize("kind", ("sensors", "voxels"))
def test_check_plots_draws_one_page_a_store_and_gives_its_numbers(tmp_path, kind):
    made = recording(1.0, stimuli=30) if kind == "sensors" else voxels()
    path = tmp_path / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"test": made})

    found = check(path, "--plots", "--json")

    assert found.exit_code == 0, found.output
    (store,) = json.loads(found.stdout)["details"]["stores"].values()
    figures = store["reliability"]["test"]
    assert figures["stimuli"] == 30 and figures["retrieval"]["1"]["pool"] == 30
    page = (path.with_suffix("") / "sub-01.html").read_text()
    assert page.count("<figure") == (
        3 if kind == "sensors" else 1
    )  # those of the first screen stand there alone
    assert "lab/default/sub-01" in page
    if kind == "sensors":
        assert re.search(r"most reliable channel: .* and at least half of that from [\d-]+ to \d+ ms\.", page)


def test_of_five_stimuli_the_page_has_a_dash_for_the_interval(tmp_path):
    SignalStore.write(tmp_path / "sub-01.h5", {"test": recording(1.0, stimuli=5)})

    page, figures = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")

    table = re.search(r"Stimuli found by their repetitions.*?</table>", page.read_text(), re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table[0].split("<tr>")]
    values = {row[0]: row[1] for row in cells if row}
    assert [f"<span>{size}</span>" in values for size in (1, 2, 4)] == [True] * 3
    assert not [value for value in values.values() if "<small>" in value]  # an interval
    assert figures["test"]["retrieval"]["4"]["pool"] == 5


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


@pytest.mark.parametrize("axes", ((0, 1, 2), (2, 0, 1)), ids=("x-y-z", "z-x-y in the file"))
@pytest.mark.parametrize("sign", (1, -1), ids=("towards the right", "towards the left"))
def test_slices_show_left_on_the_left_and_the_nose_up_whatever_the_axes_of_the_file(axes, sign):
    affine = np.zeros((4, 4))
    for world, axis in enumerate(axes):
        affine[world, axis] = 2.0 * (sign if world == 0 else 1)
    affine[3, 3] = 1
    world = np.array([[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 1]])  # centre, right, front, top
    places = np.zeros((4, 3), np.int16)
    for number, axis in enumerate(axes):
        places[:, axis] = world[:, number] * (sign if number == 0 else 1) + (
            3 if sign < 0 and number == 0 else 0
        )
    drawn = draw_slices("a", np.array([1.0, 2, 3, 4]), Grid(places, (4, 4, 4), affine), "unit")
    pixels = np.array(drawn.values, float)  # two slices of 3 × 4, with a gap behind each
    assert pixels[2, [0, 3, 5]].tolist() == [1, 2, 4] and pixels[0, 0] == 3
    assert np.isfinite(pixels).sum() == 4


def test_maps_of_voxels_are_drawn_on_slices_and_tabulated(tmp_path):
    made = voxels()
    places = np.argwhere(np.ones((2, 3, 2))).astype(np.int16)
    grid = Grid(places, (2, 3, 2), np.diag([2.0, 2, 2, 1]))
    space = replace(made.space, maps={"tsnr": np.arange(12.0), "ncsnr": np.linspace(0.1, 0.5, 12)}, grid=grid)
    SignalStore.write(tmp_path / "sub-01.h5", {"test": replace(made, space=space)})
    page, figures = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    assert figures["maps"]["tsnr"] == {"median": 5.5, "90 % quantile": pytest.approx(9.9), "highest": 11}
    text = page.read_text()
    for words in ("Reliability of voxels", "Temporal signal-to-noise ratio", "Noise-ceiling signal"):
        assert words in text


def test_maps_are_drawn_of_a_store_whose_stimuli_were_shown_once(tmp_path):
    made = voxels()
    once = replace(made, signal=made.signal[:, :1], space=replace(made.space, maps={"tsnr": np.ones(12)}))
    SignalStore.write(tmp_path / "sub-01.h5", {"train": once})
    page, figures = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    assert list(figures) == ["maps"] and "What was measured of voxels" in page.read_text()


def rhythmic(provenance, unit="µV"):
    """Simulate four channels at 100 Hz: signal at -80, 120 and 900 ms, and 20 Hz of any phase at O2."""
    random = np.random.default_rng(0)
    times_s = np.arange(-20, 101) / 100
    course = sum(np.exp(-(((times_s - peak_s) / 0.02) ** 2)) for peak_s in (-0.08, 0.12, 0.9))  # [T]
    signal = random.normal(size=(40, 1, 4, 1)) + np.array([3.0, -3.0, 2.0, -1.0])[:, None]
    noise = random.normal(size=(40, 4, 4, len(times_s)))
    phase = random.uniform(0, 2 * np.pi, (40, 4, 1))
    noise[:, :, 2] += 5 * np.sin(2 * np.pi * 20 * times_s + phase)
    trials = (3 * signal * course + noise).astype(np.float32)
    ids, space = [f"picture{number}" for number in range(40)], Sensors(("O1", "Oz", "O2", "Cz"))
    return Trials(trials, ids, space, times_s, 100.0, unit, provenance)


@pytest.mark.parametrize(
    ("stimulus_ms", "peaks"), ((100.0, ("120",)), (None, ("120",)), (450.0, ("120", "900")))
)
def test_maps_of_the_evoked_response_lie_in_the_window_of_the_stimulus(tmp_path, stimulus_ms, peaks):
    SignalStore.write(tmp_path / "sub-01.h5", {"test": rhythmic({"stimulus_ms": stimulus_ms})})
    page, _ = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    drawn = re.findall(r"<h4>Evoked response at (-?\d+) ms", page.read_text())
    assert set(peaks) <= {*drawn} and all(0 <= int(time) <= (stimulus_ms or 0) + 500 for time in drawn)
    assert re.search(r"<h4>Reliability of channels at -?\d+ ms", page.read_text())


def test_dropped_trials_and_steps_of_the_preparation_are_listed(tmp_path):
    steps = {"kind": "recording", "baseline": True, "whiten": "epochs", "band_hz": [0.1, 40]}
    session = {"session": 2, "trials": 76, "dropped": {"BAD_blink": 4}, "recorded_unit": "µV"}
    about = {"preparation": steps, "sessions": [session]}
    SignalStore.write(tmp_path / "sub-01.h5", {"test": rhythmic(about, "whitened")})
    page, _ = write_signal_page(SignalStore.open(tmp_path / "sub-01.h5"), tmp_path / "page")
    rows = [
        re.findall(r"<span>(.*?)</span>", row) for row in page.read_text().split("<tr>") if "<span>" in row
    ]
    assert ["test", "40", "4", "160", "4 BAD_blink"] in rows
    assert ["band_hz", "[0.1, 40]"] in rows and ["whiten", "epochs"] in rows
