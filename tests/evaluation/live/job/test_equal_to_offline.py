"""Tests that a replayed recording gives the tokens and ranks of eval-retrieval."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.evaluation.live.job import Job
from brainhive_cli.evaluation.live.loop import Loop
from brainhive_cli.evaluation.live.recipe import Recipe
from tests.worlds.command_fixtures import COLOURS, use_home
from tests.worlds.own_recordings import (
    PICTURES,
    Presentation,
    annotate,
    make_raw,
    write_pictures,
)

mne = pytest.importorskip("mne")
HERE = Launch(0, 1, torch.device("cpu"))
TRAINING = (
    "dataset=image-folder",
    f"encoders=[{COLOURS!r}]",
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "train.epochs=1",
    "train.precision=fp32",
    "train.validation=0",
    "train.batch_size=8",
)
PREPARATIONS = {
    "whitened": (),
    "plain": (
        "preparation.whiten=no",
        "preparation.rate_hz=500",
        "preparation.baseline=false",
    ),
    "zero": ("preparation.whiten=no", "preparation.band_hz=[1,40]"),
    "late": (
        "preparation.whiten=no",
        "preparation.band_hz=[1,40]",
        "preparation.phase=forward",
        "preparation.delay_ms=120",
    ),
}
NORMALISED = {
    "plain": (
        "signal.normalise=whiten",
        "signal.window_ms=[50,800]",
        "signal.channels=[O1,Cz,P7]",
    )
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, run_command):
    """Home with a recording of a person, several preparations, and a model of each."""
    with use_home(tmp_path_factory.mktemp("live")) as base:
        write_pictures(base / "data/image-folder")
        (base / "data/recordings").mkdir()
        for session in (1, 2):
            presentation = Presentation.randomize(4, seed=session)
            raw = annotate(
                make_raw(presentation, seed=session),
                presentation,
                list(presentation.pictures),
            )
            raw.save(
                base / f"data/recordings/sub-01_ses-0{session}.fif", verbose="ERROR"
            )
        run_command("embed", "dataset=image-folder", f"encoders=[{COLOURS!r}]")
        for name, steps in PREPARATIONS.items():
            run_command("prepare", "preparation.kind=recording", f"name={name}", *steps)
        yield base


@pytest.fixture(scope="module")
def models(base, run_command):
    return {
        name: run_command(
            "train-align", *TRAINING, f"signal.name={name}", *NORMALISED.get(name, ())
        ).folder
        for name in PREPARATIONS
    }


def open_session(run, *overrides, session=2):
    file = f"source.file=data/recordings/sub-01_ses-0{session}.fif"
    arguments = (
        f"run={run}",
        "source.kind=recording",
        file,
        "source.speed=10000",
    ) + tuple(overrides)
    job = Job.resolve(Recipe.resolve("live", None, {}, arguments))
    return job, job.open(HERE)


def watch(opened):
    """Collect the results of a session, with the tokens of their trials."""
    decoder, results, tokens = opened.decoder, [], []
    decode, encode = decoder.decode, decoder.model.encode

    def keep_tokens(*trials):
        tokens.append(encode(*trials))
        return tokens[-1]

    def keep_results(windows):
        if decoded := decode(windows):  # whose trials are encoded before averages
            pairs = zip(decoded, tokens[-1], strict=False)
            results.extend(
                SimpleNamespace(event=result.event, token=token)
                for result, token in pairs
            )
        return decoded

    decoder.model.encode = keep_tokens
    decoder.decode = keep_results
    return results


def replay(run, *overrides, session=2):
    """Replay a session, and return it with its results and tokens."""
    _, opened = open_session(run, *overrides, session=session)
    results = watch(opened)
    loop = Loop(opened, lambda event: None)
    assert loop.run() == "the stream ended"
    return opened, loop, results


def offline(person, session):
    """Return the tokens [n, D] of single trials by picture, in order of time."""
    responses = person.trials
    image_ids = person.open_pictures("test").image_ids
    tokens = {}
    for picture, row in enumerate(responses.stimulus):
        trials = responses.find_trials([picture])
        trial = trials[responses.sessions[trials] == session - 1]
        signals = torch.from_numpy(responses.singles[trial])
        tokens[image_ids[row]] = person.model.encode(responses, signals)
    return tokens


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["whitened", "plain", "late"])
def test_tokens_are_those_of_eval_retrieval_s_single_trials(models, name):
    opened, loop, results = replay(models[name])

    expected = offline(opened.decoder.person, session=2)
    seen = {image_id: 0 for image_id in expected}
    for result in results:
        # pictures of the training are known, too, and not ranked
        if result.event["rank"] is not None:
            shown = result.event["shown"]
            torch.testing.assert_close(
                result.token, expected[shown][seen[shown]], atol=1e-5, rtol=0
            )
            seen[shown] += 1
    assert seen == dict.fromkeys(PICTURES["test"], 4)
    assert len(loop.score.ranks) == 8
    assert not loop.counts.dropped
    assert loop.counts.windows == 32


@pytest.mark.nightly
def test_averages_of_repetitions_rank_as_in_eval_retrieval(models, base, run_command):
    """The store contains only the replayed session."""
    finished_plain = models["plain"]
    run_command(
        "prepare",
        "preparation.kind=recording",
        "name=plain",
        "paths.signals=only-second",
        *tuple(PREPARATIONS["plain"]) + ("preparation.files='*ses-02*'",),
    )
    _, loop, _ = replay(finished_plain)

    offline = run_command(
        "eval-retrieval",
        f"run={finished_plain}",
        "paths.signals=only-second",
        "sheet_rows=0",
    )

    measurements = RunFolder(offline.folder).measurements()
    (items,) = [measurements.items[name] for name in measurements.facts.cells]
    assert (
        dict(zip(items["image_ids"], np.array(items["ranks"]).ravel(), strict=True))
        == loop.score.average_ranks
    )


def test_what_cannot_be_equal_is_said_before_the_start(models):
    for name, arguments in {
        "zero": "looks ahead",
        "whitened": "session 2 of the training",
    }.items():
        _, opened = open_session(models[name])
        assert arguments in " ".join(opened.differences)
    _, opened = open_session(models["plain"])
    assert opened.differences == ()


def test_missing_channels_are_mapped_on_request(models):
    _, loop, _ = replay(
        models["plain"], "source.rename={Cz: CPz}", "channel_mapping=spline"
    )
    assert len(loop.score.ranks) == 8


def test_samples_that_were_lost_cost_their_trial_alone(models, base):
    raw = mne.io.read_raw(
        base / "data/recordings/sub-01_ses-02.fif", preload=True, verbose="ERROR"
    )
    onset = Presentation.randomize(4, seed=2).onsets[5]
    raw._data[:, onset + 200 : onset + 300] = np.nan
    (base / "lost").mkdir()
    raw.save(base / "lost/sub-01.fif", verbose="ERROR")
    _, loop, _ = replay(models["late"], "source.file=lost/sub-01.fif")
    assert loop.counts.windows == 31
    assert loop.counts.lost == 100
    assert set(loop.counts.dropped.values()) == {1}
