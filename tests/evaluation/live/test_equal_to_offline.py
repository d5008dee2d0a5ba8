"""A recording that is replayed live gives the tokens and ranks that eval-retrieval has of its trials."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from own_recordings import PICTURES, Shown, annotate, make_raw, write_pictures
from worlds import COLOURS, at_home

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.signals.cutting import covariance, whitener
from brainhive_cli.evaluation.live.decoder import plan_preparation
from brainhive_cli.evaluation.live.job import Job
from brainhive_cli.evaluation.live.loop import Loop
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery
from brainhive_cli.measurement.ranks import ranks

pytest.importorskip("mne")
HERE = Launch(0, 1, torch.device("cpu"))
TRAINING = (
    *("dataset=image-folder", f"encoders=[{COLOURS!r}]", "seeds=1", "dim=16", "fuser.intermediate_size=16"),
    *("train.epochs=1", "train.precision=fp32", "train.validation=0", "train.batch_size=8"),
)
PREPARATIONS = {
    "whitened": (),
    "forward": ("preparation.whiten=no", "preparation.band_hz=[0.5,40]", "preparation.phase=forward"),
    "plain": ("preparation.whiten=no", "preparation.rate_hz=500", "preparation.baseline=false"),
    "zero": ("preparation.whiten=no", "preparation.band_hz=[1,40]"),
}
NORMALISED = {"plain": ("signal.normalise=whiten", "signal.window_ms=[50,800]", "signal.channels=[O1,Cz,P7]")}


@pytest.fixture(scope="module")
def base(tmp_path_factory, go):
    """A home with a recording of one person, prepared in several ways, and a model of each."""
    with at_home(tmp_path_factory.mktemp("live")) as base:
        write_pictures(base / "data/image-folder")
        (base / "data/recordings").mkdir()
        for session in (1, 2):
            shown = Shown.of(4, seed=session)
            raw = annotate(make_raw(shown, seed=session), shown, list(shown.pictures))
            raw.save(base / f"data/recordings/sub-01_ses-0{session}.fif", verbose="ERROR")
        go("embed", "dataset=image-folder", f"encoders=[{COLOURS!r}]")
        for name, steps in PREPARATIONS.items():
            go("prepare", "preparation.kind=recording", f"name={name}", *steps)
        yield base


@pytest.fixture(scope="module")
def models(base, go):
    return {
        name: go("train-align", *TRAINING, f"signal.name={name}", *NORMALISED.get(name, ())).folder
        for name in PREPARATIONS
    }


def open_session(run, *overrides, session=2):
    file = f"source.file=data/recordings/sub-01_ses-0{session}.fif"
    words = (f"run={run}", "source.kind=recording", file, "source.speed=10000", *overrides)
    job = Job.resolve(Recipe.resolve("live", None, {}, words))
    return job, job.open(HERE)


def watch(opened):
    """Collect the results of a session, with the tokens of their trials."""
    decoder, results, tokens = opened.decoder, [], []
    decode, encode = decoder.decode, decoder.member.encode

    def keep_tokens(*trials):
        tokens.append(encode(*trials))
        return tokens[-1]

    def keep_results(windows):
        if decoded := decode(windows):  # whose trials are encoded before averages
            pairs = zip(decoded, tokens[-1], strict=False)
            results.extend(SimpleNamespace(event=result.event, token=token) for result, token in pairs)
        return decoded

    object.__setattr__(decoder.member, "encode", keep_tokens)
    decoder.decode = keep_results
    return results


def replay(run, *overrides, session=2):
    """Replay a session; return the opened session and its results, with tokens."""
    _, opened = open_session(run, *overrides, session=session)
    results = watch(opened)
    loop = Loop(opened, lambda event: None)
    assert loop.run() == "the stream ended"
    return opened, loop, results


def offline(member, session):
    """Tokens [n, D] of the single trials of a session in order of time, by picture."""
    responses = member.trials(1, "test")
    image_ids = member.pictures("test").image_ids
    tokens = {}
    for row, trials, sessions in zip(responses.stimulus, responses.singles, responses.sessions, strict=True):
        chosen = torch.from_numpy(trials[sessions == session - 1])
        tokens[image_ids[row]] = member.encode(responses, chosen)
    return tokens


@pytest.mark.parametrize("name", ["whitened", "forward", "plain"])
def test_tokens_are_those_of_eval_retrieval_s_single_trials(models, name):
    opened, loop, results = replay(models[name])

    expected = offline(opened.decoder.member, session=2)
    seen = {image_id: 0 for image_id in expected}
    for result in results:
        if (shown := result.event["shown"]) is not None:
            torch.testing.assert_close(result.token, expected[shown][seen[shown]], atol=1e-5, rtol=0)
            seen[shown] += 1
    assert seen == dict.fromkeys(PICTURES["test"], 4)
    assert len(loop.score.ranks) == 8 and not loop.counts.dropped and loop.counts.windows == 32


def test_the_average_of_all_repetitions_ranks_as_eval_retrieval_does(models, base, go):
    """Of a store of the replayed session alone."""
    run = models["plain"]
    go(
        *("prepare", "preparation.kind=recording", "name=plain", "paths.signals=only-second"),
        *(*PREPARATIONS["plain"], "preparation.files='*ses-02*'"),
    )
    _, loop, _ = replay(run)

    offline = go("eval-retrieval", f"run={run}", "paths.signals=only-second", "sheet_rows=0")

    measured = RunFolder(offline.folder).measurements()
    (items,) = [measured.items[name] for name in measured.facts.cells]
    assert (
        dict(zip(items["image_ids"], np.array(items["ranks"]).ravel(), strict=True))
        == loop.score.average_ranks
    )


def test_what_cannot_be_equal_is_said_before_the_start(models):
    for name, words in {"zero": "looks ahead", "whitened": "session 2 of the training"}.items():
        _, opened = open_session(models[name])
        assert words in " ".join(opened.differs)
    _, opened = open_session(models["forward"])
    assert opened.differs == ()


def test_what_no_stream_can_go_through_is_said_before_a_stream_is_waited_for(models):
    words = (f"run={models['whitened']}", "subject=7", "source.kind=recording", "source.file=absent.fif")
    with pytest.raises(MissingData, match="no whitener of subject 7"):
        Job.resolve(Recipe.resolve("live", None, {}, words)).open(HERE)


def test_the_noise_of_the_first_trials_whitens_the_others(models):
    opened, loop, results = replay(models["whitened"], "whiten_trials=20")

    assert loop.counts.windows == 32 and len(results) == 12
    assert "first 20 trials" in opened.differs[0]
    own, trained = (opened.decoder.whitener, opened.decoder.member.module.learned.whiteners[1][1])
    assert not np.allclose(own, trained) and np.corrcoef(own.ravel(), trained.ravel())[0, 1] > 0.9


def test_events_of_unknown_pictures_are_not_one_picture_to_the_noise(models, base):
    _, opened = open_session(models["whitened"], "whiten_trials=20")
    cut, decode = [], opened.decoder.decode
    opened.decoder.decode = lambda windows: cut.extend(windows) or decode(windows)
    Loop(opened, lambda event: None).run()

    epochs = np.stack([window.signal for window in cut[:20]])
    _, pictures = np.unique([window.name for window in cut[:20]], return_inverse=True)
    noise = covariance(epochs, pictures, "epochs")
    expected = whitener(noise, opened.decoder.preparation.channels)
    np.testing.assert_allclose(opened.decoder.whitener, expected, rtol=1e-5)


def test_channels_that_were_interpolated_offline_are_said_not_to_be_live(models):
    _, opened = open_session(models["plain"])
    model = opened.decoder.member.module
    spec = replace(model.layout.spec, preparation={**model.layout.spec.preparation, "interpolate": True})
    changed = SimpleNamespace(layout=SimpleNamespace(spec=spec), learned=model.learned)
    member = opened.decoder.member
    member = SimpleNamespace(run=member.run, cell=member.cell, source=member.source, module=changed)
    planned = plan_preparation(member, opened.job.recipe)
    assert ["interpolated" in sentence for sentence in planned.differs] == [True]
    assert opened.differs == ()


def test_keys_without_effect_on_a_store_are_refused(models):
    for key in ("whiten_trials=20", "events=events.csv"):
        words = (f"run={models['whitened']}", "source.kind=signals", key)
        with pytest.raises(RecipeError, match="no effect on prepared trials"):
            Recipe.resolve("live", None, {}, words)


def test_a_missing_channel_of_a_whitener_cannot_be_mapped_and_the_hint_says_no_mapping(models):
    with pytest.raises(BrainhiveError, match="no channel Cz, which the model needs for its") as refusal:
        open_session(models["whitened"], "source.rename={Cz: CPz}", "channel_mapping=spline")
    assert "spline" not in refusal.value.hint
    with pytest.raises(BrainhiveError) as refusal:
        open_session(models["plain"], "source.rename={Cz: CPz}")
    assert "channel_mapping=spline" in refusal.value.hint


def test_a_person_without_a_whitener_is_told_of_the_first_trials(models):
    with pytest.raises(MissingData, match="no whitener of subject 7") as refusal:
        open_session(models["whitened"], "subject=7")
    assert "--whiten-trials 100" in refusal.value.hint


def test_missing_channels_and_other_units_are_refused_by_name(models, base, monkeypatch):
    from brainhive_cli.data.streams import recording

    with pytest.raises(BrainhiveError, match="no channel Cz, which the model needs"):
        open_session(models["plain"], "source.rename={Cz: CPz}")
    monkeypatch.setitem(recording.UNITS, "eeg", (1e3, "mV"))
    with pytest.raises(BrainhiveError, match="O1, Cz, P7 in mV, the model takes µV") as refusal:
        open_session(models["plain"])
    assert "a stream of channels in µV" in refusal.value.hint  # a file has no key of its unit


def test_missing_channels_are_mapped_on_request(models):
    _, loop, _ = replay(models["plain"], "source.rename={Cz: CPz}", "channel_mapping=spline")
    assert len(loop.score.ranks) == 8


def test_windows_of_a_store_are_its_single_trials(models):
    words = (f"run={models['whitened']}", "source.kind=signals", "source.speed=1e6")
    opened = Job.resolve(Recipe.resolve("live", None, {}, words)).open(HERE)
    results = watch(opened)
    Loop(opened, lambda event: None).run()

    responses = opened.decoder.member.trials(1, "test")
    expected = opened.decoder.member.encode(responses, torch.from_numpy(np.concatenate(responses.singles)))
    live = torch.stack([result.token for result in results])
    assert len(live) == len(expected) == 16
    distance = torch.cdist(live, expected)
    assert distance.min(1).values.max() < 1e-5 and sorted(distance.argmin(1).tolist()) == [*range(16)]


def test_a_gallery_of_live_ranks_as_that_of_retrieval(models):
    opened, _, results = replay(models["forward"])
    gallery = open_gallery([opened.decoder.member], ["test"])
    tested = [result for result in results if result.event["shown"] is not None]
    tokens, images = (
        torch.stack([result.token for result in tested]),
        encode_gallery([opened.decoder.member], gallery),
    )
    rows = np.array([opened.decoder.image_ids.index(result.event["shown"]) for result in tested])
    assert ranks(tokens, images, torch.from_numpy(rows)).tolist() == [
        result.event["rank"] for result in tested
    ]
