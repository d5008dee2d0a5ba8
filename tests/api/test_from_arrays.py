"""Tests of arrays, mne.Epochs, xarray and betas that are passed from memory."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli import api
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.results.measurements import ORDER_UNKNOWN
from brainhive_cli.data.recordings.epochs import as_trials
from brainhive_cli.data.signals.spaces import Voxels
from tests.worlds.command_fixtures import COLOURS, paint_pictures
from tests.worlds.own_recordings import Presentation, annotate, make_raw, write_pictures

mne = pytest.importorskip("mne")
TIMES_S = np.arange(20) / 100
NAMES = ("Pz", "Oz", "O1", "O2")
AXES = {"channels": NAMES, "times_s": TIMES_S, "unit": "µV"}
STEPS = {"kind": "recording", "rate_hz": 125}
RIDGE = {"backbone": "ridge", "seeds": [0]}


def simulate(features, width, samples=1):
    """Simulate trials [n, C, T] that are linear in the picture features [n, F]."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(features.shape[1], width, samples))
    signal = np.tensordot(features, mixing, 1)
    return signal + random.normal(size=signal.shape)


def read_colours(paths):
    """Read the mean colour [n, 3] of pictures."""
    colours = np.array([np.asarray(Image.open(path)).mean((0, 1)) for path in paths])
    return (colours - colours.mean(0)) / colours.std(0)


@pytest.fixture
def pictures_shown(home, monkeypatch):
    """Names of the shown pictures, from a folder without splits."""
    monkeypatch.setenv("BRAINHIVE_ALLOW_CODE", "1")
    root = paint_pictures(home / "pictures", 30, 1)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    return np.random.default_rng(0).permutation(names * 4).tolist()


def test_arrays_epochs_and_xarray_are_one_store_and_one_result(home, pictures_shown):
    colours = read_colours([home / "pictures" / name for name in pictures_shown])
    signal = simulate(2 * colours, len(NAMES), len(TIMES_S))
    session = ["b" if row % 2 else "a" for row in range(len(pictures_shown))]
    options = {"encoders": [COLOURS], "session": session, "test_share": 0.3}
    options["onset_s"] = "in order"
    trained, evaluated = api.fit(signal, pictures_shown, "pictures", **options, **AXES)
    top1 = {
        row["scope"]: row
        for row in evaluated.metrics()
        if row["metric"] in ("top1", "accuracy")
    }
    assert top1["all"]["value"] > top1["all"]["chance"] == pytest.approx(1 / 9)
    assert evaluated.measurements.caveats == ["earlier steps unknown"]
    assert trained.recipe()["backbone"]["kind"] == "ridge"

    # the same trials in other forms
    dataset = {"kind": "image-folder", "root": str(home / "pictures")}
    dataset["test_share"] = 0.3
    info = mne.create_info(list(NAMES), 100, "eeg")
    epochs = mne.EpochsArray(signal * 1e-6, info, tmin=0, verbose="ERROR")
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(
        signal.transpose(2, 0, 1),
        dims=("time", "trials", "channel"),
        coords={
            "time": TIMES_S,
            "channel": list(NAMES),
            "stimulus": ("trials", pictures_shown),
        },
        attrs={"unit": "uV"},
    )
    expected = api.open_signals("pictures", 1)
    for trials, pictures in ((epochs, pictures_shown), (array, "stimulus")):
        steps = {"whitened": False, "averaged": False, "onset_s": "in order"}
        stored = api.store_trials(
            trials, pictures, dataset, session=session, name="other", **steps
        )
        assert (len(stored.image_ids), stored.caveats) == (len(pictures_shown), [])
        other_signals = api.open_signals("pictures", 1, "other")
        for split, recording in expected.splits.items():
            np.testing.assert_allclose(
                other_signals[split].signal[:],
                recording.signal[:],
                rtol=1e-5,
                atol=1e-5,
            )
            np.testing.assert_array_equal(
                other_signals[split].sessions, recording.sessions
            )
            assert list(other_signals[split].image_ids) == list(recording.image_ids)

    # epochs with known pictures, and an array of the model's size without axes
    ranked = api.decode(trained, epochs, pictures=pictures_shown)
    assert len(ranked.ranks) == len(ranked.index) == len(ranked.image_ids)
    ranked_pictures = {pictures_shown[row].removesuffix(".png") for row in ranked.index}
    assert ranked_pictures == set(ranked.gallery)
    unranked = api.decode(str(trained.path), signal)
    np.testing.assert_allclose(
        unranked.similarity[ranked.index], ranked.similarity, atol=1e-4
    )
    assert (unranked.image_ids, len(unranked.ranks)) == ([], 0)
    # a caveat says that the axes were not checked
    assert len(unranked.caveats) == len(ranked.caveats) + 1

    # channels are found by name
    reversed_axes = AXES | {"channels": NAMES[::-1]}
    other_signals = api.decode(trained, signal[:, ::-1], **reversed_axes)
    np.testing.assert_allclose(other_signals.similarity, unranked.similarity, atol=1e-4)

    # axes that differ from the axes of the model
    for wrong_axis, facts in (
        ({"times_s": TIMES_S / 2}, ("rate_hz", "200 Hz", "100")),
        ({"unit": "fT"}, ("fT", "µV")),
        ({"channels": ("Pz", "Oz", "O1", "Fz")}, ("O2",)),
    ):
        with pytest.raises(BrainhiveError) as caught:
            api.decode(trained, signal, **(AXES | wrong_axis))
        for fact in facts:
            assert fact in caught.value.message
    with pytest.raises(BrainhiveError) as caught:
        api.decode(trained, epochs.copy().shift_time(0.05))
    assert "20" in caught.value.message
    assert "samples" in caught.value.message


@pytest.mark.parametrize("delay_ms", [0, 120])
def test_epochs_take_the_steps_of_the_model(home, run_command, delay_ms):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    presentation = Presentation.randomize(4, seed=0)
    raw = annotate(
        make_raw(presentation, seed=0, noise=2),
        presentation,
        list(presentation.pictures),
    )
    raw.save(home / "data/recordings/sub-01_ses-01.fif", verbose="ERROR")
    api.run("prepare", preparation={**STEPS, "delay_ms": delay_ms})
    dataset = {"dataset": "image-folder", "encoders": ["demo-clip"]}
    api.run("embed", **dataset)
    trained = api.open_run(api.run("train-align", **dataset, **RIDGE).folder)

    # single trials of the store
    stored = api.open_signals("image-folder", 1)["test"]
    trials = stored.hold_out(np.ones(len(stored.signal), bool), "test")
    expected = api.decode(trained, trials)
    events, event_id = mne.events_from_annotations(raw, verbose="ERROR")
    stop_s = 1 + delay_ms / 1000
    epochs = mne.Epochs(raw, events, event_id, -0.2, stop_s, None, verbose="ERROR")
    decoded = api.decode(trained, epochs.load_data())
    order = np.argsort(trials.onset_s)
    assert decoded.image_ids == [expected.image_ids[row] for row in order]
    np.testing.assert_allclose(
        decoded.similarity, expected.similarity[order], atol=1e-4
    )
    assert decoded.ranks.tolist() == expected.ranks[order].tolist()
    assert "noise" in decoded.caveats[-1]

    # events of the epochs may be the onsets of the pictures
    if delay_ms:
        assert "120 ms" in decoded.caveats[-2]
        shifted_epochs = epochs.copy().shift_time(-delay_ms / 1000)
        shifted = api.decode(trained, shifted_epochs, delay_ms=0)
        np.testing.assert_allclose(shifted.similarity, decoded.similarity, atol=1e-6)
        return

    # steps of the model that these epochs do not allow
    with pytest.raises(BrainhiveError) as caught:
        api.decode(trained, epochs.copy().crop(0, 0.998))
    assert "998 ms" in caught.value.message
    assert "[-200" in caught.value.message
    cube = epochs.get_data(verbose="ERROR")
    axes = {"channels": epochs.ch_names, "times_s": epochs.times, "unit": "fT"}
    with pytest.raises(BrainhiveError) as caught:
        api.decode(trained, cube, **axes)
    assert "fT" in caught.value.message
    assert "µV" in caught.value.message
    with pytest.raises(BrainhiveError) as caught:
        api.decode(trained, epochs.copy().drop_channels(["Cz"]))
    assert "Cz" in caught.value.message

    # the command line makes the same run
    result = run_command(
        "train-align",
        "dataset=image-folder",
        "encoders=[demo-clip]",
        "backbone.kind=ridge",
        "seeds=[0]",
    )
    assert result.folder == trained.path
    for call, fact in (
        (lambda: api.run("trainalign"), "'trainalign'"),
        (lambda: api.run("embed", datset="demo"), "'datset'"),
        (lambda: api.run("eval-retrieval", run="none"), "none"),
    ):
        with pytest.raises(BrainhiveError, match=fact) as caught:
            call()
        assert caught.value.hint


@pytest.mark.nightly
def test_categories_and_betas(home):
    labels = ["face", "house", "tool"] * 20
    runs = np.repeat(np.arange(5), 12)
    rows = [("face", "house", "tool").index(label) for label in labels]
    betas = simulate(2 * np.eye(3)[rows], 30)[:, :, 0]
    axis = np.arange(30)
    grid = api.Grid(np.stack([axis, 0 * axis, 0 * axis], 1), (30, 1, 1), np.eye(4))
    space = api.Voxels({"V1": axis < 10}, grid=grid)
    trained, evaluated = api.fit(betas, labels, runs=runs, space=space, averaged=False)
    accuracy = find_hits(evaluated)
    assert accuracy["value"] > 0.8
    assert accuracy["n"] == len(labels)
    holdout = trained.recipe()["dataset"]["holdout"]
    assert (holdout["by"], holdout["folds"]) == ("runs", 5)
    assert trained.recipe()["backbone"]["kind"] == "lda"

    # files may name pictures in bytes or numbers, or leave a name out
    names_in_bytes = [label.encode() for label in labels[:-1]]
    stored = api.store_trials(betas, list(names_in_bytes) + [None], "categories", 3)
    assert len(stored.image_ids) == 59
    stored = api.store_trials(betas, np.array(rows, float), "categories", 2)
    assert set(stored.image_ids) == {"0.0", "1.0", "2.0"}
    stored = api.open_signals("categories", 1)["train"]
    assert stored.space.grid.shape == (30, 1, 1)
    assert stored.made_by == ("arrays",)
    assert np.unique(stored.runs).tolist() == list(range(5))

    # axes that are missing or wrong
    cube, names = np.zeros((3, 2, 5)), ["face", "house", "cat"]
    axes = {"channels": ["a", "b"], "times_s": np.arange(5) / 100, "unit": "uV"}
    for signal, pictures, wrong_axes, facts in (
        (cube, names, {"tims_s": 0}, ("'tims_s'",)),
        (cube, names, {}, ("channels", "times_s", "unit")),
        (cube, names, {**axes, "times_s": np.arange(5.0)}, ("times", "0 to 4")),
        (
            cube,
            names,
            {**axes, "channels": ["a"]},
            ("channels", "length 1", "2 channels"),
        ),
        (cube[0, 0], names, axes, ("[5]",)),
        (cube, names[:2], axes, ("pictures", "length 2", "3 trials")),
        (cube, names, {**axes, "run": [1, 2]}, ("run", "2", "3 trials")),
    ):
        with pytest.raises(BrainhiveError) as caught:
            api.store_trials(signal, pictures, "categories", **wrong_axes)
        for fact in facts:
            assert fact in f"{caught.value.message} {caught.value.hint}"
    paint_pictures(home / "pictures", 2, 1)
    dataset = {"kind": "image-folder", "root": str(home / "pictures")}
    with pytest.raises(MissingData, match="pictures"):
        api.store_trials(cube, names, dataset, **axes)


def find_hits(evaluation_result):
    """Find the row of the accuracy over all cells, called top-1 for pictures."""
    (row,) = (
        row
        for row in evaluation_result.metrics()
        if row["scope"] == "all" and row["metric"] in ("top1", "accuracy")
    )
    return row


CATEGORIES = ["face", "house"] * 6


@pytest.mark.parametrize(
    ("pictures", "runs", "argument", "facts"),
    [
        (CATEGORIES, [3] * 12, "runs=[n]", ("3", "12 trials")),
        (CATEGORIES, 1, "runs=[n]", ("1",)),
        (sorted(CATEGORIES), [1] * 6 + [2] * 6, "runs", ("run 1", "house")),
        (["face"] * 12, None, "pictures=[n]", ("face",)),
        ([f"{n}" for n in range(12)], None, "pictures", ("12 trials",)),
    ],
)
def test_what_cannot_be_held_out_is_told_in_the_words_of_fit(
    home, pictures, runs, argument, facts
):
    """The error names an argument of `fit`, and not `dataset.holdout.folds`."""
    with pytest.raises(RecipeError) as caught:
        api.fit(np.zeros((12, 8)), pictures, runs=runs)

    text = f"{caught.value.message} {caught.value.hint}"
    assert argument in text
    assert "holdout" not in text
    assert "fold " not in text
    for fact in facts:
        assert fact in caught.value.message


def test_categories_with_few_trials_get_as_many_folds(home):
    signal = np.random.default_rng(0).normal(size=(6, 8))

    trained, evaluated = api.fit(signal, ["face", "house"] * 3)

    assert find_hits(evaluated)["n"] == 6
    holdout = trained.recipe()["dataset"]["holdout"]
    assert (holdout["by"], holdout["folds"]) == ("trials", 3)


@pytest.mark.parametrize(
    ("onset_s", "compared_side", "has_caveat"),
    [(None, "conditional", True), ("in order", "above chance", False)],
)
def test_rows_of_unknown_order_are_claimed_under_a_condition(
    home, onset_s, compared_side, has_caveat
):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], 30))
    signal = simulate(2 * np.eye(2)[labels], 4, 3)
    axes = AXES | {"times_s": TIMES_S[:3], "onset_s": onset_s}
    categories = np.array(["face", "house"])[labels].tolist()

    _, evaluated = api.fit(signal, categories, **axes)

    facts = evaluated.measurements.facts
    assert facts.answers[0].side == compared_side
    assert facts.verdict.startswith("above chance")
    assert (ORDER_UNKNOWN in facts.caveats) == has_caveat
    assert ("only if" in str(evaluated)) == has_caveat


@pytest.mark.parametrize("channel_name", ["name", "values"])
def test_a_channel_of_triggers_is_refused(home, channel_name):
    labels = np.tile([0, 1], 20)
    signal = simulate(np.eye(2)[labels], 4, 3)
    signal[:, 3] = 1 + labels[:, None]
    name = "STI 014" if channel_name == "name" else "A4"
    axes = AXES | {"channels": ["Oz", "Pz", "Cz", name], "times_s": TIMES_S[:3]}

    with pytest.raises(BrainhiveError, match=name):
        api.fit(signal, np.array(["face", "house"])[labels].tolist(), **axes)


def respond(labels):
    """Simulate trials of a second that contain only the response to the next label.

    Args:
        labels: Labels [runs, trials].

    Returns:
        Trials [runs × trials, C, T].
    """
    random = np.random.default_rng(0)
    responses = 2 * random.normal(size=(4, len(NAMES), 1))
    signal = random.normal(size=tuple(labels.shape) + (len(NAMES), 20))
    signal[:, :-1, :, 16:] += responses[labels[:, 1:]]
    return signal.reshape(-1, len(NAMES), 20)


def fit_four(signal, labels, **axes):
    """Fit four categories in five runs.

    Returns:
        The training run, the run of eval-retrieval, its accuracy and its verdict.
    """
    runs = np.repeat(np.arange(len(labels)), labels.shape[1])
    axes = {**AXES, "times_s": np.arange(20) / 20, **axes}
    categories = np.array(list("abcd"))[labels.ravel()].tolist()
    trained, evaluated = api.fit(signal, categories, runs=runs, **axes)
    (answer,) = evaluated.measurements.facts.answers
    return trained, evaluated.measurements.overall["accuracy"], answer


@pytest.mark.nightly
@pytest.mark.parametrize("design", ["cycle", "random"])
def test_responses_to_the_next_label_are_no_decoding_of_this_one(home, design):
    """If the order of labels repeats, overlapping windows predict a label from the
    response to the next label.
    """
    random = np.random.default_rng(1)
    labels = np.stack(
        [np.roll(np.tile(np.arange(4), 10), row) for row in (0, 1, 3, 2, 1)]
    )
    if design == "random":
        labels = random.permuted(labels, axis=1)
    onset_s = np.tile(0.8 * np.arange(40), 5)

    trained, top1, answer = fit_four(respond(labels), labels, onset_s=onset_s)

    assert (top1.value > 0.8) == (answer.side == "not testable") == (design == "cycle")
    assert ("the stimulus before" in answer.test) == (design == "cycle")
    # decoding by time is not tested either
    explained = api.open_run(api.run("explain", run=trained.path, draws=50).folder)
    facts = explained.measurements.facts
    assert bool(facts.untested) == (design == "cycle")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("axes", "compared_side"),
    [({"onset_s": "in order"}, "not testable"), ({}, "conditional")],
)
def test_rows_in_order_tell_labels_in_blocks(home, axes, compared_side):
    """A slow drift predicts them, too, which rows of unknown order cannot show."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)[None].repeat(5, 0)
    drift = np.linspace(-3, 3, 40)[:, None, None] * random.normal(size=(len(NAMES), 1))
    signal = (drift + random.normal(size=(5, 40, len(NAMES), 20))).reshape(
        -1, len(NAMES), 20
    )

    trained, top1, answer = fit_four(signal, labels, **axes)

    # predictions have the same caveats as the evaluation
    decoded = trained.predictions(cell=trained.cells[0].name)
    assert decoded.caveats == list(top1.caveats)
    assert top1.value > 0.6
    assert answer.side == compared_side
    assert ("order of trials unknown" in top1.caveats) == (not axes)
    assert ("signal or time" in top1.caveats) == bool(axes)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 1, 4), (6, 1, 4, 1)])
def test_betas_may_have_further_axes_of_one_entry(shape):
    betas = np.random.default_rng(0).normal(size=shape)
    trials = as_trials(betas, list("abcdef"), space=Voxels({"V1": np.arange(4) < 2}))
    np.testing.assert_array_equal(trials.signal[:, :, 0], betas.reshape(6, 4))
    with pytest.raises(RecipeError, match="channels"):
        as_trials(betas.reshape(6, 4, 1), times_s=[0.0])


@pytest.mark.parametrize(
    ("shape", "voxels"),
    [((5, 7), 7), ((5, 7, 1), 7), ((5, 1, 7), 7), ((5, 1, 1), 1), ((5, 2, 7), None)],
)
def test_betas_may_have_an_axis_of_one_sample(shape, voxels):
    signal = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    if voxels is None:
        with pytest.raises(RecipeError):
            as_trials(signal)
    else:
        trials = as_trials(signal, onset_s="in order")
        assert trials.signal.shape == (5, voxels, 1)
        np.testing.assert_array_equal(trials.signal.ravel(), signal.ravel())
        assert trials.trial_numbers.ravel().tolist() == list(range(5))
    with pytest.raises(BrainhiveError):
        as_trials(signal.ravel())
